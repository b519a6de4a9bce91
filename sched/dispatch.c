/*
 * What runs next. Two mini-batches are at each device at a time; whenever there is room for one, it is
 * chosen anew from what is queued and from the time there is by now. So a plan is never followed blindly:
 * its first mini-batch is taken, and the rest is planned again with what that one really took. With exact
 * times the next plan is the rest of the last one.
 *
 * Of several devices the one that is free first is looked at first. What waits belongs to none of them: each takes the next mini-batch of its part of
 * what is left then (split.c), so one that died or is slow only leaves more to the others.
 *
 * Whose turn it is: fair.c; which sub-model and how many instances: choose.c; their contents and answers: minibatch.c. Tasks without a
 * deadline fill what is free.
 * What is not submitted yet is computed when nothing that is waits (ahead.c), and pictures are made when no prediction waits or runs: pictures.c.
 *
 * What can't be in time is dropped when nothing of its task runs any more: until then a mini-batch may turn
 * out shorter than thought. Dropped answers wait for the answers of computed ones (outbox).
 */
#include "sched/ahead.h"
#include "sched/choose.h"
#include "sched/internal.h"
#include "sched/minibatch.h"
#include "sched/shed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_UNPUBLISHED 2048 /* answers on their way; bounds memory when the disk is slower than the device */
#define MAX_DROPS       64   /* dropped answers handed over at a time */
#define LOOK_AGAIN_NS   (2 * NS_PER_MS) /* chosen: a few publications */
#define OTHERS_AGAIN_NS \
	(10 *           \
	 NS_PER_MS)    /* chosen: whether others do what they were to do; each answer of theirs tells, too */
#define MOST_OTHERS 16 /* tasks for others that are looked at in search of one for this device; chosen */

void dispatch_init(struct dispatch *d)
{
	fair_init(&d->fair);
	list_init(&d->due);
	list_init(&d->due_asleep);
	list_init(&d->overdue);
	list_init(&d->removing);
	list_init(&d->pictures);
	list_init(&d->early);
}

void dispatch_release(struct sched *s)
{
	struct dispatch *d = &s->dispatch;

	for (int k = 0; k < s->n_devices; k++) {
		struct device *device = &s->device[k];

		for (int i = 0; i < device->n_out; i++) {
			minibatch_abandon(device->out[i]);
			minibatch_free(device->out[i]);
		}
		device->n_out = 0;
	}
	list_each(link, &d->pictures) free(list_entry(link, struct picture, link));
	list_init(&d->pictures);
	loop_timer_cancel(s->loop, d->timer);
	loop_timer_cancel(s->loop, d->kick);
	d->timer = d->kick = NULL;
}

/* --- the lists --- */

void dispatch_task_gone(struct task *task)
{
	list_remove(&task->link);
	fair_remove(task);
}

void dispatch_task_less(struct task *task)
{
	if (!task->n_queued && !task->n_held)
		dispatch_task_gone(task);
}

/* Behind its equals. New ones belong at the end, or near it. */
static void insert(struct list *list, struct task *task)
{
	struct list *at = list->prev;

	while (at != list && list_entry(at, struct task, link)->due > task->due)
		at = at->prev;
	list_insert_before(at->next, &task->link);
}

void dispatch_task(struct sched *s, struct task *task)
{
	struct dispatch *d = &s->dispatch;

	dispatch_task_gone(task);
	if (task->n_queued || task->n_held) {
		fair_put(s, task);
		if (task->due != INT64_MAX)
			insert(task->ep->ready ? &d->due : &d->due_asleep, task);
	}
	dispatch_kick(s);
}

void dispatch_set_ready(struct endpoint *ep, struct device *device, bool ready)
{
	struct dispatch *d = &ep->s->dispatch;

	if (ready == ep->on[device->number].ready)
		return;
	ep->on[device->number].ready = ready;
	for (int i = 0; i < ep->s->n_devices && !ready; i++)
		ready = ep->on[i].ready;
	if (ready)
		dispatch_kick(ep->s);
	if (ready == ep->ready)
		return;
	ep->ready = ready;
	if (!ready) { /* while its sub-models are those that answered */
		cascade_release_all(ep);
		ahead_forget_all(ep);
	}
	list_each(link, &ep->lane.due)
	{
		struct task *task = list_entry(link, struct task, own);

		list_remove(&task->link);
		insert(ready ? &d->due : &d->due_asleep, task);
	}
}

