/*
 * Packs: files below STATE/blobs, named like a blob by a number of its own, in which the contents of many inodes lie (bulk.c makes
 * them). An inode's content is a range of one, and is only read there: before its first change it becomes the inode's own
 * (pack_leave), so nobody's neighbour ever changes.
 *
 * A pack lives as long as inodes refer to it. How many do is a number in the default column family ('P'), which is changed in the batch
 * that makes or ends the reference: it is true at any moment, without a lock, since the change is an addition (RocksDB's merge).
 * When it comes to 0, 'P' is deleted, that is synced, and then the file goes: a power cut must not bring names back whose contents
 * went. A crash leaves one of
 *	a file that is marked ('B') and has no 'P'	never put: removed by its mark (purge.c)
 *	a 'P' of 0					pack_purge
 *	a file with neither				blob.c's sweep after anything but a clean close
 * Its bytes are on the disk before the batch that makes 'P', as a blob's are (blob.c).
 *
 * What one large file among many had is given back at its end by a hole; what small ones had when the pack goes.
 */
#include "fs/volume/private.h"

#include "engine/base/io.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOLE_UNIT 4096 /* at least of what is a page or a block; smaller parts are only zeroed */

int pack_new(struct volume *vol, uint64_t *ret_pack, int *ret_fd)
{
	bool marked = false;
	uint64_t pack;
	int fd, r = ino_alloc(vol, &pack);

	if (r == 0)
		r = blob_mark(vol, pack, &marked);
	if (r < 0)
		return r;
	fd = blob_open(vol, pack, O_RDWR | O_CREAT | O_TRUNC);
	if (fd < 0)
		return fd;
	*ret_pack = pack;
	*ret_fd = fd;
	return 0;
}

void pack_batch_new(struct batch *b, uint64_t pack, uint64_t n)
{
	char key[KEY_MAX], value[8];

	put_le64(value, n);
	batch_put(b, CF_DEFAULT, key, key_tagged(key, 'P', pack), value, sizeof(value));
	batch_delete(b, CF_DEFAULT, key, key_tagged(key, 'B', pack));
	put_le64(value, VOLUME_FORMAT);
	batch_put(b, CF_DEFAULT, "V", 1, value, sizeof(value));
}

void pack_batch_leave(struct batch *b, const struct pack_left *left)
{
	char key[KEY_MAX], value[8];

	put_le64(value, UINT64_MAX); /* -1 */
	batch_merge(b, CF_DEFAULT, key, key_tagged(key, 'P', left->pack), value, sizeof(value));
	if (b->n_packs < (int)(sizeof(b->packs) / sizeof(b->packs[0])))
		b->packs[b->n_packs++] = *left;
}

static int count_of(struct volume *vol, uint64_t pack, uint64_t *ret)
{
	char key[KEY_MAX], value[8];
	size_t len = 0;
	int r = db_get(&vol->db, CF_DEFAULT, key, key_tagged(key, 'P', pack), value, sizeof(value), &len);

	if (r == 0 && len != sizeof(value))
		r = -EIO;
	if (r == 0)
		*ret = get_le64(value);
	return r;
}

bool pack_is_there(struct volume *vol, uint64_t pack)
{
	uint64_t n;
	int r = count_of(vol, pack, &n);

	return r == 0 ? n > 0 : r != -ENOENT;
}

static int pack_remove(struct volume *vol, uint64_t pack)
{
	char key[KEY_MAX];
	struct batch b;
	int r = batch_init(&b, vol);

	if (r < 0)
		return r;
	batch_delete(&b, CF_DEFAULT, key, key_tagged(key, 'P', pack));
	r = batch_commit(&b, true);
	batch_release(&b);
	if (r == 0)
		r = blob_remove(vol, pack);
	room_freed(vol);
	return r;
}

