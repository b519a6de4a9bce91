#!/usr/bin/env bash
# One archive copied into in/ is one batch: every format, names, owner, deadline; bad ones are answered as failed and leave nothing.
# Unpacking that is killed, in the worker or in the daemon, comes to the same end, once.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../support/manifest.sh"
need python3 zip 7zz zstd xz bzip2 setfattr getfattr

HERE=$(cd "$(dirname "$0")" && pwd)
SRC=$DIR/src
start -o null_backend
manifest_tree
IN=$MNT/infer/app/in
OUT=$MNT/infer/app/out
W() { "$INFERFS" wait "$1" --timeout 20s || fail "$1 does not come"; }
state() { getfattr --absolute-names --only-values -n user.state "$1" 2>/dev/null || true; }
result() { getfattr --absolute-names --only-values -n user.result "$1"; }
status() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }

# --- formats ---
mkdir -p "$SRC/a/sub dir"
printf 1 >"$SRC/a/1.png"
printf 22 >"$SRC/a/sub dir/2.png"
head -c 200000 /dev/urandom | tr '\0-\377' '3' >"$SRC/a/large.png" # in a blob
cd "$SRC/a"
tar cf "$SRC/plain.tar" .
tar czf "$SRC/gz.tar.gz" -- *
tar czf "$SRC/tgz.TGZ" -- *
tar cjf "$SRC/bz.tar.bz2" -- *
tar cJf "$SRC/xz.tar.xz" -- *
tar c --zstd -f "$SRC/zst.tar.zst" -- *
zip -qr "$SRC/zip.zip" .
7zz a -bd "$SRC/seven.7z" . >/dev/null
cd "$SRC"
for file in plain.tar gz.tar.gz tgz.TGZ bz.tar.bz2 xz.tar.xz zst.tar.zst zip.zip seven.7z; do
	name=${file%%.*}
	cp "$file" "$IN/"
	W "$OUT/$name/task.json"
	same 3 "$(status "$OUT/$name/task.json" ok)" "$file"
	diff -r "$SRC/a" "$IN/$name" || fail "$file: not what was packed"
	same "1.png large.png sub dir/2.png" "$(tail -n +2 "$OUT/$name/results.csv" | cut -d, -f1 | sed "s,^$name/,," | sort | paste -sd' ')"
	same 0 "$(status "$OUT/$name/sub dir/2.png.json" label)" # 0x32 % 10
	same unpacked "$(state "$IN/$file")"
	same "infer/app/in/$name" "$(result "$IN/$file")"
	same ok "$(state "$IN/$name/1.png")"
done
eight() { [[ $(grep -c '"submitted"' "$MNT/events") == 8 ]]; } # a task for each
eventually 5 eight
# what is in it is as private as it
if [[ $(id -u) == 0 ]]; then
	install -o 1234 -g 1235 -m 0640 plain.tar "$DIR/private.tar"
	cp -p "$DIR/private.tar" "$IN/.private"
	mv "$IN/.private" "$IN/private.tar" # rsync's way
	W "$OUT/private/task.json"
	same "1234 1235 640" "$(stat -c '%u %g %a' "$IN/private/1.png")"
	same "1234 1235 750" "$(stat -c '%u %g %a' "$IN/private/sub dir")"
	same "1234 1235 750" "$(stat -c '%u %g %a' "$IN/private")"
	same "1234 1235 440" "$(stat -c '%u %g %a' "$OUT/private/1.png.json")"
	same 750 "$(stat -c %a "$OUT/private")"
fi
# the tree goes on as with any other batch
printf 4 >"$IN/plain/4.png"
setfattr -n user.deadline -v 10s "$IN/plain"
eventually 10 test -s "$OUT/plain/4.png.json"
rm -r "$IN/plain"
[[ ! -e $IN/plain ]] || fail "it can't be removed"
cp plain.tar "$IN/" # anew
W "$IN/plain"
eventually 10 grep -q '"ok":.3' "$OUT/plain/task.json"

# its contents lie in the archive, or in one file with the others: what is done to one of them is done to none else
for file in plain.tar gz.tar.gz zip.zip; do
	cp "$file" "$IN/own.${file#*.}"
	W "$OUT/own/task.json"
	printf X | dd of="$IN/own/sub dir/2.png" conv=notrunc status=none
	: >"$IN/own/1.png"
	printf 'Z%.0s' {1..100} | dd of="$IN/own/large.png" bs=1 seek=199950 conv=notrunc status=none # over its end
	same X2 "$(cat "$IN/own/sub dir/2.png")"
	cmp <(head -c 199950 "$SRC/a/large.png" && printf 'Z%.0s' {1..100}) "$IN/own/large.png" || fail "$file: not what was written"
	cmp "$file" "$IN/own.${file#*.}" || fail "$file: a write into a member changed it"
	mv "$IN/own" "$MNT/datasets/own"
	: >"$IN/own.${file#*.}" # written anew: there is nothing in it now
	W "$OUT/own.${file#*.}.json"
	cmp <(head -c 199950 "$SRC/a/large.png" && printf 'Z%.0s' {1..100}) "$MNT/datasets/own/large.png" || fail "$file: its end changed a member"
	rm -r "$MNT/datasets/own" "$IN/own.${file#*.}"
	rm -rf "$OUT/own"