/* --- running --- */

/* 1: something was handed over or answered; 0: not now. */
static int run(struct device *device, const struct group *group, const struct contest *c,
	       const struct choice *choice)
{
	struct sched *s = device->s;
	struct endpoint *ep = group->first->ep;
	const struct served *on = &ep->on[device->number];
	struct minibatch *mb = minibatch_new(s, ep, choice->k);
	struct instance_input *in = calloc(choice->k, sizeof(*in));
	int r = -ENOMEM;

	if (!mb || !in)
		goto out;
	if (choice->again)
		minibatch_fill_again(s, group, choice, mb, in);
	else
		minibatch_fill(s, group, choice, mb, in);
	r = 1;
	if (!mb->n)
		goto out; /* none could be read: they are answered */
	mb->device = device;
	mb->submodel = choice->submodel;
	mb->again = choice->again;
	mb->of = choice->of;
	mb->handed = loop_now(s->loop);
	mb->expected = profile_expect_ns(&on->profile, mb->submodel, mb->n);
	r = device->ex->ops->run(device->ex, mb->id, ep->number, on->number[mb->submodel], in, mb->n);
	if (r < 0) {
		minibatch_put_back(mb);
		goto out;
	}
	minibatch_count(mb);
	fair_charge(s, c, mb, group->due == INT64_MAX);
	device->out[device->n_out++] = mb;
	for (int i = 0; i < mb->n && !mb->again; i++)
		s->ops->mark(s->host, mb->inst[i]->ino, "running");
	inputs_free(in, mb->n);
	return 1;
out:
	if (in)
		inputs_free(in, mb ? mb->n : 0);
	minibatch_free(mb);
	if (r == -EAGAIN || r == -ENOTCONN) {
		dispatch_set_ready(ep, device, false); /* `loaded` comes again */
		r = -EAGAIN;
	}
	return r;
}

static void kicked(void *data);

void dispatch_look_again(struct sched *s, int64_t at)
{
	loop_timer_cancel(s->loop, s->dispatch.timer);
	s->dispatch.timer = loop_timer_at(s->loop, at, kicked, s);
}

/* Whether a dropped answer is out before the next computed ones, which have a deadline. */
static bool may_drop(const struct sched *s)
{
	int64_t now = loop_now(s->loop),
		out = now + outbox_cost(&s->outbox, OUTBOX_OF_LATE, s->outbox.outstanding + 1), end;

	if (s->outbox.outstanding >= MAX_DROPS)
		return false;
	for (const struct device *d = s->device; d < s->device + s->n_devices; d++) {
		const struct minibatch *mb = d->n_out ? d->out[0] : NULL;

		if (!mb || mb->explains)
			continue;
		end = (mb->handed > d->last_done ? mb->handed : d->last_done) + mb->expected;
		if (out > end &&
		    now <= end + mb->expected) /* one that takes twice as long may take for ever */
			return false;
	}
	return true;
}

/* Drops some of a task's queue, or waits until there is room for such publications. */
static bool drop_some(struct sched *s, struct task *task)
{
	enum err_code code = task->ep->state == ENDPOINT_STOPPED || task->ep->state == ENDPOINT_FAILED
				     ? ERR_STOPPED
				     : ERR_NO_TIME;
	struct instance *inst;
	bool any = false;

	while (may_drop(s) && (inst = task_next(task))) {
		/* The task lives at least as long as this instance's publication. */
		task_drop_instance(inst, code);
		any = true;
	}
	return any;
}

/* A queue of 100,000 that is removed at once is answered bit by bit, too. */
static void drop_removed(struct sched *s)
{
	struct dispatch *d = &s->dispatch;

	while (!list_empty(&d->removing) && s->outbox.outstanding < MAX_DROPS)
		task_answer_removed(list_entry(d->removing.next, struct task, removing));
}

