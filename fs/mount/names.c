#include "fs/exports.h"
#include "fs/mount/private.h"
#include "fs/mount/serve.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

static int park(void *data, uint64_t ticket)
{
	return server_park(((struct served *)data)->server, ticket);
}

/* A slice that isn't exported yet: 0: its request waits until it is. */
static int ask_for_export(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct served *served = fuse_req_userdata(req);
	struct exports *exports = tree_exports(served->tree);
	struct tree_export wish;

	if (!exports || !tree_export_wish(served->tree, parent, name, &wish))
		return -ENOENT;
	if (server_is_interrupted() || fuse_req_interrupted(req))
		return -EINTR;
	return exports_ask(exports, &wish, park, served);
}

void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct tree_caller caller = req_caller(req);
	struct vol_attr attr;
	int r;

	r = tree_lookup(req_tree(req), &caller, parent, name, &attr);
	if (r == -ENOENT) {
		r = ask_for_export(req, parent, name);
		if (r == 0) {
			fuse_reply_none(req);
			return;
		}
	} else if (r == 0 && server_is_again()) { /* it came into being without the kernel knowing */
		fuse_lowlevel_notify_inval_inode(((struct served *)fuse_req_userdata(req))->se, parent, -1,
						 0); /* attributes only */
	}
	if (r == -ENOENT && !publisher_owns_name(name))
		fuse_reply_entry(req, &(struct fuse_entry_param){.entry_timeout = UNKNOWN_FOR});
	else
		reply_entry(req, r, &attr);
}

void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX];
	int r = vol_readlink(tree_volume(req_tree(req)), ino, target, sizeof(target));

	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_readlink(req, target);
}

static void create(fuse_req_t req, fuse_ino_t parent, const char *name, const struct vol_new *what)
{
	struct tree_caller caller = req_caller(req);
	struct vol_attr attr;

	reply_entry(req, tree_create(req_tree(req), &caller, parent, name, what, &attr), &attr);
}

void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	create(req, parent, name, &(struct vol_new){.mode = mode, .rdev = rdev});
}

void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	create(req, parent, name, &(struct vol_new){.mode = S_IFDIR | (mode & 07777)});
}

void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	create(req, parent, name, &(struct vol_new){.mode = S_IFLNK | 0777, .target = target});
}

void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct tree_caller caller = req_caller(req);
	struct vol_attr attr;

	reply_entry(req, tree_link(req_tree(req), &caller, ino, parent, name, &attr), &attr);
}

void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct tree_caller caller = req_caller(req);

	fuse_reply_err(req, -tree_unlink(req_tree(req), &caller, parent, name));
}

void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct tree_caller caller = req_caller(req);

	fuse_reply_err(req, -tree_rmdir(req_tree(req), &caller, parent, name));
}

void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	       const char *new_name, unsigned flags)
{
	struct tree_caller caller = req_caller(req);

	fuse_reply_err(req, -tree_rename(req_tree(req), &caller, parent, name, new_parent, new_name, flags));
}

/* --- listing --- */

/*
 * "." and ".." come first with the cookies 1 and 2; the volume's cookies are moved up by 2. So a listing goes
 * on from any d_off, after a restart too.
 */
#define OWN_COOKIES 2

struct listing {
	fuse_req_t req;
	char *buf;
	size_t size, used;
	bool plus;
};

static bool add(struct listing *l, const char *name, uint64_t cookie, const struct fuse_entry_param *e)
{
	size_t left = l->size - l->used, n;

	n = l->plus ? fuse_add_direntry_plus(l->req, l->buf + l->used, left, name, e, cookie)
		    : fuse_add_direntry(l->req, l->buf + l->used, left, name, &e->attr, cookie);
	if (n > left)
		return false;
	l->used += n;
	return true;
}

static int add_entry(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	struct fuse_entry_param e;

	entry_from_attr(&e, attr);
	return add(data, name, cookie + OWN_COOKIES, &e) ? 0 : 1;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct listing l = {
		.req = req, .buf = io_buffer(), .size = size < MAX_IO ? size : MAX_IO, .plus = plus};
	/* ino 0 in the entry itself: the kernel takes no reference for "." and "..". */
	struct fuse_entry_param dots = {.attr = {.st_ino = ino, .st_mode = S_IFDIR}};
	struct vol_attr attr;
	bool room = true;
	int r = 0;

	if (!l.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (off < 1)
		room = add(&l, ".", 1, &dots);
	if (room && off < 2) {
		if (vol_getattr(tree_volume(req_tree(req)), ino, &attr) == 0 && attr.parent)
			dots.attr.st_ino = attr.parent;
		room = add(&l, "..", 2, &dots);
	}
	if (room)
		r = tree_readdir(req_tree(req), ino, off > OWN_COOKIES ? (uint64_t)off - OWN_COOKIES : 0,
				 add_entry, &l);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, l.buf, l.used);
}

void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}

void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	(void)data_only;
	(void)fi;
	fuse_reply_err(req, -vol_fsync_dir(tree_volume(req_tree(req)), ino));
}
