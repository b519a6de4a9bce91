/* The publisher's three threads; how they work together is told in publish.c. */
#include "fs/publish_private.h"

#include "engine/base/clock.h"
#include "engine/base/io.h"
#include "engine/base/log.h"
#include "fs/mover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define IDLE_NS       INT64_C(100000000) /* chosen: when directories are closed, without work */
#define RENAME_NS     INT64_C(150000) /* measured: what an idle machine takes from here to a visible name */
#define TOLD_TOGETHER 8 /* chosen: while there is more to move; waking the clerk costs as much as a lookup */

static void stay_on(const struct publisher *pub, int core)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	if (core >= 0)
		CPU_SET(core, &one);
	sched_setaffinity(0, sizeof(one), core >= 0 ? &one : &pub->cores); /* of this thread; a wish */
}

/* --- the mover's thread --- */

static void settle(struct publisher *pub, int core)
{
	__atomic_store_n(&pub->core, core, __ATOMIC_RELAXED);
	stay_on(pub, core);
}

static int move(struct publisher *pub, struct mover *m, struct item *item)
{
	int called = __atomic_load_n(&pub->called, __ATOMIC_RELAXED), r;

	if (mover_rests(m)) {
		publisher_come(pub, -1);
		settle(pub, sched_getcpu());
	} else if (called >= 0 && called != publisher_core(pub)) {
		settle(pub, called);
	}
	if (item->due && clock_monotonic_ns() + RENAME_NS > item->due)
		return -ETIME;
	if (item->type == PUBLISH_REMOVE)
		return mover_remove(m, item->path);
	if (item->flags & HOST_APPEND)
		return mover_append(m, item->path, item->shown.what.content, item->shown.what.content_len,
				    item->flags & HOST_EMPTY);
	pthread_mutex_lock(&pub->lock);
	snprintf(item->hidden, sizeof(item->hidden), HIDDEN_PREFIX "%016llx",
		 (unsigned long long)pub->serial++);
	pthread_mutex_unlock(&pub->lock);
	r = mover_rename(m, item->hidden, item->path);
	item->visible = clock_monotonic_ns();
	pthread_mutex_lock(&pub->lock);
	pub->moving = NULL; /* no handler finds it any more */
	/* When the connection is cut, the rename returns while a handler is still at it, and may succeed. */
	while (pub->n_served)
		pthread_cond_wait(&pub->served, &pub->lock);
	pthread_mutex_unlock(&pub->lock);
	return item->shown.stored ? 0 : r;
}

void *publish_mover(void *arg)
{
	struct publisher *pub = arg;
	struct mover m;

	pthread_setname_np(pthread_self(), "inferfs/mover");
	mover_init(&m, pub->mountpoint);
	__atomic_store_n(&pub->mover_tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	pthread_mutex_lock(&pub->lock);
	for (;;) {
		if (pub->head) {
			struct item *item = publish_take(pub);

			pub->moving = item;
			pthread_mutex_unlock(&pub->lock);
			item->r = move(pub, &m, item);
			pthread_mutex_lock(&pub->lock);
			pub->moving = NULL;
			item->next = NULL;
			*pub->moved_tail = item;
			pub->moved_tail = &item->next;
			if (++pub->n_moved >= TOLD_TOGETHER || !pub->head)
				pthread_cond_signal(&pub->wake_clerk);
		} else if (pub->all_queued) {
			break;
		} else if (mover_rests(&m)) {
			pthread_cond_wait(&pub->wake_mover, &pub->lock);
		} else {
			int64_t end = clock_monotonic_ns() + IDLE_NS;
			struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};

			if (pthread_cond_timedwait(&pub->wake_mover, &pub->lock, &ts) == ETIMEDOUT &&
			    !pub->head) {
				pthread_mutex_unlock(&pub->lock);
				mover_rest(&m);
				settle(pub, -1);
				pthread_mutex_lock(&pub->lock);
			}
		}
	}
	pub->all_moved = true;
	pthread_cond_signal(&pub->wake_clerk);
	pthread_mutex_unlock(&pub->lock);
	mover_rest(&m);
	return NULL;
}

/* --- the scribe's --- */

/* Without a stage (the volume takes no more, no memory) it is put as it is, or not, and that tells why. */
static void write_content(struct publisher *pub, struct item *item)
{
	const struct vol_new *what = &item->shown.what;
	struct vol_stage *stage = NULL;

	if (vol_stage_new(&stage, pub->vol) < 0)
		return;
	if (io_write(vol_stage_fd(stage), what->content, what->content_len) < 0 ||
	    vol_stage_sync(stage) < 0) {
		vol_stage_free(stage);
		return;
	}
	item->shown.stage = stage;
}