static void punch(struct volume *vol, const struct pack_left *left)
{
	uint64_t from = (left->offset + HOLE_UNIT - 1) / HOLE_UNIT * HOLE_UNIT;
	uint64_t to = (left->offset + left->len) / HOLE_UNIT * HOLE_UNIT;
	int fd = blob_open(vol, left->pack, O_WRONLY);
	struct stat st;

	if (fd < 0)
		return;
	/* Not of an archive that is there itself: share.c. */
	if (fstat(fd, &st) < 0 || st.st_nlink > 1)
		log_trace(LOG_FS, "blobs: a pack that is shared keeps the room of what was removed");
	else if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) <
		 0)
		log_trace(LOG_FS, "blobs: a pack keeps the room of what was removed: %s", strerror(errno));
	close(fd);
}

void pack_left(struct volume *vol, const struct pack_left *left)
{
	uint64_t n;
	int r = count_of(vol, left->pack, &n);

	if (r == 0 && n == 0)
		r = pack_remove(vol, left->pack);
	else if (r == 0 && left->len > INLINE_MAX)
		punch(vol, left);
	if (r < 0 && r != -ENOENT)
		log_warn("volume: pack %" PRIu64 " is removed at the next start: %s", left->pack,
			 strerror(-r));
}

/* --- contents --- */

int pack_open(struct volume *vol, struct node *node)
{
	int fd;

	if (node->pack_fd >= 0)
		return 0;
	fd = blob_open(vol, node->rec.pack, O_RDONLY);
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM)
		return fd;
	if (fd < 0)
		return blob_bad(vol, node->rec.pack, strerror(-fd));
	node->pack_fd = fd;
	return 0;
}

int pack_read(struct volume *vol, struct node *node, void *data, size_t size, uint64_t offset)
{
	int r = pack_open(vol, node);

	if (r < 0)
		return r;
	r = io_pread(node->pack_fd, data, size, node->rec.offset + offset);
	if (r == -ENODATA)
		return blob_bad(vol, node->rec.pack, "it is shorter than it should be");
	return r == -EIO ? blob_bad(vol, node->rec.pack, "reading it fails") : r;
}

int pack_copy(struct volume *vol, struct node *node, int to, uint64_t len)
{
	off_t at = (off_t)node->rec.offset;
	int r = pack_open(vol, node);

	while (r == 0 && len) {
		ssize_t n = sendfile(to, node->pack_fd, &at, len);

		if (n > 0)
			len -= (uint64_t)n;
		else if (n == 0)
			r = blob_bad(vol, node->rec.pack, "it is shorter than it should be");
		else if (errno != EINTR)
			r = errno == EIO ? blob_bad(vol, node->rec.pack, "reading it fails") : -errno;
	}
	return r;
}