/* False: none, or no room for their answers. */
static bool drop_overdue(struct sched *s)
{
	struct dispatch *d = &s->dispatch;
	struct list *lists[] = {&d->due, &d->due_asleep};
	struct task *overdue;

	for (size_t i = 0; i < 2; i++)
		while (!list_empty(lists[i]) &&
		       list_entry(lists[i]->next, struct task, link)->due <= loop_now(s->loop)) {
			struct task *task = list_entry(lists[i]->next, struct task, link);

			cascade_release(task);
			dispatch_task_gone(task);
			if (task->n_queued)
				list_append(&d->overdue, &task->link);
		}
	if (list_empty(&d->overdue))
		return false;
	overdue = list_entry(d->overdue.next, struct task, link);
	cascade_release(overdue); /* what ran since; without a queue it leaves the list by that */
	return !overdue->n_queued || drop_some(s, overdue);
}

/* Nothing that is held has the time to run again. */
static void release(const struct group *group)
{
	struct list *at = &group->first->own;
	int seen = 0;

	while (at != group->list && seen++ < LOOK_AHEAD) {
		struct task *task = list_entry(at, struct task, own);

		at = at->next; /* the task leaves the list */
		if (task->due > group->until)
			break;
		cascade_release(task);
	}
}

static enum chosen choose(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
			  struct choice *ret)
{
	int64_t began = loop_now(s->loop);
	enum chosen chosen = choose_due(s, group, c, start, ret);

	histogram_add(&group->first->ep->stats.plan, loop_now(s->loop) - began);
	return chosen;
}

/* Where not all can be in time the group, and what was chosen of it, may become a later one. */
static void shed(struct sched *s, struct group *group, const struct contest *c, int64_t start,
		 struct choice *choice)
{
	struct task *first = shed_until(s, group, c, start, choice);
	struct choice of_later;
	struct group later;

	if (first == group->first)
		return;
	later = group_of(group->device, first, loop_now(s->loop));
	if (choose(s, &later, c, start, &of_later) != CHOSEN)
		return;
	*group = later;
	*choice = of_later;
}

/* Whether another device could run again what is held. */
static bool others_again(struct sched *s, const struct group *group, const struct contest *c)
{
	struct choice choice;
	bool can = false;

	for (int i = 0; i < s->n_devices && !can; i++) {
		struct group on = *group;

		on.device = &s->device[i];
		can = on.device != group->device && group->first->ep->on[i].ready &&
		      choose_again(s, &on, c, device_free_at(on.device), &choice);
	}
	return can;
}

enum tried {
	TRIED_DONE,   /* something was handed over or answered: look again */
	TRIED_NOT,    /* nothing of this task can run now */
	TRIED_OTHERS, /* likewise: it is for other devices to run */
	TRIED_NOTHING /* nor of others */
};

static enum tried try_due(struct device *device, struct task *task, const struct contest *c, int64_t start)
{
	struct sched *s = device->s;
	int64_t now = loop_now(s->loop), look = LOOK_AGAIN_NS;
	struct group group = group_of(device, task, now);
	enum chosen chosen = CHOSEN;
	struct choice choice;
	int r;

	if (!task->ep->on[device->number].ready)
		return TRIED_NOT;
	if (!group.n && !choose_again(s, &group, c, start, &choice)) {
		if (others_again(s, &group, c))
			return TRIED_OTHERS;
		release(&group);
		return TRIED_DONE;
	}
	if (group.n)
		chosen = choose(s, &group, c, start, &choice);
	if (chosen == CHOSEN) {
		if (group.n)
			shed(s, &group, c, start, &choice);
		r = run(device, &group, c, &choice);
		if (r < 0 && r != -EAGAIN)
			dispatch_look_again(s, now + RUN_AGAIN_NS);
		return r > 0 || r == -EAGAIN ? TRIED_DONE : TRIED_NOTHING;
	}
	if (chosen == CHOSEN_NOTHING && task->n_running == task->n_held && choose_is_hopeless(s, &group) &&
	    drop_some(s, task))
		return TRIED_DONE;
	if (chosen == CHOSEN_OTHERS)
		look = OTHERS_AGAIN_NS;
	if (!s->dispatch.timer)
		dispatch_look_again(s, now + look < task->due ? now + look : task->due);
	return chosen == CHOSEN_OTHERS ? TRIED_OTHERS : TRIED_NOT;
}

