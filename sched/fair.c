/*
 * While all that has a deadline fits by its deadlines on the fastest sub-models, the earliest deadline runs first, whosever it is
 * (choose.c): nobody loses by that. When it does not fit, the earliest deadline would take everything, so then the device's time is
 * divided between the endpoints that have such work by their weights: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM'96) with
 * mini-batches for packets and time for bytes. With
 *
 *	S = F of its last mini-batch, at least v when it had no work	F = S + time ÷ weight	v = S of what was handed over last
 *
 * the smallest S is next. So as long as two endpoints have work their times ÷ weights differ by no more than one mini-batch of each
 * (their Theorem 1), however unequal these are. Who had no work begins at v: nothing is saved up. A mini-batch counts with what it is
 * expected to take until it is done, then with what it took. An endpoint may have work that can't run, another's mini-batch being longer
 * than its deadlines: it makes up for that, but for no more than CREDIT_NS. Within an endpoint the earliest deadline is first in any case.
 *
 * What has no deadline fills what is free. Were that all, it would never run beside an endpoint that uses all its time for larger
 * sub-models. So endpoints that have nothing else get at least FREE_SHARE of what their weights would give them with deadlines: the same
 * rule between both classes, and among themselves, by weight. While all fits their mini-batches are no longer than what the deadlines
 * leave (dispatch.c).
 *
 * Only what somebody else wanted to have, too, counts: an endpoint that was alone, or whose deadlines all fitted, owes nothing.
 *
 * Whether all fits is looked up in the first LOOK_AHEAD tasks. More than that wait only where tasks are small; and in an overload it is
 * the first ones that don't fit, since each is there until its deadline.
 */
#include "sched/fair.h"

#include "sched/choose.h"
#include "sched/internal.h"
#include "sched/minibatch.h"

#define FREE_SHARE 0.1            /* chosen */
#define CREDIT_NS  (NS_PER_S / 2) /* chosen: a few mini-batches */

void fair_init(struct fair *f)
{
	*f = (struct fair){0};
	list_init(&f->lanes);
}

void lane_init(struct lane *lane)
{
	*lane = (struct lane){0};
	list_init(&lane->link);
	list_init(&lane->due);
	list_init(&lane->free);
}

static void join(const struct fair_queue *q, struct fair_flow *flow)
{
	if (flow->end < q->now)
		flow->end = q->now;
}

/* --- lanes --- */

static bool comes_after(const struct task *a, const struct task *b)
{
	return a->due != b->due ? a->due > b->due : a->due == INT64_MAX && a->submitted > b->submitted;
}

void fair_put(struct sched *s, struct task *task)
{
	struct fair *f = &s->dispatch.fair;
	struct lane *lane = &task->ep->lane;
	bool free = task->due == INT64_MAX;
	struct list *list = free ? &lane->free : &lane->due, *at = list->prev;

	if (list_empty(list))
		join(free ? &f->free : &f->due, free ? &lane->of_free : &lane->of_due);
	/* Behind its equals. New ones belong at the end, or near it. */
	while (at != list && comes_after(list_entry(at, struct task, own), task))
		at = at->prev;
	list_insert_before(at->next, &task->own);
	if (list_empty(&lane->link))
		list_append(&f->lanes, &lane->link);
}

void fair_remove(struct task *task)
{
	struct lane *lane = &task->ep->lane;

	list_remove(&task->own);
	if (list_empty(&lane->due) && list_empty(&lane->free))
		list_remove(&lane->link);
}

static struct endpoint *endpoint_of(struct list *link)
{
	return list_entry(link, struct endpoint, lane.link);
}

/* --- whether all fits --- */

/* A full mini-batch on the fastest sub-model that the policy lets run. */
static int64_t least_on(const struct endpoint *ep, const struct served *on)
{
	struct plan_submodel m[MAX_SUBMODELS];
	int64_t least = INT64_MAX;

	/* Of a deadline that can't be met: the fastest, where the policy chooses at all. */
	choose_allowed(ep, on, 1, m);
	for (int i = 0; i < ep->n_submodels; i++)
		least = m[i].time_ns < least ? m[i].time_ns : least;
	return least;
}

static int64_t least_of(struct endpoint *ep)
{
	struct lane *lane = &ep->lane;
	int64_t publish = outbox_cost(&ep->s->outbox, OUTBOX_OF_LATE, (size_t)ep->spec.batch);
	uint64_t generation = served_generation(ep);

	if (lane->least_generation != generation || lane->least_policy != ep->spec.policy) {
		lane->least = served_together(ep, least_on);
		lane->least_generation = generation;
		lane->least_policy = ep->spec.policy;
	}
	return lane->least > publish ? lane->least : publish;
}

double fair_each(struct endpoint *ep)
{
	return (double)least_of(ep) / ep->spec.batch;
}

double fair_least(const struct task *task)
{
	return (double)task->n_queued * fair_each(task->ep);
}

