#!/bin/bash
# kill -9 of the daemon and of the training worker in mid-training: training goes on from the last epoch's checkpoint, each epoch
# stands once in metrics.csv, and the weights are those of an undisturbed run.
. "$(dirname "$0")/../e2e/lib.sh"
need python3 pgrep
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 "$(amount 400 100)" --folders
start
cp -r "$DIR/train" "$MNT/datasets/small"
spec='{"dataset":"small","net":{"arch":"resnet","depth":8,"width":16},"epochs":6,"batch":32,"seed":7}'
lines()
{
	[[ $(wc -l <"$MNT/jobs/$1/metrics.csv") -ge $2 ]]
}

mkdir "$MNT/jobs/calm"
echo "$spec" >"$MNT/jobs/calm/spec.json"
eventually 120 grep -q done "$MNT/jobs/calm/state"

mkdir "$MNT/jobs/storm"
echo "$spec" >"$MNT/jobs/storm/spec.json"
eventually 60 lines storm 3 # the header and two epochs
kill_daemon
start
eventually 60 lines storm 5
kill -9 "$(pgrep -P "$(daemon_pid)" -f 'worker train')"
eventually 120 grep -qE 'done|failed' "$MNT/jobs/storm/state"
same done "$(cat "$MNT/jobs/storm/state")"
same "1 2 3 4 5 6" "$(tail -n +2 "$MNT/jobs/storm/metrics.csv" | cut -d, -f1 | tr '\n' ' ' | sed 's/ $//')" epochs
cmp "$MNT/models/calm/1/weights.safetensors" "$MNT/models/storm/1/weights.safetensors"

echo "pause and resume"
mkdir "$MNT/jobs/pause"
echo "$spec" >"$MNT/jobs/pause/spec.json"
eventually 60 lines pause 2
echo pause >"$MNT/jobs/pause/ctl"
eventually 10 grep -q paused "$MNT/jobs/pause/state"
echo resume >"$MNT/jobs/pause/ctl"
eventually 120 grep -q done "$MNT/jobs/pause/state"
cmp "$MNT/models/calm/1/weights.safetensors" "$MNT/models/pause/1/weights.safetensors"
stop
"$INFERFS" fsck "$STATE"
