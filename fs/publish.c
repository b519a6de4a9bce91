/*
 * One queue, two threads. The mover renames each item through the mount, in order (fs/mover.h). The clerk says
 * that an item ended, which the mover must not do (it has no descriptors of the daemon), and queues status texts whose
 * time has come.
 *
 * A hidden name exists only while the mover renames it: LOOKUP finds the item that is `moving`, RENAME puts
 * it, whole, into the volume in one write batch with the scheduler's records. Before that batch there is nothing, so
 * a crash leaves nothing to clean.
 *
 * An answer (HOST_RESULT), a symlink and a removal go out in the order of publisher_put. A status file has a slot for
 * its path: while a text waits there, a newer one takes its place, and a path is renewed at most every
 * STATUS_INTERVAL_NS. What is appended (HOST_APPEND) is written through the mount, in the order of publisher_put too.
 *
 * Locks: pub->lock guards what is marked so; it is never held over a call into the volume or the mount.
 */
#include "fs/publish.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "fs/mover.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HIDDEN_PREFIX      ".inferfs-pub."
#define STATUS_INTERVAL_NS INT64_C(200000000) /* DESIGN section 1: at most 5 updates a second */
#define IDLE_NS            INT64_C(100000000) /* chosen: when directories are closed, without work */
#define RENAME_NS          INT64_C(150000) /* measured: what an idle machine takes from here to a visible name */
#define TOLD_TOGETHER      8 /* chosen: while there is more to move; waking the clerk costs as much as a lookup */
#define SLOT_BUCKETS       256

struct item {
	struct item *next; /* in the queue */
	struct slot *slot; /* of a status file */
	enum publication_type type;
	unsigned flags; /* enum host_publish_flags */
	char *path;     /* in the same allocation, as is what `shown` points to */
	struct publishing shown;
	int64_t due;
	void (*done)(void *data, int r, int64_t visible);
	void *data;
	char hidden[40];
	bool refused; /* under lock: its place was closed while it was `moving` */
	int r;
	int64_t visible;
};

/* A status file's place: at most one text waits for it, either in the queue or, until `due`, only here. */
struct slot {
	struct slot *next;
	struct item *waiting; /* NULL: none */
	bool queued;          /* waiting is in the queue */
	int64_t due;          /* CLOCK_MONOTONIC from which on it may be renewed */
	char path[];
};

/* See publisher_close. */
struct closed {
	struct closed *next;
	unsigned times;
	char path[];
};

struct publisher {
	struct volume *vol;
	char *mountpoint;
	pthread_mutex_t lock;
	pthread_cond_t wake_clerk, wake_mover;
	pthread_t clerk, mover;
	struct item *head, **tail; /* under lock: to be moved */
	struct item *moving;       /* under lock: taken out of the queue, its rename may be under way */
	struct closed *closed;     /* under lock */
	unsigned n_served;         /* under lock: handlers between publisher_moving and publisher_served */
	pthread_cond_t served;
	struct item *moved, **moved_tail; /* under lock: to be ended */
	unsigned n_moved;                 /* under lock */
	struct slot *slots[SLOT_BUCKETS]; /* under lock */
	bool started, stopping;           /* under lock */
	bool all_queued, all_moved;       /* under lock: at the end, by the clerk and then the mover */
	void (*grew)(void *data);         /* NULL: nobody asks; set before the threads */
	void *grew_data;
	uint64_t n_appended; /* atomic */
	pid_t mover_tid;     /* atomic */
	int core;            /* atomic: where the mover stays; -1: at rest */
	cpu_set_t cores;     /* that this process may use */
	uint64_t
		serial; /* mover only: of hidden names; starts at random, so that the kernel knows none of them */
};

bool publisher_owns_name(const char *name)
{
	return strncmp(name, HIDDEN_PREFIX, sizeof(HIDDEN_PREFIX) - 1) == 0;
}

bool publisher_is_caller(const struct publisher *pub, pid_t tid)
{
	return tid == __atomic_load_n(&pub->mover_tid, __ATOMIC_RELAXED);
}

