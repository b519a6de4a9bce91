/*
 * Open files. Every inode that is open for writing has one open_node, however many handles there are: it
 * counts them, knows whether anything was changed, and keeps the name for the event at the end. FLUSH proves
 * nothing (a shell flushes before it writes, a fork in mid-write), so the end is the last RELEASE; an FSYNC is
 * told, too, since an NFS server sends RELEASE only after minutes.
 *
 * Locks: tree->open_lock guards the table and the fields of open_node; text_lock is held around
 * read-check-write of a small text, and is taken first. `came` of a file that was moved while open, and `writing` of one whose
 * directory was, run with open_lock held: they may post and change the volume, and nothing else.
 */
#include "fs/node/node.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static uint64_t appended(const struct tree *tree)
{
	return tree->glue ? publisher_appended(glue_publisher(tree->glue)) : 0;
}

struct open_node **open_find(struct tree *tree, uint64_t ino)
{
	struct open_node **at = &tree->open_nodes[ino % OPEN_BUCKETS];

	while (*at && (*at)->ino != ino)
		at = &(*at)->next;
	return at;
}

static bool has_events(const struct node_type *type)
{
	return type->writing || type->complete || type->check;
}

int node_find(struct tree *tree, const struct vol_attr *attr, struct node *ret, char *name)
{
	struct place *dir;
	int r = place_find(tree, attr, &dir, name);

	if (r < 0)
		return r;
	*ret = (struct node){.tree = tree,
			     .dir = dir,
			     .name = name,
			     .ino = attr->ino,
			     .kind = attr->kind,
			     .is_dir = S_ISDIR(attr->mode)};
	return 0;
}

int handles_snapshot(struct tree *tree, struct open_node *open, struct node *ret, char *name)
{
	struct vol_attr attr;
	bool known, gone;
	int r = 0;

	pthread_mutex_lock(&tree->open_lock);
	gone = open->gone;
	known = open->dir;
	if (known && !gone) {
		strcpy(name, open->name);
		*ret = (struct node){.tree = tree,
				     .dir = place_ref(open->dir),
				     .name = name,
				     .ino = open->ino,
				     .kind = open->kind};
	}
	pthread_mutex_unlock(&tree->open_lock);
	if (gone)
		return -ENOENT;
	if (!known) {
		r = vol_getattr(tree->vol, open->ino, &attr);
		return r < 0 ? r : node_find(tree, &attr, ret, name);
	}
	/* A directory on the way may have moved since, perhaps to where this is something else. */
	if (ret->dir->epoch != __atomic_load_n(&tree->epoch, __ATOMIC_ACQUIRE)) {
		struct place *fresh;

		r = vol_getattr(tree->vol, ret->ino, &attr);
		if (r == 0)
			r = place_get(tree, ret->dir->ino, &fresh);
		if (r == 0) {
			place_unref(ret->dir);
			ret->dir = fresh;
			ret->kind = attr.kind;
		} else {
			place_unref(ret->dir);
			ret->dir = NULL;
		}
	}
	return r;
}

