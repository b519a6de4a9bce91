/*
 * Private to fs/mount: the parts of a mount that is served, and the order in which they come and go (session.c).
 *
 *	volume → glue → tree		mounted_open, mounted_close
 *	session → server		they outlive the others when a mount that was given away comes back
 */
#ifndef FS_MOUNT_MOUNTED_H
#define FS_MOUNT_MOUNTED_H

#include "fs/mount/private.h"
#include "fs/mount/serve.h"

#include <pthread.h>
#include <signal.h>

struct mounted {
	const char *state_dir, *mnt;
	struct mount_options options;
	pthread_t main;
	sigset_t signals; /* what the main thread waits for */
	struct volume *vol;
	struct glue *glue;
	struct served served; /* the tree */
	struct fuse_session *se;
	struct server *server;
	int listen_fd;
	bool owner; /* volume and mount are ours: not before the other daemon has heard READY, nor after we have */
	bool taken; /* libfuse did not mount it */
};

/* Volume, glue and tree; handles NULL: nothing is open. On failure all is as before. */
int mounted_open(struct mounted *m, const struct tree_handles *handles, struct err *err);
int mounted_new_glue(struct mounted *m, struct err *err);
/* The server must rest. Unless it is the owner's, for the other daemon (volume_hand_over). */
void mounted_close(struct mounted *m);

/* upgrade.c */
/* Somebody knocks at listen_fd. 1: the mount is another daemon's now; 0: it goes on; below 0: it can't go on. */
int upgrade_give(struct mounted *m);
/* Takes the mount over: then everything is there, and requests are served, but for the scheduler. */
int upgrade_take(struct mounted *m, struct err *err);

/* session.c */
int mounted_new_session(struct mounted *m, int fuse_fd,
			struct err *err); /* fuse_fd -1: mounts; else becomes the session's */

#endif
