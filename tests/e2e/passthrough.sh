#!/bin/bash
# Blobs that the kernel reads itself (fs/mount/passthrough.h): that it does, that readers, writers, mappings and truncations agree
# all the same, over takeovers too, and that nothing of it is left behind.
#	passthrough.sh [SECONDS]
. "$(dirname "$0")/lib.sh"
need python3
[[ $(id -u) -eq 0 ]] || skip "only root's daemon may do it"
start
D=$MNT/datasets/d
mkdir "$D"

daemon_has_read() # bytes
{
	awk '/^rchar/ { print $2 }' "/proc/$(daemon_pid)/io"
}

takeover()
{
	"$INFERFS" mount --takeover "$STATE" "$MNT"
}

head -c 50M /dev/urandom >"$DIR/large"
cp "$DIR/large" "$D/large"
before=$(daemon_has_read)
cmp "$DIR/large" "$D/large"
read_by_daemon=$(($(daemon_has_read) - before))
if grep -q "large files are read through the daemon" "$STATE/log"; then
	skip "$(grep -o "large files are read through the daemon.*" "$STATE/log")"
fi
((read_by_daemon < 1000000)) || fail "the daemon read $read_by_daemon bytes of 50 MB"
stop
start -o no_passthrough
before=$(daemon_has_read)
cmp "$DIR/large" "$D/large"
((($(daemon_has_read) - before) > 10000000)) || fail "no_passthrough does nothing"
stop
start

echo "readers, writers and mappings agree, step by step and over takeovers"
cat >"$DIR/agree.py" <<'P'
import mmap, os, subprocess, sys, time
d, has_times, takeover = sys.argv[1], sys.argv[2] != "tmpfs", sys.argv[3:]   # tmpfs sets no time at a store
SIZE = 1 << 20
path, model = f"{d}/a", bytearray(os.urandom(SIZE))
with open(path, "wb") as f:
    f.write(model)
