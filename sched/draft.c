/*
 * Drafts: a batch whose files still come may be larger than what is to be held in memory (spill.h). What is complete of it is put into
 * the records of the task it will be, some at a time, and waits on disk. A draft has no record of its own: after a crash its files are
 * found in the tree as all that are complete and not submitted. Instances with a deadline of their own stay in memory, since they
 * belong to other tasks.
 */
#include "sched/internal.h"

#include "engine/base/log.h"

#include <string.h>

static int begin(struct batch *batch)
{
	struct endpoint *ep = batch->ep;
	struct task *task;
	uint32_t seq;
	int r = store_take_number(ep, &seq);

	if (r < 0)
		return r;
	r = task_new(&task, batch, seq, loop_wall(ep->s->loop));
	if (r < 0)
		return r;
	list_remove(&task->batch_link);
	task->numbered = true;
	batch->draft = task;
	return 0;
}

/* A record of them; false: there are not so many, or it can't be. */
static bool gather_some(struct batch *batch)
{
	struct instance *some[STORE_TOGETHER];
	struct task *task;
	uint32_t first;
	int n = 0;

	list_each(link, &batch->ready)
	{
		struct instance *inst = list_entry(link, struct instance, link);

		if (!inst->own.set)
			some[n++] = inst;
		if (n == STORE_TOGETHER)
			break;
	}
	if (n < STORE_TOGETHER || (!batch->draft && begin(batch) < 0))
		return false;
	task = batch->draft;
	first = task->next_no;
	for (int i = 0; i < n; i++)
		instance_queue(some[i], task);
	if (store_gather(task) < 0) { /* the submission is tried again, too, and says so */
		task_unqueue(task, &batch->ready);
		return false;
	}
	spill_from(task, first);
	if (list_empty(&task->queue))
		return true;
	list_each(link, &task->queue) /* no memory for a page */
		if (store_withdraw(task, list_entry(link, struct instance, link)->no) < 0)
			log_error("%s: a record that should be withdrawn is not", task->id);
	task_unqueue(task, &batch->ready);
	return false;
}

void draft_gather(struct batch *batch)
{
	/* Now and then: with deadlines of their own all of them may have to be looked at. */
	if (!batch->n_ready || batch->n_ready % STORE_TOGETHER || !spill_is_due(batch->ep->s))
		return;
	while (gather_some(batch))
		;
}

void draft_withdraw(struct task *task, struct instance *inst, uint32_t no)
{
	task->total--;
	task->open--;
	task->n_queued--;
	task->ep->s->dispatch.n_queued--;
	instance_ready(inst);
	if (store_withdraw(task, no) < 0)
		log_error("%s: %s: after a crash it may be answered twice", task->id, inst->path);
}

void draft_discard(struct batch *batch)
{
	struct task *task = batch->draft;
	struct opset ops = OPSET_INIT;
	bool removed = batch->removed;

	if (!task)
		return;
	store_end(&ops, task);
	if (opset_commit(&ops, task->ep->s) < 0)
		log_error("%s: its records go at the next start", task->id);
	opset_release(&ops);
	batch->draft = NULL;
	batch->removed = false; /* it is the caller's to release */
	task_free(task);
	batch->removed = removed;
}
