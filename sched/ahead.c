#include "sched/ahead.h"

#include "sched/choose.h"
#include "sched/internal.h"
#include "sched/minibatch.h"

#include <errno.h>
#include <stdlib.h>

#define MOST_AHEAD 16384 /* instances, over all batches; chosen: some 5 MiB */
#define LONG_NS \
	(10 * NS_PER_MS) /* chosen: what is submitted meanwhile waits for no more, or for one mini-batch */

/* --- which --- */

void ahead_add(struct instance *inst)
{
	struct batch *batch = inst->batch;
	struct endpoint *ep = batch->ep;

	if (batch_is_loose(batch) || !(ep->spec.ahead < 0 ? ep->s->options.ahead : ep->spec.ahead) ||
	    inst->tries)
		return;
	list_append(&batch->early, &inst->early);
	if (!batch->n_early++)
		list_append(&ep->s->dispatch.early, &batch->early_link);
	if (batch->n_early >= (uint32_t)ep->spec.batch)
		dispatch_kick(ep->s);
}

void ahead_leave(struct instance *inst)
{
	struct batch *batch = inst->batch;

	if (list_empty(&inst->early))
		return;
	list_remove(&inst->early);
	if (!--batch->n_early)
		list_remove(&batch->early_link);
}

/* It is computed, or was: not any more. */
static void remove_ahead(struct instance *inst)
{
	struct minibatch *mb = inst->ahead_in;

	if (!inst->ahead)
		return;
	for (int i = 0; mb && i < mb->n; i++)
		if (mb->inst[i] == inst)
			mb->inst[i] = NULL;
	inst->ahead = false;
	inst->ahead_in = NULL;
	free(inst->held);
	inst->held = NULL;
	inst->batch->ep->s->dispatch.n_ahead--;
}

void ahead_forget(struct instance *inst)
{
	ahead_leave(inst);
	remove_ahead(inst);
}

static void forget_batch(void *data, struct table_node *node)
{
	struct batch *batch = list_entry(node, struct batch, node);

	(void)data;
	list_each(link, &batch->ready)
	{
		struct instance *inst = list_entry(link, struct instance, link);

		if (!inst->ahead)
			continue;
		remove_ahead(inst);
		ahead_add(inst);
	}
}

void ahead_forget_all(struct endpoint *ep)
{
	if (ep->s->dispatch.n_ahead)
		table_each(&ep->batches, forget_batch, NULL);
}

static struct batch *next_batch(const struct device *device)
{
	struct dispatch *d = &device->s->dispatch;

	list_each(link, &d->early)
	{
		struct batch *batch = list_entry(link, struct batch, early_link);
		const struct endpoint *ep = batch->ep;

		if (ep->on[device->number].ready && batch->n_early >= (uint32_t)ep->spec.batch &&
		    d->n_ahead + (uint64_t)ep->spec.batch <= MOST_AHEAD)
			return batch;
	}
	return NULL;
}

/* --- a mini-batch --- */

static void fill(struct batch *batch, struct minibatch *mb, struct instance_input *in)
{
	struct sched *s = batch->ep->s;
	size_t bytes = 0;

	while (mb->n < batch->ep->spec.batch && !list_empty(&batch->early) && bytes < MINIBATCH_BYTES) {
		struct instance *inst = list_entry(batch->early.next, struct instance, early);
		void *data = NULL;
		size_t len = 0;

		ahead_leave(inst);
		if (s->ops->read(s->host, inst->ino, MAX_INSTANCE, &data, &len) < 0)
			continue; /* when it is submitted that is said */
		bytes += len;
		in[mb->n] = (struct instance_input){.id = (uint64_t)mb->n, .data = data, .len = len};
		mb->inst[mb->n++] = inst;
		inst->ahead = true;
		inst->ahead_in = mb;
		s->dispatch.n_ahead++;
	}
}

static int hand_over(struct device *device, struct batch *batch, struct minibatch *mb,
		     struct instance_input *in)
{
	struct endpoint *ep = batch->ep;
	const struct served *on = &ep->on[device->number];

	fill(batch, mb, in);
	if (!mb->n)
		return 0;
	mb->device = device;
	mb->submodel = choose_unhurried(ep, on);
	mb->of = (struct cascade){mb->submodel, -1, 0};
	mb->handed = loop_now(ep->s->loop);
	mb->expected = profile_expect_ns(&on->profile, mb->submodel, mb->n);
	return device->ex->ops->run(device->ex, mb->id, ep->number, on->number[mb->submodel], in, mb->n);
}

