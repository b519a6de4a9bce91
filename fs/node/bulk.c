/* What an archive held as a batch, or what came of an import as a version: the kinds of the nodes, and whose they are. */
#include "fs/node/node.h"

#include "fs/volume/bulk.h"

/* Who may read the archive may read what was in it, and look into its directories. */
static uint32_t dir_mode(uint32_t file_mode)
{
	return (file_mode & 0666) | (file_mode & 0444) >> 2 | 0700;
}

int tree_bulk_new(struct volume *vol, uint64_t like, struct vol_bulk **ret)
{
	struct vol_bulk_what what;
	struct vol_attr attr;
	int r = vol_getattr(vol, like, &attr);

	if (r < 0)
		return r;
	what = (struct vol_bulk_what){.uid = attr.uid, .gid = attr.gid, .dir_mode = dir_mode(attr.mode)};
	if (attr.kind == NODE_INSTANCE) {
		what.file_mode = attr.mode & 0666;
		what.kind = node_child_kind(NODE_IN, "", S_IFDIR);
		what.dir_kind = node_child_kind(NODE_BATCH, "", S_IFDIR);
		what.file_kind = node_child_kind(NODE_BATCH, "", S_IFREG);
	} else {
		what.file_mode = attr.mode & 0444;
		what.kind = what.dir_kind = node_child_kind(NODE_MODEL, "", S_IFDIR);
		what.file_kind = NODE_MADE;
	}
	return vol_bulk_new(ret, vol, &what);
}
