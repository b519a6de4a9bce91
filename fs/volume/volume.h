/*
 * The volume: inodes, dentries, xattrs and file contents below one state directory, on RocksDB (DESIGN
 * section 4). A library of its own: it knows no FUSE and no tree of inferfs, only numbers, names, bytes and a
 * `kind` byte it keeps for its caller.
 *
 *	volume_open(&vol, "/var/lib/inferfs", 0, &err);
 *	vol_create(vol, VOL_ROOT, "a", &(struct vol_new){ .mode = S_IFREG | 0644 }, &attr);
 *	vol_file_open(vol, attr.ino, O_RDWR, &f);
 *	vol_write(f, "x", 1, 0);	// survives kill -9
 *	vol_fsync(f, false);		// … and power loss
 *	vol_file_close(f);
 *	volume_close(vol);
 *
 * Every function may be called from any thread and returns 0 (or a count) or a negative errno; what a
 * function changes is one atomic write batch. An inode number is never used twice; an unknown one is
 * -ESTALE. Permissions and sticky bits are the caller's business (the kernel checks them:
 * default_permissions); types, ENOTEMPTY and a directory that would go below itself (EINVAL) are checked
 * here. Names: 1 to 255 bytes, no '/' and no NUL, not "." or ".." (-EINVAL, -ENAMETOOLONG). A damaged
 * record is -EIO, a read-only volume -EROFS, as is one that a write has failed in; without room it is -ENOSPC (the disk's) or
 * -EDQUOT (volume_limit's), but what makes room works. RocksDB has threads: fork (to run in the background) before
 * volume_open, not after it.
 */
#ifndef FS_VOLUME_VOLUME_H
#define FS_VOLUME_VOLUME_H

#include "engine/base/err.h"
#include "sched/host.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

struct volume;
struct vol_file;

#define VOL_ROOT 1

struct vol_attr {
	uint64_t ino;
	uint64_t parent; /* of a directory: for ".."; else 0 */
	uint32_t mode, nlink, uid, gid;
	uint64_t rdev, size, blocks; /* blocks of 512 bytes */
	struct timespec atime, mtime, ctime;
	uint8_t kind; /* the caller's */
};

enum volume_flags {
	VOLUME_READ_ONLY = 1,
	/* Another process closed it by volume_hand_over, and its open files are opened here. Nothing is purged. */
	VOLUME_TAKEN_OVER = 2,
};

/* Makes an empty volume (root directory 0755 of the caller, kind 0) where there is none. -EBUSY: another
 * process has it open. Also removes what open-unlinked files of a crashed run left. */
int volume_open(struct volume **ret, const char *state_dir, unsigned flags, struct err *err);
uint32_t volume_format(void); /* the version of what lies in the state directory that this program knows */
void volume_close(struct volume *vol); /* flushes; NULL is allowed */
/* Closes it for another process (handover.c). No file is open any more: all were flushed and abandoned. */
void volume_hand_over(struct volume *vol);
/* Writes RocksDB's log into its tables, so that the next one to open it has less to read. While it is in use. */
int volume_settle(struct volume *vol);
int volume_sync(struct volume *vol); /* all so far survives power loss */
int volume_statvfs(struct volume *vol, struct statvfs *ret);
/* A limit on all that lies in the state directory: beyond it what needs room is -EDQUOT. Before other threads use it. */
void volume_limit(struct volume *vol, uint64_t max_bytes);
/* One line without a newline: that the volume is full or read-only, or files can't be read, and since when. false: all is well. */
bool volume_trouble(struct volume *vol, char *ret, size_t size);

/* --- names --- */

/* "." and ".." too */
int vol_lookup(struct volume *vol, uint64_t parent, const char *name, struct vol_attr *ret);
/* In a directory with S_ISGID the group comes from the directory, and a new directory has S_ISGID too. */
struct vol_new {
	uint32_t mode, uid, gid;
	uint64_t rdev;
	uint8_t kind;
	const char *target;  /* of a symlink */
	const void *content; /* of a regular file: there from the start, or NULL */
	size_t content_len;
	bool staged; /* private to stage.c: it is the inode's blob already */
};
int vol_create(struct volume *vol, uint64_t parent, const char *name, const struct vol_new *what,
	       struct vol_attr *ret);
