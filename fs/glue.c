/*
 * The scheduler's host over volume and publisher. Everything here runs on the scheduler's thread, but the
 * `done` of a publication, which the publisher's thread hands over to the scheduler's loop.
 */
#include "fs/glue.h"

#include "engine/base/buf.h"
#include "engine/base/io.h"
#include "engine/base/log.h"
#include "fs/exports.h"
#include "fs/node/tree.h"
#include "sched/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern char **environ;

struct glue {
	struct volume *vol;
	struct publisher *pub;
	struct sched *sched;
	struct exports *exports;
	int state_fd;
	int64_t settle_batch_ns;
};

static int host_commit(void *host, const struct host_op *ops, size_t n)
{
	return vol_commit(((struct glue *)host)->vol, ops, n);
}

static void host_mark(void *host, uint64_t ino, const char *state)
{
	if (vol_mark(((struct glue *)host)->vol, ino, "user.state", state) < 0)
		log_trace(LOG_FS, "user.state %s could not be set", state);
}

static bool host_trouble(void *host, char *ret, size_t size)
{
	return volume_trouble(((struct glue *)host)->vol, ret, size);
}

static int host_scan(void *host, const void *prefix, size_t prefix_len,
		     int (*fn)(void *data, const void *key, size_t key_len, const void *value,
			       size_t value_len),
		     void *data)
{
	return vol_scan(((struct glue *)host)->vol, prefix, prefix_len, fn, data);
}

/* The scheduler's callback on its way from the publisher's thread to the scheduler's. */
struct relay {
	struct loop *loop;
	void (*done)(void *data, int r, int64_t visible);
	void *data;
	int r;
	int64_t visible;
};

static void relay_run(void *arg)
{
	struct relay *relay = arg;

	relay->done(relay->data, relay->r, relay->visible);
	free(relay);
}

static void relay_post(void *arg, int r, int64_t visible)
{
	struct relay *relay = arg;

	relay->r = r;
	relay->visible = visible;
	if (loop_post(relay->loop, relay_run, free, relay) < 0) {
		log_error("publish: out of memory, a completion was lost");
		free(relay);
	}
}

static int put_relayed(struct glue *glue, enum publication_type type, const struct host_publication *p)
{
	struct publication relayed = {.type = type, .file = *p};
	struct relay *relay = NULL;
	int r;

	if (p->done) {
		relay = malloc(sizeof(*relay));
		if (!relay)
			return -ENOMEM;
		*relay = (struct relay){.loop = sched_loop(glue->sched), .done = p->done, .data = p->data};
		relayed.file.done = relay_post;
		relayed.file.data = relay;
	}
	r = publisher_put(glue->pub, &relayed);
	if (r < 0)
		free(relay);
	return r;
}

static int host_publish(void *host, const struct host_publication *p)
{
	return put_relayed(host, PUBLISH_FILE, p);
}

static int host_unpublish(void *host, const char *path)
{
	return publisher_put(((struct glue *)host)->pub,
			     &(struct publication){.type = PUBLISH_REMOVE, .file.path = path});
}

static int host_symlink(void *host, const char *path, const char *target,
			void (*done)(void *data, int r, int64_t visible), void *data)
{
	return put_relayed(
		host, PUBLISH_SYMLINK,
		&(struct host_publication){
			.path = path, .content = target, .len = strlen(target), .done = done, .data = data});
}

static int host_read(void *host, uint64_t ino, size_t max, void **ret, size_t *ret_len)
{
	return vol_content(((struct glue *)host)->vol, ino, max, ret, ret_len);
}

static int host_open(void *host, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	return vol_content_fd(((struct glue *)host)->vol, ino, ret_fd, ret_len);
}

/* struct host_tree is the volume's struct vol_bulk. */
static int host_tree_new(void *host, uint64_t like, struct host_tree **ret)
{
	return tree_bulk_new(((struct glue *)host)->vol, like, (struct vol_bulk **)ret);
}

