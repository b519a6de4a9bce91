/*
 * Private to sched: instances that wait on disk. Beyond the mount's options `queue` and `queue_bytes` a complete instance has no struct: what there is of
 * it is its file, whose user.state says "queued", and its place in a record of its task (KEY_INSTANCES, store.h). A *page* stands for
 * such a record in memory, and tells by a hash of their paths which instances it is of (12 bytes each).
 *
 *	queued ──submitted beyond the bound──▶ in a page ──the dispatcher comes to it (task_next), or something happens to it (spill_find)──▶ queued
 *
 * 1. An instance is either in endpoint->instances or in one page, never in both.
 * 2. Of a task what was submitted first is next, be it in task->queue or in a page; task->n_queued counts both, so who plans does not see a difference.
 * 3. What was submitted while there was room stays in memory; a page comes back as a whole, when its task's turn comes. So at most
 *    STORE_TOGETHER instances of each task that has begun are there beyond the bound.
 */
#ifndef SCHED_SPILL_H
#define SCHED_SPILL_H

#include "engine/base/buf.h"
#include "sched/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct batch;
struct endpoint;
struct instance;
struct sched;
struct task;

struct spill_spot { /* an instance of a page */
	uint32_t hash;
	uint32_t
		next; /* the next of its chain, as in `chains`; SPILL_TAKEN: it is not in the page any more */
};

struct spill_page {
	struct list link; /* of task->pages, by first */
	struct task *task;
	uint32_t id;
	uint32_t first, n; /* numbers within the task; n at most STORE_TOGETHER */
	uint32_t left;     /* that were not taken */
	struct spill_spot spot[];
};

struct spill {                    /* an endpoint's */
	struct spill_page **page; /* (n_pages), by id; NULL: free */
	uint32_t n_pages, maybe_free;
	uint32_t *
		chains; /* (n_chains, a power of two) their first spots: page id · STORE_TOGETHER + place in it + 1; 0: none */
	size_t n_chains;
	size_t count;            /* instances */
	struct spill_page *last; /* that was looked into; NULL: none */
	struct buf record;       /* its: who looks for one often looks for its neighbours */
};

void spill_release(struct spill *spill); /* without pages */

/* The bounds: instances that have a struct, and the memory that these take. */
bool spill_is_due(const struct sched *s);
/* How many of the task's queue, from its beginning, may stay in memory: all, or a multiple of STORE_TOGETHER. */
size_t spill_keeps(const struct task *task);
/* What of its queue, as it was recorded, is behind that waits on disk from now on. */
void spill_behind(struct task *task, size_t kept);
/* The last of the task's queue, those from number `first` on, are in a page from now on; a record has them. Without memory for that they stay. */
void spill_from(struct task *task, uint32_t first);

/* --- for all who look for instances --- */

/* The first of the task's queue, into which a page is read when that has earlier ones. NULL: there is none. */
struct instance *task_next(struct task *task);
/* What is in a page under that path, from now on with a struct; NULL: nothing. */
struct instance *spill_find(struct endpoint *ep, const char *path);
bool spill_has(const struct endpoint *ep, const char *path);
/* All of the batch that are below this directory (relative to in/) get a struct. */
void spill_recall_below(struct batch *batch, const char *dir);
void spill_forget(struct task *task); /* its pages go */

#endif
