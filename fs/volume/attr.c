/* Attributes of inodes. */
#include "fs/volume/private.h"

#include <errno.h>
#include <string.h>

int vol_getattr(struct volume *vol, uint64_t ino, struct vol_attr *ret)
{
	struct node *node;
	int r = node_get(vol, ino, &node);

	if (r < 0)
		return r;
	node_attr(node, ret);
	node_put(vol, node);
	return 0;
}

int vol_setattr(struct volume *vol, uint64_t ino, const struct vol_attr *attr, unsigned set,
		struct vol_attr *ret)
{
	struct inode_rec rec;
	struct node *node;
	int r;

	if (vol->read_only || db_failed(&vol->db))
		return -EROFS;
	r = node_get(vol, ino, &node);
	if (r < 0)
		return r;
	if (set & VOL_SET_SIZE) {
		r = S_ISREG(node->rec.mode) ? 0 : S_ISDIR(node->rec.mode) ? -EISDIR : -EINVAL;
		if (r == 0)
			r = content_truncate(vol, node, attr->size);
		if (r < 0)
			goto out;
	}
	rec = node->rec;
	if (set & VOL_SET_MODE)
		rec.mode = (rec.mode & S_IFMT) | (attr->mode & 07777);
	if (set & VOL_SET_UID)
		rec.uid = attr->uid;
	if (set & VOL_SET_GID)
		rec.gid = attr->gid;
	if (set & VOL_SET_ATIME)
		rec.atime = attr->atime;
	if (set & VOL_SET_MTIME)
		rec.mtime = attr->mtime;
	if (set & VOL_SET_KIND)
		rec.kind = attr->kind;
	if (set & VOL_SET_CTIME)
		rec.ctime = attr->ctime;
	else if (set & ~(unsigned)VOL_SET_KIND)
		now(&rec.ctime);
	r = -EINVAL;
	if ((uint64_t)rec.atime.tv_nsec >= 1000000000 || (uint64_t)rec.mtime.tv_nsec >= 1000000000 ||
	    (uint64_t)rec.ctime.tv_nsec >= 1000000000)
		goto out;
	r = node_commit(vol, node, &rec, false);
	if (r == 0 && ret)
		node_attr(node, ret);
out:
	if (node->opens == 0)
		content_drop(node);
	node_put(vol, node);
	return r;
}
