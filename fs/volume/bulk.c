/*
 * Contents lie in one pack (pack.c), which somebody else fills through its descriptor, a worker that unpacks for example, or in a file
 * that is there already, the archive (share.c). Here are only names and ranges, in memory, until vol_bulk_put writes them. So that batch is small, three keys a file, whatever the
 * contents are; and it may run on another thread than the adding.
 */
#include "fs/volume/bulk.h"

#include "fs/volume/private.h"

#include "engine/base/buf.h"
#include "engine/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define ENTRY_BYTES 300 /* of an inode and its name, about */

struct entry {
	uint64_t ino, cookie, size, offset; /* offset: in its pack */
	uint64_t n, subdirs;                /* of a directory: entries, of which directories */
	size_t name;                        /* offset into names, where it ends in NUL */
	uint32_t dir;                       /* index */
	bool is_dir, is_shared;             /* is_shared: in the second pack */
};

struct vol_bulk {
	struct volume *vol;
	struct vol_bulk_what what;
	struct entry *entries; /* (n); the first is the directory itself; each after the one it is in */
	uint32_t n, room;
	uint32_t *table; /* (slots), a power of two: index of an entry by its directory and name; 0: none */
	uint32_t slots;
	uint64_t seed;            /* of the table: names are whatever somebody chose */
	struct buf names, xattrs; /* xattrs: name NUL value NUL, again and again */
	struct bulk_pack {
		uint64_t number, n; /* n: files with content in it */
		int fd;             /* -1: none */
	} packs[2];                 /* what is written for it; what is shared, or apart */
	bool apart;
	bool done; /* it was put */
};

/* --- names --- */

static const char *name_of(const struct vol_bulk *bulk, const struct entry *e)
{
	return bulk->names.data + e->name;
}

/* FNV-1a */
static uint32_t hash_of(uint64_t seed, uint32_t dir, const char *name, size_t len)
{
	uint64_t hash = seed ^ dir;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)name[i]) * UINT64_C(0x100000001b3);
	return (uint32_t)(hash ^ hash >> 32);
}

/* Its slot: the entry's, or the empty one where it belongs. */
static uint32_t *slot_of(struct vol_bulk *bulk, uint32_t dir, const char *name, size_t len)
{
	uint32_t at = hash_of(bulk->seed, dir, name, len);

	for (;; at++) {
		uint32_t *slot = &bulk->table[at & (bulk->slots - 1)];
		const struct entry *e = &bulk->entries[*slot];

		if (!*slot ||
		    (e->dir == dir && strncmp(name_of(bulk, e), name, len) == 0 && !name_of(bulk, e)[len]))
			return slot;
	}
}

static int grow(struct vol_bulk *bulk)
{
	uint32_t room = bulk->room ? bulk->room * 2 : 1024, slots = room * 2;
	struct entry *entries = realloc(bulk->entries, room * sizeof(*entries));
	uint32_t *table;

	if (!entries)
		return -ENOMEM;
	bulk->entries = entries;
	table = calloc(slots, sizeof(*table));
	if (!table)
		return -ENOMEM;
	free(bulk->table);
	bulk->table = table;
	bulk->slots = slots;
	bulk->room = room;
	for (uint32_t i = 1; i < bulk->n; i++) {
		const char *name = name_of(bulk, &entries[i]);

		*slot_of(bulk, entries[i].dir, name, strlen(name)) = i;
	}
	return 0;
}

/* A new entry of that name; its index. It must not be there. */
static int add_entry(struct vol_bulk *bulk, uint32_t dir, const char *name, size_t len, bool is_dir,
		     uint32_t *ret)
{
	struct entry e = {.dir = dir, .is_dir = is_dir, .name = bulk->names.len};
	int r = bulk->n == bulk->room ? grow(bulk) : 0;

	if (r == 0)
		r = ino_alloc(bulk->vol, &e.ino);
	if (r < 0)
		return r;
	buf_add(&bulk->names, name, len);
	buf_add(&bulk->names, "", 1);
	if (bulk->names.failed)
		return -ENOMEM;
	if (bulk->n) { /* the first is in nothing, and has no name yet */
		bulk->entries[dir].n++;
		bulk->entries[dir].subdirs += is_dir;
		e.cookie = COOKIE_FIRST + bulk->entries[dir].n - 1;
		*slot_of(bulk, dir, name, len) = bulk->n;
	}
	*ret = bulk->n;
	bulk->entries[bulk->n++] = e;
	return 0;
}

