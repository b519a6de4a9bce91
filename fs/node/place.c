/*
 * Where things are. Events carry names, requests carry inode numbers, and the volume keeps the way back only
 * for directories; so two tables are kept here, both caches of bounded size that may forget at any time:
 *
 * - dirs: of a directory, the thing it lies in, the path from there, and what a new entry inherits. A move or
 *   removal of any directory may change many of them: `epoch` then makes all of them old at once.
 * - names: of files whose kind is NODE_PLACED, directory and name as they were last seen. A name that is
 *   not there any more (forgotten, or there are several links) is looked for by a walk, which fills the
 *   table with what it sees.
 *
 * Both are indexed by inode number modulo size: numbers are given out in sequence, so neighbours do not
 * push one another out.
 */
#include "fs/node/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 100000 /* a longer way up is a loop of a damaged volume */
#define TRIES     16     /* chosen: renames that may come between */

struct name_slot {
	uint64_t ino, parent;
	char name[];
};

struct place *place_ref(struct place *place)
{
	__atomic_add_fetch(&place->refs, 1, __ATOMIC_RELAXED);
	return place;
}

void place_unref(struct place *place)
{
	if (place && __atomic_sub_fetch(&place->refs, 1, __ATOMIC_ACQ_REL) == 0)
		free(place);
}

/* A thing is where the paths of events begin. */
static bool is_thing(uint8_t kind)
{
	return kind == NODE_DATASET || kind == NODE_JOB || kind == NODE_APP || kind == NODE_MODEL;
}

static bool below_in(uint8_t kind)
{
	return kind == NODE_BATCH || kind == NODE_BATCH_DIR;
}

/* NULL: not known, or out of date */
static struct place *cached(struct tree *tree, uint64_t dir)
{
	uint64_t epoch = __atomic_load_n(&tree->epoch, __ATOMIC_ACQUIRE);
	struct place *place;

	pthread_mutex_lock(&tree->place_lock);
	place = tree->dirs[dir % DIR_SLOTS];
	place = place && place->ino == dir && place->epoch == epoch ? place_ref(place) : NULL;
	pthread_mutex_unlock(&tree->place_lock);
	return place;
}

static bool has_up(const struct vol_attr *attr)
{
	return attr->kind != NODE_ROOT && attr->parent && attr->parent != attr->ino && !is_thing(attr->kind);
}

static int get_dir(struct tree *tree, uint64_t dir, struct vol_attr *ret)
{
	int r = vol_getattr(tree->vol, dir, ret);

	return r < 0 ? r : S_ISDIR(ret->mode) ? 0 : -ENOTDIR;
}

/* The place of a directory whose parent's is `up` (NULL: it needs none). -EAGAIN: it was moved meanwhile. */
static int place_below(struct tree *tree, uint64_t dir, const struct place *up, uint64_t epoch,
		       struct place **ret)
{
	const char *thing = "", *path = "", *last = "";
	size_t thing_len, path_len;
	struct place *place;
	struct vol_attr attr;
	char name[256] = "";
	int r = get_dir(tree, dir, &attr);

	if (r < 0)
		return r;
	if (has_up(&attr) != !!up || (up && up->ino != attr.parent))
		return -EAGAIN;
	if (up || is_thing(attr.kind)) {
		r = vol_dir_name(tree->vol, dir, name, sizeof(name));
		if (r < 0)
			return r;
	}
	if (!up) {
		thing = name;
	} else if (*up->thing) {
		thing = up->thing;
		path = up->path;
		last = name;
	}
	thing_len = strlen(thing);
	path_len = strlen(path) + 1 + strlen(last);
	place = malloc(sizeof(*place) + thing_len + 1 + path_len + 1);
	if (!place)
		return -ENOMEM;
	*place = (struct place){.refs = 1,
				.ino = dir,
				.epoch = epoch,
				.kind = attr.kind,
				.mode = attr.mode,
				.uid = attr.uid,
				.gid = attr.gid,
				.waits = up && (up->waits || (below_in(attr.kind) && node_name_waits(name)))};
	place->thing = (char *)(place + 1);
	place->path = place->thing + thing_len + 1;
	strcpy(place->thing, thing);
	strcpy(place->path, path);
	if (*path)
		strcat(place->path, "/");
	strcat(place->path, last);
	*ret = place;
	return 0;
}

