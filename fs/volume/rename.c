/*
 * Rename. Two parents and two children may have to be locked; the order is in private.h. What makes it free
 * of deadlock: a thread without rename_lock only goes down (directory, then its child, then non-directories
 * by number), and the one with rename_lock takes ancestors first; between directories that are not related
 * it alone has to choose, and chooses by number.
 */
#include "fs/volume/private.h"

#include <dirent.h>
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#define DEPTH_MAX 100000 /* of directories; a longer way up is a loop of a damaged volume */

struct rename_op {
	struct volume *vol;
	uint64_t parent, new_parent;
	const char *name, *new_name;
	unsigned flags;
	int new_kind;

	bool holds_rename_lock;
	/* dir[1] == dir[0] when both are one directory; node[1] is what lies at new_name, or NULL. */
	struct node *dir[2], *node[2];
	struct dentry d[2];
	bool replaces; /* something lies at new_name */
};

/* 1 when `dir` is `ancestor` or below it. Directories move only under rename_lock, so what RocksDB says now
 * stays true while the lock is held. */
static int is_below(struct volume *vol, uint64_t dir, uint64_t ancestor)
{
	struct inode_rec rec;

	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		int r;

		if (dir == ancestor)
			return 1;
		if (dir == VOL_ROOT)
			return 0;
		r = inode_read(vol, dir, &rec);
		if (r < 0)
			return r;
		if (!S_ISDIR(rec.mode))
			return -ENOTDIR;
		dir = rec.parent;
	}
	return -EIO;
}

static int lock_dir(struct rename_op *op, int i, uint64_t ino)
{
	return node_get_dir(op->vol, ino, &op->dir[i]);
}

static int lock_dirs(struct rename_op *op)
{
	int first = 0, r;

	if (op->parent == op->new_parent) {
		r = lock_dir(op, 0, op->parent);
		op->dir[1] = op->dir[0];
		return r;
	}
	r = is_below(op->vol, op->parent, op->new_parent);
	if (r < 0)
		return r;
	if (r) {
		first = 1;
	} else {
		r = is_below(op->vol, op->new_parent, op->parent);
		if (r < 0)
			return r;
		first = r ? 0 : op->new_parent < op->parent;
	}
	r = lock_dir(op, first, first ? op->new_parent : op->parent);
	return r < 0 ? r : lock_dir(op, !first, first ? op->parent : op->new_parent);
}

static void unlock_all(struct rename_op *op)
{
	node_put(op->vol, op->node[1]);
	node_put(op->vol, op->node[0]);
	if (op->dir[1] != op->dir[0])
		node_put(op->vol, op->dir[1]);
	node_put(op->vol, op->dir[0]);
	op->node[0] = op->node[1] = op->dir[0] = op->dir[1] = NULL;
}

static int find_entries(struct rename_op *op)
{
	int r = dentry_find(op->vol, op->parent, op->name, &op->d[0]);

	if (r < 0)
		return r;
	r = dentry_find(op->vol, op->new_parent, op->new_name, &op->d[1]);
	if (r < 0 && r != -ENOENT)
		return r;
	op->replaces = r == 0;
	return 0;
}

/* What can be refused without the children's locks, above all what would make a directory its own ancestor
 * (and lock a parent a second time). */
