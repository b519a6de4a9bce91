/*
 * A host (sched/host.h) for tests: the tree is a temporary directory, the key space a list in memory, and a
 * worker is a forked child that runs a function of the test, or this very program as `worker KIND`.
 */
#ifndef TESTS_DIRHOST_H
#define TESTS_DIRHOST_H

#include "sched/host.h"
#include "engine/base/io.h"
#include "sched/loop.h"
#include "sched/wire.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct dirhost_key {
	struct dirhost_key *next;
	size_t key_len, value_len;
	char *key, *value;
};

struct dirhost_inode {
	uint64_t ino;
	char *path;
};

struct dirhost {
	char root[64]; /* ROOT/tree, ROOT/state */
	struct loop *loop;
	struct dirhost_key *keys;
	struct dirhost_inode *inodes;
	size_t n_inodes;
	/* Runs in the child and never returns to the test; NULL: this program is executed as a worker. */
	void (*child)(const char *kind, int fd);
	bool deaf; /* what is published is lost, as if the daemon died before it was visible */
	int spawned;
	int last_pid;
};

struct dirhost_done {
	void (*done)(void *data, int r, int64_t visible);
	struct loop *loop;
	void *data;
};

static inline void dirhost_path(struct dirhost *h, const char *sub, const char *path, char *ret)
{
	snprintf(ret, PATH_MAX, "%s/%s/%s", h->root, sub, path);
}

static inline void dirhost_mkdirs(const char *path)
{
	char copy[PATH_MAX];

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(copy, 0755);
		*p = '/';
	}
}

/* Writes a file of the tree as a user would. */
static inline void dirhost_write(struct dirhost *h, const char *path, const void *data, size_t len)
{
	char full[PATH_MAX];
	FILE *f;

	dirhost_path(h, "tree", path, full);
	dirhost_mkdirs(full);
	unlink(full);
	f = fopen(full, "w");
	if (!f || fwrite(data, 1, len, f) != len)
		abort();
	fclose(f);
}

/* A file's text, or NULL; to be freed. */
static inline char *dirhost_text(struct dirhost *h, const char *path)
{
	char full[PATH_MAX];
	void *data;
	size_t len;
	int fd;

	dirhost_path(h, "tree", path, full);
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (io_read(fd, 1 << 28, &data, &len) < 0)
		abort();
	close(fd);
	return data;
}

static inline bool dirhost_exists(struct dirhost *h, const char *sub, const char *path)
{
	char full[PATH_MAX];
	struct stat st;

	dirhost_path(h, sub, path, full);
	return stat(full, &st) == 0;
}

static inline int dirhost_commit(void *host, const struct host_op *ops, size_t n)
{
	struct dirhost *h = host;

	for (size_t i = 0; i < n; i++) {
		struct dirhost_key **p = &h->keys;

		if (ops[i].type == HOST_STATE)
			continue;
		while (*p && ((*p)->key_len != ops[i].key_len ||
			      memcmp((*p)->key, ops[i].key, ops[i].key_len) != 0))
			p = &(*p)->next;
		if (ops[i].type == HOST_PUT) {
			struct dirhost_key *k = calloc(1, sizeof(*k));

			if (*p || !k) /* put twice */
				abort();
			k->key_len = ops[i].key_len;
			k->value_len = ops[i].value_len;
			k->key = memcpy(malloc(k->key_len + 1), ops[i].key, k->key_len);
			k->value = memcpy(malloc(k->value_len + 1), ops[i].value, k->value_len);
			*p = k;
		} else {
			struct dirhost_key *k = *p;

			if (!k) /* deleted without having been put */
				abort();
			*p = k->next;
			free(k->key);
			free(k->value);
			free(k);
		}
	}
	return 0;
}

static inline int dirhost_scan(void *host, const void *prefix, size_t prefix_len,
			       int (*fn)(void *data, const void *key, size_t key_len, const void *value,
					 size_t value_len),
			       void *data)
{
	struct dirhost *h = host;
	int r = 0;

	for (struct dirhost_key *k = h->keys, *next; k && r == 0; k = next) {
		next = k->next;
		if (k->key_len >= prefix_len && memcmp(k->key, prefix, prefix_len) == 0)
			r = fn(data, k->key, k->key_len, k->value, k->value_len);
	}
	return r;
}

