/* Names of inodes: lookup, create, link, unlink, rmdir, readlink. rename.c has the rename. */
#include "fs/volume/private.h"

#include "engine/base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINK_MAX_HERE (1u << 30)

int vol_lookup(struct volume *vol, uint64_t parent, const char *name, struct vol_attr *ret)
{
	struct vol_attr attr;
	struct dentry d;
	int r;

	if (strcmp(name, ".") == 0)
		return vol_getattr(vol, parent, ret);
	if (strcmp(name, "..") == 0) {
		r = vol_getattr(vol, parent, &attr);
		if (r < 0)
			return r;
		return S_ISDIR(attr.mode) ? vol_getattr(vol, attr.parent, ret) : -ENOTDIR;
	}
	r = dentry_name_check(name);
	if (r < 0)
		return r;
	/* No lock: one batch makes or removes the name and the inode, so a name that is there has one; when
	 * it went between the two reads, the name may by now lead to another. */
	for (int tries = 0; tries < 8; tries++) {
		r = dentry_look(vol, parent, name, &d);
		if (r < 0)
			break;
		r = vol_getattr(vol, d.ino, ret);
		if (r != -ESTALE)
			return r;
	}
	if (r == -ESTALE)
		return -EIO; /* a dentry without an inode: fsck */
	if (r == -ENOENT) {
		int exists = vol_getattr(vol, parent, &attr);

		if (exists < 0)
			return exists;
		return S_ISDIR(attr.mode) ? -ENOENT : -ENOTDIR;
	}
	return r;
}

static void touch_dir(struct inode_rec *dir)
{
	now(&dir->mtime);
	dir->ctime = dir->mtime;
}

static int create_check(const struct vol_new *what)
{
	switch (what->mode & S_IFMT) {
	case S_IFREG:
		return what->content_len > INT64_MAX || (what->content_len && !what->content && !what->staged)
			       ? -EINVAL
			       : 0;
	case S_IFLNK:
		if (!what->target || !what->target[0])
			return -ENOENT;
		return strlen(what->target) > 4095 ? -ENAMETOOLONG : 0;
	case S_IFDIR:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return 0;
	default:
		return -EINVAL;
	}
}

/* The record of the new inode, and what it changes in its directory's; with its blob when it is large. */
static int new_records(struct volume *vol, const struct vol_new *what, const struct vol_put *put,
		       bool sync_blob, struct inode_rec *dir, struct inode_rec *ret)
{
	*ret = (struct inode_rec){
		.kind = what->kind,
		.mode = what->mode & (S_IFMT | 07777),
		.nlink = 1,
		.uid = what->uid,
		.gid = what->gid,
		.rdev = S_ISCHR(what->mode) || S_ISBLK(what->mode) ? what->rdev : 0,
	};
	ret->atime = ret->mtime = ret->ctime = put->when;
	touch_dir(dir);
	if (dir->mode & S_ISGID) {
		ret->gid = dir->gid;
		if (S_ISDIR(ret->mode))
			ret->mode |= S_ISGID;
	}
	if (S_ISREG(ret->mode))
		ret->size = what->content_len;
	else if (S_ISLNK(ret->mode))
		ret->size = strlen(what->target);
	if (what->staged)
		return blob_adopt(vol, put->ino, ret);
	return ret->size > INLINE_MAX
		       ? blob_create(vol, put->ino, what->content, what->content_len, sync_blob, ret)
		       : 0;
}

static void new_batch(struct batch *b, uint64_t ino, const struct vol_new *what, const struct inode_rec *rec)
{
	const void *content = S_ISLNK(rec->mode) ? what->target : what->content;
	char key[KEY_MAX], value[INODE_MAX];
	size_t len = key_ino(key, ino);

	if (!S_ISDIR(rec->mode) && rec->size > 0 && rec->storage == STORAGE_INLINE)
		batch_put(b, CF_DATA, key, len, content, rec->size);
	batch_put(b, CF_INODES, key, len, value, record_put_inode(value, rec));
}

static int create_begin(struct volume *vol, uint64_t parent, const char *name, const struct vol_new *what,
			struct node **ret_dir)
{
	int r = dentry_name_check(name);

	if (r == 0)
		r = create_check(what);
	if (r == 0 && vol->read_only)
		r = -EROFS;
	return r == 0 ? node_get_dir(vol, parent, ret_dir) : r;
}

int vol_create(struct volume *vol, uint64_t parent, const char *name, const struct vol_new *what,
	       struct vol_attr *ret)
{
	struct node *dir = NULL, *created = NULL;
	struct inode_rec rec, dir_rec;
	struct vol_put put = {0};
	struct batch b = {0};
	struct dentry d;
	int r = create_begin(vol, parent, name, what, &dir);

