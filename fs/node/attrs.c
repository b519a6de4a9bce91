/*
 * Attributes and xattrs: truncation by name is a change, and some user.* xattrs mean something.
 */
#include "fs/node/node.h"

#include <errno.h>
#include <string.h>

int tree_setattr(struct tree *tree, uint64_t ino, struct tree_file *file, const struct vol_attr *attr,
		 unsigned set, struct vol_attr *ret)
{
	struct vol_attr now;
	char name[256];
	struct node node;
	int r;

	(void)file;
	r = vol_setattr(tree->vol, ino, attr, set & ~VOL_SET_KIND, &now);
	if (r < 0)
		return r;
	if (S_ISDIR(now.mode))
		place_forget(tree, ino); /* new entries inherit from it */
	if (set & VOL_SET_SIZE && !handles_changed(tree, ino) && node_type(now.kind)->complete &&
	    node_find(tree, &now, &node, name) == 0) {
		node_type(now.kind)->complete(&node);
		place_unref(node.dir);
	}
	*ret = now;
	return 0;
}

static int change_xattr(struct tree *tree, uint64_t ino, const char *name, const void *value, size_t size,
			int flags)
{
	const struct node_type *type = NULL;
	struct node node = {0};
	struct vol_attr attr;
	char own[256];
	int r;

	/* Attributes of the system's that would mean something: not kept, and said so. */
	if (strncmp(name, "system.", 7) == 0 || strcmp(name, "security.capability") == 0)
		return value ? -EOPNOTSUPP : -ENODATA;
	if (strncmp(name, "user.", 5) == 0) {
		r = vol_getattr(tree->vol, ino, &attr);
		if (r < 0)
			return r;
		type = node_type(attr.kind);
		if (!type->check_xattr || node_find(tree, &attr, &node, own) < 0)
			type = NULL;
	}
	r = type ? type->check_xattr(&node, name, value, size) : 0;
	if (r == 0) {
		r = value ? vol_setxattr(tree->vol, ino, name, value, size, flags)
			  : vol_removexattr(tree->vol, ino, name);
		if (r >= 0 && type && type->xattr)
			type->xattr(&node, name, value, size);
	}
	place_unref(node.dir);
	return r < 0 ? r : 0;
}

int tree_setxattr(struct tree *tree, uint64_t ino, const char *name, const void *value, size_t size,
		  int flags)
{
	return change_xattr(tree, ino, name, value ? value : "", size, flags);
}

int tree_removexattr(struct tree *tree, uint64_t ino, const char *name)
{
	return change_xattr(tree, ino, name, NULL, 0, 0);
}
