/* Walking the tree: readdir, paths, the name of a directory. */
#include "fs/volume/private.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SYMLINKS_MAX 40
#define TARGET_MAX   4096

struct scan {
	struct volume *vol;
	uint64_t dir;
	bool want_attr;
	int (*fn)(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr);
	void *data;
	bool ended;
	uint64_t from, to; /* cookies: the stretch that lives and is to be scanned; empty when equal */
};

/* A stretch is scanned when it has so many cookies, so that a short read of a large directory is short. */
#define STRETCH (4 * COOKIE_BLOCK)

static int scan_entry(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct scan *scan = data;
	struct vol_attr attr;
	struct dentry d, here;
	char name[256];
	int r = record_get_cookie(&d, name, key, key_len, value, value_len);

	if (r < 0)
		return r;
	if (overlay_find(scan->vol, scan->dir, name, &here))
		d.ino = here.ino;
	if (!scan->want_attr) {
		attr = (struct vol_attr){.ino = d.ino, .mode = DTTOIF(d.type)};
	} else {
		r = vol_getattr(scan->vol, d.ino, &attr);
		if (r == -ESTALE) /* removed since the scan began */
			return 0;
		if (r < 0)
			return r;
	}
	scan->ended = scan->fn(scan->data, name, d.cookie, &attr) != 0;
	return scan->ended;
}

static int scan_stretch(struct scan *scan)
{
	char from[KEY_MAX], to[KEY_MAX];
	size_t to_len = key_cookie(to, scan->dir, scan->to);
	int r = 0;

	if (scan->from < scan->to)
		r = db_scan(&scan->vol->db, CF_DENTRIES, from, key_cookie(from, scan->dir, scan->from), to,
			    to_len, scan_entry, scan);
	scan->from = scan->to;
	return r < 0 ? r : scan->ended;
}

static int scan_block(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct scan *scan = data;
	uint64_t first;
	int r = 0;

	(void)value;
	(void)value_len;
	if (key_len != 17)
		return -EIO;
	first = get_be64((const char *)key + 9) * COOKIE_BLOCK;
	if (first > scan->to || scan->to - scan->from >= STRETCH) {
		r = scan_stretch(scan);
		if (scan->from < first)
			scan->from = first;
	}
	scan->to = first + COOKIE_BLOCK;
	return r;
}

int vol_readdir(struct volume *vol, uint64_t dir, uint64_t cookie, bool want_attr,
		int (*fn)(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr),
		void *data)
{
	struct scan scan = {.vol = vol, .dir = dir, .want_attr = want_attr, .fn = fn, .data = data};
	char from[KEY_MAX], to[KEY_MAX];
	uint64_t first, next, entries;
	struct node *node;
	size_t to_len;
	int r = node_get_dir(vol, dir, &node);

	if (r < 0)
		return r;
	first = node->rec.first_cookie;
	next = node->rec.next_cookie;
	entries = node->rec.entries;
	node_put(vol, node);
	if (entries == 0 || cookie >= INT64_MAX)
		return 0;
	if (first < cookie + 1)
		first = cookie + 1;
	if (first >= next)
		return 0;
	scan.from = scan.to = first;
	if (next - first <= 2 * COOKIE_BLOCK) {
		scan.to = next;
	} else {
		to_len = key_dir_end(to, dir);
		r = db_scan(&vol->db, CF_DENTRIES, from, key_block(from, dir, first / COOKIE_BLOCK), to,
			    to_len, scan_block, &scan);
		if (r < 0)
			return r;
	}
	r = scan.ended ? 0 : scan_stretch(&scan);
	return r < 0 ? r : 0;
}

int vol_dir_name(struct volume *vol, uint64_t dir, char *ret, size_t size)
{
	struct inode_rec rec;
	struct dentry d;
	char key[KEY_MAX], value[10 + 255], name[256];
	size_t key_len, len = 0;
	int r;

	/* The record and its dentry are read one after the other: again when a rename came between. */
	for (int tries = 0; tries < 8; tries++) {
		r = inode_read(vol, dir, &rec);
		if (r < 0)
			return r;
		if (!S_ISDIR(rec.mode))
			return -ENOTDIR;
		if (dir == VOL_ROOT)
			return -EINVAL;
		key_len = key_cookie(key, rec.parent, rec.cookie);
		r = db_get(&vol->db, CF_DENTRIES, key, key_len, value, sizeof(value), &len);
		if (r == -ENOENT)
			continue;
		if (r == 0)
			r = record_get_cookie(&d, name, key, key_len, value, len);
		if (r < 0)
			return r;
		if (strlen(name) >= size)
			return -ERANGE;
		strcpy(ret, name);
		return 0;
	}
	return -EIO;
}

/* Puts `target` before what is left of the path: *rest is in buf. */
static int splice(char *buf, size_t size, const char *target, const char *rest)
{
	size_t n = strlen(target), m = strlen(rest);

	if (n + 1 + m + 1 > size)
		return -ENAMETOOLONG;
	memmove(buf + n + 1, rest, m + 1);
	*stpcpy(buf, target) = '/';
	return 0;
}

int vol_resolve(struct volume *vol, uint64_t from, const char *path, struct vol_attr *ret)
{
	char *buf, *at, name[256], target[TARGET_MAX];
	struct vol_attr dir, attr;
	int links = 0, r;
	size_t n, size = 2 * TARGET_MAX;

	r = vol_getattr(vol, from, &dir);
	if (r < 0)
		return r;
	if (strlen(path) >= TARGET_MAX)
		return -ENAMETOOLONG;
	buf = malloc(size);
	if (!buf)
		return -ENOMEM;
	strcpy(buf, path);
	at = buf;
	while (true) {
		at += strspn(at, "/");
		n = strcspn(at, "/");
		if (n == 0)
			break;
		r = -ENAMETOOLONG;
		if (n > 255)
			goto out;
		memcpy(name, at, n);
		name[n] = 0;
		at += n;
		r = -EXDEV;
		if (strcmp(name, "..") == 0 && dir.ino == VOL_ROOT)
			goto out;
		r = -ENOTDIR;
		if (!S_ISDIR(dir.mode))
			goto out;
		r = vol_lookup(vol, dir.ino, name, &attr);
		if (r < 0)
			goto out;
		if (!S_ISLNK(attr.mode)) {
			dir = attr;
			continue;
		}
		r = -ELOOP;
		if (++links > SYMLINKS_MAX)
			goto out;
		r = vol_readlink(vol, attr.ino, target, sizeof(target));
		if (r < 0)
			goto out;
		r = -EXDEV;
		if (target[0] == '/')
			goto out;
		r = splice(buf, size, target, at);
		if (r < 0)
			goto out;
		at = buf;
	}
	*ret = dir;
	r = 0;
out:
	free(buf);
	return r;
}