static int check_entries(struct rename_op *op)
{
	bool exchange = op->flags & RENAME_EXCHANGE;
	bool dir = op->d[0].type == DT_DIR, new_dir = op->replaces && op->d[1].type == DT_DIR;
	int r;

	if (op->replaces && op->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (!op->replaces && exchange)
		return -ENOENT;
	if (op->parent != op->new_parent && dir) {
		r = is_below(op->vol, op->new_parent, op->d[0].ino);
		if (r)
			return r < 0 ? r : -EINVAL;
	}
	if (op->replaces && !exchange && dir != new_dir)
		return dir ? -ENOTDIR : -EISDIR;
	if (op->parent != op->new_parent && new_dir) {
		r = is_below(op->vol, op->parent, op->d[1].ino);
		if (r)
			return r < 0 ? r : exchange ? -EINVAL : -ENOTEMPTY;
	}
	return 0;
}

static int lock_children(struct rename_op *op)
{
	bool dir0 = op->d[0].type == DT_DIR, dir1 = op->d[1].type == DT_DIR;
	int first, r;

	if (!op->replaces)
		return node_get(op->vol, op->d[0].ino, &op->node[0]);
	first = dir0 != dir1 ? !dir0 : op->d[1].ino < op->d[0].ino;
	r = node_get(op->vol, op->d[first].ino, &op->node[first]);
	return r < 0 ? r : node_get(op->vol, op->d[!first].ino, &op->node[!first]);
}

/* The entry of `node` now lies in dir `to`. */
static void moved(struct inode_rec *rec, struct inode_rec *from, struct inode_rec *to, uint64_t parent,
		  const struct dentry *d, const struct timespec *when)
{
	rec->ctime = *when;
	if (!S_ISDIR(rec->mode))
		return;
	rec->parent = parent;
	rec->cookie = d->cookie;
	from->nlink--;
	to->nlink++;
}

static int apply(struct rename_op *op)
{
	bool exchange = op->flags & RENAME_EXCHANGE, same_dir = op->dir[0] == op->dir[1];
	struct inode_rec dir_recs[2] = {op->dir[0]->rec, op->dir[1]->rec};
	struct inode_rec *from = &dir_recs[0], *to = same_dir ? from : &dir_recs[1];
	struct inode_rec rec[2] = {op->node[0]->rec};
	struct dentry d[2] = {op->d[0]};
	uint64_t mask = 0;
	struct timespec when;
	struct batch b;
	bool gone = false;
	int r = room_take(op->vol, 0, ROOM_RECORD);

	if (r == 0)
		r = batch_init(&b, op->vol);
	if (r < 0)
		return r;
	now(&when);
	from->mtime = from->ctime = to->mtime = to->ctime = when;
	dentry_remove(&b, op->parent, from, op->name, &op->d[0]);
	if (op->replaces)
		dentry_remove(&b, op->new_parent, to, op->new_name, &op->d[1]);
	dentry_add(&b, op->new_parent, to, op->new_name, &d[0]);
	moved(&rec[0], from, to, op->new_parent, &d[0], &when);
	if (op->new_kind >= 0)
		rec[0].kind = (uint8_t)op->new_kind;
	if (op->replaces) {
		rec[1] = op->node[1]->rec;
		d[1] = op->d[1];
		mask = xattr_mask(d[1].ino);
	}
	xattr_lock(op->vol, mask);
	if (exchange) {
		dentry_add(&b, op->parent, from, op->name, &d[1]);
		moved(&rec[1], to, from, op->parent, &d[1], &when);
		node_batch(&b, op->node[1], &rec[1]);
	} else if (op->replaces) {
		if (S_ISDIR(rec[1].mode))
			to->nlink--;
		r = purge_drop_link(op->vol, &b, op->node[1], &rec[1], &gone);
	}
	node_batch(&b, op->dir[0], from);
	if (!same_dir)
		node_batch(&b, op->dir[1], to);
	node_batch(&b, op->node[0], &rec[0]);
	if (r == 0)
		r = batch_commit(&b, false);
	xattr_unlock(op->vol, mask);
	batch_release(&b);
	if (r < 0)
		return r;
	node_committed(op->dir[0], from);
	node_committed(op->dir[1], to);
	node_committed(op->node[0], &rec[0]);
	if (op->replaces) {
		node_committed(op->node[1], &rec[1]);
		op->node[1]->gone = gone;
		purge_after(op->vol, op->node[1]);
	}
	return 0;
}

static int rename_locked(struct rename_op *op)
{
	int r = lock_dirs(op);

	if (r < 0)
		return r;
	r = find_entries(op);
	if (r < 0)
		return r;
	if (!op->holds_rename_lock && (op->d[0].type == DT_DIR || (op->replaces && op->d[1].type == DT_DIR)))
		return -EAGAIN;
	r = check_entries(op);
	if (r < 0)
		return r;
	if (op->replaces && op->d[0].ino == op->d[1].ino) /* two names of one inode: POSIX: nothing happens */
		return 0;
	r = lock_children(op);
	if (r < 0)
		return r == -ESTALE ? -EIO : r;
	if (op->replaces && !(op->flags & RENAME_EXCHANGE) && S_ISDIR(op->node[1]->rec.mode) &&
	    op->node[1]->rec.entries > 0)
		return -ENOTEMPTY;
	return apply(op);
}

int vol_rename(struct volume *vol, uint64_t parent, const char *name, uint64_t new_parent,
	       const char *new_name, unsigned flags, int new_kind)
{
	struct rename_op op = {
		.vol = vol,
		.parent = parent,
		.new_parent = new_parent,
		.name = name,
		.new_name = new_name,
		.flags = flags,
		.new_kind = new_kind,
		.holds_rename_lock = parent != new_parent,
	};
	int r;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    (flags & RENAME_NOREPLACE && flags & RENAME_EXCHANGE) || new_kind > UINT8_MAX)
		return -EINVAL;
	r = dentry_name_check(name);
	if (r == 0)
		r = dentry_name_check(new_name);
	if (r < 0)
		return r;
	do {
		if (op.holds_rename_lock)
			pthread_mutex_lock(&vol->rename_lock);
		r = rename_locked(&op);
		unlock_all(&op);
		if (op.holds_rename_lock)
			pthread_mutex_unlock(&vol->rename_lock);
		/* A directory is involved: again with the lock. */
		if (r != -EAGAIN)
			break;
		op.holds_rename_lock = true;
	} while (true);
	return r;
}
