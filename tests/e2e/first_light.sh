#!/bin/bash
# The whole path on real images: an ImageFolder is scanned, a sliced network trained, an endpoint serves a batch under ample and
# impossible deadlines, with pictures; bad files are answered, too; all of it is there after a remount.
. "$(dirname "$0")/lib.sh"
need setfattr getfattr python3
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 600 --folders
"$IDX2PNG" $fashion/t10k-images-idx3-ubyte.gz $fashion/t10k-labels-idx1-ubyte.gz "$DIR/test" 0 70
start
cd "$MNT"

json() # FILE EXPRESSION over j
{
	python3 -c 'import json, sys; j = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$@"
}

echo "a data set"
mkdir datasets/small
cp -r "$DIR/train" datasets/small/
head -c 100 "$DIR/train/0/00001.png" >datasets/small/train/0/broken.png
echo "not an image" >datasets/small/train/1/notes.png
"$INFERFS" wait datasets/small/dataset.json --timeout 30s
same 600 "$(json datasets/small/dataset.json 'j["splits"]["train"] + j["splits"]["val"]')" "usable images"
same 10 "$(json datasets/small/dataset.json 'len(j["classes"])')" classes
for f in broken notes; do
	grep -q "$f.png" datasets/small/dataset.json || fail "$f.png is not listed as bad"
done
same "$(stat -c %s datasets/small/dataset.json)" "$(cat datasets/small/dataset.json | wc -c)" size
same 444 "$(stat -c %a datasets/small/dataset.json)" mode

echo "a job"
mkdir jobs/small
echo '{"dataset":"small","net":{"arch":"resnet","depth":8,"width":8},"epochs":8,"batch":32}' >jobs/small/spec.json
eventually 120 grep -qE 'done|failed' jobs/small/state
[[ ! -e jobs/small/error ]] || fail "$(cat jobs/small/error)"
same done "$(cat jobs/small/state)"
same 4 "$(grep -c ,f32, models/small/latest/slices.csv)" slices
same 1 "$(readlink models/small/latest)" latest
[[ -s jobs/small/model/weights.safetensors ]] || fail "jobs/small/model leads nowhere"
same 9 "$(wc -l <jobs/small/metrics.csv)" "lines of metrics.csv"
grep -q '<svg' jobs/small/curves.svg
same done "$(cat jobs/small/best/state)" "state of the trial"

echo "an endpoint"
mkdir infer/app
echo '{"model":"small","explain":["gradcam"]}' >infer/app/spec.json
"$INFERFS" wait infer/app/slices.csv --timeout 30s
eventually 5 grep -q running infer/app/state
python3 - infer/app/slices.csv models/small/latest/slices.csv <<'P'
import csv, sys
served, measured = ({(r["slice"], r["precision"]): float(r["accuracy"]) for r in csv.DictReader(open(name))} for name in sys.argv[1:])
for of, accuracy in served.items():
    assert abs(accuracy - measured[of]) < 0.01, (of, accuracy, measured)
for (rate, precision), accuracy in measured.items():  # int8 is offered where it loses 0.3 points at most
    lost = measured[rate, "f32"] - accuracy
    assert (rate, precision) in served or (precision == "int8" and lost > 0.29), (rate, precision, served, measured)
    assert precision != "int8" or (rate, precision) not in served or lost < 0.31, (rate, served, measured)
P

