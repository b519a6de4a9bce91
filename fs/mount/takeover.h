/*
 * Private to fs/mount: how one daemon gives its mount to the next: messages over the socket STATE/takeover (mode 0600; each
 * side asks the kernel who the other is, and it must be the same user).
 *
 *	new: HELLO (its protocol, the volume's format that it knows, the mount point)
 *	old: REFUSED and why; or all is stopped, flushed and closed, then
 *	     STATE with two descriptors: of /dev/fuse, and of a sealed memfd (handover.h)
 *	new: opens volume and files;
 *	     FAILED and why: the old one takes the volume back and goes on, as it does when the new one dies or is silent;
 *	     or READY: from here on the mount is the new one's, and the old one ends.
 *
 * Only one of them ever reads requests: the old one until STATE, or again when it knows that the new one sent no READY and is
 * dead; the new one after READY. When both die, or the new one after READY, /dev/fuse is closed: a dead mount, as after
 * kill -9, which a plain `inferfs mount` mends.
 */
#ifndef FS_MOUNT_TAKEOVER_H
#define FS_MOUNT_TAKEOVER_H

#include "engine/base/err.h"

#include <sys/types.h>

struct takeover {
	int sock;
	int pidfd; /* of the other process; -1: not known */
	pid_t pid;
};
#define TAKEOVER_NONE ((struct takeover){.sock = -1, .pidfd = -1})
void takeover_close(struct takeover *t);

/* --- the daemon that has the mount --- */

int takeover_listen(const char *state_dir, int *ret_fd, struct err *err);
void takeover_unlisten(const char *state_dir);
/* Somebody connected. Below 0: there is nothing to do, it was told why (or had no right to be told). */
int takeover_accept(int listen_fd, const char *mnt, struct takeover *ret);
void takeover_refuse(struct takeover *t, const char *why);
int takeover_send(struct takeover *t, int fuse_fd, int state_fd);
/* 0: it has the mount. Below 0: it has not, and is dead. -EOWNERDEAD: it had, and is dead. */
int takeover_wait(struct takeover *t);

/* --- the one that wants it --- */

int takeover_ask(const char *state_dir, const char *mnt, struct takeover *ret, int *ret_fuse_fd,
		 int *ret_state_fd, struct err *err);
int takeover_ready(struct takeover *t, struct err *err);   /* on failure the mount is not ours */
void takeover_failed(struct takeover *t, const char *why); /* after the volume was closed */

#endif
