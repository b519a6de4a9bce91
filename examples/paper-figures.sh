#!/usr/bin/env bash
# The paper's Figures 7(b), 8(a), 8(b) and 8(c), for every policy, by simulating the scheduler: batches of 32 to 30,000 instances, each
# due in 8 s, mini-batches of 32 whose times vary by 5 %. Writes DIRECTORY/*.csv and one SVG a figure.
#
#	examples/paper-figures.sh DIRECTORY			of the paper's Table 3 (X-ray)
#	examples/paper-figures.sh DIRECTORY infer/APP/slices.csv	of an endpoint's measured times (batch: as it was measured with)
#	BATCH=64 DEADLINE=2 SEED=7 examples/paper-figures.sh …
#
# Figure 7(b): effective accuracy over the offered rate; 8(a): answers in time a second; 8(b): time until a batch is finished;
# 8(c): the sub-models' shares of the mini-batches (of the policy "optimal").
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
inferfs=${INFERFS:-$here/build/release/inferfs}
out=${1:?usage: examples/paper-figures.sh DIRECTORY [SLICES.CSV]}
accuracy=79.37,71.88,70.94,65.12
times=45.12,34.56,22.72,15.68
ones=
if [ $# -gt 1 ]; then
	# slice,precision,accuracy,ms,ms_one,loaded
	accuracy=$(awk -F, 'NR > 1 && $6 == "yes" { printf "%s%s", n++ ? "," : "", $3 }' "$2")
	times=$(awk -F, 'NR > 1 && $6 == "yes" { printf "%s%s", n++ ? "," : "", $4 }' "$2")
	ones=$(awk -F, 'NR > 1 && $6 == "yes" { printf "%s%s", n++ ? "," : "", $5 }' "$2")
	[ -n "$times" ] || { echo "$2: no sub-model is loaded" >&2; exit 1; }
fi
if [ ! -x "$inferfs" ]; then
	"$here/examples/install-packages.sh"
	cmake -S "$here" -B "$here/build/release" -G Ninja -DBUILD_TESTING=OFF >/dev/null
	ninja -C "$here/build/release" --quiet
fi
mkdir -p "$out"

# As many instances as a fraction of 0.1 to 2 of what the fastest sub-model can in that time, and 32.
counts=$(awk -v t="$times" -v s="${BATCH:-32}" -v d="${DEADLINE:-8}" 'BEGIN {
	n = split(t, ms, ",")
	for (i = 1; i <= n; i++) least = i == 1 || ms[i] < least ? ms[i] : least
	printf "32"
	for (f = 0.1; f <= 2.01; f += f < 0.999 ? 0.05 : 0.2) {
		count = int(f * d * 1e3 / least * s)
		if (count > 32 && count <= 200000) printf ",%d", count
	}
}')
"$inferfs" simulate - >"$out/simulated.csv" <<TRACE
{"profile": {"accuracy": [$accuracy], "time_ms": [$times]${ones:+, "one_ms": [$ones]}},
 "batch": ${BATCH:-32}, "deadline": ${DEADLINE:-8}, "instances": [$counts], "noise": 0.05, "seed": ${SEED:-1}}
TRACE

# LINES: "series x y" each. draw TITLE X-LABEL Y-LABEL <LINES >SVG
draw() {
	awk -v title="$1" -v xlabel="$2" -v ylabel="$3" '
	function x_of(v) { return 70 + 560 * v / xmax }
	function y_of(v) { return 350 - 300 * (v - ymin) / (ymax - ymin) }
	function step(range,   s) {
		s = 10 ^ int(log(range) / log(10) - (range < 1))
		return range / s > 5 ? s : range / s > 2 ? s / 2 : s / 5
	}
	{
		if (!($1 in points)) order[++series] = $1
		points[$1] = points[$1] " " $2 "," $3
		if ($2 > xmax) xmax = $2
		if (NR == 1 || $3 > ymax) ymax = $3
	}
	END {
		split("#1b6ca8 #c0392b #27824a #b7791f #6b4fa0 #555555 #0a8f8f #a83279", colour, " ")
		if (ymax <= 0) ymax = 1
		ymax *= 1.04
		print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"820\" height=\"420\" font-family=\"sans-serif\" font-size=\"13\">"
		print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
		printf "<text x=\"350\" y=\"28\" text-anchor=\"middle\" font-size=\"16\">%s</text>\n", title
		for (v = 0; v <= ymax; v += step(ymax)) {
			printf "<line x1=\"70\" x2=\"630\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>", y_of(v), y_of(v)
			printf "<text x=\"64\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", y_of(v) + 4, v
		}
		for (v = 0; v <= xmax; v += step(xmax))
			printf "<text x=\"%.1f\" y=\"368\" text-anchor=\"middle\">%g</text>\n", x_of(v), v
		printf "<text x=\"350\" y=\"396\" text-anchor=\"middle\">%s</text>\n", xlabel
		printf "<text transform=\"translate(18 200) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", ylabel
		print "<path d=\"M70 50V350H630\" fill=\"none\" stroke=\"black\"/>"
		for (k = 1; k <= series; k++) {
			n = split(points[order[k]], p, " ")
			path = ""
			for (i = 1; i <= n; i++) {
				split(p[i], xy, ",")
				path = path sprintf("%.1f,%.1f ", x_of(xy[1]), y_of(xy[2]))
			}
			printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", path, colour[k],
				order[k] == "bound" ? " stroke-dasharray=\"2 4\"" : ""
			printf "<text x=\"645\" y=\"%d\" fill=\"%s\">%s</text>\n", 50 + 20 * k, colour[k], order[k]
		}
		print "</svg>"
	}'
}

# series POLICY-FILTER COLUMN: lines for draw
column() { awk -F, -v c="$1" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next } { print $1, $(at["rate"]), $(at[c]) }' "$out/simulated.csv"; }

{
	column effective_accuracy
	awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next } $1 == "optimal" { print "bound", $(at["rate"]), $(at["bound"]) }' "$out/simulated.csv"
} | draw "Figure 7(b): effective accuracy" "offered instances a second" "percent" >"$out/figure-7b.svg"
column throughput | draw "Figure 8(a): throughput" "offered instances a second" "answers in time a second" >"$out/figure-8a.svg"
column latency_ms | draw "Figure 8(b): latency of a batch" "offered instances a second" "ms" >"$out/figure-8b.svg"
awk -F, -v accuracy="$accuracy" '
	NR == 1 { n = split(accuracy, p, ","); for (i = 1; i <= NF; i++) at[$i] = i; next }
	$1 == "optimal" { for (i = 1; i <= n; i++) print p[i] "%", $(at["rate"]), 100 * $(at["share_" i]) }' "$out/simulated.csv" |
	sort -s -k1,1 | draw "Figure 8(c): shares of the sub-models" "offered instances a second" "percent of the mini-batches" >"$out/figure-8c.svg"
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
	$1 == "optimal" { share = 100 * $(at["effective_accuracy"]) / $(at["bound"]); if (!n++ || share < least) { least = share; of = $(at["instances"]) } }
	END { printf "optimal: at least %.2f %% of the bound (at %d instances)\n", least, of }' "$out/simulated.csv"
echo "$out/simulated.csv $out/figure-7b.svg $out/figure-8a.svg $out/figure-8b.svg $out/figure-8c.svg"