/* The pack itself, where it holds nothing else: no more changes it than a copy. */
int pack_content_fd(struct volume *vol, struct node *node)
{
	struct stat st;
	int fd, r = pack_open(vol, node);

	if (r < 0)
		return r;
	if (node->rec.offset == 0 && fstat(node->pack_fd, &st) == 0 && (uint64_t)st.st_size == node->rec.size)
		return blob_open(vol, node->rec.pack, O_RDONLY);
	r = io_memfd_new("inferfs-content", &fd);
	if (r < 0)
		return r;
	r = pack_copy(vol, node, fd, node->rec.size);
	if (r == 0)
		r = io_memfd_seal(fd);
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int leave_to_blob(struct volume *vol, struct node *node, uint64_t keep)
{
	int fd, r = blob_mark(vol, node->ino, &node->blob_marked);

	if (r < 0)
		return r;
	fd = blob_open(vol, node->ino, O_RDWR | O_CREAT | O_TRUNC);
	if (fd < 0)
		return fd;
	r = pack_copy(vol, node, fd, keep);
	/* In the pack the bytes are on the disk, and the record that takes them out may get there with anybody's fsync. */
	if (r == 0)
		r = blob_sync(vol, node->ino, fd);
	if (r < 0) {
		close(fd);
		blob_remove(vol, node->ino);
		return r;
	}
	node->blob_fd = fd;
	node->rec.storage = STORAGE_BLOB;
	return 0;
}

static int leave_to_inline(struct volume *vol, struct node *node, uint64_t keep)
{
	int r = content_reserve(node, keep);

	if (r == 0 && keep)
		r = pack_read(vol, node, node->data, keep, 0);
	if (r < 0) {
		free(node->data);
		node->data = NULL;
		node->data_room = 0;
		return r;
	}
	node->data_loaded = node->data_dirty = true;
	node->rec.storage = STORAGE_INLINE;
	return 0;
}

int pack_leave(struct volume *vol, struct node *node, uint64_t keep)
{
	int r = room_take(vol, keep, keep ? ROOM_DATA : ROOM_RECORD);

	if (r == 0)
		r = keep > INLINE_MAX ? leave_to_blob(vol, node, keep) : leave_to_inline(vol, node, keep);
	if (r < 0)
		return r;
	node->rec.pack = node->rec.offset = 0;
	node->rec.size = keep;
	node->dirty = true;
	return 0;
}

/* --- after a crash --- */

struct range {
	uint64_t first, end;
};

struct range_list {
	struct range *ranges; /* of 'P': pack and count */
	size_t n;
};

static int collect_range(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct range_list *list = data;
	struct range *more;

	if (key_len != 9 || value_len != 8)
		return 0;
	more = reallocarray(list->ranges, list->n + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	list->ranges = more;
	list->ranges[list->n++] =
		(struct range){get_be64((const char *)key + 1), get_le64((const char *)value)};
	return 0;
}

struct stray {
	struct volume *vol;
	struct batch *b;
};

static int delete_stray(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct stray *stray = data;

	(void)value;
	(void)value_len;
	if (key_len == KEY_INO && !db_has(&stray->vol->db, CF_INODES, key, key_len))
		batch_delete(stray->b, CF_DATA, key, key_len);
	return 0;
}

/* A volume of format 1 stored what an archive held in the data column family; each range of numbers had a record. */
static int purge_contents(struct volume *vol)
{
	struct range_list list = {0};
	int r = db_scan(&vol->db, CF_DEFAULT, "U", 1, "V", 1, collect_range, &list);

	for (size_t i = 0; r == 0 && i < list.n; i++) {
		char first[KEY_MAX], end[KEY_MAX], key[KEY_MAX];
		struct batch b;
		struct stray stray = {vol, &b};
		size_t len = key_ino(first, list.ranges[i].first);

		r = batch_init(&b, vol);
		if (r < 0)
			break;
		r = db_scan(&vol->db, CF_DATA, first, len, end, key_ino(end, list.ranges[i].end),
			    delete_stray, &stray);
		batch_delete(&b, CF_DEFAULT, key, key_tagged(key, 'U', list.ranges[i].first));
		if (r == 0)
			r = batch_commit(&b, false);
		batch_release(&b);
	}
	free(list.ranges);
	return r;
}

int pack_purge(struct volume *vol)
{
	struct range_list list = {0};
	int r = db_scan(&vol->db, CF_DEFAULT, "P", 1, "Q", 1, collect_range, &list);

	for (size_t i = 0; r == 0 && i < list.n; i++)
		if (list.ranges[i].end == 0)
			r = pack_remove(vol, list.ranges[i].first);
	free(list.ranges);
	return r < 0 ? r : purge_contents(vol);
}

bool pack_purges_content(struct volume *vol, uint64_t ino)
{
	struct range_list list = {0};
	bool ret = false;

	if (db_scan(&vol->db, CF_DEFAULT, "U", 1, "V", 1, collect_range, &list) == 0)
		for (size_t i = 0; i < list.n; i++)
			ret |= list.ranges[i].first <= ino && ino < list.ranges[i].end;
	free(list.ranges);
	return ret;
}