static bool goes_on(enum tried last, int *others)
{
	*others += last == TRIED_OTHERS;
	return last == TRIED_NOT || (last == TRIED_OTHERS && *others < MOST_OTHERS);
}

/* All fits: the earliest deadline. */
static enum tried try_earliest(struct device *device, const struct contest *c, int64_t start)
{
	struct dispatch *d = &device->s->dispatch;
	enum tried tried = TRIED_NOT;
	int others = 0;

	for (struct list *at = d->due.next; goes_on(tried, &others) && at != &d->due; at = at->next)
		tried = try_due(device, list_entry(at, struct task, link), c, start);
	return tried;
}

/* Not all fits: whose turn it is, and of that endpoint the earliest deadline. */
static enum tried try_in_turn(struct device *device, const struct contest *c, int64_t start)
{
	struct sched *s = device->s;
	enum tried tried = TRIED_NOT;
	struct endpoint *ep;
	int others = 0;

	fair_begin(s);
	while (goes_on(tried, &others) && (ep = fair_turn_due(device)))
		for (struct list *at = ep->lane.due.next; goes_on(tried, &others) && at != &ep->lane.due;
		     at = at->next)
			tried = try_due(device, list_entry(at, struct task, own), c, start);
	return tried;
}

/* Whose turn it is among those without a deadline, for at most so long if it has to be. */
static bool run_free(struct device *device, const struct contest *c, bool alone, int64_t most)
{
	struct sched *s = device->s;
	struct endpoint *ep;
	struct choice choice;
	struct group group;
	int r;

	fair_begin(s);
	ep = fair_turn_free(device, alone);
	if (!ep)
		return false;
	group = group_of(device, list_entry(ep->lane.free.next, struct task, own), 0);
	if (!group.n) { /* its deadline was taken away meanwhile */
		release(&group);
		return true;
	}
	choose_free(&group, most, &choice);
	r = run(device, &group, c, &choice);
	if (r < 0 && r != -EAGAIN)
		dispatch_look_again(s, loop_now(s->loop) + RUN_AGAIN_NS);
	return r > 0 || r == -EAGAIN;
}

static bool run_on(struct device *device)
{
	struct sched *s = device->s;
	int64_t start = device_free_at(device);
	struct contest c = fair_look(s, devices_free_at(s));
	enum tried tried;

	if (fair_is_free_turn(s, &c) && run_free(device, &c, true, c.slack))
		return true;
	tried = c.over ? try_in_turn(device, &c, start) : try_earliest(device, &c, start);
	return tried == TRIED_DONE || run_free(device, &c, false, INT64_MAX) ||
	       (list_empty(&s->dispatch.due) && ahead_next(device));
}

/* Of those that have room, and are not in `tried`, the one that is free first; NULL: there is none. */
static struct device *next_device(struct sched *s, uint32_t tried)
{
	struct device *next = NULL;
	int64_t first = INT64_MAX;

	_Static_assert(MAX_DEVICES <= 32, "a bit each");
	for (int i = 0; i < s->n_devices; i++) {
		struct device *device = &s->device[i];
		int64_t at = device_free_at(device);

		if (device->n_out == PIPELINE || at >= first || (tried & UINT32_C(1) << i))
			continue;
		next = device;
		first = at;
	}
	return next;
}

/* Hands one mini-batch over. False: nothing to be done until something happens. */
static bool run_next(struct sched *s)
{
	struct device *device;

	if (drop_overdue(s))
		return true;
	for (uint32_t tried = 0; (device = next_device(s, tried)); tried |= UINT32_C(1) << device->number)
		if (run_on(device))
			return true;
	return false;
}

/* --- the executors' answers --- */

