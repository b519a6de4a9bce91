/*
 * One queue, two threads. The maker makes whole files under hidden names in the volume; the mover renames them through
 * the mount, in the same order; what it says of each goes back to the maker, which ends the item. So making the next
 * answer and moving this one overlap.
 *
 * Why the mover is a thread of its own kind: a thread that waits for an answer of its own process's filesystem can't be
 * killed once the request was read, and what would end the request, the release of /dev/fuse, happens
 * only when the last user of the descriptor table is gone. After kill -9 both would wait for each other for ever. So
 * the mover has a table of its own (CLOSE_RANGE_UNSHARE) in which nothing is open but standard error and what
 * it opens in the mount: the daemon's other threads die, /dev/fuse is released, the request fails, the mover dies. It must
 * not call anything that uses a descriptor of the daemon: no volume, no scheduler's loop, so no `done`.
 *
 * An answer (HOST_RESULT), a symlink and a removal go out in the order of publisher_put. A status file has a slot for
 * its path: while a text waits there, a newer one takes its place, and a path is renewed at most every
 * STATUS_INTERVAL_NS.
 *
 * Descriptors on directories of the mount are kept only while there is work: they would make umount(8) fail with EBUSY.
 *
 * Locks: pub->lock guards what is marked so; it is never held over a call into the volume or the mount.
 */
#include "fs/publish.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <linux/close_range.h>
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
#define RENAME_NS          INT64_C(300000) /* measured: what an idle machine takes from here to a visible name */
#define AHEAD              32 /* chosen: a mini-batch's answers are made while the first is moved */
#define DIR_CACHE          8  /* chosen: batches that are answered at the same time */
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

	/* On its way: the maker's, then the mover's, then the maker's again. */
	bool make_dirs;   /* nothing to move yet: the mover makes the directory, and the item comes back */
	uint64_t dir_ino; /* of its directory */
	char hidden[40];
	int attempts, r;
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

struct dir {
	char *path;
	int fd; /* O_PATH */
};

struct publisher {
	struct volume *vol;
	char *mountpoint;
	pthread_mutex_t lock;
	pthread_cond_t wake_maker, wake_mover;
	pthread_t maker, mover;
	struct item *head, **tail;               /* under lock: to be made */
	struct item *made, **made_tail;          /* under lock: to be moved */
	struct item *moved, **moved_tail;        /* under lock: to be ended */
	struct item *moving;                     /* under lock: its rename is under way */
	struct slot *slots[SLOT_BUCKETS];        /* under lock */
	bool started, stopping, no_more_to_move; /* under lock */
	pid_t mover_tid;                         /* atomic */

	/* maker only */
	unsigned ahead;  /* items that the mover has */
	uint64_t serial; /* of hidden names; starts at random so that leftovers of a crash do not collide */

	/* mover only */
	int root_fd; /* -1 while idle */
	struct dir dirs[DIR_CACHE];
	unsigned next_dir;
};

bool publisher_owns_name(const char *name)
{
	return strncmp(name, HIDDEN_PREFIX, sizeof(HIDDEN_PREFIX) - 1) == 0;
}

bool publisher_is_caller(const struct publisher *pub, pid_t tid)
{
	return tid == __atomic_load_n(&pub->mover_tid, __ATOMIC_RELAXED);
}