/*
 * A regular file or symlink that is there at once with all it has, in place of what lies at `name` (-EISDIR: a
 * directory). `ino` is of vol_reserve and used once; its times are `when`; `ops` join the write batch; sync: it
 * survives power loss (else a power cut may take all of it back, but never a part). ret_old (may be NULL) gets what was replaced, as it is afterwards; ino 0: nothing.
 */
struct vol_put {
	uint64_t ino;
	struct timespec when;
	const struct host_op *ops;
	size_t n_ops;
	bool sync;
	/* Small, and takes the place of an older one: also when the volume is full; when a write has failed, in memory. */
	bool status;
};
int vol_reserve(struct volume *vol, uint64_t *ret_ino);
/* What is larger lies in a file of the state directory: vol_put waits for the disk, unless it is staged. */
#define VOL_INLINE_MAX (64 * 1024)
int vol_put(struct volume *vol, uint64_t parent, const char *name, const struct vol_new *what,
	    const struct vol_put *put, struct vol_attr *ret_old);
/*
 * A large regular file whose content is written before it has a name, by anybody: vol_stage_fd, the volume's. sync: nobody writes any
 * more; waits for the disk, which put then need not. put: it is there at once with all of it, as by vol_put; what->content and put->ino
 * don't count. free: what was not put is removed, as after a crash.
 */
struct vol_stage;
int vol_stage_new(struct vol_stage **ret, struct volume *vol);
int vol_stage_fd(const struct vol_stage *s);
uint64_t vol_stage_ino(const struct vol_stage *s); /* what it will have */
int vol_stage_sync(struct vol_stage *s);
int vol_stage_put(struct vol_stage *s, uint64_t parent, const char *name, const struct vol_new *what,
		  const struct vol_put *put, struct vol_attr *ret_old);
void vol_stage_free(struct vol_stage *s); /* NULL is allowed */
/* ret (may be NULL) gets the removed inode's attributes as they are afterwards. */
int vol_unlink(struct volume *vol, uint64_t parent, const char *name, struct vol_attr *ret);
int vol_rmdir(struct volume *vol, uint64_t parent, const char *name, struct vol_attr *ret);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE. new_kind ≥ 0 gives the moved inode that kind. */
int vol_rename(struct volume *vol, uint64_t parent, const char *name, uint64_t new_parent,
	       const char *new_name, unsigned flags, int new_kind);
/* Not of a directory (-EPERM), nor of a file whose last name is gone (-ENOENT). */
int vol_link(struct volume *vol, uint64_t ino, uint64_t parent, const char *name, struct vol_attr *ret);
int vol_readlink(struct volume *vol, uint64_t ino, char *ret, size_t size); /* NUL-terminated; length */
/* Resolves a path relative to `from` (an empty one is `from` itself), following symlinks that stay inside the
 * volume: -EXDEV for an absolute target and for ".." above the root, -ELOOP after 40. */
int vol_resolve(struct volume *vol, uint64_t from, const char *path, struct vol_attr *ret);
/* The name of a directory in its parent (for paths in events). */
int vol_dir_name(struct volume *vol, uint64_t dir, char *ret, size_t size);

/*
 * Entries after `cookie` (0: from the start; "." and ".." are not given). fn returns non-zero to end. attr is
 * whole when want_attr (readdirplus), else only its ino and the type in its mode. Cookies begin at 16:
 * smaller ones are the caller's for "." and "..". A cookie belongs to its dentry for life: a scan goes on
 * where it was, also after a restart; an entry that exists throughout is given exactly once.
 */
int vol_readdir(struct volume *vol, uint64_t dir, uint64_t cookie, bool want_attr,
		int (*fn)(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr),
		void *data);

/* --- attributes --- */

int vol_getattr(struct volume *vol, uint64_t ino, struct vol_attr *ret);
enum vol_set {
	VOL_SET_MODE = 1,
	VOL_SET_UID = 2,
	VOL_SET_GID = 4,
	VOL_SET_SIZE = 8,
	VOL_SET_ATIME = 16,
	VOL_SET_MTIME = 32,
	VOL_SET_CTIME = 64,
	VOL_SET_KIND = 128
};
int vol_setattr(struct volume *vol, uint64_t ino, const struct vol_attr *attr, unsigned set,
		struct vol_attr *ret);

