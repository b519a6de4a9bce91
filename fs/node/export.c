/*
 * models/NAME/V/export: slice-0.50.onnx and its like appear there when they are looked for, and from then on are files like any others.
 * Nothing that lists a directory asks for more than is there.
 */
#include "fs/node/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIRECTORY "export"
#define BEGIN     "slice-"
#define END       ".onnx"

static bool is_number(const char *name)
{
	return name[0] >= '1' && name[0] <= '9' && strspn(name, "0123456789") == strlen(name);
}

/* The same people may look for slices as made the version. */
static int make(struct tree *tree, uint64_t version, struct vol_attr *ret)
{
	struct vol_attr attr;
	int r = vol_getattr(tree->vol, version, &attr);

	if (r < 0)
		return r;
	return vol_create(tree->vol, version, DIRECTORY,
			  &(struct vol_new){.mode = S_IFDIR | (attr.mode & 07777),
					    .uid = attr.uid,
					    .gid = attr.gid,
					    .kind = NODE_EXPORT},
			  ret);
}

/* A new version, of a job or of a user, has it from the start, so that it is seen. */
int model_dir_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	struct vol_attr attr;

	(void)open_for_writing;
	if (event != NODE_CREATED || node->dir->kind != NODE_MODEL || !is_number(node->name))
		return 0;
	return make(node->tree, node->ino, &attr);
}

int export_lookup(struct tree *tree, uint64_t parent, const char *name, struct vol_attr *ret)
{
	struct vol_attr dir, model;
	int r;

	if (strcmp(name, DIRECTORY) != 0 || vol_getattr(tree->vol, parent, &dir) < 0 ||
	    dir.kind != NODE_MODEL_DIR || vol_getattr(tree->vol, dir.parent, &model) < 0 ||
	    model.kind != NODE_MODEL || vol_lookup(tree->vol, parent, "model.json", ret) < 0)
		return -ENOENT;
	r = make(tree, parent, ret);
	if (r == -EEXIST) /* somebody else looked, too */
		r = vol_lookup(tree->vol, parent, name, ret);
	return r == -EROFS || r == -EDQUOT || r == -ENOSPC ? -ENOENT : r;
}

/* The number in the name as text; false: it isn't such a name. */
static bool number_of(const char *name, char *ret)
{
	size_t len = strlen(name), begin = strlen(BEGIN), end = strlen(END), n;

	if (len <= begin + end || len >= sizeof(((struct tree_export *)NULL)->name) ||
	    strncmp(name, BEGIN, begin) != 0 || strcmp(name + len - end, END) != 0)
		return false;
	n = len - begin - end;
	memcpy(ret, name + begin, n);
	ret[n] = '\0';
	return ret[0] != '.' && strspn(ret, "0123456789.") == n;
}

bool tree_export_wish(struct tree *tree, uint64_t parent, const char *name, struct tree_export *ret)
{
	char text[sizeof(ret->name)], *end;
	struct vol_attr attr;
	double rate;

	if (!number_of(name, text))
		return false;
	rate = strtod(text, &end);
	if (*end || !(rate > 0) || rate > 1 || vol_getattr(tree->vol, parent, &attr) < 0 ||
	    attr.kind != NODE_EXPORT)
		return false;
	snprintf(text, sizeof(text), "%.2f", rate);
	if (strtod(text, NULL) != rate)
		snprintf(text, sizeof(text), "%.6g", rate); /* as slices.csv has it */
	*ret = (struct tree_export){.dir = parent, .version = attr.parent, .rate = (float)rate};
	memcpy(ret->name, name, strlen(name) + 1);
	snprintf(ret->usual, sizeof(ret->usual), BEGIN "%.16s" END, text);
	return strtod(text, NULL) == rate; /* else it has too many digits */
}

struct exports *tree_exports(const struct tree *tree)
{
	return tree->glue ? glue_exports(tree->glue) : NULL;
}
