/*
 * Of several tasks the one with the earliest deadline runs; tasks of the same endpoint whose deadlines are
 * within a twentieth of the time left go with it, in shared mini-batches. How much of the time it may use
 * follows from the tasks behind it: with w_j the time task j takes on its slowest sub-model, task 1 gets
 *
 *	min over k of (D_k · w_1 ÷ Σ_{j≤k} w_j)
 *
 * the bottleneck rule of Yao, Demers and Shenker (FOCS'95): all tasks up to the tightest deadline are slowed
 * down, here narrowed, alike; but never less than it needs on the fastest sub-model.
 *
 * Kept free before a deadline: the publication of the last mini-batch, and twice the mean deviation of the
 * fastest mini-batch's time: near the deadline it is the one that is chosen. A sub-model counts with at least the
 * time that publishing its answers takes.
 *
 * A task is planned once with careful figures (outbox.h, profile_careful): that
 * plan is its promise, schedule.csv's planned_p_eff. What runs next is chosen each time with the figures of late: what
 * goes better than promised is used, and what goes worse is known soon.
 */
#include "sched/choose.h"
#include "sched/internal.h"
#include "sched/minibatch.h"

int64_t executor_free_at(struct sched *s)
{
	struct dispatch *d = &s->dispatch;
	int64_t now = loop_now(s->loop), at = now;

	for (int i = 0; i < d->n_out; i++) {
		const struct minibatch *mb = d->out[i];

		if (i == 0) {
			int64_t started = mb->handed > d->last_done ? mb->handed : d->last_done;

			at = started + mb->expected > now ? started + mb->expected : now;
		} else {
			at += mb->expected;
		}
	}
	return at;
}

static int64_t slowest(const struct endpoint *ep)
{
	const struct plan_submodel *m = profile_submodels(&ep->profile);
	int64_t t = 0;

	for (int i = 0; i < ep->n_submodels; i++)
		t = m[i].time_ns > t ? m[i].time_ns : t;
	return t;
}

static int64_t fastest(const struct endpoint *ep)
{
	const struct plan_submodel *m = profile_submodels(&ep->profile);
	int64_t t = INT64_MAX;

	for (int i = 0; i < ep->n_submodels; i++)
		t = m[i].time_ns < t ? m[i].time_ns : t;
	return t;
}

static double work_of(const struct task *task)
{
	/* A fraction, since small tasks share mini-batches. */
	return (double)task->n_queued / task->ep->spec.batch * (double)slowest(task->ep);
}

struct group group_of(struct list *list, struct task *first, int64_t now)
{
	struct group group = {.first = first, .due = first->due, .until = first->due};
	int seen = 0;

	if (first->due != INT64_MAX && first->due > now)
		group.until += (first->due - now) / 20;
	for (struct list *at = &first->link; at != list && seen < LOOK_AHEAD; at = at->next, seen++) {
		const struct task *task = list_entry(at, struct task, link);

		if (task->due > group.until)
			break;
		if (task->ep == first->ep)
			group.n += task->n_queued;
	}
	return group;
}

/* The time that a group may use of `whole` (up to its own deadline), seeing the tasks that come after it. */
static int64_t share_of(struct dispatch *d, const struct group *group, int64_t start, int64_t whole)
{
	double own = 0, sum = 0, share = (double)whole;
	int seen = 0;

	for (struct list *at = &group->first->link; at != &d->due && seen < LOOK_AHEAD;
	     at = at->next, seen++) {
		const struct task *task = list_entry(at, struct task, link);
		bool same = task->ep == group->first->ep && task->due <= group->until;

		sum += work_of(task);
		if (same)
			own += work_of(task);
		else if ((double)(task->due - start) * own / sum < share)
			share = (double)(task->due - start) * own / sum;
	}
	return (int64_t)share;
}

/* What sub-models cost when their answers can't be published as fast as they are computed. */
static int plan_times(struct sched *s, const struct endpoint *ep, enum outbox_view view,
		      struct plan_submodel *ret)
{
	const struct plan_submodel *m = profile_submodels(&ep->profile);
	int64_t publish = outbox_cost(&s->outbox, view, ep->spec.batch);
	int64_t one = outbox_cost(&s->outbox, view, 1);
	double reserve = view == OUTBOX_CAREFUL ? profile_careful(&ep->profile) : 1;

	for (int i = 0; i < ep->n_submodels; i++) {
		ret[i] = m[i];
		ret[i].time_ns = (int64_t)((double)m[i].time_ns * reserve);
		ret[i].time_one_ns = (int64_t)((double)m[i].time_one_ns * reserve);
		if (ret[i].time_ns < publish)
			ret[i].time_ns = publish;
		if (ret[i].time_one_ns < one)
			ret[i].time_one_ns = one;
	}
	return ep->n_submodels;
}

/* On which sub-model the task's mini-batches ran so far; -1: none did. */
static int begun_with(const struct task *task)
{
	for (int i = 0; i < task->ep->n_submodels; i++)
		if (task->n_real[i])
			return i;
	return -1;
}

