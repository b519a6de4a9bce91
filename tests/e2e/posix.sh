#!/bin/bash
# Everyday POSIX behaviour, in datasets/ where every operation is free.
. "$(dirname "$0")/lib.sh"
need setfattr getfattr python3
start
T=$MNT/datasets/t
mkdir "$T"
cd "$T"

echo "content: create, append, write in the middle, truncate, holes"
echo hello >a
same hello "$(cat a)"
echo world >>a
same "hello world" "$(tr '\n' ' ' <a | sed 's/ $//')"
printf J | dd of=a bs=1 seek=0 conv=notrunc status=none
same Jello "$(head -1 a)"
truncate -s 3 a
same Jel "$(cat a)"
same 3 "$(stat -c %s a)"
truncate -s 10 a
same "4a656c00000000000000" "$(od -An -tx1 a | tr -d ' \n')"
dd if=/dev/zero of=hole bs=1 count=1 seek=10000000 status=none
same 10000001 "$(stat -c %s hole)"
same 10000001 "$(wc -c <hole)"
: >empty
same 0 "$(stat -c %s empty)"
head -c 5000000 /dev/urandom >big
sum=$(sha256sum <big)
cp big big2
same "$sum" "$(sha256sum <big2)"
: >big2
same 0 "$(wc -c <big2)"
python3 - <<'PY'
import os, mmap
f = os.open("rw", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
assert os.pwrite(f, b"abc", 4095) == 3
assert os.pread(f, 10, 4094) == b"\0abc"
os.ftruncate(f, 4097)
assert os.fstat(f).st_size == 4097
m = mmap.mmap(f, 4097)
assert m[4095:4097] == b"ab"
m[0:2] = b"XY"
m.flush()
m.close()
assert os.pread(f, 2, 0) == b"XY"
os.fsync(f)
os.unlink("rw")
assert os.fstat(f).st_nlink == 0
assert os.pread(f, 2, 0) == b"XY", "an unlinked open file stays readable"
os.pwrite(f, b"more", 10)
assert os.pread(f, 4, 10) == b"more"
os.close(f)
try:
    os.open("a", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    raise SystemExit("O_EXCL must fail")
except FileExistsError:
    pass
f = os.open("a", os.O_WRONLY | os.O_APPEND)
os.write(f, b"tail")
os.close(f)
assert open("a", "rb").read().endswith(b"\0tail")
os.mkfifo("fifo")
import socket
s = socket.socket(socket.AF_UNIX)
s.bind("sock")
s.close()
import stat
assert stat.S_ISFIFO(os.stat("fifo").st_mode) and stat.S_ISSOCK(os.stat("sock").st_mode)
d = os.open(".", os.O_RDONLY)
os.fsync(d)
os.close(d)
f = os.open("fal", os.O_RDWR | os.O_CREAT)
os.posix_fallocate(f, 0, 100000)
assert os.fstat(f).st_size == 100000
os.close(f)
PY

echo "directories and names"
mkdir -p d/e/f
expect "Directory not empty" rmdir d
rmdir d/e/f d/e
same 2 "$(stat -c %h d)"
expect "File exists" mkdir d
expect "No such file" cat nothing
expect "Not a directory" ls a/b
expect "Is a directory" python3 -c 'open("d", "w")'
long=$(printf 'n%.0s' {1..255})
echo x >"$long"
same x "$(cat "$long")"
grep -qx "$long" <(ls) || fail "a name of 255 bytes is not listed"
expect "File name too long" touch "${long}n"
printf 'odd' >"$(printf 'a b\t\xff*')"
same odd "$(cat "$(printf 'a b\t\xff*')")"

echo "rename, link, symlink"
echo 1 >r1
echo 2 >r2
mv r1 r2
same 1 "$(cat r2)"
[[ ! -e r1 ]] || fail "r1 is still there"
mkdir d2
mv r2 d2/r3
same 1 "$(cat d2/r3)"
mkdir d2/sub
mv d2 d3
same 1 "$(cat d3/r3)"
mkdir d4 && touch d4/x
expect "" python3 -c 'import os; os.rename("d3", "d4")'
expect "Invalid argument" python3 -c 'import os; os.rename("d3", "d3/sub/in")'
expect "Is a directory" python3 -c 'import os; os.rename("a", "d3")'
expect "Not a directory" python3 -c 'import os; os.rename("d3", "a")'
echo l >l1
ln l1 l2
same 2 "$(stat -c %h l1)"
same "$(stat -c %i l1)" "$(stat -c %i l2)"
echo more >>l2
same 7 "$(stat -c %s l1)"
rm l1
same 1 "$(stat -c %h l2)"
ln -s l2 s
same l2 "$(readlink s)"
same l "$(head -1 s)"
ln -s /nowhere dangling
[[ -L dangling && ! -e dangling ]] || fail "dangling"
expect "not allowed" ln d3 hard-dir
cat >x.py <<'PY'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def rename2(a, b, flags):
    r = libc.renameat2(-100, a.encode(), -100, b.encode(), flags)
    return 0 if r == 0 else ctypes.get_errno()
open("x1", "w").write("one")
os.mkdir("x2")
assert rename2("x1", "x2", 1) == 17, "RENAME_NOREPLACE"
assert rename2("x1", "x2", 2) == 0, "RENAME_EXCHANGE"
assert os.path.isdir("x1") and open("x2").read() == "one"
PY
python3 x.py

echo "attributes"
chmod 640 a
same 640 "$(stat -c %a a)"
touch -d "2001-02-03 04:05:06.123456789 UTC" a
same "2001-02-03 04:05:06.123456789 +0000" "$(TZ=UTC stat -c %y a)"
before=$(stat -c %Y .)
same true "$( ((before > 1600000000)) && echo true)"
if [[ $(id -u) -eq 0 ]]; then
	chown 12:34 a
	same 12:34 "$(stat -c %u:%g a)"
	chmod 6755 a
	chown 13 a
	same 755 "$(stat -c %a a)" "setuid after chown"
	mkdir g
	chown 0:55 g
	chmod 2775 g
	touch g/f
	mkdir g/d
	same 55 "$(stat -c %g g/f)" "group of a setgid directory"
	same 2755 "$(stat -c %a g/d)"
	chmod 777 .
	setpriv --reuid 1001 --regid 1001 --clear-groups bash -c '
		echo mine >own && [[ $(stat -c %u:%g:%a own) == 1001:1001:644 ]] &&
		! cat '"$PWD"'/secret 2>/dev/null' 2>/dev/null || fail "as another user"
	echo s >secret
	chmod 600 secret
	expect "Permission denied" setpriv --reuid 1001 --regid 1001 --clear-groups cat "$PWD/secret"
fi
(umask 077 && touch masked)
same 600 "$(stat -c %a masked)"

echo "xattrs"
setfattr -n user.one -v first a
setfattr -n user.two -v second a
same first "$(getfattr --only-values -n user.one a)"
same "user.one user.two" "$(getfattr a | grep ^user | sort | tr '\n' ' ' | sed 's/ $//')"
setfattr -x user.one a
expect "No such attribute" getfattr -n user.one a
expect "Invalid argument" python3 -c 'import os; os.lseek(os.open("a", 0), -1, 0)'
python3 -c '
import os
os.setxattr("a", "user.n", b"x", os.XATTR_CREATE)
try:
    os.setxattr("a", "user.n", b"y", os.XATTR_CREATE); raise SystemExit("XATTR_CREATE")
except FileExistsError: pass
os.setxattr("a", "user.bin", bytes(range(256)))
assert os.getxattr("a", "user.bin") == bytes(range(256))'

echo "many entries, statfs"
mkdir many
for i in {1..1200}; do echo "many/file-with-a-name-of-some-length-$i"; done | xargs touch
same 1200 "$(ls many | wc -l)"
same 1200 "$(ls many | sort -u | wc -l)"
rm -r many
[[ $(df --output=size . | tail -1) -gt 0 ]] || fail "statfs"

cd /
stop
"$INFERFS" fsck "$STATE"
