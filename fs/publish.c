/*
 * One thread, one queue; what goes through the mount is done by its hand outside (fs/outside.h), so that
 * kill -9 leaves nothing that can't die. An answer (HOST_RESULT), a symlink and a removal go out in the order of
 * publisher_put. A status file has a slot for its path: while a text waits there, a newer one takes its
 * place, and a path is renewed at most every STATUS_INTERVAL_NS.
 *
 * Descriptors on directories of the mount are kept only while there is work: they would make umount(8) fail
 * with EBUSY.
 *
 * Locks: pub->lock guards what is marked so; it is never held over a call into the volume or the mount.
 */
#include "fs/publish.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "fs/outside.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HIDDEN_PREFIX      ".inferfs-pub."
#define STATUS_INTERVAL_NS INT64_C(200000000) /* DESIGN section 1: at most 5 updates a second */
#define IDLE_NS            INT64_C(100000000) /* chosen: when directories are closed, without work */
#define RENAME_NS          INT64_C(300000) /* measured: what an idle machine takes from here to a visible name */
#define DIR_CACHE          8               /* chosen: batches that are answered at the same time */
#define SLOT_BUCKETS       256

struct item {
	struct item *next; /* in the queue */
	struct slot *slot; /* of a status file */
	enum publication_type type;
	unsigned flags;
	uint64_t owner_ino;
	size_t len, n_ops;
	struct host_op *ops; /* in the same allocation, as are path and content */
	char *path, *content;
	int64_t due;
	void (*done)(void *data, int r, int64_t visible);
	void *data;
};

/* A status file's place: at most one text waits for it, either in the queue or, until `due`, only here. */
struct slot {
	struct slot *next;
	struct item *waiting; /* NULL: none */
	bool queued;          /* waiting is in the queue */
	int64_t due;          /* CLOCK_MONOTONIC from which on it may be renewed */
	char path[];
};

struct dir {
	char *path;
	int fd; /* O_PATH */
	uint64_t ino;
};

struct publisher {
	struct volume *vol;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	struct item *head, **tail;        /* under lock */
	struct slot *slots[SLOT_BUCKETS]; /* under lock */
	bool started, stopping;           /* under lock */
	struct item *current;             /* under lock: its rename is under way */
	char current_name[64];            /* under lock */
	pid_t tid;                        /* atomic: of the thread outside */

	/* publisher's thread only; descriptors are those of the thread outside, used in outside_call() only */
	struct outside outside;
	char *mountpoint;
	int root_fd; /* -1 while idle */
	struct dir dirs[DIR_CACHE];
	unsigned next_dir;
	uint64_t serial; /* of hidden names; starts at random so that leftovers of a crash do not collide */
};

bool publisher_owns_name(const char *name)
{
	return strncmp(name, HIDDEN_PREFIX, sizeof(HIDDEN_PREFIX) - 1) == 0;
}

bool publisher_is_caller(const struct publisher *pub, pid_t tid)
{
	return tid == __atomic_load_n(&pub->tid, __ATOMIC_RELAXED);
}

void publisher_ops(const struct publisher *pub, const char *name, const struct host_op **ret, size_t *ret_n)
{
	struct publisher *p = (struct publisher *)pub;

	*ret = NULL;
	*ret_n = 0;
	pthread_mutex_lock(&p->lock);
	if (p->current && strcmp(name, p->current_name) == 0) {
		*ret = p->current->ops;
		*ret_n = p->current->n_ops;
	}
	pthread_mutex_unlock(&p->lock);
}

/* One allocation for the item and all it copies. */
static struct item *item_new(const struct publication *from)
{
	const struct host_publication *p = &from->file;
	size_t size =
		sizeof(struct item) + p->n_ops * sizeof(struct host_op) + strlen(p->path) + 1 + p->len + 1;
	struct item *item;
	char *at;

