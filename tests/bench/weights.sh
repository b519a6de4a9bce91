#!/usr/bin/env bash
# Two endpoints of one trained model with weights 3:1 on a mounted tree, each offered LOAD times what the device could do for it alone, for
# SECONDS seconds: an archive of images a second, deadline 2 s. Prints each one's part of the time that was computed and of the answers in
# time. POLICY is full-drop so that the device is what is short, and not the publication of answers; the other policies may be tried.
#
#	[MODEL=DIRECTORY] [LOAD=1.5] [DURATION=60] [WEIGHTS="3 1"] [POLICY=full-drop] BUILD=build/release tests/bench/weights.sh
#
# Without MODEL and quickstart it trains a model of its own first, for an epoch.
source "$(dirname "$0")/lib.sh"
load=${LOAD:-1.5} duration=${DURATION:-60} policy=${POLICY:-full-drop}
read -r weight_a weight_b <<<"${WEIGHTS:-3 1}"

train_model() {
	local job=$ml/jobs/fashion
	mkdir "$ml/datasets/fashion" "$job"
	cp $data/*.gz "$ml/datasets/fashion/"
	"$inferfs" wait "$ml/datasets/fashion/dataset.json" --timeout 2m
	echo '{"dataset":"fashion","net":{"arch":"resnet","depth":8,"width":16},"batch":64,"epochs":1}' >"$job/spec.json"
	"$inferfs" wait "$job/model" --timeout 30m || {
		cat "$job/state" "$job/error" >&2
		return 1
	}
}

bench_mount
bench_model 2>/dev/null || train_model
bench_endpoint a "{\"model\":\"fashion\",\"policy\":\"$policy\",\"deadline\":\"2s\",\"weight\":$weight_a}"
bench_endpoint b "{\"model\":\"fashion\",\"policy\":\"$policy\",\"deadline\":\"2s\",\"weight\":$weight_b}"
cat "$ml/infer/a/slices.csv"

n=$(awk -F, -v load="$load" -v full="$policy" '
	$6 == "yes" && (!best || (full == "full-drop" ? $3 > accuracy : $4 < best)) { best = $4; accuracy = $3 }
	END { printf "%d", load * 32000 / best }' "$ml/infer/a/slices.csv")
bench_png "$((n < 10000 ? n : 10000))"
tar -C "$work/png" -cf "$work/batch.tar" .
echo "offered: $n images a second to each (at most 10,000)"

# Seconds computed, answers in time, late, dropped.
figures() { # ENDPOINT
	awk -v e="endpoint=\"$1\"" '
		index($1, e) && /^inferfs_compute_seconds_total/ { busy += $2 }
		index($1, e) && /^inferfs_answers_total/ { split($1, part, "status=\""); sub(/".*/, "", part[2]); n[part[2]] = $2 }
		END { print busy + 0, n["ok"] + 0, n["late"] + 0, n["dropped"] + 0 }' "$ml/metrics"
}

feed() { # FROM TO: an archive a second to each
	local second
	for second in $(seq "$1" "$2"); do
		cp "$work/batch.tar" "$ml/infer/a/in/s$second.tar"
		cp "$work/batch.tar" "$ml/infer/b/in/s$second.tar"
		sleep "$(awk -v at="$((begin + second * 1000000000))" -v now="$(date +%s%N)" 'BEGIN { printf "%.3f", (at > now) ? (at - now) / 1e9 : 0 }')"
	done
}

begin=$(date +%s%N)
feed 1 4 # until both have work all the time
read -r busy_a ok_a late_a dropped_a < <(figures a)
read -r busy_b ok_b late_b dropped_b < <(figures b)
feed 5 $((duration + 4))
{
	figures a
	figures b
} | awk -v from="$busy_a $ok_a $late_a $dropped_a $busy_b $ok_b $late_b $dropped_b" -v weights="$weight_a $weight_b" -v s="$duration" '
	BEGIN { split(from, first); split(weights, weight) }
	{ for (i = 1; i <= 4; i++) d[NR, i] = $i - first[4 * (NR - 1) + i] }
	END {
		print "endpoint,weight,computed_s,device_share,in_time,answers_share,late,dropped"
		for (e = 1; e <= 2; e++)
			printf "%s,%g,%.2f,%.4f,%d,%.4f,%d,%d\n", e == 1 ? "a" : "b", weight[e], d[e, 1], d[e, 1] / (d[1, 1] + d[2, 1]),
				d[e, 2], d[e, 2] / (d[1, 2] + d[2, 2]), d[e, 3], d[e, 4]
		printf "ratio of device time %.3f, of answers in time %.3f; the device computed %.0f %% of %d s\n", d[1, 1] / d[2, 1],
			d[1, 2] / d[2, 2], 100 * (d[1, 1] + d[2, 1]) / s, s
	}'
