/*
 * Opening and closing. Below the state directory: `lock` (held with flock as long as the volume is open),
 * `meta` (RocksDB), `blobs` (contents of large files).
 */
#include "fs/volume/private.h"

#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int open_dirs(struct volume *vol, const char *state_dir, struct err *err)
{
	if (!vol->read_only && mkdir(state_dir, 0700) < 0 && errno != EEXIST)
		goto fail;
	vol->dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (vol->dir_fd < 0)
		goto fail;
	vol->lock_fd = openat(vol->dir_fd, "lock",
			      vol->read_only ? O_RDONLY | O_CLOEXEC : O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (vol->lock_fd < 0) {
		if (vol->read_only && errno == ENOENT)
			return err_set(err, ERR_NO_VOLUME, "%s", state_dir);
		goto fail;
	}
	if (flock(vol->lock_fd, (vol->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return err_set(err, ERR_VOLUME_BUSY, "%s", state_dir);
		goto fail;
	}
	if (!vol->read_only && mkdirat(vol->dir_fd, "blobs", 0700) < 0 && errno != EEXIST)
		goto fail;
	vol->blobs_fd = openat(vol->dir_fd, "blobs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (vol->blobs_fd < 0)
		goto fail;
	return 0;
fail:
	return err_set(err, errno == ENOENT ? ERR_NO_VOLUME : ERR_IO, "%s: %s", state_dir, strerror(errno));
}

static int make_root(struct volume *vol)
{
	struct inode_rec root = {
		.mode = S_IFDIR | 0755,
		.nlink = 2,
		.uid = getuid(),
		.gid = getgid(),
		.size = 4096,
		.parent = VOL_ROOT,
		.next_cookie = COOKIE_FIRST,
		.first_cookie = COOKIE_FIRST,
	};
	char key[KEY_MAX], value[INODE_MAX];
	struct batch b;
	int r = batch_init(&b, vol);

	if (r < 0)
		return r;
	now(&root.atime);
	root.mtime = root.ctime = root.atime;
	batch_put(&b, CF_INODES, key, key_ino(key, VOL_ROOT), value, record_put_inode(value, &root));
	put_le64(value, VOL_ROOT + 1);
	batch_put(&b, CF_DEFAULT, "I", 1, value, 8);
	put_le64(value, VOLUME_FORMAT_FIRST);
	batch_put(&b, CF_DEFAULT, "V", 1, value, 8);
	r = batch_commit(&b, true);
	batch_release(&b);
	return r;
}

uint32_t volume_format(void)
{
	return VOLUME_FORMAT;
}

static int read_number(struct volume *vol, const char *key, uint64_t *ret)
{
	char value[8];
	size_t len = 0;
	int r = db_get(&vol->db, CF_DEFAULT, key, 1, value, sizeof(value), &len);

	if (r < 0)
		return r;
	if (len != 8)
		return -EIO;
	*ret = get_le64(value);
	return 0;
}

static int load(struct volume *vol, const char *state_dir, struct err *err)
{
	uint64_t version;
	int r = read_number(vol, "V", &version);

	if (r == -ENOENT && !vol->read_only) {
		r = make_root(vol);
		version = VOLUME_FORMAT;
	}
	if (r < 0)
		return err_set(err, ERR_VOLUME_FORMAT, "%s: no format version", state_dir);
	if (version < VOLUME_FORMAT_FIRST || version > VOLUME_FORMAT)
		return err_set(err, ERR_VOLUME_FORMAT, "%s: format version %llu, this program knows %d to %d",
			       state_dir, (unsigned long long)version, VOLUME_FORMAT_FIRST, VOLUME_FORMAT);
	r = read_number(vol, "I", &vol->ino_limit);
	if (r < 0 || vol->ino_limit <= VOL_ROOT)
		return err_set(err, ERR_VOLUME_FORMAT, "%s: no inode counter", state_dir);
	vol->ino_next = vol->ino_limit;
	return 0;
}

static void release(struct volume *vol)
{
	db_close(&vol->db);
	marks_free(vol);
	overlay_free(vol);
	nodes_free(vol);
	for (int i = 0; i < SHARDS; i++)
		pthread_mutex_destroy(&vol->shards[i].lock);
	for (int i = 0; i < XATTR_LOCKS; i++)
		pthread_mutex_destroy(&vol->xattr_locks[i]);
	pthread_mutex_destroy(&vol->behind.lock);
	pthread_cond_destroy(&vol->behind.wake);
	pthread_mutex_destroy(&vol->ino_lock);
	pthread_mutex_destroy(&vol->rename_lock);
	if (vol->blobs_fd >= 0)
		close(vol->blobs_fd);
	if (vol->lock_fd >= 0)
		close(vol->lock_fd);
	if (vol->dir_fd >= 0)
		close(vol->dir_fd);
	free(vol);
}

int volume_open_unpurged(struct volume **ret, const char *state_dir, unsigned flags, struct err *err)
{
	struct volume *vol = calloc(1, sizeof(*vol));
	char path[64];
	int r;

	if (!vol)
		return err_set(err, ERR_NO_MEMORY, "%s", state_dir);
	vol->read_only = flags & VOLUME_READ_ONLY;
	vol->dir_fd = vol->blobs_fd = vol->lock_fd = -1;
	pthread_mutex_init(&vol->rename_lock, NULL);
	pthread_mutex_init(&vol->overlay.lock, NULL);
	pthread_mutex_init(&vol->ino_lock, NULL);
	pthread_mutex_init(&vol->behind.lock, NULL);
	pthread_cond_init(&vol->behind.wake, NULL);
	for (int i = 0; i < XATTR_LOCKS; i++)
		pthread_mutex_init(&vol->xattr_locks[i], NULL);
	for (int i = 0; i < SHARDS; i++)
		pthread_mutex_init(&vol->shards[i].lock, NULL);
	for (int i = 0; i < MARK_SHARDS; i++)
		pthread_mutex_init(&vol->marks[i].lock, NULL);
	r = open_dirs(vol, state_dir, err);
	if (r < 0)
		goto fail;
	/* By the descriptor: whatever happens to the path, it is the directory that was locked. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d/meta", vol->dir_fd);
	r = db_open(&vol->db, path, vol->read_only, !vol->read_only, err);
	if (r == 0)
		r = load(vol, state_dir, err);
	if (r < 0)
		goto fail;
	*ret = vol;
	return 0;
fail:
	release(vol);
	return r;
}

int volume_open(struct volume **ret, const char *state_dir, unsigned flags, struct err *err)
{
	struct volume *vol;
	int r = volume_open_unpurged(&vol, state_dir, flags, err);

	if (r < 0)
		return r;
	if (flags & VOLUME_TAKEN_OVER)
		vol->purged = true; /* by who opened it first */
	else if (!vol->read_only) {
		r = purge_crashed(vol);
		if (r < 0) {
			err_set(err, ERR_IO, "%s: %s", state_dir, strerror(-r));
			release(vol);
			return r;
		}
	}
	if (!vol->read_only) {
		r = room_start(vol);
		if (r < 0) {
			err_set(err, ERR_NO_MEMORY, "%s: starting a thread", state_dir);
			release(vol);
			return r;
		}
	}
	vol->keeps_nodes = true;
	*ret = vol;
	return 0;
}

static int sync_all(struct volume *vol, bool closing)
{
	struct batch b;
	int r;

	if (vol->read_only)
		return 0;
	if (syncfs(vol->dir_fd) < 0)
		return -errno;
	r = batch_init(&b, vol);
	if (r < 0)
		return r;
	if (closing && vol->purged)
		batch_put(&b, CF_DEFAULT, "C", 1, "", 0);
	r = batch_commit(&b, true);
	batch_release(&b);
	return r;
}

int volume_sync(struct volume *vol)
{
	return sync_all(vol, false);
}

void volume_close(struct volume *vol)
{
	int r;

	if (!vol)
		return;
	room_stop(vol);
	behind_stop(vol);
	r = sync_all(vol, true);
	if (r < 0)
		log_error("volume: sync at close: %s", strerror(-r));
	release(vol);
}

void volume_hand_over(struct volume *vol)
{
	if (!vol)
		return;
	room_stop(vol);
	behind_stop(vol);
	release(vol);
}
