#!/usr/bin/env python3
"""Archives that no honest tool makes: archives.py DIRECTORY writes them there."""
import gzip
import io
import os
import sys
import tarfile
import zipfile


def entry(name, **fields):
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def tar(name, *entries, fmt=tarfile.PAX_FORMAT):
    with tarfile.open(name, "w", format=fmt) as t:
        for info, data in entries:
            if data is not None:
                info.size = len(data)
            t.addfile(info, io.BytesIO(data) if data is not None else None)


os.chdir(sys.argv[1])
one = (entry("1.png"), b"1")
tar("dotdot.tar", one, (entry("sub/../../2.png"), b"2"))
tar("absolute.tar", one, (entry("/tmp/2.png"), b"2"))
tar("long.tar", one, (entry("x" * 300 + ".png"), b"2"))
tar("deep.tar", one, (entry("d/" * 40 + "2.png"), b"2"))
tar("symlink.tar", one, (entry("2.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), None))
tar("hardlink.tar", one, (entry("2.png", type=tarfile.LNKTYPE, linkname="1.png"), None))
tar("fifo.tar", one, (entry("2.png", type=tarfile.FIFOTYPE), None))
tar("device.tar", one, (entry("2.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5), None))
tar("twice.tar", one, (entry("./1.png"), b"2"))
tar("both.tar", one, (entry("1.png/2.png"), b"2"))
tar("nothing.tar", (entry(".hidden/1.png"), b"1"), (entry("dir", type=tarfile.DIRTYPE), None),
    (entry("x.tmp"), b"1"))
tar("leaves.tar", (entry("__MACOSX/._1.png"), b"x"), one, (entry("draft.png~"), b"1"),
    (entry("./a//b/./2.png"), b"2"), (entry("e.png"), b""))
# as long as a name can be, in a GNU and in a pax header
tar("names.tar", (entry("n" * 255), b"1"), (entry("\N{BLACK CHESS QUEEN}.png"), b"2"), (entry("a b\n'\"%.png"), b"3"))
tar("gnu.tar", (entry("d" * 200 + "/" + "f" * 251 + ".png"), b"1"), fmt=tarfile.GNU_FORMAT)
tar("bytes.tar", (entry(b"\xff\xfe.png".decode("utf-8", "surrogateescape")), b"1"), fmt=tarfile.GNU_FORMAT)
tar("inner.tar", one)
with open("inner.tar", "rb") as f:
    tar("nested.tar", (entry("inner.tar"), f.read()))
os.unlink("inner.tar")
# 10,000 empty files are cheap; 100,001 are too many
tar("many.tar", *((entry(f"{i}"), b"") for i in range(100001)), fmt=tarfile.USTAR_FORMAT)
with gzip.open("bomb.tar.gz", "wb", 9) as z:
    with tarfile.open(fileobj=z, mode="w|") as t:
        for i in range(6):
            info = entry(f"{i}.png", size=16 << 20)
            t.addfile(info, io.BytesIO(bytes(16 << 20)))
with gzip.open("large.tar.gz", "wb", 1) as z:
    with tarfile.open(fileobj=z, mode="w|") as t:
        t.addfile(entry("1.png", size=(64 << 20) + 1), io.BytesIO(bytes((64 << 20) + 1)))
# a hole of 1 TiB, in the old GNU form: 512 bytes at the end
sparse = bytearray(entry("1.png", size=512).tobuf(tarfile.GNU_FORMAT))
sparse[156:157] = b"S"
sparse[386:386 + 24] = b"\x80" + (1 << 40).to_bytes(11, "big") + b"%011o\0" % 512
sparse[483:483 + 12] = b"\x80" + ((1 << 40) + 512).to_bytes(11, "big")
sparse[148:156] = b"        "
sparse[148:156] = b"%06o\0 " % sum(sparse)
with open("hole.tar", "wb") as f:
    f.write(bytes(sparse) + b"7" * 512 + bytes(1024))
with open("nested.tar", "rb") as f:
    whole = f.read()
tar("cut.tar", one, (entry("2.png"), b"2"))
with open("cut.tar", "r+b") as f:
    f.truncate(1024)  # after the first file
with open("short.tar", "wb") as f:
    f.write(whole[:1100])  # within it
with open("text.zip", "wb") as f:
    f.write(b"this is no archive\n")
open("empty.tar", "wb").close()
with zipfile.ZipFile("whole.zip", "w") as z:
    z.writestr("1.png", b"1" * 1000)
    z.writestr("2.png", b"2" * 1000)
with open("whole.zip", "rb") as f:
    whole = bytearray(f.read())
os.unlink("whole.zip")
with open("short.zip", "wb") as f:
    f.write(whole[:-30])
whole[100] ^= 1
with open("flipped.zip", "wb") as f:
    f.write(whole)
with gzip.open("short.tar.gz", "wb") as z:
    with tarfile.open(fileobj=z, mode="w|") as t:
        for i in range(50):
            t.addfile(entry(f"{i}.png", size=2000), io.BytesIO(os.urandom(2000)))
with open("short.tar.gz", "r+b") as f:
    f.truncate(50000)
