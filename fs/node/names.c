/*
 * Names: looking them up, making, linking and removing them. rename.c moves them.
 *
 * Which hooks a name has follows from where it is (node_child_kind), since an inode may have several names;
 * the kind that the volume keeps is for calls that carry an inode number only.
 */
#include "fs/node/node.h"

#include "engine/base/log.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/*
 * Chosen: the publisher may add a file between our look and the removal, for as long as the scheduler does
 * not know; together at most 0.2 s.
 */
#define RMDIR_TRIES    100
#define RMDIR_PAUSE_NS 2000000

static bool is_publisher(const struct tree *tree, const struct tree_caller *caller)
{
	return tree->glue && publisher_is_caller(glue_publisher(tree->glue), caller->tid);
}

static void remember(struct tree *tree, const struct vol_attr *attr, uint64_t parent, const char *name)
{
	if (node_type(attr->kind)->flags & NODE_PLACED)
		place_remember(tree, attr->ino, parent, name);
}

int tree_lookup(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name,
		struct vol_attr *ret)
{
	int r;

	if (publisher_owns_name(name))
		return is_publisher(tree, caller) ? publish_lookup(tree, parent, name, ret) : -ENOENT;
	r = vol_lookup(tree->vol, parent, name, ret);
	if (r == -ENOENT)
		r = export_lookup(tree, parent, name, ret);
	/* "." of a file, which a file handle is looked up by, is no name of it. */
	if (r == 0 && !S_ISDIR(ret->mode) && strcmp(name, ".") != 0)
		remember(tree, ret, parent, name);
	return r;
}

struct readdir {
	struct tree *tree;
	uint64_t dir;
	int (*fn)(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr);
	void *data;
};

static int readdir_entry(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	struct readdir *d = data;

	if (!S_ISDIR(attr->mode))
		remember(d->tree, attr, d->dir, name);
	return d->fn(d->data, name, cookie, attr);
}

int tree_readdir(struct tree *tree, uint64_t dir, uint64_t cookie,
		 int (*fn)(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr),
		 void *data)
{
	struct readdir d = {.tree = tree, .dir = dir, .fn = fn, .data = data};

	return vol_readdir(tree->vol, dir, cookie, true, readdir_entry, &d);
}

/* May this caller make or remove a name of this type here? */
static int may_change(struct tree *tree, const struct tree_caller *caller, const struct place *dir,
		      const char *name, bool is_dir)
{
	unsigned flags = node_type(dir->kind)->flags;

	if (publisher_owns_name(name))
		return -EPERM;
	if (flags & NODE_CLOSED && !is_publisher(tree, caller))
		return -EPERM;
	return flags & NODE_ONLY_DIRS && !is_dir ? -EPERM : 0;
}

int tree_create(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name,
		const struct vol_new *what, struct vol_attr *ret)
{
	bool is_dir = S_ISDIR(what->mode);
	struct vol_new new = *what;
	struct vol_attr attr;
	struct place *dir;
	struct node node;
	int r;

	r = place_get(tree, parent, &dir);
	if (r < 0)
		return r;
	r = may_change(tree, caller, dir, name, is_dir);
	if (r == 0 && is_dir && is_publisher(tree, caller) && publisher_refused(glue_publisher(tree->glue)))
		r = -ENOENT;
	if (r < 0)
		goto out;
	new.uid = caller->uid;
	new.gid = caller->gid;
	if (dir->mode & S_ISGID) { /* the kernel leaves this to the filesystem */
		new.gid = dir->gid;
		if (is_dir)
			new.mode |= S_ISGID;
	}
	new.kind = is_publisher(tree, caller) && !is_dir ? NODE_MADE
							 : node_child_kind(dir->kind, name, new.mode);
	r = vol_create(tree->vol, parent, name, &new, &attr);
	if (r < 0)
		goto out;
	if (!is_dir)
		remember(tree, &attr, parent, name);
	node = (struct node){
		.tree = tree, .dir = dir, .name = name, .ino = attr.ino, .kind = new.kind, .is_dir = is_dir};
	node.is_whole = !is_dir && !S_ISREG(new.mode);
	if (node_type(new.kind)->came) {
		r = node_type(new.kind)->came(&node, NODE_CREATED, false);
		if (r == 0 && is_dir) /* it may have been filled */
			r = vol_getattr(tree->vol, attr.ino, &attr);
		if (r < 0) {
			if (is_dir && thing_remove_made(tree, attr.ino) == 0)
				vol_rmdir(tree->vol, parent, name, NULL);
			else if (!is_dir)
				vol_unlink(tree->vol, parent, name, NULL);
			goto out;
		}
	}
	*ret = attr;
out:
	place_unref(dir);
	return r;
}

