/*
 * poll(2), select(2) and epoll. Reading and writing never block here, as on any file; but who has read `events` to its end
 * can wait for POLLPRI, as on /proc/mounts: reported when lines were added since this open file was opened or last told so.
 *
 * What is waited for is not the WRITE but the end of the write(2) by which the publisher made it: before that the kernel does not
 * know the new size, and a reader that comes too early sees nothing and sleeps on. Who waits is in the list before the
 * count is looked at, and the count grows before the list is: one of both sees the other.
 *
 * The kernel asks for all files or for none (ENOSYS): poll(2) on an ordinary file costs a round trip (measured: 12-31 µs; 0.1 without).
 */
#include "fs/mount/private.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

struct sleeper {
	struct sleeper *next;
	uint64_t fh;
	struct fuse_pollhandle *handle;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sleeper *sleepers; /* under lock; few: who has `events` open and waits */

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

/* Those of an open file; 0: all. */
static struct sleeper *take(uint64_t fh)
{
	struct sleeper *taken = NULL, *s;

	pthread_mutex_lock(&lock);
	for (struct sleeper **at = &sleepers; (s = *at);) {
		if (!fh || s->fh == fh) {
			__atomic_store_n(at, s->next, __ATOMIC_RELAXED);
			s->next = taken;
			taken = s;
		} else {
			at = &s->next;
		}
	}
	pthread_mutex_unlock(&lock);
	return taken;
}

void poll_wake(void *data)
{
	(void)data;
	end(take(0), true);
}

void poll_released(uint64_t fh)
{
	if (__atomic_load_n(&sleepers, __ATOMIC_RELAXED))
		end(take(fh), false);
}

static bool sleep_on(uint64_t fh, struct fuse_pollhandle *handle)
{
	struct sleeper *s = malloc(sizeof(*s));

	if (!s) {
		fuse_pollhandle_destroy(handle);
		return false;
	}
	end(take(fh), false); /* the kernel needs one for each open file */
	*s = (struct sleeper){.fh = fh, .handle = handle};
	pthread_mutex_lock(&lock);
	s->next = sleepers;
	__atomic_store_n(&sleepers, s, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lock);
	return true;
}

void do_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *handle)
{
	struct tree_file *file = req_file(req, fi);
	unsigned events = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;

	if (!file || !(fi->poll_events & POLLPRI) || !tree_is_events(req_tree(req), ino)) {
		if (handle)
			fuse_pollhandle_destroy(handle);
	} else if ((handle && !sleep_on(fi->fh, handle)) || tree_grew(file)) {
		events |= POLLPRI;
	}
	fuse_reply_poll(req, events);
}
