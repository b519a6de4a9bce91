/*
 * One queue, three threads (publish_threads.c). The mover renames each item through the mount, in order (fs/mover.h). The clerk says
 * that an item ended, which the mover must not do (it has no descriptors of the daemon), and queues status texts whose
 * time has come. The scribe writes the content of a large status text before it is queued, so that nobody waits for the disk with a
 * request or a lock of the volume in hand: a sync can take a quarter of a second, and answers wait behind it.
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
#include "fs/publish_private.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STATUS_INTERVAL_NS INT64_C(200000000) /* DESIGN section 1: at most 5 updates a second */

bool publisher_owns_name(const char *name)
{
	return strncmp(name, HIDDEN_PREFIX, sizeof(HIDDEN_PREFIX) - 1) == 0;
}

bool publisher_is_caller(const struct publisher *pub, pid_t tid)
{
	return tid == __atomic_load_n(&pub->mover_tid, __ATOMIC_RELAXED);
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

void publisher_come(struct publisher *pub, int core)
{
	__atomic_store_n(&pub->called, core, __ATOMIC_RELAXED);
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

int publishing_put(struct publishing *p, struct volume *vol, uint64_t parent, const char *name,
		   struct vol_attr *ret_old)
{
	return p->stage ? vol_stage_put(p->stage, parent, name, &p->what, &p->put, ret_old)
			: vol_put(vol, parent, name, &p->what, &p->put, ret_old);
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

void publish_end(struct item *item, int r)
{
	if (item->done)
		item->done(item->data, r, item->visible ? item->visible : clock_monotonic_ns());
	vol_stage_free(item->shown.stage);
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

void publish_enqueue(struct publisher *pub, struct item *item)
{
	item->next = NULL;
	*pub->tail = item;
	pub->tail = &item->next;
}

/* Its content becomes a file, and is on the disk before it is shown. */
static bool is_large(const struct item *item)
{
	return item->shown.what.content_len > VOL_INLINE_MAX;
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

void publish_refuse(struct publisher *pub, struct item *item)
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
			publish_refuse(pub, slot->waiting);
			slot->waiting = NULL;
			slot->queued = false;
		}
	}
	for (struct item **at = &pub->head, *item; (item = *at);) {
		if (is_below(item->path, path)) {
			*at = item->next;
			publish_refuse(pub, item);
		} else {
			at = &item->next;
		}
	}
	pub->tail = &pub->head;
	while (*pub->tail)
		pub->tail = &(*pub->tail)->next;
	if (pub->moving && is_below(pub->moving->path, path))
		pub->moving->refused = true;
	if (pub->writing && is_below(pub->writing->path, path))
		pub->writing->refused = true;
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
		if (slot && slot->written)
			pub->writing->refused = true;
		publish_enqueue(pub, item);
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
		queue_replace(pub, superseded, is_large(item) ? NULL : item);
		slot->queued = !is_large(item);
	} else if (slot->due <= clock_monotonic_ns() && !slot->written && !is_large(item)) {
		slot->queued = true;
		publish_enqueue(pub, item);
	}
out:
	pthread_cond_signal(&pub->wake_mover);
	if (status)
		pthread_cond_signal(&pub->wake_clerk); /* it may have to wake earlier for this slot */
	pthread_mutex_unlock(&pub->lock);
	if (r < 0)
		free(item);
	if (superseded)
		publish_end(superseded, 0);
	return r;
}

/* lock held. The scribe tells the clerk when it is done, who comes here again. */
static void write_or_queue(struct publisher *pub, struct slot *slot, bool all)
{
	if (slot->written)
		return;
	if (all || !is_large(slot->waiting)) {
		slot->queued = true;
		publish_enqueue(pub, slot->waiting);
	} else if (!pub->writing) {
		pub->writing = slot->waiting;
		slot->waiting = NULL;
		slot->written = true;
		slot->due = clock_monotonic_ns() + STATUS_INTERVAL_NS;
		pthread_cond_signal(&pub->wake_scribe);
	}
}

/* lock held. Queues status texts whose time has come (all of them when `all`); the time of the next one, or
 * INT64_MAX. Also forgets slots that have nothing to say. */
int64_t publish_due(struct publisher *pub, bool all)
{
	int64_t now = clock_monotonic_ns(), next = INT64_MAX;

	for (int i = 0; i < SLOT_BUCKETS; i++) {
		for (struct slot **at = &pub->slots[i], *slot; (slot = *at);) {
			if (slot->waiting && !slot->queued) {
				if (all || slot->due <= now)
					write_or_queue(pub, slot, all);
				else if (slot->due < next)
					next = slot->due;
			}
			if (!slot->waiting && !slot->written && slot->due <= now) {
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
struct item *publish_take(struct publisher *pub)
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

int publisher_new(struct publisher **ret, struct volume *vol)
{
	struct publisher *pub = calloc(1, sizeof(*pub));
	pthread_condattr_t attr;

	if (!pub)
		return -ENOMEM;
	pub->vol = vol;
	pub->core = pub->called = -1;
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
	pthread_cond_init(&pub->wake_scribe, &attr);
	pthread_cond_init(&pub->served, &attr);
	pthread_condattr_destroy(&attr);
	*ret = pub;
	return 0;
}

static void end_early(struct publisher *pub)
{
	pthread_mutex_lock(&pub->lock);
	pub->all_queued = true;
	pthread_cond_signal(&pub->wake_mover);
	pthread_cond_signal(&pub->wake_scribe);
	pthread_mutex_unlock(&pub->lock);
}

int publisher_start(struct publisher *pub, const char *mountpoint)
{
	int r;

	pub->mountpoint = strdup(mountpoint);
	if (!pub->mountpoint)
		return -ENOMEM;
	r = pthread_create(&pub->mover, NULL, publish_mover, pub);
	if (r != 0)
		return -r;
	r = pthread_create(&pub->scribe, NULL, publish_scribe, pub);
	if (r != 0)
		goto no_scribe;
	r = pthread_create(&pub->clerk, NULL, publish_clerk, pub);
	if (r != 0)
		goto no_clerk;
	pub->started = true;
	return 0;
no_clerk:
	end_early(pub);
	pthread_join(pub->scribe, NULL);
no_scribe:
	end_early(pub);
	pthread_join(pub->mover, NULL);
	return -r;
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
		pthread_join(pub->scribe, NULL);
	}
	pub->started = false;
}

void publisher_free(struct publisher *pub)
{
	if (!pub)
		return;
	publisher_stop(pub);
	publish_due(pub, true);
	while (pub->head) {
		struct item *item = pub->head;

		pub->head = item->next;
		publish_end(item, -ECANCELED);
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
	pthread_cond_destroy(&pub->wake_scribe);
	pthread_cond_destroy(&pub->served);
	free(pub->mountpoint);
	free(pub);
}