static int place_make(struct tree *tree, uint64_t dir, struct place **ret)
{
	uint64_t epoch = __atomic_load_n(&tree->epoch, __ATOMIC_ACQUIRE); /* before anything is looked at */
	uint64_t *way = NULL, at = dir; /* from dir upwards, without the one whose place is `up` */
	struct place *up = NULL, *place;
	size_t n = 0, size = 0;
	struct vol_attr attr;
	int r = 0;

	/* Up to what is known or needs no more, then down again; not by recursion, since depth has no limit. */
	do {
		if (n == size) {
			void *more = realloc(way, (size ? size * 2 : 16) * sizeof(*way));

			r = more ? 0 : -ENOMEM;
			if (r < 0)
				goto out;
			way = more;
			size = size ? size * 2 : 16;
		}
		way[n++] = at;
		r = n > MAX_DEPTH ? -ELOOP : get_dir(tree, at, &attr);
		if (r < 0)
			goto out;
		at = attr.parent;
	} while (has_up(&attr) && !(up = cached(tree, at)));
	while (n > 0) {
		r = place_below(tree, way[--n], up, epoch, &place);
		if (r < 0)
			goto out;
		place_unref(up);
		up = place;
	}
	*ret = up;
	up = NULL;
out:
	place_unref(up);
	free(way);
	return r;
}

int place_get(struct tree *tree, uint64_t dir, struct place **ret)
{
	struct place **slot = &tree->dirs[dir % DIR_SLOTS], *place = cached(tree, dir), *old;
	int r = -EAGAIN;

	if (place) {
		*ret = place;
		return 0;
	}
	for (int i = 0; i < TRIES && r == -EAGAIN; i++)
		r = place_make(tree, dir, &place);
	if (r < 0)
		return r == -EAGAIN ? -EIO : r;
	pthread_mutex_lock(&tree->place_lock);
	old = *slot;
	*slot = place_ref(place);
	pthread_mutex_unlock(&tree->place_lock);
	place_unref(old);
	*ret = place;
	return 0;
}

void place_forget(struct tree *tree, uint64_t dir)
{
	struct place **slot = &tree->dirs[dir % DIR_SLOTS], *old = NULL;

	pthread_mutex_lock(&tree->place_lock);
	if (*slot && (*slot)->ino == dir) {
		old = *slot;
		*slot = NULL;
	}
	pthread_mutex_unlock(&tree->place_lock);
	place_unref(old);
}

void place_forget_all(struct tree *tree)
{
	__atomic_add_fetch(&tree->epoch, 1, __ATOMIC_ACQ_REL);
}

void place_remember(struct tree *tree, uint64_t ino, uint64_t parent, const char *name)
{
	struct name_slot **slot = &tree->names[ino % NAME_SLOTS], *new, *old = NULL;

	pthread_mutex_lock(&tree->place_lock);
	if (*slot && (*slot)->ino == ino && strcmp((*slot)->name, name) == 0) {
		(*slot)->parent = parent;
	} else {
		new = malloc(sizeof(*new) + strlen(name) + 1);
		if (new) {
			new->ino = ino;
			new->parent = parent;
			strcpy(new->name, name);
			old = *slot;
			*slot = new;
		}
	}
	pthread_mutex_unlock(&tree->place_lock);
	free(old);
}

