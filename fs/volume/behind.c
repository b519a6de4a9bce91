/*
 * Large files are written to the disk while they are being written to us. The kernel begins with that only when a tenth of the memory is
 * dirty, so without it the disk idles while the bytes go through the daemon, and the fsync at the end waits for all of them; with it the two
 * overlap. Only of files that are written on and on: what is small, or soon removed, may well never be written.
 *
 * sync_file_range(2) waits while the disk's queue is full, so a thread of its own calls it. It promises nothing, nobody waits for it, and what
 * finds its table full comes with the next piece.
 */
#include "fs/volume/private.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define AFTER (32 << 20) /* bytes in a row, from which on a file is such a one; chosen */
#define PIECE (8 << 20)  /* bytes for which it is worth it to wake a thread; chosen */

static void *behind_main(void *data)
{
	struct behind *b = &((struct volume *)data)->behind;

	pthread_setname_np(pthread_self(), "inferfs/behind");
	pthread_mutex_lock(&b->lock);
	while (!b->stop) {
		struct behind_piece piece;

		if (b->n == 0) {
			pthread_cond_wait(&b->wake, &b->lock);
			continue;
		}
		piece = b->pieces[0]; /* in order: the disk's filesystem finds room for it now */
		memmove(b->pieces, b->pieces + 1, (size_t)--b->n * sizeof(b->pieces[0]));
		pthread_mutex_unlock(&b->lock);
		sync_file_range(piece.fd, (off_t)piece.offset, (off_t)piece.len, SYNC_FILE_RANGE_WRITE);
		close(piece.fd);
		pthread_mutex_lock(&b->lock);
		b->bytes += piece.len;
	}
	while (b->n)
		close(b->pieces[--b->n].fd);
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

static bool give(struct volume *vol, int fd, uint64_t offset, uint64_t len)
{
	struct behind *b = &vol->behind;
	bool given = false;

	pthread_mutex_lock(&b->lock);
	if (!b->started && !b->refused) {
		b->started = pthread_create(&b->thread, NULL, behind_main, vol) == 0;
		b->refused = !b->started;
	}
	if (b->started && b->n < BEHIND_PIECES) {
		/* Its own: the file may be closed meanwhile. */
		int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

		given = own >= 0;
		if (given) {
			b->pieces[b->n++] = (struct behind_piece){own, offset, len};
			pthread_cond_signal(&b->wake);
		}
	}
	pthread_mutex_unlock(&b->lock);
	return given;
}

void behind_wrote(struct volume *vol, struct node *node, uint64_t offset, uint64_t len)
{
	if (offset != node->run_end)
		node->run_start = node->run_left = offset;
	node->run_end = offset + len;
	if (node->run_end - node->run_start >= AFTER && node->run_end - node->run_left >= PIECE &&
	    give(vol, node->blob_fd, node->run_left, node->run_end - node->run_left))
		node->run_left = node->run_end;
}

void behind_stop(struct volume *vol)
{
	struct behind *b = &vol->behind;

	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_signal(&b->wake);
	pthread_mutex_unlock(&b->lock);
	if (b->started)
		pthread_join(b->thread, NULL);
	b->started = false;
	b->refused = true;
}
