/*
 * Private to fs: what the subcommands have to find out about mounts and their daemons. STATE/pid holds the
 * daemon's process id and its start time, so that a process that got the number later is not taken for it.
 */
#ifndef FS_STATE_H
#define FS_STATE_H

#include "engine/base/err.h"

#include <limits.h>
#include <stdbool.h>

int state_write_pid(const char *state_dir, struct err *err);
void state_remove_pid(const char *state_dir);
/* A pidfd of the daemon that has state_dir; -ESRCH: none runs. */
int state_daemon(const char *state_dir);

/* The absolute path, also where a dead mount keeps realpath(3) from it; ret has PATH_MAX bytes. */
int mount_path(const char *path, char *ret);
/* True if an inferfs is mounted there; state_dir (PATH_MAX bytes, may be NULL) gets its state directory. */
bool mount_find(const char *mnt, char *state_dir);
/* Takes the mount out of the tree though it is busy or its daemon is dead. */
int mount_detach(const char *mnt);

#endif
