/*
 * Private to sched: a hash table of elements by name, chained through a member of the elements. Names are
 * borrowed from the elements and hashed with a seed of this process, since users choose them.
 *
 *	struct table t = TABLE_INIT;
 *	table_add(&t, &x->node, x->path);
 *	node = table_find(&t, "a/b.png");	// list_entry(node, struct x, node)
 */
#ifndef SCHED_TABLE_H
#define SCHED_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_node {
	struct table_node *next;
	const char *name;
	uint64_t hash;
};

struct table {
	struct table_node **slots; /* (n_slots), a power of two */
	size_t n_slots, count;
};

#define TABLE_INIT ((struct table){0})

void table_release(struct table *t); /* the elements are the caller's */
int table_add(struct table *t, struct table_node *node,
	      const char *name);                                        /* -ENOMEM; the name is not there */
uint64_t table_hash(const char *name);                                  /* as in a node */
struct table_node *table_find(const struct table *t, const char *name); /* or NULL */
void table_remove(struct table *t, struct table_node *node);            /* which is in it */
/* Every element; fn may remove the one it is given. */
void table_each(struct table *t, void (*fn)(void *data, struct table_node *node), void *data);

#endif
