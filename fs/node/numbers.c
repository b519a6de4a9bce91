/*
 * The numbers by which the kernel knows open files. Not pointers: a daemon that takes the mount over from another
 * one gets requests for files which the other opened (fs/mount/takeover.h).
 *
 * Slots lie in chunks that are never moved or freed, so a number is looked up without the lock: the kernel uses a
 * number only between the answer to its open and its release.
 */
#include "fs/node/node.h"

#include <errno.h>
#include <stdlib.h>

#define CHUNK  4096 /* slots; chosen: 32 KiB */
#define CHUNKS 4096 /* of 16 million files that are open at once */

/* The file; or, with the lowest bit set, twice the next free number (0: none). */
typedef uintptr_t slot;

struct numbers {
	pthread_mutex_t
		lock;   /* a leaf; guards what follows, but for readers of chunks and of their own slot */
	uint64_t free;  /* 0: none; number 0 is not used */
	uint64_t limit; /* all that were ever given out are below */
	slot *chunks[CHUNKS]; /* atomic */
};

int numbers_new(struct numbers **ret)
{
	struct numbers *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	pthread_mutex_init(&n->lock, NULL);
	n->limit = 1;
	*ret = n;
	return 0;
}

void numbers_free(struct numbers *n)
{
	if (!n)
		return;
	for (int i = 0; i < CHUNKS; i++)
		free(n->chunks[i]);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

/* NULL: it has no chunk. */
static slot *slot_of(struct numbers *n, uint64_t number)
{
	slot *chunk = NULL;

	if (number / CHUNK < CHUNKS)
		chunk = __atomic_load_n(&n->chunks[number / CHUNK], __ATOMIC_ACQUIRE);
	return chunk ? &chunk[number % CHUNK] : NULL;
}

/* lock held. As slot_of, but makes it. */
static slot *slot_make(struct numbers *n, uint64_t number)
{
	slot *chunk;

	if (number / CHUNK >= CHUNKS)
		return NULL;
	if (!n->chunks[number / CHUNK]) {
		chunk = malloc(CHUNK * sizeof(*chunk));
		if (!chunk)
			return NULL;
		for (int i = 0; i < CHUNK; i++)
			chunk[i] = 1;
		__atomic_store_n(&n->chunks[number / CHUNK], chunk, __ATOMIC_RELEASE);
	}
	return slot_of(n, number);
}

int numbers_put(struct numbers *n, struct tree_file *file, uint64_t *ret)
{
	uint64_t number;
	slot *at;
	int r = 0;

	pthread_mutex_lock(&n->lock);
	number = n->free ? n->free : n->limit;
	at = slot_make(n, number);
	if (!at) {
		r = number / CHUNK < CHUNKS ? -ENOMEM : -ENFILE;
		goto out;
	}
	if (n->free)
		n->free = *at / 2;
	else
		n->limit++;
	__atomic_store_n(at, (slot)file, __ATOMIC_RELAXED);
	*ret = number;
out:
	pthread_mutex_unlock(&n->lock);
	return r;
}

int numbers_claim(struct numbers *n, struct tree_file *file, uint64_t number)
{
	int r = -EEXIST;
	slot *at;

	pthread_mutex_lock(&n->lock);
	if (number == 0 || number / CHUNK >= CHUNKS) {
		r = -EINVAL;
		goto out;
	}
	at = slot_make(n, number);
	if (!at) {
		r = -ENOMEM;
		goto out;
	}
	if (!(*at & 1))
		goto out;
	r = 0;
	*at = (slot)file;
	if (number >= n->limit)
		n->limit = number + 1;
out:
	pthread_mutex_unlock(&n->lock);
	return r;
}

void numbers_claimed(struct numbers *n)
{
	pthread_mutex_lock(&n->lock);
	n->free = 0;
	for (uint64_t number = n->limit; number-- > 1;) {
		slot *at = slot_make(n, number);

		if (at && *at & 1) {
			*at = n->free * 2 + 1;
			n->free = number;
		}
	}
	pthread_mutex_unlock(&n->lock);
}

struct tree_file *numbers_get(struct numbers *n, uint64_t number)
{
	slot *at = slot_of(n, number), value = at ? __atomic_load_n(at, __ATOMIC_RELAXED) : 1;

	return value & 1 ? NULL : (struct tree_file *)value;
}

void numbers_drop(struct numbers *n, uint64_t number)
{
	slot *at = slot_of(n, number);

	pthread_mutex_lock(&n->lock);
	__atomic_store_n(at, n->free * 2 + 1, __ATOMIC_RELAXED);
	n->free = number;
	pthread_mutex_unlock(&n->lock);
}

int numbers_each(struct numbers *n, int (*fn)(void *data, struct tree_file *file, uint64_t number),
		 void *data)
{
	struct tree_file *file;
	int r = 0;

	for (uint64_t number = 1; r == 0 && number < n->limit; number++) {
		file = numbers_get(n, number);
		if (file)
			r = fn(data, file, number);
	}
	return r;
}