static int host_tree_fd(void *host, struct host_tree *tree)
{
	(void)host;
	return vol_bulk_fd((struct vol_bulk *)tree);
}

static int host_tree_share(void *host, struct host_tree *tree, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	(void)host;
	return vol_bulk_share((struct vol_bulk *)tree, ino, ret_fd, ret_len);
}

static int host_tree_apart(void *host, struct host_tree *tree, int *ret_fd)
{
	(void)host;
	return vol_bulk_apart((struct vol_bulk *)tree, ret_fd);
}

static int host_tree_add(void *host, struct host_tree *tree, struct host_file *files, size_t n)
{
	(void)host;
	return vol_bulk_add((struct vol_bulk *)tree, files, n);
}

static int host_tree_xattr(void *host, struct host_tree *tree, const char *name, const char *value)
{
	(void)host;
	return vol_bulk_xattr((struct vol_bulk *)tree, name, value);
}

static void host_tree_free(void *host, struct host_tree *tree)
{
	(void)host;
	vol_bulk_free((struct vol_bulk *)tree);
}

static struct host_entry entry_of(const char *path, const struct vol_attr *attr)
{
	return (struct host_entry){.path = path,
				   .ino = attr->ino,
				   .size = attr->size,
				   .mtime = attr->mtime,
				   .is_dir = S_ISDIR(attr->mode),
				   .is_other = !S_ISDIR(attr->mode) && !S_ISREG(attr->mode)};
}

static int host_lookup(void *host, const char *path, struct host_entry *ret)
{
	struct vol_attr attr;
	int r = vol_resolve(((struct glue *)host)->vol, VOL_ROOT, path, &attr);

	if (r == 0)
		*ret = entry_of(path, &attr);
	return r;
}

static void host_forgotten(void *host, const char *path)
{
	publisher_reopen(((struct glue *)host)->pub, path);
}

static int host_access(void *host, uint64_t ino, struct host_access *ret)
{
	struct vol_attr attr;
	int r = vol_getattr(((struct glue *)host)->vol, ino, &attr);

	if (r == 0)
		*ret = (struct host_access){.mode = attr.mode, .uid = attr.uid, .gid = attr.gid};
	return r;
}

struct walk {
	struct glue *glue;
	char path[4096];
	size_t len;
	int (*fn)(void *data, const struct host_entry *e);
	void *data;
	int r;
	struct buf subdirs; /* of the directory being read: struct subdir_head and name, again and again */
};

struct subdir_head {
	uint64_t ino;
	size_t name_len; /* NUL included */
};

static int walk_entry(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	struct walk *walk = data;
	struct host_entry e;
	size_t len = strlen(name);

	(void)cookie;
	if (walk->len + len + 2 > sizeof(walk->path)) {
		walk->r = -ENAMETOOLONG;
		return 1;
	}
	memcpy(walk->path + walk->len, name, len + 1);
	e = entry_of(walk->path, attr);
	walk->r = walk->fn(walk->data, &e);
	if (walk->r == HOST_NOT_BELOW) {
		walk->r = 0;
		return 0;
	}
	if (S_ISDIR(attr->mode)) {
		struct subdir_head head = {.ino = attr->ino, .name_len = len + 1};

		buf_add(&walk->subdirs, &head, sizeof(head));
		buf_add(&walk->subdirs, name, len + 1);
	}
	return walk->r != 0;
}

/* A directory's own entries first, then its subdirectories: no iterator of the volume stays open over the
 * callbacks below. */