static int64_t slack_of(struct sched *s, int64_t start)
{
	double sum = 0, slack = (double)INT64_MAX;
	int seen = 0;

	start += outbox_margin(&s->outbox, OUTBOX_OF_LATE);
	for (struct list *at = s->dispatch.due.next; at != &s->dispatch.due && seen < LOOK_AHEAD;
	     at = at->next, seen++) {
		const struct task *task = list_entry(at, struct task, link);

		sum += fair_least(task);
		if ((double)(task->due - start) - sum < slack)
			slack = (double)(task->due - start) - sum;
	}
	return slack < (double)INT64_MAX ? (int64_t)slack : INT64_MAX;
}

struct contest fair_look(struct sched *s, int64_t start)
{
	struct fair *f = &s->dispatch.fair;
	struct contest c = {.slack = INT64_MAX};

	list_each(link, &f->lanes)
	{
		const struct endpoint *ep = endpoint_of(link);
		bool due = !list_empty(&ep->lane.due), free = !list_empty(&ep->lane.free);

		if (!ep->ready)
			continue;
		c.n_due += due;
		c.n_free += free;
		if (due)
			c.due += ep->spec.weight;
		else
			c.free += FREE_SHARE * ep->spec.weight;
	}
	if (c.due > 0 && !f->has_due)
		join(&f->classes, &f->of_due);
	if (c.free > 0 && !f->has_free)
		join(&f->classes, &f->of_free);
	f->has_due = c.due > 0;
	f->has_free = c.free > 0;
	/* Alone there is nothing to be divided. */
	if (c.n_due > 1 || (c.n_due && c.free > 0))
		c.slack = slack_of(s, start);
	c.over = c.slack < 0;
	return c;
}

double fair_part(const struct contest *c, const struct endpoint *ep)
{
	return (c->over ? ep->spec.weight : c->due) / (c->due + c->free);
}

/* --- turns --- */

static double start_of(const struct fair_queue *q, const struct fair_flow *flow, double weight)
{
	double least = q->now - (double)CREDIT_NS / weight;

	return flow->end > least ? flow->end : least;
}

bool fair_is_free_turn(const struct sched *s, const struct contest *c)
{
	const struct fair *f = &s->dispatch.fair;

	return c->due > 0 && c->free > 0 &&
	       start_of(&f->classes, &f->of_free, c->free) < start_of(&f->classes, &f->of_due, c->due);
}

void fair_begin(struct sched *s)
{
	s->dispatch.fair.round++;
}

/* Of equals the one with the earlier deadline; without, the one that waits for longer. */
static bool is_before(const struct lane *a, const struct lane *b, bool free)
{
	const struct task *x = list_entry(free ? a->free.next : a->due.next, struct task, own),
			  *y = list_entry(free ? b->free.next : b->due.next, struct task, own);

	return comes_after(y, x);
}

static struct endpoint *turn(struct device *device, bool free, bool alone)
{
	struct sched *s = device->s;
	struct fair *f = &s->dispatch.fair;
	struct endpoint *best = NULL;
	double best_start = 0;

	list_each(link, &f->lanes)
	{
		struct endpoint *ep = endpoint_of(link);
		struct lane *lane = &ep->lane;
		double start = start_of(free ? &f->free : &f->due, free ? &lane->of_free : &lane->of_due,
					ep->spec.weight);

		if (!ep->on[device->number].ready || lane->tried == f->round ||
		    list_empty(free ? &lane->free : &lane->due) || (alone && !list_empty(&lane->due)))
			continue;
		if (!best || start < best_start ||
		    (start == best_start && is_before(lane, &best->lane, free))) {
			best = ep;
			best_start = start;
		}
	}
	if (best)
		best->lane.tried = f->round;
	return best;
}

struct endpoint *fair_turn_due(struct device *device)
{
	return turn(device, false, false);
}

struct endpoint *fair_turn_free(struct device *device, bool alone)
{
	return turn(device, true, alone);
}

/* --- what it costs --- */

static struct fair_bill charge(struct fair_queue *q, struct fair_flow *flow, int64_t ns, double weight)
{
	double start = start_of(q, flow, weight);

	q->now = start > q->now ? start : q->now;
	flow->end = start + (double)ns / weight;
	return (struct fair_bill){flow, weight};
}

void fair_charge(struct sched *s, const struct contest *c, struct minibatch *mb, bool free)
{
	struct fair *f = &s->dispatch.fair;
	struct lane *lane = &mb->ep->lane;
	double weight = mb->ep->spec.weight;

	if (c->due > 0 && c->free > 0)
		mb->bill[0] = charge(&f->classes, free ? &f->of_free : &f->of_due, mb->expected,
				     free ? c->free : c->due);
	if (free && c->n_free > 1)
		mb->bill[1] = charge(&f->free, &lane->of_free, mb->expected, weight);
	else if (!free && c->over)
		mb->bill[1] = charge(&f->due, &lane->of_due, mb->expected, weight);
}

void fair_correct(const struct minibatch *mb, int64_t took)
{
	for (int i = 0; i < 2; i++)
		if (mb->bill[i].flow)
			mb->bill[i].flow->end += (double)(took - mb->expected) / mb->bill[i].weight;
}