/* The entry of a file; makes its directories. */
static int add_path(struct vol_bulk *bulk, const char *path, uint32_t *ret)
{
	uint32_t dir = 0;

	for (const char *part = path;;) {
		size_t len = strcspn(part, "/");
		bool last = !part[len];
		char name[256];
		int r;

		if (len > 255)
			return -ENAMETOOLONG;
		memcpy(name, part, len);
		name[len] = '\0';
		r = dentry_name_check(name);
		if (r == 0) {
			uint32_t there = *slot_of(bulk, dir, name, len);

			if (there && last)
				r = -EEXIST;
			else if (there && !bulk->entries[there].is_dir)
				r = -ENOTDIR;
			else if (there)
				dir = there;
			else if (last)
				return add_entry(bulk, dir, name, len, false, ret);
			else
				r = add_entry(bulk, dir, name, len, true, &dir);
		}
		if (r < 0)
			return r;
		part += len + 1;
	}
}

/* --- contents --- */

int vol_bulk_new(struct vol_bulk **ret, struct volume *vol, const struct vol_bulk_what *what)
{
	struct vol_bulk *bulk;
	uint32_t top;
	int r;

	if (vol->read_only)
		return -EROFS;
	bulk = calloc(1, sizeof(*bulk));
	if (!bulk)
		return -ENOMEM;
	bulk->vol = vol;
	bulk->what = *what;
	bulk->packs[0].fd = bulk->packs[1].fd = -1;
	if (getrandom(&bulk->seed, sizeof(bulk->seed), 0) < 0)
		bulk->seed = UINT64_C(0xcbf29ce484222325);
	r = add_entry(bulk, 0, "", 0, true, &top);
	if (r == 0)
		r = pack_new(vol, &bulk->packs[0].number, &bulk->packs[0].fd);
	if (r < 0) {
		vol_bulk_free(bulk);
		return r;
	}
	*ret = bulk;
	return 0;
}

int vol_bulk_fd(const struct vol_bulk *bulk)
{
	return bulk->packs[0].fd;
}

int vol_bulk_share(struct vol_bulk *bulk, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	struct bulk_pack *p = &bulk->packs[1];
	int r = p->fd >= 0 ? -EINVAL : pack_share(bulk->vol, ino, &p->number, &p->fd, ret_len);

	if (r == 0)
		*ret_fd = p->fd;
	return r;
}

int vol_bulk_apart(struct vol_bulk *bulk, int *ret_fd)
{
	struct bulk_pack *p = &bulk->packs[1];
	int r = p->fd >= 0 ? -EINVAL : pack_new(bulk->vol, &p->number, &p->fd);

	bulk->apart |= r == 0;
	if (r == 0)
		*ret_fd = p->fd;
	return r;
}

int vol_bulk_add(struct vol_bulk *bulk, struct host_file *files, size_t n)
{
	uint64_t bytes = 0;
	uint32_t at;
	int r;

	for (size_t i = 0; i < n; i++)
		if (files[i].shared && bulk->packs[1].fd < 0)
			return -EINVAL;
	for (size_t i = 0; i < n; i++)
		bytes += files[i].shared && !bulk->apart ? 0 : files[i].len;
	r = room_take(bulk->vol, bytes, ROOM_DATA);
	for (size_t i = 0; r == 0 && i < n; i++) {
		r = add_path(bulk, files[i].path, &at);
		if (r < 0)
			break;
		files[i].ino = bulk->entries[at].ino;
		bulk->entries[at].size = files[i].len;
		bulk->entries[at].offset = files[i].offset;
		bulk->entries[at].is_shared = files[i].shared;
		bulk->packs[files[i].shared].n += files[i].len > 0;
	}
	return r;
}

int vol_bulk_xattr(struct vol_bulk *bulk, const char *name, const char *value)
{
	buf_add(&bulk->xattrs, name, strlen(name) + 1);
	buf_add(&bulk->xattrs, value, strlen(value) + 1);
	return buf_status(&bulk->xattrs);
}

/* --- the end --- */

