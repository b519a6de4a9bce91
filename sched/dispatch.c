/*
 * What runs next. Two mini-batches are at the executor at a time; whenever there is room for one, it is
 * chosen anew from what is queued and from the time there is by now. So a plan is never followed blindly:
 * its first mini-batch is taken, and the rest is planned again with what that one really took. With exact
 * times the next plan is the rest of the last one.
 *
 * Which sub-model and how many instances: choose.c; their contents and answers: minibatch.c. Tasks without a deadline fill what is free.
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
	list_init(&d->due);
	list_init(&d->free);
	list_init(&d->due_asleep);
	list_init(&d->free_asleep);
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
}

void dispatch_task_less(struct task *task)
{
	if (!task->n_queued && !task->n_held)
		dispatch_task_gone(task);
}

static bool comes_after(const struct task *a, const struct task *b)
{
	return a->due != b->due ? a->due > b->due : a->due == INT64_MAX && a->submitted > b->submitted;
}

/* Behind its equals. New ones belong at the end, or near it. */
static void insert(struct list *list, struct task *task)
{
	struct list *at = list->prev;

	while (at != list && comes_after(list_entry(at, struct task, link), task))
		at = at->prev;
	list_insert_before(at->next, &task->link);
}

void dispatch_task(struct sched *s, struct task *task)
{
	struct dispatch *d = &s->dispatch;

	list_remove(&task->link);
	if (task->n_queued || task->n_held) {
		if (task->due == INT64_MAX)
			insert(task->ep->ready ? &d->free : &d->free_asleep, task);
		else
			insert(task->ep->ready ? &d->due : &d->due_asleep, task);
	}
	dispatch_kick(s);
}

static void move_tasks(const struct endpoint *ep, struct list *from, struct list *to)
{
	list_each(link, from)
	{
		struct task *task = list_entry(link, struct task, link);

		if (task->ep != ep)
			continue;
		list_remove(link);
		insert(to, task);
	}
}

void dispatch_set_ready(struct endpoint *ep, bool ready)
{
	struct dispatch *d = &ep->s->dispatch;

	if (ready == ep->ready)
		return;
	ep->ready = ready;
	if (!ready)
		cascade_release_all(ep); /* while its sub-models are those that answered */
	move_tasks(ep, ready ? &d->due_asleep : &d->due, ready ? &d->due : &d->due_asleep);
	move_tasks(ep, ready ? &d->free_asleep : &d->free, ready ? &d->free : &d->free_asleep);
	if (ready)
		dispatch_kick(ep->s);
}

/* --- running --- */

/* 1: something was handed over or answered; 0: not now. */
static int run(struct sched *s, struct list *list, const struct group *group, const struct choice *choice)
{
	struct dispatch *d = &s->dispatch;
	struct endpoint *ep = group->first->ep;
	struct minibatch *mb = minibatch_new(s, ep, choice->k);
	struct instance_input *in = calloc(choice->k, sizeof(*in));
	int r = -ENOMEM;

	if (!mb || !in)
		goto out;
	if (choice->again)
		minibatch_fill_again(s, list, group, choice, mb, in);
	else
		minibatch_fill(s, list, group, choice, mb, in);
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

/* Drops some of a task's queue, or waits until there is room for such publications. */
static bool drop_some(struct sched *s, struct task *task)
{
	enum err_code code = task->ep->state == ENDPOINT_STOPPED || task->ep->state == ENDPOINT_FAILED
				     ? ERR_STOPPED
				     : ERR_NO_TIME;
	struct instance *inst;
	bool any = false;

	while (s->outbox.outstanding < MAX_DROPS && (inst = task_next(task))) {
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
			list_remove(&task->link);
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
static void release(struct list *list, const struct group *group)
{
	struct list *at = &group->first->link;
	int seen = 0;

	while (at != list && seen++ < LOOK_AHEAD) {
		struct task *task = list_entry(at, struct task, link);

		at = at->next; /* the task leaves the list */
		if (task->due > group->until)
			break;
		if (task->ep == group->first->ep)
			cascade_release(task);
	}
}

static bool choose(struct sched *s, const struct group *group, int64_t start, struct choice *ret)
{
	int64_t began = loop_now(s->loop);
	bool any = choose_due(s, group, start, ret);

	histogram_add(&group->first->ep->stats.plan, loop_now(s->loop) - began);
	return any;
}

/* Hands one mini-batch over. 1: look again; 0: nothing to be done until something happens. */
static int next_due(struct sched *s)
{
	struct dispatch *d = &s->dispatch;
	int64_t now = loop_now(s->loop), start = executor_free_at(s);

	if (drop_overdue(s))
		return 1;
	if (d->n_out >= PIPELINE)
		return 0;
	for (struct list *at = d->due.next; at != &d->due; at = at->next) {
		struct task *task = list_entry(at, struct task, link);
		struct choice choice;
		struct group group;
		int r;

		group = group_of(&d->due, task, now);
		if (!group.n && !choose_again(s, &group, start, &choice)) {
			release(&d->due, &group);
			return 1;
		}
		if (!group.n || choose(s, &group, start, &choice)) {
			r = run(s, &d->due, &group, &choice);
			if (r < 0 && r != -EAGAIN)
				dispatch_look_again(s, now + RUN_AGAIN_NS);
			return r > 0 || r == -EAGAIN;
		}
		if (task->n_running == task->n_held && choose_is_hopeless(s, &group, start) &&
		    drop_some(s, task))
			return 1;
		if (!d->timer)
			dispatch_look_again(s, now + LOOK_AGAIN_NS < task->due ? now + LOOK_AGAIN_NS
									       : task->due);
	}
	return 0;
}

static int next_free(struct sched *s)
{
	struct dispatch *d = &s->dispatch;

	struct choice choice;
	struct group group;
	int r;

	if (d->n_out >= PIPELINE || list_empty(&d->free))
		return 0;
	group = group_of(&d->free, list_entry(d->free.next, struct task, link), 0);
	if (!group.n) { /* its deadline was taken away meanwhile */
		release(&d->free, &group);
		return 1;
	}
	choose_free(s, &group, &choice);
	r = run(s, &d->free, &group, &choice);
	if (r < 0 && r != -EAGAIN)
		dispatch_look_again(s, loop_now(s->loop) + RUN_AGAIN_NS);
	return r > 0 || r == -EAGAIN;
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
	/* What the next one has to reckon with is the time between two answers, not the computing alone. */
	if (done->r == 0 && !mb->explains && mb->ep->ready)
		profile_measured(&mb->ep->profile, mb->submodel, mb->n, now - started);
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
	while (s->outbox.outstanding < MAX_UNPUBLISHED && (next_due(s) || next_free(s)))
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
