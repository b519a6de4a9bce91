/*
 * The table of requests that are answered, and what they share. Requests that are missing here: access
 * (default_permissions: the kernel checks), locks (the kernel keeps them for one machine), opendir and
 * releasedir (no state), forget (no memory is kept for an idle inode), bmap, ioctl.
 */
#include "fs/mount/private.h"

#include <pthread.h>
#include <stdlib.h>

void stat_from_attr(struct stat *ret, const struct vol_attr *attr)
{
	*ret = (struct stat){.st_ino = attr->ino,
			     .st_mode = attr->mode,
			     .st_nlink = attr->nlink,
			     .st_uid = attr->uid,
			     .st_gid = attr->gid,
			     .st_rdev = attr->rdev,
			     .st_size = attr->size,
			     .st_blocks = attr->blocks,
			     .st_blksize = 4096,
			     .st_atim = attr->atime,
			     .st_mtim = attr->mtime,
			     .st_ctim = attr->ctime};
}

void entry_from_attr(struct fuse_entry_param *ret, const struct vol_attr *attr)
{
	/* Inode numbers are never used twice, so one generation does for all. */
	*ret = (struct fuse_entry_param){
		.ino = attr->ino, .generation = 1, .attr_timeout = KNOWN_FOR, .entry_timeout = KNOWN_FOR};
	stat_from_attr(&ret->attr, attr);
}

void reply_entry(fuse_req_t req, int r, const struct vol_attr *attr)
{
	struct fuse_entry_param e;

	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	entry_from_attr(&e, attr);
	fuse_reply_entry(req, &e);
}

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void buffer_key_init(void)
{
	pthread_key_create(&buffer_key, free);
}

void *io_buffer(void)
{
	void *buffer;

	pthread_once(&buffer_once, buffer_key_init);
	buffer = pthread_getspecific(buffer_key);
	if (!buffer) {
		buffer = malloc(MAX_IO);
		if (buffer && pthread_setspecific(buffer_key, buffer) != 0) {
			free(buffer);
			buffer = NULL;
		}
	}
	return buffer;
}

static void do_init(void *userdata, struct fuse_conn_info *conn)
{
	struct served *served = userdata;
	const unsigned want = FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ATOMIC_O_TRUNC |
			      FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_READ |
			      FUSE_CAP_CACHE_SYMLINKS;

	/*
	 * Left out on purpose: WRITEBACK_CACHE (a refused spec must be the answer of the write itself),
	 * AUTO_INVAL_DATA (contents change only through the kernel), HANDLE_KILLPRIV (the kernel then clears
	 * setuid bits by SETATTR), SPLICE_* (contents are copied into the database or by pwrite anyway).
	 */
	conn->want = conn->capable & want;
	served->capable = conn->capable;
	served->want = conn->want;
	conn->max_write = MAX_IO;
	conn->max_readahead = MAX_IO;
	conn->max_background = 64; /* chosen: more than there are threads */
}

const struct fuse_lowlevel_ops mount_ops = {
	.init = do_init,
	.lookup = do_lookup,
	.getattr = do_getattr,
	.setattr = do_setattr,
	.readlink = do_readlink,
	.mknod = do_mknod,
	.mkdir = do_mkdir,
	.unlink = do_unlink,
	.rmdir = do_rmdir,
	.symlink = do_symlink,
	.rename = do_rename,
	.link = do_link,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.flush = do_flush,
	.release = do_release,
	.fsync = do_fsync,
	.readdir = do_readdir,
	.readdirplus = do_readdirplus,
	.fsyncdir = do_fsyncdir,
	.statfs = do_statfs,
	.setxattr = do_setxattr,
	.getxattr = do_getxattr,
	.listxattr = do_listxattr,
	.removexattr = do_removexattr,
	.create = do_create,
	.fallocate = do_fallocate,
	.lseek = do_lseek,
	.poll = do_poll,
	.copy_file_range = do_copy_file_range,
};
