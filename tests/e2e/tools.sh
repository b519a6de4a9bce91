#!/bin/bash
# Tools that people use on trees: rsync, tar, cp -a, find, grep, git.
. "$(dirname "$0")/lib.sh"
need rsync tar git setfattr
start
SRC=$DIR/src
mkdir -p "$SRC/sub/deep" "$SRC/class a"
for i in {1..60}; do
	head -c $((i * 997)) /dev/urandom >"$SRC/class a/$i.bin"
done
echo needle >"$SRC/sub/deep/text"
ln -s deep/text "$SRC/sub/link"
touch -h -d 2011-01-01 "$SRC/sub/link" # rsync leaves times alone that differ within a second
ln "$SRC/sub/deep/text" "$SRC/sub/hard"
chmod 640 "$SRC/class a/1.bin"
touch -d 2010-01-01 "$SRC/class a/2.bin"
setfattr -n user.note -v hello "$SRC/class a/3.bin"
head -c 3000000 /dev/urandom >"$SRC/large"
D=$MNT/datasets/t/tools # inferfs writes dataset.json one level up
mkdir -p "$D"

# Everything stat can tell, but sizes of directories.
facts()
{
	(cd "$1" && find . -type d -printf '%p %m %U:%G\n' -o -printf '%p %y %m %s %T@ %U:%G %n %l\n' | sort &&
		find . -type f -print0 | sort -z | xargs -0 sha256sum && getfattr -d -R . 2>/dev/null)
}

echo "rsync -aX, twice"
rsync -aXH "$SRC/" "$D/rsync/"
same "$(facts "$SRC")" "$(facts "$D/rsync")" rsync
same "" "$(rsync -aXHi "$SRC/" "$D/rsync/")" "second rsync"
rsync -aXH --checksum "$D/rsync/" "$DIR/back/"
same "$(facts "$SRC")" "$(facts "$DIR/back")" "rsync back"

echo "tar, there and back"
mkdir "$D/tar"
tar -C "$SRC" --xattrs -cf - . | tar -C "$D/tar" --xattrs -xpf -
same "$(facts "$SRC")" "$(facts "$D/tar")" tar
mkdir "$DIR/untar"
tar -C "$D/tar" --xattrs -cf - . | tar -C "$DIR/untar" --xattrs -xpf -
same "$(facts "$SRC")" "$(facts "$DIR/untar")" "tar back"

echo "cp -a, find, grep, diff, du, rm"
cp -a "$SRC" "$D/cp"
same "$(facts "$SRC")" "$(facts "$D/cp")" "cp -a"
cp -a "$D/cp" "$D/cp2"
diff -r "$SRC" "$D/cp2"
same 60 "$(find "$D/cp" -name '*.bin' | wc -l)"
same 2 "$(grep -r needle "$D/cp" | wc -l)"
[[ $(du -sk "$D/cp" | cut -f1) -gt 2900 ]] || fail "du"
rm -r "$D/cp2"
[[ ! -e $D/cp2 ]] || fail "rm -r"

echo "git"
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
cp -a "$SRC" "$D/git"
cd "$D/git"
git init -q
git add .
git commit -qm first
echo change >>sub/deep/text
git commit -qam second
git fsck --strict 2>&1 | grep -v '^notice\|^Checking' || true
same 2 "$(git log --oneline | wc -l)"
same "" "$(git status --porcelain)"
git gc -q
git clone -q . "$DIR/clone"
same 2 "$(git -C "$DIR/clone" log --oneline | wc -l)"

echo "python's shutil, a copy of published files with their sizes"
python3 - "$MNT" "$DIR" <<'PY'
import shutil, sys, os
mnt, d = sys.argv[1:]
shutil.copyfile(mnt + "/README", d + "/README")
assert os.path.getsize(d + "/README") == os.path.getsize(mnt + "/README") > 500
shutil.copytree(mnt + "/datasets/t/tools/cp", mnt + "/datasets/t/tools/py", symlinks=True)
PY
diff -r --no-dereference "$SRC" "$D/py"

cd /
stop
"$INFERFS" fsck "$STATE"
