/* Open files: a reference on the node, which keeps content and descriptor while any of them is open. */
#include "fs/volume/private.h"

#include "engine/base/io.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* To be released by node_put; its content may have to be dropped before: put_content. */
static int get_regular(struct volume *vol, uint64_t ino, struct node **ret)
{
	struct node *node;
	int r = node_get(vol, ino, &node);

	if (r < 0)
		return r;
	if (!S_ISREG(node->rec.mode)) {
		r = S_ISDIR(node->rec.mode) ? -EISDIR : S_ISLNK(node->rec.mode) ? -ELOOP : -EINVAL;
		node_put(vol, node);
		return r;
	}
	*ret = node;
	return 0;
}

static void put_content(struct volume *vol, struct node *node)
{
	if (node->opens == 0)
		content_drop(node);
	node_put(vol, node);
}

static bool writable(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

int vol_file_open(struct volume *vol, uint64_t ino, int flags, struct vol_file **ret)
{
	struct vol_file *f;
	struct node *node;
	int r;

	if ((vol->read_only || db_failed(&vol->db)) && (writable(flags) || flags & O_TRUNC))
		return -EROFS;
	f = malloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	r = get_regular(vol, ino, &node);
	if (r < 0)
		goto fail;
	if (flags & O_TRUNC && node->rec.size > 0) {
		r = content_truncate(vol, node, 0);
		if (r < 0) {
			put_content(vol, node);
			goto fail;
		}
	}
	node->opens++;
	*f = (struct vol_file){.vol = vol, .node = node, .flags = flags};
	pthread_mutex_unlock(&node->lock);
	*ret = f;
	return 0;
fail:
	free(f);
	return r;
}

static int flush(struct volume *vol, struct node *node)
{
	struct inode_rec rec = node->rec;

	return node->dirty ? node_commit(vol, node, &rec, false) : 0;
}

void vol_file_close(struct vol_file *f)
{
	struct node *node;
	int r;

	if (!f)
		return;
	node = f->node;
	pthread_mutex_lock(&node->lock);
	node->opens--;
	if (node->rec.nlink > 0 || node->opens > 0) {
		r = flush(f->vol, node);
		if (r < 0)
			log_error("volume: what was written to inode %llu is lost at its close: %s",
				  (unsigned long long)node->ino, strerror(-r));
	}
	if (node->opens == 0) {
		content_drop(node);
		purge_after(f->vol, node);
		if (node->dirty) { /* the flush failed: back to what RocksDB has */
			node->dirty = node->data_dirty = false;
			node->loaded = false;
		}
	}
	node_put(f->vol, node);
	free(f);
}

uint64_t vol_file_ino(const struct vol_file *f)
{
	return f->node->ino;
}

static uint64_t size_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_size;
}

ssize_t vol_read(struct vol_file *f, void *data, size_t size, uint64_t offset)
{
	struct node *node = f->node;
	uint64_t base, number = node->ino;
	bool missing;
	ssize_t r;
	int fd;

	if ((f->flags & O_ACCMODE) == O_WRONLY)
		return -EBADF;
	pthread_mutex_lock(&node->lock);
	if (node->rec.storage == STORAGE_INLINE) {
		r = content_read(f->vol, node, data, size, offset);
		pthread_mutex_unlock(&node->lock);
		return r;
	}
	base = node->rec.offset;
	/* Either descriptor stays open as long as f is. */
	if (node->rec.storage == STORAGE_PACK) {
		r = pack_open(f->vol, node);
		fd = node->pack_fd;
		number = node->rec.pack;
	} else {
		r = content_blob_open(f->vol, node, &node->rec);
		fd = node->blob_fd;
	}
	if (offset >= node->rec.size)
		size = 0;
	else if (size > node->rec.size - offset)
		size = node->rec.size - offset;
	pthread_mutex_unlock(&node->lock);
	if (r < 0)
		return r;
	/* Readers of one file don't wait for each other; one that meets a truncation reads less. */
	r = io_pread_some(fd, data, size, base + offset);
	if (r == -EIO)
		return blob_bad(f->vol, number, "reading it fails");
	if (r < 0 || (size_t)r == size)
		return r;
	pthread_mutex_lock(&node->lock);
	missing = number != node->ino ||
		  (node->rec.size > offset + (uint64_t)r && size_of(fd) < node->rec.size);
	pthread_mutex_unlock(&node->lock);
	return missing ? blob_bad(f->vol, number, "it is shorter than it should be") : r;
}

ssize_t vol_write(struct vol_file *f, const void *data, size_t size, uint64_t offset)
{
	struct inode_rec before;
	bool dirty;
	int committed;
	ssize_t r;

	if (!writable(f->flags))
		return -EBADF;
	if (db_failed(&f->vol->db)) /* no flush could keep it */
		return -EROFS;
	pthread_mutex_lock(&f->node->lock);
	before = f->node->rec;
	dirty = f->node->dirty;
	r = content_write(f->vol, f->node, data, size, offset);
	if (r > 0) {
		committed = content_commit(f->vol, f->node, &before, dirty);
		r = committed < 0 ? committed : r;
	}
	pthread_mutex_unlock(&f->node->lock);
	return r;
}

