/*
 * Everything below infer/APP/in: instances, batch directories, deadlines.
 *
 * An instance is complete when the last handle that changed it is released, or when it is renamed (or linked)
 * into place. An NFSv3 server keeps its handle open for minutes after the client is done: FSYNC is posted too,
 * and the scheduler takes a file that is not changed for a while after it as complete.
 *
 * user.state and user.result belong to the scheduler. Setting or removing them on an instance answers success
 * and does nothing: `rsync -X` and `cp -a` copy them with everything else, and rsync would call the whole
 * copy failed for an EPERM that its user can't mend.
 */
#include "fs/node/node.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/xattr.h>

static bool waits(const struct node *node)
{
	return node->dir->waits || node_name_waits(node->name);
}

/* The node's path relative to in/; "" for in/ itself. NULL: too long to have events, or moved away meanwhile. */
static const char *in_path(const struct node *node, char *path, size_t size)
{
	if (place_path(node, path, size) < 0)
		return NULL;
	if (strcmp(path, "in") == 0)
		return "";
	return strncmp(path, "in/", 3) == 0 ? path + 3 : NULL;
}

static void post(const struct node *node, enum instance_event event)
{
	struct sched *sched = node_sched(node);
	char path[PATH_MAX];
	const char *rel;

	if (!sched || waits(node))
		return;
	rel = in_path(node, path, sizeof(path));
	if (rel)
		sched_post_instance(sched, node->dir->thing, event, rel, node->ino);
}

void instance_forget_answer(struct tree *tree, uint64_t ino)
{
	vol_removexattr(tree->vol, ino, "user.state");
	vol_removexattr(tree->vol, ino, "user.result");
}

int instance_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	if (event == NODE_MOVED)
		instance_forget_answer(node->tree, node->ino);
	/* A new one is open, or (mknod, as an NFS server does) will be: that open's end tells. One that is no regular file
	 * is answered too: with what is wrong with it. */
	if (event == NODE_MOVED || node->is_whole)
		post(node, open_for_writing ? INSTANCE_WRITING : INSTANCE_COMPLETE);
	return 0;
}

void instance_went(const struct node *node, enum node_event event)
{
	(void)event;
	post(node, INSTANCE_REMOVED);
}

void instance_writing(const struct node *node)
{
	instance_forget_answer(node->tree, node->ino);
	post(node, INSTANCE_WRITING);
}

void instance_complete(const struct node *node)
{
	post(node, INSTANCE_COMPLETE);
}

void instance_synced(const struct node *node, bool closed)
{
	post(node, closed ? INSTANCE_CLOSED : INSTANCE_SYNCED);
}

static void post_batch(const struct node *node, enum batch_event event)
{
	struct sched *sched = node_sched(node);
	char path[PATH_MAX];
	const char *rel;

	if (!sched || waits(node))
		return;
	rel = in_path(node, path, sizeof(path));
	if (rel)
		sched_post_batch(sched, node->dir->thing, event, rel, node->ino);
}

int batch_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	(void)open_for_writing;
	if (event == NODE_MOVED)
		handles_moved_below(node); /* first: they are no part of what is whole in it */
	post_batch(node, event == NODE_MOVED ? BATCH_RENAMED_IN : BATCH_MADE);
	return 0;
}

void batch_went(const struct node *node, enum node_event event)
{
	(void)event;
	post_batch(node, BATCH_REMOVED);
}

/* --- the deadline --- */

int deadline_check_xattr(const struct node *node, const char *name, const char *value, size_t size)
{
	(void)node;
	if (strcmp(name, "user.admitted") == 0)
		return 1;
	if (strcmp(name, "user.deadline") != 0 || !value)
		return 0;
	return deadline_parse(&(struct deadline){0}, value, size, NULL);
}

void deadline_xattr(const struct node *node, const char *name, const char *value, size_t size)
{
	struct sched *sched = node_sched(node);
	char path[PATH_MAX], text[64];
	const char *rel;

	if (!sched || strcmp(name, "user.deadline") != 0 || size >= sizeof(text))
		return;
	/* One that waits for its name gets its deadline from the xattr when it is renamed. in/ and batch
	 * directories are not instances: only their own names tell. */
	if (waits(node))
		return;
	if (value) {
		memcpy(text, value, size);
		text[size] = '\0';
	}
	rel = in_path(node, path, sizeof(path));
	if (rel)
		sched_post_deadline(sched, node->dir->thing, rel, node->ino, value ? text : NULL);
}

int instance_check_xattr(const struct node *node, const char *name, const char *value, size_t size)
{
	if (strcmp(name, "user.state") == 0 || strcmp(name, "user.result") == 0)
		return 1;
	return deadline_check_xattr(node, name, value, size);
}

/* --- `.deadline`: the same for clients that have no xattrs; it sets the xattr of its directory --- */

static int set_on_dir(const struct node *node, const char *text, size_t len)
{
	struct tree *tree = node->tree;
	struct place *up = NULL;
	struct vol_attr attr;
	char name[256];
	int r;

	r = vol_getattr(tree->vol, node->dir->ino, &attr);
	if (r < 0)
		return r;
	r = place_find(tree, &attr, &up, name);
	if (r < 0)
		return r;
	if (len && text[len - 1] == '\n')
		len--;
	if (text)
		r = vol_setxattr(tree->vol, attr.ino, "user.deadline", text, len, 0);
	else
		r = vol_removexattr(tree->vol, attr.ino, "user.deadline");
	if (r >= 0) {
		struct node dir = {.tree = tree,
				   .dir = up,
				   .name = name,
				   .ino = attr.ino,
				   .kind = attr.kind,
				   .is_dir = true};

		deadline_xattr(&dir, "user.deadline", text, len);
	}
	place_unref(up);
	return r == -ENODATA ? 0 : r;
}

int deadline_check(const struct node *node, const char *text, size_t len, bool final)
{
	(void)node;
	(void) final;
	return len ? deadline_parse(&(struct deadline){0}, text, len, NULL) : 0;
}

int deadline_wrote(const struct node *node, const char *text, size_t len)
{
	return len ? set_on_dir(node, text, len) : 0;
}

void deadline_went(const struct node *node, enum node_event event)
{
	(void)event;
	set_on_dir(node, NULL, 0);
}