void handles_mark_changed(struct tree *tree, struct open_node *open)
{
	char name[256];
	struct node node;
	bool first;

	if (__atomic_load_n(&open->changed, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&tree->open_lock);
	first = !open->changed;
	__atomic_store_n(&open->changed, true, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&tree->open_lock);
	if (first && handles_snapshot(tree, open, &node, name) == 0) {
		if (node_type(node.kind)->writing)
			node_type(node.kind)->writing(&node);
		place_unref(node.dir);
	}
}

static int open_get(struct tree *tree, const struct vol_attr *attr, struct open_node **ret)
{
	struct open_node **at, *open, *new = NULL;
	struct node node = {0};
	char name[256];

	new = calloc(1, sizeof(*new));
	if (!new)
		return -ENOMEM;
	if (has_events(node_type(attr->kind)) && node_find(tree, attr, &node, name) == 0) {
		new->dir = node.dir;
		strcpy(new->name, name);
	}
	new->ino = attr->ino;
	new->kind = attr->kind;
	pthread_mutex_init(&new->text_lock, NULL);
	pthread_mutex_lock(&tree->open_lock);
	at = open_find(tree, attr->ino);
	open = *at;
	if (!open) {
		*at = open = new;
		new = NULL;
	}
	open->writers++;
	pthread_mutex_unlock(&tree->open_lock);
	if (new) {
		place_unref(new->dir);
		pthread_mutex_destroy(&new->text_lock);
		free(new);
	}
	*ret = open;
	return 0;
}

/* One handle less. complete: tell, if that was the last and something had changed. */
static void open_put(struct tree *tree, struct open_node *open, bool complete)
{
	const struct node_type *type;
	struct open_node **at;
	char name[256];
	struct node node;

	pthread_mutex_lock(&tree->open_lock);
	at = open_find(tree, open->ino);
	if (--open->writers) {
		pthread_mutex_unlock(&tree->open_lock);
		return;
	}
	*at = open->next;
	pthread_mutex_unlock(&tree->open_lock);
	if (complete && (open->changed || open->synced) && handles_snapshot(tree, open, &node, name) == 0) {
		type = node_type(node.kind);
		if (open->changed && type->complete)
			type->complete(&node);
		else if (!open->changed && type->synced)
			type->synced(&node, true);
		place_unref(node.dir);
	}
	place_unref(open->dir);
	pthread_mutex_destroy(&open->text_lock);
	free(open);
}

bool handles_moved(const struct node *node)
{
	struct tree *tree = node->tree;
	struct place *old = NULL;
	struct open_node *open;

	pthread_mutex_lock(&tree->open_lock);
	open = *open_find(tree, node->ino);
	if (open) {
		old = open->dir;
		open->dir = place_ref(node->dir);
		strcpy(open->name, node->name);
		__atomic_store_n(&open->kind, node->kind, __ATOMIC_RELAXED);
		__atomic_store_n(&open->changed, true, __ATOMIC_RELAXED);
		/* With the lock held: a program that renames what it has just closed is often faster than the RELEASE,
		 * whose `complete` must come after this. */
		if (node_type(node->kind)->came)
			node_type(node->kind)->came(node, NODE_MOVED, true);
	}
	pthread_mutex_unlock(&tree->open_lock);
	place_unref(old);
	return open;
}

static bool is_below(const struct node *node, const struct node *dir)
{
	char path[PATH_MAX], top[PATH_MAX];
	size_t len;

	if (strcmp(node->dir->thing, dir->dir->thing) != 0 || place_path(node, path, sizeof(path)) < 0 ||
	    place_path(dir, top, sizeof(top)) < 0)
		return false;
	len = strlen(top);
	return strncmp(path, top, len) == 0 && path[len] == '/';
}

void handles_moved_below(const struct node *dir)
{
	struct tree *tree = dir->tree;
	struct vol_attr attr;
	struct node node;
	char name[256];

	/* With the lock held, as in handles_moved: `complete` comes after it. */
	pthread_mutex_lock(&tree->open_lock);
	for (size_t i = 0; i < OPEN_BUCKETS; i++)
		for (struct open_node *open = tree->open_nodes[i]; open; open = open->next) {
			if (open->gone || !__atomic_load_n(&open->changed, __ATOMIC_RELAXED) ||
			    vol_getattr(tree->vol, open->ino, &attr) < 0 || !node_type(attr.kind)->writing ||
			    node_find(tree, &attr, &node, name) < 0)
				continue;
			if (is_below(&node, dir))
				node_type(node.kind)->writing(&node);
			place_unref(node.dir);
		}
	pthread_mutex_unlock(&tree->open_lock);
}

void handles_unlinked(struct tree *tree, uint64_t ino, bool last)
{
	struct place *old = NULL;
	struct open_node *open;

	pthread_mutex_lock(&tree->open_lock);
	open = *open_find(tree, ino);
	if (open) {
		open->gone = last;
		old = open->dir; /* another link's name is looked for when it is needed */
		open->dir = NULL;
	}
	pthread_mutex_unlock(&tree->open_lock);
	place_unref(old);
}

bool handles_changed(struct tree *tree, uint64_t ino)
{
	struct open_node *open;

	pthread_mutex_lock(&tree->open_lock);
	open = *open_find(tree, ino);
	if (open)
		__atomic_store_n(&open->changed, true, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&tree->open_lock);
	return open;
}

int tree_open(struct tree *tree, uint64_t ino, int flags, bool created, struct tree_file **ret)
{
	struct tree_file *file = calloc(1, sizeof(*file));
	bool writable = (flags & O_ACCMODE) != O_RDONLY;
	int mode = flags & O_ACCMODE, r;
	struct vol_attr attr;

	if (!file)
		return -ENOMEM;
	r = vol_getattr(tree->vol, ino, &attr);
	if (r < 0)
		goto fail;
	file->tree = tree;
	file->kind = attr.kind;
	file->grown = appended(tree);
	if (writable) {
		r = open_get(tree, &attr, &file->open);
		if (r < 0)
			goto fail;
		if (node_type(attr.kind)->flags & NODE_TEXT) /* the check reads it */
			mode = O_RDWR;
		if (flags & O_TRUNC)
			text_keep_old(file, &attr);
	}
	/* The kernel works out the offsets of O_APPEND and has done what the other flags ask for. */
	file->mode = (uint8_t)mode;
	r = vol_file_open(tree->vol, ino, mode | (writable ? flags & O_TRUNC : 0), &file->vf);
	if (r < 0)
		goto fail;
	r = backing_join(file, flags, created);
	if (r == 0)
		r = numbers_put(tree->numbers, file, &file->number);
	if (r < 0)
		goto fail;
	file->truncated = writable && flags & O_TRUNC;
	if (writable && (created || flags & O_TRUNC))
		handles_mark_changed(tree, file->open);
	*ret = file;
	return 0;
fail:
	backing_leave(file);
	vol_file_close(file->vf);
	if (file->open)
		open_put(tree, file->open, false);
	free(file->old);
	free(file);
	return r;
}

/* What was stored by mapping the blob nobody told us. 1: there was something. */
static int look_for_stores(struct tree_file *file)
{
	if (file->io != TREE_IO_BACKED || !vol_stored(file->vf))
		return 0;
	if (file->open)
		handles_mark_changed(file->tree, file->open);
	return 1;
}

void tree_release(struct tree_file *file)
{
	numbers_drop(file->tree->numbers, file->number);
	look_for_stores(file);
	backing_leave(file);
	vol_file_close(file->vf); /* first: whoever hears of the end reads the whole content */
	if (file->open)
		open_put(file->tree, file->open, true);
	free(file->old);
	free(file);
}

uint64_t tree_number(const struct tree_file *file)
{
	return file->number;
}

struct tree_file *tree_numbered(struct tree *tree, uint64_t number)
{
	return numbers_get(tree->numbers, number);
}

struct vol_file *tree_vol_file(struct tree_file *file)
{
	return file->vf;
}

bool tree_wants_flush(const struct tree_file *file)
{
	return file->open && (file->truncated || node_type(file->kind)->flags & NODE_TEXT ||
			      (file->io == TREE_IO_BACKED && file->mode == O_RDWR));
}

int tree_drop_privileges(struct tree_file *file)
{
	struct vol_attr attr;
	mode_t drop;
	int r = vol_getattr(file->tree->vol, vol_file_ino(file->vf), &attr);

	if (r < 0)
		return r;
	drop = attr.mode & (attr.mode & S_IXGRP ? S_ISUID | S_ISGID : S_ISUID);
	if (!drop)
		return 0;
	attr.mode &= ~drop;
	r = vol_setattr(file->tree->vol, attr.ino, &attr, VOL_SET_MODE, NULL);
	return r < 0 ? r : 1;
}

bool tree_is_events(struct tree *tree, uint64_t ino)
{
	struct vol_attr attr;

	return vol_lookup(tree->vol, VOL_ROOT, "events", &attr) == 0 && attr.ino == ino;
}

bool tree_grew(struct tree_file *file)
{
	uint64_t count = appended(file->tree);

	return __atomic_exchange_n(&file->grown, count, __ATOMIC_RELAXED) != count;
}

ssize_t tree_write(struct tree_file *file, const void *data, size_t size, uint64_t offset)
{
	const struct node_type *type;
	ssize_t n;

	if (!file->open)
		return -EBADF;
	type = node_type(__atomic_load_n(&file->open->kind, __ATOMIC_RELAXED));
	if (type->flags & NODE_TEXT)
		return text_write(file, type, data, size, offset);
	n = vol_write(file->vf, data, size, offset);
	if (n >= 0)
		handles_mark_changed(file->tree, file->open);
	return n;
}

int tree_flush(struct tree_file *file)
{
	const struct node_type *type;
	struct node node;
	char name[256];
	int r, stored;

	if (!file->open)
		return 0;
	stored = look_for_stores(file);
	r = vol_flush(file->vf);
	if (r == 0)
		r = stored;
	type = node_type(__atomic_load_n(&file->open->kind, __ATOMIC_RELAXED));
	if (r < 0 || !(type->flags & NODE_TEXT) || !__atomic_load_n(&file->open->changed, __ATOMIC_RELAXED) ||
	    handles_snapshot(file->tree, file->open, &node, name) < 0)
		return r;
	r = text_flush(file, type, &node);
	place_unref(node.dir);
	return r < 0 ? r : stored;
}

int tree_fsync(struct tree_file *file, uint64_t ino, bool data_only)
{
	struct tree *tree = file->tree;
	struct open_node *open;
	char name[256];
	struct node node;
	int r, stored = look_for_stores(file);

	r = vol_fsync(file->vf, data_only);
	if (r < 0)
		return r;
	pthread_mutex_lock(&tree->open_lock);
	open = *open_find(tree, ino); /* sync(1) has a handle of its own, for reading */
	if (open && open->changed && node_type(open->kind)->synced) {
		__atomic_store_n(&open->changed, false, __ATOMIC_RELAXED); /* a further change tells again */
		open->synced = true;
		open->writers++; /* it stays until it is put below */
	} else {
		open = NULL;
	}
	pthread_mutex_unlock(&tree->open_lock);
	if (!open)
		return stored;
	if (handles_snapshot(tree, open, &node, name) == 0) {
		if (node_type(node.kind)->synced)
			node_type(node.kind)->synced(&node, false);
		place_unref(node.dir);
	}
	open_put(tree, open, true);
	return stored;
}

int tree_fallocate(struct tree_file *file, int mode, uint64_t offset, uint64_t length)
{
	int r;

	if (!file->open)
		return -EBADF;
	if (node_type(__atomic_load_n(&file->open->kind, __ATOMIC_RELAXED))->flags & NODE_TEXT)
		return -EOPNOTSUPP;
	r = vol_fallocate(file->vf, mode, offset, length);
	if (r == 0)
		handles_mark_changed(file->tree, file->open);
	return r;
}
