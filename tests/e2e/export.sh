#!/bin/bash
# Slices as ONNX: a file that is made when its name is looked for, once, and then is like any other; whole or not there; who waits for it
# can be interrupted, and goes on when another daemon takes over. Nothing that lists makes one.
. "$(dirname "$0")/lib.sh"
need python3 cmp timeout
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 200 --folders
start
cp -r "$DIR/train" "$MNT/datasets/ten"
mkdir "$MNT/jobs/m"
echo '{"dataset":"ten","net":{"arch":"resnet","depth":8,"width":8,"norm":"batch"},"epochs":1,"batch":32}' >"$MNT/jobs/m/spec.json"
eventually 60 grep -qE 'done|failed' "$MNT/jobs/m/state"
same done "$(cat "$MNT/jobs/m/state")" "$(cat "$MNT/jobs/m/error" 2>/dev/null || true)"
export=$MNT/models/m/1/export

# made: how many there are
made()
{
	ls "$export" | wc -l
}

echo "the directory is there, empty, and listing it makes nothing"
[[ $(ls "$MNT/models/m/1") == *export* ]] || fail "no export/: $(ls "$MNT/models/m/1")"
same "" "$(ls "$export")"
ls -la "$export" "$export"/slice* >/dev/null 2>&1 || true
same 0 "$(made)"

echo "cp makes it; with its true size, the same each time"
cp "$MNT/models/m/latest/export/slice-0.50.onnx" "$DIR/half.onnx"
same slice-0.50.onnx "$(ls "$export")"
same "$(stat -c %s "$DIR/half.onnx")" "$(stat -c %s "$export/slice-0.50.onnx")" size
[[ $(stat -c %s "$DIR/half.onnx") -gt 20000 ]] || fail "it is small: $(stat -c %s "$DIR/half.onnx")"
same 444 "$(stat -c %a "$export/slice-0.50.onnx")" mode
cmp "$DIR/half.onnx" "$export/slice-0.50.onnx"
# what it says of itself: the op, the names of the network, the labels
for word in Conv BatchNormalization conv1.weight images logits 'labels' '"3"' inferfs; do
	grep -qa "$word" "$DIR/half.onnx" || fail "no $word in it"
done
if python3 -c 'import onnxruntime' 2>/dev/null; then
	python3 - "$DIR/half.onnx" <<'P'
import onnxruntime, numpy, sys
s = onnxruntime.InferenceSession(sys.argv[1])
assert s.run(None, {"images": numpy.zeros((3, 1, 28, 28), "f")})[0].shape == (3, 10)
P
fi

echo "another name of it is the same file; full width is a larger one"
same "$(stat -c %i "$export/slice-0.50.onnx")" "$(stat -c %i "$export/slice-0.5.onnx")" inode
same 2 "$(stat -c %h "$export/slice-0.50.onnx")" links
cat "$export/slice-1.onnx" >"$DIR/full.onnx"
[[ $(stat -c %s "$DIR/full.onnx") -gt $(stat -c %s "$DIR/half.onnx") ]] || fail "full width isn't larger"
same "slice-0.5.onnx slice-0.50.onnx slice-1.00.onnx slice-1.onnx" "$(echo $(ls "$export"))"

echo "what it hasn't"
for name in slice-0.33.onnx slice-0.onnx slice-2.onnx slice-0.50.onnx.gz slice-.5.onnx slice-0.5.5.onnx slice-0x1p-1.onnx slice--1.onnx x; do
	expect "No such file" cat "$export/$name"
done
same 4 "$(made)"
[[ ! -e $MNT/models/m/1/error ]] || fail "an error: $(cat "$MNT/models/m/1/error")"

echo "removed, it is made again, the same; by many at once only once"
rm "$export/slice-0.5.onnx" "$export/slice-0.50.onnx"
for i in 1 2 3 4 5 6 7 8; do
	cat "$export/slice-0.50.onnx" >"$DIR/many-$i" &
done
wait
for i in 1 2 3 4 5 6 7 8; do
	cmp "$DIR/half.onnx" "$DIR/many-$i"
done
same 1 "$(for b in "$STATE"/blobs/*/*; do cmp -s "$b" "$DIR/half.onnx" && echo x || true; done | wc -l)" "files with that content"

