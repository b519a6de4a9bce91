/*
 * Where small tasks come faster than they can be done, the earliest deadline is always one that is almost over. There is time for a few
 * instances only, a mini-batch of few takes longer for each than a full one, and so even fewer are in time: half of what the device can do,
 * or less. Whom to give up there depends on what comes of it, so that is tried out on what waits (a rollout: Bertsekas, Tsitsiklis and Wu,
 * J. Heuristics 3, 1997): mini-batches on the fastest sub-model, one after the other, each from the earliest deadline on that leaves time for
 * at least
 *
 *	1, half of S, S instances
 *
 * What is before that is lost. The rule by which the fewest are lost of all that wait says where this mini-batch begins; of equals the
 * first, the earliest deadline. So nobody is given up as long as all fits in that order.
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
	struct plan_submodel m; /* the fastest that the policy lets run */
	struct doubt doubt;
	double part;   /* of the device */
	double others; /* instances that other devices do in a ns */
};

static int64_t time_of(const struct trial *t, int k)
{
	return t->batch > 1 ? t->m.time_one_ns + (t->m.time_ns - t->m.time_one_ns) * (k - 1) / (t->batch - 1)
			    : t->m.time_ns;
}

/* How many are lost when mini-batches are to be of `least` at least, and with which task the first one begins; -1: there is none. */
static double lost_by(const struct trial *t, int least, int *ret_first)
{
	double after = t->all, rest = t->n[0], time = 0, lost = 0;
	int i = 0;

	*ret_first = -1;
	while (i < t->n_tasks) {
		int k = choose_most_in(&t->m, t->batch, &t->doubt, t->left[i] - (int64_t)time);
		double done;

		if (k < 1 || (k < least && k < after)) {
			lost += rest;
			after -= rest;
			rest = t->n[++i];
			continue;
		}
		if (*ret_first < 0)
			*ret_first = i;
		if (k > after)
			k = after > 1 ? (int)after : 1;
		time += (double)time_of(t, k) / t->part;
		done = k + t->others * (double)time_of(t, k);
		after -= done;
		while (i < t->n_tasks && done >= rest) {
			done -= rest;
			rest = t->n[++i];
		}
		rest -= done;
	}
	return lost;
}

static void fastest(struct sched *s, const struct group *group, struct plan_submodel *ret)
{
	const struct endpoint *ep = group->first->ep;
	struct plan_submodel m[MAX_SUBMODELS];
	struct plan_request request = {.n_submodels = choose_times(s, group, OUTBOX_OF_LATE, m),
				       .submodels = m,
				       .instances = (int64_t)group->n,
				       .batch = ep->spec.batch,
				       .deadline_ns = 1};

	choose_narrow(group, &request, m);
	*ret = m[0];
	for (int i = 1; i < ep->n_submodels; i++)
		if (m[i].time_ns < ret->time_ns)
			*ret = m[i];
}

struct task *shed_until(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
			const struct choice *choice)
{
	struct endpoint *ep = group->first->ep;
	struct task *task[LOOK_AHEAD];
	struct trial t = {.batch = ep->spec.batch, .part = fair_part(c, ep)};
	const int least[] = {1, t.batch / 2, t.batch};
	struct group full = *group;
	double fewest = 0;
	int64_t left;
	int first = 0;

	if (choice->k >= t.batch)
		return group->first;
	full.n = full.all = (uint64_t)t.batch;
	left = choose_time_left(s, &full, start, OUTBOX_OF_LATE) - group->due; /* and the deadline */
	for (struct list *at = &group->first->own; at != group->list && t.n_tasks < LOOK_AHEAD - 1;
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
	fastest(s, group, &t.m);
	t.doubt = choose_doubt(group);
	t.others = 1 / fair_each(ep) - t.batch / (double)t.m.time_ns;
	if (t.others < 0)
		t.others = 0;
	for (size_t i = 0; i < sizeof(least) / sizeof(least[0]) && (!i || fewest > 0); i++) {
		int begin;
		double lost = lost_by(&t, least[i], &begin);

		if (begin >= 0 && (!i || lost < fewest)) {
			fewest = lost;
			first = begin;
		}
	}
	return t.n_tasks && first > 0 ? task[first] : group->first;
}