static int walk_dir(struct walk *walk, uint64_t dir)
{
	struct buf subdirs, outer = walk->subdirs;
	size_t at = 0, len = walk->len;
	int r;

	walk->subdirs = BUF_INIT;
	r = vol_readdir(walk->glue->vol, dir, 0, true, walk_entry, walk);
	subdirs = walk->subdirs;
	if (r >= 0)
		r = walk->r ? walk->r : buf_status(&subdirs);
	while (r == 0 && at < subdirs.len) {
		struct subdir_head head;

		memcpy(&head, subdirs.data + at, sizeof(head));
		at += sizeof(head);
		memcpy(walk->path + len, subdirs.data + at, head.name_len - 1);
		walk->path[len + head.name_len - 1] = '/';
		walk->len = len + head.name_len;
		at += head.name_len;
		r = walk_dir(walk, head.ino);
		if (r == -ESTALE || r == -ENOENT)
			r = 0; /* removed meanwhile */
	}
	walk->len = len;
	buf_release(&subdirs);
	walk->subdirs = outer;
	return r;
}

static int host_walk(void *host, const char *path, int (*fn)(void *data, const struct host_entry *e),
		     void *data)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	struct vol_attr attr;
	int r;

	if (!walk)
		return -ENOMEM;
	walk->glue = host;
	walk->fn = fn;
	walk->data = data;
	r = vol_resolve(walk->glue->vol, VOL_ROOT, path, &attr);
	if (r == 0)
		r = walk_dir(walk, attr.ino);
	free(walk);
	return r;
}

static int host_getxattr(void *host, uint64_t ino, const char *name, char *value, size_t size)
{
	int r;

	if (size == 0)
		return -ERANGE;
	r = vol_getxattr(((struct glue *)host)->vol, ino, name, value, size - 1);
	if (r >= 0)
		value[r] = '\0';
	return r;
}

static int state_parents(struct glue *glue, const char *name)
{
	char *copy = strdup(name);
	int r = copy ? 0 : -ENOMEM;

	for (char *p = copy; r == 0 && (p = strchr(p, '/')); *p++ = '/') {
		*p = '\0';
		if (mkdirat(glue->state_fd, copy, 0700) < 0 && errno != EEXIST)
			r = -errno;
	}
	free(copy);
	return r;
}

