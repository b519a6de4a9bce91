#include "fs/mount/private.h"

#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>

static void reply_attr(fuse_req_t req, int r, const struct vol_attr *attr)
{
	struct stat st;

	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	stat_from_attr(&st, attr);
	fuse_reply_attr(req, &st, KNOWN_FOR);
}

void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct vol_attr attr;

	(void)fi;
	reply_attr(req, vol_getattr(tree_volume(req_tree(req)), ino, &attr), &attr);
}

void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	static const struct {
		int fuse;
		unsigned vol;
	} map[] = {
		{FUSE_SET_ATTR_MODE, VOL_SET_MODE},       {FUSE_SET_ATTR_UID, VOL_SET_UID},
		{FUSE_SET_ATTR_GID, VOL_SET_GID},         {FUSE_SET_ATTR_SIZE, VOL_SET_SIZE},
		{FUSE_SET_ATTR_ATIME, VOL_SET_ATIME},     {FUSE_SET_ATTR_MTIME, VOL_SET_MTIME},
		{FUSE_SET_ATTR_ATIME_NOW, VOL_SET_ATIME}, {FUSE_SET_ATTR_MTIME_NOW, VOL_SET_MTIME},
		{FUSE_SET_ATTR_CTIME, VOL_SET_CTIME},
	};
	struct tree_file *file = req_file(req, fi);
	struct vol_attr attr = {.mode = st->st_mode,
				.uid = st->st_uid,
				.gid = st->st_gid,
				.size = st->st_size,
				.atime = st->st_atim,
				.mtime = st->st_mtim,
				.ctime = st->st_ctim},
			ret;
	unsigned set = 0;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (to_set & map[i].fuse)
			set |= map[i].vol;
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		clock_gettime(CLOCK_REALTIME, &attr.atime);
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		clock_gettime(CLOCK_REALTIME, &attr.mtime);
	reply_attr(req, tree_setattr(req_tree(req), ino, file, &attr, set, &ret), &ret);
}

void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	int r = volume_statvfs(tree_volume(req_tree(req)), &st);

	(void)ino;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_statfs(req, &st);
}

void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	fuse_reply_err(req, -tree_setxattr(req_tree(req), ino, name, value, size, flags));
}

void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	fuse_reply_err(req, -tree_removexattr(req_tree(req), ino, name));
}

static void reply_sized(fuse_req_t req, int r, size_t size, const char *buf)
{
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (size == 0)
		fuse_reply_xattr(req, r);
	else
		fuse_reply_buf(req, buf, r);
}

void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char *buf = NULL;

	/* Asked for at every write: from memory. (ENOSYS would switch all xattrs off.) */
	if (strcmp(name, "security.capability") == 0 || strncmp(name, "system.posix_acl_", 17) == 0) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	if (size > XATTR_SIZE_MAX)
		size = XATTR_SIZE_MAX;
	if (size) {
		buf = io_buffer();
		if (!buf) {
			fuse_reply_err(req, ENOMEM);
			return;
		}
	}
	reply_sized(req, vol_getxattr(tree_volume(req_tree(req)), ino, name, buf, size), size, buf);
}

/* As on other filesystems, only root is told of trusted.* (the kernel lets nobody else read them). */
static int without_trusted(char *list, int len)
{
	int kept = 0;

	for (int at = 0, n; at < len; at += n) {
		n = (int)strlen(list + at) + 1;
		if (strncmp(list + at, "trusted.", 8) != 0) {
			memmove(list + kept, list + at, n);
			kept += n;
		}
	}
	return kept;
}

void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char *buf = NULL;
	int r;

	if (size > XATTR_LIST_MAX)
		size = XATTR_LIST_MAX;
	if (size) {
		buf = io_buffer();
		if (!buf) {
			fuse_reply_err(req, ENOMEM);
			return;
		}
	}
	r = vol_listxattr(tree_volume(req_tree(req)), ino, buf, size);
	if (r > 0 && size && fuse_req_ctx(req)->uid != 0)
		r = without_trusted(buf, r);
	reply_sized(req, r, size, buf);
}
