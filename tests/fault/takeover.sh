#!/bin/bash
# Takeovers that go wrong: successors that are strangers, of another version, that fail, die or hang; and kill -9 of either
# daemon at any moment. Afterwards the old one serves, or the new one, or the mount is dead and is mounted again; and nothing that
# was written is lost.
#	takeover.sh [KILLS]
# alone: successors that hang are given up after a time
. "$(dirname "$0")/../e2e/lib.sh"
need python3 setpriv
start
D=$MNT/datasets/d
mkdir "$D"

gone()
{
	[[ ! -e /proc/$1 ]] || grep -q '^State:.Z' "/proc/$1/status"
}

# Not inferfs: hostile.py WHAT… speaks to the socket.
cat >"$DIR/hostile.py" <<'P'
import array, os, signal, socket, struct, sys, time
state, mnt, what = sys.argv[1:4]
HELLO, REFUSED, STATE, FAILED, READY = range(1, 6)
def message(type, text=b"", protocol=2, form=2, magic=b"inferfs\0"):
    return struct.pack("8sII4096sI", magic, protocol, type, text, form)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(f"{state}/takeover")
def refusal():
    got = s.recv(8192)
    if not got:
        return "closed"
    magic, protocol, type, text, form = struct.unpack("8sII4096sI", got)
    assert type == REFUSED, type
    return text.split(b"\0")[0].decode()
m = mnt.encode()
first = {"garbage": b"x" * 100, "short": b"inferfs\0", "magic": message(HELLO, m, magic=b"INFERFS\0"),
         "protocol": message(HELLO, m, protocol=77), "format": message(HELLO, m, form=1), "place": message(HELLO, b"/"),
         "type": message(READY, m), "long": message(HELLO, m) + b"x" * 4000}.get(what)
if first is not None:
    # With descriptors that nobody asked for: they must be closed.
    s.sendmsg([first], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    print(refusal())
    sys.exit()
if what == "silent":
    time.sleep(0.5)
    sys.exit()
s.send(message(HELLO, m))
data, control, flags, _ = s.recvmsg(8192, 4096)
assert struct.unpack("8sII4096sI", data)[2] == STATE
fds = array.array("i", control[0][2])
if what == "failed":
    s.send(message(FAILED, b"a reason"))
elif what == "nonsense":
    s.send(b"READY!")
elif what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(30 if what != "dies" else 0)   # the daemon must not wait for us
P

# The files below must go on over everything that follows.
exec 5>"$D/written" 6>"$D/nameless"
echo "nameless" >"$D/kept"
exec 7<>"$D/kept"
rm "$D/nameless" "$D/kept"
wrote=
went_on() # TEXT
{
	echo "$1" >&5
	wrote+="$1"$'\n'
	same "$wrote" "$(cat "$D/written")"$'\n'
	same nameless "$(cat /dev/fd/7)"
	echo "$1" >"$D/new"
	same "$1" "$(cat "$D/new")"
}

descriptors()
{
	ls "/proc/$pid/fd" | wc -l
}

echo "refused"
pid=$(daemon_pid)
before=$(descriptors)
for what in garbage short magic type long; do
	python3 "$DIR/hostile.py" "$STATE" "$MNT" $what | grep -q . || fail "no answer to $what"
done
hostile()
{
	python3 "$DIR/hostile.py" "$STATE" "$MNT" "$@"
}
same "it speaks another version's protocol: unmount and mount" "$(hostile protocol)"
same "it uses another format of the volume: unmount and mount" "$(hostile format)"
same "the tree is mounted elsewhere" "$(hostile place)"
hostile silent
eventually 5 test "$(descriptors)" -le "$before"
same "$pid" "$(daemon_pid)"
went_on refused
same "600 socket" "$(stat -c '%a %F' "$STATE/takeover")"
if [[ $(id -u) -eq 0 ]]; then
	chmod 755 "$DIR" "$STATE"
	expect "Permission denied" setpriv --reuid 65534 --clear-groups "$INFERFS" mount --takeover "$STATE" "$MNT" -f
	chmod 666 "$STATE/takeover"
	expect "runs as user 0, this program as 65534" setpriv --reuid 65534 --clear-groups "$INFERFS" mount --takeover \
		"$STATE" "$MNT" -f
	eventually 5 grep -q "this daemon is another user's" "$STATE/log"
	chmod 600 "$STATE/takeover"
fi
mkdir "$DIR/other" "$DIR/empty"
expect "no inferfs is mounted there" "$INFERFS" mount --takeover "$STATE" "$DIR/other"
expect "what is mounted there is kept in" "$INFERFS" mount --takeover "$DIR/empty" "$MNT"
expect "already mounted" "$INFERFS" mount "$STATE" "$MNT"
same "$pid" "$(daemon_pid)"

echo "taken back"
for what in failed nonsense killed dies; do
	hostile $what || true
	went_on "$what"
	same "$pid" "$(daemon_pid)"
done
# A real one that can't open the volume.
expect "Too many open files" bash -c "ulimit -n 14; exec '$INFERFS' mount --takeover '$STATE' '$MNT'"
went_on "too few descriptors"
same "$pid" "$(daemon_pid)"
python3 "$DIR/hostile.py" "$STATE" "$MNT" hangs &
hostile=$!
sleep 0.5
kill -9 $hostile
went_on "killed while it hung"
same "$pid" "$(daemon_pid)"
eventually 5 grep -q . "$MNT/status"
"$INFERFS" mount --takeover "$STATE" "$MNT"
went_on "and a good one"
[[ $(daemon_pid) != "$pid" ]] || fail "the good one did not take over"

echo "killed"
served()
{
	stat -f "$MNT" >/dev/null 2>&1
}
old=0 new=0 dead=0 n=0
for ((i = 1; i <= ${1:-9}; i++)); do
	exec 8>"$D/k$i"
	echo "before" >&8
	before=$(daemon_pid)
	"$INFERFS" mount --takeover "$STATE" "$MNT" -f 2>/dev/null &
	successor=$!
	sleep "0.0$(printf %02d $((RANDOM % 60)))"
	if ((i % 3)); then victim=$successor; else victim=$before; fi
	kill -9 "$victim"
	eventually 5 gone "$victim"
	# The other one: whatever it does now, it does it soon.
	sleep 0.3
	if served; then
		echo "after" >&8
		same "before after" "$(paste -sd' ' "$D/k$i")"
		if [[ $(daemon_pid) == "$before" ]]; then old=$((old + 1)); else new=$((new + 1)); fi
	else
		dead=$((dead + 1))
		exec 5>&- 6>&- 7>&- 8>&-
		start
		same before "$(head -1 "$D/k$i")"
	fi
	exec 8>&-
done
echo "the old one went on $old times, the new one $new times, $dead mounts were dead"
exec 5>&- 6>&- 7>&-
stop
"$INFERFS" fsck "$STATE"