echo "it outlives the daemon"
stop
start
same "slice-0.50.onnx slice-1.00.onnx slice-1.onnx" "$(echo $(ls "$export"))"
cmp "$DIR/half.onnx" "$export/slice-0.50.onnx"
cmp "$DIR/full.onnx" "$export/slice-1.00.onnx"

echo "a version of somebody's own has it, too, older ones when it is looked for; and a damaged one says why it can't"
own=$MNT/models/own/1
mkdir -p "$own"
same export "$(ls "$own")"
cp "$MNT"/models/m/1/{model.json,weights.safetensors} "$own/"
rm -r "$own/export"
[[ $(ls "$own") != *export* ]] || fail "export/ is still there"
cat "$own/export/slice-0.25.onnx" >/dev/null
rm "$own/export/slice-0.25.onnx"
chmod 600 "$own/weights.safetensors"
truncate -s 1000 "$own/weights.safetensors"
expect "Bad message" cat "$own/export/slice-0.25.onnx"
eventually 5 grep -q 'safetensors' "$own/error"
same "" "$(ls "$own/export")"
cp "$MNT/models/m/1/weights.safetensors" "$own/"
eventually 5 cat "$own/export/slice-0.25.onnx" # a failure is remembered for 2 s
same 400 "$(stat -c %a "$own/export/slice-0.25.onnx")" "mode: no more than the weights'"
eventually 5 test ! -e "$own/error"

# A large one: its export takes long enough to do something meanwhile.
mkdir "$MNT/jobs/wide"
echo '{"dataset":"ten","net":{"arch":"mlp","hidden":[6000,6000]},"epochs":1,"batch":200,"slices":[0.5,1]}' >"$MNT/jobs/wide/spec.json"
eventually 120 grep -qE 'done|failed' "$MNT/jobs/wide/state"
same done "$(cat "$MNT/jobs/wide/state")" "$(cat "$MNT/jobs/wide/error" 2>/dev/null || true)"
wide=$MNT/models/wide/1/export

# the process that exports
worker()
{
	pgrep -P "$(daemon_pid)" -x inferfs/export
}

# half_way OUT: cat, in the background as $cat, waits for a worker that stands still
half_way()
{
	cat "$wide/slice-1.00.onnx" >"$1" 2>"$DIR/said" &
	cat=$!
	eventually 10 worker
	kill -STOP "$(worker)"
}
half_way "$DIR/wide.onnx"

echo "meanwhile: others are served, also beside it; who waits can be interrupted"
same "" "$(timeout 5 ls -a "$wide" | grep slice || true)"
timeout 5 cmp "$DIR/half.onnx" "$export/slice-0.50.onnx"
timeout 5 touch "$MNT/models/wide/1/note"
started=$SECONDS
timeout 1 stat "$wide/slice-0.50.onnx" >/dev/null 2>&1 && fail "it was made though the worker stood still"
((SECONDS - started < 5)) || fail "it couldn't be interrupted"

kill -CONT "$(worker)"
wait $cat || fail "cat: $(cat "$DIR/said")"
cmp "$DIR/wide.onnx" "$wide/slice-1.00.onnx"

echo "another daemon takes over: who waits gets it from that one"
rm "$wide/slice-1.00.onnx"
half_way "$DIR/again.onnx"
"$INFERFS" mount --takeover "$STATE" "$MNT"
wait $cat || fail "cat: $(cat "$DIR/said")"
cmp "$DIR/wide.onnx" "$DIR/again.onnx"

echo "kill -9 in the middle: nothing of it stays"
rm "$wide/slice-1.00.onnx"
before=$(ls "$STATE"/blobs/*/* | sort)
half_way "$DIR/none"
kill_daemon
wait $cat && fail "cat got something"
umount -l "$MNT"
"$INFERFS" fsck "$STATE"
start
[[ $(ls "$wide") != *1.00* ]] || fail "half a file: $(ls -l "$wide")"
same "$before" "$(ls "$STATE"/blobs/*/* | sort)" "files of the state directory"
cmp "$DIR/wide.onnx" "$wide/slice-1.00.onnx"