static void stay_on(const struct publisher *pub, int core)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	if (core >= 0)
		CPU_SET(core, &one);
	sched_setaffinity(0, sizeof(one), core >= 0 ? &one : &pub->cores); /* of this thread; a wish */
}

void publisher_on_append(struct publisher *pub, void (*grew)(void *data), void *data)
{
	pub->grew = grew;
	pub->grew_data = data;
}

uint64_t publisher_appended(const struct publisher *pub)
{
	return __atomic_load_n(&pub->n_appended, __ATOMIC_SEQ_CST);
}

int publisher_core(const struct publisher *pub)
{
	return __atomic_load_n(&pub->core, __ATOMIC_RELAXED);
}

struct publishing *publisher_moving(struct publisher *pub, const char *name)
{
	struct publishing *ret = NULL;

	pthread_mutex_lock(&pub->lock);
	if (pub->moving && !pub->moving->refused && strcmp(name, pub->moving->hidden) == 0) {
		ret = &pub->moving->shown;
		pub->n_served++;
	}
	pthread_mutex_unlock(&pub->lock);
	return ret;
}

void publisher_served(struct publisher *pub)
{
	pthread_mutex_lock(&pub->lock);
	if (--pub->n_served == 0)
		pthread_cond_signal(&pub->served);
	pthread_mutex_unlock(&pub->lock);
}

void publishing_owned(struct publishing *p, struct volume *vol, const struct host_access *dir)
{
	struct host_access owner = p->access;
	struct vol_attr attr;

	if (!owner.mode && p->owner_ino) {
		if (vol_getattr(vol, p->owner_ino, &attr) == 0)
			owner = (struct host_access){.mode = attr.mode, .uid = attr.uid, .gid = attr.gid};
		else
			owner = (struct host_access){.mode = S_IRUSR, .uid = geteuid(), .gid = getegid()};
	}
	p->what.uid = owner.mode ? owner.uid : dir->uid;
	p->what.gid = owner.mode ? owner.gid : dir->gid;
	if (owner.mode)
		p->what.mode &= S_IFMT | owner.mode | S_IRUSR;
	if (dir->mode & S_ISGID && p->what.gid != dir->gid) { /* a group that the owner's mode did not mean */
		p->what.gid = dir->gid;
		if (!(p->what.mode & S_IROTH))
			p->what.mode &= ~S_IRGRP;
	}
	clock_gettime(CLOCK_REALTIME, &p->put.when);
}

/* One allocation for the item and all it copies. */
static struct item *item_new(const struct publication *from)
{
	const struct host_publication *p = &from->file;
	size_t size =
		sizeof(struct item) + p->n_ops * sizeof(struct host_op) + strlen(p->path) + 1 + p->len + 1;
	struct host_op *ops;
	struct item *item;
	char *at;

	for (size_t i = 0; i < p->n_ops; i++)
		size += p->ops[i].key_len + 1 + p->ops[i].value_len;
	item = malloc(size);
	if (!item)
		return NULL;
	*item = (struct item){
		.type = from->type, .flags = p->flags, .due = p->due, .done = p->done, .data = p->data};
	ops = (struct host_op *)(item + 1);
	at = (char *)(ops + p->n_ops);
	item->path = at;
	at = stpcpy(at, p->path) + 1;
	if (p->len)
		memcpy(at, p->content, p->len);
	at[p->len] = '\0';
	item->shown.bulk = (struct vol_bulk *)p->tree;
	item->shown.owner_ino = p->owner_ino;
	if (p->access)
		item->shown.access = (struct host_access){
			.mode = p->access->mode | S_IRUSR, .uid = p->access->uid, .gid = p->access->gid};
	item->shown.put = (struct vol_put){.ops = ops,
					   .n_ops = p->n_ops,
					   .sync = p->flags & HOST_FSYNC,
					   .status = !(p->flags & HOST_RESULT) && p->n_ops == 0};
	item->shown.what.mode = from->type == PUBLISH_SYMLINK ? S_IFLNK | 0777 : S_IFREG | 0444;
	if (from->type == PUBLISH_SYMLINK) {
		item->shown.what.target = at;
	} else {
		item->shown.what.content = at;
		item->shown.what.content_len = p->len;
	}
	at += p->len + 1;
	for (size_t i = 0; i < p->n_ops; i++) {
		struct host_op *op = &ops[i];

		*op = p->ops[i];
		op->key = at;
		if (op->key_len)
			memcpy(at, p->ops[i].key, op->key_len);
		at[op->key_len] = '\0'; /* xattr names are used as strings */
		at += op->key_len + 1;
		op->value = at;
		if (op->value_len)
			memcpy(at, p->ops[i].value, op->value_len);
		at += op->value_len;
	}
	return item;
}