static void put_xattrs(struct batch *b, const struct vol_bulk *bulk)
{
	const char *name, *value;

	for (size_t at = 0; at < bulk->xattrs.len; at += strlen(name) + strlen(value) + 2) {
		name = bulk->xattrs.data + at;
		value = name + strlen(name) + 1;
		xattr_batch_put(b, bulk->entries[0].ino, name, value, strlen(value));
	}
}

static struct inode_rec record_of(const struct vol_bulk *bulk, const struct entry *e,
				  const struct inode_rec *parent, const struct timespec *when)
{
	const struct vol_bulk_what *what = &bulk->what;
	bool setgid = parent->mode & S_ISGID;
	struct inode_rec rec = {
		.kind = e == bulk->entries ? what->kind
			: e->is_dir        ? what->dir_kind
					   : what->file_kind,
		.mode = e->is_dir ? S_IFDIR | (what->dir_mode & 0777) | (setgid ? S_ISGID : 0)
				  : S_IFREG | (what->file_mode & 0777),
		.nlink = 1,
		.uid = what->uid,
		.gid = setgid ? parent->gid : what->gid,
		.size = e->size,
		.atime = *when,
		.mtime = *when,
		.ctime = *when,
	};

	if (e->is_dir) {
		rec.size = 4096;
		rec.nlink = (uint32_t)(2 + e->subdirs);
		rec.entries = e->n;
		rec.cookie = e->cookie;
		rec.first_cookie = COOKIE_FIRST;
		rec.next_cookie = COOKIE_FIRST + e->n;
		rec.parent = bulk->entries[e->dir].ino;
	} else if (e->size) {
		rec.storage = STORAGE_PACK;
		rec.pack = bulk->packs[e->is_shared].number;
		rec.offset = e->offset;
	}
	return rec;
}

/* The counts of a directory's blocks of cookies. */
static void put_blocks(struct batch *b, const struct entry *dir)
{
	uint64_t at = COOKIE_FIRST, end = COOKIE_FIRST + dir->n;

	while (at < end) {
		uint64_t block = at / COOKIE_BLOCK, next = (block + 1) * COOKIE_BLOCK;
		char key[KEY_MAX], value[8];

		next = next < end ? next : end;
		put_le64(value, next - at);
		batch_put(b, CF_DENTRIES, key, key_block(key, dir->ino, block), value, sizeof(value));
		at = next;
	}
}

static void put_inodes(struct batch *b, const struct vol_bulk *bulk, uint64_t parent,
		       const struct inode_rec *dir, const struct timespec *when)
{
	char key[KEY_MAX], value[INODE_MAX];

	for (uint32_t i = 0; i < bulk->n; i++) {
		struct inode_rec rec = record_of(bulk, &bulk->entries[i], dir, when);

		if (i == 0)
			rec.parent = parent;
		batch_put(b, CF_INODES, key, key_ino(key, bulk->entries[i].ino), value,
			  record_put_inode(value, &rec));
		if (bulk->entries[i].is_dir)
			put_blocks(b, &bulk->entries[i]);
	}
}

static int by_name(const void *a, const void *b, void *data)
{
	const struct vol_bulk *bulk = data;
	const struct entry *x = &bulk->entries[*(const uint32_t *)a],
			   *y = &bulk->entries[*(const uint32_t *)b];

	return x->dir != y->dir ? (x->dir < y->dir ? -1 : 1) : strcmp(name_of(bulk, x), name_of(bulk, y));
}

static int by_cookie(const void *a, const void *b, void *data)
{
	const struct vol_bulk *bulk = data;
	const struct entry *x = &bulk->entries[*(const uint32_t *)a],
			   *y = &bulk->entries[*(const uint32_t *)b];

	return x->dir != y->dir ? (x->dir < y->dir ? -1 : 1) : x->cookie < y->cookie ? -1 : 1;
}

/* All but that of the first, which is the caller's to make. In the order of their keys: RocksDB looks for the place of each beside that
 * of the one before (10,000 files: 12 ms, else 27 and more). */
