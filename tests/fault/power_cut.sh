#!/bin/bash
# Power cuts: the state lies on an xfs of its own, which is shut down at random moments while programs write and batches are
# answered. What was fsynced is there after the next mount, the volume is clean, and every batch whose submission was fsynced is answered
# exactly once. An argument is the number of moments.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/../support/manifest.sh"
. "$(dirname "$0")/../support/disk.sh"
moments=${1:-2}
need python3 xfs_io
disk_make xfs 400M
start -o null_backend
manifest_tree
for ((round = 1; round <= moments; round++)); do
	manifest_write "$round" "$DISK"
	pid=$(daemon_pid)
	xfs_io -x -c shutdown "$DISK"
	kill -9 "$pid"
	until gone "$pid"; do sleep 0.02; done
	manifest_wait
	umount -l "$MNT"
	disk_again
	"$INFERFS" fsck "$STATE"
	start -o null_backend
	manifest_check power
done
manifest_end power
stop
"$INFERFS" fsck "$STATE"