static void item_end(struct item *item, int r)
{
	if (item->done)
		item->done(item->data, r, item->visible ? item->visible : clock_monotonic_ns());
	free(item);
}

static struct slot **slot_find(struct publisher *pub, const char *path)
{
	unsigned hash = 5381;
	struct slot **at;

	for (const char *p = path; *p; p++)
		hash = hash * 33 + (unsigned char)*p;
	for (at = &pub->slots[hash % SLOT_BUCKETS]; *at && strcmp((*at)->path, path) != 0; at = &(*at)->next)
		;
	return at;
}

/* lock held */
static void enqueue(struct publisher *pub, struct item *item)
{
	item->next = NULL;
	*pub->tail = item;
	pub->tail = &item->next;
}

/* lock held. The item that is in the queue, replaced in its place by `with`, or taken out when NULL. */
static void queue_replace(struct publisher *pub, struct item *item, struct item *with)
{
	struct item **at = &pub->head;

	while (*at != item)
		at = &(*at)->next;
	if (with) {
		with->next = item->next;
		*at = with;
	} else {
		*at = item->next;
	}
	if (pub->tail == &item->next)
		pub->tail = with ? &with->next : at;
}

/* --- places that are closed; lock held --- */

static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return strncmp(path, dir, len) == 0 && path[len] == '/';
}

static struct closed **closed_find(struct publisher *pub, const char *path)
{
	struct closed **at = &pub->closed;

	while (*at && strcmp((*at)->path, path) != 0)
		at = &(*at)->next;
	return at;
}

static bool is_closed(const struct publisher *pub, const char *path)
{
	const struct closed *c = pub->closed;

	while (c && !is_below(path, c->path))
		c = c->next;
	return c;
}

static void refuse(struct publisher *pub, struct item *item)
{
	item->slot = NULL;
	item->r = -ENOENT;
	item->next = NULL;
	*pub->moved_tail = item;
	pub->moved_tail = &item->next;
}

static void refuse_below(struct publisher *pub, const char *path)
{
	for (int i = 0; i < SLOT_BUCKETS; i++) {
		for (struct slot *slot = pub->slots[i]; slot; slot = slot->next) {
			if (!slot->waiting || !is_below(slot->path, path))
				continue;
			if (slot->queued)
				queue_replace(pub, slot->waiting, NULL);
			refuse(pub, slot->waiting);
			slot->waiting = NULL;
			slot->queued = false;
		}
	}
	for (struct item **at = &pub->head, *item; (item = *at);) {
		if (is_below(item->path, path)) {
			*at = item->next;
			refuse(pub, item);
		} else {
			at = &item->next;
		}
	}
	pub->tail = &pub->head;
	while (*pub->tail)
		pub->tail = &(*pub->tail)->next;
	if (pub->moving && is_below(pub->moving->path, path))
		pub->moving->refused = true;
	pthread_cond_signal(&pub->wake_clerk);
}

int publisher_close(struct publisher *pub, const char *path)
{
	struct closed *new = malloc(sizeof(*new) + strlen(path) + 1), **at;

	if (!new)
		return -ENOMEM;
	new->times = 0;
	new->next = NULL;
	strcpy(new->path, path);
	pthread_mutex_lock(&pub->lock);
	at = closed_find(pub, path);
	if (!*at) {
		*at = new;
		new = NULL;
	}
	(*at)->times++;
	refuse_below(pub, path);
	pthread_mutex_unlock(&pub->lock);
	free(new);
	return 0;
}