/* Whether what is at the device leaves room for one that takes so long. */
static bool has_room(const struct device *device, int64_t ns)
{
	int64_t out = 0;

	for (int i = 0; i < device->n_out; i++)
		out += device->out[i]->expected;
	return device->n_out < PIPELINE && (!device->n_out || out + ns <= LONG_NS);
}

bool ahead_next(struct device *device)
{
	struct sched *s = device->s;
	struct batch *batch = next_batch(device);
	struct instance_input *in;
	struct minibatch *mb;
	const struct served *on;
	int r = -ENOMEM;

	if (!batch)
		return false;
	on = &batch->ep->on[device->number];
	if (!has_room(device, profile_expect_ns(&on->profile, choose_unhurried(batch->ep, on),
						batch->ep->spec.batch)))
		return false;
	mb = minibatch_new(s, batch->ep, batch->ep->spec.batch);
	in = calloc((size_t)batch->ep->spec.batch, sizeof(*in));
	if (mb && in) {
		r = hand_over(device, batch, mb, in);
		inputs_free(in, mb->n);
		in = NULL;
	}
	if (r == 0 && mb->n) {
		device->out[device->n_out++] = mb;
		return true;
	}
	for (int i = 0; mb && i < mb->n; i++) {
		struct instance *inst = mb->inst[i];

		remove_ahead(inst);
		ahead_add(inst);
	}
	if (r == -EAGAIN || r == -ENOTCONN)
		dispatch_set_ready(batch->ep, device, false); /* `loaded` comes again */
	else if (r < 0)
		dispatch_look_again(s, loop_now(s->loop) + RUN_AGAIN_NS);
	minibatch_free(mb);
	free(in);
	return r == 0;
}

void ahead_keep(struct minibatch *mb, struct instance *inst, const struct instance_answer *answer,
		int64_t compute_ns)
{
	bool good = answer && !answer->failed && mb->ep->ready;
	struct held *held = good ? malloc(sizeof(*held)) : NULL;

	inst->ahead_in = NULL;
	if (!held) {
		remove_ahead(inst); /* it is computed, and what is wrong is said, when it is submitted */
		return;
	}
	*held = (struct held){mb->of, *answer, compute_ns};
	inst->held = held;
}

void ahead_died(struct instance *inst, bool suspected)
{
	remove_ahead(inst);
	inst->tries += suspected;
	ahead_add(inst);
}

/* --- the submission --- */

/* How many answers that are given now are visible in time. */
static int64_t most_in_time(const struct task *task)
{
	struct sched *s = task->ep->s;
	const struct outbox *box = &s->outbox;
	int64_t left = task->due - loop_now(s->loop) - outbox_margin(box, OUTBOX_CAREFUL) -
		       outbox_cost(box, OUTBOX_OF_LATE, box->outstanding),
		each = outbox_cost(box, OUTBOX_OF_LATE, 1);

	if (task->due == INT64_MAX)
		return INT64_MAX;
	return left > 0 ? left / (each > 0 ? each : 1) : 0;
}

/* From the queue to those that run. */
static void take(struct instance *inst)
{
	struct task *task = inst->task;

	inst->ahead = false;
	inst->ahead_in = NULL;
	inst->started = loop_now(task->ep->s->loop);
	inst->state = INSTANCE_IS_RUNNING;
	list_remove(&inst->link);
	task->n_queued--;
	task->n_running++;
	task->ep->s->dispatch.n_queued--;
	task->ep->s->dispatch.n_ahead--;
}

void ahead_submitted(struct task *task)
{
	struct endpoint *ep = task->ep;
	int64_t most = ep->s->dispatch.n_ahead ? most_in_time(task) : 0;
	uint32_t n[MAX_SUBMODELS] = {0};
	bool any = false;

	list_each(link, &task->queue)
	{
		struct instance *inst = list_entry(link, struct instance, link);

		if (!inst->ahead)
			continue;
		if (most-- <= 0) {
			remove_ahead(inst);
			continue;
		}
		any = true;
		n[inst->held ? inst->held->of.first : inst->ahead_in->submodel]++;
		ep->stats.ahead++;
		take(inst);
		if (inst->held)
			cascade_answer(inst);
	}
	if (!any)
		return;
	for (int i = 0; i < ep->n_submodels; i++)
		task->n_real[i] += (n[i] + (uint32_t)ep->spec.batch - 1) / (uint32_t)ep->spec.batch;
	status_event(ep->s, "started", ep->name, task->id, task->total);
	task->begun = true;
	if (!task->n_queued)
		choose_note(task, 0);
	dispatch_task_less(task);
}