/* Of the request's sub-models (m, borrowed by it) those that the endpoint's policy does not let run are as idle ones. */
static void narrow(const struct group *group, const struct plan_request *request, struct plan_submodel *m)
{
	policy_narrow(group->first->ep->spec.policy, request, begun_with(group->first), m);
}

/*
 * Time that the group has at the executor, which is free at `start`. Both the device and the publisher must
 * be done by then: the device early enough to publish the last mini-batch, the publisher with all that waits
 * for it or runs already (what the plan adds costs at least its publication, see plan_times).
 */
static int64_t time_left(struct sched *s, const struct group *group, int64_t start, enum outbox_view view)
{
	const struct endpoint *ep = group->first->ep;
	const struct outbox *box = &s->outbox;
	uint64_t last = group->n < (uint64_t)ep->spec.batch ? group->n : (uint64_t)ep->spec.batch;
	size_t on_the_way = box->outstanding;
	int64_t margin = outbox_margin(box, view), device, publisher;

	for (int i = 0; i < s->dispatch.n_out; i++)
		on_the_way += (size_t)s->dispatch.out[i]->n;
	margin += (int64_t)(2 * profile_spread(&ep->profile) * (double)fastest(ep));
	device = group->due - start - outbox_cost(box, view, last) - margin;
	publisher = group->due - loop_now(s->loop) - outbox_cost(box, view, on_the_way) - margin;
	return device < publisher ? device : publisher;
}

/*
 * Of the plan: full mini-batches first, the fastest first. When things go worse than planned, what is left then was to
 * be slow and can be made fast; were the fast ones left, instances would have to be dropped. When they go better, what is
 * left becomes slower still.
 */
static bool first_of_plan(const struct plan *plan, const struct plan_submodel *m, int n,
			  const struct group *group, int batch, struct choice *ret)
{
	int best = -1;

	for (int i = 0; i < n; i++) {
		int64_t full = plan->n[i] - (plan->partial == i);

		if (full > 0 && (best < 0 || m[i].time_ns < m[best].time_ns))
			best = i;
	}
	if (best >= 0) {
		*ret = (struct choice){.submodel = best,
				       .k = group->n < (uint64_t)batch ? (int)group->n : batch};
		return true;
	}
	if (plan->partial >= 0 && plan->n[plan->partial] > 0) {
		int rest = (int)(group->n % batch);

		*ret = (struct choice){.submodel = plan->partial, .k = rest ? rest : batch};
		return true;
	}
	return false;
}

/* No mini-batch of the plan's fits: as many instances as do, where that brings most. */
static bool squeeze(const struct plan_submodel *m, int n, const struct group *group, int batch, int64_t left,
		    struct choice *ret)
{
	double best = 0;

	for (int i = 0; i < n; i++) {
		int64_t k = batch;

		if (left < m[i].time_one_ns)
			continue;
		if (left < m[i].time_ns && m[i].time_ns > m[i].time_one_ns)
			k = 1 + (int64_t)((double)(left - m[i].time_one_ns) * (batch - 1) /
					  (double)(m[i].time_ns - m[i].time_one_ns));
		if (k > (int64_t)group->n)
			k = (int64_t)group->n;
		if (k > batch)
			k = batch;
		if ((double)k * m[i].accuracy > best) {
			best = (double)k * m[i].accuracy;
			*ret = (struct choice){.submodel = i, .k = (int)k};
		}
	}
	return best > 0;
}

/* The first plan of a task, for schedule.csv; what already ran (a moved deadline) counts as it did. */
static void note_plan(struct list *list, const struct group *group, const struct plan *plan)
{
	int seen = 0;

	for (struct list *at = &group->first->link; at != list && seen < LOOK_AHEAD; at = at->next, seen++) {
		struct task *task = list_entry(at, struct task, link);
		double part = (double)task->n_queued / (double)group->n;

		if (task->due > group->until)
			break;
		if (task->planned || task->ep != group->first->ep)
			continue;
		task->planned = true;
		task->method = plan->method;
		task->solve_ns = plan->solve_ns;
		task->planned_p_eff = (task->expected + plan->p_eff * task->n_queued) / task->total;
		for (int i = 0; i < MAX_SUBMODELS; i++)
			task->n_planned[i] = task->n_real[i] + (int64_t)((double)plan->n[i] * part + 0.5);
	}
}

static int most_accurate(const struct plan_submodel *m, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		if (m[i].accuracy > m[best].accuracy ||
		    (m[i].accuracy == m[best].accuracy && m[i].time_ns < m[best].time_ns))
			best = i;
	return best;
}

static bool is_noted(struct list *list, const struct group *group)
{
	int seen = 0;

	for (struct list *at = &group->first->link; at != list && seen < LOOK_AHEAD; at = at->next, seen++) {
		const struct task *task = list_entry(at, struct task, link);

		if (task->due > group->until)
			break;
		if (task->ep == group->first->ep && !task->planned)
			return false;
	}
	return true;
}

