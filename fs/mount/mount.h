/*
 * Private to fs: one mounted tree, from volume to FUSE session. fs/command_mount.c runs it.
 */
#ifndef FS_MOUNT_MOUNT_H
#define FS_MOUNT_MOUNT_H

#include "engine/base/err.h"
#include "fs/options.h"

/*
 * Opens the volume in state_dir (made 0700 if missing), mounts it at mnt and serves until SIGTERM, SIGINT or
 * an unmount by others; SIGUSR1 switches trace. All threads but the caller's are started inside, so call it
 * after the last fork. ready(data) is called once the tree answers. 0 after a clean end, also when another
 * daemon has taken the mount over. takeover: takes it over from the daemon that has it; on failure that one goes on.
 */
int mount_run(const char *state_dir, const char *mnt, const struct mount_options *options, bool takeover,
	      void (*ready)(void *data), void *data, struct err *err);

#endif
