/*
 * infer/APP and jobs/NAME: mkdir makes what a user needs in them, rmdir takes what inferfs made away.
 */
#include "fs/node/node.h"

#include "engine/base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	uint64_t ino;
	uint8_t kind;
	bool is_dir;
	char *name;
};

struct listing {
	struct entry *entries;
	size_t n, size;
	int r;
};

static void listing_release(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->entries[i].name);
	free(l->entries);
}

static int listing_add(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	struct listing *l = data;
	char *copy = strdup(name);

	(void)cookie;
	if (copy && l->n == l->size) {
		size_t size = l->size ? l->size * 2 : 32;
		struct entry *more = realloc(l->entries, size * sizeof(*more));

		if (more) {
			l->entries = more;
			l->size = size;
		} else {
			free(copy);
			copy = NULL;
		}
	}
	if (!copy) {
		l->r = -ENOMEM;
		return 1;
	}
	l->entries[l->n++] = (struct entry){
		.ino = attr->ino, .kind = attr->kind, .is_dir = S_ISDIR(attr->mode), .name = copy};
	return 0;
}

/* Nothing is removed while the volume's scan runs. */
static int listing_read(struct tree *tree, uint64_t dir, struct listing *l)
{
	int r = vol_readdir(tree->vol, dir, 0, true, listing_add, l);

	return l->r < 0 ? l->r : r < 0 ? r : 0;
}

/* What belongs to a thing rather than to its user. */
static bool is_ours(const struct entry *e)
{
	switch (e->kind) {
	case NODE_MADE:
	case NODE_JOB_SPEC:
	case NODE_JOB_CTL:
	case NODE_JOB_DIR:
	case NODE_APP_SPEC:
	case NODE_APP_CTL:
	case NODE_IN:
	case NODE_OUT:
	case NODE_OUT_DIR:
	case NODE_DEADLINE:
		return true;
	default:
		return false;
	}
}

static int visit(struct tree *tree, uint64_t dir, bool remove)
{
	struct listing l = {0};
	int r = listing_read(tree, dir, &l);

	for (size_t i = 0; r == 0 && i < l.n; i++) {
		const struct entry *e = &l.entries[i];

		if (!is_ours(e))
			r = -ENOTEMPTY;
		else if (e->is_dir)
			r = visit(tree, e->ino, remove);
		if (r < 0 || !remove)
			continue;
		r = e->is_dir ? vol_rmdir(tree->vol, dir, e->name, NULL)
			      : vol_unlink(tree->vol, dir, e->name, NULL);
		if (r == -ENOENT) /* the publisher was faster */
			r = 0;
	}
	listing_release(&l);
	return r;
}

int thing_remove_made(struct tree *tree, uint64_t dir)
{
	int r = visit(tree, dir, false);

	if (r == 0)
		r = visit(tree, dir, true) < 0 ? -EAGAIN : 0;
	return r;
}

/* Made for the same user as the thing itself. */
static int make(const struct node *node, const char *name, mode_t mode)
{
	struct vol_new what = {.mode = mode};
	struct vol_attr attr;
	int r;

	r = vol_getattr(node->tree->vol, node->ino, &attr);
	if (r < 0)
		return r;
	what.uid = attr.uid;
	what.gid = attr.gid;
	if (S_ISDIR(mode)) /* the same people may write here as made the thing */
		what.mode |= attr.mode & 07777;
	what.kind = node_child_kind(node->kind, name, mode);
	return vol_create(node->tree->vol, node->ino, name, &what, &attr);
}

int job_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	(void)open_for_writing;
	return event == NODE_CREATED ? make(node, "ctl", S_IFREG | 0644) : 0;
}

int app_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	int r;

	(void)open_for_writing;
	if (event != NODE_CREATED)
		return 0;
	r = make(node, "in", S_IFDIR);
	if (r == 0)
		r = make(node, "out", S_IFDIR);
	return r < 0 ? r : make(node, "ctl", S_IFREG | 0644);
}

void thing_close(const struct node *node, const char *top)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", top, node->name);
	if (publisher_close(glue_publisher(node->tree->glue), path) < 0)
		log_error("%s: out of memory: a new one of this name may show what was of the old", path);
}

void job_went(const struct node *node, enum node_event event)
{
	struct sched *sched = node_sched(node);

	(void)event;
	if (!sched)
		return;
	thing_close(node, "jobs");
	sched_post_job_gone(sched, node->name);
}

void app_went(const struct node *node, enum node_event event)
{
	struct sched *sched = node_sched(node);

	(void)event;
	if (!sched)
		return;
	thing_close(node, "infer");
	sched_post_endpoint_gone(sched, node->name);
}
