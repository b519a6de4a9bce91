#!/bin/bash
# kill -9 of the daemon at random moments while programs write and batches are answered: what was promised is there after the next
# mount, and every submitted instance is answered exactly once. An argument is the number of moments.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/../support/manifest.sh"
moments=${1:-10}
need python3
start -o null_backend
manifest_tree
for ((round = 1; round <= moments; round++)); do
	manifest_write "$round"
	kill_daemon
	manifest_wait
	start -o null_backend
	manifest_check kill
done
manifest_end kill
stop
"$INFERFS" fsck "$STATE"
