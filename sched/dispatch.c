/*
 * What runs next. Two mini-batches are at the executor at a time; whenever there is room for one, it is
 * chosen anew from what is queued and from the time there is by now. So a plan is never followed blindly:
 * its first mini-batch is taken, and the rest is planned again with what that one really took. With exact
 * times the next plan is the rest of the last one.
 *
 * Whose turn it is: fair.c; which sub-model and how many instances: choose.c; their contents and answers: minibatch.c. Tasks without a
 * deadline fill what is free.
 * Pictures are made when no prediction waits or runs: pictures.c.
 *
 * What can't be in time is dropped when nothing of its task runs any more: until then a mini-batch may turn
 * out shorter than thought. Dropped answers wait for the answers of computed ones (outbox).
 */
#include "sched/choose.h"
#include "sched/internal.h"
#include "sched/minibatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_UNPUBLISHED 2048 /* answers on their way; bounds memory when the disk is slower than the device */
#define MAX_DROPS       64   /* dropped answers handed over at a time */
#define LOOK_AGAIN_NS   (2 * NS_PER_MS) /* chosen: a few publications */

void dispatch_init(struct dispatch *d)
{
	fair_init(&d->fair);
	list_init(&d->due);
	list_init(&d->due_asleep);
	list_init(&d->overdue);
	list_init(&d->removing);
	list_init(&d->pictures);
	d->pictured = -1;
}

