#!/bin/bash
# `events`: one line of JSON for each thing that happens, appended through the mount: tail -f and -F go on, inotify tells of it, and
# when the file is full it starts anew without a follower missing a line or seeing one twice.
. "$(dirname "$0")/lib.sh"
need tail python3 inotifywait
APP=app-$(printf 'long%.0s' {1..50}) # each line has it twice, so that the file is soon full
start -o null_backend,settle=1ms,settle_batch=60s
mkdir -p "$MNT/models/m/1" "$MNT/infer/$APP" "$MNT/jobs/j"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
eventually 5 test -e "$MNT/events"
inode=$(stat -c %i "$MNT/events")

followers=()
end_followers()
{
	local status=$?
	set +e
	trap - ERR
	((${#followers[@]} == 0)) || kill "${followers[@]}" 2>/dev/null # the mount is busy while they are there
	wait "${followers[@]}" 2>/dev/null
	followers=()
	return $status
}
trap 'end_followers; finish' EXIT
tail -n +1 -f "$MNT/events" >"$DIR/followed-f" 2>"$DIR/f.err" &
followers+=($!)
tail -n +1 -F "$MNT/events" >"$DIR/followed-F" 2>"$DIR/F.err" &
followers+=($!)
inotifywait -q -m -e modify --format %e "$MNT/events" >"$DIR/modified" 2>/dev/null &
followers+=($!)

# poll(2): readable always, as any file; POLLPRI for what comes, then the whole of it can be read, and for that only
cat >"$DIR/poll.py" <<'P'
import os, select, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.lseek(fd, 0, 2)
how = sys.argv[2]
if how == "select":
    wait = lambda t: select.select([], [], [fd], t)[2]
else:
    p = select.epoll() if how == "epoll" else select.poll()
    p.register(fd, select.POLLPRI)
    wait = lambda t: p.poll(t if how == "epoll" else int(t * 1000))
while wait(0.5):  # what is still told of the start
    os.lseek(fd, 0, 2)
print("ready", flush=True)
got = b""
while b'"running"' not in got:
    assert wait(10), "no event in 10 s"
    new = os.read(fd, 1 << 20)
    assert new.endswith(b"\n"), new
    got += new
while wait(1):
    assert os.read(fd, 1 << 20), "an event that nothing made"
q = select.poll()
q.register(fd, select.POLLIN)
assert q.poll(0)[0][1] == select.POLLIN, q.poll(0)
P
pollers=()
for how in poll select epoll; do
	python3 "$DIR/poll.py" "$MNT/events" $how >"$DIR/poll-$how" &
	pollers+=($!)
done
for how in poll select epoll; do eventually 5 grep -q ready "$DIR/poll-$how"; done

echo '{"model":"m","version":1}' >"$MNT/infer/$APP/spec.json"
eventually 10 grep -q running "$MNT/infer/$APP/state"
for p in "${pollers[@]}"; do wait "$p"; done

echo '{"dataset":"none"}' >"$MNT/jobs/j/spec.json" # it waits for that one

# tasks FROM TO: one of one file each, answered when this returns
tasks()
{
	python3 - "$MNT/infer/$APP/in" "$1" "$2" <<'P'
import os, sys
for i in range(int(sys.argv[2]), int(sys.argv[3]) + 1):
    os.mkdir(f"{sys.argv[1]}/.b{i}")
    open(f"{sys.argv[1]}/.b{i}/x.png", "w").write("x")
    os.rename(f"{sys.argv[1]}/.b{i}", f"{sys.argv[1]}/b{i}")
P
	eventually 20 all_answered "$2"
}
all_answered() { (($(ls "$MNT/infer/$APP"/out/*/task.json | wc -l) == $1)); }
smaller() { (($(stat -c %s "$MNT/events") < $1)); }
has_lines() { (($(wc -l <"$MNT/events") >= $1)); }

tasks 1 250
eventually 10 test -e "$MNT/events.old"
eventually 5 smaller 1000
tasks 251 260
echo stop >"$MNT/infer/$APP/ctl"
eventually 5 grep -q stopped "$MNT/infer/$APP/state"
rmdir "$MNT/jobs/j"
eventually 5 grep -q removed "$MNT/events"
same "$inode" "$(stat -c %i "$MNT/events")" "the file's inode"
eventually 5 grep -q removed "$DIR/followed-f"
eventually 8 grep -q removed "$DIR/followed-F"
grep -q MODIFY "$DIR/modified" || fail "inotify saw no MODIFY"

cat "$MNT/events.old" "$MNT/events" >"$DIR/all"
for f in all followed-f followed-F; do
	python3 - "$DIR/$f" "$APP" <<'P'
import json, sys
from collections import Counter
app = sys.argv[2]
lines = [json.loads(line) for line in open(sys.argv[1])]
seen = Counter((l["event"], l["name"], l["what"]) for l in lines)
assert max(seen.values()) == 1, seen.most_common(3)
for event in "submitted", "started", "finished":
    got = [l["what"] for l in lines if l["event"] == event]
    assert len(got) == 260, (event, len(got))
order = {}
for n, l in enumerate(lines):
    order[l["event"], l["what"]] = n
for (event, what), n in order.items():
    if event == "started":
        assert order["submitted", what] < n < order["finished", what], what
for wanted in ("endpoint", app, "starting"), ("endpoint", app, "running"), ("endpoint", app, "stopped"), ("job", "j", "queued"), ("job", "j", "removed"):
    assert seen[wanted] == 1, (wanted, [k for k in seen if k[0] in ("endpoint", "job")])
assert all(a["time"] <= b["time"] for a, b in zip(lines, lines[1:])), "times"
P
done
cmp "$DIR/followed-f" "$DIR/all"
cmp "$DIR/followed-F" "$DIR/all"

echo "killed while it is appended to"
end_followers
trap 'end_followers; finish' EXIT
echo start >"$MNT/infer/$APP/ctl"
eventually 5 grep -q running "$MNT/infer/$APP/state"
before=$(wc -l <"$MNT/events")
tasks 261 270
eventually 5 has_lines $((before + 30))
tasks 271 280
kill_daemon # lines of the last 0.2 s may be lost
start -o null_backend,settle=1ms,settle_batch=60s
tasks 281 282
eventually 5 has_lines $((before + 36))
stop
start
same "" "$(python3 -c 'import json, sys; [json.loads(l) for l in sys.stdin]' <"$MNT/events" 2>&1)" "lines that are not JSON"
grep -q '"finished".*000282' <(tail -n 8 "$MNT/events") || fail "the last task's end is not told: $(tail -n 3 "$MNT/events")"
if [[ $(id -u) -eq 0 ]]; then same "444 0" "$(stat -c '%a %u' "$MNT/events")"; fi
stop
"$INFERFS" fsck "$STATE"
