/*
 * The end of an inode. Without a blob and not open, it goes in the batch that drops its last link. Else that
 * batch makes it an orphan ('O'), and it is purged at the last close, right after the batch, or by the next
 * volume_open: in any order of events a crash leaves an orphan record for what is still to be removed.
 */
#include "fs/volume/private.h"

#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int purge_batch(struct volume *vol, struct batch *b, uint64_t ino, const struct inode_rec *rec, uint64_t pack)
{
	char key[KEY_MAX];
	size_t len = key_ino(key, ino);

	room_freed(vol);
	batch_delete(b, CF_INODES, key, len);
	if (S_ISREG(rec->mode) || S_ISLNK(rec->mode))
		batch_delete(b, CF_DATA, key, len);
	if (pack)
		pack_batch_leave(b, rec->pack == pack ? &(struct pack_left){pack, rec->offset, rec->size}
						      : &(struct pack_left){.pack = pack});
	return xattr_batch_delete_all(vol, b, ino);
}

bool purge_is_immediate(const struct node *node, const struct inode_rec *rec)
{
	return S_ISDIR(rec->mode) || (node->opens == 0 && rec->storage != STORAGE_BLOB);
}

int purge_drop_link(struct volume *vol, struct batch *b, struct node *node, struct inode_rec *rec,
		    bool *ret_gone)
{
	char key[KEY_MAX];

	*ret_gone = false;
	now(&rec->ctime);
	rec->nlink = S_ISDIR(rec->mode) ? 0 : rec->nlink - (rec->nlink > 0);
	if (rec->nlink == 0 && purge_is_immediate(node, rec)) {
		*ret_gone = true;
		return purge_batch(vol, b, node->ino, rec, node->pack);
	}
	if (rec->nlink == 0)
		batch_put(b, CF_DEFAULT, key, key_tagged(key, 'O', node->ino), "", 0);
	node_batch(b, node, rec);
	return 0;
}

static int purge(struct volume *vol, uint64_t ino, const struct inode_rec *rec, uint64_t pack)
{
	struct batch b;
	char key[KEY_MAX];
	int r = batch_init(&b, vol);

	if (r < 0)
		return r;
	xattr_lock(vol, xattr_mask(ino));
	if (rec->storage == STORAGE_BLOB) {
		r = blob_remove(vol, ino);
		batch_delete(&b, CF_DEFAULT, key, key_tagged(key, 'B', ino));
	}
	batch_delete(&b, CF_DEFAULT, key, key_tagged(key, 'O', ino));
	if (r == 0)
		r = purge_batch(vol, &b, ino, rec, pack);
	if (r == 0)
		r = batch_commit(&b, false);
	xattr_unlock(vol, xattr_mask(ino));
	batch_release(&b);
	return r;
}

void purge_after(struct volume *vol, struct node *node)
{
	int r;

	if (node->gone || node->rec.nlink > 0 || node->opens > 0)
		return;
	content_drop(node);
	r = purge(vol, node->ino, &node->rec, node->pack);
	if (r < 0)
		log_warn("volume: inode %llu is purged at the next start: %s", (unsigned long long)node->ino,
			 strerror(-r));
	else
		node->gone = true;
}

struct ino_list {
	uint64_t *ino;
	size_t n, room;
};

static int collect(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct ino_list *list = data;

	(void)value;
	(void)value_len;
	if (key_len != 9)
		return 0;
	if (list->n == list->room) {
		size_t room = list->room ? list->room * 2 : 64;
		uint64_t *ino = realloc(list->ino, room * sizeof(*ino));

		if (!ino)
			return -ENOMEM;
		list->ino = ino;
		list->room = room;
	}
	list->ino[list->n++] = get_be64((const char *)key + 1);
	return 0;
}

