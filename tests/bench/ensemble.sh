#!/usr/bin/env bash
# An ensemble beside its members, by true labels: the first N test images of Fashion-MNIST as a batch, without a deadline and with ones from
# generous to what its fastest sub-model needs. The models are trained first (same network and data, seeds 1 and 2), or come from MODELS
# with their validation.bin. Prints what the endpoints list, then CSV: endpoint, deadline (0: none), the share of the N that was
# answered rightly and in time (percent), effective accuracy by the scheduler's own figures, late, dropped, what ran.
#
#	TRAIN='"epochs":3' N=10000 ROUNDS=2 MODELS="DIRECTORY DIRECTORY" LOADS="0.15 0.3 0.6 1" tests/bench/ensemble.sh
source "$(dirname "$0")/lib.sh"
n=${N:-10000}

bench_mount ${OPTIONS:+-o "$OPTIONS"}
if [ -n "${MODELS:-}" ]; then
	name=a # then b
	for from in $MODELS; do
		mkdir -p "$ml/models/$name/1"
		cp "$from"/{model.json,weights.safetensors,labels.txt,slices.csv,validation.bin} "$ml/models/$name/1/"
		name=b
	done
else
	mkdir "$ml/datasets/fashion"
	cp $data/*-ubyte.gz "$ml/datasets/fashion/"
	for name in a b; do
		mkdir "$ml/jobs/$name"
		echo '{"dataset":"fashion","net":{"arch":"resnet","depth":8,"width":16,"norm":"batch"},'"${TRAIN:-\"epochs\":3}"',"seed":'"$([ $name = a ] && echo 1 || echo 2)"'}' \
			>"$ml/jobs/$name/spec.json"
	done
	for name in a b; do
		"$inferfs" wait "$ml/models/$name/latest" --timeout 60m
		sed "s/^/$name: /" "$ml/models/$name/latest/slices.csv"
		if [ -n "${KEEP:-}" ]; then
			mkdir -p "$KEEP/$name"
			cp -L "$ml/models/$name/latest/"*.* "$KEEP/$name/"
		fi
	done
fi
bench_png "$n"
for name in a b both; do
	model='"model":"'$name'"'
	[ $name != both ] || model='"models":["a","b"]'
	bench_endpoint $name "{$model${POLICY:+,\"policy\":\"$POLICY\"}}"
	sed "s/^/$name: /" "$ml/infer/$name/slices.csv"
done
fast=$(awk -F, 'NR > 1 && $NF == "yes" && (!t || $4 < t) { t = $4 } END { print t }' "$ml/infer/both/slices.csv")
echo "endpoint,deadline_ms,right_in_time,effective,late,dropped,ran"
i=0
for round in $(seq "${ROUNDS:-1}"); do
	for load in 0 ${LOADS:-0.15 0.3 0.6 1}; do
		ms=$(awk -v n="$n" -v t="$fast" -v l="$load" 'BEGIN { printf "%d", l ? n / 32 * t / l : 0 }')
		for name in a b both; do
			app=$ml/infer/$name b=b$((i += 1))
			mkdir "$app/in/$b"
			cp "$work"/png/*.png "$app/in/$b/"
			[ "$ms" = 0 ] || setfattr -n user.deadline -v "${ms}ms" "$app/in/$b"
			"$inferfs" wait "$app/out/$b/task.json" --timeout 10m
			python3 - "$app/out/$b" "$ml/models/a/1/labels.txt" "$name,$ms" <<'P'
import collections, csv, json, os, sys
out, names, head = sys.argv[1:]
names = open(names).read().splitlines()
rows = list(csv.DictReader(open(out + "/results.csv")))
task = json.load(open(out + "/task.json"))
truth = lambda r: names[int(os.path.splitext(r["file"])[0].rsplit("-", 1)[1])] # NNNNN-LABEL.png
right = sum(r["status"] == "ok" and r["label"] == truth(r) for r in rows)
count = lambda s: sum(r["status"] == s for r in rows)
ran = collections.Counter(r["slice"] + ":" + r["precision"] for r in rows if r["status"] == "ok")
print("%s,%.2f,%.2f,%d,%d,%s" % (head, 100 * right / len(rows), task["effective_accuracy"], count("late"), count("dropped"),
      " ".join("%s=%d" % k for k in ran.most_common())))
P
			rm -r "$app/in/$b" "$app/out/$b"
		done
	done
done
