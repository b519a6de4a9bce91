#!/bin/bash
# The life of endpoints, jobs, models and data sets on the mount, with real workers: the words of ctl, wrong specs, a model
# that is replaced beneath a busy endpoint, things removed while they run.
# alone: deadlines of 100 ms
. "$(dirname "$0")/lib.sh"
need setfattr python3
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 200 --folders
"$IDX2PNG" $fashion/t10k-images-idx3-ubyte.gz $fashion/t10k-labels-idx1-ubyte.gz "$DIR/test" 0 1000
start
cd "$MNT"
app=infer/app

state() { cat "$1/state"; }
is() { [[ $(cat "$1/state") == "$2" ]]; } # is THING STATE
workers() { pgrep -P "$(daemon_pid)" | wc -l; }

echo "an endpoint before its model"
mkdir -p $app/in/early
cp "$DIR"/test/0000*.png $app/in/early/
echo '{"model":"small","ahead":false}' >$app/spec.json # else all is answered before what is changed beneath it
eventually 5 is $app failed
grep -q "models/small" $app/error || fail "the error does not name the model: $(cat $app/error)"

echo "a job before its data set, then with it"
mkdir jobs/small
echo '{"dataset":"small","net":{"arch":"mlp"},"epochs":1,"batch":32}' >jobs/small/spec.json
eventually 5 is jobs/small failed
grep -q "datasets/small" jobs/small/error || fail "$(cat jobs/small/error)"
cp -r "$DIR/train" datasets/small
echo retry >jobs/small/ctl
"$INFERFS" wait models/small/latest --timeout 60s || fail "$(cat jobs/small/error)"
eventually 10 is jobs/small done
[[ ! -e jobs/small/error ]] || fail "error stays: $(cat jobs/small/error)"

echo "the model came: the endpoint starts, and what waited is answered"
eventually 10 is $app running
"$INFERFS" wait $app/out/early/task.json --timeout 10s
[[ ! -e $app/error ]] || fail "error stays: $(cat $app/error)"

echo "wrong words and specs are refused, and what runs goes on"
expect "Invalid argument" bash -c "echo restart >$app/ctl"
expect "Invalid argument" bash -c "echo '{\"model\":7}' >$app/spec.json"
expect "Invalid argument" bash -c "echo '{\"model\":\"small\",\"weight\":0}' >$app/spec.json"
expect "Invalid argument" bash -c "echo '{\"dataset\":\"small\",\"epochs\":-1}' >jobs/small/spec.json"
is $app running || fail "$(state $app)"
same '{"model":"small","ahead":false}' "$(cat $app/spec.json)" "the spec after one that was refused"
grep -q '"epochs":1' jobs/small/spec.json || fail "$(cat jobs/small/spec.json)"
sleep 0.3
is jobs/small done || fail "a refused spec started the job again: $(state jobs/small)"
cp "$DIR/test/$(ls "$DIR/test" | head -n 1)" $app/in/one.png
eventually 5 test -e $app/out/one.png.json

echo "stop: what has a deadline is dropped and says why, what has none waits; start: it serves again"
echo stop >$app/ctl
eventually 5 is $app stopped
mkdir $app/in/hurried
cp $app/in/one.png $app/in/hurried/
setfattr -n user.deadline -v 100ms $app/in/hurried
cp $app/in/one.png $app/in/two.png
"$INFERFS" wait $app/out/hurried/task.json --timeout 5s
grep -q '"dropped"' $app/out/hurried/one.png.json || fail "$(cat $app/out/hurried/one.png.json)"
grep -q 'stopped' $app/out/hurried/one.png.json || fail "$(cat $app/out/hurried/one.png.json)"
[[ ! -e $app/out/two.png.json ]] || fail "answered while stopped"
echo start >$app/ctl
eventually 10 is $app running
eventually 5 test -e $app/out/two.png.json
grep -q '"ok"' $app/out/two.png.json || fail "$(cat $app/out/two.png.json)"

echo "another version beneath a busy endpoint: each answer is wholly of one of them"
mkdir models/small/2
sed 's/^/second-/' models/small/1/labels.txt >"$DIR/labels.txt"
cp models/small/1/{model.json,weights.safetensors,slices.csv} "$DIR/labels.txt" models/small/2/
for round in 1 2 3; do
	mkdir $app/in/busy$round
	cp "$DIR"/test/*.png $app/in/busy$round/
	setfattr -n user.deadline -v 60s $app/in/busy$round
	ln -sfn $((round % 2 + 1)) models/small/latest
	echo reload >$app/ctl
	"$INFERFS" wait $app/out/busy$round/task.json --timeout 30s
done
python3 - $app/out <<'P'
import collections, glob, json, sys
versions = collections.Counter()
for path in glob.glob(sys.argv[1] + "/busy*/*.png.json"):
    a = json.load(open(path))
    assert a["status"] == "ok", a
    assert (a["version"] == 2) == a["label"].startswith("second-"), a
    versions[a["version"]] += 1
assert sum(versions.values()) == 3000 and len(versions) == 2, versions
P

echo "a hundred reloads leave no descriptors behind"
descriptors() { ls /proc/"$(daemon_pid)"/fd | wc -l; }
before=$(descriptors)
for ((i = 0; i < $(amount 100 25); i++)); do echo reload >$app/ctl; done
eventually 60 is $app running
sleep 0.5
few() { (($(descriptors) <= before + 3)); }
eventually 10 few

echo "an endpoint is removed while it answers, and made again under its name"
mkdir $app/in/last
cp "$DIR"/test/*.png $app/in/last/
setfattr -n user.deadline -v 60s $app/in/last
eventually 5 test -e $app/out/last
rm -rf $app
mkdir -p $app/in/anew
cp "$DIR"/test/0000*.png $app/in/anew/
echo '{"model":"small"}' >$app/spec.json
"$INFERFS" wait $app/out/anew/task.json --timeout 20s
same "anew" "$(ls $app/out | tr '\n' ' ' | sed 's/ $//')" "what the new endpoint shows"

echo "a job is removed while it trains, and its data set, too"
mkdir jobs/long
echo '{"dataset":"small","net":{"arch":"mlp"},"epochs":10000}' >jobs/long/spec.json
eventually 20 grep -q . jobs/long/metrics.csv
rm -rf jobs/long
eventually 5 test "$(ls jobs)" = small
mkdir jobs/other
echo '{"dataset":"small","net":{"arch":"mlp"},"epochs":10000}' >jobs/other/spec.json
eventually 20 grep -q . jobs/other/metrics.csv
rm -rf datasets/small
echo pause >jobs/other/ctl
eventually 10 is jobs/other paused
echo resume >jobs/other/ctl
sleep 1
case $(state jobs/other) in
failed) grep -q datasets/small jobs/other/error || fail "$(cat jobs/other/error)" ;;
running | queued) ;; # its cache is still there
*) fail "the job is $(state jobs/other)" ;;
esac
rm -rf jobs/other
eventually 10 test "$(workers)" -le 1
cd /
stop
"$INFERFS" fsck "$STATE"
