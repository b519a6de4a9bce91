/*
 * Where small tasks come faster than they can be done, the earliest deadline is always one that is almost over. There is time for a few
 * instances only, a mini-batch of few takes longer for each than a full one, and so even fewer are in time: half of what the device can do,
 * or less. Whom to give up there depends on what comes of it, so that is tried out on what waits (a rollout: Bertsekas, Tsitsiklis and Wu,
 * J. Heuristics 3, 1997): mini-batches on the fastest sub-model, one after the other, each from the earliest deadline on that leaves time for
 * at least
 *
 *	1, half of S, S instances
 *
 * What is before that is lost. By the first rule this mini-batch is the one that was chosen, from the earliest deadline on. The rule by
 * which the fewest are lost of all that wait says where it begins; of equals the first. So nobody is given up as long as all fits in the
 * order of deadlines.
 *
 * Other devices take what they would do meanwhile, and other endpoints their part of the time.
 */
#include "sched/shed.h"

#include "sched/choose_time.h"
#include "sched/fair.h"
#include "sched/internal.h"

#define MOST_OF_TASK 64 /* mini-batches; chosen: bounds the work */

struct trial {
	int64_t left
		[LOOK_AHEAD]; /* of each task that waits, from now to where its last mini-batch has to be done */
	double n[LOOK_AHEAD];
	double all;
	int n_tasks, batch;
	struct plan_submodel m;   /* the fastest that the policy lets run */
	struct plan_submodel out; /* the same until its answers are out, beyond the first one's */
	struct doubt doubt;
	double part;   /* of the device */
	double others; /* instances that other devices do in a ns */
};

static int64_t time_of(const struct trial *t, const struct plan_submodel *m, int k)
{
	return t->batch > 1 ? m->time_one_ns + (m->time_ns - m->time_one_ns) * (k - 1) / (t->batch - 1)
			    : m->time_ns;
}

/* What waits, as a mini-batch after the other is taken from it. */
struct queue {
	const struct trial *t;
	int first; /* task */
	double rest /* of it */, after, time;
};

static void next_task(struct queue *q)
{
	q->rest = ++q->first < q->t->n_tasks ? q->t->n[q->first] : 0;
}

static void run(struct queue *q, int k, int64_t ns)
{
	double done = k + q->t->others * (double)ns;

	q->time += (double)ns / q->t->part;
	q->after -= done;
	while (q->first < q->t->n_tasks && done >= q->rest) {
		done -= q->rest;
		next_task(q);
	}
	q->rest -= done;
}

/* How many are lost of those when mini-batches are to be of `least` at least, and with which task the first one begins; -1: there is none. */
static double lost_by(struct queue q, int least, int *ret_first)
{
	const struct trial *t = q.t;
	double lost = 0;

	*ret_first = -1;
	while (q.first < t->n_tasks) {
		int k = choose_most_in(&t->out, t->batch, &t->doubt, t->left[q.first] - (int64_t)q.time);

		if (k < 1 || (k < least && k < q.after)) {
			lost += q.rest;
			q.after -= q.rest;
			next_task(&q);
			continue;
		}
		if (*ret_first < 0)
			*ret_first = q.first;
		if (k > q.after)
			k = q.after > 1 ? (int)q.after : 1;
		run(&q, k, time_of(t, &t->m, k));
	}
	return lost;
}

/* The fastest of m that the policy lets run. */
static int fastest(const struct group *group, struct plan_submodel *m)
{
	const struct endpoint *ep = group->first->ep;
	struct plan_request request = {.n_submodels = ep->n_submodels,
				       .submodels = m,
				       .instances = (int64_t)group->n,
				       .batch = ep->spec.batch,
				       .deadline_ns = 1};
	int best = 0;

	choose_narrow(group, &request, m);
	for (int i = 1; i < ep->n_submodels; i++)
		if (m[i].time_ns < m[best].time_ns)
			best = i;
	return best;
}

struct task *shed_until(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
			const struct choice *choice)
{
	struct endpoint *ep = group->first->ep;
	struct task *task[LOOK_AHEAD];
	struct trial t = {.batch = ep->spec.batch, .part = fair_part(c, ep)};
	const int least[] = {t.batch / 2, t.batch};
	struct plan_submodel m[MAX_SUBMODELS], chosen;
	struct group one_only = *group;
	struct queue as_chosen;
	double fewest;
	int64_t left;
	int first = 0, begin;

	if (choice->k >= t.batch)
		return group->first;
	one_only.n = one_only.all = 1;
	one_only.held = 0;
	left = choose_time_left(s, &one_only, start, OUTBOX_OF_LATE) - group->due; /* and the deadline */
	for (struct list *at = &group->first->own; at != group->list && t.n_tasks < LOOK_AHEAD;
	     at = at->next) {
		struct task *one = list_entry(at, struct task, own);
		double most = MOST_OF_TASK * (double)t.batch;

		if (!one->n_queued)
			continue;
		t.left[t.n_tasks] = left + one->due;
		t.n[t.n_tasks] = (double)one->n_queued < most ? (double)one->n_queued : most;
		t.all += t.n[t.n_tasks];
		task[t.n_tasks++] = one;
	}
	if (t.n_tasks < 2)
		return group->first;
	choose_times(s, group, OUTBOX_OF_LATE, m);
	chosen = m[choice->submodel];
	t.m = t.out = m[fastest(group, m)];
	t.out.time_ns += outbox_cost(&s->outbox, OUTBOX_OF_LATE, (size_t)t.batch - 1);
	t.doubt = choose_doubt(group);
	t.others = 1 / fair_each(ep) - t.batch / (double)t.m.time_ns;
	if (t.others < 0)
		t.others = 0;
	as_chosen = (struct queue){.t = &t, .rest = t.n[0], .after = t.all};
	run(&as_chosen, choice->k, time_of(&t, &chosen, choice->k));
	fewest = lost_by(as_chosen, 1, &begin);
	for (size_t i = 0; i < sizeof(least) / sizeof(least[0]) && fewest > 0; i++) {
		double lost =
			lost_by((struct queue){.t = &t, .rest = t.n[0], .after = t.all}, least[i], &begin);

		if (begin >= 0 && lost < fewest) {
			fewest = lost;
			first = begin;
		}
	}
	return first > 0 ? task[first] : group->first;
}