int tree_link(struct tree *tree, const struct tree_caller *caller, uint64_t ino, uint64_t parent,
	      const char *name, struct vol_attr *ret)
{
	const struct node_type *type;
	struct vol_attr attr;
	struct place *dir;
	struct node node;
	uint8_t kind;
	int r;

	r = place_get(tree, parent, &dir);
	if (r < 0)
		return r;
	r = may_change(tree, caller, dir, name, false);
	if (r < 0)
		goto out;
	r = vol_getattr(tree->vol, ino, &attr);
	if (r < 0)
		goto out;
	kind = node_child_kind(dir->kind, name, attr.mode);
	type = node_type(kind);
	if (type->flags & NODE_TEXT) { /* its writes would have to obey two names */
		r = -EPERM;
		goto out;
	}
	r = vol_link(tree->vol, ino, parent, name, &attr);
	if (r < 0)
		goto out;
	/* The kind that has more to tell wins: an instance stays one when a data set links to it. */
	if (kind == NODE_INSTANCE && attr.kind != kind)
		vol_setattr(tree->vol, ino, &(struct vol_attr){.kind = kind}, VOL_SET_KIND, &attr);
	remember(tree, &attr, parent, name);
	node = (struct node){.tree = tree, .dir = dir, .name = name, .ino = ino, .kind = kind};
	/* What another handle still writes to it is told of its other name only, so it counts as it is. */
	if (type->came)
		type->came(&node, NODE_MOVED, false);
	*ret = attr;
out:
	place_unref(dir);
	return r;
}

int tree_unlink(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name)
{
	struct vol_attr attr;
	struct place *dir;
	struct node node;
	int r;

	r = place_get(tree, parent, &dir);
	if (r < 0)
		return r;
	r = may_change(tree, caller, dir, name, true);
	if (r == 0)
		r = vol_unlink(tree->vol, parent, name, &attr);
	if (r == 0) {
		place_drop(tree, attr.ino, parent, name);
		handles_unlinked(tree, attr.ino, attr.nlink == 0);
		node = (struct node){.tree = tree,
				     .dir = dir,
				     .name = name,
				     .ino = attr.ino,
				     .kind = attr.kind == NODE_MADE
						     ? NODE_MADE
						     : node_child_kind(dir->kind, name, attr.mode)};
		if (node_type(node.kind)->went)
			node_type(node.kind)->went(&node, NODE_REMOVED);
	}
	place_unref(dir);
	return r;
}

int tree_rmdir(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name)
{
	const struct node_type *type;
	struct vol_attr attr;
	struct place *dir;
	struct node node;
	bool told = false;
	int r;

	r = place_get(tree, parent, &dir);
	if (r < 0)
		return r;
	r = vol_lookup(tree->vol, parent, name, &attr);
	if (r < 0)
		goto out;
	type = node_type(attr.kind);
	r = type->flags & NODE_FIXED ? -EPERM : may_change(tree, caller, dir, name, true);
	if (r < 0)
		goto out;
	node = (struct node){
		.tree = tree, .dir = dir, .name = name, .ino = attr.ino, .kind = attr.kind, .is_dir = true};
	for (int i = 0; i < RMDIR_TRIES; i++) {
		r = 0;
		if (type->flags & NODE_OWNS_MADE && S_ISDIR(attr.mode))
			r = thing_remove_made(tree, attr.ino);
		if (r == 0)
			r = vol_rmdir(tree->vol, parent, name, NULL);
		else if (r != -EAGAIN)
			goto out;
		if ((r != -ENOTEMPTY && r != -EAGAIN) || !(type->flags & NODE_OWNS_MADE))
			break;
		/* Answers still come: let the scheduler know first, then try again. */
		if (type->went && !told)
			type->went(&node, NODE_REMOVED);
		told = true;
		nanosleep(&(struct timespec){.tv_nsec = RMDIR_PAUSE_NS}, NULL);
		r = -ENOTEMPTY;
	}
	if (r < 0)
		goto out;
	place_forget(tree, attr.ino);
	if (type->went && !told)
		type->went(&node, NODE_REMOVED);
out:
	place_unref(dir);
	return r;
}
