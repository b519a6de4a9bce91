/*
 * Small texts (NODE_TEXT): what the file would hold after a write is judged before it is written. A refused write leaves
 * the file as it was, also if it was opened with O_TRUNC, as `echo … >` does: an endpoint that goes on must find its spec at
 * the next start.
 */
#include "fs/node/node.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The content as it would be with `data` at `offset`; malloc'd, NUL-terminated. */
static int overlay(struct tree_file *file, const void *data, size_t size, uint64_t offset, char **ret,
		   size_t *ret_len)
{
	struct vol_attr attr;
	ssize_t n;
	size_t len;
	char *text;
	int r;

	r = vol_getattr(file->tree->vol, file->open->ino, &attr);
	if (r < 0)
		return r;
	if (offset + size > NODE_TEXT_MAX || attr.size > NODE_TEXT_MAX)
		return -EFBIG;
	len = offset + size > attr.size ? offset + size : attr.size;
	text = calloc(1, len + 1);
	if (!text)
		return -ENOMEM;
	n = attr.size ? vol_read(file->vf, text, attr.size, 0) : 0;
	if (n < 0) {
		free(text);
		return n;
	}
	memcpy(text + offset, data, size);
	*ret = text;
	*ret_len = len;
	return 0;
}

void text_keep_old(struct tree_file *file, const struct vol_attr *attr)
{
	unsigned flags = node_type(attr->kind)->flags;
	void *text;

	if (!(flags & NODE_TEXT) || flags & NODE_WORD || attr->size == 0 ||
	    vol_content(file->tree->vol, attr->ino, NODE_TEXT_MAX, &text, &file->old_len) < 0)
		return;
	file->old = text;
}

static int empty(struct tree_file *file)
{
	return vol_setattr(file->tree->vol, file->open->ino, &(struct vol_attr){0}, VOL_SET_SIZE,
			   &(struct vol_attr){0});
}

/* A write was refused: the file is as it was before it was opened, and nothing is told of it. */
static void put_old_back(struct tree_file *file)
{
	struct tree *tree = file->tree;
	ssize_t n = empty(file);

	if (n == 0)
		n = vol_write(file->vf, file->old, file->old_len, 0);
	if (n != (ssize_t)file->old_len) {
		log_error("inode %llu stays empty after a write that was refused: %s",
			  (unsigned long long)file->open->ino, n < 0 ? strerror((int)-n) : "no room");
		return;
	}
	file->has_old = true;
	pthread_mutex_lock(&tree->open_lock);
	if (file->open->writers == 1)
		__atomic_store_n(&file->open->changed, false, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&tree->open_lock);
}

ssize_t text_write(struct tree_file *file, const struct node_type *type, const void *data, size_t size,
		   uint64_t offset)
{
	struct tree *tree = file->tree;
	struct node node = {0};
	char name[256], *text = NULL;
	size_t len = 0;
	ssize_t n = 0;
	int r;

	r = handles_snapshot(tree, file->open, &node, name);
	if (r == -ENOENT) /* unlinked: nobody will read it as a spec */
		return vol_write(file->vf, data, size, offset);
	if (r < 0)
		return r;
	pthread_mutex_lock(&file->open->text_lock);
	if (file->has_old && (r = empty(file)) == 0) /* another try: what it opened was empty */
		file->has_old = false;
	if (r < 0) {
		/* nothing can be written */
	} else if (type->flags & NODE_WORD) {
		r = size > NODE_TEXT_MAX ? -EFBIG : 0;
		text = r < 0 ? NULL : strndup(data, size);
		len = text ? strlen(text) : 0;
		if (r == 0 && !text)
			r = -ENOMEM;
		if (r == 0 && len != size)
			r = -EINVAL;
	} else {
		r = overlay(file, data, size, offset, &text, &len);
	}
	if (r == 0) {
		r = type->check(&node, text, len, false);
		if (r < 0 && file->old)
			put_old_back(file);
	}
	if (r == 0 && type->flags & NODE_WORD) {
		r = vol_setattr(tree->vol, node.ino, &(struct vol_attr){0}, VOL_SET_SIZE,
				&(struct vol_attr){0});
		offset = 0;
	}
	if (r == 0) {
		n = vol_write(file->vf, data, size, offset);
		if (n < 0)
			r = n;
	}
	if (r == 0) {
		handles_mark_changed(tree, file->open);
		if (type->wrote)
			r = type->wrote(&node, text, len);
	}
	pthread_mutex_unlock(&file->open->text_lock);
	place_unref(node.dir);
	free(text);
	return r < 0 ? r : n;
}

int text_flush(struct tree_file *file, const struct node_type *type, const struct node *node)
{
	size_t len = 0;
	char *text = NULL;
	int r;

	pthread_mutex_lock(&file->open->text_lock);
	r = overlay(file, "", 0, 0, &text, &len);
	if (r == 0) {
		r = type->check(node, text, len, true);
		free(text);
	}
	pthread_mutex_unlock(&file->open->text_lock);
	return r;
}
