/* fsck: the two records of each directory entry, and how many entries each block of cookies has. */
#include "fs/volume/fsck.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void drop_dentry(struct fsck *f, uint64_t parent, const char *name, uint64_t cookie)
{
	char key[KEY_MAX];

	if (!f->repair)
		return;
	batch_single_delete(&f->batch, CF_DENTRIES, key, key_name(key, parent, name, strlen(name)));
	batch_single_delete(&f->batch, CF_DENTRIES, key, key_cookie(key, parent, cookie));
}

static void put_name(struct fsck *f, uint64_t parent, const char *name, const struct dentry *d)
{
	char key[KEY_MAX], value[18];
	size_t len = key_name(key, parent, name, strlen(name));

	batch_single_delete(&f->batch, CF_DENTRIES, key, len);
	batch_put(&f->batch, CF_DENTRIES, key, len, value, record_put_name(value, d));
}

static void put_cookie(struct fsck *f, uint64_t parent, const char *name, const struct dentry *d)
{
	char key[KEY_MAX], value[10 + 255];
	size_t len = key_cookie(key, parent, d->cookie);

	batch_single_delete(&f->batch, CF_DENTRIES, key, len);
	batch_put(&f->batch, CF_DENTRIES, key, len, value, record_put_cookie(value, d, name, strlen(name)));
}

/* One entry, seen once: by its name record, or by its cookie record when the other is missing. */
static void count_entry(struct fsck *f, uint64_t parent, const char *name, struct dentry *d)
{
	struct item *dir = fsck_dir(f, parent), *it = fsck_item(f, d->ino);

	f->report.dentries++;
	if (!dir) {
		fsck_fault(f, "entry '%s' lies in directory %" PRIu64 ", which is not there", name, parent);
		drop_dentry(f, parent, name, d->cookie);
		return;
	}
	if (!it) {
		fsck_fault(f, "entry '%s' of directory %" PRIu64 ": its inode %" PRIu64 " is not there", name,
			   parent, d->ino);
		drop_dentry(f, parent, name, d->cookie);
		return;
	}
	if (!it->damaged && d->type != IFTODT(it->rec.mode)) {
		fsck_fault(f, "entry '%s' of directory %" PRIu64 ": its type is not that of inode %" PRIu64,
			   name, parent, d->ino);
		d->type = IFTODT(it->rec.mode);
		if (f->repair) {
			put_name(f, parent, name, d);
			put_cookie(f, parent, name, d);
		}
	}
	dir->entries++;
	if (d->cookie < dir->min_cookie)
		dir->min_cookie = d->cookie;
	if (d->cookie > dir->max_cookie)
		dir->max_cookie = d->cookie;
	it->links++;
	if (!it->damaged && S_ISDIR(it->rec.mode)) {
		dir->subdirs++;
		it->parent = parent;
		it->cookie = d->cookie;
	}
}

static void check_name_record(struct fsck *f, uint64_t parent, const char *name, const void *value,
			      size_t value_len)
{
	char key[KEY_MAX], other[10 + 255], other_name[256];
	struct dentry d, e;
	size_t key_len, len = 0;
	int r;

	if (record_get_name(&d, value, value_len) < 0 || dentry_name_check(name) < 0) {
		fsck_fault(f, "entry '%s' of directory %" PRIu64 ": its record is damaged", name, parent);
		if (f->repair) {
			key_len = key_name(key, parent, name, strlen(name));
			batch_single_delete(&f->batch, CF_DENTRIES, key, key_len);
		}
		return;
	}
	key_len = key_cookie(key, parent, d.cookie);
	r = db_get(&f->vol->db, CF_DENTRIES, key, key_len, other, sizeof(other), &len);
	if (r < 0 || record_get_cookie(&e, other_name, key, key_len, other, len) < 0 ||
	    strcmp(name, other_name) != 0 || e.ino != d.ino || e.type != d.type) {
		fsck_fault(f, "entry '%s' of directory %" PRIu64 ": cookie %" PRIu64 " does not lead to it",
			   name, parent, d.cookie);
		if (f->repair && fsck_item(f, d.ino) && fsck_dir(f, parent))
			put_cookie(f, parent, name, &d);
	}
	count_entry(f, parent, name, &d);
}