static int host_state_open(void *host, const char *name, int flags, int *ret_fd)
{
	struct glue *glue = host;
	int fd, r;

	r = flags & O_CREAT ? state_parents(glue, name) : 0;
	if (r < 0)
		return r;
	fd = openat(glue->state_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int copy_bytes(int to, int from, uint64_t len)
{
	uint64_t at = 0;

	while (at < len) {
		char chunk[65536];
		size_t want = len - at < sizeof(chunk) ? len - at : sizeof(chunk);
		int r = io_pread(from, chunk, want, at);

		if (r == 0)
			r = io_write(to, chunk, want);
		if (r < 0)
			return r == -ENODATA ? -EIO : r; /* shorter than its sender said */
		at += want;
	}
	return 0;
}

static int host_state_put(void *host, const char *name, int fd, uint64_t len)
{
	struct glue *glue = host;
	char temporary[512];
	int to = -1, r;

	if (snprintf(temporary, sizeof(temporary), "%s.new", name) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	r = host_state_open(glue, temporary, O_WRONLY | O_CREAT | O_TRUNC, &to);
	if (r == 0)
		r = copy_bytes(to, fd, len);
	if (r == 0 && fsync(to) < 0)
		r = -errno;
	if (to >= 0)
		close(to);
	if (r == 0 && renameat(glue->state_fd, temporary, glue->state_fd, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(glue->state_fd, temporary, 0);
	return r;
}

static int host_state_remove(void *host, const char *name)
{
	return unlinkat(((struct glue *)host)->state_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/*
 * posix_spawn: no copy of a daemon's page tables, and nothing between fork and exec that a lock held by
 * another thread could stop. All other descriptors are O_CLOEXEC; the worker closes what is not.
 */
static int host_spawn(void *host, const char *kind, int *ret_fd, int *ret_pid)
{
	char *argv[] = {"inferfs", "worker", (char *)kind, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int pair[2], r;
	pid_t pid = 0;

	(void)host;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawn_file_actions_init(&actions);
	/* glibc's adddup2 of a descriptor onto itself clears FD_CLOEXEC, as POSIX has it since 2024. */
	r = -posix_spawn_file_actions_adddup2(&actions, pair[1], 3);
	if (r == 0)
		r = -posix_spawn(&pid, "/proc/self/exe", &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	close(pair[1]);
	if (r < 0) {
		close(pair[0]);
		return r;
	}
	*ret_fd = pair[0];
	*ret_pid = pid;
	return 0;
}

static const struct host_ops host_ops = {
	.commit = host_commit,
	.mark = host_mark,
	.scan = host_scan,
	.publish = host_publish,
	.unpublish = host_unpublish,
	.symlink = host_symlink,
	.read = host_read,
	.open = host_open,
	.lookup = host_lookup,
	.walk = host_walk,
	.access = host_access,
	.getxattr = host_getxattr,
	.state_open = host_state_open,
	.state_put = host_state_put,
	.state_remove = host_state_remove,
	.forgotten = host_forgotten,
	.trouble = host_trouble,
	.spawn = host_spawn,
	.tree_new = host_tree_new,
	.tree_fd = host_tree_fd,
	.tree_share = host_tree_share,
	.tree_apart = host_tree_apart,
	.tree_add = host_tree_add,
	.tree_xattr = host_tree_xattr,
	.tree_free = host_tree_free,
};

int glue_new(struct glue **ret, struct volume *vol, const char *state_dir,
	     const struct sched_options *options, struct err *err)
{
	struct glue *glue = calloc(1, sizeof(*glue));
	int r = -ENOMEM;

	if (!glue)
		return err_set(err, ERR_NO_MEMORY, "starting");
	glue->vol = vol;
	glue->settle_batch_ns = options->settle_batch_ns;
	glue->state_fd = open(state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (glue->state_fd < 0) {
		r = err_set(err, ERR_IO, "%s: %s", state_dir, strerror(errno));
		goto fail;
	}
	r = publisher_new(&glue->pub, vol);
	if (r == 0)
		r = sched_new(&glue->sched, &host_ops, glue, options);
	if (r == 0)
		r = exports_new(&glue->exports, vol, glue, host_spawn);
	if (r < 0) {
		err_set(err, ERR_IO, "starting the scheduler: %s", strerror(-r));
		goto fail;
	}
	*ret = glue;
	return 0;
fail:
	glue_free(glue);
	return r;
}

int glue_expect(struct glue *glue, const uint64_t *inos, size_t n)
{
	return sched_expect(glue->sched, inos, n);
}

int glue_start(struct glue *glue, const char *mountpoint)
{
	int r = publisher_start(glue->pub, mountpoint);

	return r < 0 ? r : sched_start(glue->sched);
}

void glue_stop(struct glue *glue)
{
	exports_stop(glue->exports);
	sched_stop(glue->sched);
	publisher_stop(glue->pub);
}

void glue_free(struct glue *glue)
{
	if (!glue)
		return;
	exports_free(glue->exports);
	/* The publisher first: what it still holds is handed to the scheduler's loop. */
	publisher_free(glue->pub);
	if (glue->sched)
		sched_free(glue->sched);
	if (glue->state_fd >= 0)
		close(glue->state_fd);
	free(glue);
}

struct sched *glue_sched(struct glue *glue)
{
	return glue->sched;
}

struct publisher *glue_publisher(struct glue *glue)
{
	return glue->pub;
}

struct exports *glue_exports(struct glue *glue)
{
	return glue->exports;
}

int64_t glue_settle_batch_ns(const struct glue *glue)
{
	return glue->settle_batch_ns;
}

void glue_publish_error(struct glue *glue, const char *path, const struct err *err)
{
	char text[768];
	int r;

	if (err) {
		err_format(err, text, sizeof(text) - 1);
		strcat(text, "\n");
		r = publisher_put(
			glue->pub,
			&(struct publication){.file = {.path = path, .content = text, .len = strlen(text)}});
	} else {
		r = publisher_put(glue->pub,
				  &(struct publication){.type = PUBLISH_REMOVE, .file.path = path});
	}
	if (r < 0)
		log_warn("%s: %s", path, strerror(-r));
}
