/*
 * Marks: xattrs in memory. What an instance goes through until it is answered (queued, running) is known anew after
 * a crash; storing it would cost two reads and two writes an instance, half of what a submission takes.
 */
#include "fs/volume/private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct mark {
	struct mark *next;
	uint64_t ino;
	const char *name, *text;
};

static struct mark_shard *shard_of(struct volume *vol, uint64_t ino)
{
	return &vol->marks[ino % MARK_SHARDS];
}

/* lock held; where the inode's mark is, or would be */
static struct mark **find(struct mark_shard *shard, uint64_t ino)
{
	struct mark **at = &shard->buckets[ino / MARK_SHARDS % MARK_BUCKETS];

	while (*at && (*at)->ino != ino)
		at = &(*at)->next;
	return at;
}

int vol_mark(struct volume *vol, uint64_t ino, const char *name, const char *text)
{
	struct mark_shard *shard = shard_of(vol, ino);
	struct mark **at, *mark;
	int r = 0;

	pthread_mutex_lock(&shard->lock);
	at = find(shard, ino);
	mark = *at ? *at : calloc(1, sizeof(*mark));
	if (!mark) {
		r = -ENOMEM;
	} else {
		mark->ino = ino;
		mark->name = name;
		mark->text = text;
		*at = mark;
	}
	pthread_mutex_unlock(&shard->lock);
	return r;
}

bool mark_get(struct volume *vol, uint64_t ino, const char **ret_name, const char **ret_text)
{
	struct mark_shard *shard = shard_of(vol, ino);
	struct mark *mark;

	pthread_mutex_lock(&shard->lock);
	mark = *find(shard, ino);
	if (mark) {
		*ret_name = mark->name;
		*ret_text = mark->text;
	}
	pthread_mutex_unlock(&shard->lock);
	return mark != NULL;
}

bool mark_drop(struct volume *vol, uint64_t ino, const char *name, size_t name_len)
{
	struct mark_shard *shard = shard_of(vol, ino);
	struct mark **at, *mark;

	pthread_mutex_lock(&shard->lock);
	at = find(shard, ino);
	mark = *at;
	if (mark && name && (strlen(mark->name) != name_len || memcmp(mark->name, name, name_len) != 0))
		mark = NULL;
	if (mark)
		*at = mark->next;
	pthread_mutex_unlock(&shard->lock);
	free(mark);
	return mark != NULL;
}

void marks_free(struct volume *vol)
{
	for (int i = 0; i < MARK_SHARDS; i++) {
		for (int k = 0; k < MARK_BUCKETS; k++) {
			for (struct mark *mark; (mark = vol->marks[i].buckets[k]);) {
				vol->marks[i].buckets[k] = mark->next;
				free(mark);
			}
		}
		pthread_mutex_destroy(&vol->marks[i].lock);
	}
}
