#!/bin/bash
# A disk that hangs: whoever writes waits for it (and who needs the same directory), and nobody else does.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/../support/disk.sh"
need fsfreeze getfattr setfattr
disk_make xfs 400M
start
mkdir "$MNT/datasets/d" "$MNT/datasets/e"
echo 1 >"$MNT/datasets/e/f"
echo 1 >"$MNT/datasets/d/a"
setfattr -n user.x -v y "$MNT/datasets/d/a"
fsfreeze -f "$DISK"
thaw()
{
	local status=$?

	set +e
	trap - ERR
	fsfreeze -u "$DISK" 2>/dev/null
	(exit $status)
	disk_end
}
trap thaw EXIT
pids=()
for i in 1 2 3; do
	echo 2 >"$MNT/datasets/d/b$i" &
	pids+=($!)
	sleep 0.2
	timeout 2 getfattr -n user.x "$MNT/datasets/d/a" >/dev/null 2>&1 || fail "reading waits for what hangs ($i)" # not cached by the kernel
	timeout 2 ls "$MNT/datasets/e" >/dev/null || fail "listing waits for what hangs ($i)"
	kill -0 "${pids[-1]}" || fail "the disk did not hang"
done
fsfreeze -u "$DISK"
wait "${pids[@]}"
[[ $(cat "$MNT/datasets/d/b1" "$MNT/datasets/d/b2" "$MNT/datasets/d/b3" | paste -sd' ') == "2 2 2" ]] || fail "what hung is lost"
stop
"$INFERFS" fsck "$STATE"