void *publish_scribe(void *arg)
{
	struct publisher *pub = arg;

	pthread_setname_np(pthread_self(), "inferfs/scribe");
	pthread_mutex_lock(&pub->lock);
	for (;;) {
		struct item *item = pub->writing;

		if (item) {
			pthread_mutex_unlock(&pub->lock);
			write_content(pub, item);
			pthread_mutex_lock(&pub->lock);
			pub->writing = NULL;
			item->slot->written = false;
			item->slot = NULL;
			if (item->refused)
				publish_refuse(pub, item);
			else
				publish_enqueue(pub, item);
			pthread_cond_signal(&pub->wake_mover);
			pthread_cond_signal(&pub->wake_clerk);
		} else if (pub->all_queued) {
			break;
		} else {
			pthread_cond_wait(&pub->wake_scribe, &pub->lock);
		}
	}
	pthread_mutex_unlock(&pub->lock);
	return NULL;
}

/* --- the clerk's --- */

/* The mount went away beneath us: the answer still counts, and the next mount shows it. */
static int put_unseen(struct publisher *pub, struct item *item)
{
	const char *slash = strrchr(item->path, '/');
	char *parent = slash ? strndup(item->path, (size_t)(slash - item->path)) : strdup("");
	struct publishing *p = &item->shown;
	struct vol_attr dir;
	int r = parent ? vol_resolve(pub->vol, VOL_ROOT, parent, &dir) : -ENOMEM;

	free(parent);
	if (r == 0 && p->bulk)
		return vol_bulk_put(p->bulk, dir.ino, slash ? slash + 1 : item->path, p->put.ops,
				    p->put.n_ops);
	if (r == 0)
		r = vol_reserve(pub->vol, &p->put.ino);
	if (r < 0)
		return r;
	publishing_owned(p, pub->vol,
			 &(struct host_access){.mode = dir.mode, .uid = dir.uid, .gid = dir.gid});
	return publishing_put(p, pub->vol, dir.ino, slash ? slash + 1 : item->path, NULL);
}

static int append_unseen(struct publisher *pub, const struct item *item)
{
	const struct vol_new *what = &item->shown.what;
	struct vol_attr attr;
	struct vol_file *f = NULL;
	ssize_t n;
	int r = vol_resolve(pub->vol, VOL_ROOT, item->path, &attr);

	if (r == 0)
		r = vol_file_open(pub->vol, attr.ino, O_WRONLY | (item->flags & HOST_EMPTY ? O_TRUNC : 0),
				  &f);
	if (!f)
		return r;
	n = vol_write(f, what->content, what->content_len, item->flags & HOST_EMPTY ? 0 : attr.size);
	vol_file_close(f);
	return n < 0 ? (int)n : 0;
}

static void end(struct publisher *pub, struct item *item)
{
	int r = item->r;

	if (item->type != PUBLISH_REMOVE && (r == -ENOTCONN || r == -ECONNABORTED || r == -ENODEV)) {
		r = item->flags & HOST_APPEND ? append_unseen(pub, item) : put_unseen(pub, item);
		item->visible = clock_monotonic_ns();
	}
	if (r < 0)
		log_trace(LOG_FS, "publish %s: %s", item->path, strerror(-r));
	if (item->flags & HOST_APPEND && r >= 0) {
		__atomic_add_fetch(&pub->n_appended, 1, __ATOMIC_SEQ_CST);
		if (pub->grew)
			pub->grew(pub->grew_data);
	}
	publish_end(item, r);
}

void *publish_clerk(void *arg)
{
	struct publisher *pub = arg;

	pthread_setname_np(pthread_self(), "inferfs/clerk");
	pthread_mutex_lock(&pub->lock);
	for (;;) {
		struct item *item = pub->moved;
		int64_t due;

		pub->moved = NULL;
		pub->moved_tail = &pub->moved;
		pub->n_moved = 0;
		if (item) {
			pthread_mutex_unlock(&pub->lock);
			for (struct item *next; item; item = next) {
				next = item->next;
				end(pub, item);
			}
			pthread_mutex_lock(&pub->lock);
			continue;
		}
		due = publish_due(pub, pub->stopping);
		pub->all_queued = pub->stopping && !pub->writing;
		if (pub->head || pub->all_queued)
			pthread_cond_signal(&pub->wake_mover);
		if (pub->all_queued)
			pthread_cond_signal(&pub->wake_scribe);
		if (pub->all_moved)
			break;
		if (due == INT64_MAX) {
			pthread_cond_wait(&pub->wake_clerk, &pub->lock);
		} else {
			struct timespec ts = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};

			pthread_cond_timedwait(&pub->wake_clerk, &pub->lock, &ts);
		}
	}
	pthread_mutex_unlock(&pub->lock);
	return NULL;
}
