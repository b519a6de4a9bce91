/*
 * Moving names. The publisher's rename of a hidden name is how everything that inferfs writes appears; all
 * others are users' and obey the rules of both directories. What is moved gets the kind of its new place, and
 * so does everything below a directory.
 */
#include "fs/node/node.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct side {
	struct place *dir;
	const char *name;
	struct vol_attr attr; /* of what is there before the rename */
	bool there;
	uint8_t kind; /* of the name before */
};

static int side_init(struct tree *tree, struct side *side, uint64_t parent, const char *name)
{
	int r;

	side->name = name;
	r = place_get(tree, parent, &side->dir);
	if (r < 0)
		return r;
	r = vol_lookup(tree->vol, parent, name, &side->attr);
	if (r < 0)
		return r;
	side->there = true;
	side->kind = S_ISDIR(side->attr.mode) || side->attr.kind == NODE_MADE
			     ? side->attr.kind
			     : node_child_kind(side->dir->kind, name, side->attr.mode);
	return 0;
}

/* What a directory's entries turn into when it became a `kind`. */
struct rekind {
	struct tree *tree;
	uint64_t dir;
	uint8_t kind;
	struct {
		uint64_t ino;
		uint8_t kind;
		bool is_dir;
	} * changes;
	size_t n, size;
};

static int rekind_entry(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	struct rekind *k = data;
	uint8_t kind = node_child_kind(k->kind, name, attr->mode);

	(void)cookie;
	if (kind != NODE_INSTANCE && attr->kind == NODE_MADE)
		return 0; /* a published file stays one, but below in/ it is as good as any */
	if (node_type(kind)->flags & NODE_PLACED)
		place_remember(k->tree, attr->ino, k->dir, name);
	if (kind == attr->kind)
		return 0; /* then all below fits too: the rules for both are the same */
	if (k->n == k->size) {
		size_t size = k->size ? k->size * 2 : 64;
		void *more = realloc(k->changes, size * sizeof(*k->changes));

		if (!more)
			return 1;
		k->changes = more;
		k->size = size;
	}
	k->changes[k->n].ino = attr->ino;
	k->changes[k->n].kind = kind;
	k->changes[k->n++].is_dir = S_ISDIR(attr->mode);
	return 0;
}

/* A text that means something only where it is now: the `.deadline` of a directory that was moved into in/. */
static void tell_text(struct tree *tree, uint64_t dir, const char *name, uint64_t ino, uint8_t kind)
{
	const struct node_type *type = node_type(kind);
	struct node node = {.tree = tree, .name = name, .ino = ino, .kind = kind};
	void *text = NULL;
	size_t len;
	int r;

	r = place_get(tree, dir, &node.dir);
	if (r == 0)
		r = vol_content(tree->vol, ino, NODE_TEXT_MAX, &text, &len);
	if (r == 0)
		r = type->check(&node, text, len, true);
	if (r == 0)
		r = type->wrote(&node, text, len);
	if (r < 0)
		log_warn("rename: %s of inode %llu does not count: %s", name, (unsigned long long)dir,
			 strerror(-r));
	free(text);
	place_unref(node.dir);
}

static void rekind(struct tree *tree, uint64_t dir, uint8_t kind)
{
	struct rekind k = {.tree = tree, .dir = dir, .kind = kind};
	struct vol_attr attr;

	if (vol_readdir(tree->vol, dir, 0, true, rekind_entry, &k) < 0)
		log_warn("rename: some entries of inode %llu keep their old kind", (unsigned long long)dir);
	for (size_t i = 0; i < k.n; i++) {
		vol_setattr(tree->vol, k.changes[i].ino, &(struct vol_attr){.kind = k.changes[i].kind},
			    VOL_SET_KIND, &attr);
		if (k.changes[i].is_dir)
			rekind(tree, k.changes[i].ino, k.changes[i].kind);
		else if (k.changes[i].kind == NODE_INSTANCE)
			instance_forget_answer(tree, k.changes[i].ino);
		else if (k.changes[i].kind == NODE_DEADLINE)
			tell_text(tree, dir, ".deadline", k.changes[i].ino, NODE_DEADLINE);
	}
	free(k.changes);
}

static void went(struct tree *tree, const struct side *side, enum node_event event)
{
	struct node node = {.tree = tree,
			    .dir = side->dir,
			    .name = side->name,
			    .ino = side->attr.ino,
			    .kind = side->kind,
			    .is_dir = S_ISDIR(side->attr.mode)};

	place_drop(tree, node.ino, side->dir->ino, side->name);
	if (node_type(node.kind)->went)
		node_type(node.kind)->went(&node, event);
}

/* Makes the node for what comes to dir/name and checks it as a text of its new kind; *text malloc'd. */
static int arriving(struct tree *tree, const struct side *from, const struct side *to, struct node *node,
		    char **text, size_t *len)
{
	const struct node_type *type;
	void *content = NULL;
	int r;

	*node = (struct node){.tree = tree,
			      .dir = to->dir,
			      .name = to->name,
			      .ino = from->attr.ino,
			      .kind = node_child_kind(to->dir->kind, to->name, from->attr.mode),
			      .is_dir = S_ISDIR(from->attr.mode)};
	type = node_type(node->kind);
	*text = NULL;
	if (!(type->flags & NODE_TEXT))
		return 0;
	r = vol_content(tree->vol, node->ino, NODE_TEXT_MAX, &content, len);
	if (r == 0) {
		r = type->check(node, content, *len, true);
		if (r == 0)
			*text = content;
		else
			free(content);
	}
	return r == -EFBIG ? -EINVAL : r;
}