static inline void dirhost_run_done(void *data)
{
	struct dirhost_done *d = data;

	d->done(d->data, 0, loop_now(d->loop));
	free(d);
}

static inline int dirhost_publish(void *host, const struct host_publication *p)
{
	struct dirhost *h = host;

	if (h->deaf)
		return 0;
	dirhost_commit(host, p->ops, p->n_ops);
	dirhost_write(h, p->path, p->content, p->len);
	if (p->done) {
		struct dirhost_done *d = malloc(sizeof(*d));

		*d = (struct dirhost_done){p->done, h->loop, p->data};
		return loop_post(h->loop, dirhost_run_done, free, d);
	}
	return 0;
}

static inline void dirhost_mark(void *host, uint64_t ino, const char *state)
{
	(void)host;
	(void)ino;
	(void)state;
}

static inline int dirhost_unpublish(void *host, const char *path)
{
	char full[PATH_MAX];

	dirhost_path(host, "tree", path, full);
	unlink(full);
	return 0;
}

static inline int dirhost_symlink(void *host, const char *path, const char *target,
				  void (*done)(void *data, int r, int64_t visible), void *data)
{
	char full[PATH_MAX];

	(void)data;
	if (done)
		abort();
	dirhost_path(host, "tree", path, full);
	dirhost_mkdirs(full);
	unlink(full);
	return symlink(target, full) < 0 ? -errno : 0;
}

static inline const char *dirhost_inode(struct dirhost *h, uint64_t ino)
{
	for (size_t i = 0; i < h->n_inodes; i++)
		if (h->inodes[i].ino == ino)
			return h->inodes[i].path;
	return NULL;
}

static inline int dirhost_entry(struct dirhost *h, const char *full, const char *path, struct host_entry *ret)
{
	struct stat st;

	if (stat(full, &st) < 0)
		return -errno;
	*ret = (struct host_entry){.path = path,
				   .ino = st.st_ino,
				   .size = (uint64_t)st.st_size,
				   .mtime = st.st_mtim,
				   .is_dir = S_ISDIR(st.st_mode)};
	for (size_t i = 0; i < h->n_inodes; i++) {
		if (h->inodes[i].ino != st.st_ino)
			continue;
		free(h->inodes[i].path);
		h->inodes[i].path = strdup(full);
		return 0;
	}
	h->inodes = realloc(h->inodes, (h->n_inodes + 1) * sizeof(*h->inodes));
	h->inodes[h->n_inodes++] = (struct dirhost_inode){st.st_ino, strdup(full)};
	return 0;
}

static inline int dirhost_open(void *host, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	const char *path = dirhost_inode(host, ino);
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -ESTALE;
	*ret_fd = fd;
	*ret_len = (uint64_t)st.st_size;
	return 0;
}

static inline int dirhost_read(void *host, uint64_t ino, size_t max, void **ret, size_t *ret_len)
{
	uint64_t len;
	int fd, r = dirhost_open(host, ino, &fd, &len);

	if (r == 0) {
		r = io_read(fd, max, ret, ret_len);
		close(fd);
	}
	return r;
}

static inline int dirhost_lookup(void *host, const char *path, struct host_entry *ret)
{
	char full[PATH_MAX];

	dirhost_path(host, "tree", path, full);
	return dirhost_entry(host, full, path, ret);
}

static inline int dirhost_walk_dir(struct dirhost *h, const char *full, const char *rel,
				   int (*fn)(void *data, const struct host_entry *e), void *data)
{
	DIR *dir = opendir(full);
	struct dirent *de;
	int r = 0;

	if (!dir)
		return -errno;
	while (r == 0 && (de = readdir(dir))) {
		char sub[PATH_MAX], subrel[PATH_MAX];
		struct host_entry e;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (snprintf(sub, sizeof(sub), "%s/%s", full, de->d_name) >= PATH_MAX ||
		    snprintf(subrel, sizeof(subrel), "%s%s%s", rel, *rel ? "/" : "", de->d_name) >= PATH_MAX)
			abort();
		if (de->d_type == DT_LNK || dirhost_entry(h, sub, subrel, &e) < 0)
			continue;
		r = fn(data, &e);
		if (r == HOST_NOT_BELOW)
			r = 0;
		else if (r == 0 && e.is_dir)
			r = dirhost_walk_dir(h, sub, subrel, fn, data);
	}
	closedir(dir);
	return r;
}