	if (r != 0)
		return r;
	r = dentry_known_absent(vol, parent, name) ? -ENOENT : dentry_find(vol, parent, name, &d);
	if (r != -ENOENT) {
		r = r == 0 ? -EEXIST : r;
		goto out;
	}
	r = room_take(vol, what->content_len, ROOM_DATA);
	if (r == 0)
		r = ino_alloc(vol, &put.ino);
	if (r < 0)
		goto out;
	now(&put.when);
	d = (struct dentry){.ino = put.ino, .type = IFTODT(what->mode)};
	dir_rec = dir->rec;
	r = new_records(vol, what, &put, false, &dir_rec, &rec);
	if (r < 0)
		goto out;
	r = batch_init(&b, vol);
	if (r < 0)
		goto out;
	dentry_add(&b, parent, &dir_rec, name, &d);
	if (S_ISDIR(rec.mode)) {
		rec.nlink = 2;
		rec.parent = parent;
		rec.cookie = d.cookie;
		rec.next_cookie = rec.first_cookie = COOKIE_FIRST;
		rec.size = 4096;
		dir_rec.nlink++;
	}
	new_batch(&b, d.ino, what, &rec);
	node_batch(&b, dir, &dir_rec);
	r = node_new(vol, d.ino, &created);
	if (r == 0)
		r = batch_commit(&b, false);
	if (r < 0) {
		if (rec.storage == STORAGE_BLOB)
			blob_remove(vol, d.ino);
		goto out;
	}
	node_committed(dir, &dir_rec);
	created->rec = rec;
	created->loaded = true;
	created->promised = rec.size > 0;
	if (ret)
		node_attr(created, ret);
out:
	batch_release(&b);
	node_put(vol, created);
	node_put(vol, dir);
	return r;
}

int vol_reserve(struct volume *vol, uint64_t *ret_ino)
{
	if (vol->read_only)
		return -EROFS;
	if (db_failed(&vol->db)) {
		*ret_ino = overlay_ino(vol);
		return 0;
	}
	return ino_alloc(vol, ret_ino);
}

int vol_put(struct volume *vol, uint64_t parent, const char *name, const struct vol_new *what,
	    const struct vol_put *put, struct vol_attr *ret_old)
{
	struct dentry d = {.ino = put->ino, .type = IFTODT(what->mode)}, old_d;
	uint64_t mask = host_ops_mask(put->ops, put->n_ops);
	struct node *dir = NULL, *old = NULL;
	struct inode_rec rec = {0}, dir_rec, old_rec;
	struct batch b = {0};
	char key[KEY_MAX];
	bool gone = false;
	int r = S_ISREG(what->mode) || S_ISLNK(what->mode) ? 0 : -EINVAL;

	if (ret_old)
		ret_old->ino = 0;
	if (r == 0)
		r = create_begin(vol, parent, name, what, &dir);
	if (r != 0)
		return r;
	if (put->status && db_failed(&vol->db)) {
		node_put(vol, dir);
		return S_ISREG(what->mode) ? overlay_put(vol, parent, name, what, put) : -EROFS;
	}
	r = dentry_find(vol, parent, name, &old_d);
	if (r == 0)
		r = old_d.type == DT_DIR ? -EISDIR : node_get(vol, old_d.ino, &old);
	if (r < 0 && r != -ENOENT) {
		r = r == -ESTALE ? -EIO : r;
		goto out;
	}
	dir_rec = dir->rec;
	r = room_take(vol, what->content_len, put->status ? ROOM_RECORD : ROOM_DATA);
	if (r == 0)
		r = new_records(vol, what, put, true, &dir_rec, &rec);
	if (r == 0)
		r = batch_init(&b, vol);
	if (r < 0)
		goto out;
	if (old) {
		dentry_remove(&b, parent, &dir_rec, name, &old_d);
		mask |= xattr_mask(old_d.ino);
	}
	dentry_add(&b, parent, &dir_rec, name, &d);
	new_batch(&b, d.ino, what, &rec);
	if (rec.storage == STORAGE_BLOB) /* it is on the disk already: see blob.c */
		batch_delete(&b, CF_DEFAULT, key, key_tagged(key, 'B', d.ino));
	node_batch(&b, dir, &dir_rec);
	xattr_lock(vol, mask);
	if (old) {
		old_rec = old->rec;
		r = purge_drop_link(vol, &b, old, &old_rec, &gone);
	}
	if (r == 0)
		r = host_ops_batch(vol, &b, put->ops, put->n_ops);
	if (r == 0)
		r = batch_commit(&b, put->sync);
	xattr_unlock(vol, mask);
	if (r < 0) {
		if (rec.storage == STORAGE_BLOB)
			blob_remove(vol, d.ino);
		goto out;
	}
	host_ops_committed(vol, put->ops, put->n_ops);
	node_committed(dir, &dir_rec);
	if (old) {
		node_committed(old, &old_rec);
		old->gone = gone;
		if (ret_old)
			node_attr(old, ret_old);
		purge_after(vol, old);
	}
out:
	batch_release(&b);
	node_put(vol, old);
	node_put(vol, dir);
	return r;
}