/* flags: XATTR_CREATE, XATTR_REPLACE. get and list return the length; size 0 asks for it; -ERANGE when too
 * small. */
int vol_setxattr(struct volume *vol, uint64_t ino, const char *name, const void *value, size_t size,
		 int flags);
int vol_getxattr(struct volume *vol, uint64_t ino, const char *name, void *value, size_t size);
int vol_listxattr(struct volume *vol, uint64_t ino, char *list, size_t size);
int vol_removexattr(struct volume *vol, uint64_t ino, const char *name);
/* An xattr in memory, one an inode: it hides a stored one of that name until a HOST_STATE stores one, it is removed,
 * the inode goes or the volume is closed. name and text are static strings. */
int vol_mark(struct volume *vol, uint64_t ino, const char *name, const char *text);

/* --- contents --- */

/* flags as open(2); O_TRUNC is honoured, O_CREAT is not, nor O_APPEND (the caller knows the offset). An open
 * file stays readable after its last unlink. */
int vol_file_open(struct volume *vol, uint64_t ino, int flags, struct vol_file **ret);
void vol_file_close(struct vol_file *f); /* flushes; NULL is allowed. Frees the inode of an unlinked file */
/* As if the process were killed: what was not flushed is lost, and the inode of an unlinked file stays. NULL is allowed */
void vol_file_abandon(struct vol_file *f);
uint64_t vol_file_ino(const struct vol_file *f);
ssize_t vol_read(struct vol_file *f, void *data, size_t size, uint64_t offset);
/* What was written survives kill -9. */
ssize_t vol_write(struct vol_file *f, const void *data, size_t size, uint64_t offset);
int vol_flush(struct vol_file *f); /* the truncation by an open and the times survive it, too */
int vol_fsync(struct vol_file *f, bool data_only);
int vol_fsync_dir(struct volume *vol, uint64_t dir);
/* Modes: 0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE [| KEEP_SIZE]; else -EOPNOTSUPP. */
int vol_fallocate(struct vol_file *f, int mode, uint64_t offset, uint64_t length);
int64_t vol_seek(struct vol_file *f, int64_t offset, int whence); /* SEEK_DATA, SEEK_HOLE */
/* A read-only descriptor with exactly the content: the blob file when it is one, else a sealed memfd. */
int vol_content_fd(struct volume *vol, uint64_t ino, int *ret_fd, uint64_t *ret_len);
/*
 * The descriptor of f's content, borrowed as long as f is open; reads may go there straight. -ENODATA: it has none of its own
 * (and may have one later; never the other way round). stores: so may stores of mappings; vol_stored must then be asked before
 * vol_flush, vol_fsync and vol_file_close.
 */
int vol_backing_fd(struct vol_file *f, bool stores);
bool vol_stored(
	struct vol_file
		*f); /* there were such stores since the last time; mtime and ctime are set, not committed */
/* malloc'd content of a file of at most `max` bytes; -EFBIG beyond. */
int vol_content(struct volume *vol, uint64_t ino, size_t max, void **ret, size_t *ret_len);

/* --- the scheduler's key space (sched/host.h) --- */

int vol_commit(struct volume *vol, const struct host_op *ops, size_t n);
int vol_scan(struct volume *vol, const void *prefix, size_t prefix_len,
	     int (*fn)(void *data, const void *key, size_t key_len, const void *value, size_t value_len),
	     void *data);

/* --- fsck --- */

struct fsck_report {
	uint64_t inodes, dentries, blobs, faults, repaired;
};
/* Checks every invariant (each dentry has its inode and each inode its dentries, nlink, parents, sizes and
 * blobs, cookies, orphans); says each fault in one line. repair: mends what can be mended without loss. */
int volume_fsck(const char *state_dir, bool repair, void (*say)(void *data, const char *line), void *data,
		struct fsck_report *ret, struct err *err);

#endif
