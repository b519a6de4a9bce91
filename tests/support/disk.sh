# Sourced by tests, after lib.sh: the state directory lies on a filesystem of its own, in a file on a loop device. $DISK is where it
# is mounted; STATE is below it.
DISK=$DIR/disk

disk_umount()
{
	local i

	for i in {1..50}; do
		umount "$DISK" 2>/dev/null && return
		sleep 0.1
	done
	umount -l "$DISK"
}

disk_end()
{
	local status=$?

	set +e
	trap - EXIT ERR
	"$INFERFS" umount "$MNT" --timeout 20s >/dev/null 2>&1
	if [[ $status -ne 0 && -f $STATE/log ]]; then
		tail -n 40 "$STATE/log" >&2
	fi
	[[ -f $STATE/pid ]] && kill -9 "$(daemon_pid)" 2>/dev/null
	umount -l "$MNT" 2>/dev/null
	disk_umount 2>/dev/null
	(exit $status)
	finish
}

disk_make() # TYPE SIZE
{
	[[ $(id -u) -eq 0 ]] || skip "only root has loop devices"
	need "mkfs.$1" losetup
	mkdir -p "$DISK"
	truncate -s "$2" "$DIR/disk.img"
	"mkfs.$1" -q "$DIR/disk.img"
	mount -o loop "$DIR/disk.img" "$DISK" 2>/dev/null || skip "no loop devices here"
	trap disk_end EXIT
	STATE=$DISK/state
}

disk_again() # unmounts and mounts
{
	local i

	umount "$DISK"
	for i in {1..100}; do # a mount namespace that was made meanwhile may hold it a little longer: it would not be mounted anew
		[[ -n $(losetup -j "$DIR/disk.img") ]] || break
		sleep 0.1
	done
	[[ -z $(losetup -j "$DIR/disk.img") ]] || skip "somebody else keeps the disk mounted"
	mount -o loop "$DIR/disk.img" "$DISK"
}
