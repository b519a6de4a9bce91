/*
 * A blob that is a pack too: the archive whose members lie in it as they are, and need not be copied out. The pack is a second name of
 * the same file, so each goes when it has to. As long as it has both, the file is not changed: whoever wants to change the first
 * one's content gives it a file of its own before (share_break); that it has more than one name is all there is to know, also after a
 * restart. Nobody has it open when it is shared, so no descriptor of before can write to it.
 */
#include "fs/volume/private.h"

#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

static int unmark(struct volume *vol, uint64_t number)
{
	struct batch b;
	char key[KEY_MAX];
	int r = batch_init(&b, vol);

	if (r < 0)
		return r;
	batch_delete(&b, CF_DEFAULT, key, key_tagged(key, 'B', number));
	r = batch_commit(&b, false);
	batch_release(&b);
	return r;
}

int pack_remove_new(struct volume *vol, uint64_t pack)
{
	int r = blob_remove(vol, pack);

	room_freed(vol);
	return r < 0 ? r : unmark(vol, pack);
}

int pack_share(struct volume *vol, uint64_t ino, uint64_t *ret_pack, int *ret_fd, uint64_t *ret_len)
{
	char name[32], other[32];
	bool marked = false;
	uint64_t pack = 0;
	struct node *node;
	struct stat st;
	int fd = -1, r = node_get(vol, ino, &node);

	if (r < 0)
		return r;
	if (!S_ISREG(node->rec.mode) || node->rec.storage != STORAGE_BLOB || node->opens > 0 || node->dirty) {
		r = -ENODATA;
		goto out;
	}
	r = ino_alloc(vol, &pack);
	if (r == 0)
		r = blob_mark(vol, pack, &marked);
	if (r == 0)
		r = blob_folder(vol, pack);
	if (r < 0)
		goto out;
	blob_name(name, ino);
	blob_name(other, pack);
	if (linkat(vol->blobs_fd, name, vol->blobs_fd, other, 0) == 0) {
		node->blob_shared = true;
		fd = blob_open(vol, pack, O_RDONLY);
	}
	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size < node->rec.size) {
		r = pack_remove_new(
			vol,
			pack); /* no second name on this disk, or the blob is damaged: read by its name */
		if (fd >= 0)
			close(fd);
		r = r < 0 ? r : -ENODATA;
		goto out;
	}
	*ret_pack = pack;
	*ret_fd = fd;
	*ret_len = node->rec.size;
out:
	node_put(vol, node);
	return r;
}

static int copy(int from, int to, uint64_t len)
{
	off_t at = 0;

	while (len) {
		ssize_t n = sendfile(to, from, &at, len);

		if (n == 0)
			return 0; /* a hole at the end */
		if (n > 0)
			len -= (uint64_t)n;
		else if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int share_break(struct volume *vol, struct node *node, uint64_t keep)
{
	char name[32], new_name[32];
	bool marked = false;
	uint64_t number = 0;
	struct stat st;
	int fd = -1, r;

	if (!node->blob_shared)
		return 0;
	if (fstat(node->blob_fd, &st) < 0)
		return -errno;
	if (st.st_nlink == 1) { /* the pack went */
		node->blob_shared = false;
		return 0;
	}
	/* Under a number of its own first, whose mark has it removed if we die before it has its name. */
	r = room_take(vol, keep, keep ? ROOM_DATA : ROOM_RECORD);
	if (r == 0)
		r = ino_alloc(vol, &number);
	if (r == 0)
		r = blob_mark(vol, number, &marked);
	if (r == 0)
		r = fd = blob_open(vol, number, O_RDWR | O_CREAT | O_TRUNC);
	if (r < 0)
		return r;
	r = copy(node->blob_fd, fd, keep);
	if (r == 0 && ftruncate(fd, (off_t)keep) < 0)
		r = -errno;
	if (r == 0)
		r = blob_sync(vol, number, fd); /* of the old ones some were perhaps promised */
	if (r < 0)
		goto out;
	blob_name(name, node->ino);
	blob_name(new_name, number);
	if (renameat(vol->blobs_fd, new_name, vol->blobs_fd, name) < 0) {
		r = -errno;
		goto out;
	}
	/* The same descriptor: somebody may be reading by it. */
	if (dup3(fd, node->blob_fd, O_CLOEXEC) < 0)
		r = -errno;
	else
		node->blob_shared = false;
out:
	close(fd);
	if (pack_remove_new(vol, number) < 0)
		log_warn("volume: a copy of a blob is removed at the next start");
	return r;
}
