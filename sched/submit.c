/*
 * From what is complete in a batch to tasks (DESIGN section 2, "submitted"): one for all instances without a deadline of their own,
 * and one for each different deadline.
 */
#include "sched/admit.h"
#include "sched/ahead.h"
#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RESUBMIT_NS NS_PER_S /* after a submission that could not be recorded (disk full) */

static int by_own_deadline(const void *a, const void *b)
{
	const struct deadline *x = &(*(struct instance *const *)a)->own,
			      *y = &(*(struct instance *const *)b)->own;

	if (x->absolute != y->absolute)
		return x->absolute - y->absolute;
	return x->ns < y->ns ? -1 : x->ns > y->ns;
}

static bool same_deadline(const struct deadline *a, const struct deadline *b)
{
	return a->set == b->set && (!a->set || (a->absolute == b->absolute && a->ns == b->ns));
}

void task_unqueue(struct task *task, struct list *list)
{
	list_each(link, &task->queue)
	{
		struct instance *inst = list_entry(link, struct instance, link);

		list_remove(&inst->link);
		list_append(list, &inst->link);
		inst->task = NULL;
		inst->no = 0;
		inst->state = INSTANCE_IS_COMPLETE;
		task->batch->n_ready++;
		task->total--;
		task->open--;
		task->n_queued--;
		task->ep->s->dispatch.n_queued--;
	}
}

/* A new task, or the batch's draft. */
static int begin(struct batch *batch, const struct deadline *own, int64_t at, struct task **ret)
{
	struct endpoint *ep = batch->ep;
	int64_t wall = loop_wall(ep->s->loop) - (loop_now(ep->s->loop) - at);

	if (own->set || !batch->draft)
		return task_new(ret, batch, ep->last_seq + 1, wall);
	*ret = batch->draft;
	batch->draft = NULL;
	task_set_submitted(*ret, wall);
	list_append(&batch->tasks, &(*ret)->batch_link);
	return 0;
}

/* It could not be recorded. */
static void take_back(struct task *task, struct list *list)
{
	task_unqueue(task, list);
	if (!task->numbered) {
		task_free(task);
		return;
	}
	list_remove(&task->batch_link);
	task->batch->draft = task;
}

/* Instances of `list` up to the first whose own deadline differs from the first one's. They go back to the
 * batch when the task could not be recorded. Without any: the draft alone. */
static int submit_some(struct batch *batch, struct list *list, int64_t at)
{
	struct endpoint *ep = batch->ep;
	enum deadline_source source = DEADLINE_FILE;
	struct deadline own = {0}, deadline;
	struct task *task;
	size_t kept;
	int r;

	if (!list_empty(list))
		own = list_entry(list->next, struct instance, link)->own;
	r = begin(batch, &own, at, &task);
	if (r < 0)
		return r;
	deadline = own;
	if (!deadline.set)
		source = batch_deadline(batch, &deadline);
	task_set_deadline(task, &deadline, source);
	list_each(link, list)
	{
		struct instance *inst = list_entry(link, struct instance, link);

		if (!same_deadline(&inst->own, &own))
			break;
		instance_queue(inst, task);
	}
	kept = spill_keeps(task);
	r = store_submit(task, kept);
	if (r < 0) {
		take_back(task, list);
		return r;
	}
	if (task->seq > ep->last_seq)
		ep->last_seq = task->seq;
	spill_behind(task, kept);
	status_event(ep->s, "submitted", ep->name, task->id, task->total);
	dispatch_task(ep->s, task);
	ahead_submitted(task);
	task_admit(task);
	return 0;
}

/* Those without a deadline of their own first, then by deadline. */
static void sort_by_deadline(struct list *list, size_t n)
{
	struct list own;
	struct instance **sorted;
	size_t n_own = 0;

	list_init(&own);
	list_each(link, list) if (list_entry(link, struct instance, link)->own.set)
	{
		list_remove(link);
		list_append(&own, link);
		n_own++;
	}
	sorted = n_own > 1 ? malloc(n * sizeof(struct instance *)) : NULL;
	if (sorted) {
		n_own = 0;
		list_each(link, &own) sorted[n_own++] = list_entry(link, struct instance, link);
		list_init(&own);
		qsort(sorted, n_own, sizeof(*sorted), by_own_deadline);
		for (size_t i = 0; i < n_own; i++)
			list_append(&own, &sorted[i]->link);
		free(sorted);
	} /* unsorted they only make more tasks */
	list_splice(list, &own);
}

void batch_submit(struct batch *batch, int64_t at)
{
	struct endpoint *ep = batch->ep;
	struct list list;
	int r = 0;

	batch_cancel_timers(batch);
	if (!batch_has_complete(batch))
		return;
	if (!batch_is_loose(batch)) {
		char path[2 * MAX_NAME + 64];

		/* `inferfs wait out/B/task.json` must not find an older one. */
		endpoint_path(ep, path, sizeof(path), "out/%s/task.json", batch->name);
		ep->s->ops->unpublish(ep->s->host, path);
		if (batch->fresh) {
			endpoint_path(ep, path, sizeof(path), "out/%s/results.csv", batch->name);
			ep->s->ops->unpublish(ep->s->host, path);
		}
		batch->fresh = false;
	}
	list_init(&list);
	list_splice(&list, &batch->ready);
	sort_by_deadline(&list, batch->n_ready);
	while (r == 0 && (!list_empty(&list) || (batch->draft && batch->draft->total)))
		r = submit_some(batch, &list, at);
	list_splice(&batch->ready, &list);
	if (r < 0) {
		log_error("infer/%s/in/%s: submitting: %s", ep->name, batch->name, strerror(-r));
		batch_settle_at(batch, loop_now(ep->s->loop) + RESUBMIT_NS);
	}
}
