/*
 * poll(2), select(2) and epoll on files. Reading and writing never block here, as on any regular file; POLLPRI is reported when
 * the content changed since this open file was last told so (or was opened), as on the kernel's own attribute files: who has
 * read `events` to its end waits for POLLPRI and reads on.
 *
 * The kernel asks with a handle to be woken by when somebody sleeps, and asks again when woken. A sleeper is put into the
 * list before the file is looked at, and a writer looks into the list after the file was changed: one of both sees the other.
 */
#include "fs/mount/private.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

struct sleeper {
	struct sleeper *next;
	fuse_ino_t ino;
	uint64_t fh;
	struct fuse_pollhandle *handle;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sleeper *sleepers; /* under lock; atomic read: are there any? */

static bool any(void)
{
	return __atomic_load_n(&sleepers, __ATOMIC_SEQ_CST);
}

/* Takes out those of an inode, or (ino 0) of an open file. */
static struct sleeper *take(fuse_ino_t ino, uint64_t fh)
{
	struct sleeper *taken = NULL, *s;

	pthread_mutex_lock(&lock);
	for (struct sleeper **at = &sleepers; (s = *at);) {
		if (ino ? s->ino == ino : s->fh == fh) {
			__atomic_store_n(at, s->next, __ATOMIC_SEQ_CST);
			s->next = taken;
			taken = s;
		} else {
			at = &s->next;
		}
	}
	pthread_mutex_unlock(&lock);
	return taken;
}

static void end(struct sleeper *s, bool wake)
{
	for (struct sleeper *next; s; s = next) {
		next = s->next;
		if (wake)
			fuse_lowlevel_notify_poll(s->handle);
		fuse_pollhandle_destroy(s->handle);
		free(s);
	}
}

void poll_changed(fuse_ino_t ino)
{
	if (any())
		end(take(ino, 0), true);
}

void poll_released(uint64_t fh)
{
	if (any())
		end(take(0, fh), false);
}

void do_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *handle)
{
	struct sleeper *s = handle ? malloc(sizeof(*s)) : NULL;
	unsigned events = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;

	if (s) {
		end(take(0, fi->fh), false);
		*s = (struct sleeper){.ino = ino, .fh = fi->fh, .handle = handle};
		pthread_mutex_lock(&lock);
		s->next = sleepers;
		__atomic_store_n(&sleepers, s, __ATOMIC_SEQ_CST);
		pthread_mutex_unlock(&lock);
	} else if (handle) { /* no memory to wake it later: it is told at once */
		fuse_pollhandle_destroy(handle);
		events |= POLLPRI;
	}
	if (tree_changed((struct tree_file *)(uintptr_t)fi->fh, ino))
		events |= POLLPRI;
	fuse_reply_poll(req, events);
}
