#!/bin/bash
# The daemon is replaced while the tree is in use (mount --takeover): what is open goes on, and nobody gets an error. How long
# no request was served is printed.
#	takeover.sh [TAKEOVERS [OPERATIONS]]
. "$(dirname "$0")/lib.sh"
need python3 inotifywait
start -o settle=20ms
mkdir "$MNT/datasets/d" "$MNT/datasets/many"
D=$MNT/datasets/d

# gone PID: also when nobody has asked for its status yet
gone()
{
	[[ ! -e /proc/$1 ]] || grep -q '^State:.Z' "/proc/$1/status"
}

takeover()
{
	local before
	before=$(daemon_pid)
	"$INFERFS" mount --takeover "$STATE" "$MNT" "$@"
	[[ $(daemon_pid) != "$before" ]] || fail "the daemon is the same"
	eventually 5 gone "$before"
}

echo "open files: read, written, appended to, without a name, large, a spec; a directory that is listed; a handle; watchers"
cat >"$DIR/open.py" <<'P'
import ctypes, fcntl, json, mmap, os, sys
d, mnt = sys.argv[1], sys.argv[2]
say = lambda text: print(text, flush=True)
def new(name, flags=0):
    return os.open(f"{d}/{name}", os.O_RDWR | os.O_CREAT | flags, 0o644)
for name in ("read", "unlinked", "large_unlinked"):
    with open(f"{d}/{name}", "wb") as f:
        f.write(name.encode() * (30000 if "large" in name else 10))
read = os.open(f"{d}/read", os.O_RDONLY)
assert os.read(read, 4) == b"read"
half, append, large, moved = new("half"), new("append", os.O_APPEND), new("large"), new("before")
append2 = os.open(f"{d}/append", os.O_WRONLY | os.O_APPEND)
gone = [os.open(f"{d}/{n}", os.O_RDWR) for n in ("unlinked", "large_unlinked")]
for n in ("unlinked", "large_unlinked"):
    os.unlink(f"{d}/{n}")
