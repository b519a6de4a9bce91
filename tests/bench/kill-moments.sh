#!/usr/bin/env bash
# kill -9 at random moments under load: DAEMON times the daemon, WORKER times the inference worker. Afterwards every
# instance that was copied in has exactly one answer, no answer was seen twice, the volume is clean.
#
#   kill-moments.sh [DAEMON [WORKER]]	(25 and 25)
source "$(dirname "$0")/lib.sh"
daemons=${1:-25} workers=${2:-25}
per_batch=60

bench_mount ${OPTIONS:+-o "$OPTIONS"}
bench_model
bench_endpoint app '{"model":"fashion","explain":["gradcam"]}'
bench_png $per_batch
app=$ml/infer/app
touch "$work/seen"
watch() {
	"$BUILD/tools/watch" "$app/out" >>"$work/seen" 2>>"$work/log" &
	watcher=$!
}
# Batches for ever: one is copied into in/ (when a crash cuts that short it stays as it is: what is there must be answered), the
# next is copied elsewhere and renamed into place.
load() {
	local b=0
	while [ ! -e "$work/stop" ]; do
		b=$((b + 1))
		if [ $((b % 2)) = 0 ]; then
			mkdir "$app/in/b$b" && cp "$work"/png/*.png "$app/in/b$b/" &&
				setfattr -n user.deadline -v 60s "$app/in/b$b" || sleep 0.1
		else
			until [ -d "$app/in/b$b" ] || [ -e "$work/stop" ]; do
				mkdir -p "$ml/datasets/staged/b$b" &&
					cp "$work"/png/*.png "$ml/datasets/staged/b$b/" &&
					mv "$ml/datasets/staged/b$b" "$app/in/b$b" || sleep 0.1
			done
		fi
		echo "$b" >"$work/batches"
		while [ $((b - $(ls "$app/out"/b*/task.json | wc -l))) -gt 5 ] && [ ! -e "$work/stop" ]; do
			sleep 0.05
		done
	done 2>/dev/null
}
watch
load &
loader=$!
mounts=0
for kill in $({
	yes daemon | head -n "$daemons"
	yes worker | head -n "$workers"
} | shuf); do
	sleep "0.$((RANDOM % 9))$((RANDOM % 10))"
	if [ "$kill" = worker ]; then
		kill -9 $(workers infer) 2>/dev/null || true
		continue
	fi
	kill -9 "$daemon"
	wait "$daemon" 2>/dev/null || true
	kill $watcher 2>/dev/null || true
	start=$(date +%s%N)
	bench_mount
	mounts=$((mounts + 1))
	echo "mount $mounts after $((($(date +%s%N) - start) / 1000000)) ms"
	watch
done
touch "$work/stop"
wait $loader || true
last=$(cat "$work/batches")
echo "batches: $last"
for b in $(seq "$last"); do
	[ -n "$(ls "$app/in/b$b" 2>/dev/null)" ] || continue
	"$inferfs" wait "$app/out/b$b/task.json" --timeout 1m || echo "b$b: no task.json"
done
sleep 1
python3 - "$app" "$work/seen" "$last" <<'P'
import collections, csv, json, os, sys
app, seen, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
wrong = answered = 0
status = collections.Counter()
for b in range(1, last + 1):
    if not os.path.isdir("%s/in/b%d" % (app, b)) or not os.listdir("%s/in/b%d" % (app, b)):
        continue
    names = {n for n in os.listdir("%s/in/b%d" % (app, b)) if n.endswith(".png")}
    out = set(os.listdir("%s/out/b%d" % (app, b)))
    for n in names:
        answered += n + ".json" in out
        if n + ".json" not in out:
            print("b%d/%s: no answer" % (b, n))
            wrong += 1
        else:
            status[json.load(open("%s/out/b%d/%s.json" % (app, b, n)))["status"]] += 1
    rows = collections.Counter(r["file"] for r in csv.DictReader(open("%s/out/b%d/results.csv" % (app, b))))
    for f, k in rows.items():
        if k != 1:
            print("b%d %s: %d rows" % (b, f, k))
            wrong += 1
times = collections.Counter(l.split(" ", 2)[2].strip() for l in open(seen)
                            if " MOVED_TO " in l and l.strip().endswith(".png.json"))
twice = {k: v for k, v in times.items() if v > 1}
print("answered %d, by status %s, wrong %d, seen twice %d %s" % (answered, dict(status), wrong, len(twice), list(twice)[:3]))
sys.exit(bool(wrong or twice))
P
kill $watcher
kill "$daemon"
wait "$daemon" || true
daemon=
"$inferfs" fsck "$state" && echo "fsck: clean"
