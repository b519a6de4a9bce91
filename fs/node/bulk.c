/* What an archive held as a batch: the kinds of the nodes, and whose they are. */
#include "fs/node/node.h"

#include "fs/volume/bulk.h"

/* Who may read the archive may read what was in it, and look into its directories. */
static uint32_t dir_mode(uint32_t file_mode)
{
	return (file_mode & 0666) | (file_mode & 0444) >> 2 | 0700;
}

int tree_bulk_new(struct volume *vol, uint64_t like, struct vol_bulk **ret)
{
	struct vol_attr attr;
	int r = vol_getattr(vol, like, &attr);

	if (r < 0)
		return r;
	return vol_bulk_new(ret, vol,
			    &(struct vol_bulk_what){.uid = attr.uid,
						    .gid = attr.gid,
						    .dir_mode = dir_mode(attr.mode),
						    .file_mode = attr.mode & 0666,
						    .kind = node_child_kind(NODE_IN, "", S_IFDIR),
						    .dir_kind = node_child_kind(NODE_BATCH, "", S_IFDIR),
						    .file_kind = node_child_kind(NODE_BATCH, "", S_IFREG)});
}
