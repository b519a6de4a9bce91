/*
 * One mini-batch: which instances go into it, and what becomes of them with its answer or without.
 *
 * A mini-batch that the worker died with runs again, up to three times in all; then its instances run in
 * halves, until the one that kills the worker is alone and failed. Only the first of two outstanding ones
 * is suspected: the other did not run yet.
 */
#include "sched/minibatch.h"

#include "sched/ahead.h"
#include "sched/choose.h"
#include "sched/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct minibatch *minibatch_new(struct sched *s, struct endpoint *ep, int k)
{
	struct minibatch *mb = calloc(1, sizeof(*mb));

	if (!mb)
		return NULL;
	mb->id = ++s->dispatch.next_id;
	mb->inst = calloc(k, sizeof(struct instance *));
	mb->picture = calloc(k, sizeof(struct picture *));
	if (!mb->inst || !mb->picture) {
		minibatch_free(mb);
		return NULL;
	}
	mb->ep = ep;
	ep->refs++;
	return mb;
}

void minibatch_free(struct minibatch *mb)
{
	if (!mb)
		return;
	if (mb->ep)
		endpoint_unref(mb->ep);
	free(mb->inst);
	free(mb->picture);
	free(mb);
}

void minibatch_abandon(struct minibatch *mb)
{
	for (int i = 0; i < mb->n; i++) {
		if (!mb->explains && !mb->inst[i])
			continue;
		if (mb->explains)
			free(mb->picture[i]);
		else if (mb->ep->gone) {
			instance_discard(mb->ep->s, mb->inst[i]);
		} else
			instance_free(mb->inst[i]);
	}
}

static void take(struct instance *inst)
{
	struct task *task = inst->task;

	list_remove(&inst->link);
	task->n_queued--;
	task->ep->s->dispatch.n_queued--;
	task->n_running++;
	inst->state = INSTANCE_IS_RUNNING;
	dispatch_task_less(task);
}

static void put_back(struct instance *inst)
{
	struct task *task = inst->task;

	task->n_running--;
	task->n_queued++;
	task->ep->s->dispatch.n_queued++;
	inst->state = INSTANCE_IS_QUEUED;
	list_prepend(&task->queue, &inst->link);
	if (task->n_queued == 1)
		dispatch_task(task->ep->s, task);
}

void minibatch_put_back(struct minibatch *mb)
{
	minibatch_release(mb);
	for (int i = mb->n; i-- > 0 && !mb->again;)
		put_back(mb->inst[i]);
}

static void answer_unread(struct instance *inst, int r)
{
	struct instance_verdict v = {0};

	inst->task->n_running--;
	if (r == -ENOENT || r == -ESTALE) {
		v.dropped = true;
		v.err.code = ERR_REMOVED;
	} else if (r == -EFBIG) {
		err_set(&v.err, ERR_IMAGE_SIZE, "more than %u MiB in the file", MAX_INSTANCE >> 20);
	} else if (r == -ELOOP || r == -EINVAL) {
		err_set(&v.err, ERR_NO_FILE, "%s",
			r == -ELOOP ? "it is a symbolic link" : "it is a device, pipe or socket");
	} else {
		err_set(&v.err, ERR_IO, "reading it: %s", strerror(-r));
	}
	instance_answer(inst, &v);
}

void inputs_free(struct instance_input *in, int n)
{
	for (int i = 0; i < n; i++)
		free((void *)in[i].data);
	free(in);
}

void minibatch_fill(struct sched *s, const struct group *group, const struct choice *choice,
		    struct minibatch *mb, struct instance_input *in)
{
	struct list *at = &group->first->own;
	struct instance *inst;
	uint16_t limit = 0;
	size_t bytes = 0;
	int seen = 0, k = choice->k;
	bool any = false;

	while (mb->n < k && at != group->list && seen++ < LOOK_AHEAD && bytes < MINIBATCH_BYTES) {
		struct task *task = list_entry(at, struct task, own);

		if (task->due > group->until && !choice->shared)
			break;
		at = at->next; /* the task leaves the list with its last instance */
		while (mb->n < k && bytes < MINIBATCH_BYTES && (inst = task_next(task))) {
			void *data = NULL;
			size_t len = 0;
			int r;

			if (!any)
				limit = inst->limit;
			any = true;
			if (limit && k > limit)
				k = limit;
			if (inst->limit != limit)
				return; /* suspects run among themselves */
			take(inst);
			r = s->ops->read(s->host, inst->ino, MAX_INSTANCE, &data, &len);
			if (r < 0) {
				answer_unread(inst, r);
				continue;
			}
			bytes += len;
			in[mb->n] = (struct instance_input){.id = (uint64_t)mb->n, .data = data, .len = len};
			mb->inst[mb->n++] = inst;
		}
	}
}

void minibatch_fill_again(struct sched *s, const struct group *group, const struct choice *choice,
			  struct minibatch *mb, struct instance_input *in)
{
	struct list *at = &group->first->own;
	size_t bytes = 0;
	int seen = 0;