done
cp plain.tar "$IN/own.tar"
W "$OUT/own/task.json"
tr '\0-\377' '?' <plain.tar | dd of="$IN/own.tar" conv=notrunc status=none # in place: no archive any more
W "$OUT/own.tar.json"
diff -r "$SRC/a" "$IN/own" || fail "writing into the archive changed what came of it"

# --- deadlines ---
cp plain.tar "$DIR/soon.tar"
setfattr -n user.deadline -v 7s "$DIR/soon.tar" 2>/dev/null || skip "no xattrs on $DIR"
cp --preserve=xattr "$DIR/soon.tar" "$IN/"
W "$OUT/soon/task.json"
same 7000 "$(status "$OUT/soon/task.json" deadline_ms)"
same 7s "$(getfattr --absolute-names --only-values -n user.deadline "$IN/soon")"
setfattr -n user.deadline -v 9s "$IN/soon.tar" # as for its batch
nine() { [[ $(getfattr --absolute-names --only-values -n user.deadline "$IN/soon") == 9s ]]; }
eventually 5 nine
setfattr -n user.deadline -v 1ms "$DIR/soon.tar"
cp --preserve=xattr "$DIR/soon.tar" "$IN/late.tar"
W "$OUT/late/task.json"
same 3 "$(status "$OUT/late/task.json" dropped)" "no time is left"

# --- bad ones ---
mkdir "$DIR/odd" "$IN/there"
python3 "$HERE/../tools/archives.py" "$DIR/odd"
cp plain.tar "$DIR/odd/there.tar"
cp plain.tar "$DIR/odd/x.tmp.tar"
zip -q -P secret "$DIR/odd/secret.zip" a/1.png
7zz a -bd -psecret -mhe=on "$DIR/odd/secret7.7z" a/1.png >/dev/null
(
	ulimit -v 4000000
	xz -k -9 -c plain.tar >"$DIR/odd/large-window.tar.xz" # 65 MiB: fits
)
cat >"$DIR/odd.txt" <<'EOF'
dotdot.tar leads out of it
absolute.tar leads out of it
long.tar too long a name
deep.tar too long a name, or too deep
symlink.tar is a symbolic link
hardlink.tar is a hard link
fifo.tar is a special file
device.tar is a special file
twice.tar 1.png is there twice
both.tar 1.png/2.png is there twice, or as file and directory
nothing.tar there is no file in it
many.tar more than 100000 files
bomb.tar.gz it is more than
large.tar.gz has more than 67108864 bytes
hole.tar it is more than
cut.tar it is cut short
short.tar the archive can't be unpacked
short.zip the archive can't be unpacked
short.tar.gz the archive can't be unpacked
flipped.zip the archive can't be unpacked
text.zip the archive can't be unpacked
empty.tar the archive can't be unpacked
secret.zip encrypted
secret7.7z the archive can't be unpacked
there.tar there is a batch of this name already
x.tmp.tar can't be a batch's name
leaves.tar ok 3
names.tar ok 3
gnu.tar ok 1
bytes.tar ok 1
nested.tar ok 1
large-window.tar.xz ok 3
EOF
while read -r file said; do
	cp "$DIR/odd/$file" "$IN/"
done <"$DIR/odd.txt"
while read -r file said; do
	name=${file%%.*}
	[[ $name == x ]] && name=x.tmp
	if [[ $said == ok* ]]; then
		W "$OUT/$name/task.json"
		same "${said#ok }" "$(status "$OUT/$name/task.json" instances)" "$file"
		same unpacked "$(state "$IN/$file")"
		[[ ! -e $OUT/$file.json ]] || fail "$file was answered as bad: $(cat "$OUT/$file.json")"
	else
		W "$OUT/$file.json"
		same failed "$(status "$OUT/$file.json" status)" "$file"
		[[ $(status "$OUT/$file.json" error) == *"$said"* ]] || fail "$file: wanted '$said': $(status "$OUT/$file.json" error)"
		same failed "$(state "$IN/$file")"
		same "infer/app/out/$file.json" "$(result "$IN/$file")"
		[[ $name == there || ! -e $IN/$name ]] || fail "$file left in/$name"
	fi
