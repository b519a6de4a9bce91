#!/bin/bash
# kill -9 of the daemon: the same command mounts again, what was closed is there, fsck finds nothing.
. "$(dirname "$0")/lib.sh"
start
D=$MNT/datasets/d
mkdir "$D" "$MNT/infer/app"
head -c 2000000 /dev/urandom >"$D/large"
sum=$(sha256sum <"$D/large")
for i in {1..50}; do echo "$i" >"$D/$i"; done
setfattr -n user.x -v y "$D/1" 2>/dev/null || true
exec 3>"$D/open"
echo unfinished >&3
rm "$D/50"
ino=$(stat -c %i "$D/7")
kill_daemon
exec 3>&-
expect "" ls "$MNT"
"$INFERFS" fsck "$STATE"

start -o settle=10ms,settle_batch=200ms
same "$sum" "$(sha256sum <"$D/large")"
for i in {1..49}; do same "$i" "$(cat "$D/$i")"; done
[[ ! -e $D/50 ]] || fail "50 is back"
same "$ino" "$(stat -c %i "$D/7")" "inode number"
same "ctl in out" "$(ls "$MNT/infer/app" | tr '\n' ' ' | sed 's/ $//')"

echo "killed while files are written"
for round in 1 2 3; do
	(set +e; for i in {1..2000}; do echo "$i" >"$D/w$round-$i" || exit 0; done) 2>/dev/null &
	writer=$!
	sleep 0.3
	kill_daemon
	wait $writer || true
	start
	pid=$(daemon_pid)
	"$INFERFS" umount "$MNT" --lazy
	eventually 20 gone "$pid"
	"$INFERFS" fsck "$STATE"
	start
done
# All but the one that was being written are whole.
bad=0
for f in "$D"/w*; do
	text=
	read -r text <"$f" || true
	[[ $text == "${f##*-}" ]] || bad=$((bad + 1))
done
((bad <= 3)) || fail "$bad of $(ls "$D" | wc -l) files are not whole"
[[ -n $(find "$D" -name 'w3-*' -print -quit) ]] || fail "nothing was written"

echo "a clean end by signal, and by umount(8)"
pid=$(daemon_pid)
kill "$pid"
eventually 20 gone "$pid"
same "" "$(ls "$MNT")"
if [[ $(id -u) -eq 0 ]]; then
	start
	pid=$(daemon_pid)
	umount "$MNT"
	eventually 20 gone "$pid"
fi
[[ ! -e $STATE/pid ]] || fail "the pid file is left"
"$INFERFS" fsck "$STATE"