	for (size_t i = 0; i < p->n_ops; i++)
		size += p->ops[i].key_len + 1 + p->ops[i].value_len;
	item = malloc(size);
	if (!item)
		return NULL;
	*item = (struct item){.type = from->type,
			      .flags = p->flags,
			      .owner_ino = p->owner_ino,
			      .len = p->len,
			      .n_ops = p->n_ops,
			      .due = p->due,
			      .done = p->done,
			      .data = p->data};
	item->ops = (struct host_op *)(item + 1);
	at = (char *)(item->ops + p->n_ops);
	item->path = at;
	at = stpcpy(at, p->path) + 1;
	item->content = at;
	if (p->len)
		memcpy(at, p->content, p->len);
	at[p->len] = '\0';
	at += p->len + 1;
	for (size_t i = 0; i < p->n_ops; i++) {
		struct host_op *op = &item->ops[i];

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
		item->done(item->data, r, clock_monotonic_ns());
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

int publisher_put(struct publisher *pub, const struct publication *p)
{
	bool status = p->type == PUBLISH_FILE && !(p->file.flags & HOST_RESULT) && p->file.n_ops == 0;
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
	pthread_cond_signal(&pub->wake);
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

/* --- the tree, publisher's thread only --- */

static int close_dirs(void *data)
{
	struct publisher *pub = data;

	for (int i = 0; i < DIR_CACHE; i++) {
		if (pub->dirs[i].path)
			close(pub->dirs[i].fd);
		free(pub->dirs[i].path);
		pub->dirs[i].path = NULL;
	}
	if (pub->root_fd >= 0)
		close(pub->root_fd);
	pub->root_fd = -1;
	return 0;
}

static void dirs_close(struct publisher *pub)
{
	outside_call(&pub->outside, close_dirs, pub);
}

static int close_dir(void *data)
{
	struct dir *dir = data;

	close(dir->fd);
	free(dir->path);
	dir->path = NULL;
	return 0;
}

static void dir_forget(struct publisher *pub, struct dir *dir)
{
	outside_call(&pub->outside, close_dir, dir);
}

/*
 * Makes what is missing of `path`, but never a thing of the user's (jobs/NAME, infer/APP, datasets/NAME):
 * when that is gone, so is the reason to publish into it. New directories belong to their parent's owner.
 */
static int make_dirs(struct publisher *pub, const char *path)
{
	int keep = strncmp(path, "models/", 7) == 0 ? 1 : 2, depth = 0, r = 0;
	char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *p = copy; p; depth++) {
		struct stat parent, st;
		char *slash = strchr(p, '/'), *dir_end = p > copy ? p - 1 : NULL;

		if (slash)
			*slash = '\0';
		if (fstatat(pub->root_fd, copy, &st, 0) < 0) {
			if (errno != ENOENT || depth < keep || !dir_end) {
				r = -errno;
				break;
			}
			*dir_end = '\0';
			r = fstatat(pub->root_fd, copy, &parent, 0) < 0 ? -errno : 0;
			*dir_end = '/';
			if (r < 0)
				break;
			if (mkdirat(pub->root_fd, copy, parent.st_mode & 0777) < 0 && errno != EEXIST) {
				r = -errno;
				break;
			}
			if ((parent.st_uid != geteuid() || parent.st_gid != getegid()) &&
			    fchownat(pub->root_fd, copy, parent.st_uid, parent.st_gid, 0) < 0)
				log_warn("publish: %s: chown: %s", copy, strerror(errno));
		}
		if (!slash)
			break;
		*slash = '/';
		p = slash + 1;
	}
	free(copy);
	return r;
}

struct dir_request {
	struct publisher *pub;
	const char *path;
	struct dir *ret;
};

static int open_dir(void *data)
{
	struct dir_request *request = data;
	struct publisher *pub = request->pub;
	const char *path = request->path;
	struct stat st;
	struct dir *dir;
	int fd, r;

	if (pub->root_fd < 0) {
		pub->root_fd = open(pub->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (pub->root_fd < 0)
			return -errno;
	}
	fd = openat(pub->root_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		r = make_dirs(pub, path);
		if (r < 0)
			return r;
		fd = openat(pub->root_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	dir = &pub->dirs[pub->next_dir++ % DIR_CACHE];
	if (dir->path)
		close_dir(dir);
	dir->path = strdup(path);
	if (!dir->path) {
		close(fd);
		return -ENOMEM;
	}
	dir->fd = fd;
	dir->ino = st.st_ino;
	request->ret = dir;
	return 0;
}

static int dir_get(struct publisher *pub, const char *path, struct dir **ret)
{
	struct dir_request request = {.pub = pub, .path = path};
	int r;

	for (int i = 0; i < DIR_CACHE; i++) {
		if (pub->dirs[i].path && strcmp(pub->dirs[i].path, path) == 0) {
			*ret = &pub->dirs[i];
			return 0;
		}
	}
	r = outside_call(&pub->outside, open_dir, &request);
	if (r == 0)
		*ret = request.ret;
	return r;
}

struct move {
	const struct dir *dir;
	const char *from, *to; /* from NULL: `to` is removed */
};

static int move(void *data)
{
	const struct move *m = data;

	if (!m->from)
		return unlinkat(m->dir->fd, m->to, 0) < 0 && errno != ENOENT ? -errno : 0;
	return renameat(m->dir->fd, m->from, m->dir->fd, m->to) < 0 ? -errno : 0;
}

static int fsync_inode(struct publisher *pub, uint64_t ino)
{
	struct vol_file *f;
	int r = vol_file_open(pub->vol, ino, O_RDONLY, &f);

	if (r < 0)
		return r;
	r = vol_fsync(f, false);
	vol_file_close(f);
	return r;
}

/* Who may read the new file: the instance's users when there is an instance, else the directory's. */
static void new_owner(struct publisher *pub, const struct item *item, uint64_t dir_ino, struct vol_new *what)
{
	struct vol_attr attr;

	what->mode = item->type == PUBLISH_SYMLINK ? S_IFLNK | 0777 : S_IFREG | 0444;
	if (item->owner_ino && vol_getattr(pub->vol, item->owner_ino, &attr) == 0)
		what->mode &= S_IFMT | attr.mode | S_IRUSR;
	else if (vol_getattr(pub->vol, dir_ino, &attr) < 0)
		return;
	what->uid = attr.uid;
	what->gid = attr.gid;
}

static int publish_new(struct publisher *pub, struct item *item, struct dir *dir, const char *name)
{
	struct vol_new what = {.uid = geteuid(), .gid = getegid()};
	struct vol_attr attr;
	char hidden[64];
	int r;

	if (item->due && clock_monotonic_ns() + RENAME_NS > item->due)
		return -ETIME;
	snprintf(hidden, sizeof(hidden), HIDDEN_PREFIX "%016llx", (unsigned long long)pub->serial++);
	new_owner(pub, item, dir->ino, &what);
	if (item->type == PUBLISH_SYMLINK) {
		what.target = item->content;
	} else {
		what.content = item->content;
		what.content_len = item->len;
	}
	r = vol_create(pub->vol, dir->ino, hidden, &what, &attr);
	if (r < 0)
		return r;
	if ((item->flags & HOST_FSYNC) && item->type == PUBLISH_FILE)
		r = fsync_inode(pub, attr.ino);
	if (r == 0) {
		pthread_mutex_lock(&pub->lock);
		pub->current = item;
		strcpy(pub->current_name, hidden);
		pthread_mutex_unlock(&pub->lock);
		r = outside_call(&pub->outside, move, &(struct move){dir, hidden, name});
		pthread_mutex_lock(&pub->lock);
		pub->current = NULL;
		pthread_mutex_unlock(&pub->lock);
	}
	/* The mount went away beneath us: the answer still counts, and the next mount shows it. */
	if (r == -ENOTCONN || r == -ECONNABORTED || r == -ENODEV)
		r = vol_rename(pub->vol, dir->ino, hidden, dir->ino, name, 0, -1, item->ops, item->n_ops);
	if (r < 0)
		vol_unlink(pub->vol, dir->ino, hidden, NULL);
	else if (item->flags & HOST_FSYNC)
		r = vol_fsync_dir(pub->vol, dir->ino);
	return r;
}

static int publish_item(struct publisher *pub, struct item *item)
{
	char *slash = strrchr(item->path, '/');
	const char *name = slash ? slash + 1 : item->path, *parent = slash ? item->path : ".";
	struct dir *dir = NULL;
	int r = 0;

	for (int attempt = 0; attempt < 2; attempt++) {
		if (slash)
			*slash = '\0';
		r = dir_get(pub, parent, &dir);
		if (slash)
			*slash = '/';
		if (r < 0)
			break;
		if (item->type == PUBLISH_REMOVE)
			r = outside_call(&pub->outside, move, &(struct move){dir, NULL, name});
		else
			r = publish_new(pub, item, dir, name);
		if (r != -ENOENT && r != -ESTALE)
			break;
		dir_forget(pub, dir); /* removed, perhaps made again, since it was opened */
	}
	if (r == -ENOENT && item->type == PUBLISH_REMOVE)
		r = 0;
	return r;
}

static void *publisher_thread(void *arg)
{
	struct publisher *pub = arg;

	pthread_mutex_lock(&pub->lock);
	for (;;) {
		int64_t due = slots_due(pub, pub->stopping);
		struct item *item = pub->head;
		int r;

		if (item) {
			pub->head = item->next;
			if (!pub->head)
				pub->tail = &pub->head;
			if (item->slot) {
				item->slot->waiting = NULL;
				item->slot->queued = false;
				item->slot->due = clock_monotonic_ns() + STATUS_INTERVAL_NS;
			}
			pthread_mutex_unlock(&pub->lock);
			r = publish_item(pub, item);
			if (r < 0)
				log_trace(LOG_FS, "publish %s: %s", item->path, strerror(-r));
			item_end(item, r);
			pthread_mutex_lock(&pub->lock);
			continue;
		}
		if (pub->stopping)
			break;
		if (pub->root_fd >= 0 && (due == INT64_MAX || due > clock_monotonic_ns() + IDLE_NS))
			due = clock_monotonic_ns() + IDLE_NS;
		if (due == INT64_MAX) {
			pthread_cond_wait(&pub->wake, &pub->lock);
		} else {
			struct timespec ts = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};

			if (pthread_cond_timedwait(&pub->wake, &pub->lock, &ts) == ETIMEDOUT && !pub->head) {
				pthread_mutex_unlock(&pub->lock);
				dirs_close(pub);
				pthread_mutex_lock(&pub->lock);
			}
		}
	}
	pthread_mutex_unlock(&pub->lock);
	dirs_close(pub);
	return NULL;
}

int publisher_new(struct publisher **ret, struct volume *vol)
{
	struct publisher *pub = calloc(1, sizeof(*pub));
	pthread_condattr_t attr;

	if (!pub)
		return -ENOMEM;
	pub->vol = vol;
	pub->tail = &pub->head;
	pub->root_fd = -1;
	if (getrandom(&pub->serial, sizeof(pub->serial), 0) != sizeof(pub->serial))
		pub->serial = (uint64_t)clock_monotonic_ns();
	pthread_mutex_init(&pub->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pub->wake, &attr);
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
	r = outside_start(&pub->outside);
	if (r < 0)
		return r;
	__atomic_store_n(&pub->tid, pub->outside.tid, __ATOMIC_RELAXED);
	r = -pthread_create(&pub->thread, NULL, publisher_thread, pub);
	if (r == 0)
		pub->started = true;
	else
		outside_stop(&pub->outside);
	return r;
}

void publisher_stop(struct publisher *pub)
{
	pthread_mutex_lock(&pub->lock);
	pub->stopping = true;
	pthread_cond_signal(&pub->wake);
	pthread_mutex_unlock(&pub->lock);
	if (pub->started) {
		pthread_join(pub->thread, NULL);
		outside_stop(&pub->outside);
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
	pthread_mutex_destroy(&pub->lock);
	pthread_cond_destroy(&pub->wake);
	free(pub->mountpoint);
	free(pub);
}
