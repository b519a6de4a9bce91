/*
 * The bytes of regular files. Up to INLINE_MAX they lie in the data column family and, while the file is
 * open, in node->data; one batch for each write puts them there with the inode. A file that grows beyond, or is
 * written in too many pieces, moves to a blob (and stays there): written directly, its size committed with the
 * write that changes it, its times at the flush. So whatever a write has returned for survives kill -9, and
 * nothing need be done at close(): that saves one of the requests of each file.
 *
 * Where to draw the line was measured (bench-volume, 2 busy cores; files created, written and closed a
 * second, inline against blob): 12,100 : 4,300 at 2 KiB, 8,500 : 3,300 at 8 KiB, 8,600 : 2,400 at 32 KiB,
 * 2,500 : 1,100 at 64 KiB. Beyond, the write buffer of the column family (8 MiB) would hold too few.
 */
#include "fs/volume/private.h"

#include "engine/base/io.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void content_drop(struct node *node)
{
	if (node->overlaid)
		return;
	free(node->data);
	node->data = NULL;
	node->data_room = 0;
	node->data_loaded = false;
	node->inline_cost = 0;
	if (node->blob_fd >= 0)
		close(node->blob_fd);
	if (node->pack_fd >= 0)
		close(node->pack_fd);
	node->blob_fd = node->pack_fd = -1;
	node->blob_marked = node->blob_shared = false;
	node->stores = false;
}

int content_reserve(struct node *node, size_t size)
{
	size_t room = node->data_room ? node->data_room : 256;
	char *data;

	if (size <= node->data_room)
		return 0;
	while (room < size)
		room *= 2;
	data = realloc(node->data, room);
	if (!data)
		return -ENOMEM;
	memset(data + node->data_room, 0, room - node->data_room);
	node->data = data;
	node->data_room = room;
	return 0;
}

int content_load(struct volume *vol, struct node *node)
{
	char key[KEY_MAX];
	size_t len = 0;
	int r;

	if (node->data_loaded)
		return 0;
	if (node->rec.size > INLINE_MAX)
		return -EIO;
	r = content_reserve(node, node->rec.size);
	if (r == 0 && node->rec.size > 0)
		r = db_get(&vol->db, CF_DATA, key, key_ino(key, node->ino), node->data, node->rec.size, &len);
	if (r < 0)
		return r == -ENOENT ? -EIO : r;
	if (len != node->rec.size)
		return -EIO;
	node->data_loaded = true;
	return 0;
}

int content_blob_open(struct volume *vol, struct node *node, struct inode_rec *rec)
{
	struct stat st;
	int fd;

	if (node->blob_fd >= 0)
		return 0;
	fd = blob_open(vol, node->ino, vol->read_only ? O_RDONLY : O_RDWR);
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM)
		return fd;
	if (fd < 0)
		return blob_bad(vol, node->ino, strerror(-fd));
	/* Beyond the size is what a crashed run wrote and did not flush: a later growth must not show it. (Nor does it with a blob that
	 * is shared: share_break.) */
	if (fstat(fd, &st) < 0 || (!vol->read_only && (uint64_t)st.st_size > rec->size && st.st_nlink == 1 &&
				   ftruncate(fd, (off_t)rec->size) < 0)) {
		int r = -errno;

		close(fd);
		return r;
	}
	node->blob_fd = fd;
	node->blob_shared = st.st_nlink > 1;
	return 0;
}

static int blob_prepare(struct volume *vol, struct node *node)
{
	int r = content_blob_open(vol, node, &node->rec);

	return r < 0 ? r : blob_mark(vol, node->ino, &node->blob_marked);
}

int content_blob_spill(struct volume *vol, struct node *node)
{
	size_t done;
	int fd, r = content_load(vol, node);

	if (r < 0)
		return r;
	r = blob_mark(vol, node->ino, &node->blob_marked);
	if (r < 0)
		return r;
	fd = blob_open(vol, node->ino, O_RDWR | O_CREAT | O_TRUNC);
	if (fd < 0)
		return fd;
	r = io_pwrite(fd, node->data, node->rec.size, 0, &done);
	/* The record that takes the bytes out of RocksDB may reach the disk with anybody's fsync, this file only with its own. */
	if (r == 0 && node->promised)
		r = blob_sync(vol, node->ino, fd);
	if (r < 0) {
		close(fd);
		blob_remove(vol, node->ino);
		return r;
	}
	free(node->data);
	node->data = NULL;
	node->data_room = 0;
	node->data_loaded = false;
	node->blob_fd = fd;
	node->rec.storage = STORAGE_BLOB;
	node->data_dirty = true;
	node->dirty = true;
	return 0;
}

