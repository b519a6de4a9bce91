#!/bin/bash
# Long names, long paths, deep directories, large sparse files.
. "$(dirname "$0")/lib.sh"
need python3
start
mkdir "$MNT/datasets/l"
cd "$MNT/datasets/l"
python3 - <<'P'
import errno, os

def refused(code, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno == code, (e, code)
    else:
        raise SystemExit(f"{fn.__name__} should fail with {code}")

# 255 bytes, not characters
for name in ("n" * 255, "ü" * 127 + "x", "\x01" * 255):
    open(name, "w").close()
    os.rename(name, "r")
    os.link("r", name)
    os.unlink("r")
    assert name in os.listdir()
    refused(errno.ENAMETOOLONG, open, name + "x", "w")
    refused(errno.ENAMETOOLONG, os.rename, name, name + "x")
    os.unlink(name)
os.symlink("t" * 4095, "symlink")
assert os.readlink("symlink") == "t" * 4095
refused(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "longer")

# A path of 4,095 bytes and its NUL, in steps of 5 bytes and of 256: then still deeper by chdir
for step in ("dddd", "e" * 255):
    path = step
    os.mkdir(path)
    while len(path) + 1 + len(step) <= 4093:
        path += "/" + step
        os.mkdir(path)
    path += "/" + "f" * (4095 - len(path) - 1)
    with open(path, "w") as f:
        f.write("deep")
    assert open(path).read() == "deep" and os.stat(path).st_size == 4
    refused(errno.ENAMETOOLONG, open, path + "x", "w")
    top = os.open(".", os.O_RDONLY)
    os.chdir(os.path.dirname(path))
    os.makedirs("below/" * 20)
    open("below/" * 20 + "f", "w").close()
    os.rename(os.path.basename(path), "below/g")
    assert open("below/g").read() == "deep"
    os.fchdir(top)
    os.close(top)

# 1 TB, of which a few bytes are there
size = 1 << 40
f = os.open("sparse", os.O_RDWR | os.O_CREAT)
os.ftruncate(f, size)
os.pwrite(f, b"begin", 0)
os.pwrite(f, b"middle", size // 2)
os.pwrite(f, b"end", size - 3)
st = os.fstat(f)
assert st.st_size == size and st.st_blocks * 512 < 1 << 20, st
assert os.pread(f, 10, size - 3) == b"end" and os.pread(f, 6, size // 2) == b"middle"
assert os.pread(f, 8, size // 4) == bytes(8)
assert size // 2 - 65536 <= os.lseek(f, 1 << 30, os.SEEK_DATA) <= size // 2
assert os.lseek(f, size // 2, os.SEEK_HOLE) < size // 2 + 65536 * 2
os.fsync(f)
os.close(f)
f = os.open("sparse", os.O_RDONLY)
assert os.pread(f, 10, size - 3) == b"end" and os.fstat(f).st_size == size
os.close(f)
P
same 1099511627776 "$(stat -c %s sparse)"
truncate -s 100 sparse
same begin "$(head -c 5 sparse)"
cd /
stop
"$INFERFS" fsck "$STATE"
start
rm -r "$MNT"/datasets/l/*
rmdir "$MNT/datasets/l"
stop
"$INFERFS" fsck "$STATE"
