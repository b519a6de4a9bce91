#!/bin/bash
# A disk that takes no more writes (RLIMIT_FSIZE of the daemon): what is written is refused at the call, what was there is read, `status` and
# `events` say it in a line, and the next mount has everything that was acknowledged and answers what waited.
. "$(dirname "$0")/../e2e/lib.sh"
need prlimit setfattr python3
start -o null_backend,settle=1ms,settle_batch=100ms
D=$MNT/datasets/d
mkdir -p "$D" "$MNT/models/m/1" "$MNT/infer/app"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
eventually 10 grep -q running "$MNT/infer/app/state"
for i in {1..100}; do echo "$i" >"$D/$i"; done
head -c 300000 /dev/urandom >"$D/large"
sum=$(sha256sum <"$D/large")
mkdir "$MNT/infer/app/in/.b"
for i in {1..50}; do echo "$i" >"$MNT/infer/app/in/.b/$i.png"; done
eventually 5 grep -q running "$MNT/events"
tail -n +1 -F "$MNT/events" >"$DIR/followed" 2>/dev/null &
follower=$!

pid=$(daemon_pid)
prlimit --pid "$pid" --fsize=1:unlimited
expect "Input/output error" mkdir "$D/dir" # the first to meet it
expect "Read-only file system" mkdir "$D/dir"
expect "Read-only file system" touch "$D/new"
expect "Read-only file system" sh -c "echo x >>$D/1"
expect "Read-only file system" truncate -s 0 "$D/2"
expect "Read-only file system" rm -f "$D/3"
expect "Read-only file system" mv "$D/3" "$D/4"
expect "Read-only file system" mv "$MNT/infer/app/in/.b" "$MNT/infer/app/in/b"
expect "Read-only file system" setfattr -n user.x -v y "$D/5"
expect "Read-only file system" sh -c "echo stop >$MNT/infer/app/ctl"
for i in {1..100}; do same "$i" "$(cat "$D/$i")"; done
same "$sum" "$(sha256sum <"$D/large")"
eventually 5 grep -q '^volume read-only since 20.*mount again$' "$MNT/status"
same "" "$(ls -l "$MNT" 2>&1 >/dev/null)" "what ls says"
grep -q '^volume read-only since 20' "$MNT/status" || fail "a listing brought the old status back"
same "$(stat -c %s "$MNT/status")" "$(wc -c <"$MNT/status")" "size of status"
eventually 5 grep -q '"event":"volume".*read-only since' "$MNT/events"
eventually 20 grep -q '"event":"volume".*read-only since' "$DIR/followed" # tail opens a name anew after some looks
kill $follower
wait $follower || true
python3 -c 'import json, sys; [json.loads(l) for l in open(sys.argv[1])]' "$MNT/events"

echo "it is well again"
prlimit --pid "$pid" --fsize=unlimited:unlimited
expect "Read-only file system" mkdir "$D/dir"
stop
"$INFERFS" fsck "$STATE"
start -o null_backend,settle=1ms,settle_batch=100ms
! grep -q '^volume' "$MNT/status" || fail "status: $(cat "$MNT/status")"
for i in {1..100}; do same "$i" "$(cat "$D/$i")"; done
same "$sum" "$(sha256sum <"$D/large")"
mkdir "$D/dir"
mv "$MNT/infer/app/in/.b" "$MNT/infer/app/in/b"
"$INFERFS" wait "$MNT/infer/app/out/b/task.json" --timeout 20s
stop
"$INFERFS" fsck "$STATE"
