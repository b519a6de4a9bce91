#!/bin/bash
# Several users on one tree: the kernel checks modes (default_permissions), the volume inherits groups, and answers are as
# private as the instances they are for. Two users without a name do: numbers are enough.
. "$(dirname "$0")/lib.sh"
[[ $(id -u) -eq 0 ]] || skip "needs root, to be several users"
need setpriv setfattr getfattr python3
chmod 755 "$DIR"

as() # UID[:GID[,GID…]] COMMAND…
{
	local uid=${1%%:*} gids=${1#*:}

	shift
	setpriv --reuid "$uid" --regid "${gids%%,*}" --groups "$gids" "$@"
}
alice=4001:4001,4100
bob=4002:4002,4100
eve=4003

start -o allow_other,null_backend,settle=1ms,settle_batch=200ms
T=$MNT/datasets/t
mkdir "$T"
chmod 1777 "$T"

echo "modes"
as $alice sh -c "umask 077; echo secret >$T/private; mkdir $T/home; echo x >$T/home/x"
as $alice sh -c "umask 027; echo shared >$T/group; chgrp 4100 $T/group"
as $alice sh -c "umask 022; echo open >$T/open; mkfifo $T/pipe; ln -s open $T/link"
same "4001:4001:600 4001:4100:640 4001:4001:644 4001:4001:644 4001:4001:700" \
	"$(cd "$T" && stat -c %u:%g:%a private group open pipe home | paste -sd' ')"
expect "Permission denied" as $bob cat "$T/private"
expect "Permission denied" as $bob ls "$T/home"
expect "Permission denied" as $bob cat "$T/home/x"
expect "Permission denied" as $bob stat "$T/home/x"
same shared "$(as $bob cat "$T/group")"
expect "Permission denied" as $eve cat "$T/group"
same open "$(as $eve cat "$T/link")"
expect "Permission denied" as $bob sh -c "echo y >>$T/open"
expect "not permitted" as $bob chmod 777 "$T/open"
expect "Permission denied" as $bob touch -d yesterday "$T/open"
expect "Permission denied" as $bob setfattr -n user.x -v y "$T/open"
expect "not permitted" as $alice chown 4002 "$T/open"
expect "not permitted" as $alice chgrp 4002 "$T/open"
expect "not permitted" as $alice setfattr -n trusted.x -v y "$T/open"
setfattr -n trusted.x -v y "$T/open"
same y "$(getfattr --absolute-names --only-values -n trusted.x "$T/open")"
[[ $(as $alice getfattr -m - "$T/open" 2>&1) != *trusted* ]] || fail "a user sees trusted.*"

echo "sticky"
expect "not permitted" as $bob rm -f "$T/open"
expect "not permitted" as $bob mv "$T/open" "$T/mine"
as $bob touch "$T/bobs"
expect "not permitted" as $bob mv -f "$T/bobs" "$T/open"
as $alice mv "$T/open" "$T/open2"
chmod 777 "$T"
as $bob rm -f "$T/open2"

echo "setgid"
mkdir "$T/team"
chgrp 4100 "$T/team"
chmod 2770 "$T/team"
as $alice sh -c "umask 007; echo a >$T/team/a; mkdir $T/team/sub; echo b >$T/team/sub/b; ln -s a $T/team/l"
same "4100:660 4100:2770 4100:660 4100:777" \
	"$(cd "$T/team" && stat -c %g:%a a sub sub/b l | paste -sd' ')"
same a "$(as $bob cat "$T/team/a")"
as $bob sh -c "echo more >>$T/team/a && echo b >$T/team/b"
same 4002:4100 "$(stat -c %u:%g "$T/team/b")"
expect "Permission denied" as $eve ls "$T/team"
as $alice cp /bin/true "$T/run"
as $alice chmod 6755 "$T/run"
chown 4002:4002 "$T/run"
same 755 "$(stat -c %a "$T/run")" "setuid and setgid after chown"
chmod 4777 "$T/run"
as $eve sh -c "echo >>$T/run"
same 777 "$(stat -c %a "$T/run")" "setuid after another's write"
# through a handle that made the file: it goes past the page cache
mkfifo -m 666 "$T/go"
as $alice sh -c "exec 3>$T/made; echo a >&3; echo >$T/ready; read l <$T/go; echo b >&3" &
eventually 10 test -s "$T/ready"
chown 0:0 "$T/made"
chmod 4755 "$T/made"
echo >"$T/go"
wait $!
same 755 "$(stat -c %a "$T/made")" "setuid after a write by who has made it"

echo "answers"
mkdir -p "$MNT/models/m/1" "$MNT/infer/app"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
eventually 10 grep -q running "$MNT/infer/app/state"
expect "Permission denied" as $alice sh -c "echo start >$MNT/infer/app/ctl"
expect "Permission denied" as $alice touch "$MNT/infer/app/in/x.png"
chmod 1777 "$MNT/infer/app/in"
cd "$MNT/infer/app"
as $alice sh -c 'umask 077; mkdir -p in/a/sub; echo 1 >in/a/1.png; echo 2 >in/a/sub/2.png; echo 3 >in/a.png'
as $bob sh -c 'umask 022; mkdir in/b; echo 1 >in/b/1.png; umask 077; echo 2 >in/b/2.png; chgrp 4100 in/b/1.png; chmod 640 in/b/1.png'
for b in a b; do "$INFERFS" wait out/$b/task.json --timeout 20s; done
"$INFERFS" wait out/a.png.json --timeout 20s
same "4001:4001:700 4001:4001:700 4002:4002:755" "$(stat -c %u:%g:%a out/a out/a/sub out/b | paste -sd' ')" "directories of answers"
same "4001:4001:400 4001:4001:400 4001:4001:400 4002:4100:440 4002:4002:400" \
	"$(stat -c %u:%g:%a out/a/1.png.json out/a/sub/2.png.json out/a.png.json out/b/1.png.json out/b/2.png.json | paste -sd' ')" answers
for f in out/a/1.png.json out/a/sub/2.png.json out/a.png.json out/a/results.csv out/a/task.json out/b/2.png.json; do
	expect "Permission denied" as $eve cat $f
done
expect "Permission denied" as $bob ls out/a
expect "Permission denied" as $eve cat out/b/1.png.json
for f in out/a/1.png.json out/a/sub/2.png.json out/a.png.json out/a/results.csv out/a/task.json out/b/1.png.json; do
	as $alice cat $f >/dev/null
done
same "4002:400 4002:400" "$(stat -c %u:%a out/b/results.csv out/b/task.json | paste -sd' ')" "what tells of all in b"
expect "Permission denied" as $bob setfattr -n user.deadline -v 1s in/a
expect "not permitted" as $bob rm -f in/a.png
expect "Permission denied" as $alice sh -c 'echo x >out/b/1.png.json'

echo "what tells of several instances is for who may read each of them"
as $alice sh -c 'umask 0; for b in c d e f; do mkdir in/$b; done; umask 022; for b in c d f; do echo 1 >in/$b/1.png; done'
as $bob sh -c 'umask 077; echo 2 >in/c/2.png'
as $alice sh -c 'umask 077; echo 2 >in/d/2.png'
for u in $alice $bob; do as $u sh -c "umask 027; echo 1 >in/e/$u.png; chgrp 4100 in/e/$u.png"; done
for b in c d e f; do "$INFERFS" wait out/$b/task.json --timeout 20s; done
chmod g+s out
as $alice sh -c 'umask 027; mkdir in/g; chgrp 4100 in/g; chmod 2755 in/g; echo 1 >in/g/1.png; chgrp 4001 in/g/1.png'
"$INFERFS" wait out/g/task.json --timeout 20s
chmod g-s out
same "4002:4002:400 4001:4001:400 0:4100:440 4001:4001:444 4001:4100:400" \
	"$(stat -c %u:%g:%a out/[c-g]/results.csv | paste -sd' ')" results.csv
same 4001:4100:400 "$(stat -c %u:%g:%a out/g/1.png.json)" "an answer that gets its directory's group"
expect "Permission denied" as $alice cat out/c/results.csv
for u in $alice $bob; do as $u grep -q png out/e/results.csv; done
as $bob sh -c 'umask 022; echo 3 >in/d/3.png'
eventually 10 grep -q 3.png out/d/results.csv
same 400 "$(stat -c %a out/d/results.csv)" "after a further task"

echo "a file that goes while it is computed, and a crash"
mkdir "$MNT/infer/slow"
sed 's/"ms":1,"one_ms":1/"ms":400,"one_ms":400/' "$MNT/models/m/1/model.json" >"$DIR/model.json"
mkdir -p "$MNT/models/slow/1"
cp "$DIR/model.json" "$MNT/models/m/1/weights.safetensors" "$MNT/models/slow/1/"
echo '{"model":"slow","version":1,"batch":1}' >"$MNT/infer/slow/spec.json"
cd "$MNT/infer/slow"
eventually 10 grep -q running state
mkdir -m 755 in/.h
(umask 077; echo 1 >in/.h/1.png; echo 2 >in/.h/2.png)
(umask 022; for i in {3..6}; do echo $i >in/.h/$i.png; done)
mv in/.h in/h
eventually 10 grep -q running <(getfattr --only-values -n user.state in/h/1.png)
rm in/h/1.png
"$INFERFS" wait out/h/1.png.json --timeout 10s
"$INFERFS" wait out/h/2.png.json --timeout 10s
[[ ! -e out/h/task.json ]] || fail "too early to crash"
cd /
kill_daemon
start -o allow_other,null_backend,settle=1ms,settle_batch=200ms
cd "$MNT/infer/slow/out/h"
"$INFERFS" wait task.json --timeout 20s
same "400 400 444 400" "$(stat -c %a 1.png.json 2.png.json 3.png.json results.csv | paste -sd' ')" "modes of out/h"
cd /
stop
"$INFERFS" fsck "$STATE"

echo "a user's own mount"
command -v fusermount3 >/dev/null || skip "no fusermount3 here (all above passed)"
[[ -u $(command -v fusermount3) && -w /dev/fuse && -e /etc/mtab ]] || skip "fusermount3 has no setuid bit here, or there is no /etc/mtab (all above passed)"
nobody=$(id -u nobody):$(id -g nobody) # fusermount3 wants a user with a name
own=$DIR/own
mkdir -p "$own/mnt"
chown -R $nobody "$own"
chmod 666 /dev/fuse 2>/dev/null || true
cp "$INFERFS" "$own/inferfs" # the build may lie where that user has no way to
chmod 755 "$own/inferfs"
if ! as $nobody env HOME="$own" "$own/inferfs" mount "$own/state" "$own/mnt" 2>"$DIR/refused"; then
	skip "an unprivileged mount is refused here (all above passed): $(tail -n 1 "$DIR/refused")"
fi
as $nobody sh -c "mkdir $own/mnt/datasets/d && echo mine >$own/mnt/datasets/d/f && mv $own/mnt/datasets/d/f $own/mnt/datasets/d/g"
same "mine $nobody" "$(as $nobody sh -c "cat $own/mnt/datasets/d/g; stat -c %u:%g $own/mnt/datasets/d/g" | paste -sd' ')"
expect "Permission denied" as $bob ls "$own/mnt"
as $nobody "$own/inferfs" umount "$own/mnt" --timeout 20s
! mountpoint -q "$own/mnt" || fail "still mounted"
as $nobody "$own/inferfs" fsck "$own/state"
