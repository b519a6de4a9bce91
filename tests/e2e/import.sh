#!/bin/bash
# Models of others: weights that are copied into models/NAME become a version, which is served; what can't be is refused in words.
. "$(dirname "$0")/lib.sh"
need python3 getfattr setfattr
mkdir "$DIR/m"
python3 "$(dirname "$0")/../tools/models.py" "$DIR/m"
printf 'red\ngreen\nblue\n' >"$DIR/m/labels.txt"
quick="settle_batch=200ms"
start -o $quick
cd "$MNT"

state_of() { getfattr --only-values -n user.state "$1" 2>/dev/null; }
is_state() { [[ $(state_of "$1") == "$2" ]]; }
# error_of NAME WORDS…: models/NAME/error comes and has all of them
error_of()
{
	local name=$1
	shift
	eventually 30 test -e "models/$name/error"
	for words; do
		grep -qF -- "$words" "models/$name/error" || fail "no '$words' in: $(cat "models/$name/error")"
	done
	same 1 "$(wc -l <"models/$name/error")" "lines of models/$name/error"
}
versions() { find "models/$1" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' | sort -n | tr '\n' ' '; }
# answers APP PICTURE LABEL…
answers()
{
	local app=$1
	shift
	while (($#)); do
		rm -f "infer/$app/in/$1.png"
		eventually 5 test ! -e "infer/$app/in/$1.png"
		rm -f "infer/$app/out/$1.png.json"
		cp "$DIR/m/$1.png" "infer/$app/in/"
		eventually 20 test -e "infer/$app/out/$1.png.json"
		same "\"$2\"" "$(python3 -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))["label"]))' "infer/$app/out/$1.png.json")" "the label of $1"
		shift 2
	done
}
# serves APP SPEC
serves()
{
	mkdir -p "infer/$1"
	echo "$2" >"infer/$1/spec.json"
	eventually 30 grep -q running "infer/$1/state" || fail "$(cat "infer/$1/error")"
}

echo "an ONNX file and its labels, whichever comes first"
mkdir models/c
cp "$DIR/m/colours.onnx" "$DIR/m/labels.txt" models/c/
"$INFERFS" wait models/c/1 --timeout 30s || fail "$(cat models/c/error)"
"$INFERFS" wait models/c/latest --timeout 5s
same 1 "$(readlink models/c/latest)" latest
same "labels.txt model.json model.onnx slices.csv" "$(ls models/c/1 | tr '\n' ' ' | sed 's/ $//')" "files of the version"
cmp "$DIR/m/colours.onnx" models/c/1/model.onnx
cmp "$DIR/m/labels.txt" models/c/1/labels.txt
cmp "$DIR/m/colours.onnx" models/c/colours.onnx
same "-r--r--r--" "$(stat -c %A models/c/1/model.json)" "mode"
same "imported 1" "$(state_of models/c/colours.onnx) $(getfattr --only-values -n user.version models/c/colours.onnx)" xattrs
setfattr -n user.state -v mine models/c/colours.onnx # answers success, and does nothing, as for an instance
is_state models/c/colours.onnx imported || fail "user.state is $(state_of models/c/colours.onnx)"
grep -q '"runs":[[:space:]]*"compiled"' models/c/1/model.json || fail "$(cat models/c/1/model.json)"
serves c '{"model":"c"}'
answers c red red green green blue blue

echo "another one in its place is version 2; an endpoint that runs has it by reload"
cp "$DIR/m/shifted.onnx" models/c/colours.onnx
"$INFERFS" wait models/c/2 --timeout 30s
eventually 5 test "$(readlink models/c/latest)" = 2
cmp "$DIR/m/colours.onnx" models/c/1/model.onnx
cmp "$DIR/m/shifted.onnx" models/c/2/model.onnx
answers c red red
echo reload >infer/c/ctl
eventually 10 grep -q running infer/c/state
answers c red green

echo "other labels are a version, too; removing what was imported changes nothing"
printf 'rouge\nvert\nbleu\n' >models/c/labels.txt
"$INFERFS" wait models/c/3 --timeout 30s
same rouge "$(head -n 1 models/c/3/labels.txt)" "label of version 3"
rm models/c/colours.onnx models/c/labels.txt
sleep 1
same "1 2 3 " "$(versions c)" "versions"
cmp "$DIR/m/shifted.onnx" models/c/2/model.onnx

echo "weights that are no small file share their bytes; the first stays as it was when its file is changed"
mkdir models/l
cp "$DIR/m/large.onnx" models/l/.x.onnx.tmp
sleep 0.5
same "" "$(versions l)" "a name that waits is imported"
mv models/l/.x.onnx.tmp models/l/x.onnx
"$INFERFS" wait models/l/1 --timeout 30s
cmp "$DIR/m/large.onnx" models/l/1/model.onnx
printf 'x' | dd of=models/l/x.onnx conv=notrunc bs=1 seek=1000 status=none
cmp "$DIR/m/large.onnx" models/l/1/model.onnx
serves l '{"model":"l"}'
answers l blue 2

echo "weights in a file beside it: with it, or not at all; the version is one file"
mkdir models/two models/astray
cp "$DIR/m/two.onnx" models/two/
error_of two two.onnx "'w' lies in 'two.onnx.data'" external_data=False
same "" "$(versions two)" "versions without the weights"
cp "$DIR/m/two.onnx.data" models/two/
"$INFERFS" wait models/two/1 --timeout 30s || fail "$(cat models/two/error)"
same "labels.txt model.json model.onnx slices.csv" "$(ls models/two/1 | tr '\n' ' ' | sed 's/ $//')" "files of the version"
grep -q '"runs":[[:space:]]*"compiled"' models/two/1/model.json || fail "$(cat models/two/1/model.json)"
eventually 5 test ! -e models/two/error
rm models/two/two.onnx.data
serves two '{"model":"two"}'
answers two red 0 green 1 blue 2
cp "$DIR/m/astray.onnx.data" "$DIR/m/astray.onnx" models/astray/
error_of astray "'w' lies in '../c/labels.txt'" "read is 'astray.onnx.data'"

echo "what can't be run: the op, its version and the node's name; then mended"
mkdir models/bad
cp "$DIR/m/strange.onnx" models/bad/x.onnx
error_of bad x.onnx Frobnicate 'odd one'
is_state models/bad/x.onnx failed || fail "user.state is $(state_of models/bad/x.onnx)"
eventually 5 grep -q 'model bad import of x.onnx failed' status
cp "$DIR/m/cut.onnx" models/bad/x.onnx
eventually 20 grep -q 'valid ONNX' models/bad/error
same "" "$(versions bad)" "versions of a bad model"
cp "$DIR/m/colours.onnx" models/bad/x.onnx
"$INFERFS" wait models/bad/1 --timeout 30s
eventually 5 test ! -e models/bad/error
printf 'one\ntwo\n' >models/bad/labels.txt
error_of bad 'labels.txt' '2 lines'
rm -r models/bad
[[ ! -e models/bad ]] || fail "models/bad stays"

echo "safetensors and model.json, whichever comes first"
mkdir models/s
cp "$DIR/m/mlp.safetensors" models/s/weights.safetensors
eventually 10 grep -q 'model s weights.safetensors waits for model.json' status
same "" "$(versions s)" "versions without model.json"
echo '{"net":{"arch":"mlp","hidden":[8]},"input":[3,8,8],"classes":3,"accuracy":0.76}' >models/s/model.json
"$INFERFS" wait models/s/latest --timeout 30s || fail "$(cat models/s/error)"
same "labels.txt model.json slices.csv weights.safetensors" "$(ls models/s/1 | tr '\n' ' ' | sed 's/ $//')" "files of the version"
grep -q '^1,f32,76.00' models/s/1/slices.csv || fail "$(cat models/s/1/slices.csv)"
serves s '{"model":"s"}'
answers s red 1
cp "$DIR/m/other.safetensors" models/s/weights.safetensors
error_of s weights.safetensors fc1.weight
echo '{"net":{"arch":"mlp"' >models/s/model.json
eventually 20 grep -q JSON models/s/error

echo "a version's directory of another tree, copied whole, is a version like any"
mkdir models/copied
cp -r models/c/2 models/s/1 models/copied/
mv models/copied/1 models/copied/7
serves copied '{"model":"copied","version":2}'
answers copied red green
serves copied '{"model":"copied","version":7}'
answers copied red 1
same "2 7 " "$(versions copied)" "versions"

echo "a model's directory under another name keeps what it has"
mkdir models/old
cp "$DIR/m/colours.onnx" models/old/
"$INFERFS" wait models/old/1 --timeout 30s
mv models/old models/new
sleep 1
same "1 " "$(versions new)" "versions after mv"
[[ ! -e models/old ]] || fail "models/old is back"

echo "kill -9 in mid-import: it is done once"
mkdir models/k
cp "$DIR/m/heavy.onnx" models/k/
eventually 20 is_state models/k/heavy.onnx importing
eventually 10 grep -q 'model k importing heavy.onnx' status
kill_daemon
cd /
start -o $quick
cd "$MNT"
"$INFERFS" wait models/k/latest --timeout 120s || fail "$(cat models/k/error status)"
sleep 1
same "1 " "$(versions k)" "versions"
same "1 2 3 " "$(versions c)" "versions of another"
same "2 7 " "$(versions copied)" "versions of copies"
same "1 " "$(versions new)" "versions of the one that was renamed"

echo "a worker that is killed costs a second try, two fail the import"
no_worker() { ! pgrep -P "$(daemon_pid)" -f 'worker import'; }
worker=
another_worker() { worker=$(pgrep -P "$(daemon_pid)" -f 'worker import') && [[ $worker != "$1" ]]; }
# killed: a worker that was not killed before
killed()
{
	eventually 20 another_worker "$worker"
	kill -9 "$worker"
}
printf 'a\nb\nc\n' >models/k/labels.txt
killed
"$INFERFS" wait models/k/2 --timeout 120s || fail "$(cat models/k/error status)"
printf 'c\nb\na\n' >models/k/labels.txt
killed
killed
error_of k heavy.onnx 'worker process died'
same "1 2 " "$(versions k)" "versions"

echo "removed in mid-import"
printf 'd\ne\nf\n' >models/k/labels.txt
eventually 20 is_state models/k/heavy.onnx importing
rm -r models/k
eventually 10 no_worker
sleep 0.5
[[ ! -e models/k ]] || fail "models/k is back: $(ls models/k)"

echo "training from an imported model"
fashion=/usr/share/datasets/fashion-mnist
if [[ -d $fashion ]]; then
	"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 100 --folders
	cp -r "$DIR/train" datasets/ten
	mkdir models/begin jobs/tuned jobs/onnx
	echo '{"net":{"arch":"mlp","hidden":[8]},"input":[1,28,28],"classes":10}' >models/begin/model.json
	cp "$DIR/m/mlp28.safetensors" models/begin/
	"$INFERFS" wait models/begin/latest --timeout 30s || fail "$(cat models/begin/error)"
	echo '{"dataset":"ten","init":"begin","epochs":1,"batch":16}' >jobs/tuned/spec.json
	"$INFERFS" wait models/tuned/latest --timeout 60s || fail "$(cat jobs/tuned/error)"
	eventually 10 grep -qE ' ([0-9]+) of \1 arrays are those' jobs/tuned/log || fail "$(cat jobs/tuned/log)"
	echo '{"dataset":"ten","init":"c","epochs":1}' >jobs/onnx/spec.json
	eventually 20 grep -q 'can be served, not trained' jobs/onnx/error
fi
cd /
stop
"$INFERFS" fsck "$STATE"
