/*
 * Private to sched: a doubly linked list through a member of its elements. A link that is in no list points
 * to itself, so that list_remove may always be called.
 */
#ifndef SCHED_LIST_H
#define SCHED_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *prev, *next;
};

#define list_entry(link, type, member) ((type *)((char *)(link)-offsetof(type, member)))
/* The element after `link` may not be removed by the body; the element itself may. */
#define list_each(link, head)                                                             \
	for (struct list *link = (head)->next, *link##_next = link->next; link != (head); \
	     link = link##_next, link##_next = link->next)

static inline void list_init(struct list *list)
{
	list->prev = list->next = list;
}

static inline bool list_empty(const struct list *list)
{
	return list->next == list;
}

static inline void list_insert_before(struct list *at, struct list *link)
{
	link->prev = at->prev;
	link->next = at;
	at->prev->next = link;
	at->prev = link;
}

static inline void list_append(struct list *list, struct list *link)
{
	list_insert_before(list, link);
}

static inline void list_prepend(struct list *list, struct list *link)
{
	list_insert_before(list->next, link);
}

static inline void list_remove(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

/* Moves all of `from` to the end of `to`. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#endif
