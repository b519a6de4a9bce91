/*
 * Batches: which there are, what deadline counts for one, and when it is quiet for long enough to be submitted.
 *
 * Each event costs O(1): a batch that is written to for minutes only moves last_event on, and its one timer
 * looks at that when it fires.
 */
#include "sched/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool batch_is_loose(const struct batch *batch)
{
	return !batch->name[0];
}

bool batch_has_complete(const struct batch *batch)
{
	return !list_empty(&batch->ready) || (batch->draft && batch->draft->total);
}

struct batch *batch_get(struct endpoint *ep, const char *path, bool create)
{
	const char *slash = strchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	struct table_node *node;
	struct batch *batch;
	char name[MAX_NAME];

	if (len >= MAX_NAME)
		return NULL;
	memcpy(name, path, len);
	name[len] = '\0';
	node = table_find(&ep->batches, name);
	if (node || !create)
		return node ? list_entry(node, struct batch, node) : NULL;
	batch = calloc(1, sizeof(*batch));
	if (!batch)
		return NULL;
	batch->ep = ep;
	strcpy(batch->name, name);
	list_init(&batch->ready);
	list_init(&batch->writing);
	list_init(&batch->early);
	list_init(&batch->early_link);
	list_init(&batch->tasks);
	list_init(&batch->finished);
	if (table_add(&ep->batches, &batch->node, batch->name) < 0) {
		free(batch);
		return NULL;
	}
	return batch;
}

struct batch *batch_named(struct endpoint *ep, const char *name, bool create)
{
	char path[MAX_NAME + 1];

	if (snprintf(path, sizeof(path), "%s/", name) >= (int)sizeof(path))
		return NULL;
	return batch_get(ep, *name ? path : "", create);
}

void batch_cancel_timers(struct batch *batch)
{
	loop_timer_cancel(batch->ep->s->loop, batch->settle);
	loop_timer_cancel(batch->ep->s->loop, batch->closing);
	loop_timer_cancel(batch->ep->s->loop, batch->latest);
	batch->settle = batch->closing = batch->latest = NULL;
}

void batch_release_unused(struct batch *batch)
{
	if (!batch->removed || !list_empty(&batch->ready) || batch->draft || !list_empty(&batch->writing) ||
	    !list_empty(&batch->tasks) || !list_empty(&batch->finished))
		return;
	batch_cancel_timers(batch);
	table_remove(&batch->ep->batches, &batch->node);
	free(batch);
}

static bool own_deadline(struct batch *batch)
{
	struct endpoint *ep = batch->ep;
	struct host_entry e;
	char path[2 * MAX_NAME + 32];

	if (!batch->deadline_known) {
		endpoint_path(ep, path, sizeof(path), "in%s%s", *batch->name ? "/" : "", batch->name);
		batch->deadline = (struct deadline){0};
		batch->deadline_known = true;
		if (ep->s->ops->lookup(ep->s->host, path, &e) == 0)
			deadline_read(ep->s, e.ino, &batch->deadline);
	}
	return batch->deadline.set;
}

enum deadline_source batch_deadline(struct batch *batch, struct deadline *ret)
{
	struct batch *in = batch_named(batch->ep, "", true);

	*ret = (struct deadline){0};
	if (!batch_is_loose(batch) && own_deadline(batch)) {
		*ret = batch->deadline;
		return DEADLINE_BATCH;
	}
	if (in && own_deadline(in)) {
		*ret = in->deadline;
		return DEADLINE_IN;
	}
	if (batch->ep->spec.deadline.set) {
		*ret = batch->ep->spec.deadline;
		return DEADLINE_SPEC;
	}
	return DEADLINE_NONE;
}

static int64_t settle_ns(const struct batch *batch)
{
	const struct endpoint *ep = batch->ep;
	int64_t own = batch_is_loose(batch) ? ep->spec.settle_ns : ep->spec.settle_batch_ns;

	if (ep->has_spec && own >= 0)
		return own;
	return batch_is_loose(batch) ? ep->s->options.settle_ns : ep->s->options.settle_batch_ns;
}

static void settled(void *data);

void batch_settle_at(struct batch *batch, int64_t at)
{
	batch->settle = loop_timer_at(batch->ep->s->loop, at, settled, batch);
}

static void settled(void *data)
{
	struct batch *batch = data;
	struct loop *loop = batch->ep->s->loop;
	int64_t at = batch->last_event + settle_ns(batch);

	batch->settle = NULL;
	if (batch_is_loose(batch)) {
		batch_submit(batch, loop_now(loop));
		return;
	}
	if (batch->n_writing || batch->closing || !batch_has_complete(batch))
		return; /* the next event sets the timer again */
	if (loop_now(loop) < at)
		batch_settle_at(batch, at);
	else
		batch_submit(batch, loop_now(loop));
}

static void latest_comes(void *data)
{
	struct batch *batch = data;

	batch->latest = NULL;
	if (!batch->closing) /* else that comes at once */
		batch_submit(batch, loop_now(batch->ep->s->loop));
}

/* A directory that isn't quiet before its absolute deadline is submitted with what it has when half of the time is over (chosen); the
 * rest makes a further task. Others count from their submission: they lose nothing by waiting. */
static void set_latest(struct batch *batch)
{
	struct loop *loop = batch->ep->s->loop;
	struct deadline deadline;
	int64_t left;

	if (batch->latest || batch_is_loose(batch) || !batch_has_complete(batch) ||
	    batch_deadline(batch, &deadline) == DEADLINE_NONE || !deadline.absolute)
		return;
	left = deadline.ns - loop_wall(loop);
	if (left > 0)
		batch->latest = loop_timer_at(loop, loop_now(loop) + left / 2, latest_comes, batch);
}

void batch_touch(struct batch *batch)
{
	struct loop *loop = batch->ep->s->loop;

	batch->last_event = loop_now(loop);
	set_latest(batch);
	if (batch->settle || !batch_has_complete(batch) || (!batch_is_loose(batch) && batch->n_writing))
		return;
	if (settle_ns(batch) == 0)
		batch_submit(batch, batch->last_event);
	else
		batch_settle_at(batch, batch->last_event + settle_ns(batch));
}

static void closing_ends(void *data)
{
	struct batch *batch = data;

	batch->closing = NULL;
	batch_submit(batch, batch->asked_at);
}

void batch_ask_submission(struct batch *batch)
{
	struct sched *s = batch->ep->s;
	int64_t now = loop_now(s->loop);

	if (!batch_has_complete(batch) && !batch->n_writing)
		return;
	if (!batch->n_writing) {
		batch_submit(batch, now);
	} else if (!batch->closing) {
		batch->asked_at = now;
		batch->closing = loop_timer_at(s->loop, now + s->options.settle_ns, closing_ends, batch);
	}
}
