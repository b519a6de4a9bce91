/*
 * What every mounted tree has. Runs before the first request, so nothing is cached anywhere yet.
 */
#include "fs/node/node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fix_readme(struct tree *tree)
{
	struct vol_new what = {.mode = S_IFREG | 0444,
			       .uid = geteuid(),
			       .gid = getegid(),
			       .kind = NODE_MADE,
			       .content = node_readme,
			       .content_len = strlen(node_readme)};
	struct vol_attr attr;
	void *text;
	size_t len;
	bool same;
	int r;

	r = vol_lookup(tree->vol, VOL_ROOT, "README", &attr);
	if (r == 0) {
		r = vol_content(tree->vol, attr.ino, NODE_TEXT_MAX, &text, &len);
		if (r == 0) {
			same = len == what.content_len && memcmp(text, node_readme, len) == 0;
			free(text);
			if (same)
				return 0;
		}
		r = vol_unlink(tree->vol, VOL_ROOT, "README", NULL);
	}
	if (r < 0 && r != -ENOENT)
		return r;
	return vol_create(tree->vol, VOL_ROOT, "README", &what, &attr);
}

int fresh_tree(struct tree *tree, struct err *err)
{
	static const char *const names[] = {"datasets", "models", "jobs", "infer"};
	struct vol_attr attr;
	int r;

	r = vol_getattr(tree->vol, VOL_ROOT, &attr);
	if (r == 0 && attr.kind != NODE_ROOT)
		r = vol_setattr(tree->vol, VOL_ROOT, &(struct vol_attr){.kind = NODE_ROOT}, VOL_SET_KIND,
				&attr);
	for (size_t i = 0; r == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
		struct vol_new what = {.mode = S_IFDIR | 0755,
				       .uid = geteuid(),
				       .gid = getegid(),
				       .kind = node_child_kind(NODE_ROOT, names[i], S_IFDIR)};

		r = vol_create(tree->vol, VOL_ROOT, names[i], &what, &attr);
		if (r == -EEXIST)
			r = 0;
	}
	if (r == 0)
		r = fix_readme(tree);
	return r < 0 ? err_set(err, ERR_IO, "making the tree's own directories: %s", strerror(-r)) : 0;
}