static int put_names(struct batch *b, struct vol_bulk *bulk)
{
	uint32_t n = bulk->n - 1, *order = reallocarray(NULL, n ? n : 1, sizeof(*order));
	char key[KEY_MAX], value[10 + 255];

	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		order[i] = i + 1;
	for (int cookies = 0; cookies < 2; cookies++) {
		qsort_r(order, n, sizeof(*order), cookies ? by_cookie : by_name, bulk);
		for (uint32_t i = 0; i < n; i++) {
			const struct entry *e = &bulk->entries[order[i]];
			const struct dentry d = {
				.cookie = e->cookie, .ino = e->ino, .type = e->is_dir ? DT_DIR : DT_REG};
			const char *name = name_of(bulk, e);
			uint64_t dir = bulk->entries[e->dir].ino;
			size_t len = strlen(name);

			if (cookies)
				batch_put(b, CF_DENTRIES, key, key_cookie(key, dir, e->cookie), value,
					  record_put_cookie(value, &d, name, len));
			else
				batch_put(b, CF_DENTRIES, key, key_name(key, dir, name, len), value,
					  record_put_name(value, &d));
		}
	}
	free(order);
	return 0;
}

int vol_bulk_put(struct vol_bulk *bulk, uint64_t parent, const char *name, const struct host_op *ops,
		 size_t n_ops)
{
	struct volume *vol = bulk->vol;
	struct entry *top = bulk->entries;
	struct dentry d = {.ino = top->ino, .type = DT_DIR}, old;
	uint64_t mask = host_ops_mask(ops, n_ops);
	struct inode_rec dir_rec;
	struct node *dir;
	struct batch b = {0};
	struct timespec when;
	int r = dentry_name_check(name);

	if (r == 0 && bulk->done)
		r = -EINVAL;
	/* The records may get to the disk with anybody's fsync, and then the archive is not read again: the bytes first. */
	for (int i = 0; r == 0 && i < 2; i++)
		if (bulk->packs[i].n)
			r = blob_sync(vol, bulk->packs[i].number, bulk->packs[i].fd);
	if (r == 0)
		r = node_get_dir(vol, parent, &dir);
	if (r != 0)
		return r;
	r = dentry_find(vol, parent, name, &old);
	r = r == 0 ? -EEXIST : r == -ENOENT ? 0 : r;
	if (r == 0)
		r = room_take(vol, (uint64_t)bulk->n * ENTRY_BYTES, ROOM_DATA);
	if (r == 0)
		r = batch_init(&b, vol);
	if (r < 0)
		goto out;
	now(&when);
	dir_rec = dir->rec;
	dentry_add(&b, parent, &dir_rec, name, &d);
	dir_rec.nlink++;
	dir_rec.mtime = dir_rec.ctime = when;
	top->cookie = d.cookie;
	put_inodes(&b, bulk, parent, &dir_rec, &when);
	r = put_names(&b, bulk);
	if (r < 0)
		goto out;
	for (int i = 0; i < 2; i++)
		if (bulk->packs[i].n)
			pack_batch_new(&b, bulk->packs[i].number, bulk->packs[i].n);
	put_xattrs(&b, bulk);
	node_batch(&b, dir, &dir_rec);
	xattr_lock(vol, mask);
	r = host_ops_batch(vol, &b, ops, n_ops);
	if (r == 0)
		r = batch_commit(&b, false);
	xattr_unlock(vol, mask);
	if (r < 0)
		goto out;
	bulk->done = true;
	host_ops_committed(vol, ops, n_ops);
	node_committed(dir, &dir_rec);
out:
	batch_release(&b);
	node_put(vol, dir);
	return r;
}

int vol_bulk_attr(const struct vol_bulk *bulk, uint64_t parent, struct vol_attr *ret)
{
	struct inode_rec dir, rec;
	struct timespec when;
	int r = inode_read(bulk->vol, parent, &dir);

	if (r < 0)
		return r;
	now(&when);
	rec = record_of(bulk, bulk->entries, &dir, &when);
	rec.parent = parent;
	node_attr(&(struct node){.ino = bulk->entries[0].ino, .rec = rec, .blob_fd = -1}, ret);
	return 0;
}

void vol_bulk_free(struct vol_bulk *bulk)
{
	int r = 0;

	if (!bulk)
		return;
	for (int i = 0; i < 2; i++) {
		struct bulk_pack *p = &bulk->packs[i];

		if (p->fd < 0)
			continue;
		close(p->fd);
		if (!bulk->done || !p->n)
			r = pack_remove_new(bulk->vol, p->number);
		if (r < 0)
			log_warn("volume: what an archive held is removed at the next start: %s",
				 strerror(-r));
	}
	free(bulk->entries);
	free(bulk->table);
	buf_release(&bulk->names);
	buf_release(&bulk->xattrs);
	free(bulk);
}
