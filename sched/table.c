#include "sched/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define FIRST_SLOTS 16

/* FNV-1a over a seed, mixed at the end since the slot is taken from the low bits. */
uint64_t table_hash(const char *name)
{
	static uint64_t seed;
	uint64_t h = __atomic_load_n(&seed, __ATOMIC_RELAXED);

	if (!h) {
		uint64_t none = 0;

		if (getrandom(&h, sizeof(h), GRND_NONBLOCK) != sizeof(h) || !h)
			h = UINT64_C(0xcbf29ce484222325);
		if (!__atomic_compare_exchange_n(&seed, &none, h, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			h = none;
	}
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	h ^= h >> 32;
	return h;
}

void table_release(struct table *t)
{
	free(t->slots);
	*t = TABLE_INIT;
}

static int grow(struct table *t)
{
	size_t n = t->n_slots ? t->n_slots * 2 : FIRST_SLOTS;
	struct table_node **slots = calloc(n, sizeof(struct table_node *));

	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < t->n_slots; i++)
		for (struct table_node *node = t->slots[i], *next; node; node = next) {
			next = node->next;
			node->next = slots[node->hash & (n - 1)];
			slots[node->hash & (n - 1)] = node;
		}
	free(t->slots);
	t->slots = slots;
	t->n_slots = n;
	return 0;
}

int table_add(struct table *t, struct table_node *node, const char *name)
{
	struct table_node **slot;

	if (t->count == t->n_slots && grow(t) < 0)
		return -ENOMEM;
	node->name = name;
	node->hash = table_hash(name);
	slot = &t->slots[node->hash & (t->n_slots - 1)];
	node->next = *slot;
	*slot = node;
	t->count++;
	return 0;
}

struct table_node *table_find(const struct table *t, const char *name)
{
	struct table_node *node = NULL;
	uint64_t hash;

	if (!t->count)
		return NULL;
	hash = table_hash(name);
	for (node = t->slots[hash & (t->n_slots - 1)]; node; node = node->next)
		if (node->hash == hash && strcmp(node->name, name) == 0)
			break;
	return node;
}

void table_remove(struct table *t, struct table_node *node)
{
	struct table_node **p = &t->slots[node->hash & (t->n_slots - 1)];

	while (*p != node)
		p = &(*p)->next;
	*p = node->next;
	node->next = NULL;
	t->count--;
}

void table_each(struct table *t, void (*fn)(void *data, struct table_node *node), void *data)
{
	for (size_t i = 0; i < t->n_slots; i++)
		for (struct table_node *node = t->slots[i], *next; node; node = next) {
			next = node->next;
			fn(data, node);
		}
}