static void arrived(struct tree *tree, const struct side *from, const struct node *node, const char *text,
		    size_t len)
{
	const struct node_type *type = node_type(node->kind);
	bool told = false;
	int r;

	if (node->is_dir) {
		if (node->kind != from->attr.kind)
			rekind(tree, node->ino, node->kind);
	} else {
		if (type->flags & NODE_PLACED)
			place_remember(tree, node->ino, node->dir->ino, node->name);
		told = handles_moved(node);
	}
	if (text && type->wrote) {
		r = type->wrote(node, text, len);
		if (r < 0)
			log_warn("%s/%s/%s: %s", node->dir->thing, node->dir->path, node->name, strerror(-r));
	}
	if (type->came && !told)
		type->came(node, NODE_MOVED, false);
}

static int may_move(const struct side *from, const struct side *to)
{
	unsigned dirs = node_type(from->dir->kind)->flags | node_type(to->dir->kind)->flags;
	unsigned nodes = node_type(from->kind)->flags | (to->there ? node_type(to->kind)->flags : 0);

	/* An endpoint or a job is made by mkdir alone: its name is in answers and in the scheduler's keys. */
	return (dirs & (NODE_CLOSED | NODE_ONLY_DIRS)) || (nodes & (NODE_FIXED | NODE_PINNED)) ? -EPERM : 0;
}

int publish_lookup(struct tree *tree, uint64_t parent, const char *name, struct vol_attr *ret)
{
	struct publisher *pub = glue_publisher(tree->glue);
	struct publishing *p = publisher_moving(pub, name);
	struct place *dir = NULL;
	int r;

	if (!p)
		return -ENOENT;
	if (p->bulk) {
		r = vol_bulk_attr(p->bulk, parent, ret);
		goto out;
	}
	r = place_get(tree, parent, &dir);
	if (r < 0)
		goto out;
	publishing_owned(p, tree->vol,
			 &(struct host_access){.mode = dir->mode, .uid = dir->uid, .gid = dir->gid});
	p->what.kind = NODE_MADE;
	if (p->stage)
		p->put.ino = vol_stage_ino(p->stage);
	else
		r = vol_reserve(tree->vol, &p->put.ino);
	*ret = (struct vol_attr){
		.ino = p->put.ino,
		.mode = p->what.mode,
		.nlink = 1,
		.uid = p->what.uid,
		.gid = p->what.gid,
		.size = p->what.target ? strlen(p->what.target) : p->what.content_len,
		.blocks = (p->what.content_len + 511) / 512,
		.atime = p->put.when,
		.mtime = p->put.when,
		.ctime = p->put.when,
		.kind = NODE_MADE,
	};
out:
	publisher_served(pub);
	place_unref(dir);
	return r;
}

static int publish(struct tree *tree, uint64_t parent, const char *name, uint64_t new_parent,
		   const char *new_name)
{
	struct publisher *pub = glue_publisher(tree->glue);
	struct publishing *p = publisher_moving(pub, name);
	struct vol_attr old;
	int r = -ENOENT;

	if (!p)
		return r;
	old.ino = 0;
	if (p->bulk && parent == new_parent)
		r = vol_bulk_put(p->bulk, parent, new_name, p->put.ops, p->put.n_ops);
	else if (p->put.ino && parent == new_parent)
		r = publishing_put(p, tree->vol, parent, new_name, &old);
	p->stored = r == 0;
	publisher_served(pub);
	if (r == 0 && old.ino)
		handles_unlinked(tree, old.ino, old.nlink == 0);
	return r;
}

int tree_rename(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name,
		uint64_t new_parent, const char *new_name, unsigned flags)
{
	bool exchange = flags & RENAME_EXCHANGE;
	struct side from = {0}, to = {0};
	struct node here = {0}, back = {0};
	char *text = NULL, *back_text = NULL;
	size_t len = 0, back_len = 0;
	struct vol_attr attr;
	int r;

	if (publisher_owns_name(name)) {
		if (tree->glue && publisher_is_caller(glue_publisher(tree->glue), caller->tid))
			return publish(tree, parent, name, new_parent, new_name);
		return -ENOENT;
	}
	if (publisher_owns_name(new_name))
		return -EPERM;
	r = side_init(tree, &from, parent, name);
	if (r < 0)
		goto out;
	r = side_init(tree, &to, new_parent, new_name);
	if (r < 0 && (r != -ENOENT || exchange))
		goto out;
	r = may_move(&from, &to);
	if (r < 0)
		goto out;
	if (to.there && to.attr.ino == from.attr.ino) { /* two links of one file: rename(2) does nothing */
		r = flags & RENAME_NOREPLACE ? -EEXIST : 0;
		goto out;
	}
	if (flags & RENAME_NOREPLACE && to.there) {
		r = -EEXIST;
		goto out;
	}
	r = arriving(tree, &from, &to, &here, &text, &len);
	if (r == 0 && exchange)
		r = arriving(tree, &to, &from, &back, &back_text, &back_len);
	if (r != 0)
		goto out;
	r = vol_rename(tree->vol, parent, name, new_parent, new_name, flags, here.kind);
	if (r < 0)
		goto out;
	if (here.is_dir || (exchange && back.is_dir))
		place_forget_all(tree);
	went(tree, &from, NODE_MOVED);
	if (to.there) {
		went(tree, &to, exchange ? NODE_MOVED : NODE_REMOVED);
		if (!exchange)
			handles_unlinked(tree, to.attr.ino, S_ISDIR(to.attr.mode) || to.attr.nlink <= 1);
	}
	arrived(tree, &from, &here, text, len);
	if (exchange) {
		vol_setattr(tree->vol, back.ino, &(struct vol_attr){.kind = back.kind}, VOL_SET_KIND, &attr);
		arrived(tree, &to, &back, back_text, back_len);
	}
out:
	free(text);
	free(back_text);
	place_unref(from.dir);
	place_unref(to.dir);
	return r;
}
