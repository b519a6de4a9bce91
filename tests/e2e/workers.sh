#!/bin/bash
# Several workers: with programmed times two of them do a batch in half the time; with real ones, one killed in mid-work costs a retry, and each
# instance is answered exactly once.
. "$(dirname "$0")/lib.sh"
need setfattr getfattr python3
expect "-o workers=0: from 1 to 32" "$INFERFS" mount "$STATE" "$MNT" -o workers=0
expect "-o workers=33: from 1 to 32" "$INFERFS" mount "$STATE" "$MNT" -o workers=33

# answered BATCH COUNT: each once, all of them ok
answered()
{
	"$INFERFS" wait "$A/out/$1/task.json" --timeout 60s
	python3 - "$A/out/$1" "$2" <<'P'
import csv, json, sys
out, count = sys.argv[1], int(sys.argv[2])
task = json.load(open(out + "/task.json"))
assert task["instances"] == count == task["ok"], task
rows = [r["file"] for r in csv.DictReader(open(out + "/results.csv"))]
assert len(rows) == count == len(set(rows)), len(rows)
P
}

# of BATCH KEY: in its task.json
of()
{
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$A/out/$1/task.json" "$2"
}

workers() # processes, one a line
{
	pgrep -P "$(daemon_pid)" -f 'worker infer' || true
}

ready() # COUNT
{
	[[ $(grep -c '^inferfs_worker_ready{endpoint="app",worker="[0-9]*"} 1$' "$MNT/metrics") == "$1" ]]
}

echo "programmed times: 100 mini-batches of 20 ms"
start -o null_backend,workers=2,settle=20ms
A=$MNT/infer/app
mkdir -p "$MNT/models/m/1" "$A"
echo '{"classes":10,"submodels":[{"slice":0.5,"accuracy":0.5,"ms":2},{"slice":1,"accuracy":0.9,"ms":20}]}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","batch":4,"ahead":false}' >"$A/spec.json"
"$INFERFS" wait "$A/slices.csv" --timeout 30s
eventually 10 ready 2
mkdir "$DIR/files" "$A/in/a"
for i in {1000..1399}; do echo 3 >"$DIR/files/$i.png"; done
cp "$DIR"/files/*.png "$A/in/a/"
setfattr -n user.deadline -v 30s "$A/in/a"
answered a 400
same 90 "$(of a effective_accuracy)"
ms=$(of a finished_ms)
python3 -c 'import sys; ms = float(sys.argv[1]); assert 1000 <= ms < 1900, ms' "$ms"
eventually 5 python3 - "$A/stats.json" <<'P'
import json, sys
workers = json.load(open(sys.argv[1]))["workers"]
assert len(workers) == 2 and sum(w["minibatches"] for w in workers) == 100, workers
assert all(30 <= w["minibatches"] <= 70 and w["ready"] for w in workers), workers
P
eventually 5 grep -q '>worker 2<' "$A/timeline.svg"
stop

fashion=/usr/share/datasets/fashion-mnist
if [[ ! -d $fashion ]]; then
	echo "no dataset-fashion-mnist here: no real workers"
	exit 0
fi
echo "real ones, and one is killed"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 200 --folders
"$IDX2PNG" $fashion/t10k-images-idx3-ubyte.gz $fashion/t10k-labels-idx1-ubyte.gz "$DIR/test" 0 2000
rm -rf "$STATE"
start -o workers=3
cp -r "$DIR/train" "$MNT/datasets/small"
mkdir "$MNT/jobs/small" "$A"
echo '{"dataset":"small","net":{"arch":"resnet","depth":8,"width":16},"epochs":1,"batch":32}' >"$MNT/jobs/small/spec.json"
"$INFERFS" wait "$MNT/models/small/latest" --timeout 120s || fail "$(cat "$MNT/jobs/small/error")"
echo '{"model":"small","batch":16,"ahead":false}' >"$A/spec.json"
"$INFERFS" wait "$A/slices.csv" --timeout 60s
eventually 60 ready 3
same 3 "$(workers | wc -l)" "workers"
mkdir "$A/in/b"
victim=$(workers | tail -n 1)
kill -STOP "$victim" # keeps the mini-batch it is given until it is killed, however fast the others are
cp "$DIR"/test/*.png "$A/in/b/"
setfattr -n user.deadline -v 60s "$A/in/b"
eventually 20 bash -c 'ls "$1" | grep -q json' - "$A/out/b"
[[ ! -e $A/out/b/task.json ]] || fail "all were answered without the stopped worker"
kill -9 "$victim"
answered b 2000
same running "$(cat "$A/state")"
eventually 60 ready 3
[[ $(workers | wc -l) == 3 && $(workers) != *"$victim"* ]] || fail "workers: $(workers), killed: $victim"
grep -q '"worker died".*"worker [123]"' "$MNT/events" || fail "no event"

echo "a reload, and another daemon, in mid-work"
mkdir "$A/in/c"
cp "$DIR"/test/*.png "$A/in/c/"
setfattr -n user.deadline -v 60s "$A/in/c"
echo reload >"$A/ctl"
eventually 60 bash -c 'ls "$1" | grep -q json' - "$A/out/c"
"$INFERFS" mount --takeover "$STATE" "$MNT"
answered c 2000
eventually 60 ready 3
stop
"$INFERFS" fsck "$STATE"
