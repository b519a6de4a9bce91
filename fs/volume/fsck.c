/*
 * Checks a volume: reads all inodes into a table sorted by number, then everything that refers to them
 * (dentries, contents, xattrs, blobs, orphan records), counting in the table; then compares.
 *
 * Not faults, because volume_open puts them right by itself: orphans that are recorded ('O'), blobs that are
 * marked ('B'), contents that a crash left of an archive ('U'), and, if the volume was not closed cleanly, blobs without an inode.
 *
 * Repairs are collected in one batch. What has no name any more goes to the directory lost+found as #NUMBER.
 */
#include "fs/volume/private.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct item {
	uint64_t ino;
	struct inode_rec rec;
	uint64_t links, entries, subdirs;
	uint64_t parent, cookie;         /* of a directory: where its name was found */
	uint64_t min_cookie, max_cookie; /* of its entries */
	uint64_t data_len, blob_size;
	bool has_data, has_blob, orphan, marked, damaged, lost;
	unsigned char reach; /* 0 unknown, 1 on the way, 2 reaches the root, 3 does not */
};

struct fsck {
	struct volume *vol;
	struct item *items;
	size_t n, room;
	bool closed, repair;
	struct batch batch;
	/* The blocks of cookies of the directory that is being read: its cookie records come before what is
	 * recorded of their counts. */
	uint64_t blocks_dir;
	struct block {
		uint64_t block, count, recorded;
	} * blocks;
	size_t n_blocks, blocks_room;
	struct fsck_report report;
	void (*say)(void *data, const char *line);
	void *data;
};

