#!/bin/bash
# Two models behind one endpoint: each answer is the weighted mean of what the models say alone, and what slices.csv says of a
# combination is what its answers to the validation images come to.
. "$(dirname "$0")/lib.sh"
need python3
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
mkdir "$DIR/small"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/small/train" 0 600 --folders
"$IDX2PNG" $fashion/t10k-images-idx3-ubyte.gz $fashion/t10k-labels-idx1-ubyte.gz "$DIR/small/val" 0 200 --folders
start
cp -r "$DIR/small" "$MNT/datasets/small"
for m in a:1 b:2; do
	mkdir "$MNT/jobs/${m%:*}"
	echo '{"dataset":"small","net":{"arch":"mlp","hidden":[64]},"slices":[0.25,1],"epochs":3,"batch":32,"seed":'"${m#*:}"'}' \
		>"$MNT/jobs/${m%:*}/spec.json"
done
for m in a b; do
	"$INFERFS" wait "$MNT/models/$m/latest" --timeout 60s || fail "$(cat "$MNT/jobs/$m/error")"
	[[ -s $MNT/models/$m/latest/validation.bin ]] || fail "models/$m has no validation.bin"
	mkdir "$MNT/infer/$m"
	echo '{"model":"'$m'","policy":"best-single","precision":["f32"]}' >"$MNT/infer/$m/spec.json"
done

echo "a spec that can't be is refused"
mkdir "$MNT/infer/both"
for wrong in '{"models":["a"]}' '{"models":["a","b"],"model":"a"}' '{"models":["a","a"]}' '{"models":["a",{"model":"b","weight":0}]}'; do
	expect "Invalid argument" bash -c 'echo "$1" >"$2"' - "$wrong" "$MNT/infer/both/spec.json"
done

echo '{"models":["a",{"model":"b","weight":2}],"policy":"best-single","precision":["f32"],"explain":["gradcam"]}' \
	>"$MNT/infer/both/spec.json"
for app in a b both; do
	"$INFERFS" wait "$MNT/infer/$app/slices.csv" --timeout 60s || fail "$(cat "$MNT/infer/$app/error")"
done
cat "$MNT/infer/both/slices.csv"
grep -q '^a:[0-9.]*+b:[0-9.]*,f32,' "$MNT/infer/both/slices.csv" || fail "no combination"
eventually 5 grep -q running "$MNT/infer/both/state"
eventually 5 grep -q '^infer/both running model=a/1+b/1 ' "$MNT/status"

# answered APP: all images of val, by the most accurate sub-model
answered()
{
	mkdir "$MNT/infer/$1/in/.val"
	cp "$DIR"/val/*.png "$MNT/infer/$1/in/.val/"
	mv "$MNT/infer/$1/in/.val" "$MNT/infer/$1/in/val"
	"$INFERFS" wait "$MNT/infer/$1/out/val/task.json" --timeout 60s || fail "$1 does not answer"
}
mkdir "$DIR/val"
for f in "$DIR"/small/val/*/*.png; do
	cp "$f" "$DIR/val/$(basename "$(dirname "$f")")-$(basename "$f")"
done
for app in a b both; do answered $app; done
python3 - "$MNT" <<'P'
import csv, glob, json, os, sys
mnt = sys.argv[1]
def answers(app):
    ret = {}
    for f in glob.glob(f"{mnt}/infer/{app}/out/val/*.png.json"):
        j = json.load(open(f))
        assert j["status"] == "ok", j
        ret[os.path.basename(f)] = j
    return ret
a, b, both = answers("a"), answers("b"), answers("both")
assert len(a) == len(b) == len(both) == 200
right = 0
used = set(j["members"] for j in both.values())
print("used:", used)
assert len(used) == 1
used = used.pop()
slices = {r["slice"]: float(r["accuracy"]) for r in csv.DictReader(open(f"{mnt}/infer/both/slices.csv"))}
assert slices[used] == max(slices.values()), (used, slices)
parts = [p.split(":") for p in used.split("+")]
assert [p[0] for p in parts] == ["a", "b"], parts
# the single endpoints ran their most accurate slice: only where that is the combination's part can be compared
compared = 0
for name, j in both.items():
    assert j["model"] == "a+b" and j["version"] == "1+1" and j["slice"] is None, j
    right += j["label"] == name.split("-")[0]
    if a[name]["slice"] == float(parts[0][1]) and b[name]["slice"] == float(parts[1][1]):
        top_a, top_b = ({t["label"]: t["score"] for t in x[name]["top"]} for x in (a, b))
        for t in j["top"]:
            if t["label"] in top_a and t["label"] in top_b:
                mean = (top_a[t["label"]] + 2 * top_b[t["label"]]) / 3
                assert abs(mean - t["score"]) < 2e-6, (name, t, mean)
                compared += 1
print("right:", right, "of 200; compared:", compared)
assert abs(slices[used] - right / 2) < 1e-6, (slices[used], right / 2)
assert compared > 400
row = next(csv.DictReader(open(f"{mnt}/infer/both/out/val/results.csv")))
assert row["slice"] == used, row
P
# a picture of what both answered
"$INFERFS" wait "$(ls "$MNT"/infer/both/out/val/*.json | head -n 1 | sed 's/json$/gradcam.png/')" --timeout 30s

echo "a member that is there only later; one that shares no images"
mkdir "$MNT/infer/later"
echo '{"models":["a","c"]}' >"$MNT/infer/later/spec.json"
"$INFERFS" wait "$MNT/infer/later/error" --timeout 10s
grep -q 'models/c has no version' "$MNT/infer/later/error" || fail "$(cat "$MNT/infer/later/error")"
mkdir -p "$MNT/models/c/1"
cp "$MNT"/models/b/1/{model.json,weights.safetensors,labels.txt} "$MNT/models/c/1/"
echo start >"$MNT/infer/later/ctl"
"$INFERFS" wait "$MNT/infer/later/slices.csv" --timeout 60s || fail "$(cat "$MNT/infer/later/error")"
if grep -q + "$MNT/infer/later/slices.csv"; then fail "$(cat "$MNT/infer/later/slices.csv")"; fi
eventually 5 grep -q 'models/c/1 has no usable validation.bin' "$MNT/infer/later/stats.json"
grep -q 'models/c/1 has no usable validation.bin' "$MNT/events" || fail "nothing in events"
stop
