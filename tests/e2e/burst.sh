#!/bin/bash
# More instances than the queue holds: the rest waits on disk as `queued`. With the daemon killed and replaced meanwhile each is answered exactly
# once; what is removed, written anew or gets a deadline while it waits is answered as that asks for.
. "$(dirname "$0")/lib.sh"
need setfattr getfattr python3
start -o null_backend,queue=50,settle=20ms,settle_batch=30s
mkdir -p "$MNT/models/m/1" "$MNT/infer/app"
cat >"$MNT/models/m/1/model.json" <<'J'
{"classes":10,"submodels":[{"slice":0.5,"accuracy":0.5,"ms":10},{"slice":1,"accuracy":0.9,"ms":80}]}
J
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","batch":8}' >"$MNT/infer/app/spec.json"
A=$MNT/infer/app
"$INFERFS" wait "$A/slices.csv" --timeout 30s
mkdir "$DIR/files"
for i in {1000..1399}; do echo 3 >"$DIR/files/$i.png"; done

state()
{
	getfattr --absolute-names --only-values -n user.state "$1"
}

waits() # FILE
{
	[[ $(state "$1" 2>/dev/null) == queued ]]
}

queued() # COUNT: so many wait, as status says
{
	grep -q "^infer/app .* queued=$1 " "$MNT/status"
}

answered() # BATCH COUNT: exactly once each, all of them ok but for those that $DIR/other names
{
	"$INFERFS" wait "$A/out/$1/task.json" --timeout 60s
	python3 - "$A/out/$1" "$2" "$DIR/other" <<'P'
import csv, json, os, sys
out, count, other = sys.argv[1:]
other = dict(line.split() for line in open(other))
names = sorted(n for n in os.listdir(out) if n.endswith(".png.json"))
assert len(names) == int(count), len(names)
for n in names:
    j = json.load(open(os.path.join(out, n)))
    assert j["status"] == other.get(n[:-5], "ok"), j
rows = [r["file"] for r in csv.DictReader(open(out + "/results.csv"))]
assert len(rows) == int(count) == len(set(rows)), len(rows)
task = json.load(open(out + "/task.json"))
assert task["instances"] == int(count) == sum(task[s] for s in ("ok", "late", "dropped", "failed")), task
P
}
: >"$DIR/other"

echo "a batch, killed and replaced while it is copied and while it runs"
mkdir "$A/in/b"
cp "$DIR"/files/1[01]*.png "$A/in/b/"
eventually 5 queued 200
"$INFERFS" mount --takeover "$STATE" "$MNT"
cp "$DIR"/files/12*.png "$A/in/b/"
kill_daemon
start -o null_backend,queue=50,settle=20ms,settle_batch=30s
cp "$DIR"/files/13*.png "$A/in/b/"
setfattr -n user.deadline -v 60s "$A/in/b"
eventually 5 waits "$A/in/b/1399.png"
"$INFERFS" wait "$A/out/b/1000.png.json" --timeout 10s
kill_daemon
start -o null_backend,queue=50,settle=20ms,settle_batch=30s
"$INFERFS" wait "$A/out/b/1150.png.json" --timeout 20s
[[ ! -e $A/out/b/1399.png.json ]] || fail "all are answered: the takeover finds none that wait"
"$INFERFS" mount --takeover "$STATE" "$MNT"
answered b 400
for f in "$A"/in/b/*.png; do
	same ok "$(state "$f")"
done

echo "what happens to those that wait"
echo stop >"$A/ctl"
eventually 10 grep -qx stopped "$A/state"
mkdir "$A/in/c"
cp "$DIR"/files/*.png "$A/in/c/"
rm "$A/in/c/1001.png" # it was never submitted
setfattr -n user.deadline -v 60s "$A/in/c"
eventually 10 queued 399
eventually 5 waits "$A/in/c/1390.png"
rm "$A/in/c/1390.png"
echo 4 >"$A/in/c/1391.png"
setfattr -n user.deadline -v 300ms "$A/in/c/1393.png"
"$INFERFS" wait "$A/out/c/1393.png.json" --timeout 5s
"$INFERFS" wait "$A/out/c/1390.png.json" --timeout 5s
echo start >"$A/ctl"
printf '1390.png dropped\n1393.png dropped\n' >"$DIR/other"
answered c 399
label() # FILE
{
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["label"])' "$A/out/c/$1.json"
}
same 1 "$(label 1389.png)" # '3' % 10
same 2 "$(label 1391.png)"

echo "loose files"
cp "$DIR"/files/*.png "$A/in/"
loose()
{
	[[ $(ls "$A/out" | grep -c '^1.*png.json$') == 400 ]]
}
sleep 0.1
kill_daemon
start -o null_backend,queue=50,settle=20ms,settle_batch=30s
eventually 30 loose
eventually 10 queued 0
stop
"$INFERFS" fsck "$STATE"
