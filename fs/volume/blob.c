/*
 * The files below STATE/blobs: one for each large file of the volume, blobs/XX/INO in hex, XX the low byte.
 *
 * A blob and its inode's record can't change in one atomic step. So before a blob is made or changed, its
 * inode is marked ('B' in the default column family), and the mark goes when an fsync has made both agree
 * on the disk. volume_open looks at each marked one (purge.c): a blob without an inode is removed, a
 * missing or short one (only after a power cut without fsync) is stretched with zeros. A power cut can also
 * bring back a blob that was removed: after anything but a clean close, volume_open removes those without
 * an inode. The bytes beyond a record's size mean nothing and are cut when the blob is next opened.
 */
#include "fs/volume/private.h"

#include "engine/base/io.h"
#include "engine/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void blob_name(char name[32], uint64_t ino)
{
	snprintf(name, 32, "%02x/%016llx", (unsigned)(ino & 0xff), (unsigned long long)ino);
}

static void folder_name(char name[8], uint64_t ino)
{
	snprintf(name, 8, "%02x", (unsigned)(ino & 0xff));
}

int blob_folder(struct volume *vol, uint64_t ino)
{
	char folder[8];

	folder_name(folder, ino);
	return mkdirat(vol->blobs_fd, folder, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int blob_open(struct volume *vol, uint64_t ino, int flags)
{
	char name[32];
	int fd;

	blob_name(name, ino);
	fd = openat(vol->blobs_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 && errno == ENOENT && flags & O_CREAT) {
		int r = blob_folder(vol, ino);

		if (r < 0)
			return r;
		fd = openat(vol->blobs_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	}
	return fd < 0 ? -errno : fd;
}

int blob_bad(struct volume *vol, uint64_t ino, const char *what)
{
	char name[32];

	blob_name(name, ino);
	log_error("volume: blobs/%s: %s", name, what);
	if (__atomic_fetch_add(&vol->bad_blobs, 1, __ATOMIC_RELAXED) == 0)
		__atomic_store_n(&vol->bad_since, (int64_t)time(NULL), __ATOMIC_RELAXED);
	return -EIO;
}

int blob_remove(struct volume *vol, uint64_t ino)
{
	char name[32];

	blob_name(name, ino);
	return unlinkat(vol->blobs_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int blob_sync(struct volume *vol, uint64_t ino, int fd)
{
	char folder[8];
	int dir, r = 0;

	if (fdatasync(fd) < 0)
		return -errno;
	folder_name(folder, ino);
	dir = openat(vol->blobs_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	if (fsync(dir) < 0 || fsync(vol->blobs_fd) < 0)
		r = -errno;
	close(dir);
	return r;
}

int blob_create(struct volume *vol, uint64_t ino, const void *data, size_t len, bool sync,
		struct inode_rec *rec)
{
	struct stat st;
	bool marked = false;
	int fd, r = blob_mark(vol, ino, &marked);

	if (r < 0)
		return r;
	fd = blob_open(vol, ino, O_WRONLY | O_CREAT | O_TRUNC);
	if (fd < 0)
		return fd;
	r = io_write(fd, data, len);
	if (r == 0 && sync)
		r = blob_sync(vol, ino, fd);
	if (r == 0 && fstat(fd, &st) == 0)
		rec->blocks = (uint64_t)st.st_blocks;
	close(fd);
	if (r < 0)
		blob_remove(vol, ino);
	rec->storage = STORAGE_BLOB;
	return r;
}

int blob_adopt(struct volume *vol, uint64_t ino, struct inode_rec *rec)
{
	char name[32];
	struct stat st;

	blob_name(name, ino);
	if (fstatat(vol->blobs_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	rec->blocks = (uint64_t)st.st_blocks;
	rec->storage = STORAGE_BLOB;
	return 0;
}

int blob_mark(struct volume *vol, uint64_t ino, bool *marked)
{
	struct batch b;
	char key[KEY_MAX];
	size_t len = key_tagged(key, 'B', ino);
	int r;

	if (*marked)
		return 0;
	if (!db_has(&vol->db, CF_DEFAULT, key, len)) {
		r = batch_init(&b, vol);
		if (r < 0)
			return r;
		batch_put(&b, CF_DEFAULT, key, len, "", 0);
		r = batch_commit(&b, false);
		batch_release(&b);
		if (r < 0)
			return r;
	}
	*marked = true;
	return 0;
}

static int walk_folder(struct volume *vol, const char *folder,
		       int (*fn)(void *data, const char *name, uint64_t ino, uint64_t size), void *data)
{
	int fd = openat(vol->blobs_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		r = errno == ENOTDIR ? fn(data, folder, 0, 0) : -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(dir))) {
		char name[300], expected[32];
		uint64_t ino;
		struct stat st;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(name, sizeof(name), "%s/%s", folder, e->d_name);
		ino = strtoull(e->d_name, NULL, 16);
		blob_name(expected, ino);
		if (strcmp(name, expected) != 0)
			ino = 0;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		r = fn(data, name, S_ISREG(st.st_mode) ? ino : 0, (uint64_t)st.st_size);
	}
	closedir(dir);
	return r < 0 ? r : 0;
}

int blob_walk(struct volume *vol, int (*fn)(void *data, const char *name, uint64_t ino, uint64_t size),
	      void *data)
{
	int fd = openat(vol->blobs_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = walk_folder(vol, e->d_name, fn, data);
	closedir(dir);
	return r;
}
