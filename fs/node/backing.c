/*
 * How the kernel reads and writes open files: as all open files of an inode have to agree (tree.h: enum tree_io), each inode that is
 * open has one struct backing that counts them. A blob is backed from its first open on, for readers and writers: then what
 * is mapped is always the blob itself, and mappings agree with each other also when the files they were made by are closed.
 * A file that became a blob while it was open remains cached until all have closed it.
 *
 * Every blob, however small: one limit, INLINE_MAX, keeps the modes apart. Measured on a busy machine, opening, reading and closing a
 * file that the kernel has in memory: 20 µs more (65 KiB: 17 without, 35 with; 1 MB: 310, 390); from the disk no difference up to 200 KiB.
 * One of a GiB is read as fast as beneath; through the daemon it was 69 % of that from the disk and 57 % from memory.
 *
 * The kernel lets go of an open file before it sends RELEASE, and takes it on after our answer: what we count as open contains
 * what it does.
 */
#include "fs/node/node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#define BUCKETS 1024 /* chosen: there may be as many open files as descriptors, but mostly there are few */

struct backing {
	struct backing *next;
	uint64_t ino;
	unsigned n_cached, n_backed; /* open files; never both */
	int number;                  /* of the kernel's; with n_backed */
};

int backings_new(struct tree *tree)
{
	tree->backings = calloc(BUCKETS, sizeof(struct backing *));
	return tree->backings ? 0 : -ENOMEM;
}

void backings_free(struct tree *tree)
{
	for (int i = 0; tree->backings && i < BUCKETS; i++) {
		for (struct backing *b; (b = tree->backings[i]);) {
			tree->backings[i] = b->next;
			free(b);
		}
	}
	free(tree->backings);
	tree->backings = NULL;
}

void tree_back(struct tree *tree, const struct tree_backing_ops *ops, void *data, bool begin)
{
	tree->backing_ops = ops;
	tree->backing_data = data;
	__atomic_store_n(&tree->backing_begin, begin, __ATOMIC_RELAXED);
}

static struct backing **find(struct tree *tree, uint64_t ino)
{
	struct backing **at = &tree->backings[ino % BUCKETS];

	while (*at && (*at)->ino != ino)
		at = &(*at)->next;
	return at;
}

/* backing_lock held */
static struct backing *get(struct tree *tree, uint64_t ino)
{
	struct backing **at = find(tree, ino);

	if (!*at) {
		*at = calloc(1, sizeof(**at));
		if (*at)
			(*at)->ino = ino;
	}
	return *at;
}

/* The blob's descriptor, or below 0: the file can't be backed, or should not begin to be. */
static int fd_to_begin(struct tree_file *file, int flags)
{
	if (!__atomic_load_n(&file->tree->backing_begin, __ATOMIC_RELAXED) || flags & O_DIRECT ||
	    node_type(file->kind)->flags & NODE_TEXT)
		return -ENODATA;
	return vol_backing_fd(file->vf, file->mode == O_RDWR);
}

/* backing_lock held */
static int begin(struct tree *tree, struct backing *b, int fd)
{
	int number = tree->backing_ops->open(tree->backing_data, fd);

	if (number == -EOPNOTSUPP)
		__atomic_store_n(&tree->backing_begin, false, __ATOMIC_RELAXED);
	if (number > 0)
		b->number = number;
	return number;
}

int backing_join(struct tree_file *file, int flags, bool created)
{
	bool direct = node_type(file->kind)->flags & NODE_WORD;
	struct tree *tree = file->tree;
	struct backing *b;
	int fd, r = 0;

	/* What can only be written needs no page cache; and past it the kernel does not ask for security.capability first. */
	direct |= created && (flags & O_ACCMODE) == O_WRONLY;
	fd = direct ? -ENODATA : fd_to_begin(file, flags); /* before the lock: it may wait for the disk */
	pthread_mutex_lock(&tree->backing_lock);
	b = direct ? *find(tree, vol_file_ino(file->vf)) : get(tree, vol_file_ino(file->vf));
	if (!b) {
		r = direct ? 0 : -ENOMEM;
		file->io = TREE_IO_DIRECT;
		goto out;
	}
	if (b->n_backed > 0 || (!direct && b->n_cached == 0 && fd >= 0 && begin(tree, b, fd) > 0)) {
		b->n_backed++;
		file->io = TREE_IO_BACKED;
		file->backing = b->number;
	} else if (direct) {
		file->io = TREE_IO_DIRECT;
		goto out;
	} else {
		/* While it was backed, mappings may have changed it past what the kernel has cached from before. */
		file->drop_cache = fd >= 0 && b->n_cached == 0;
		b->n_cached++;
		file->io = TREE_IO_CACHED;
	}
	file->joined = true;
out:
	pthread_mutex_unlock(&tree->backing_lock);
	if (r == 0 && file->io == TREE_IO_BACKED && fd < 0 && file->mode == O_RDWR)
		vol_backing_fd(file->vf, true);
	return r;
}

int backing_claim(struct tree_file *file, enum tree_io io, int number)
{
	struct tree *tree = file->tree;
	struct backing *b;
	int r = 0;

	file->io = (uint8_t)io;
	if (io == TREE_IO_DIRECT)
		return 0;
	if (io == TREE_IO_BACKED) {
		r = vol_backing_fd(file->vf, file->mode == O_RDWR);
		if (r == -ENODATA)
			return -EBADMSG;
	}
	pthread_mutex_lock(&tree->backing_lock);
	b = get(tree, vol_file_ino(file->vf));
	if (!b) {
		r = -ENOMEM;
	} else if (io == TREE_IO_CACHED) {
		r = b->n_backed ? -EBADMSG : 0;
		b->n_cached += r == 0;
	} else {
		r = b->n_cached || (b->n_backed && b->number != number) ? -EBADMSG : 0;
		b->n_backed += r == 0;
		b->number = number;
	}
	pthread_mutex_unlock(&tree->backing_lock);
	file->backing = number;
	file->joined = r == 0;
	return r;
}

/* backing_lock held */
static void leave(struct tree *tree, struct backing **at, enum tree_io io)
{
	struct backing *b = *at;

	if (io == TREE_IO_BACKED) {
		b->n_backed--;
		if (b->n_backed == 0)
			tree->backing_ops->close(tree->backing_data, b->number);
	} else {
		b->n_cached--;
	}
	if (b->n_backed == 0 && b->n_cached == 0) {
		*at = b->next;
		free(b);
	}
}

void backing_leave(struct tree_file *file)
{
	struct tree *tree = file->tree;
	struct backing **at;

	if (!file->joined)
		return;
	pthread_mutex_lock(&tree->backing_lock);
	at = find(tree, vol_file_ino(file->vf));
	if (*at)
		leave(tree, at, file->io);
	pthread_mutex_unlock(&tree->backing_lock);
}

enum tree_io tree_io(const struct tree_file *file, int *ret_backing)
{
	if (ret_backing)
		*ret_backing = file->backing;
	return file->io;
}

bool tree_keeps_cache(const struct tree_file *file)
{
	return !file->drop_cache;
}
