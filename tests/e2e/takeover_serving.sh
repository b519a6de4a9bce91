#!/bin/bash
# The daemon is replaced in the middle of tasks: every submitted instance is answered exactly once and seen once, deadlines are
# kept, files that are still being written are not taken for whole, no word to a ctl and no deadline is lost.
#	takeover_serving.sh [BATCHES]
. "$(dirname "$0")/lib.sh"
need setfattr getfattr python3 inotifywait
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 200 --folders
"$IDX2PNG" $fashion/t10k-images-idx3-ubyte.gz $fashion/t10k-labels-idx1-ubyte.gz "$DIR/test" 0 300
start -o settle=20ms,settle_batch=3s # longer than a copy pauses beside other tests
cp -r "$DIR/train" "$MNT/datasets/small"
mkdir "$MNT/jobs/small" "$MNT/infer/app"
echo '{"dataset":"small","net":{"arch":"resnet","depth":8,"width":16},"epochs":1,"batch":32}' >"$MNT/jobs/small/spec.json"
"$INFERFS" wait "$MNT/models/small/latest" --timeout 120s
echo '{"model":"small"}' >"$MNT/infer/app/spec.json"
"$INFERFS" wait "$MNT/infer/app/slices.csv" --timeout 30s
A=$MNT/infer/app
inotifywait -m -r -e moved_to --format '%w%f' "$A/out" >"$DIR/moved" 2>"$DIR/inotify" &
watcher=$!
eventually 10 grep -q established "$DIR/inotify"

takeover()
{
	"$INFERFS" mount --takeover "$STATE" "$MNT"
}

answered() # BATCH DEADLINE-MS: exactly once each, all of them ok, by the deadline they were submitted with
{
	"$INFERFS" wait "$A/out/$1/task.json" --timeout 60s
	python3 - "$A/out/$1" "$2" <<'P'
import collections, csv, json, os, sys
out, deadline = sys.argv[1:]
names = [n for n in os.listdir(out) if n.endswith(".png.json")]
assert len(names) == 300, len(names)
for n in names:
    j = json.load(open(os.path.join(out, n)))
    assert j["status"] == "ok" and int(j["deadline_ms"]) == int(deadline), j
rows = collections.Counter(r["file"] for r in csv.DictReader(open(out + "/results.csv")))
assert len(rows) == 300 and max(rows.values()) == 1, (len(rows), rows.most_common(3))
P
}

echo "in the middle of a batch"
for ((i = 1; i <= ${1:-2}; i++)); do
	mkdir "$A/in/b$i"
	cp "$DIR"/test/*.png "$A/in/b$i/"
	setfattr -n user.deadline -v 50s "$A/in/b$i"
	sleep "0.0$((i * 3 % 10))"
	takeover
	answered "b$i" 50000
	for f in "$DIR"/test/*.png; do
		same ok "$(getfattr --absolute-names --only-values -n user.state "$A/in/b$i/$(basename "$f")")"
	done
done

echo "while a batch is copied, slowly; a file that is half written"
mkdir "$A/in/slow"
python3 - "$DIR/test" "$A/in/slow" "$INFERFS" "$STATE" "$MNT" <<'P'
import os, subprocess, sys, time
test, to, inferfs, state, mnt = sys.argv[1:]
names = sorted(os.listdir(test))
for i, n in enumerate(names):
    with open(f"{test}/{n}", "rb") as f:
        data = f.read()
    with open(f"{to}/{n}", "wb", buffering=0) as f:
        f.write(data[:100])
        if i % 100 == 50:
            subprocess.run([inferfs, "mount", "--takeover", state, mnt], check=True)
            if i == 50:
                time.sleep(3.5)   # longer than a batch has to be quiet
                assert not os.path.exists(f"{to}/../../out/slow/{n}.json"), "half a file was answered"
        f.write(data[100:])
os.setxattr(to, "user.deadline", b"50s")
P
"$INFERFS" wait "$A/out/slow/$(ls "$DIR/test" | tail -1).json" --timeout 30s
all_there() # DIRECTORY
{
	[[ $(ls "$1" | grep -c '^0.*png.json$') == 300 ]]
}
eventually 20 all_there "$A/out/slow"
python3 - "$A/out/slow" <<'P'
import json, os, sys
for n in os.listdir(sys.argv[1]):
    if n.endswith(".png.json"):
        assert json.load(open(os.path.join(sys.argv[1], n)))["status"] == "ok", n
P

echo "loose files; each answer is seen once"
cp "$DIR"/test/*.png "$A/in/"
for i in 1 2 3; do
	sleep 0.03
	takeover
done
eventually 30 all_there "$A/out"
seen()
{
	[[ $(grep -c "/out/0.*png.json$" "$DIR/moved") == 300 ]]
}
eventually 10 seen
# (In a directory that has just appeared inotifywait may come too late for some.)
same "" "$(grep "png.json$" "$DIR/moved" | sort | uniq -d | head -3)" "seen twice"

echo "words and deadlines that come meanwhile"
mkdir "$A/in/late"
cp "$DIR"/test/0000*.png "$A/in/late/"
for i in {1..4}; do
	# With answers on their way the old daemon takes its time to stop.
	mkdir "$A/in/w$i"
	cp "$DIR"/test/*.png "$A/in/w$i/"
	[[ -e $A/state && $(cat "$A/state") == running ]] || echo start >"$A/ctl"
	eventually 30 grep -qx running "$A/state"
	setfattr -n user.deadline -v 60s "$A/in/w$i"
	sleep 0.02
	asked=$(grep -c "asks for the mount" "$STATE/log")
	takeover &
	while (($(grep -c "asks for the mount" "$STATE/log") == asked)); do :; done
	echo stop >"$A/ctl"
	setfattr -n user.deadline -v "3${i}s" "$A/in/late"
	echo "4${i}s" >"$A/in/.deadline"
	wait $!
	eventually 10 grep -qx stopped "$A/state"
	same "3${i}s" "$(getfattr --absolute-names --only-values -n user.deadline "$A/in/late")"
	same "4${i}s" "$(getfattr --absolute-names --only-values -n user.deadline "$A/in")"
done
echo start >"$A/ctl"
"$INFERFS" wait "$A/out/late/task.json" --timeout 20s
kill $watcher

echo "a job goes on"
mkdir "$MNT/jobs/again"
echo '{"dataset":"small","net":{"arch":"mlp"},"epochs":60,"batch":32,"model":"again"}' >"$MNT/jobs/again/spec.json"
eventually 30 grep -q '^[0-9]' "$MNT/jobs/again/progress"
takeover
"$INFERFS" wait "$MNT/models/again/latest" --timeout 150s || fail "$(cat "$MNT/jobs/again/error")"
eventually 10 grep -qx done "$MNT/jobs/again/state"
stop
"$INFERFS" fsck "$STATE"