echo "a batch with an ample deadline"
mkdir -p infer/app/in/b1/sub
cp "$DIR"/test/*.png infer/app/in/b1/
mv infer/app/in/b1/00000-9.png infer/app/in/b1/sub/
cp datasets/small/train/0/broken.png infer/app/in/b1/
echo text >infer/app/in/b1/readme.txt
setfattr -n user.deadline -v 60s infer/app/in/b1
"$INFERFS" wait infer/app/out/b1/task.json --timeout 60s
same 73 "$(wc -l <infer/app/out/b1/results.csv)" "lines of results.csv"
same ok "$(json infer/app/out/b1/sub/00000-9.png.json 'j["status"]')"
same failed "$(json infer/app/out/b1/broken.png.json 'j["status"]')"
same failed "$(json infer/app/out/b1/readme.txt.json 'j["status"]')"
[[ $(json infer/app/out/b1/readme.txt.json 'j["error"]') == *image* ]] || fail "no reason"
python3 - infer/app/out/b1 infer/app/slices.csv <<'P'
import csv, json, os, sys
slices = {(float(r["slice"]), r["precision"]): r for r in csv.DictReader(open(sys.argv[2]))}
best = max(float(r["accuracy"]) for r in slices.values() if r["loaded"] == "yes")
assert best >= max(float(r["accuracy"]) for r in slices.values()) - 0.1, slices
keys = "file task model version slice precision label score top queued_ms compute_ms finished_ms deadline_ms status error".split()
right = n = 0
for name in os.listdir(sys.argv[1]):
    if not name.endswith(".png.json") or name.startswith("broken"):
        continue
    j = json.load(open(os.path.join(sys.argv[1], name)))
    assert list(j) == keys, (name, list(j))
    used = slices[j["slice"], j["precision"]]
    assert j["status"] == "ok" and 0 < j["score"] <= 1, j
    assert float(used["accuracy"]) == best and used["loaded"] == "yes", (used, j)
    assert j["deadline_ms"] == 60000 and 0 <= j["queued_ms"] <= j["finished_ms"] < 60000, j
    assert len(j["top"]) == 5, j
    right += j["label"] == name.split("-")[1].split(".")[0]
    n += 1
assert n == 69, n
assert right > 25, "%d of %d right: hardly better than chance" % (right, n)
print(right, "of", n, "right")
P
same ok "$(getfattr --only-values -n user.state infer/app/in/b1/sub/00000-9.png)" user.state
same failed "$(getfattr --only-values -n user.state infer/app/in/b1/broken.png)" user.state
result=$(getfattr --only-values -n user.result infer/app/in/b1/sub/00000-9.png)
[[ -e $result ]] || fail "user.result leads nowhere: $result"

echo "pictures"
"$INFERFS" wait infer/app/out/b1/sub/00000-9.png.gradcam.png --timeout 30s
python3 - infer/app/out/b1/sub/00000-9.png.gradcam.png <<'P'
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
assert data[:8] == b"\x89PNG\r\n\x1a\n"
width, height = struct.unpack(">II", data[16:24])
assert width >= 224 and height >= 224, (width, height)
assert b"tEXtlabel\0" in data and b"tEXtscore\0" in data
at = 8
while at < len(data):
    n, kind = struct.unpack(">I4s", data[at:at + 8])
    assert zlib.crc32(data[at + 4:at + 8 + n]) == struct.unpack(">I", data[at + 8 + n:at + 12 + n])[0]
    at += 12 + n
assert kind == b"IEND"
P

echo "an impossible deadline"
mkdir infer/app/in/b2
cp "$DIR"/test/*.png infer/app/in/b2/
setfattr -n user.deadline -v 1ms infer/app/in/b2
"$INFERFS" wait infer/app/out/b2/task.json --timeout 30s
same 70 "$(ls infer/app/out/b2/*.png.json | wc -l)" answers
if grep -l '"status": *"ok"' infer/app/out/b2/*.png.json; then
	fail "in time after 1 ms"
fi

echo "loose files"
cp "$DIR/test/00001-2.png" infer/app/in/
"$INFERFS" wait infer/app/out/00001-2.png.json --timeout 10s
tasks()
{
	[[ $(wc -l <infer/app/schedule.csv) -eq 4 ]] # the header and three tasks
}
eventually 5 tasks
json infer/app/stats.json 'j' >/dev/null

echo "what the tree says of itself"
eventually 5 grep -q app status
grep -q '^# HELP' metrics
tail -n 1 events | python3 -c 'import json, sys; json.loads(sys.stdin.read())'

echo "the same after a remount"
cd /
stop
start
cd "$MNT"
same 600 "$(json datasets/small/dataset.json 'j["splits"]["train"] + j["splits"]["val"]')"
same done "$(cat jobs/small/state)"
cp "$DIR/test/00002-1.png" infer/app/in/
"$INFERFS" wait infer/app/out/00002-1.png.json --timeout 30s
same ok "$(json infer/app/out/00002-1.png.json 'j["status"]')"
rm -r infer/app jobs/small models/small datasets/small
cd /
stop
"$INFERFS" fsck "$STATE"