void dispatch_release(struct sched *s)
{
	struct dispatch *d = &s->dispatch;

	for (int i = 0; i < d->n_out; i++) {
		minibatch_abandon(d->out[i]);
		minibatch_free(d->out[i]);
	}
	d->n_out = 0;
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

void dispatch_set_ready(struct endpoint *ep, bool ready)
{
	struct dispatch *d = &ep->s->dispatch;

	if (ready == ep->ready)
		return;
	ep->ready = ready;
	if (!ready)
		cascade_release_all(ep); /* while its sub-models are those that answered */
	list_each(link, &ep->lane.due)
	{
		struct task *task = list_entry(link, struct task, own);

		list_remove(&task->link);
		insert(ready ? &d->due : &d->due_asleep, task);
	}
	if (ready)
		dispatch_kick(ep->s);
}

/* --- running --- */

/* 1: something was handed over or answered; 0: not now. */
static int run(struct sched *s, const struct group *group, const struct contest *c,
	       const struct choice *choice)
{
	struct dispatch *d = &s->dispatch;
	struct endpoint *ep = group->first->ep;
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
	mb->submodel = choice->submodel;
	mb->again = choice->again;
	mb->of = choice->of;
	mb->handed = loop_now(s->loop);
	mb->expected = profile_expect_ns(&ep->profile, mb->submodel, mb->n);
	r = s->ex->ops->run(s->ex, mb->id, ep->number, mb->submodel, in, mb->n);
	if (r < 0) {
		minibatch_put_back(mb);
		goto out;
	}
	minibatch_count(mb);
	fair_charge(s, c, mb, group->due == INT64_MAX);
	d->out[d->n_out++] = mb;
	for (int i = 0; i < mb->n && !mb->again; i++)
		s->ops->mark(s->host, mb->inst[i]->ino, "running");
	inputs_free(in, mb->n);
	return 1;
out:
	if (in)
		inputs_free(in, mb ? mb->n : 0);
	minibatch_free(mb);
	if (r == -EAGAIN || r == -ENOTCONN) {
		dispatch_set_ready(ep, false); /* `loaded` comes again */
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
	const struct dispatch *d = &s->dispatch;
	const struct minibatch *mb = d->n_out ? d->out[0] : NULL;
	int64_t now = loop_now(s->loop), end;

	if (s->outbox.outstanding >= MAX_DROPS)
		return false;
	if (!mb || mb->explains)
		return true;
	end = (mb->handed > d->last_done ? mb->handed : d->last_done) + mb->expected;
	/* One that takes twice as long may take for ever. */
	return now + outbox_cost(&s->outbox, OUTBOX_OF_LATE, s->outbox.outstanding + 1) <= end ||
	       now > end + mb->expected;
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

static bool choose(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
		   struct choice *ret)
{
	int64_t began = loop_now(s->loop);
	bool any = choose_due(s, group, c, start, ret);

	histogram_add(&group->first->ep->stats.plan, loop_now(s->loop) - began);
	return any;
}

enum tried {
	TRIED_DONE,   /* something was handed over or answered: look again */
	TRIED_NOT,    /* nothing of this task can run now */
	TRIED_NOTHING /* nor of others */
};

static enum tried try_due(struct sched *s, struct task *task, const struct contest *c, int64_t start)
{
	int64_t now = loop_now(s->loop);
	struct group group = group_of(task, now);
	struct choice choice;
	int r;

	if (!group.n && !choose_again(s, &group, c, start, &choice)) {
		release(&group);
		return TRIED_DONE;
	}
	if (!group.n || choose(s, &group, c, start, &choice)) {
		r = run(s, &group, c, &choice);
		if (r < 0 && r != -EAGAIN)
			dispatch_look_again(s, now + RUN_AGAIN_NS);
		return r > 0 || r == -EAGAIN ? TRIED_DONE : TRIED_NOTHING;
	}
	if (task->n_running == task->n_held && choose_is_hopeless(s, &group, start) && drop_some(s, task))
		return TRIED_DONE;
	if (!s->dispatch.timer)
		dispatch_look_again(s, now + LOOK_AGAIN_NS < task->due ? now + LOOK_AGAIN_NS : task->due);
	return TRIED_NOT;
}

/* All fits: the earliest deadline. */
static enum tried try_earliest(struct sched *s, const struct contest *c, int64_t start)
{
	struct dispatch *d = &s->dispatch;
	enum tried tried = TRIED_NOT;

	for (struct list *at = d->due.next; tried == TRIED_NOT && at != &d->due; at = at->next)
		tried = try_due(s, list_entry(at, struct task, link), c, start);
	return tried;
}

/* Not all fits: whose turn it is, and of that endpoint the earliest deadline. */
static enum tried try_in_turn(struct sched *s, const struct contest *c, int64_t start)
{
	enum tried tried = TRIED_NOT;
	struct endpoint *ep;

	fair_begin(s);
	while (tried == TRIED_NOT && (ep = fair_turn_due(s)))
		for (struct list *at = ep->lane.due.next; tried == TRIED_NOT && at != &ep->lane.due;
		     at = at->next)
			tried = try_due(s, list_entry(at, struct task, own), c, start);
	return tried;
}

/* Whose turn it is among those without a deadline, for at most so long if it has to be. */
static bool run_free(struct sched *s, const struct contest *c, bool alone, int64_t most)
{
	struct endpoint *ep;
	struct choice choice;
	struct group group;
	int r;

	fair_begin(s);
	ep = fair_turn_free(s, alone);
	if (!ep)
		return false;
	group = group_of(list_entry(ep->lane.free.next, struct task, own), 0);
	if (!group.n) { /* its deadline was taken away meanwhile */
		release(&group);
		return true;
	}
	choose_free(&group, most, &choice);
	r = run(s, &group, c, &choice);
	if (r < 0 && r != -EAGAIN)
		dispatch_look_again(s, loop_now(s->loop) + RUN_AGAIN_NS);
	return r > 0 || r == -EAGAIN;
}

/* Hands one mini-batch over. False: nothing to be done until something happens. */
static bool run_next(struct sched *s)
{
	struct dispatch *d = &s->dispatch;
	int64_t start = executor_free_at(s);
	struct contest c;
	enum tried tried;

	if (drop_overdue(s))
		return true;
	if (d->n_out >= PIPELINE)
		return false;
	c = fair_look(s, start);
	if (fair_is_free_turn(s, &c) && run_free(s, &c, true, c.slack))
		return true;
	tried = c.over ? try_in_turn(s, &c, start) : try_earliest(s, &c, start);
	return tried == TRIED_DONE || run_free(s, &c, false, INT64_MAX);
}

/* --- the executor's answers --- */

void dispatch_done(void *data, const struct batch_done *done)
{
	struct sched *s = data;
	struct dispatch *d = &s->dispatch;
	int64_t now = loop_now(s->loop), started;
	struct minibatch *mb = NULL;
	int i = 0;

	while (i < d->n_out && d->out[i]->id != done->batch)
		i++;
	if (i == d->n_out)
		return; /* nothing of ours */
	mb = d->out[i];
	memmove(&d->out[i], &d->out[i + 1], (d->n_out - i - 1) * sizeof(struct minibatch *));
	d->n_out--;
	started = mb->handed > d->last_done ? mb->handed : d->last_done;
	if (done->r == 0)
		fair_correct(mb, now - started);
	else if (d->dying) /* of the same death: it did not run */
		fair_correct(mb, 0);
	/* What the next one has to reckon with is the time between two answers, not the computing alone. */
	if (done->r == 0 && !mb->explains && mb->ep->ready)
		profile_measured(&mb->ep->profile, mb->submodel, mb->n, now - started);
	if (done->r == 0 && !mb->explains)
		caution_ran(&mb->ep->caution, mb->n);
	if (done->r == 0)
		d->last_done = now;
	if (!mb->ep->gone && !mb->explains && (done->r == 0 || !d->dying)) /* else it did not run */
		minibatch_note(mb, started, done);
	if (mb->ep->gone) {
		minibatch_abandon(mb);
	} else if (mb->explains) {
		pictures_done(s, mb, done);
	} else if (done->r < 0) {
		/* The first that is answered so ran; the other one of the same death still waited. */
		minibatch_blame(mb, !d->dying);
	} else {
		minibatch_answer(mb, done);
	}
	d->dying = done->r < 0;
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
	if (!d->n_out && !s->outbox.outstanding && s->ex && list_empty(&d->due))
		pictures_next(s);
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

bool dispatch_runs(const struct sched *s, const char *path)
{
	const struct minibatch *mb = s->dispatch.n_out ? s->dispatch.out[0] : NULL;

	for (int i = 0; mb && !mb->explains && i < mb->n; i++)
		if (mb->inst[i] && strcmp(mb->inst[i]->path, path) == 0)
			return true;
	return false;
}