int vol_link(struct volume *vol, uint64_t ino, uint64_t parent, const char *name, struct vol_attr *ret)
{
	struct node *dir = NULL, *node = NULL;
	struct inode_rec dir_rec, rec;
	struct batch b = {0};
	struct dentry d;
	int r = dentry_name_check(name);

	if (r < 0)
		return r;
	if (ino == parent)
		return -EPERM;
	r = inode_read(vol, ino, &rec);
	if (r < 0)
		return r;
	if (S_ISDIR(rec.mode))
		return -EPERM;
	r = node_get_dir(vol, parent, &dir);
	if (r < 0)
		return r;
	r = dentry_find(vol, parent, name, &d);
	if (r != -ENOENT) {
		r = r == 0 ? -EEXIST : r;
		goto out;
	}
	r = node_get(vol, ino, &node);
	if (r < 0)
		goto out;
	if (node->rec.nlink == 0 || node->rec.nlink >= LINK_MAX_HERE) {
		r = node->rec.nlink ? -EMLINK : -ENOENT;
		goto out;
	}
	r = room_take(vol, 0, ROOM_DATA);
	if (r == 0)
		r = batch_init(&b, vol);
	if (r < 0)
		goto out;
	dir_rec = dir->rec;
	rec = node->rec;
	touch_dir(&dir_rec);
	rec.ctime = dir_rec.ctime;
	rec.nlink++;
	d = (struct dentry){.ino = ino, .type = IFTODT(rec.mode)};
	dentry_add(&b, parent, &dir_rec, name, &d);
	node_batch(&b, dir, &dir_rec);
	node_batch(&b, node, &rec);
	r = batch_commit(&b, false);
	if (r < 0)
		goto out;
	node_committed(dir, &dir_rec);
	node_committed(node, &rec);
	if (ret)
		node_attr(node, ret);
out:
	batch_release(&b);
	node_put(vol, node);
	node_put(vol, dir);
	return r;
}

static int remove_name(struct volume *vol, uint64_t parent, const char *name, bool want_dir,
		       struct vol_attr *ret)
{
	struct node *dir = NULL, *node = NULL;
	struct inode_rec dir_rec, rec;
	struct batch b = {0};
	struct dentry d;
	bool gone;
	int r = node_get_dir(vol, parent, &dir);

	if (r < 0)
		return r;
	r = dentry_find(vol, parent, name, &d);
	if (r == 0)
		r = batch_init(&b, vol);
	if (r == 0 && d.ino == parent)
		r = -EIO; /* a directory in itself: damaged */
	if (r == 0)
		r = node_get(vol, d.ino, &node);
	if (r != 0) {
		r = r == -ESTALE ? -EIO : r;
		goto out;
	}
	if (want_dir != S_ISDIR(node->rec.mode)) {
		r = want_dir ? -ENOTDIR : -EISDIR;
		goto out;
	}
	if (want_dir && node->rec.entries > 0) {
		r = -ENOTEMPTY;
		goto out;
	}
	dir_rec = dir->rec;
	rec = node->rec;
	touch_dir(&dir_rec);
	if (want_dir)
		dir_rec.nlink--;
	dentry_remove(&b, parent, &dir_rec, name, &d);
	node_batch(&b, dir, &dir_rec);
	xattr_lock(vol, xattr_mask(d.ino));
	r = purge_drop_link(vol, &b, node, &rec, &gone);
	if (r == 0)
		r = batch_commit(&b, false);
	xattr_unlock(vol, xattr_mask(d.ino));
	if (r < 0)
		goto out;
	node_committed(dir, &dir_rec);
	node_committed(node, &rec);
	node->gone = gone;
	if (ret)
		node_attr(node, ret);
	purge_after(vol, node);
out:
	batch_release(&b);
	node_put(vol, node);
	node_put(vol, dir);
	return r;
}

int vol_unlink(struct volume *vol, uint64_t parent, const char *name, struct vol_attr *ret)
{
	int r = dentry_name_check(name);

	return r < 0 ? r : remove_name(vol, parent, name, false, ret);
}

int vol_rmdir(struct volume *vol, uint64_t parent, const char *name, struct vol_attr *ret)
{
	int r;

	if (strcmp(name, "..") == 0)
		return -ENOTEMPTY;
	r = dentry_name_check(name);
	return r < 0 ? r : remove_name(vol, parent, name, true, ret);
}

int vol_readlink(struct volume *vol, uint64_t ino, char *ret, size_t size)
{
	struct inode_rec rec;
	char key[KEY_MAX];
	size_t len = 0;
	int r = inode_read(vol, ino, &rec);

	if (r < 0)
		return r;
	if (!S_ISLNK(rec.mode))
		return -EINVAL;
	if (size <= rec.size)
		return -ERANGE;
	r = db_get(&vol->db, CF_DATA, key, key_ino(key, ino), ret, size - 1, &len);
	if (r < 0)
		return r == -ENOENT ? -EIO : r;
	if (len != rec.size || memchr(ret, 0, len))
		return -EIO;
	ret[len] = 0;
	return (int)len;
}
