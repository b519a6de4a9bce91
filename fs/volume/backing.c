/*
 * Blobs that somebody else reads, or maps into memory, by their descriptor: the kernel, on behalf of open files
 * (fs/mount/passthrough.c). Its reads and the stores of mappings don't come by here. A store changes no size, only
 * bytes and times, so all there is to it is: the blob is marked beforehand, so that vol_fsync syncs it, and its own
 * mtime, which the disk's filesystem moves, tells that there were stores.
 */
#include "fs/volume/private.h"

#include <errno.h>
#include <sys/stat.h>

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

int vol_backing_fd(struct vol_file *f, bool stores)
{
	struct node *node = f->node;
	struct stat st;
	int r = -ENODATA;

	pthread_mutex_lock(&node->lock);
	if (node->rec.storage != STORAGE_BLOB)
		goto out;
	r = content_blob_open(f->vol, node, &node->rec);
	if (r < 0)
		goto out;
	if (node->blob_shared) { /* before its first change it becomes another file: share.c */
		r = -ENODATA;
		goto out;
	}
	if (fstat(node->blob_fd, &st) < 0 || (uint64_t)st.st_size != node->rec.size) {
		r = -EIO; /* vol_read says why */
		goto out;
	}
	if (stores && !node->stores) {
		r = f->vol->read_only ? -EROFS : blob_mark(f->vol, node->ino, &node->blob_marked);
		if (r < 0)
			goto out;
		node->stores = true;
		node->blob_mtime = st.st_mtim;
	}
	r = node->blob_fd;
out:
	pthread_mutex_unlock(&node->lock);
	return r;
}

void backing_written(struct node *node)
{
	struct stat st;

	if (node->stores && node->blob_fd >= 0 && fstat(node->blob_fd, &st) == 0)
		node->blob_mtime = st.st_mtim;
}

bool vol_stored(struct vol_file *f)
{
	struct node *node = f->node;
	struct stat st;
	bool stored;

	pthread_mutex_lock(&node->lock);
	stored = node->stores && node->blob_fd >= 0 && fstat(node->blob_fd, &st) == 0 &&
		 !same_time(st.st_mtim, node->blob_mtime);
	if (stored) {
		node->blob_mtime = node->rec.mtime = st.st_mtim;
		now(&node->rec.ctime);
		node->dirty = true;
	}
	pthread_mutex_unlock(&node->lock);
	return stored;
}
