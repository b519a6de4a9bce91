#include "fs/mover.h"

#include "engine/base/io.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The mover's thread has a descriptor table of its own. ThreadSanitizer knows one a process, and takes two files of the same
 * number in two tables for one: it is told to look away while we open and close.
 */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define LOOK_AWAY 1
#endif
#endif
#ifdef LOOK_AWAY
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

static void own_table_begin(void)
{
	AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
	AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}

static void own_table_end(void)
{
	AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
	AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#else
static void own_table_begin(void)
{
}

static void own_table_end(void)
{
}
#endif

void mover_init(struct mover *m, const char *mountpoint)
{
	*m = (struct mover){.mountpoint = mountpoint, .root_fd = -1};
	if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_UNSHARE) < 0)
		log_warn("publish: %s: kill -9 may leave this daemon hanging", strerror(errno));
}

bool mover_rests(const struct mover *m)
{
	return m->root_fd < 0;
}

static void dir_forget(struct mover_dir *dir)
{
	close(dir->fd);
	free(dir->path);
	dir->path = NULL;
}

void mover_rest(struct mover *m)
{
	own_table_begin();
	for (int i = 0; i < MOVER_DIRS; i++)
		if (m->dirs[i].path)
			dir_forget(&m->dirs[i]);
	if (m->root_fd >= 0)
		close(m->root_fd);
	m->root_fd = -1;
	own_table_end();
}

/* What a new directory inherits from: for answers the directory of the instances, so that whoever can't read those can't
 * read these; else its parent. */
static int stat_model(struct mover *m, const char *path, const char *parent, struct stat *ret)
{
	const char *app_end = strncmp(path, "infer/", 6) == 0 ? strchr(path + 6, '/') : NULL;
	char *in;
	int r = -1;

	if (app_end && strncmp(app_end, "/out/", 5) == 0 &&
	    asprintf(&in, "%.*s/in/%s", (int)(app_end - path), path, app_end + 5) >= 0) {
		r = fstatat(m->root_fd, in, ret, AT_SYMLINK_NOFOLLOW);
		free(in);
	}
	if (r < 0 || !S_ISDIR(ret->st_mode))
		r = fstatat(m->root_fd, parent, ret, 0);
	return r < 0 ? -errno : 0;
}

/* When a thing of the user's is gone, so is the reason to publish into it. */
static int make_dirs(struct mover *m, const char *path)
{
	int keep = strncmp(path, "models/", 7) == 0 ? 1 : 2, depth = 0, r = 0;
	char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *p = copy; p; depth++) {
		struct stat model, st;
		char *slash = strchr(p, '/'), *dir_end = p > copy ? p - 1 : NULL, *parent;

		if (slash)
			*slash = '\0';
		if (fstatat(m->root_fd, copy, &st, 0) < 0) {
			if (errno != ENOENT || depth < keep || !dir_end) {
				r = -errno;
				break;
			}
			*dir_end = '\0';
			parent = strdup(copy);
			*dir_end = '/';
			r = parent ? stat_model(m, copy, parent, &model) : -ENOMEM;
			free(parent);
			if (r < 0)
				break;
			if (mkdirat(m->root_fd, copy, model.st_mode & 0777) < 0 && errno != EEXIST) {
				r = -errno;
				break;
			}
			if ((model.st_uid != geteuid() || model.st_gid != getegid()) &&
			    fchownat(m->root_fd, copy, model.st_uid, model.st_gid, 0) < 0)
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

static int dir_get(struct mover *m, const char *path, struct mover_dir **ret)
{
	struct mover_dir *dir;
	int fd, r;

	for (int i = 0; i < MOVER_DIRS; i++) {
		if (m->dirs[i].path && strcmp(m->dirs[i].path, path) == 0) {
			*ret = &m->dirs[i];
			return 0;
		}
	}
	if (m->root_fd < 0) {
		m->root_fd = open(m->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (m->root_fd < 0)
			return -errno;
	}
	fd = openat(m->root_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		r = make_dirs(m, path);
		if (r < 0)
			return r;
		fd = openat(m->root_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	if (fd < 0)
		return -errno;
	dir = &m->dirs[m->next++ % MOVER_DIRS];
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

static int with_dir(struct mover *m, const char *hidden, const char *path)
{
	char parent[PATH_MAX];
	struct mover_dir *dir = NULL;
	int r = dir_of(path, parent, sizeof(parent));

	if (r == 0)
		r = dir_get(m, parent, &dir);
	if (r < 0)
		return r;
	if (hidden)
		r = renameat(dir->fd, hidden, dir->fd, name_of(path)) < 0 ? -errno : 0;
	else
		r = unlinkat(dir->fd, name_of(path), 0) < 0 ? -errno : 0;
	if (r == -ENOENT || r == -ESTALE)
		dir_forget(dir); /* removed, perhaps made again, since it was opened */
	return r;
}

int mover_rename(struct mover *m, const char *hidden, const char *path)
{
	int r;

	own_table_begin();
	r = with_dir(m, hidden, path);
	if (r == -ENOENT || r == -ESTALE)
		r = with_dir(m, hidden, path);
	own_table_end();
	return r;
}

int mover_remove(struct mover *m, const char *path)
{
	int r;

	own_table_begin();
	r = with_dir(m, NULL, path);
	if (r == -ESTALE)
		r = with_dir(m, NULL, path);
	own_table_end();
	return r == -ENOENT ? 0 : r;
}

/* For writing, by whoever may: the owner's own mode says read-only. */
static int open_to_append(int dir, const char *name)
{
	const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
	int fd = openat(dir, name, flags, 0444);

	if (fd < 0 && errno == EACCES && fchmodat(dir, name, 0644, 0) == 0) {
		fd = openat(dir, name, flags, 0444);
		if (fd >= 0)
			fchmod(fd, 0444);
	}
	return fd < 0 ? -errno : fd;
}

static int append(struct mover *m, const char *path, const void *data, size_t len, bool empty)
{
	char parent[PATH_MAX];
	struct mover_dir *dir;
	int fd, r;

	r = dir_of(path, parent, sizeof(parent));
	if (r == 0)
		r = dir_get(m, parent, &dir);
	if (r < 0)
		return r;
	fd = open_to_append(dir->fd, name_of(path));
	if (fd < 0) {
		if (fd == -ENOENT || fd == -ESTALE)
			dir_forget(dir);
		return fd;
	}
	if (empty && ftruncate(fd, 0) < 0)
		r = -errno;
	if (r == 0)
		r = io_write(fd, data, len);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int mover_append(struct mover *m, const char *path, const void *data, size_t len, bool empty)
{
	int r;

	own_table_begin();
	r = append(m, path, data, len, empty);
	own_table_end();
	return r;
}