static void fault(struct fsck *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fault(struct fsck *f, const char *fmt, ...)
{
	char line[640];
	va_list args;

	f->report.faults++;
	if (!f->say)
		return;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	f->say(f->data, line);
}

static int by_ino(const void *key, const void *item)
{
	uint64_t a = *(const uint64_t *)key, b = ((const struct item *)item)->ino;

	return a < b ? -1 : a > b;
}

static struct item *item_of(struct fsck *f, uint64_t ino)
{
	return f->n ? bsearch(&ino, f->items, f->n, sizeof(*f->items), by_ino) : NULL;
}

static struct item *dir_of(struct fsck *f, uint64_t ino)
{
	struct item *it = item_of(f, ino);

	return it && !it->damaged && S_ISDIR(it->rec.mode) ? it : NULL;
}

static int read_inode(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct fsck *f = data;
	struct item *it;

	if (key_len != KEY_INO) {
		fault(f, "inodes: a key of %zu bytes", key_len);
		if (f->repair)
			batch_delete(&f->batch, CF_INODES, key, key_len);
		return 0;
	}
	if (f->n == f->room) {
		size_t room = f->room ? f->room * 2 : 1024;

		it = realloc(f->items, room * sizeof(*it));
		if (!it)
			return -ENOMEM;
		f->items = it;
		f->room = room;
	}
	it = &f->items[f->n++];
	*it = (struct item){.ino = get_be64(key), .min_cookie = UINT64_MAX};
	f->report.inodes++;
	if (record_get_inode(&it->rec, value, value_len) < 0) {
		it->damaged = true;
		fault(f, "inode %" PRIu64 ": its record is damaged", it->ino);
	}
	return 0;
}

/* --- dentries --- */

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
	struct item *dir = dir_of(f, parent), *it = item_of(f, d->ino);

	f->report.dentries++;
	if (!dir) {
		fault(f, "entry '%s' lies in directory %" PRIu64 ", which is not there", name, parent);
		drop_dentry(f, parent, name, d->cookie);
		return;
	}
	if (!it) {
		fault(f, "entry '%s' of directory %" PRIu64 ": its inode %" PRIu64 " is not there", name,
		      parent, d->ino);
		drop_dentry(f, parent, name, d->cookie);
		return;
	}
	if (!it->damaged && d->type != IFTODT(it->rec.mode)) {
		fault(f, "entry '%s' of directory %" PRIu64 ": its type is not that of inode %" PRIu64, name,
		      parent, d->ino);
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
		fault(f, "entry '%s' of directory %" PRIu64 ": its record is damaged", name, parent);
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
		fault(f, "entry '%s' of directory %" PRIu64 ": cookie %" PRIu64 " does not lead to it", name,
		      parent, d.cookie);
		if (f->repair && item_of(f, d.ino) && dir_of(f, parent))
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
		fault(f, "directory %" PRIu64 ": a cookie record is damaged", parent);
		if (f->repair)
			batch_single_delete(&f->batch, CF_DENTRIES, key, key_len);
		return;
	}
	if (dentry_find(f->vol, parent, name, &e) == 0) {
		if (e.cookie == d.cookie)
			return; /* compared when the name was read */
		fault(f, "directory %" PRIu64 ": cookie %" PRIu64 " leads to '%s', which has cookie %" PRIu64,
		      parent, d.cookie, name, e.cookie);
		if (f->repair)
			batch_single_delete(&f->batch, CF_DENTRIES, key, key_len);
		return;
	}
	fault(f, "entry '%s' of directory %" PRIu64 " can't be found by its name", name, parent);
	if (f->repair && item_of(f, d.ino) && dir_of(f, parent))
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
static void check_blocks(struct fsck *f)
{
	for (size_t i = 0; i < f->n_blocks; i++) {
		const struct block *b = &f->blocks[i];

		if (b->count != b->recorded)
			fault(f,
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

static int read_dentry(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct fsck *f = data;
	const char *k = key;
	char name[256];

	if (key_len >= 8 && get_be64(k) != f->blocks_dir) {
		check_blocks(f);
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
		fault(f, "dentries: a key of unknown form");
		if (f->repair)
			batch_single_delete(&f->batch, CF_DENTRIES, key, key_len);
	}
	return 0;
}

/* --- what else refers to inodes --- */

static int read_tag(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct fsck *f = data;
	const char *k = key;
	struct item *it = key_len == 9 ? item_of(f, get_be64(k + 1)) : NULL;

	(void)value;
	(void)value_len;
	if (key_len != 9 || (k[0] != 'O' && k[0] != 'B'))
		return 0;
	if (it && k[0] == 'B')
		it->marked = true;
	if (k[0] == 'O') {
		if (it && (it->damaged || it->rec.nlink == 0)) {
			it->orphan = true;
		} else {
			fault(f, "orphan record of inode %" PRIu64 ", which is %s", get_be64(k + 1),
			      it ? "linked" : "not there");
			if (f->repair)
				batch_delete(&f->batch, CF_DEFAULT, key, key_len);
		}
	}
	return 0;
}

static int read_data(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct fsck *f = data;
	struct item *it = key_len == KEY_INO ? item_of(f, get_be64(key)) : NULL;

	(void)value;
	if (it && (it->damaged || it->rec.storage == STORAGE_INLINE)) {
		it->has_data = true;
		it->data_len = value_len;
		return 0;
	}
	if (!it && key_len == KEY_INO && bulk_covers(f->vol, get_be64(key)))
		return 0;
	fault(f, "content of inode %" PRIu64 ", which is not there or lies in a blob",
	      key_len == KEY_INO ? get_be64(key) : 0);
	if (f->repair)
		batch_delete(&f->batch, CF_DATA, key, key_len);
	return 0;
}

static int read_xattr(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct fsck *f = data;

	(void)value;
	(void)value_len;
	if (key_len > 8 && item_of(f, get_be64(key)))
		return 0;
	fault(f, "xattr of inode %" PRIu64 ", which is not there", key_len >= 8 ? get_be64(key) : 0);
	if (f->repair)
		batch_delete(&f->batch, CF_XATTRS, key, key_len);
	return 0;
}

static int read_blob(void *data, const char *name, uint64_t ino, uint64_t size)
{
	struct fsck *f = data;
	struct item *it = ino ? item_of(f, ino) : NULL;
	char key[KEY_MAX];

	f->report.blobs++;
	if (!ino) {
		fault(f, "blobs/%s: not the name of a blob", name);
		return 0;
	}
	if (it && (it->damaged || it->rec.storage == STORAGE_BLOB)) {
		it->has_blob = true;
		it->blob_size = size;
		return 0;
	}
	if (!f->closed || db_has(&f->vol->db, CF_DEFAULT, key, key_tagged(key, 'B', ino)))
		return 0;
	fault(f, "blobs/%s: no inode has this blob", name);
	if (f->repair)
		blob_remove(f->vol, ino);
	return 0;
}

/* --- comparing --- */

/* Whether the directory's names lead up to the root. */
static bool reaches_root(struct fsck *f, struct item *it)
{
	struct item *at = it, *next;
	unsigned char verdict;

	while (at->reach == 0 && at->ino != VOL_ROOT) {
		at->reach = 1;
		next = at->links ? dir_of(f, at->parent) : NULL;
		if (!next)
			break;
		at = next;
	}
	/* Ended at a directory without a name, in a loop (1), or at one that is known. */
	verdict = at->ino == VOL_ROOT || at->reach == 2 ? 2 : 3;
	while (it->reach == 1) {
		it->reach = verdict;
		next = it->links ? dir_of(f, it->parent) : NULL;
		if (!next)
			break;
		it = next;
	}
	return verdict == 2;
}

static void check_dir(struct fsck *f, struct item *it, struct inode_rec *rec)
{
	bool root = it->ino == VOL_ROOT;

	if (root ? it->links > 0 : it->links > 1)
		fault(f, "directory %" PRIu64 ": %" PRIu64 " names lead to it", it->ino, it->links);
	if (root) {
		it->parent = VOL_ROOT;
		it->cookie = 0;
	} else if (it->links == 0) {
		fault(f, "directory %" PRIu64 ": no name leads to it", it->ino);
		it->lost = true;
	} else if (!reaches_root(f, it)) {
		fault(f, "directory %" PRIu64 " is not below the root", it->ino);
	}
	if (it->links <= 1 && !it->lost && (rec->parent != it->parent || rec->cookie != it->cookie)) {
		fault(f,
		      "directory %" PRIu64 ": its parent is %" PRIu64 ", not %" PRIu64
		      ", or its cookie %" PRIu64 ", not %" PRIu64,
		      it->ino, it->parent, rec->parent, it->cookie, rec->cookie);
		rec->parent = it->parent;
		rec->cookie = it->cookie;
	}
	if (rec->nlink != 2 + it->subdirs) {
		fault(f, "directory %" PRIu64 ": nlink is %u, should be %" PRIu64, it->ino, rec->nlink,
		      2 + it->subdirs);
		rec->nlink = (uint32_t)(2 + it->subdirs);
	}
	if (rec->entries != it->entries) {
		fault(f, "directory %" PRIu64 ": it counts %" PRIu64 " entries and has %" PRIu64, it->ino,
		      rec->entries, it->entries);
		rec->entries = it->entries;
	}
	if (it->entries && (it->min_cookie < rec->first_cookie || it->max_cookie >= rec->next_cookie)) {
		fault(f, "directory %" PRIu64 ": a cookie is outside of %" PRIu64 "..%" PRIu64, it->ino,
		      rec->first_cookie, rec->next_cookie);
		if (it->min_cookie < rec->first_cookie)
			rec->first_cookie = it->min_cookie;
		if (it->max_cookie >= rec->next_cookie)
			rec->next_cookie = it->max_cookie + 1;
	}
}

static void check_content(struct fsck *f, struct item *it, struct inode_rec *rec)
{
	char name[32];
	uint64_t have = it->has_data ? it->data_len : 0;

	if (!S_ISREG(rec->mode) && !S_ISLNK(rec->mode)) {
		if (it->has_data || rec->storage != STORAGE_INLINE)
			fault(f, "inode %" PRIu64 " has content and is no file", it->ino);
	} else if (rec->storage == STORAGE_INLINE) {
		if (have == rec->size)
			return;
		fault(f, "inode %" PRIu64 ": size is %" PRIu64 ", its content has %" PRIu64 " bytes", it->ino,
		      rec->size, have);
		/* A symlink without a target, or a file that would seem to lose its content: left to be seen. */
		if (S_ISREG(rec->mode) && it->has_data && have <= INLINE_MAX)
			rec->size = have;
	} else if (!it->marked && !it->orphan) {
		blob_name(name, it->ino);
		if (!it->has_blob)
			fault(f, "inode %" PRIu64 ": blobs/%s is not there", it->ino, name);
		else if (it->blob_size < rec->size)
			fault(f, "inode %" PRIu64 ": blobs/%s has %" PRIu64 " bytes of %" PRIu64, it->ino,
			      name, it->blob_size, rec->size);
	}
}

static void check_item(struct fsck *f, struct item *it)
{
	struct inode_rec rec = it->rec;
	char key[KEY_MAX], was[INODE_MAX], is[INODE_MAX];
	size_t len;

	if (it->damaged)
		return;
	if (S_ISDIR(rec.mode)) {
		check_dir(f, it, &rec);
	} else if (it->links == 0 && rec.nlink == 0) {
		if (!it->orphan) {
			fault(f, "inode %" PRIu64 " was removed and is still there", it->ino);
			if (f->repair)
				batch_put(&f->batch, CF_DEFAULT, key, key_tagged(key, 'O', it->ino), "", 0);
		}
	} else if (it->links == 0) {
		fault(f, "inode %" PRIu64 ": no name leads to it", it->ino);
		it->lost = true;
	} else if (rec.nlink != it->links) {
		fault(f, "inode %" PRIu64 ": nlink is %u, should be %" PRIu64, it->ino, rec.nlink, it->links);
		rec.nlink = (uint32_t)it->links;
	}
	check_content(f, it, &rec);
	len = record_put_inode(is, &rec);
	record_put_inode(was, &it->rec);
	if (f->repair && memcmp(was, is, len) != 0)
		batch_put(&f->batch, CF_INODES, key, key_ino(key, it->ino), is, len);
}

static void check_counter(struct fsck *f)
{
	uint64_t last = f->n ? f->items[f->n - 1].ino : VOL_ROOT;
	char value[8];

	if (!dir_of(f, VOL_ROOT))
		fault(f, "the root directory is not there");
	if (last < f->vol->ino_limit)
		return;
	fault(f, "inode %" PRIu64 " is above the counter %" PRIu64, last, f->vol->ino_limit);
	if (f->repair) {
		put_le64(value, last + 1);
		batch_put(&f->batch, CF_DEFAULT, "I", 1, value, sizeof(value));
		f->vol->ino_next = f->vol->ino_limit = last + 1;
	}
}

static int check(struct fsck *f)
{
	struct db *db = &f->vol->db;
	int r = db_scan(db, CF_INODES, "", 0, NULL, 0, read_inode, f);

	if (r == 0)
		r = db_scan(db, CF_DEFAULT, "", 0, NULL, 0, read_tag, f);
	if (r == 0)
		r = db_scan(db, CF_DENTRIES, "", 0, NULL, 0, read_dentry, f);
	check_blocks(f);
	if (r == 0)
		r = db_scan(db, CF_DATA, "", 0, NULL, 0, read_data, f);
	if (r == 0)
		r = db_scan(db, CF_XATTRS, "", 0, NULL, 0, read_xattr, f);
	if (r == 0)
		r = blob_walk(f->vol, read_blob, f);
	for (size_t i = 0; r == 0 && i < f->n; i++)
		check_item(f, &f->items[i]);
	if (r == 0)
		check_counter(f);
	return r;
}

/* --- repairing what needs a new name --- */

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

static int attach_lost(struct fsck *f)
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

static int recount(struct fsck *f)
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

static int repair(struct fsck *f)
{
	struct fsck again = {.vol = f->vol, .closed = f->closed};
	int r = batch_commit(&f->batch, true);

	if (r == 0)
		r = recount(f);
	if (r == 0)
		r = attach_lost(f);
	if (r == 0)
		r = check(&again);
	if (r == 0)
		f->report.repaired =
			f->report.faults > again.report.faults ? f->report.faults - again.report.faults : 0;
	free(again.items);
	free(again.blocks);
	return r;
}

int volume_fsck(const char *state_dir, bool want_repair, void (*say)(void *data, const char *line),
		void *data, struct fsck_report *ret, struct err *err)
{
	struct fsck f = {.repair = want_repair, .say = say, .data = data};
	struct stat st;
	int r = 0;

	if (stat(state_dir, &st) < 0)
		return err_set(err, ERR_NO_VOLUME, "%s", state_dir);
	/* The lock is only in a volume; opening for repair would make one. */
	if (want_repair) {
		struct volume *probe;

		r = volume_open_unpurged(&probe, state_dir, VOLUME_READ_ONLY, err);
		if (r < 0)
			return r;
		volume_close(probe);
	}
	r = volume_open_unpurged(&f.vol, state_dir, want_repair ? 0 : VOLUME_READ_ONLY, err);
	if (r < 0)
		return r;
	f.closed = volume_was_closed(f.vol);
	if (want_repair)
		r = batch_init(&f.batch, f.vol);
	if (r == 0)
		r = check(&f);
	if (r == 0 && want_repair && f.report.faults > 0)
		r = repair(&f);
	if (r < 0)
		err_set(err, ERR_IO, "%s: %s", state_dir, strerror(-r));
	else
		*ret = f.report;
	batch_release(&f.batch);
	free(f.items);
	free(f.blocks);
	volume_close(f.vol);
	return r;
}
