#include "engine/onnx/arena.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 64 << 10 }; /* chosen */

struct chunk {
	struct chunk *next;
	size_t size, used;
	_Alignas(16) char data[];
};

struct arena {
	struct chunk *chunks; /* the newest first */
};

int arena_new(struct arena **ret)
{
	struct arena *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	*ret = a;
	return 0;
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	while (a->chunks) {
		struct chunk *next = a->chunks->next;

		free(a->chunks);
		a->chunks = next;
	}
	free(a);
}

void *arena_alloc(struct arena *a, size_t n, size_t size)
{
	struct chunk *c = a->chunks;
	size_t bytes;
	void *p;

	if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX / 2)
		return NULL;
	bytes = (bytes + !bytes + 15) & ~(size_t)15;
	if (!c || bytes > c->size - c->used) {
		size_t room = bytes > CHUNK ? bytes : CHUNK;

		c = malloc(sizeof(*c) + room);
		if (!c)
			return NULL;
		*c = (struct chunk){.next = a->chunks, .size = room};
		a->chunks = c;
	}
	p = c->data + c->used;
	c->used += bytes;
	return memset(p, 0, bytes);
}

char *arena_string(struct arena *a, const char *s, size_t len)
{
	char *copy = arena_alloc(a, len + 1, 1);

	if (copy && len)
		memcpy(copy, s, len);
	return copy;
}

/* FNV-1a, 64 bits. */
static uint64_t hash(const char *name)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
	return h ^ h >> 29;
}

static struct name_slot *slot_of(const struct names *names, const char *name)
{
	size_t i = hash(name) & (names->size - 1);

	while (names->slots[i].name && strcmp(names->slots[i].name, name) != 0)
		i = (i + 1) & (names->size - 1);
	return &names->slots[i];
}

int names_get(const struct names *names, const char *name)
{
	const struct name_slot *slot = names->size ? slot_of(names, name) : NULL;

	return slot && slot->name ? slot->id : -1;
}

static int grow(struct names *names)
{
	struct names larger = {.size = names->size ? names->size * 2 : 64};

	larger.slots = calloc(larger.size, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < names->size; i++)
		if (names->slots[i].name)
			*slot_of(&larger, names->slots[i].name) = names->slots[i];
	larger.used = names->used;
	free(names->slots);
	*names = larger;
	return 0;
}

int names_add(struct names *names, const char *name, int id)
{
	struct name_slot *slot;

	if (names->used >= names->size / 2 && grow(names) < 0)
		return -ENOMEM;
	slot = slot_of(names, name);
	if (slot->name)
		return -EEXIST;
	*slot = (struct name_slot){name, id};
	names->used++;
	return 0;
}

void names_release(struct names *names)
{
	free(names->slots);
	*names = (struct names){0};
}