static void written(struct node *node, uint64_t end)
{
	if (end > node->rec.size)
		node->rec.size = end;
	now(&node->rec.mtime);
	node->rec.ctime = node->rec.mtime;
	node->dirty = true;
	if (node->rec.storage == STORAGE_INLINE)
		node->data_dirty = true;
	else
		backing_written(node);
}

ssize_t content_read(struct volume *vol, struct node *node, void *data, size_t size, uint64_t offset)
{
	ssize_t n;
	int r;

	if (offset >= node->rec.size)
		return 0;
	if (size > node->rec.size - offset)
		size = node->rec.size - offset;
	if (node->rec.storage == STORAGE_INLINE) {
		r = content_load(vol, node);
		if (r < 0)
			return r;
		memcpy(data, node->data + offset, size);
		return (ssize_t)size;
	}
	if (node->rec.storage == STORAGE_PACK) {
		r = pack_read(vol, node, data, size, offset);
		return r < 0 ? r : (ssize_t)size;
	}
	r = content_blob_open(vol, node, &node->rec);
	if (r < 0)
		return r;
	n = io_pread_some(node->blob_fd, data, size, offset);
	if (n >= 0 && (size_t)n < size)
		return blob_bad(vol, node->ino, "it is shorter than it should be");
	return n == -EIO ? blob_bad(vol, node->ino, "reading it fails") : n;
}

ssize_t content_write(struct volume *vol, struct node *node, const void *data, size_t size, uint64_t offset)
{
	size_t done = size;
	int r;

	if (size > SSIZE_MAX || offset > INT64_MAX - size)
		return -EFBIG;
	if (size == 0)
		return 0;
	if (node->rec.storage == STORAGE_PACK) {
		r = pack_leave(vol, node, node->rec.size);
		if (r < 0)
			return r;
	}
	/* What was there already, and removing it, takes no room. */
	if (offset + size > node->rec.size || node->rec.storage == STORAGE_INLINE) {
		r = room_take(vol, size, ROOM_DATA);
		if (r < 0)
			return r;
	}
	if (node->rec.storage == STORAGE_INLINE &&
	    (offset + size > INLINE_MAX || node->inline_cost >= INLINE_COST_MAX)) {
		r = content_blob_spill(vol, node);
		if (r < 0)
			return r;
	}
	if (node->rec.storage == STORAGE_INLINE) {
		r = content_load(vol, node);
		if (r == 0)
			r = content_reserve(node, offset + size);
		if (r < 0)
			return r;
		memcpy(node->data + offset, data, size);
	} else {
		r = blob_prepare(vol, node);
		if (r == 0)
			r = share_break(vol, node, node->rec.size);
		if (r == 0)
			r = io_pwrite(node->blob_fd, data, size, offset, &done);
		else
			done = 0;
		if (done == 0)
			return r;
		behind_wrote(vol, node, offset, done);
	}
	written(node, offset + done);
	return (ssize_t)done;
}

int content_commit(struct volume *vol, struct node *node, const struct inode_rec *before, bool dirty)
{
	struct inode_rec rec = node->rec;
	int r;

	if (rec.nlink == 0) /* nobody finds it after a crash */
		return 0;
	if (!node->data_dirty && rec.storage == before->storage && rec.size == before->size)
		return 0;
	r = node_commit(vol, node, &rec, false);
	if (r == 0) {
		if (rec.storage == STORAGE_INLINE)
			node->inline_cost += rec.size;
		return 0;
	}
	node->rec = *before;
	node->dirty = dirty;
	node->data_dirty = dirty && before->size == 0; /* an open truncated it */
	if (before->storage != STORAGE_BLOB) {         /* read anew; nobody has seen a blob */
		int pack_fd = node->pack_fd;           /* this somebody may be reading */

		node->pack_fd = -1;
		content_drop(node);
		node->pack_fd = pack_fd;
		if (rec.storage == STORAGE_BLOB)
			blob_remove(vol, node->ino);
	} else if (rec.size > before->size && ftruncate(node->blob_fd, (off_t)before->size) < 0) {
		/* A later growth shows what was refused, unless the file is opened anew before it. */
		log_error("volume: blob of inode %llu: %s", (unsigned long long)node->ino, strerror(errno));
	}
	return r;
}

