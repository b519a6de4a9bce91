#!/usr/bin/env bash
# The policies of spec.json beside each other on a mounted tree, by true labels: batches of N test images, with deadlines from ample to a
# third of what the fastest sub-model needs. Prints CSV: load (offered rate ÷ what the fastest can), policy, the share of the N that was
# answered rightly and in time (percent), the optimum of Eq. 2 for the sub-models' accuracies on the test images and the times
# in slices.csv, what the batch's mini-batches took ÷ these times (speed; a machine that others share has more than one) and the optimum for
# that (of cascades it is too low: what ran twice shows its second mini-batch only), what came late or was dropped, and what was said at the
# submission: planned, and how many in time. Nothing is computed ahead of the submission unless AHEAD=true. SPEC: further members of spec.json, as '"precision":["f32"]'.
# With DEADLINE in ms it is that of all, and N follows from the load (up to 20,000: each test image twice).
#
#	MODEL=DIRECTORY [N=4000 | DEADLINE=8000] ROUNDS=2 LOADS="0.2 0.35 0.5 0.7 1 1.5 3" POLICIES="cascade optimal best-single full-drop" tests/bench/policies.sh
source "$(dirname "$0")/lib.sh"
n=${N:-4000}
loads=${LOADS:-0.2 0.35 0.5 0.7 1 1.5 3}
most=20000

bench_mount ${OPTIONS:+-o "$OPTIONS"}
bench_model
spec() { # POLICY
	echo "{\"model\":\"fashion\",\"policy\":\"$1\",\"ahead\":${AHEAD:-false}${SPEC:+,$SPEC}}"
}
bench_endpoint app "$(spec optimal)"
app=$ml/infer/app
cat "$app/slices.csv"

# What the planner reaches: test accuracies of the loaded sub-models, their times here.
read -r fast accuracies times ones < <(python3 - "$app/slices.csv" "$ml/models/fashion/1/slices.csv" <<'P'
import csv, sys
here, test = (list(csv.DictReader(open(f))) for f in sys.argv[1:3])
of = {(float(r["slice"]), r["precision"]): float(r["test_accuracy"]) for r in test}
here = [r for r in here if r["loaded"] == "yes"]
list_of = lambda f: ",".join(str(f(r)) for r in here)
print(min(float(r["ms"]) for r in here), list_of(lambda r: of[float(r["slice"]), r["precision"]]),
      list_of(lambda r: r["ms"]), list_of(lambda r: r["ms_one"]))
P
)
of_load() { # LOAD -> COUNT, DEADLINE IN ms
	awk -v n="$n" -v ms="${DEADLINE:-0}" -v t="$fast" -v l="$1" -v most="$most" \
		'BEGIN { if (ms) n = int(32 * l * ms / t); print (n > most ? most : n), (ms ? ms : int(n / 32 * t / l)) }'
}
count_most=0
for load in $loads; do
	read -r count _ < <(of_load "$load")
	count_most=$((count > count_most ? count : count_most))
done
bench_png $((count_most < 10000 ? count_most : 10000))
pngs=("$work"/png/*)
for png in "${pngs[@]:0:$((count_most > 10000 ? count_most - 10000 : 0))}"; do
	pngs+=("$work/png/again-${png##*/}")
	cp "$png" "${pngs[-1]}"
done
eq2() { # FACTOR OF THE TIMES, DEADLINE IN ms
	"$inferfs" plan --accuracy "$accuracies" --time-ms "$(scaled "$times" "$1")" --time-one-ms "$(scaled "$ones" "$1")" --count "$n" --deadline "$2ms" |
		python3 -c 'import json, sys; print("%.2f" % json.load(sys.stdin)["p_eff"])'
}
scaled() { python3 -c 'import sys; print(",".join("%.6f" % (float(t) * float(sys.argv[2])) for t in sys.argv[1].split(",")))' "$@"; }
# What its mini-batches took ÷ what slices.csv says: instances of one have the same times.
speed_of() { # DIRECTORY
	python3 - "$1/results.csv" "$app/slices.csv" <<'P'
import csv, sys
ran, said = (list(csv.DictReader(open(f))) for f in sys.argv[1:])
of = {(float(r["slice"]), r["precision"]): (float(r["ms"]), float(r["ms_one"])) for r in said}
sizes = {}
for r in ran:
    if r["compute_ms"]:
        key = float(r["slice"]), r["precision"], float(r["queued_ms"]), float(r["compute_ms"])
        sizes[key] = sizes.get(key, 0) + 1
real = sum(key[3] for key in sizes)
expected = sum(of[key[:2]][1] + (of[key[:2]][0] - of[key[:2]][1]) * min(k - 1, 31) / 31 for key, k in sizes.items())
print("%.3f" % (real / expected if expected else 1))
P
}
echo "load,policy,count,deadline_ms,right_in_time,optimum,speed,optimum_then,ok,late,dropped,failed,planned,admitted"
i=0
for round in $(seq "${ROUNDS:-1}"); do
	for load in $loads; do
		read -r n ms < <(of_load "$load")
		optimum=$(eq2 1 "$ms")
		for policy in ${POLICIES:-cascade optimal best-single full-drop}; do
			b=b$((i += 1))
			spec "$policy" >"$app/spec.json"
			mkdir "$app/in/$b"
			cp "${pngs[@]:0:n}" "$app/in/$b/"
			setfattr -n user.deadline -v "${ms}ms" "$app/in/$b"
			"$inferfs" wait "$app/out/$b/task.json" --timeout 5m
			speed=$(speed_of "$app/out/$b")
			python3 - "$app/out/$b" "$ml/models/fashion/1/labels.txt" "$load,$policy,$n,$ms" "$optimum,$speed,$(eq2 "$speed" "$ms")" <<'P'
import csv, json, os, sys
out, names, head, optimum = sys.argv[1:]
names = open(names).read().splitlines()
rows = list(csv.DictReader(open(out + "/results.csv")))
task = json.load(open(out + "/task.json"))
truth = lambda r: names[int(os.path.splitext(r["file"])[0].rsplit("-", 1)[1])] # NNNNN-LABEL.png
right = sum(r["status"] == "ok" and r["label"] == truth(r) for r in rows)
count = lambda s: sum(r["status"] == s for r in rows)
print("%s,%.2f,%s,%d,%d,%d,%d,%.2f,%d" % (head, 100 * right / len(rows), optimum, count("ok"), count("late"),
      count("dropped"), count("failed"), task["planned_effective_accuracy"], -1 if task["admitted"] is None else task["admitted"]))
P
			rm -r "$app/in/$b" "$app/out/$b"
		done
	done
done