void dispatch_done(void *data, const struct batch_done *done)
{
	struct device *device = data;
	struct sched *s = device->s;
	int64_t now = loop_now(s->loop), started;
	struct minibatch *mb = NULL;
	int i = 0;

	while (i < device->n_out && device->out[i]->id != done->batch)
		i++;
	if (i == device->n_out)
		return; /* nothing of ours */
	mb = device->out[i];
	memmove(&device->out[i], &device->out[i + 1], (device->n_out - i - 1) * sizeof(struct minibatch *));
	device->n_out--;
	started = mb->handed > device->last_done ? mb->handed : device->last_done;
	if (done->r == 0)
		fair_correct(mb, now - started);
	else if (device->dying) /* of the same death: it did not run */
		fair_correct(mb, 0);
	/* What the next one has to reckon with is the time between two answers, not the computing alone. */
	if (done->r == 0 && !mb->explains && mb->ep->on[device->number].ready)
		profile_measured(&mb->ep->on[device->number].profile, mb->submodel, mb->n, now - started);
	if (done->r == 0 && !mb->explains)
		caution_ran(&mb->ep->caution, mb->n);
	if (done->r == 0)
		device->last_done = now;
	if (!mb->ep->gone && !mb->explains && (done->r == 0 || !device->dying)) /* else it did not run */
		minibatch_note(mb, started, done);
	if (mb->ep->gone) {
		minibatch_abandon(mb);
	} else if (mb->explains) {
		pictures_done(s, mb, done);
	} else if (done->r < 0) {
		/* The first that is answered so ran; the other one of the same death still waited. */
		minibatch_blame(mb, !device->dying);
	} else {
		minibatch_answer(mb, done);
	}
	device->dying = done->r < 0;
	device->core = done->core;
	devices_apart(s);
	minibatch_free(mb);
	dispatch_kick(s);
}

/* --- the wheel --- */

static int64_t first_due(const struct dispatch *d)
{
	const struct list *lists[] = {&d->due, &d->due_asleep};
	int64_t due = INT64_MAX;

	for (size_t i = 0; i < 2; i++)
		if (!list_empty(lists[i]) && list_entry(lists[i]->next, struct task, link)->due < due)
			due = list_entry(lists[i]->next, struct task, link)->due;
	return due;
}

static bool is_predicting(const struct sched *s)
{
	const struct minibatch *mb;

	for (int i = 0; (mb = devices_out(s, i)); i++)
		if (!mb->explains)
			return true;
	return false;
}

static void pump(struct sched *s)
{
	struct dispatch *d = &s->dispatch;
	int64_t due, release_at;

	loop_timer_cancel(s->loop, d->timer);
	d->timer = NULL;
	if (s->stopping)
		return;
	drop_removed(s);
	cascade_release_due(s);
	while (s->outbox.outstanding < MAX_UNPUBLISHED && run_next(s))
		;
	if (!is_predicting(s) && !s->outbox.outstanding && list_empty(&d->due))
		for (int i = 0; i < s->n_devices; i++)
			if (!s->device[i].n_out)
				pictures_next(&s->device[i]);
	release_at = cascade_release_due(s); /* of what was just handed over, too */
	due = first_due(d);
	due = release_at < due ? release_at : due;
	/* What became due while this ran, too; but with too many answers on their way it is they who kick. */
	if (!d->timer && due != INT64_MAX &&
	    (due > loop_now(s->loop) || s->outbox.outstanding < MAX_UNPUBLISHED))
		dispatch_look_again(s, due);
}

static void kicked(void *data)
{
	struct sched *s = data;

	s->dispatch.timer = NULL;
	pump(s);
}

static void kick_fires(void *data)
{
	struct sched *s = data;

	s->dispatch.kick = NULL;
	pump(s);
}

void dispatch_kick(struct sched *s)
{
	if (!s->dispatch.kick && !s->stopping)
		s->dispatch.kick = loop_timer_at(s->loop, loop_now(s->loop), kick_fires, s);
}

static bool holds(const struct minibatch *mb, const char *path)
{
	for (int i = 0; !mb->explains && i < mb->n; i++)
		if (mb->inst[i] && strcmp(mb->inst[i]->path, path) == 0)
			return true;
	return false;
}

bool dispatch_runs(const struct sched *s, const char *path)
{
	bool runs = false;

	for (int i = 0; i < s->n_devices && !runs; i++)
		runs = s->device[i].n_out && holds(s->device[i].out[0], path);
	return runs;
}
