/*
 * Private to fs: the calls into our own mount by which a publication becomes visible. One thread's own: it is of a
 * kind of its own. A thread that waits for an answer of its own process's filesystem can't be killed once the request
 * was read, and what would end the request, the release of /dev/fuse, happens only when the last user of the
 * descriptor table is gone: after kill -9 both would wait for each other for ever. So that thread has a table of
 * its own (CLOSE_RANGE_UNSHARE) in which nothing is open but standard error and what it opens in the mount: the
 * daemon's other threads die, /dev/fuse is released, the request fails, the thread dies. It must not call anything
 * that uses a descriptor of the daemon: no volume, no scheduler's loop.
 */
#ifndef FS_MOVER_H
#define FS_MOVER_H

#include <stdbool.h>
#include <stddef.h>

#define MOVER_DIRS 8 /* chosen: batches that are answered at the same time */

struct mover {
	const char *mountpoint; /* borrowed */
	int root_fd;            /* -1: at rest */
	struct mover_dir {
		char *path; /* NULL: none */
		int fd;     /* O_PATH */
	} dirs[MOVER_DIRS];
	unsigned next;
};

/* First thing on the thread. */
void mover_init(struct mover *m, const char *mountpoint);
/*
 * Renames `hidden`, a name in the directory of `path`, to `path` (relative to the mount). What is missing of
 * the directory is made, but never a thing of the user's (jobs/NAME, infer/APP, datasets/NAME): then it is -ENOENT.
 */
int mover_rename(struct mover *m, const char *hidden, const char *path);
int mover_remove(struct mover *m, const char *path);
/* Adds to the end of the file `path`, made (mode 0444) where there is none; emptied first, in place, when `empty`. */
int mover_append(struct mover *m, const char *path, const void *data, size_t len, bool empty);
/* Closes what it holds in the mount: it would make umount(8) fail with EBUSY. */
void mover_rest(struct mover *m);
bool mover_rests(const struct mover *m);

#endif