void publisher_reopen(struct publisher *pub, const char *path)
{
	struct closed **at, *old = NULL;

	pthread_mutex_lock(&pub->lock);
	at = closed_find(pub, path);
	if (*at && --(*at)->times == 0) {
		old = *at;
		*at = old->next;
	}
	pthread_mutex_unlock(&pub->lock);
	free(old);
}

bool publisher_refused(struct publisher *pub)
{
	bool refused;

	pthread_mutex_lock(&pub->lock);
	refused = pub->moving && pub->moving->refused;
	pthread_mutex_unlock(&pub->lock);
	return refused;
}

int publisher_put(struct publisher *pub, const struct publication *p)
{
	bool status = p->type == PUBLISH_FILE && !(p->file.flags & (HOST_RESULT | HOST_APPEND)) &&
		      p->file.n_ops == 0;
	struct item *item = item_new(p), *superseded = NULL;
	struct slot **at, *slot;
	int r = 0;

	if (!item)
		return -ENOMEM;
	pthread_mutex_lock(&pub->lock);
	if (pub->stopping) {
		r = -ESHUTDOWN;
		goto out;
	}
	if (is_closed(pub, p->file.path)) {
		r = -ENOENT;
		goto out;
	}
	at = slot_find(pub, p->file.path);
	slot = *at;
	if (!status) {
		/* What is said about a path now comes after what waits for it: an older status text must not
		 * come later. */
		if (slot && slot->waiting) {
			superseded = slot->waiting;
			if (slot->queued)
				queue_replace(pub, superseded, NULL);
			slot->waiting = NULL;
			slot->queued = false;
		}
		enqueue(pub, item);
		goto out;
	}
	if (!slot) {
		slot = calloc(1, sizeof(*slot) + strlen(p->file.path) + 1);
		if (!slot) {
			r = -ENOMEM;
			goto out;
		}
		strcpy(slot->path, p->file.path);
		*at = slot;
	}
	item->slot = slot;
	superseded = slot->waiting;
	slot->waiting = item;
	if (superseded && slot->queued) {
		queue_replace(pub, superseded, item);
	} else if (slot->due <= clock_monotonic_ns()) {
		slot->queued = true;
		enqueue(pub, item);
	}
out:
	pthread_cond_signal(&pub->wake_mover);
	if (status)
		pthread_cond_signal(&pub->wake_clerk); /* it may have to wake earlier for this slot */
	pthread_mutex_unlock(&pub->lock);
	if (r < 0)
		free(item);
	if (superseded)
		item_end(superseded, 0);
	return r;
}

/* lock held. Queues status texts whose time has come (all of them when `all`); the time of the next one, or
 * INT64_MAX. Also forgets slots that have nothing to say. */
static int64_t slots_due(struct publisher *pub, bool all)
{
	int64_t now = clock_monotonic_ns(), next = INT64_MAX;

	for (int i = 0; i < SLOT_BUCKETS; i++) {
		for (struct slot **at = &pub->slots[i], *slot; (slot = *at);) {
			if (slot->waiting && !slot->queued) {
				if (all || slot->due <= now) {
					slot->queued = true;
					enqueue(pub, slot->waiting);
				} else if (slot->due < next) {
					next = slot->due;
				}
			}
			if (!slot->waiting && slot->due <= now) {
				*at = slot->next;
				free(slot);
			} else {
				at = &slot->next;
			}
		}
	}
	return next;
}

/* lock held; the next of the queue. Its slot is free from here on. */
static struct item *take(struct publisher *pub)
{
	struct item *item = pub->head;

	pub->head = item->next;
	if (!pub->head)
		pub->tail = &pub->head;
	if (item->slot) {
		item->slot->waiting = NULL;
		item->slot->queued = false;
		item->slot->due = clock_monotonic_ns() + STATUS_INTERVAL_NS;
		item->slot = NULL;
	}
	return item;
}

