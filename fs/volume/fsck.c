/*
 * Checks a volume: reads all inodes into a table sorted by number, then everything that refers to them
 * (dentries, contents, xattrs, blobs, orphan records), counting in the table; then compares.
 *
 * Not faults, because volume_open puts them right by itself: orphans that are recorded ('O'), blobs that are
 * marked ('B'), contents that a crash left of an archive ('U', packs of no inode), and, if the volume was not closed cleanly, blobs without an inode.
 *
 * Repairs are collected in one batch. What has no name any more goes to the directory lost+found as #NUMBER.
 */
#include "fs/volume/fsck.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fsck_fault(struct fsck *f, const char *fmt, ...)
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

struct item *fsck_item(struct fsck *f, uint64_t ino)
{
	return f->n ? bsearch(&ino, f->items, f->n, sizeof(*f->items), by_ino) : NULL;
}

struct item *fsck_dir(struct fsck *f, uint64_t ino)
{
	struct item *it = fsck_item(f, ino);

	return it && !it->damaged && S_ISDIR(it->rec.mode) ? it : NULL;
}

static int read_inode(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct fsck *f = data;
	struct item *it;

	if (key_len != KEY_INO) {
		fsck_fault(f, "inodes: a key of %zu bytes", key_len);
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
		fsck_fault(f, "inode %" PRIu64 ": its record is damaged", it->ino);
	}
	return it->rec.pack ? fsck_pack_ref(f, &it->rec) : 0;
}

/* --- what else refers to inodes --- */

