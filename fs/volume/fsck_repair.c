/* fsck: what is mended after all was read: new names for what has none, and the counts of blocks. */
#include "fs/volume/fsck.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int attach(struct volume *vol, uint64_t dir_ino, uint64_t ino)
{
	struct node *dir = NULL, *node = NULL;
	struct inode_rec dir_rec, rec;
	struct batch b;
	struct dentry d = {.ino = ino};
	char name[32];
	int r = batch_init(&b, vol);

	snprintf(name, sizeof(name), "#%" PRIu64, ino);
	if (r == 0)
		r = node_get_dir(vol, dir_ino, &dir);
	if (r == 0)
		r = node_get(vol, ino, &node);
	if (r != 0)
		goto out;
	dir_rec = dir->rec;
	rec = node->rec;
	d.type = IFTODT(rec.mode);
	dentry_add(&b, dir_ino, &dir_rec, name, &d);
	if (S_ISDIR(rec.mode)) {
		rec.parent = dir_ino;
		rec.cookie = d.cookie;
		dir_rec.nlink++;
	} else {
		rec.nlink = 1;
	}
	node_batch(&b, dir, &dir_rec);
	node_batch(&b, node, &rec);
	r = batch_commit(&b, false);
	if (r == 0) {
		node_committed(dir, &dir_rec);
		node_committed(node, &rec);
	}
out:
	node_put(vol, node);
	node_put(vol, dir);
	batch_release(&b);
	return r;
}

int fsck_attach_lost(struct fsck *f)
{
	struct vol_new what = {.mode = S_IFDIR | 0700, .uid = getuid(), .gid = getgid()};
	struct vol_attr dir = {0};
	int r = 0;

	for (size_t i = 0; r == 0 && i < f->n; i++) {
		if (!f->items[i].lost)
			continue;
		if (!dir.ino) {
			r = vol_lookup(f->vol, VOL_ROOT, "lost+found", &dir);
			if (r == -ENOENT)
				r = vol_create(f->vol, VOL_ROOT, "lost+found", &what, &dir);
			if (r < 0)
				break;
		}
		r = attach(f->vol, dir.ino, f->items[i].ino);
	}
	return r;
}

struct recount {
	struct batch *b;
	uint64_t dir, block, count;
};

static void put_count(struct recount *c)
{
	char key[KEY_MAX], value[8];

	put_le64(value, c->count);
	if (c->count)
		batch_put(c->b, CF_DENTRIES, key, key_block(key, c->dir, c->block), value, sizeof(value));
	c->count = 0;
}

/* First all that is recorded is deleted, then what is there is put. */
static int delete_count(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct recount *c = data;

	(void)value;
	(void)value_len;
	if (key_len == 17 && ((const char *)key)[8] == 2)
		batch_delete(c->b, CF_DENTRIES, key, key_len);
	return 0;
}

static int recount_one(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct recount *c = data;
	const char *k = key;

	(void)value;
	(void)value_len;
	if (key_len != 17 || k[8] != 1)
		return 0;
	if (c->dir != get_be64(k) || c->block != get_be64(k + 9) / COOKIE_BLOCK)
		put_count(c);
	c->dir = get_be64(k);
	c->block = get_be64(k + 9) / COOKIE_BLOCK;
	c->count++;
	return 0;
}

int fsck_recount(struct fsck *f)
{
	struct batch b;
	struct recount c = {.b = &b};
	int r = batch_init(&b, f->vol);

	if (r == 0)
		r = db_scan(&f->vol->db, CF_DENTRIES, "", 0, NULL, 0, delete_count, &c);
	if (r == 0)
		r = db_scan(&f->vol->db, CF_DENTRIES, "", 0, NULL, 0, recount_one, &c);
	if (r == 0) {
		put_count(&c);
		r = batch_commit(&b, false);
	}
	batch_release(&b);
	return r;
}