/* The time that the group may use, at most `left`. */
static int64_t time_used(struct sched *s, const struct group *group, const struct plan_submodel *m,
			 int64_t start, int64_t left)
{
	int batch = group->first->ep->spec.batch;
	int64_t least = INT64_MAX, share = share_of(&s->dispatch, group, start, left);

	for (int i = 0; i < group->first->ep->n_submodels; i++)
		least = m[i].time_ns < least ? m[i].time_ns : least;
	least *= (int64_t)((group->n + batch - 1) / batch);
	if (share < least)
		share = least;
	return share < left ? share : left;
}

static void promise(struct sched *s, const struct group *group, int64_t start)
{
	struct endpoint *ep = group->first->ep;
	struct plan_submodel m[MAX_SUBMODELS];
	int n = plan_times(s, ep, OUTBOX_CAREFUL, m);
	int64_t left = time_left(s, group, start, OUTBOX_CAREFUL);
	struct plan plan = {.partial = -1};
	struct plan_request request = {
		.n_submodels = n, .submodels = m, .instances = (int64_t)group->n, .batch = ep->spec.batch};

	if (left > 0) {
		request.deadline_ns = left;
		narrow(group, &request, m);
		request.deadline_ns = time_used(s, group, m, start, left);
		if (ep->spec.policy->plan(s->planner, &request, &plan) < 0)
			plan = (struct plan){.partial = -1};
	}
	note_plan(&s->dispatch.due, group, &plan);
}

bool choose_due(struct sched *s, const struct group *group, int64_t start, struct choice *ret)
{
	struct endpoint *ep = group->first->ep;
	struct plan_submodel m[MAX_SUBMODELS];
	int n = plan_times(s, ep, OUTBOX_OF_LATE, m), batch = ep->spec.batch;
	int64_t left = time_left(s, group, start, OUTBOX_OF_LATE);
	/* A wider slice gains a percent, an answer that is late loses all: only the last mini-batches, when no
	 * plan fits any more, use the time that is kept free for a stall. */
	int64_t safe =
		left - outbox_margin(&s->outbox, OUTBOX_CAREFUL) + outbox_margin(&s->outbox, OUTBOX_OF_LATE);
	struct plan plan = {.partial = -1};
	struct plan_request request = {
		.n_submodels = n, .submodels = m, .instances = (int64_t)group->n, .batch = batch};

	if (!is_noted(&s->dispatch.due, group))
		promise(s, group, start);
	if (left <= 0)
		return false;
	request.deadline_ns = safe > 0 ? safe : left;
	narrow(group, &request, m);
	if (safe <= 0)
		return squeeze(m, n, group, batch, left, ret);
	request.deadline_ns = time_used(s, group, m, start, safe);
	if (ep->spec.policy->plan(s->planner, &request, &plan) < 0)
		return squeeze(m, n, group, batch, left, ret);
	if (first_of_plan(&plan, m, n, group, batch, ret)) {
		/* Room for later tasks: where they would not run on a better sub-model anyway. */
		if (ret->k < batch && m[ret->submodel].time_ns <= left &&
		    (request.deadline_ns < safe || ret->submodel == most_accurate(m, n))) {
			ret->k = batch;
			ret->shared = true;
		}
		return true;
	}
	return squeeze(m, n, group, batch, left, ret);
}

/* What the profile says of those that may run. */
static void allowed(const struct group *group, int64_t deadline, struct plan_submodel *m)
{
	const struct endpoint *ep = group->first->ep;
	const struct plan_submodel *of = profile_submodels(&ep->profile);

	for (int i = 0; i < ep->n_submodels; i++)
		m[i] = of[i];
	narrow(group,
	       &(struct plan_request){.n_submodels = ep->n_submodels,
				      .submodels = m,
				      .instances = (int64_t)group->n,
				      .batch = ep->spec.batch,
				      .deadline_ns = deadline},
	       m);
}

bool choose_is_hopeless(struct sched *s, const struct group *group, int64_t start)
{
	const struct endpoint *ep = group->first->ep;
	struct plan_submodel m[MAX_SUBMODELS];
	int64_t least = INT64_MAX;

	allowed(group, group->due - start, m);
	for (int i = 0; i < ep->n_submodels; i++)
		least = m[i].time_one_ns < least ? m[i].time_one_ns : least;
	return start + least + outbox_margin(&s->outbox, OUTBOX_OF_LATE) > group->due;
}

void choose_free(struct sched *s, const struct group *group, struct choice *ret)
{
	const struct endpoint *ep = group->first->ep;
	struct plan_submodel m[MAX_SUBMODELS];
	struct plan plan = {.partial = -1, .method = PLAN_HULL};
	int best;

	allowed(group, INT64_MAX, m);
	best = most_accurate(m, ep->n_submodels);
	*ret = (struct choice){.submodel = best,
			       .k = group->n < (uint64_t)ep->spec.batch ? (int)group->n : ep->spec.batch};
	plan.p_eff = m[best].accuracy;
	plan.n[best] = (int64_t)((group->n + ep->spec.batch - 1) / ep->spec.batch);
	note_plan(&s->dispatch.free, group, &plan);
}
