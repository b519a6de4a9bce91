/*
 * Private to fs/mount: what the request handlers share. A handler translates one request into one call of the
 * tree and replies; it holds no lock and waits for no thread of ours.
 */
#ifndef FS_MOUNT_PRIVATE_H
#define FS_MOUNT_PRIVATE_H

#define FUSE_USE_VERSION 314

#include "fs/mount/attend.h"
#include "fs/node/tree.h"

#include <fuse_lowlevel.h>

/*
 * How long the kernel may believe what it knows, in seconds. Names and attributes change only through
 * requests of the kernel itself (the publisher's renames too); the daemon alone changes hidden names, which
 * nobody looks up, and xattrs, which are not cached. So: a day. A name that is not there is believed in for a
 * second only: enough to save cp's second look, and harmless should that rule ever break.
 */
#define KNOWN_FOR   86400.0
#define UNKNOWN_FOR 1.0

#define LARGE_IO (64 << 10) /* attend_large */
#define MAX_IO   (1 << 20)  /* of one read or write; the kernel's own limit of 256 pages */

/* The session's user data: what the handlers serve. Changed only while none runs. */
struct served {
	struct tree *tree;
	struct fuse_session *se;
	struct server *server;
	unsigned capable, want; /* FUSE_CAP_* that the kernel has, and that were asked of it */
};

static inline struct tree *req_tree(fuse_req_t req)
{
	struct tree *tree = ((struct served *)fuse_req_userdata(req))->tree;

	attend(tree, fuse_req_ctx(req)->pid);
	return tree;
}

static inline void attend_io(fuse_req_t req, size_t size)
{
	if (size >= LARGE_IO)
		attend_large();
	else
		req_tree(req);
}

static inline struct tree_caller req_caller(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct tree_caller){.uid = ctx->uid, .gid = ctx->gid, .tid = ctx->pid};
}

/* The open file of a request; NULL: the kernel named one that is not there. */
static inline struct tree_file *req_file(fuse_req_t req, const struct fuse_file_info *fi)
{
	return fi ? tree_numbered(((struct served *)fuse_req_userdata(req))->tree, fi->fh) : NULL;
}

void stat_from_attr(struct stat *ret, const struct vol_attr *attr);
void entry_from_attr(struct fuse_entry_param *ret, const struct vol_attr *attr);
void reply_entry(fuse_req_t req, int r, const struct vol_attr *attr); /* r < 0: the error */
void *io_buffer(void); /* MAX_IO bytes of the calling thread; NULL: no memory */

/* names.c */
void do_lookup(fuse_req_t, fuse_ino_t, const char *);
void do_readlink(fuse_req_t, fuse_ino_t);
void do_mknod(fuse_req_t, fuse_ino_t, const char *, mode_t, dev_t);
void do_mkdir(fuse_req_t, fuse_ino_t, const char *, mode_t);
void do_symlink(fuse_req_t, const char *, fuse_ino_t, const char *);
void do_link(fuse_req_t, fuse_ino_t, fuse_ino_t, const char *);
void do_unlink(fuse_req_t, fuse_ino_t, const char *);
void do_rmdir(fuse_req_t, fuse_ino_t, const char *);
void do_rename(fuse_req_t, fuse_ino_t, const char *, fuse_ino_t, const char *, unsigned);
void do_readdir(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
void do_readdirplus(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
void do_fsyncdir(fuse_req_t, fuse_ino_t, int, struct fuse_file_info *);

/* attrs.c */
void do_getattr(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void do_setattr(fuse_req_t, fuse_ino_t, struct stat *, int, struct fuse_file_info *);
void do_statfs(fuse_req_t, fuse_ino_t);
void do_setxattr(fuse_req_t, fuse_ino_t, const char *, const char *, size_t, int);
void do_getxattr(fuse_req_t, fuse_ino_t, const char *, size_t);
void do_listxattr(fuse_req_t, fuse_ino_t, size_t);
void do_removexattr(fuse_req_t, fuse_ino_t, const char *);

/* files.c */
void do_create(fuse_req_t, fuse_ino_t, const char *, mode_t, struct fuse_file_info *);
void do_open(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void do_read(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
void do_write(fuse_req_t, fuse_ino_t, const char *, size_t, off_t, struct fuse_file_info *);
void do_copy_file_range(fuse_req_t, fuse_ino_t, off_t, struct fuse_file_info *, fuse_ino_t, off_t,
			struct fuse_file_info *, size_t, int);
void do_flush(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void do_release(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void do_fsync(fuse_req_t, fuse_ino_t, int, struct fuse_file_info *);
void do_fallocate(fuse_req_t, fuse_ino_t, int, off_t, off_t, struct fuse_file_info *);
void do_lseek(fuse_req_t, fuse_ino_t, off_t, int, struct fuse_file_info *);

/* poll.c */
void do_poll(fuse_req_t, fuse_ino_t, struct fuse_file_info *, struct fuse_pollhandle *);
void poll_released(uint64_t fh); /* before the open file goes */
/* `events` grew; also before another process serves the mount: who sleeps asks again. Any thread. */
void poll_wake(void *data);

/* ops.c: the table of all of them */
extern const struct fuse_lowlevel_ops mount_ops;

#endif