int vol_flush(struct vol_file *f)
{
	int r;

	pthread_mutex_lock(&f->node->lock);
	r = flush(f->vol, f->node);
	pthread_mutex_unlock(&f->node->lock);
	return r;
}

/* The blob's bytes and names, then the record, the mark's removal and all of the log before it. */
static int sync_locked(struct volume *vol, struct node *node)
{
	struct inode_rec rec = node->rec;
	struct batch b;
	char key[KEY_MAX];
	size_t len = key_tagged(key, 'B', node->ino);
	int r = batch_init(&b, vol);

	if (r < 0)
		return r;
	if (rec.storage == STORAGE_BLOB) {
		if (node->blob_marked || db_has(&vol->db, CF_DEFAULT, key, len)) {
			r = content_blob_open(vol, node, &rec);
			if (r == 0)
				r = blob_sync(vol, node->ino, node->blob_fd);
			if (r < 0)
				goto out;
			if (!node->stores) /* more may come that only a mark tells the next fsync of */
				batch_delete(&b, CF_DEFAULT, key, len);
		}
	}
	if (node->dirty)
		node_batch(&b, node, &rec);
	r = batch_commit(&b, true);
	if (r == 0) {
		if (node->dirty)
			node_committed(node, &rec);
		node->blob_marked = node->stores;
		node->promised = true;
	}
out:
	batch_release(&b);
	return r;
}

int vol_fsync(struct vol_file *f, bool data_only)
{
	int r;

	(void)data_only; /* the size always has to be synced, and the times are in the same record */
	if (f->vol->read_only)
		return 0;
	pthread_mutex_lock(&f->node->lock);
	r = sync_locked(f->vol, f->node);
	pthread_mutex_unlock(&f->node->lock);
	return r;
}

int vol_fsync_dir(struct volume *vol, uint64_t dir)
{
	struct vol_attr attr;
	struct batch b;
	int r = vol_getattr(vol, dir, &attr);

	if (r < 0)
		return r;
	if (!S_ISDIR(attr.mode))
		return -ENOTDIR;
	if (vol->read_only)
		return 0;
	r = batch_init(&b, vol);
	if (r == 0)
		r = batch_commit(&b, true);
	batch_release(&b);
	return r;
}

int vol_fallocate(struct vol_file *f, int mode, uint64_t offset, uint64_t length)
{
	struct inode_rec before;
	bool dirty;
	int r;

	if (!writable(f->flags))
		return -EBADF;
	if (db_failed(&f->vol->db))
		return -EROFS;
	pthread_mutex_lock(&f->node->lock);
	before = f->node->rec;
	dirty = f->node->dirty;
	r = content_fallocate(f->vol, f->node, mode, offset, length);
	if (r == 0)
		r = content_commit(f->vol, f->node, &before, dirty);
	pthread_mutex_unlock(&f->node->lock);
	return r;
}

int64_t vol_seek(struct vol_file *f, int64_t offset, int whence)
{
	struct node *node = f->node;
	int64_t r, size;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	pthread_mutex_lock(&node->lock);
	size = (int64_t)node->rec.size;
	if (offset < 0 || offset >= size) {
		r = -ENXIO;
	} else if (node->rec.storage != STORAGE_BLOB) {
		r = whence == SEEK_DATA ? offset : size;
	} else {
		r = content_blob_open(f->vol, node, &node->rec);
		if (r == 0) {
			r = lseek(node->blob_fd, offset, whence);
			r = r < 0 ? -errno : r > size ? size : r;
		}
	}
	pthread_mutex_unlock(&node->lock);
	return r;
}

int vol_content_fd(struct volume *vol, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	struct node *node;
	int fd = -1, r = get_regular(vol, ino, &node);

	if (r < 0)
		return r;
	if (node->rec.storage == STORAGE_INLINE) {
		r = content_load(vol, node);
		if (r == 0)
			r = io_memfd("inferfs-content", node->data, node->rec.size, &fd);
		fd = r < 0 ? r : fd;
	} else if (node->rec.storage == STORAGE_PACK) {
		fd = pack_content_fd(vol, node);
	} else {
		/* Opening the node's own cuts what lies beyond the size. */
		r = content_blob_open(vol, node, &node->rec);
		fd = r < 0 ? r : blob_open(vol, ino, O_RDONLY);
	}
	if (fd >= 0) {
		*ret_fd = fd;
		*ret_len = node->rec.size;
	}
	put_content(vol, node);
	return fd < 0 ? fd : 0;
}

int vol_content(struct volume *vol, uint64_t ino, size_t max, void **ret, size_t *ret_len)
{
	struct node *node;
	char *data;
	ssize_t n;
	int r = get_regular(vol, ino, &node);

	if (r < 0)
		return r;
	if (node->rec.size > max) {
		r = -EFBIG;
		goto out;
	}
	data = malloc(node->rec.size + 1);
	if (!data) {
		r = -ENOMEM;
		goto out;
	}
	n = content_read(vol, node, data, node->rec.size, 0);
	if (n < 0 || (uint64_t)n != node->rec.size) {
		free(data);
		r = n < 0 ? (int)n : -EIO;
		goto out;
	}
	data[n] = 0;
	*ret = data;
	*ret_len = (size_t)n;
out:
	put_content(vol, node);
	return r;
}