static int read_tag(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct fsck *f = data;
	const char *k = key;
	struct item *it = key_len == 9 ? fsck_item(f, get_be64(k + 1)) : NULL;

	if (key_len == 9 && k[0] == 'P') {
		struct fsck_pack *p;
		int r = fsck_pack_get(f, get_be64(k + 1), &p);

		if (r < 0)
			return r;
		p->recorded = value_len == 8;
		p->count = p->recorded ? get_le64(value) : 0;
	}
	if (key_len != 9 || (k[0] != 'O' && k[0] != 'B'))
		return 0;
	if (it && k[0] == 'B')
		it->marked = true;
	if (k[0] == 'O') {
		if (it && (it->damaged || it->rec.nlink == 0)) {
			it->orphan = true;
		} else {
			fsck_fault(f, "orphan record of inode %" PRIu64 ", which is %s", get_be64(k + 1),
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
	struct item *it = key_len == KEY_INO ? fsck_item(f, get_be64(key)) : NULL;

	(void)value;
	if (it && (it->damaged || it->rec.storage == STORAGE_INLINE)) {
		it->has_data = true;
		it->data_len = value_len;
		return 0;
	}
	if (!it && key_len == KEY_INO && pack_purges_content(f->vol, get_be64(key)))
		return 0;
	fsck_fault(f, "content of inode %" PRIu64 ", which is not there or lies in a blob",
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
	if (key_len > 8 && fsck_item(f, get_be64(key)))
		return 0;
	fsck_fault(f, "xattr of inode %" PRIu64 ", which is not there", key_len >= 8 ? get_be64(key) : 0);
	if (f->repair)
		batch_delete(&f->batch, CF_XATTRS, key, key_len);
	return 0;
}

static int read_blob(void *data, const char *name, uint64_t ino, uint64_t size)
{
	struct fsck *f = data;
	struct item *it = ino ? fsck_item(f, ino) : NULL;
	struct fsck_pack *p;
	char key[KEY_MAX];

	f->report.blobs++;
	if (!ino) {
		fsck_fault(f, "blobs/%s: not the name of a blob", name);
		return 0;
	}
	if (it && (it->damaged || it->rec.storage == STORAGE_BLOB)) {
		it->has_blob = true;
		it->blob_size = size;
		return 0;
	}
	p = ino ? fsck_pack(f, ino) : NULL;
	if (p && (p->refs || p->recorded)) {
		p->has_file = true;
		p->size = size;
		return 0;
	}
	if (!f->closed || db_has(&f->vol->db, CF_DEFAULT, key, key_tagged(key, 'B', ino)))
		return 0;
	fsck_fault(f, "blobs/%s: no inode has this blob", name);
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
		next = at->links ? fsck_dir(f, at->parent) : NULL;
		if (!next)
			break;
		at = next;
	}
	/* Ended at a directory without a name, in a loop (1), or at one that is known. */
	verdict = at->ino == VOL_ROOT || at->reach == 2 ? 2 : 3;
	while (it->reach == 1) {
		it->reach = verdict;
		next = it->links ? fsck_dir(f, it->parent) : NULL;
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
		fsck_fault(f, "directory %" PRIu64 ": %" PRIu64 " names lead to it", it->ino, it->links);
	if (root) {
		it->parent = VOL_ROOT;
		it->cookie = 0;
	} else if (it->links == 0) {
		fsck_fault(f, "directory %" PRIu64 ": no name leads to it", it->ino);
		it->lost = true;
	} else if (!reaches_root(f, it)) {
		fsck_fault(f, "directory %" PRIu64 " is not below the root", it->ino);
	}
	if (it->links <= 1 && !it->lost && (rec->parent != it->parent || rec->cookie != it->cookie)) {
		fsck_fault(f,
			   "directory %" PRIu64 ": its parent is %" PRIu64 ", not %" PRIu64
			   ", or its cookie %" PRIu64 ", not %" PRIu64,
			   it->ino, it->parent, rec->parent, it->cookie, rec->cookie);
		rec->parent = it->parent;
		rec->cookie = it->cookie;
	}
	if (rec->nlink != 2 + it->subdirs) {
		fsck_fault(f, "directory %" PRIu64 ": nlink is %u, should be %" PRIu64, it->ino, rec->nlink,
			   2 + it->subdirs);
		rec->nlink = (uint32_t)(2 + it->subdirs);
	}
	if (rec->entries != it->entries) {
		fsck_fault(f, "directory %" PRIu64 ": it counts %" PRIu64 " entries and has %" PRIu64,
			   it->ino, rec->entries, it->entries);
		rec->entries = it->entries;
	}
	if (it->entries && (it->min_cookie < rec->first_cookie || it->max_cookie >= rec->next_cookie)) {
		fsck_fault(f, "directory %" PRIu64 ": a cookie is outside of %" PRIu64 "..%" PRIu64, it->ino,
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
			fsck_fault(f, "inode %" PRIu64 " has content and is no file", it->ino);
	} else if (rec->storage == STORAGE_INLINE) {
		if (have == rec->size)
			return;
		fsck_fault(f, "inode %" PRIu64 ": size is %" PRIu64 ", its content has %" PRIu64 " bytes",
			   it->ino, rec->size, have);
		/* A symlink without a target, or a file that would seem to lose its content: left to be seen. */
		if (S_ISREG(rec->mode) && it->has_data && have <= INLINE_MAX)
			rec->size = have;
	} else if (rec->storage == STORAGE_BLOB && !it->marked && !it->orphan) {
		blob_name(name, it->ino);
		if (!it->has_blob)
			fsck_fault(f, "inode %" PRIu64 ": blobs/%s is not there", it->ino, name);
		else if (it->blob_size < rec->size)
			fsck_fault(f, "inode %" PRIu64 ": blobs/%s has %" PRIu64 " bytes of %" PRIu64,
				   it->ino, name, it->blob_size, rec->size);
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
			fsck_fault(f, "inode %" PRIu64 " was removed and is still there", it->ino);
			if (f->repair)
				batch_put(&f->batch, CF_DEFAULT, key, key_tagged(key, 'O', it->ino), "", 0);
		}
	} else if (it->links == 0) {
		fsck_fault(f, "inode %" PRIu64 ": no name leads to it", it->ino);
		it->lost = true;
	} else if (rec.nlink != it->links) {
		fsck_fault(f, "inode %" PRIu64 ": nlink is %u, should be %" PRIu64, it->ino, rec.nlink,
			   it->links);
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

	if (!fsck_dir(f, VOL_ROOT))
		fsck_fault(f, "the root directory is not there");
	if (last < f->vol->ino_limit)
		return;
	fsck_fault(f, "inode %" PRIu64 " is above the counter %" PRIu64, last, f->vol->ino_limit);
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
		r = db_scan(db, CF_DENTRIES, "", 0, NULL, 0, fsck_dentry, f);
	fsck_blocks(f);
	if (r == 0)
		r = db_scan(db, CF_DATA, "", 0, NULL, 0, read_data, f);
	if (r == 0)
		r = db_scan(db, CF_XATTRS, "", 0, NULL, 0, read_xattr, f);
	if (r == 0)
		r = blob_walk(f->vol, read_blob, f);
	if (r == 0)
		fsck_packs(f);
	for (size_t i = 0; r == 0 && i < f->n; i++)
		check_item(f, &f->items[i]);
	if (r == 0)
		check_counter(f);
	return r;
}

static int repair(struct fsck *f)
{
	struct fsck again = {.vol = f->vol, .closed = f->closed};
	int r = batch_commit(&f->batch, true);

	if (r == 0)
		r = fsck_recount(f);
	if (r == 0)
		r = fsck_attach_lost(f);
	if (r == 0)
		r = check(&again);
	if (r == 0)
		f->report.repaired =
			f->report.faults > again.report.faults ? f->report.faults - again.report.faults : 0;
	free(again.items);
	free(again.blocks);
	free(again.packs);
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
	free(f.packs);
	volume_close(f.vol);
	return r;
}
