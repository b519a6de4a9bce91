#!/bin/bash
# What an NFS server keeps for its clients stays true when the kernel forgets, when the daemon is restarted and when it is
# killed: file handles lead to the same file or, when it was deleted, to ESTALE and never to another one; a cookie of a listing
# leads on from the same place.
# alone: it drops the kernel's caches
. "$(dirname "$0")/lib.sh"
H=$TOOLS/handles
[[ $(id -u) -eq 0 ]] || skip "only root may open files by handle"

forget() # what the kernel has cached of names and inodes
{
	sync "$MNT" 2>/dev/null || true
	echo 2 2>/dev/null >/proc/sys/vm/drop_caches || echo "the kernel's caches can't be dropped here"
}

start -o null_backend,settle=10ms,settle_batch=300ms
D=$MNT/datasets/d
mkdir -p "$D/sub/deep" "$MNT/models/m/1" "$MNT/infer/app"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
eventually 10 grep -q running "$MNT/infer/app/state"
"$INFERFS" wait "$MNT/infer/app/slices.csv" --timeout 10s

for i in {1..200}; do echo "content of $i" >"$D/f$i"; done
(echo "a large one" && head -c 3000000 /dev/urandom) >"$D/large"
cp "$D/large" "$D/large-gone"
echo deep >"$D/sub/deep/x"
ln -s f1 "$D/link"
"$H" get "$D"/f{1..100} "$D/large" "$D/sub" "$D/sub/deep" "$D/sub/deep/x" "$MNT" "$MNT/README" >"$DIR/kept"
"$H" get "$D"/f{101..150} "$D/large-gone" "$MNT/infer/app/state" >"$DIR/gone"
"$H" open "$MNT" <"$DIR/kept" | sort >"$DIR/wanted"
same 106 "$(grep -vc ' E[A-Z]*$' "$DIR/wanted")" "handles that open"
grep -q "f7 [0-9]* content of 7$" "$DIR/wanted" || fail "handles do not lead to their files"

# Everything of `kept` opens as it did at first, nothing of `gone`.
check()
{
	"$H" open "$MNT" <"$DIR/kept" | sort >"$DIR/got"
	diff "$DIR/wanted" "$DIR/got" || fail "handles after $1"
	"$H" open "$MNT" <"$DIR/gone" >"$DIR/got"
	same "" "$(sed -n '/ ESTALE$/d; p; 3q' "$DIR/got")" "handles of what was deleted, after $1"
	same 52 "$(wc -l <"$DIR/got")"
}

forget
"$H" open "$MNT" <"$DIR/kept" | sort | diff "$DIR/wanted" - || fail "handles after the caches were dropped"
rm "$D"/f{101..150} "$D/large-gone"
mv "$D/f1" "$D/sub/renamed" # the handle goes with the file
mv "$D/sub/deep" "$D/deeper"
echo stop >"$MNT/infer/app/ctl" # replaces `state`
eventually 5 grep -q stopped "$MNT/infer/app/state"
for i in {1..100}; do echo "new $i" >"$D/n$i"; done
check "deletion"
forget
check "deletion and dropped caches"

echo "instances that were opened by handle are seen to be complete"
echo start >"$MNT/infer/app/ctl"
eventually 10 grep -q running "$MNT/infer/app/state"
mkdir "$MNT/infer/app/in/.b"
for i in 1 2 3; do echo "$i" >"$MNT/infer/app/in/.b/$i.png"; done
"$H" get "$MNT"/infer/app/in/.b/{1,2,3}.png >"$DIR/instances"
mv "$MNT/infer/app/in/.b" "$MNT/infer/app/in/b"
"$INFERFS" wait "$MNT/infer/app/out/b/task.json" --timeout 10s
forget
"$H" write "$MNT" again <"$DIR/instances"
same again "$(cat "$MNT/infer/app/in/b/2.png")"
# They make a further task of the directory when it is quiet.
another() { (($(wc -l <"$MNT/infer/app/schedule.csv") == 3)); }
eventually 10 another
same 3 "$(python3 -c "import csv, sys; print(list(csv.DictReader(sys.stdin))[-1][\"N\"])" <"$MNT/infer/app/schedule.csv")" "instances of the second task"

echo "cookies"
mkdir "$D/many"
for i in {1..3000}; do : >"$D/many/e$i"; done
"$H" list "$D/many" >"$DIR/all"
same 3000 "$(wc -l <"$DIR/all")"
cookie=$(sed -n 1000p "$DIR/all" | cut -d' ' -f1)
tail -n +1001 "$DIR/all" | cut -d' ' -f2 >"$DIR/rest"

# rest_is WHAT: listing goes on from `cookie` with those of `rest` that still exist, each once and in its order
rest_is()
{
	"$H" list "$D/many" "$cookie" | cut -d' ' -f2 >"$DIR/got"
	diff "$DIR/rest" "$DIR/got" >"$DIR/diff" || fail "cookies after $1: $(head -n 3 "$DIR/diff")"
}
rest_is "nothing"
forget
rest_is "dropped caches"
# The entry at the cookie goes, and some before and behind; others come.
for i in $(sed -n '900,1100p' "$DIR/all" | cut -d' ' -f2); do rm "$D/many/$i"; done
tail -n +1101 "$DIR/all" | cut -d' ' -f2 >"$DIR/rest"
for i in {1..10}; do : >"$D/many/later$i"; echo "later$i" >>"$DIR/rest"; done
rest_is "removals"

echo "a clean restart"
rm "$MNT"/infer/app/in/b/*
stop
start -o null_backend
check "a restart"
rest_is "a restart"
forget
check "a restart and dropped caches"

echo "kill -9"
kill_daemon
start -o null_backend
check "kill -9"
rest_is "kill -9"
for i in {1..100}; do echo "newer $i" >"$D/o$i"; done
forget
check "kill -9, new files and dropped caches"
stop
"$INFERFS" fsck "$STATE"