/* --- the mover's thread --- */

static void settle(struct publisher *pub, int core)
{
	__atomic_store_n(&pub->core, core, __ATOMIC_RELAXED);
	stay_on(pub, core);
}

static int move(struct publisher *pub, struct mover *m, struct item *item)
{
	int r;

	if (mover_rests(m))
		settle(pub, sched_getcpu());
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

static void *mover_thread(void *arg)
{
	struct publisher *pub = arg;
	struct mover m;

	pthread_setname_np(pthread_self(), "inferfs/mover");
	mover_init(&m, pub->mountpoint);
	__atomic_store_n(&pub->mover_tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	pthread_mutex_lock(&pub->lock);
	for (;;) {
		if (pub->head) {
			struct item *item = take(pub);

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
	return vol_put(pub->vol, dir.ino, slash ? slash + 1 : item->path, &p->what, &p->put, NULL);
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
	item_end(item, r);
}

static void *clerk_thread(void *arg)
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
		due = slots_due(pub, pub->stopping);
		pub->all_queued = pub->stopping;
		if (pub->head || pub->all_queued)
			pthread_cond_signal(&pub->wake_mover);
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

int publisher_new(struct publisher **ret, struct volume *vol)
{
	struct publisher *pub = calloc(1, sizeof(*pub));
	pthread_condattr_t attr;

	if (!pub)
		return -ENOMEM;
	pub->vol = vol;
	pub->core = -1;
	sched_getaffinity(0, sizeof(pub->cores), &pub->cores);
	pub->tail = &pub->head;
	pub->moved_tail = &pub->moved;
	if (getrandom(&pub->serial, sizeof(pub->serial), 0) != sizeof(pub->serial))
		pub->serial = (uint64_t)clock_monotonic_ns();
	pthread_mutex_init(&pub->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pub->wake_clerk, &attr);
	pthread_cond_init(&pub->wake_mover, &attr);
	pthread_cond_init(&pub->served, &attr);
	pthread_condattr_destroy(&attr);
	*ret = pub;
	return 0;
}

int publisher_start(struct publisher *pub, const char *mountpoint)
{
	int r;

	pub->mountpoint = strdup(mountpoint);
	if (!pub->mountpoint)
		return -ENOMEM;
	r = pthread_create(&pub->mover, NULL, mover_thread, pub);
	if (r != 0)
		return -r;
	r = pthread_create(&pub->clerk, NULL, clerk_thread, pub);
	if (r != 0) {
		pthread_mutex_lock(&pub->lock);
		pub->all_queued = true;
		pthread_cond_signal(&pub->wake_mover);
		pthread_mutex_unlock(&pub->lock);
		pthread_join(pub->mover, NULL);
		return -r;
	}
	pub->started = true;
	return 0;
}

void publisher_stop(struct publisher *pub)
{
	pthread_mutex_lock(&pub->lock);
	pub->stopping = true;
	pthread_cond_signal(&pub->wake_clerk);
	pthread_mutex_unlock(&pub->lock);
	if (pub->started) {
		pthread_join(pub->clerk, NULL);
		pthread_join(pub->mover, NULL);
	}
	pub->started = false;
}

void publisher_free(struct publisher *pub)
{
	if (!pub)
		return;
	publisher_stop(pub);
	slots_due(pub, true);
	while (pub->head) {
		struct item *item = pub->head;

		pub->head = item->next;
		item_end(item, -ECANCELED);
	}
	for (int i = 0; i < SLOT_BUCKETS; i++) {
		for (struct slot *slot; (slot = pub->slots[i]);) {
			pub->slots[i] = slot->next;
			free(slot);
		}
	}
	for (struct closed *c; (c = pub->closed);) {
		pub->closed = c->next;
		free(c);
	}
	pthread_mutex_destroy(&pub->lock);
	pthread_cond_destroy(&pub->wake_clerk);
	pthread_cond_destroy(&pub->wake_mover);
	pthread_cond_destroy(&pub->served);
	free(pub->mountpoint);
	free(pub);
}
