#!/bin/bash
# kill -9 of the worker and of the daemon in the middle of tasks: every submitted instance is answered exactly once, in time if
# there is time.
. "$(dirname "$0")/../e2e/lib.sh"
need setfattr python3 pgrep
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
n=$(amount 300 100) # instances of a batch
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 200 --folders
"$IDX2PNG" $fashion/t10k-images-idx3-ubyte.gz $fashion/t10k-labels-idx1-ubyte.gz "$DIR/test" 0 "$n"
start
cp -r "$DIR/train" "$MNT/datasets/small"
mkdir "$MNT/jobs/small" "$MNT/infer/app"
echo '{"dataset":"small","net":{"arch":"resnet","depth":8,"width":16},"epochs":1,"batch":32}' >"$MNT/jobs/small/spec.json"
"$INFERFS" wait "$MNT/models/small/latest" --timeout 120s
echo '{"model":"small"}' >"$MNT/infer/app/spec.json"
"$INFERFS" wait "$MNT/infer/app/slices.csv" --timeout 30s

worker_pid()
{
	pgrep -P "$(daemon_pid)" -f 'worker infer'
}

submit() # BATCH
{
	mkdir "$MNT/infer/app/in/$1"
	cp "$DIR"/test/*.png "$MNT/infer/app/in/$1/"
	setfattr -n user.deadline -v 120s "$MNT/infer/app/in/$1"
}

answered() # BATCH: exactly once each, all of them ok
{
	"$INFERFS" wait "$MNT/infer/app/out/$1/task.json" --timeout 60s
	python3 - "$MNT/infer/app/out/$1" "$n" <<'P'
import collections, csv, json, os, sys
out, n = sys.argv[1], int(sys.argv[2])
names = [n for n in os.listdir(out) if n.endswith(".png.json")]
assert len(names) == n, len(names)
for name in names:
    j = json.load(open(os.path.join(out, name)))
    assert j["status"] == "ok", j
rows = collections.Counter(r["file"] for r in csv.DictReader(open(out + "/results.csv")))
assert len(rows) == n and max(rows.values()) == 1, (len(rows), rows.most_common(3))
P
}

echo "the worker"
for i in 1 2 3; do
	submit "w$i"
	sleep "0.0$i"
	kill -9 "$(worker_pid)"
	answered "w$i"
done

echo "the daemon"
for i in 1 2 3 4; do
	submit "d$i"
	sleep "0.0$((i * 2))"
	kill_daemon
	start
	answered "d$i"
	same ok "$(getfattr --absolute-names --only-values -n user.state "$MNT/infer/app/in/d$i/00007-6.png")"
done

echo "a change that was not submitted yet"
out=$MNT/infer/app/out/d4/00007-6.png.json
old=$(stat -c %i "$out")
cp "$DIR/test/00008-5.png" "$MNT/infer/app/in/d4/00007-6.png"
kill_daemon
start
renewed()
{
	[[ $(stat -c %i "$out") != "$old" ]]
}
eventually 20 renewed

echo "an endpoint of the same name goes on counting"
number() # BATCH: of its last task
{
	python3 -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["task"].split("-")[1]))' "$MNT/infer/app/out/$1/task.json"
}
"$INFERFS" wait "$MNT/infer/app/out/d4/task.json" --timeout 20s
last=$(number d4)
rm -r "$MNT/infer/app"
mkdir "$MNT/infer/app"
echo '{"model":"small"}' >"$MNT/infer/app/spec.json"
"$INFERFS" wait "$MNT/infer/app/slices.csv" --timeout 30s
submit again
answered again
[[ $(number again) -gt $last ]] || fail "task number $(number again) came again after $last"
stop
"$INFERFS" fsck "$STATE"
