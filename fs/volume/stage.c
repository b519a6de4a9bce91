/*
 * The content of a file that has no name yet: a blob under a reserved number, marked as any that is made before its inode (blob.c), so
 * that a crash leaves nothing.
 */
#include "fs/volume/private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct vol_stage {
	struct volume *vol;
	uint64_t ino; /* 0: it was put: the blob is the inode's */
	int fd;
};

int vol_stage_new(struct vol_stage **ret, struct volume *vol)
{
	struct vol_stage *s;
	bool marked = false;
	int r;

	if (vol->read_only || db_failed(&vol->db))
		return -EROFS;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct vol_stage){.vol = vol, .fd = -1};
	r = ino_alloc(vol, &s->ino);
	if (r == 0)
		r = blob_mark(vol, s->ino, &marked);
	if (r == 0)
		r = s->fd = blob_open(vol, s->ino, O_RDWR | O_CREAT | O_TRUNC);
	if (r < 0) {
		vol_stage_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int vol_stage_fd(const struct vol_stage *s)
{
	return s->fd;
}

uint64_t vol_stage_ino(const struct vol_stage *s)
{
	return s->ino;
}

int vol_stage_sync(struct vol_stage *s)
{
	return blob_sync(s->vol, s->ino, s->fd);
}

int vol_stage_put(struct vol_stage *s, uint64_t parent, const char *name, const struct vol_new *what,
		  const struct vol_put *put, struct vol_attr *ret_old)
{
	struct vol_put mine = *put;
	struct vol_new staged = *what;
	struct stat st;
	int r;

	if (fstat(s->fd, &st) < 0)
		return -errno;
	mine.ino = s->ino;
	staged.staged = true;
	staged.content = NULL;
	staged.content_len = (size_t)st.st_size;
	r = vol_put(s->vol, parent, name, &staged, &mine, ret_old);
	if (r == 0)
		s->ino = 0;
	return r;
}

void vol_stage_free(struct vol_stage *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		close(s->fd);
	if (s->fd >= 0 && s->ino)
		blob_remove(s->vol, s->ino);
	free(s);
}
