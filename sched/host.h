/*
 * What the scheduler needs from its host: the small interface that fs implements (fs/glue.c) and tests fake.
 * Called on the scheduler's thread. Paths are relative to the mount ("infer/app/out/B/x.png.json").
 */
#ifndef SCHED_HOST_H
#define SCHED_HOST_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* One change; an array of them is applied atomically and survives kill -9 of the daemon once the call
 * returned. */
enum host_op_type {
	HOST_PUT, /* key, value in the scheduler's key space: each key is put once in its life … */
	HOST_DEL, /* … and deleted once (SingleDelete below; DESIGN section 4); an update is a new key */
	HOST_STATE, /* xattr `key` ("user.state", "user.result", …) of inode `ino`; no error if the inode is gone */
};

struct host_op {
	enum host_op_type type;
	uint64_t ino;
	const void *key, *value;
	size_t key_len, value_len;
};

/* Who may read a file. */
struct host_access {
	uint32_t mode, uid, gid;
};

enum host_publish_flags {
	/* A result: every one appears, in order. Otherwise a status file: only the newest text counts and a
	 * path is renewed at most 5 times a second. */
	HOST_RESULT = 1,
	HOST_FSYNC = 2, /* survives power loss before `done` is called */
	/* `content` is added to the end of the file that is there, or to a new one; every one, in order, by a write
	 * through the mount (so that inotify sees MODIFY and who has it open sees the new size). No ops, owner, due. */
	HOST_APPEND = 4,
	HOST_EMPTY = 8, /* with HOST_APPEND: the file is emptied first, in place */
};

/* A file that is to appear in the tree, mode 0444. */
struct host_publication {
	const char *path;
	const void *content;
	size_t len;
	unsigned flags; /* enum host_publish_flags */
	/* The file gets this inode's owner and group, and may be read by nobody who may not read that (an instance's user can
	 * read the answer); 0: the directory's owner and group. When the inode is gone, only the daemon's user reads it. */
	uint64_t owner_ino;
	const struct host_access *access; /* in place of owner_ino; NULL: none */
	const struct host_op *ops;        /* applied in the same write batch as the rename */
	size_t n_ops;
	/* A directory with all it holds instead of a file; content and owner do not count. Borrowed until `done`, where -EEXIST or
	 * -ENOTDIR say that there is something of that name. */
	struct host_tree *tree;
	/* When it can't be visible by this time (loop_now), nothing is published and r is -ETIME; 0: whenever. */
	int64_t due;
	/* Posted to the scheduler's loop; `visible` is the time (loop_now) when it could be seen. May be NULL. */
	void (*done)(void *data, int r, int64_t visible);
	void *data;
};

#define HOST_NOT_BELOW INT_MAX /* of a walk */

/* Many files that are to appear at once, in a directory of their own: the host's. */
struct host_tree;

struct host_file {
	const char *path;     /* relative to that directory, "sub/x.png" */
	uint64_t offset, len; /* its content in the file of tree_fd … */
	bool shared;          /* … or in that of tree_share or tree_apart */
	uint64_t ino;         /* the host sets it */
};

struct host_entry {
	const char *path; /* relative to the walked directory, "train/cat/1.png"; valid during the call */
	uint64_t ino;
	uint64_t size;
	struct timespec mtime;
	bool is_dir, is_other; /* other: neither a directory nor a regular file; of a walk only */
};

struct host_ops {
	int (*commit)(void *host, const struct host_op *ops, size_t n);
	/* user.state of an instance until the next HOST_STATE of it, or until the daemon ends: a static string */
	void (*mark)(void *host, uint64_t ino, const char *state);
	/* Keys from `prefix`, ascending; fn returns non-zero to end the scan. */
	int (*scan)(void *host, const void *prefix, size_t prefix_len,
		    int (*fn)(void *data, const void *key, size_t key_len, const void *value,
			      size_t value_len),
		    void *data);