static int blob_truncate(struct volume *vol, struct node *node, uint64_t size)
{
	uint64_t keep = size < node->rec.size ? size : node->rec.size;
	struct inode_rec rec;
	int r = blob_prepare(vol, node);

	if (r < 0)
		return r;
	if (size < node->rec.size) {
		/* The record first: a crash between the two must not leave a record that is larger. */
		rec = node->rec;
		rec.size = size;
		r = node_commit(vol, node, &rec, false);
		if (r < 0)
			return r;
	}
	r = share_break(vol, node, keep);
	if (r < 0)
		return r;
	return ftruncate(node->blob_fd, (off_t)size) < 0 ? -errno : 0;
}

int content_truncate(struct volume *vol, struct node *node, uint64_t size)
{
	int r;

	if (size > INT64_MAX)
		return -EFBIG;
	if (node->rec.storage == STORAGE_PACK) {
		r = pack_leave(vol, node, size < node->rec.size ? size : node->rec.size);
		if (r < 0)
			return r;
	}
	if (size == 0 && node->rec.storage == STORAGE_INLINE && !node->data_loaded) {
		/* What is there need not be read to be dropped. */
		node->rec.size = 0;
		node->data_loaded = true;
	}
	if (node->rec.storage == STORAGE_INLINE && size > INLINE_MAX) {
		r = content_blob_spill(vol, node);
		if (r < 0)
			return r;
	}
	if (node->rec.storage == STORAGE_BLOB) {
		r = blob_truncate(vol, node, size);
	} else {
		r = content_load(vol, node);
		if (r == 0 && size > node->rec.size)
			r = content_reserve(node, size);
		else if (r == 0 && node->rec.size > size)
			memset(node->data + size, 0, node->rec.size - size);
	}
	if (r < 0)
		return r;
	node->rec.size = size;
	written(node, size);
	return 0;
}

/* Modes: 0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE with or without KEEP_SIZE. */
int content_fallocate(struct volume *vol, struct node *node, int mode, uint64_t offset, uint64_t length)
{
	bool keep = mode & FALLOC_FL_KEEP_SIZE, punch = mode & FALLOC_FL_PUNCH_HOLE;
	bool zero = mode & FALLOC_FL_ZERO_RANGE;
	uint64_t end, size = node->rec.size;
	int r;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) || (punch && !keep) ||
	    (punch && zero))
		return -EOPNOTSUPP;
	if (length == 0 || offset > INT64_MAX || length > INT64_MAX)
		return -EINVAL;
	if (offset + length > INT64_MAX)
		return -EFBIG;
	end = offset + length;
	r = punch ? 0 : room_take(vol, length, ROOM_DATA);
	if (r == 0 && node->rec.storage == STORAGE_PACK)
		r = pack_leave(vol, node, size);
	if (r < 0)
		return r;
	if (node->rec.storage == STORAGE_INLINE && end > INLINE_MAX && !punch) {
		r = content_blob_spill(vol, node);
		if (r < 0)
			return r;
	}
	if (node->rec.storage == STORAGE_BLOB) {
		r = blob_prepare(vol, node);
		if (r == 0)
			r = share_break(vol, node, size);
		if (r < 0)
			return r;
		if (fallocate(node->blob_fd, mode, (off_t)offset, (off_t)length) < 0)
			return -errno;
	} else {
		r = content_load(vol, node);
		if (r == 0 && !keep)
			r = content_reserve(node, end);
		if (r < 0)
			return r;
		if ((punch || zero) && offset < size)
			memset(node->data + offset, 0, (end < size ? end : size) - offset);
	}
	written(node, keep ? 0 : end);
	return 0;
}