	while (mb->n < choice->k && at != group->list && seen++ < LOOK_AHEAD && bytes < MINIBATCH_BYTES) {
		struct task *task = list_entry(at, struct task, own);
		struct instance *inst;

		if (task->due > group->until)
			break;
		at = at->next; /* the task leaves the list with its last instance */
		while (mb->n < choice->k && bytes < MINIBATCH_BYTES &&
		       (inst = cascade_take(task, &choice->of))) {
			void *data = NULL;
			size_t len = 0;

			if (s->ops->read(s->host, inst->ino, MAX_INSTANCE, &data, &len) < 0) {
				cascade_answer(inst); /* its file went since */
				continue;
			}
			bytes += len;
			in[mb->n] = (struct instance_input){.id = (uint64_t)mb->n, .data = data, .len = len};
			mb->inst[mb->n++] = inst;
		}
	}
}

void minibatch_release(struct minibatch *mb)
{
	for (int i = 0; i < mb->n && mb->again; i++) {
		if (mb->inst[i])
			cascade_answer(mb->inst[i]);
		mb->inst[i] = NULL;
	}
}

void minibatch_count(struct minibatch *mb)
{
	for (int i = 0; i < mb->n; i++) {
		struct task *task = mb->inst[i]->task;

		mb->inst[i]->started = mb->handed;
		if (i > 0 && task == mb->inst[i - 1]->task)
			continue;
		task->n_real[mb->submodel]++;
		if (!task->began)
			task->began = mb->submodel + 1;
		if (!task->begun)
			status_event(task->ep->s, "started", task->ep->name, task->id, task->total);
		task->begun = true;
	}
}

void minibatch_blame(struct minibatch *mb, bool suspected)
{
	if (mb->again) { /* there is an answer to each */
		minibatch_release(mb);
		return;
	}
	for (int i = mb->n; i-- > 0;) {
		struct instance *inst = mb->inst[i];

		if (!inst)
			continue;
		if (!inst->task) {
			ahead_died(inst, suspected);
			continue;
		}
		if (suspected && ++inst->tries >= MAX_TRIES)
			inst->limit = (uint16_t)((mb->n + 1) / 2);
		if (suspected && inst->tries >= MAX_TRIES && mb->n == 1) {
			struct instance_verdict v = {0};

			err_set(&v.err, ERR_WORKER_DIED, "%d times with this instance", inst->tries);
			inst->task->n_running--;
			instance_answer(inst, &v);
			continue;
		}
		put_back(inst);
	}
}

/* Whether the answer is kept to be given anew: not by an endpoint that loads, whose sub-models will be others. */
static bool hold(struct minibatch *mb, struct instance *inst, const struct instance_answer *answer,
		 int64_t compute_ns)
{
	return mb->of.then >= 0 && !mb->again && mb->ep->ready && answer && !answer->failed &&
	       inst->task->due != INT64_MAX && inst->task->due > loop_now(mb->ep->s->loop) &&
	       answer->score < cascade_threshold(mb->ep, &mb->of) &&
	       cascade_hold(inst, &mb->of, answer, compute_ns);
}

/* p of the answer. */
static double accuracy_of(const struct minibatch *mb, const struct instance *inst,
			  const struct instance_answer *answer)
{
	if (mb->again)
		return cascade_again(mb->ep, &inst->held->of, mb->submodel);
	if (mb->of.then < 0)
		return mb->ep->submodels[mb->submodel].accuracy;
	return answer->score < cascade_threshold(mb->ep, &mb->of) ? cascade_unsure(mb->ep, &mb->of)
								  : cascade_sure(mb->ep, &mb->of);
}

static void answer_one(struct minibatch *mb, struct instance *inst, const struct instance_answer *answer,
		       int64_t compute_ns)
{
	struct instance_verdict v = {.answer = answer, .submodel = mb->submodel, .compute_ns = compute_ns};

	if (!inst)
		return;
	if (!inst->task) {
		ahead_keep(mb, inst, answer, compute_ns);
		return;
	}
	if (hold(mb, inst, answer, compute_ns))
		return;
	if (mb->again && (!answer || answer->failed)) {
		cascade_answer(inst);
		return;
	}
	if (!answer)
		err_set(&v.err, ERR_PROTOCOL, "the worker gave no answer for it");
	else if (!answer->failed)
		inst->task->expected += v.accuracy = accuracy_of(mb, inst, answer);
	inst->task->n_running--;
	instance_answer(inst, &v);
}

void minibatch_note(const struct minibatch *mb, int64_t started, const struct batch_done *done)
{
	struct endpoint *ep = mb->ep;
	struct served *on = &ep->on[mb->device->number];

	if (done->r == 0) {
		stats_minibatch(&ep->stats, &ep->submodels[mb->submodel], mb->n, done->compute_ns);
		on->minibatches++;
		on->instances += (uint64_t)mb->n;
		on->compute_ns += done->compute_ns;
	}
	timeline_minibatch(mb, started, done);
}

void minibatch_answer(struct minibatch *mb, const struct batch_done *done)
{
	const struct instance_answer **answers = calloc(mb->n, sizeof(*answers));

	for (int i = 0; answers && i < done->n; i++)
		if (done->answers[i].id < (uint64_t)mb->n)
			answers[done->answers[i].id] = &done->answers[i];
	for (int i = 0; i < mb->n; i++)
		answer_one(mb, mb->inst[i], answers ? answers[i] : NULL, done->compute_ns);
	free(answers);
}