READ = os.open(path, os.O_RDONLY)
MAP = mmap.mmap(READ, SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
closed = os.open(path, os.O_RDONLY)
MAP2 = mmap.mmap(closed, SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
os.close(closed)                # a mapping outlives its file
def agree(what, fds=()):
    for fd in (READ, *fds):
        got = os.pread(fd, 4 * SIZE, 0)
        assert got == model, (what, fd, len(got), len(model))
        assert os.fstat(fd).st_size == len(model), (what, os.fstat(fd).st_size)
    n = min(len(model), SIZE)
    assert MAP[:n] == MAP2[:n] == model[:n], what
    new = os.open(path, os.O_RDONLY)
    assert os.pread(new, 4 * SIZE, 0) == model, (what, "new")
    os.close(new)
    assert os.lseek(READ, 0, os.SEEK_END) == len(model), what
def put(at, data):
    if at > len(model):
        model.extend(bytes(at - len(model)))
    model[at:at + len(data)] = data
for round in range(3):
    agree("at first")
    rw = os.open(path, os.O_RDWR)
    wo = os.open(path, os.O_WRONLY)
    app = os.open(path, os.O_WRONLY | os.O_APPEND)
    direct = os.open(path, os.O_RDWR | os.O_DIRECT)
    m = mmap.mmap(rw, SIZE)
    agree("open", [rw])
    for at, size in ((5, 10), (4000, 9000), (SIZE - 3, 7)):
        for fd in (rw, wo):
            data = os.urandom(size)
            before = os.stat(path).st_mtime_ns
            assert os.pwrite(fd, data, at) == size
            put(at, data)
            assert os.stat(path).st_mtime_ns > before
            agree("written", [rw])
    data = os.urandom(100000)
    os.write(app, data); put(len(model), data)
    agree("appended", [rw])
    aligned = mmap.mmap(-1, 8192); aligned.write(os.urandom(8192))
    os.pwritev(direct, [aligned], 4096); put(4096, aligned[:])
    os.preadv(direct, [aligned], 0)
    assert aligned[:] == model[:8192]
    agree("written past the cache", [rw])
    subprocess.check_call(takeover)
    agree("after a takeover", [rw])
    m[70000:70010] = b"0123456789"; put(70000, b"0123456789")
    agree("stored", [rw])
    out = os.open(f"{d}/copy", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    assert os.copy_file_range(rw, out, 200000, 0, 0) == 200000
    assert os.pread(out, 200000, 0) == model[:200000]
    m[70000:70010] = b"9876543210"; put(70000, b"9876543210")
    assert os.copy_file_range(rw, out, 200000, 0, 0) == 200000
    assert os.pread(out, 200000, 0) == model[:200000], "copied what was before the store"
    os.close(out)
    for size in (SIZE, 300001, 700000, SIZE):
        os.ftruncate(rw, size)
        del model[size:]; model.extend(bytes(size - len(model)))
        agree("truncated", [rw])
    fl = subprocess.run(["fallocate", "-p", "-o", "8192", "-l", "20000", path])
    assert fl.returncode == 0
    model[8192:28192] = bytes(20000)
    agree("punched", [rw])
    os.fsync(wo); os.fsync(READ)
    for fd in (wo, app, direct):
        os.close(fd)
    # Past what close() of rw looks at: the store of a mapping shows in the time.
    before = os.stat(path).st_mtime_ns
    time.sleep(0.02)
    m[5] = (m[5] + 1) % 256; put(5, m[5:6])
    m.flush(); os.fsync(READ)
    assert os.stat(path).st_mtime_ns > before or not has_times, "a store, and fsync"
    before = os.stat(path).st_mtime_ns
    time.sleep(0.02)
    m[6] = (m[6] + 1) % 256; put(6, m[6:7])
    m.close()
    os.close(rw)
    assert os.stat(path).st_mtime_ns > before or not has_times, "a store, and close"
    agree("closed")
    subprocess.check_call(takeover)
    os.truncate(path, 0); model.clear()
    agree("truncated by name")
    with open(path, "wb") as f:
        f.write(bytes(SIZE))
    model.extend(bytes(SIZE))
    agree("written anew")
# Renamed over and unlinked: what was opened is what it was.
other = os.urandom(300000)
with open(f"{d}/b", "wb") as f:
    f.write(other)
b = os.open(f"{d}/b", os.O_RDONLY)
os.rename(f"{d}/b", path)
assert os.pread(READ, SIZE, 0) == model and MAP[:] == model
with open(path, "rb") as f:
    assert f.read() == other
subprocess.check_call(takeover)
os.unlink(path)
assert os.pread(b, SIZE, 0) == other and os.pread(READ, SIZE, 0) == model
assert os.fstat(READ).st_nlink == os.fstat(b).st_nlink == 0
os.unlink(f"{d}/copy")
# A program is run from there, and O_DIRECT by itself.
os.system(f"cp /bin/true {d}/true; head -c 100000 /dev/zero >> {d}/true")
subprocess.check_call([f"{d}/true"])
direct = os.open(f"{d}/true", os.O_RDONLY | os.O_DIRECT)
plain = os.open(f"{d}/true", os.O_RDONLY)
assert os.pread(direct, 4096, 0) == os.pread(plain, 4096, 0)
os.unlink(f"{d}/true")
P
python3 "$DIR/agree.py" "$D" "$(stat -f -c %T "$STATE")" "$INFERFS" mount --takeover "$STATE" "$MNT"

echo "at once: readers, mappings, writers, truncations, renames, unlinks and takeovers"
cat >"$DIR/crowd.py" <<'P'
# Each 8 bytes of a file are the number of its 4 KiB block, or zeros; anything else, and any error, is wrong.
import errno, mmap, os, random, struct, sys, time
d, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
end = time.monotonic() + seconds
BLOCKS = 64
blocks = [struct.pack("<Q", i + 1) * 512 for i in range(BLOCKS)]
def check(data, at=0):
    for i in range(at, at + len(data) // 4096):
        got = data[(i - at) * 4096:(i - at + 1) * 4096]
        assert got == blocks[i] or not got.strip(b"\0" + struct.pack("<Q", i + 1)), (i, got[:16])
def name():
    return f"{d}/c{rng.randrange(4)}"
n = 0
while time.monotonic() < end:
    n += 1
    what = rng.randrange(10)
    try:
        if what < 4:
            with open(name(), "rb", buffering=0) as f:
                for _ in range(rng.randrange(8)):
                    at = rng.randrange(BLOCKS)
                    check(os.pread(f.fileno(), 4096 * rng.randrange(1, 9), at * 4096), at)
        elif what == 4:
            with open(name(), "rb") as f:
                size = os.fstat(f.fileno()).st_size // 4096 * 4096
                try:
                    mmap.mmap(f.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ).close()
                except ValueError:      # there is less by now
                    pass
        elif what < 8:
            flags = rng.choice((os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC))
            fd = os.open(name(), flags | os.O_CREAT)
            for _ in range(rng.randrange(6)):
                at = rng.randrange(BLOCKS)
                data = b"".join(blocks[at:at + rng.randrange(1, 33)])
                assert os.pwrite(fd, data, at * 4096) == len(data)
            if rng.randrange(3) == 0:
                os.ftruncate(fd, rng.randrange(BLOCKS) * 4096)
            os.close(fd)
        elif what == 8:
            os.rename(name(), name())
        else:
            os.unlink(name())
    except OSError as e:    # ESTALE: it went between the look-up and the opening, twice
        if e.errno not in (errno.ENOENT, errno.ESTALE):
            raise
print(n)
P
for i in 1 2 3 4; do python3 "$DIR/crowd.py" "$D" "${1:-6}" $i >"$DIR/crowd$i" 2>&1 & done
while jobs -r | grep -q crowd; do
	takeover
	sleep 0.5
done
for i in 1 2 3 4; do wait %$i || fail "$(cat "$DIR"/crowd[1-4])"; done
echo "$(cat "$DIR"/crowd[1-4] | paste -sd' ') operations"

echo "many opens; nothing is kept open, as a disk of its own shows"
stop
"$INFERFS" fsck "$STATE"
mkdir "$DIR/disk"
mount -t tmpfs -o size=600m tmpfs "$DIR/disk" || skip "no tmpfs may be mounted here"
STATE=$DIR/disk/state
end()
{
	local status=$?
	"$INFERFS" umount "$MNT" --timeout 20s >/dev/null 2>&1
	umount -l "$DIR/disk"
	(exit $status)
	finish
}
trap end EXIT
start
mkdir "$D"
python3 - "$D" <<'P'
import os, sys
for i in range(50):
    with open(f"{sys.argv[1]}/many{i}", "wb") as f:
        f.write(bytes([i]) * 3000000)
for r in range(40):
    fds = [os.open(f"{sys.argv[1]}/many{i}", os.O_RDWR if r % 4 == 3 else os.O_RDONLY) for i in range(50) for _ in range(2)]
    for i, fd in enumerate(fds):
        assert os.pread(fd, 2, 2999998) == bytes([i // 2]) * 2
        os.close(fd)
P
used() # KiB of the disk beneath
{
	df --output=used "$DIR/disk" | tail -1
}
(($(used) > 140000)) || fail "where are the 150 MB?"
rm -rf "$D"
for _ in {1..100}; do (($(used) < 40000)) && break; sleep 0.1; done
(($(used) < 40000)) || fail "$(used) KiB are kept"
! grep -q "closing backing file" "$STATE/log" || fail "$(grep "closing backing file" "$STATE/log")"
stop
"$INFERFS" fsck "$STATE"
umount "$DIR/disk" || fail "something there is still open"
trap finish EXIT