static inline int dirhost_walk(void *host, const char *path,
			       int (*fn)(void *data, const struct host_entry *e), void *data)
{
	char full[PATH_MAX];

	dirhost_path(host, "tree", path, full);
	return dirhost_walk_dir(host, full, "", fn, data);
}

static inline int dirhost_state_open(void *host, const char *name, int flags, int *ret_fd)
{
	char full[PATH_MAX];
	int fd;

	dirhost_path(host, "state", name, full);
	dirhost_mkdirs(full);
	fd = open(full, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static inline int dirhost_state_put(void *host, const char *name, int fd, uint64_t len)
{
	void *data;
	size_t size;
	int to, r = io_read(fd, len, &data, &size);

	if (r < 0)
		return r;
	r = dirhost_state_open(host, name, O_WRONLY | O_CREAT | O_TRUNC, &to);
	if (r == 0) {
		r = io_write(to, data, size);
		close(to);
	}
	free(data);
	return r;
}

static inline int dirhost_state_remove(void *host, const char *name)
{
	char full[PATH_MAX];

	dirhost_path(host, "state", name, full);
	return unlink(full) < 0 ? -errno : 0;
}

static inline int dirhost_spawn(void *host, const char *kind, int *ret_fd, int *ret_pid)
{
	struct dirhost *h = host;
	int pair[2], pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (pair[1] == 3)
			fcntl(3, F_SETFD, 0);
		else
			dup2(pair[1], 3);
		if (h->child) {
			close_range(4, ~0U, 0);
			h->child(kind, 3);
			_exit(0);
		}
		execl("/proc/self/exe", "inferfs", "worker", kind, NULL);
		_exit(127);
	}
	close(pair[1]);
	*ret_fd = pair[0];
	*ret_pid = h->last_pid = pid;
	h->spawned++;
	return 0;
}

static const struct host_ops dirhost_ops = {
	.commit = dirhost_commit,
	.mark = dirhost_mark,
	.scan = dirhost_scan,
	.publish = dirhost_publish,
	.unpublish = dirhost_unpublish,
	.symlink = dirhost_symlink,
	.read = dirhost_read,
	.open = dirhost_open,
	.lookup = dirhost_lookup,
	.walk = dirhost_walk,
	.state_open = dirhost_state_open,
	.state_put = dirhost_state_put,
	.state_remove = dirhost_state_remove,
	.spawn = dirhost_spawn,
};

static inline void dirhost_init(struct dirhost *h, struct loop *loop)
{
	char path[PATH_MAX];

	*h = (struct dirhost){.root = "/tmp/inferfs-test-XXXXXX", .loop = loop};
	if (!mkdtemp(h->root))
		abort();
	dirhost_path(h, "tree", "x", path);
	dirhost_mkdirs(path);
	dirhost_path(h, "state", "x", path);
	dirhost_mkdirs(path);
}

static inline int dirhost_unlink(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void dirhost_release(struct dirhost *h)
{
	struct dirhost_key *k;

	while ((k = h->keys)) {
		h->keys = k->next;
		free(k->key);
		free(k->value);
		free(k);
	}
	for (size_t i = 0; i < h->n_inodes; i++)
		free(h->inodes[i].path);
	free(h->inodes);
	nftw(h->root, dirhost_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

/* Runs the loop until cond(data) holds; false when it took longer than `seconds`. */
struct dirhost_until {
	struct loop *loop;
	bool (*cond)(void *data);
	void *data;
	int64_t end;
	bool held;
	struct loop_timer *timer;
};

static inline void dirhost_look(void *data)
{
	struct dirhost_until *u = data;

	u->held = u->cond(u->data);
	if (u->held || loop_now(u->loop) > u->end)
		loop_stop(u->loop);
	else
		loop_timer_at(u->loop, loop_now(u->loop) + NS_PER_MS, dirhost_look, u);
}

static inline bool dirhost_run_until(struct loop *loop, bool (*cond)(void *data), void *data, double seconds)
{
	struct dirhost_until u = {
		.loop = loop, .cond = cond, .data = data, .end = loop_now(loop) + (int64_t)(seconds * 1e9)};

	loop_timer_at(loop, loop_now(loop), dirhost_look, &u);
	loop_run(loop);
	return u.held;
}

#endif
