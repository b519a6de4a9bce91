#!/bin/bash
# A batch directory is computed while it is copied: mini-batches of a second each are there at once when it is submitted, and every way to
# change a file meanwhile (written again, by a mapping too, cut short, replaced, removed) has its new content answered.
. "$(dirname "$0")/lib.sh"
need setfattr python3
start -o null_backend,settle_batch=10m
A=$MNT/infer/app
mkdir -p "$MNT/models/m/1" "$A"
echo '{"classes":10,"submodels":[{"slice":1,"accuracy":0.9,"ms":1000,"one_ms":1000}]}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","batch":8}' >"$A/spec.json"
"$INFERFS" wait "$A/slices.csv" --timeout 30s

computed() # COUNT: mini-batches so far
{
	[[ $(sed -n 's/^inferfs_worker_minibatches_total{endpoint="app",worker="1"} //p' "$MNT/metrics") == "$1" ]]
}

stat_is() # KEY VALUE
{
	python3 -c 'import json, sys; assert json.load(open(sys.argv[1]))[sys.argv[2]] == int(sys.argv[3])' "$A/stats.json" "$@"
}

mkdir "$DIR/b"
for i in {10..33}; do printf '1' >"$DIR/b/$i.png"; done
cp -r "$DIR/b" "$A/in/b"
eventually 20 computed 3
[[ ! -e $A/out/b/10.png.json ]] || fail "answered before it was submitted"
printf '7' >"$A/in/b/10.png"
printf '7' | dd of="$A/in/b/11.png" conv=notrunc status=none
python3 - "$A/in/b/12.png" <<'P'
import mmap, sys
with open(sys.argv[1], "r+b") as f, mmap.mmap(f.fileno(), 1) as m:
    m[0:1] = b"7"
P
printf '7' >"$DIR/13.png"
mv "$DIR/13.png" "$A/in/b/13.png"
printf '7' >"$A/in/.14.png"
mv "$A/in/.14.png" "$A/in/b/14.png"
truncate -s 0 "$A/in/b/15.png"
printf '7' >>"$A/in/b/15.png"
rm "$A/in/b/16.png"
mv "$A/in/b/17.png" "$A/in/b/34.png"
setfattr -n user.deadline -v 10s "$A/in/b"
"$INFERFS" wait "$A/out/b/task.json" --timeout 30s
python3 - "$A/out/b" <<'P'
import csv, json, os, sys
out = sys.argv[1]
task = json.load(open(out + "/task.json"))
assert task["instances"] == task["ok"] == 23, task
rows = {os.path.basename(r["file"])[:2]: r for r in csv.DictReader(open(out + "/results.csv"))}
assert set(rows) == {str(i) for i in range(10, 35)} - {"16", "17"}, sorted(rows)
for name, r in rows.items():
    a = json.load(open(f"{out}/{name}.png.json"))
    new = name in ("10", "11", "12", "13", "14", "15")
    assert a["label"] == ("5" if new else "9"), (name, a) # '7' is 55
    assert a["compute_ms"] >= 1000, a
    if not new and name != "34":
        assert a["finished_ms"] < 1000, a
P
eventually 5 stat_is ahead 16

echo "and where it is switched off"
stop
start -o null_backend,settle_batch=1s,no_ahead
"$INFERFS" wait "$A/slices.csv" --timeout 30s
cp -r "$DIR/b" "$A/in/c"
"$INFERFS" wait "$A/out/c/task.json" --timeout 30s
python3 -c 'import json, sys; t = json.load(open(sys.argv[1])); assert t["ok"] == 24, t' "$A/out/c/task.json"
stat_is ahead 0
stop
"$INFERFS" fsck "$STATE"