void place_drop(struct tree *tree, uint64_t ino, uint64_t parent, const char *name)
{
	struct name_slot **slot = &tree->names[ino % NAME_SLOTS], *old = NULL;

	pthread_mutex_lock(&tree->place_lock);
	if (*slot && (*slot)->ino == ino && (*slot)->parent == parent && strcmp((*slot)->name, name) == 0) {
		old = *slot;
		*slot = NULL;
	}
	pthread_mutex_unlock(&tree->place_lock);
	free(old);
}

static bool names_get(struct tree *tree, uint64_t ino, uint64_t *parent, char *name)
{
	struct name_slot *slot;
	bool there;

	pthread_mutex_lock(&tree->place_lock);
	slot = tree->names[ino % NAME_SLOTS];
	there = slot && slot->ino == ino;
	if (there) {
		*parent = slot->parent;
		strcpy(name, slot->name);
	}
	pthread_mutex_unlock(&tree->place_lock);
	return there;
}

struct search {
	struct tree *tree;
	uint64_t ino, dir, parent;
	char *name;
	bool found;
	uint64_t *subdirs;
	size_t n, size;
};

static int search_entry(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	struct search *s = data;

	(void)cookie;
	if (attr->ino == s->ino) {
		s->found = true;
		s->parent = s->dir;
		strcpy(s->name, name);
		return 1;
	}
	if (S_ISDIR(attr->mode)) {
		if (s->n == s->size) {
			size_t size = s->size ? s->size * 2 : 64;
			uint64_t *more = realloc(s->subdirs, size * sizeof(*more));

			if (!more)
				return -ENOMEM;
			s->subdirs = more;
			s->size = size;
		}
		s->subdirs[s->n++] = attr->ino;
	} else if (node_type(attr->kind)->flags & NODE_PLACED) {
		place_remember(s->tree, attr->ino, s->dir, name);
	}
	return 0;
}

/* Where a node of this kind can only be: the top directory to search. */
static const char *search_root(uint8_t kind)
{
	switch (kind) {
	case NODE_DATASET_FILE:
		return "datasets";
	case NODE_JOB_SPEC:
	case NODE_JOB_CTL:
		return "jobs";
	case NODE_MODEL_FILE:
		return "models";
	default:
		return "infer";
	}
}

static int search(struct tree *tree, const struct vol_attr *attr, uint64_t *parent, char *name)
{
	struct search s = {.tree = tree, .ino = attr->ino, .name = name};
	struct vol_attr top;
	int r;

	r = vol_lookup(tree->vol, VOL_ROOT, search_root(attr->kind), &top);
	if (r < 0)
		return r;
	s.dir = top.ino;
	for (;;) {
		r = vol_readdir(tree->vol, s.dir, 0, true, search_entry, &s);
		if (s.found || !s.n || r == -ENOMEM)
			break;
		s.dir = s.subdirs[--s.n];
	}
	free(s.subdirs);
	if (!s.found)
		return -ENOENT;
	*parent = s.parent;
	place_remember(tree, attr->ino, s.parent, name);
	return 0;
}

int place_find(struct tree *tree, const struct vol_attr *attr, struct place **ret, char *name)
{
	struct vol_attr there;
	uint64_t parent;
	int r;

	if (S_ISDIR(attr->mode)) {
		r = vol_dir_name(tree->vol, attr->ino, name, 256);
		return r < 0 ? r : place_get(tree, attr->parent, ret);
	}
	/* Of other kinds nobody wants to know; looking for one would walk past all answers, with each line of `events`. */
	if (attr->nlink == 0 || !(node_type(attr->kind)->flags & NODE_PLACED))
		return -ENOENT;
	if (!names_get(tree, attr->ino, &parent, name) || vol_lookup(tree->vol, parent, name, &there) < 0 ||
	    there.ino != attr->ino) {
		r = search(tree, attr, &parent, name);
		if (r < 0)
			return r;
	}
	return place_get(tree, parent, ret);
}

int place_path(const struct node *node, char *ret, size_t size)
{
	const struct place *dir = node->dir;
	int n = snprintf(ret, size, "%s%s%s", dir->path, *dir->path ? "/" : "", node->name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}
