#include "fs/mount/passthrough.h"
#include "fs/mount/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

static void fill_info(struct fuse_file_info *fi, struct tree_file *file)
{
	fi->fh = tree_number(file);
	/* Contents change only through the kernel: what it has cached stays true over opens. */
	fi->keep_cache = tree_keeps_cache(file);
	fi->direct_io = tree_io(file, NULL) == TREE_IO_DIRECT;
	fi->noflush = !tree_wants_flush(file);
}

/* libfuse 3.14 can't say "passthrough". */
static int reply_open(fuse_req_t req, const struct fuse_file_info *fi, const struct tree_file *file)
{
	struct passthrough_open out;
	int backing;

	if (tree_io(file, &backing) != TREE_IO_BACKED)
		return fuse_reply_open(req, fi);
	out = (struct passthrough_open){.fh = fi->fh, .open_flags = PASSTHROUGH_OPEN, .backing_id = backing};
	/* Writes change the size and mean something: they come to us. So do reads by who asked to see no cache, and need no alignment. */
	if ((fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_DIRECT)
		out.open_flags |= FOPEN_DIRECT_IO;
	if (fi->noflush)
		out.open_flags |= FOPEN_NOFLUSH;
	return fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct tree_caller caller = req_caller(req);
	struct tree *tree = req_tree(req);
	struct tree_file *file;
	struct fuse_entry_param e;
	struct vol_attr attr;
	int r;

	r = tree_create(tree, &caller, parent, name, &(struct vol_new){.mode = S_IFREG | (mode & 07777)},
			&attr);
	if (r == 0)
		r = tree_open(tree, attr.ino, fi->flags & ~O_TRUNC, true, &file);
	if (r != 0) {
		fuse_reply_err(req, -r);
		return;
	}
	fill_info(fi, file);
	entry_from_attr(&e, &attr);
	if (fuse_reply_create(req, &e, fi) == -ENOENT) /* the caller was interrupted: no RELEASE will come */
		tree_release(file);
}

void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tree_file *file;
	int r = tree_open(req_tree(req), ino, fi->flags, false, &file);

	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	fill_info(fi, file);
	if (reply_open(req, fi, file) == -ENOENT)
		tree_release(file);
}

void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct tree_file *file = req_file(req, fi);
	void *buf = io_buffer();
	ssize_t n = -EBADF;

	(void)ino;
	attend_io(req, size);
	if (file)
		n = buf ? vol_read(tree_vol_file(file), buf, size < MAX_IO ? size : MAX_IO, off) : -ENOMEM;
	if (n < 0)
		fuse_reply_err(req, -n);
	else
		fuse_reply_buf(req, buf, n);
}

void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct served *served = fuse_req_userdata(req);
	struct tree_file *file = req_file(req, fi);
	ssize_t n = file ? 0 : -EBADF;

	attend_io(req, size);
	/* Past the page cache the kernel leaves it to us to take setuid bits away. */
	if (n == 0 && fuse_req_ctx(req)->uid != 0 && !fi->writepage)
		n = tree_drop_privileges(file);
	if (n > 0)
		fuse_lowlevel_notify_inval_inode(served->se, ino, -1, 0); /* attributes only */
	if (n >= 0)
		n = tree_write(file, data, size, off);
	if (n < 0)
		fuse_reply_err(req, -n);
	else
		fuse_reply_write(req, n);
}

/*
 * Without it the kernel copies by pages that it caches of the source, and of a backed file that is open for writing it keeps them
 * though a mapping changes the blob. (So does sendfile(2) from such a descriptor, until the file is next opened: that alone is left.)
 */
void do_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags)
{
	struct tree_file *in = req_file(req, fi_in), *out = req_file(req, fi_out);
	void *buf = io_buffer();
	ssize_t n = -EBADF;

	(void)ino_in;
	(void)ino_out;
	attend_large();
	if (flags)
		n = -EINVAL;
	else if (in && out)
		n = buf ? vol_read(tree_vol_file(in), buf, len < MAX_IO ? len : MAX_IO, off_in) : -ENOMEM;
	if (n > 0)
		n = tree_write(out, buf, (size_t)n, off_out);
	if (n < 0)
		fuse_reply_err(req, -n);
	else
		fuse_reply_write(req, n);
}

/* r 1: the kernel knows old times */
static void reply_synced(fuse_req_t req, fuse_ino_t ino, int r)
{
	struct served *served = fuse_req_userdata(req);

	if (r > 0)
		fuse_lowlevel_notify_inval_inode(served->se, ino, -1, 0); /* attributes only */
	fuse_reply_err(req, r < 0 ? -r : 0);
}

void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tree_file *file = req_file(req, fi);

	reply_synced(req, ino, file ? tree_flush(file) : -EBADF);
}

void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tree_file *file = req_file(req, fi);

	(void)ino;
	poll_released(fi->fh);
	if (file)
		tree_release(file);
	fuse_reply_err(req, file ? 0 : EBADF);
}

void do_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	struct tree_file *file = req_file(req, fi);

	reply_synced(req, ino, file ? tree_fsync(file, ino, data_only) : -EBADF);
}

void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t length,
		  struct fuse_file_info *fi)
{
	struct tree_file *file = req_file(req, fi);

	(void)ino;
	fuse_reply_err(req, file ? -tree_fallocate(file, mode, off, length) : EBADF);
}

void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct tree_file *file = req_file(req, fi);
	int64_t r = file ? vol_seek(tree_vol_file(file), off, whence) : -EBADF;

	(void)ino;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_lseek(req, r);
}