os.write(gone[0], b"GONE")
os.write(gone[1], b"GONE")
only = os.open(f"{d}/only", os.O_WRONLY | os.O_CREAT, 0o200)   # nobody may open it once more
os.write(only, b"w")
os.pwrite(large, b"L" * 100000, 0)
mapped = new("mapped"); os.ftruncate(mapped, 8192)
m = mmap.mmap(mapped, 8192)
fcntl.flock(half, fcntl.LOCK_EX)
spec = os.open(f"{mnt}/jobs/j/spec.json", os.O_WRONLY | os.O_CREAT)
os.write(spec, b'{"dataset":')
listing = os.scandir(f"{mnt}/datasets/many")
names = [next(listing).name for _ in range(10)]
wrote = {half: b"", append: b""}
n = 0
say("ready")
for line in sys.stdin:
    if line == "end\n":
        break
    n += 1
    for fd in (half, append):
        text = b"%d:" % n + b"x" * (n * 997 % 5000)
        os.write(fd, text)
        wrote[fd] += text
    text = b"again%d" % n
    os.write(append2, text)
    wrote[append] += text
    os.pwrite(large, b"%06d" % n, 100000 + n * 6)
    os.write(only, b"w")
    os.lseek(gone[1], 0, os.SEEK_SET)
    assert os.read(gone[1], 4 + 10) == b"GONE" + b"large_unlinked"[4:]
    assert os.pread(gone[0], 8, 0) == b"GONEnked", os.pread(gone[0], 8, 0)
    assert os.fstat(gone[0]).st_nlink == 0
    assert os.pread(read, 100, 0) == b"read" * 10
    m[n] = n; m[5000 + n] = n; m.flush()
    os.rename(f"{d}/before" if n == 1 else f"{d}/moved{n - 1}", f"{d}/moved{n}")
    os.write(moved, b"m")
    names += [next(listing).name for _ in range(300)]
    other = os.open(f"{d}/half", os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise SystemExit("the lock is gone")
    except BlockingIOError:
        pass
    os.close(other)
    say("went on")
os.write(spec, b'"none"}')
os.close(spec)
names += [e.name for e in listing if e.name != "dataset.json"]
assert len(names) == len(set(names)) == 4000, (len(names), len(set(names)))
for fd, name in ((half, "half"), (append, "append")):
    os.close(fd)
    with open(f"{d}/{name}", "rb") as f:
        got = f.read()
    assert got == wrote[fd], (name, len(got), len(wrote[fd]))
assert os.fstat(only).st_size == n + 1
os.close(only)
os.close(large)
with open(f"{d}/large", "rb") as f:
    assert f.read() == b"L" * 100000 + b"\0" * 6 + b"".join(b"%06d" % i for i in range(1, n + 1))
os.close(moved)
with open(f"{d}/moved{n}", "rb") as f:
    assert f.read() == b"m" * n
m.close(); os.close(mapped)
with open(f"{d}/mapped", "rb") as f:
    got = f.read()
assert list(got[1:n + 1]) == list(got[5001:5001 + n]) == list(range(1, n + 1)), got[:20]
say("whole")
P
mkdir "$MNT/jobs/j"
(cd "$MNT/datasets/many" && for i in {1..4000}; do : >"a-name-that-fills-the-buffer-of-a-listing-sooner-$i"; done)
echo kept >"$D/kept"
"$TOOLS/handles" get "$D/kept" "$MNT/datasets/many" >"$DIR/handles"
echo one >"$D/tailed"
tail -n +1 -f "$D/tailed" >"$DIR/tail" 2>&1 &
tail=$!
inotifywait -q -m -r -e moved_to,create --format '%e %w%f' "$MNT/datasets/d" >"$DIR/seen" 2>&1 &
watcher=$!
mkfifo "$DIR/go" "$DIR/said"
python3 "$DIR/open.py" "$D" "$MNT" <"$DIR/go" >"$DIR/said" 2>"$DIR/python" &
python=$!
exec 8>"$DIR/go" 9<"$DIR/said"
heard() # TEXT
{
	local line
	read -r -t 20 line <&9 || fail "no '$1': $(cat "$DIR/python")"
	same "$1" "$line"
}
heard ready
for ((i = 1; i <= ${1:-5}; i++)); do
	echo >&8
	heard "went on"
	takeover
	echo "line $i" >>"$D/tailed"
	same "$D/kept $(stat -c %i "$D/kept") kept" "$("$TOOLS/handles" open "$MNT" <"$DIR/handles" | head -1)"
	echo >&8
	heard "went on"
	echo "$i" >"$D/new$i"
	mkdir "$D/dir$i"
done
echo end >&8
heard whole
wait $python
eventually 10 grep -q "no such data set" "$MNT/jobs/j/error"
eventually 5 cmp "$D/tailed" "$DIR/tail"
for ((i = 1; i <= ${1:-5}; i++)); do
	eventually 5 grep -qx "CREATE $D/new$i" "$DIR/seen"
	eventually 5 grep -qx "CREATE,ISDIR $D/dir$i" "$DIR/seen"
done
# What the daemon itself writes, by its publisher.
eventually 10 grep -qx "MOVED_TO $D/dataset.json" "$DIR/seen"
kill $tail $watcher

echo "no descriptor is left in the daemon, and no inode without a name"
same "" "$(ls -l "/proc/$(daemon_pid)/fd" | grep "$STATE/blobs/" || true)" "open contents"
takeover -o settle=30ms
stop
"$INFERFS" fsck "$STATE"

echo "under load: contents and names against their models"
start
mkdir "$MNT/datasets/e" "$MNT/datasets/n"
"$TOOLS/exercise_data" "$MNT/datasets/e" "${2:-10000}" >"$DIR/data" 2>&1 &
data=$!
"$TOOLS/exercise_names" "$MNT/datasets/n" "$((${2:-10000} / 10))" >"$DIR/names" 2>&1 &
names=$!
n=0
while kill -0 $data 2>/dev/null || kill -0 $names 2>/dev/null; do
	takeover
	n=$((n + 1))
	sleep 0.4
done
wait $data || fail "$(cat "$DIR/data")"
wait $names || fail "$(cat "$DIR/names")"
((n > 1)) || fail "only $n takeovers"
echo "$n takeovers; milliseconds without service: $(sed -n 's/.*; for \([0-9]*\) ms no request.*/\1/p' "$STATE/log" | sort -n | tr '\n' ' ')"
stop
"$INFERFS" fsck "$STATE"

echo "root's umount(8) and ours after a takeover"
start
takeover
pid=$(daemon_pid)
if [[ $(id -u) -eq 0 ]]; then eventually 5 umount "$MNT"; else stop; fi
eventually 10 gone "$pid"
! mountpoint -q "$MNT" || fail "it is still mounted"
[[ ! -e $STATE/takeover && ! -e $STATE/pid ]] || fail "socket or pid file is left"
"$INFERFS" fsck "$STATE"
