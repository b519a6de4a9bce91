#!/bin/bash
# Training goes on from another model: its weights are taken over, a head for other classes is new, the log says so; and what can't be
# begun with fails in words. Families and norms by their one-line specs on the way.
. "$(dirname "$0")/lib.sh"
need python3
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 200 --folders
start
cd "$MNT"
cp -r "$DIR/train" datasets/ten
mkdir datasets/three
cp -r "$DIR/train/train/"[135] datasets/three/ 2>/dev/null || cp -r "$DIR/train/"[135] datasets/three/

# ended NAME STATE: the job ends so
ended()
{
	eventually 60 grep -qE 'done|failed' "jobs/$1/state"
	same "$2" "$(cat "jobs/$1/state")" "state of $1: $(cat "jobs/$1/error" 2>/dev/null || true)"
}

echo "the model to begin with"
mkdir jobs/base
echo '{"dataset":"ten","net":{"arch":"resnet","depth":8,"width":8,"norm":"batch"},"epochs":1,"batch":32}' >jobs/base/spec.json
ended base done
grep -q running_mean models/base/1/weights.safetensors || fail "no running statistics among the weights"

echo "the same network, other classes; steps so small that weights stay what they were"
mkdir jobs/tuned
echo '{"dataset":"three","init":"models/base/1","epochs":1,"batch":16,"lr":1e-8,"weight_decay":0}' >jobs/tuned/spec.json
eventually 10 grep -q '"init":.*models/base/1' jobs/tuned/trials/1/knobs.json
ended tuned done
eventually 10 grep -q 'the head is new: 3 classes, 10 there' jobs/tuned/log || fail "the log says nothing of the head: $(cat jobs/tuned/log)"
python3 - models/base/1 models/tuned/1 <<'P'
import json, struct, sys
def load(d):
    data = open(d + "/weights.safetensors", "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            out[name] = struct.unpack("<%df" % ((b - a) // 4), data[8 + n + a:8 + n + b])
    return out
base, tuned = map(load, sys.argv[1:])
assert len(tuned["fc.weight"]) == 3 * 32 and len(base["fc.weight"]) == 10 * 32
assert base.keys() == tuned.keys(), base.keys() ^ tuned.keys()
for name in base:
    if not name.startswith("fc.") and "running" not in name:
        off = max(abs(x - y) for x, y in zip(base[name], tuned[name]))
        assert off < 1e-5, (name, off)
assert any(x != y for x, y in zip(base["norm1.running_mean"], tuned["norm1.running_mean"])), "statistics did not move"
P

echo "the newest version, by a name alone; served"
mkdir jobs/newest infer/app
echo '{"dataset":"three","init":"tuned","epochs":1,"batch":16}' >jobs/newest/spec.json
ended newest done
eventually 10 grep -qE ' ([0-9]+) of \1 arrays are those' jobs/newest/log || fail "not all was taken over: $(cat jobs/newest/log)"
echo '{"model":"newest"}' >infer/app/spec.json
"$INFERFS" wait infer/app/slices.csv --timeout 30s

echo "what can't be begun with"
mkdir jobs/none jobs/other
echo '{"dataset":"three","init":"models/nothing/3"}' >jobs/none/spec.json
ended none failed
eventually 10 grep -q 'models/nothing/3' jobs/none/error
echo '{"dataset":"three","init":"base","net":{"arch":"mlp","hidden":[16]}}' >jobs/other/spec.json
ended other failed
eventually 10 grep -q 'fits this network' jobs/other/error
expect "Invalid argument" bash -c "echo '{\"dataset\":\"three\",\"init\":\"../base\"}' >jobs/other/spec.json"