	/*
	 * Makes a file appear by a rename through the mount (so that inotify sees MOVED_TO), replacing an older
	 * one atomically and making missing directories. Everything is copied.
	 */
	int (*publish)(void *host, const struct host_publication *p);
	/* Removes what was published (a stale `error`); no error if it is not there. Ordered with publish. */
	int (*unpublish)(void *host, const char *path);
	/* Replaces what is there; through the mount, ordered with publish. done: as publish's; may be NULL. */
	int (*symlink)(void *host, const char *path, const char *target,
		       void (*done)(void *data, int r, int64_t visible), void *data);

	/*
	 * A tree of files to be published (NULL in hosts that have none). Owner and group are those of the file `like`, and who
	 * may read that may read these. Like an instance: a batch; else a version of a model. Nothing of it can be seen before, or
	 * survives a crash.
	 */
	int (*tree_new)(void *host, uint64_t like, struct host_tree **ret);
	/* Where whoever has their contents writes them, before they are published; the host's. */
	int (*tree_fd)(void *host, struct host_tree *tree);
	/* The content of the file `ino`, in which contents may lie as well, whatever happens to that file from now on. The descriptor is
	 * the host's. -ENODATA: not of this file. */
	int (*tree_share)(void *host, struct host_tree *tree, uint64_t ino, int *ret_fd, uint64_t *ret_len);
	/* In its place: another empty file, to be written like that of tree_fd, for one large content; the host's. */
	int (*tree_apart)(void *host, struct host_tree *tree, int *ret_fd);
	/* Adds n files and sets their ino (0 before), up to the one that fails by its path: -EEXIST: it is there already; -ENOTDIR: it
	 * leads through a file. Else -ENOSPC, -EDQUOT …
	 * After a failure the tree can only be freed. */
	int (*tree_add)(void *host, struct host_tree *tree, struct host_file *files, size_t n);
	int (*tree_xattr)(void *host, struct host_tree *tree, const char *name, const char *value);
	void (*tree_free)(void *host, struct host_tree *tree); /* not published: nothing stays of it */

	/* The whole content of a small file; -EFBIG beyond `max`. *ret malloc'd. */
	int (*read)(void *host, uint64_t ino, size_t max, void **ret, size_t *ret_len);
	/* A read-only descriptor on the content, for a worker: the blob itself when large, else a sealed
	 * memfd. */
	int (*open)(void *host, uint64_t ino, int *ret_fd, uint64_t *ret_len);
	/* Follows symlinks within the mount. */
	int (*lookup)(void *host, const char *path, struct host_entry *ret);
	/* Each entry below, a directory before what is in it. fn returns 0; HOST_NOT_BELOW: what is in this directory is not
	 * asked for, though it may come; anything else ends the walk, and is returned. */
	int (*walk)(void *host, const char *path, int (*fn)(void *data, const struct host_entry *e),
		    void *data);
	int (*access)(void *host, uint64_t ino, struct host_access *ret); /* -ESTALE: gone */
	/* The length, or -ENODATA; a NUL is added. */
	int (*getxattr)(void *host, uint64_t ino, const char *name, char *value, size_t size);

	/* Files of the state directory that are not in the tree: "cache/…", "checkpoint/…". */
	int (*state_open)(void *host, const char *name, int flags, int *ret_fd);
	/* Copies from fd into `name` by temporary file, fsync and rename. */
	int (*state_put)(void *host, const char *name, int fd, uint64_t len);
	int (*state_remove)(void *host, const char *name);

	/* The job or endpoint ("infer/app") that was removed is forgotten: what is published below its path from now on is of a new one
	 * of that name. May be NULL. */
	void (*forgotten)(void *host, const char *path);

	/* One line without a newline on what is wrong with the volume (full, read-only) and since when; false: nothing. May be
	 * NULL. */
	bool (*trouble)(void *host, char *ret, size_t size);

	/* A worker process with one end of a SOCK_SEQPACKET pair as descriptor 3: execs this program as
	 * `inferfs worker KIND`. The pid is the caller's to wait for. NULL in tests without workers. */
	int (*spawn)(void *host, const char *kind, int *ret_fd, int *ret_pid);
};

#endif