static int purge_orphans(struct volume *vol)
{
	struct ino_list list = {0};
	struct inode_rec rec;
	int r = db_scan(&vol->db, CF_DEFAULT, "O", 1, "P", 1, collect, &list);

	for (size_t i = 0; r == 0 && i < list.n; i++) {
		r = inode_read(vol, list.ino[i], &rec);
		/* An orphan record of a linked or unknown inode is a matter for fsck. */
		if (r == 0 && rec.nlink == 0)
			r = purge(vol, list.ino[i], &rec, rec.pack);
		else if (r == -ESTALE || r == -EIO)
			r = 0;
	}
	free(list.ino);
	return r;
}

/* What blob.c promises for one marked inode. */
static int settle(struct volume *vol, uint64_t ino)
{
	struct inode_rec rec;
	struct stat st;
	int fd, r = inode_read(vol, ino, &rec);

	if (r == -ESTALE || (r == 0 && rec.storage != STORAGE_BLOB))
		return pack_is_there(vol, ino) ? 0 : blob_remove(vol, ino);
	if (r < 0)
		return r == -EIO ? 0 : r;
	fd = blob_open(vol, ino, O_RDWR | O_CREAT);
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM)
		return fd;
	if (fd < 0) { /* one that can't be read must not keep all others from being read */
		blob_bad(vol, ino, strerror(-fd));
		return 0;
	}
	if (fstat(fd, &st) == 0 && (uint64_t)st.st_size < rec.size)
		log_warn("volume: the end of inode %llu was not fsynced and is lost: %llu of %llu bytes",
			 (unsigned long long)ino, (unsigned long long)st.st_size,
			 (unsigned long long)rec.size);
	if (fstat(fd, &st) < 0 ||
	    ((uint64_t)st.st_size != rec.size && (st.st_nlink == 1 || (uint64_t)st.st_size < rec.size) &&
	     ftruncate(fd, (off_t)rec.size) < 0))
		r = -errno;
	close(fd);
	return r;
}

static int settle_blobs(struct volume *vol)
{
	struct ino_list list = {0};
	struct batch b = {0};
	char key[KEY_MAX];
	int r = db_scan(&vol->db, CF_DEFAULT, "B", 1, "C", 1, collect, &list);

	if (r < 0 || list.n == 0)
		goto out;
	for (size_t i = 0; r == 0 && i < list.n; i++)
		r = settle(vol, list.ino[i]);
	if (r < 0)
		goto out;
	/* The marks may only go when the blobs are on the disk. */
	if (syncfs(vol->dir_fd) < 0) {
		r = -errno;
		goto out;
	}
	r = batch_init(&b, vol);
	if (r < 0)
		goto out;
	for (size_t i = 0; i < list.n; i++)
		batch_delete(&b, CF_DEFAULT, key, key_tagged(key, 'B', list.ino[i]));
	r = batch_commit(&b, false);
out:
	batch_release(&b);
	free(list.ino);
	return r;
}

static int sweep_one(void *data, const char *name, uint64_t ino, uint64_t size)
{
	struct volume *vol = data;
	struct inode_rec rec;
	int r = ino ? inode_read(vol, ino, &rec) : -EIO;

	(void)name;
	(void)size;
	return (r == -ESTALE || (r == 0 && rec.storage != STORAGE_BLOB)) && !pack_is_there(vol, ino)
		       ? blob_remove(vol, ino)
		       : 0;
}

bool volume_was_closed(struct volume *vol)
{
	return db_has(&vol->db, CF_DEFAULT, "C", 1);
}

int purge_crashed(struct volume *vol)
{
	struct batch b = {0};
	int r = purge_orphans(vol);

	if (r == 0)
		r = pack_purge(vol);
	if (r == 0)
		r = settle_blobs(vol);
	if (r == 0 && !volume_was_closed(vol))
		r = blob_walk(vol, sweep_one, vol);
	if (r == 0)
		r = batch_init(&b, vol);
	if (r < 0)
		return r;
	batch_delete(&b, CF_DEFAULT, "C", 1);
	r = batch_commit(&b, true);
	batch_release(&b);
	vol->purged = r == 0;
	return r;
}
