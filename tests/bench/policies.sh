#!/usr/bin/env bash
# The policies of spec.json beside each other on a mounted tree, by true labels: batches of N test images, with deadlines from ample to a
# third of what the fastest sub-model needs. Prints CSV: load (offered rate ÷ what the fastest can), policy, the share of the N that was
# answered rightly and in time (percent), the optimum of Eq. 2 for the sub-models' accuracies on the test images and the times
# in slices.csv, what came late or was dropped, and what was said at the submission: planned, and how many in time. Nothing is computed ahead of
# the submission unless AHEAD=true.
#
#	MODEL=DIRECTORY N=4000 ROUNDS=2 LOADS="0.2 0.35 0.5 0.7 1 1.5 3" POLICIES="cascade optimal best-single full-drop" tests/bench/policies.sh
source "$(dirname "$0")/lib.sh"
n=${N:-4000}

bench_mount ${OPTIONS:+-o "$OPTIONS"}
bench_model
bench_endpoint app '{"model":"fashion","ahead":false}'
bench_png "$n"
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
echo "load,policy,deadline_ms,right_in_time,optimum,ok,late,dropped,failed,planned,admitted"
i=0
for round in $(seq "${ROUNDS:-1}"); do
	for load in ${LOADS:-0.2 0.35 0.5 0.7 1 1.5 3}; do
		ms=$(awk -v n="$n" -v t="$fast" -v l="$load" 'BEGIN { printf "%d", n / 32 * t / l }')
		optimum=$("$inferfs" plan --accuracy "$accuracies" --time-ms "$times" --time-one-ms "$ones" --count "$n" --deadline "${ms}ms" |
			python3 -c 'import json, sys; print(json.load(sys.stdin)["p_eff"])')
		for policy in ${POLICIES:-cascade optimal best-single full-drop}; do
			b=b$((i += 1))
			echo "{\"model\":\"fashion\",\"policy\":\"$policy\",\"ahead\":${AHEAD:-false}}" >"$app/spec.json"
			mkdir "$app/in/$b"
			cp "$work"/png/*.png "$app/in/$b/"
			setfattr -n user.deadline -v "${ms}ms" "$app/in/$b"
			"$inferfs" wait "$app/out/$b/task.json" --timeout 5m
			python3 - "$app/out/$b" "$ml/models/fashion/1/labels.txt" "$load,$policy,$ms" "$optimum" <<'P'
import csv, json, os, sys
out, names, head, optimum = sys.argv[1:]
names = open(names).read().splitlines()
rows = list(csv.DictReader(open(out + "/results.csv")))
task = json.load(open(out + "/task.json"))
truth = lambda r: names[int(os.path.splitext(r["file"])[0].rsplit("-", 1)[1])] # NNNNN-LABEL.png
right = sum(r["status"] == "ok" and r["label"] == truth(r) for r in rows)
count = lambda s: sum(r["status"] == s for r in rows)
print("%s,%.2f,%.2f,%d,%d,%d,%d,%.2f,%d" % (head, 100 * right / len(rows), float(optimum), count("ok"), count("late"),
      count("dropped"), count("failed"), task["planned_effective_accuracy"], -1 if task["admitted"] is None else task["admitted"]))
P
			rm -r "$app/in/$b" "$app/out/$b"
		done
	done
done