done <"$DIR/odd.txt"
rmdir "$IN/there"
same '' "$(ls "$OUT/leaves" | grep -v -e '^1.png.json$' -e '^a$' -e '^e.png.json$' -e '^results.csv$' -e '^task.json$' || true)"
cp there.tar "$IN/" 2>/dev/null || cp plain.tar "$IN/there.tar" # now it can
W "$OUT/there/task.json"
eventually 5 test ! -e "$OUT/there.tar.json"

# --- killed ---
mkdir "$SRC/many"
python3 - "$SRC/many" <<'EOF'
import os, sys
for i in range(600):
    open(f"{sys.argv[1]}/{i:04}.png", "wb").write(b"%d" % (i % 10) + os.urandom(8000))
EOF
tar cjf "$SRC/many.tar.bz2" -C "$SRC/many" .
worker() { pgrep -P "$(daemon_pid)" -f 'inferfs worker unpack'; }
begun() # NAME: the archive is complete
{
	until [[ $(state "$IN/$1.tar.bz2") == unpacking ]]; do :; done
}
whole() # NAME: every instance is answered, once
{
	W "$OUT/$1/task.json"
	same 600 "$(status "$OUT/$1/task.json" instances)"
	same 600 "$(tail -n +2 "$OUT/$1/results.csv" | cut -d, -f1 | sort -u | wc -l)"
	same 601 "$(wc -l <"$OUT/$1/results.csv")"
	same 600 "$(ls "$OUT/$1" | grep -c '.png.json$')"
	same 1 "$(cut -d, -f11 "$OUT/$1/results.csv" | tail -n +2 | sort -u | wc -l)" "tasks"
	same unpacked "$(state "$IN/$1.tar.bz2")"
}
cp many.tar.bz2 "$IN/once.tar.bz2"
begun once
for _ in 1 2; do
	until pid=$(worker); do [[ $(state "$IN/once.tar.bz2") == unpacking ]] || fail "too quick to be killed"; done
	[[ ! -e $IN/once ]] || fail "half of it is there"
	sleep 0.05
	kill -9 "$pid"
	while kill -0 "$pid" 2>/dev/null; do :; done
done
whole once
cp many.tar.bz2 "$IN/thrice.tar.bz2"
begun thrice
for _ in 1 2 3; do
	until pid=$(worker); do [[ $(state "$IN/thrice.tar.bz2") == unpacking ]] || fail "too quick to be killed"; done
	kill -9 "$pid"
	while kill -0 "$pid" 2>/dev/null; do :; done
done
W "$OUT/thrice.tar.bz2.json"
same failed "$(state "$IN/thrice.tar.bz2")"
# removed while it is unpacked: as if it had never been
cp many.tar.bz2 "$IN/gone.tar.bz2"
begun gone
rm "$IN/gone.tar.bz2"
none() { [[ -z $(worker) ]]; }
eventually 5 none
[[ ! -e $IN/gone && ! -e $OUT/gone.tar.bz2.json ]] || fail "something came of it"
for pause in 0 0.2 0.4 0.7; do
	cp many.tar.bz2 "$IN/day$pause.tar.bz2"
	sleep "$pause"
	kill_daemon
	start -o null_backend
	W "$OUT/day$pause/task.json"
	whole "day$pause"
done
# killed while it is unpacked and never mounted again: nothing is left of it
cp many.tar.bz2 "$IN/last.tar.bz2"
sleep 0.2
kill_daemon
umount -l "$MNT"
"$INFERFS" fsck "$STATE" || fail "fsck"
start -o null_backend
whole last
stop
"$INFERFS" fsck "$STATE" || fail "fsck"

# --- no room ---
rm -rf "$STATE"
start -o null_backend,max_bytes=100M # of which 25M are kept
manifest_tree
mkdir "$SRC/much"
python3 - "$SRC/much" <<'EOF'
import os, sys
for i in range(500):
    open(f"{sys.argv[1]}/{i:03}.png", "wb").write((b"%d" % i + os.urandom(6000)) * (40 if i % 5 == 0 else 10))
EOF
tar cJf "$DIR/much.tar.xz" -C "$SRC/much" . # 48 MB, small when packed
for name in much again; do
	cp "$DIR/much.tar.xz" "$IN/$name.tar.xz"
done
W "$OUT/much/task.json"
W "$OUT/again.tar.xz.json"
[[ $(status "$OUT/again.tar.xz.json" error) == *"there is no room"* ]] || fail "$(cat "$OUT/again.tar.xz.json")"
same failed "$(state "$IN/again.tar.xz")"
[[ ! -e $IN/again ]] || fail "half of it is there"
rm -r "$IN/much"
small() { # room comes back by and by
	cp "$SRC/plain.tar" "$IN/small.tar" && "$INFERFS" wait "$OUT/small/task.json" --timeout 1s || { rm "$IN/small.tar"; false; }
}
eventually 20 small
stop
"$INFERFS" fsck "$STATE" || fail "fsck"
