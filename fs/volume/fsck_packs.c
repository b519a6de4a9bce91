/*
 * fsck: packs (pack.c). Each has as many inodes as its record says, and is long enough for all of them. Not a fault: a record of
 * 0, which volume_open removes with its file.
 */
#include "fs/volume/fsck.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct fsck_pack *fsck_pack(struct fsck *f, uint64_t pack)
{
	for (size_t i = f->n_packs; i-- > 0;)
		if (f->packs[i].pack == pack)
			return &f->packs[i];
	return NULL;
}

int fsck_pack_get(struct fsck *f, uint64_t pack, struct fsck_pack **ret)
{
	struct fsck_pack *more;

	*ret = fsck_pack(f, pack);
	if (*ret)
		return 0;
	more = reallocarray(f->packs, f->n_packs + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	f->packs = more;
	*ret = &more[f->n_packs++];
	**ret = (struct fsck_pack){.pack = pack};
	return 0;
}

int fsck_pack_ref(struct fsck *f, const struct inode_rec *rec)
{
	struct fsck_pack *p;
	int r = fsck_pack_get(f, rec->pack, &p);

	if (r < 0)
		return r;
	p->refs++;
	if (rec->offset + rec->size > p->end)
		p->end = rec->offset + rec->size;
	return 0;
}

void fsck_packs(struct fsck *f)
{
	char name[32], key[KEY_MAX], value[8];

	for (size_t i = 0; i < f->n_packs; i++) {
		const struct fsck_pack *p = &f->packs[i];

		blob_name(name, p->pack);
		if (p->recorded ? p->count != p->refs : p->refs > 0) {
			fsck_fault(f, "pack %" PRIu64 ": it counts %" PRIu64 " inodes and has %" PRIu64,
				   p->pack, p->count, p->refs);
			put_le64(value, p->refs);
			if (f->repair)
				batch_put(&f->batch, CF_DEFAULT, key, key_tagged(key, 'P', p->pack), value,
					  sizeof(value));
		}
		if (p->refs > 0 && !p->has_file)
			fsck_fault(f, "blobs/%s, with the contents of %" PRIu64 " inodes, is not there", name,
				   p->refs);
		else if (p->refs > 0 && p->size < p->end)
			fsck_fault(f,
				   "blobs/%s, with the contents of %" PRIu64 " inodes, has %" PRIu64
				   " bytes of %" PRIu64,
				   name, p->refs, p->size, p->end);
	}
}