void publisher_ops(const struct publisher *pub, const char *name, const struct host_op **ret, size_t *ret_n)
{
	struct publisher *p = (struct publisher *)pub;

	*ret = NULL;
	*ret_n = 0;
	pthread_mutex_lock(&p->lock);
	if (p->moving && strcmp(name, p->moving->hidden) == 0) {
		*ret = p->moving->ops;
		*ret_n = p->moving->n_ops;
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
	pthread_cond_signal(&pub->wake_maker);
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

/* --- the mover: calls into the mount --- */

static void dirs_close(struct publisher *pub)
{
	for (int i = 0; i < DIR_CACHE; i++) {
		if (pub->dirs[i].path)
			close(pub->dirs[i].fd);
		free(pub->dirs[i].path);
		pub->dirs[i].path = NULL;
	}
	if (pub->root_fd >= 0)
		close(pub->root_fd);
	pub->root_fd = -1;
}

static void dir_forget(struct dir *dir)
{
	close(dir->fd);
	free(dir->path);
	dir->path = NULL;
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

static int dir_get(struct publisher *pub, const char *path, struct dir **ret)
{
	struct dir *dir;
	int fd, r;

	for (int i = 0; i < DIR_CACHE; i++) {
		if (pub->dirs[i].path && strcmp(pub->dirs[i].path, path) == 0) {
			*ret = &pub->dirs[i];
			return 0;
		}
	}
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
	dir = &pub->dirs[pub->next_dir++ % DIR_CACHE];
	if (dir->path)
		dir_forget(dir);
	dir->path = strdup(path);
	if (!dir->path) {
		close(fd);
		return -ENOMEM;
	}
	dir->fd = fd;
	*ret = dir;
	return 0;
}

/* path's directory part without touching the rest: "" becomes ".". */
static int dir_of(const char *path, char *ret, size_t size)
{
	const char *slash = strrchr(path, '/');
	int n = snprintf(ret, size, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");

	return n < (int)size ? 0 : -ENAMETOOLONG;
}

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int move(struct publisher *pub, struct item *item)
{
	const char *name = name_of(item->path);
	char parent[PATH_MAX];
	struct dir *dir = NULL;
	int r = dir_of(item->path, parent, sizeof(parent));

	if (r == 0)
		r = dir_get(pub, parent, &dir);
	if (r < 0 || item->make_dirs)
		return r;
	if (item->due && clock_monotonic_ns() + RENAME_NS > item->due)
		return -ETIME;
	if (item->type == PUBLISH_REMOVE) {
		r = unlinkat(dir->fd, name, 0) < 0 ? -errno : 0;
	} else {
		pthread_mutex_lock(&pub->lock);
		pub->moving = item;
		pthread_mutex_unlock(&pub->lock);
		r = renameat(dir->fd, item->hidden, dir->fd, name) < 0 ? -errno : 0;
		item->visible = clock_monotonic_ns();
		pthread_mutex_lock(&pub->lock);
		pub->moving = NULL;
		pthread_mutex_unlock(&pub->lock);
	}
	if (r == -ENOENT || r == -ESTALE)
		dir_forget(dir); /* removed, perhaps made again, since it was opened */
	return r;
}

static void *mover_thread(void *arg)
{
	struct publisher *pub = arg;

	if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_UNSHARE) < 0)
		log_warn("publish: %s: kill -9 may leave this daemon hanging", strerror(errno));
	__atomic_store_n(&pub->mover_tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	pthread_mutex_lock(&pub->lock);
	for (;;) {
		struct item *item = pub->made;

		if (item) {
			pub->made = item->next;
			if (!pub->made)
				pub->made_tail = &pub->made;
			pthread_mutex_unlock(&pub->lock);
			item->r = move(pub, item);
			pthread_mutex_lock(&pub->lock);
			item->next = NULL;
			*pub->moved_tail = item;
			pub->moved_tail = &item->next;
			pthread_cond_signal(&pub->wake_maker);
		} else if (pub->no_more_to_move) {
			break;
		} else if (pub->root_fd < 0) {
			pthread_cond_wait(&pub->wake_mover, &pub->lock);
		} else {
			int64_t end = clock_monotonic_ns() + IDLE_NS;
			struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};

			if (pthread_cond_timedwait(&pub->wake_mover, &pub->lock, &ts) == ETIMEDOUT &&
			    !pub->made) {
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

/* --- the maker: calls into the volume --- */

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
static void new_owner(struct publisher *pub, const struct item *item, struct vol_new *what)
{
	struct vol_attr attr;

	what->mode = item->type == PUBLISH_SYMLINK ? S_IFLNK | 0777 : S_IFREG | 0444;
	if (item->owner_ino && vol_getattr(pub->vol, item->owner_ino, &attr) == 0)
		what->mode &= S_IFMT | attr.mode | S_IRUSR;
	else if (vol_getattr(pub->vol, item->dir_ino, &attr) < 0)
		return;
	what->uid = attr.uid;
	what->gid = attr.gid;
}

/* Makes the item's file under a hidden name. item->make_dirs when its directory must be made first. */
static int make(struct publisher *pub, struct item *item)
{
	struct vol_new what = {.uid = geteuid(), .gid = getegid()};
	struct vol_attr attr;
	char parent[PATH_MAX];
	int r = dir_of(item->path, parent, sizeof(parent));

	if (r < 0 || item->type == PUBLISH_REMOVE)
		return r;
	if (item->due && clock_monotonic_ns() + RENAME_NS > item->due)
		return -ETIME;
	r = vol_resolve(pub->vol, VOL_ROOT, parent, &attr);
	if (r == -ENOENT && !item->make_dirs) {
		item->make_dirs = true;
		return 0;
	}
	item->make_dirs = false;
	if (r < 0)
		return r;
	item->dir_ino = attr.ino;
	snprintf(item->hidden, sizeof(item->hidden), HIDDEN_PREFIX "%016llx",
		 (unsigned long long)pub->serial++);
	new_owner(pub, item, &what);
	if (item->type == PUBLISH_SYMLINK) {
		what.target = item->content;
	} else {
		what.content = item->content;
		what.content_len = item->len;
	}
	r = vol_create(pub->vol, item->dir_ino, item->hidden, &what, &attr);
	if (r == 0 && (item->flags & HOST_FSYNC) && item->type == PUBLISH_FILE)
		r = fsync_inode(pub, attr.ino);
	if (r < 0)
		vol_unlink(pub->vol, item->dir_ino, item->hidden, NULL);
	return r;
}

/* lock held; gives the item to the mover, or takes its failure as the mover's word. */
static void pass_on(struct publisher *pub, struct item *item, int r)
{
	item->next = NULL;
	pub->ahead++;
	if (r < 0) {
		item->r = r;
		*pub->moved_tail = item;
		pub->moved_tail = &item->next;
	} else {
		*pub->made_tail = item;
		pub->made_tail = &item->next;
		pthread_cond_signal(&pub->wake_mover);
	}
}

/* After the mover. False: the item is made again. */
static bool end(struct publisher *pub, struct item *item)
{
	bool hidden = item->hidden[0];
	int r = item->r;

	/* The mount went away beneath us: the answer still counts, and the next mount shows it. */
	if (hidden && (r == -ENOTCONN || r == -ECONNABORTED || r == -ENODEV)) {
		r = vol_rename(pub->vol, item->dir_ino, item->hidden, item->dir_ino, name_of(item->path), 0,
			       -1, item->ops, item->n_ops);
		item->visible = clock_monotonic_ns();
	}
	if (hidden && r < 0)
		vol_unlink(pub->vol, item->dir_ino, item->hidden, NULL);
	item->hidden[0] = '\0';
	if (r == 0 && item->make_dirs)
		return false;
	if ((r == -ENOENT || r == -ESTALE) && item->attempts++ == 0) {
		item->make_dirs = false;
		return false;
	}
	if (r == -ENOENT && item->type == PUBLISH_REMOVE)
		r = 0;
	if (r == 0 && (item->flags & HOST_FSYNC) && hidden)
		r = vol_fsync_dir(pub->vol, item->dir_ino);
	if (r < 0)
		log_trace(LOG_FS, "publish %s: %s", item->path, strerror(-r));
	item_end(item, r);
	return true;
}

static void make_and_pass(struct publisher *pub, struct item *item)
{
	int r = make(pub, item);

	pthread_mutex_lock(&pub->lock);
	pass_on(pub, item, r);
	pthread_mutex_unlock(&pub->lock);
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

static void *maker_thread(void *arg)
{
	struct publisher *pub = arg;

	pthread_mutex_lock(&pub->lock);
	for (;;) {
		int64_t due = slots_due(pub, pub->stopping);
		struct item *item;

		if ((item = pub->moved)) {
			pub->moved = item->next;
			if (!pub->moved)
				pub->moved_tail = &pub->moved;
			pub->ahead--;
			pthread_mutex_unlock(&pub->lock);
			if (!end(pub, item))
				make_and_pass(pub, item);
			pthread_mutex_lock(&pub->lock);
		} else if (pub->head && pub->ahead < AHEAD) {
			item = take(pub);
			pthread_mutex_unlock(&pub->lock);
			make_and_pass(pub, item);
			pthread_mutex_lock(&pub->lock);
		} else if (pub->stopping && !pub->head && !pub->ahead) {
			break;
		} else if (due == INT64_MAX) {
			pthread_cond_wait(&pub->wake_maker, &pub->lock);
		} else {
			struct timespec ts = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};

			pthread_cond_timedwait(&pub->wake_maker, &pub->lock, &ts);
		}
	}
	pub->no_more_to_move = true;
	pthread_cond_signal(&pub->wake_mover);
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
	pub->tail = &pub->head;
	pub->made_tail = &pub->made;
	pub->moved_tail = &pub->moved;
	pub->root_fd = -1;
	if (getrandom(&pub->serial, sizeof(pub->serial), 0) != sizeof(pub->serial))
		pub->serial = (uint64_t)clock_monotonic_ns();
	pthread_mutex_init(&pub->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pub->wake_maker, &attr);
	pthread_cond_init(&pub->wake_mover, &attr);
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
	r = pthread_create(&pub->maker, NULL, maker_thread, pub);
	if (r != 0) {
		pthread_mutex_lock(&pub->lock);
		pub->no_more_to_move = true;
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
	pthread_cond_signal(&pub->wake_maker);
	pthread_mutex_unlock(&pub->lock);
	if (pub->started) {
		pthread_join(pub->maker, NULL);
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
	pthread_mutex_destroy(&pub->lock);
	pthread_cond_destroy(&pub->wake_maker);
	pthread_cond_destroy(&pub->wake_mover);
	free(pub->mountpoint);
	free(pub);
}