static void check_cookie_record(struct fsck *f, uint64_t parent, const void *key, size_t key_len,
				const void *value, size_t value_len)
{
	char name[256];
	struct dentry d, e;

	if (record_get_cookie(&d, name, key, key_len, value, value_len) < 0) {
		fsck_fault(f, "directory %" PRIu64 ": a cookie record is damaged", parent);
		if (f->repair)
			batch_single_delete(&f->batch, CF_DENTRIES, key, key_len);
		return;
	}
	if (dentry_find(f->vol, parent, name, &e) == 0) {
		if (e.cookie == d.cookie)
			return; /* compared when the name was read */
		fsck_fault(f,
			   "directory %" PRIu64 ": cookie %" PRIu64
			   " leads to '%s', which has cookie %" PRIu64,
			   parent, d.cookie, name, e.cookie);
		if (f->repair)
			batch_single_delete(&f->batch, CF_DENTRIES, key, key_len);
		return;
	}
	fsck_fault(f, "entry '%s' of directory %" PRIu64 " can't be found by its name", name, parent);
	if (f->repair && fsck_item(f, d.ino) && fsck_dir(f, parent))
		put_name(f, parent, name, &d);
	count_entry(f, parent, name, &d);
}

static struct block *block_of(struct fsck *f, uint64_t block)
{
	struct block *blocks;

	for (size_t i = f->n_blocks; i-- > 0 && f->blocks[i].block >= block;)
		if (f->blocks[i].block == block)
			return &f->blocks[i];
	if (f->n_blocks == f->blocks_room) {
		size_t room = f->blocks_room ? f->blocks_room * 2 : 64;

		blocks = realloc(f->blocks, room * sizeof(*blocks));
		if (!blocks)
			return NULL;
		f->blocks = blocks;
		f->blocks_room = room;
	}
	f->blocks[f->n_blocks] = (struct block){.block = block};
	return &f->blocks[f->n_blocks++];
}

/* The directory's records have all been read. */
void fsck_blocks(struct fsck *f)
{
	for (size_t i = 0; i < f->n_blocks; i++) {
		const struct block *b = &f->blocks[i];

		if (b->count != b->recorded)
			fsck_fault(f,
				   "directory %" PRIu64 ": block %" PRIu64 " counts %" PRIu64
				   " entries and has %" PRIu64,
				   f->blocks_dir, b->block, b->recorded, b->count);
	}
	f->n_blocks = 0;
}

static int count_block(struct fsck *f, const char *key, const void *value, size_t value_len)
{
	uint64_t number = get_be64(key + 9);
	struct block *b = block_of(f, key[8] == 1 ? number / COOKIE_BLOCK : number);

	if (!b)
		return -ENOMEM;
	if (key[8] == 1)
		b->count++;
	else
		b->recorded = value_len == 8 ? get_le64(value) : UINT64_MAX;
	return 0;
}

int fsck_dentry(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct fsck *f = data;
	const char *k = key;
	char name[256];

	if (key_len >= 8 && get_be64(k) != f->blocks_dir) {
		fsck_blocks(f);
		f->blocks_dir = get_be64(k);
	}
	if (key_len == 17 && (k[8] == 1 || k[8] == 2)) {
		int r = count_block(f, k, value, value_len);

		if (r < 0 || k[8] == 2)
			return r;
	}
	if (key_len >= 10 && key_len <= 9 + 255 && k[8] == 0) {
		memcpy(name, k + 9, key_len - 9);
		name[key_len - 9] = 0;
		check_name_record(f, get_be64(k), name, value, value_len);
	} else if (key_len == 17 && k[8] == 1) {
		check_cookie_record(f, get_be64(k), key, key_len, value, value_len);
	} else {
		fsck_fault(f, "dentries: a key of unknown form");
		if (f->repair)
			batch_single_delete(&f->batch, CF_DENTRIES, key, key_len);
	}
	return 0;
}
