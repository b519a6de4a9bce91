/*
 * Of several tasks the one with the earliest deadline runs; tasks of the same endpoint whose deadlines are
 * within a twentieth of the time left go with it, in shared mini-batches. How much of the time it may use
 * follows from the tasks behind it: with w_j the time task j takes on its slowest sub-model, task 1 gets
 *
 *	min over k of (D_k · w_1 ÷ Σ_{j≤k} w_j)
 *
 * the bottleneck rule of Yao, Demers and Shenker (FOCS'95): all tasks up to the tightest deadline are slowed
 * down, here narrowed, alike; but never less than it needs on the fastest sub-model. Where that doesn't fit, or tasks without a
 * deadline have their part, it is of the part that fair.c leaves: of an endpoint's own tasks and what its weight gives it.
 *
 * Kept free before a deadline: the publication of the last mini-batch, and for what is at the executor and the last mini-batch to take longer
 * than they should: caution.h has the formula and how it is learnt. Which one will be the last is known when no other is left: until then it
 * counts as the fastest, since near the deadline a plan can still become faster, and then each sub-model counts with its own reserve.
 * A sub-model counts with at least the time that publishing its answers takes.
 *
 * A task is planned once with careful figures (outbox.h, profile_careful): that
 * plan is its promise, schedule.csv's planned_p_eff. What runs next is chosen each time with the figures of late: what
 * goes better than promised is used, and what goes worse is known soon.
 */
#include "sched/choose.h"
#include "sched/internal.h"
#include "sched/minibatch.h"
#include "sched/split.h"

#include <math.h>
#include <string.h>

static int64_t slowest(const struct endpoint *ep, const struct served *on)
{
	const struct plan_submodel *m = profile_submodels(&on->profile);
	int64_t t = 0;

	for (int i = 0; i < ep->n_submodels; i++)
		t = m[i].time_ns > t ? m[i].time_ns : t;
	return t;
}

int64_t choose_fastest(const struct endpoint *ep, const struct served *on)
{
	const struct plan_submodel *m = profile_submodels(&on->profile);
	int64_t t = INT64_MAX;

	for (int i = 0; i < ep->n_submodels; i++)
		t = m[i].time_ns < t ? m[i].time_ns : t;
	return t;
}

double choose_most(const struct task *task)
{
	/* A fraction, since small tasks share mini-batches. */
	return (double)(task->n_queued + task->n_held) / task->ep->spec.batch *
	       (double)served_together(task->ep, slowest);
}

/* What its endpoint is on the device that it is looked at for. */
static const struct served *served_of(const struct group *group)
{
	return &group->first->ep->on[group->device->number];
}

struct group group_of(struct device *device, struct task *first, int64_t now)
{
	struct lane *lane = &first->ep->lane;
	struct group group = {.device = device,
			      .list = first->due == INT64_MAX ? &lane->free : &lane->due,
			      .first = first,
			      .due = first->due,
			      .until = first->due};
	int seen = 0;

	if (first->due != INT64_MAX && first->due > now)
		group.until += (first->due - now) / 20;
	for (struct list *at = &first->own; at != group.list && seen < LOOK_AHEAD; at = at->next, seen++) {
		const struct task *task = list_entry(at, struct task, own);

		if (task->due > group.until)
			break;
		group.n += task->n_queued;
		group.held += task->n_held;
	}
	group.all = group.n;
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

		sum += choose_most(task);
		if (same)
			own += choose_most(task);
		else if ((double)(task->due - start) * own / sum < share)
			share = (double)(task->due - start) * own / sum;
	}
	return (int64_t)share;
}

/* The same where each endpoint has a part of the device for itself: of what is the endpoint's alone. */
static int64_t share_of_own(const struct group *group, double part, int64_t start, int64_t whole)
{
	double own = 0, sum = 0, share = part * (double)whole;
	int seen = 0;

	for (struct list *at = &group->first->own; at != group->list && seen < LOOK_AHEAD;
	     at = at->next, seen++) {
		const struct task *task = list_entry(at, struct task, own);

		sum += choose_most(task);
		if (task->due <= group->until)
			own += choose_most(task);
		else if (part * (double)(task->due - start) * own / sum < share)
			share = part * (double)(task->due - start) * own / sum;
	}
	return (int64_t)share;
}

/* How many mini-batches of the group, of other devices too, are published in the time in which its device computes one. */
static double side_by_side(const struct group *group)
{
	const struct endpoint *ep = group->first->ep;
	double own = (double)choose_fastest(ep, served_of(group)), n = 0;
	uint64_t count = group->all / (uint64_t)ep->spec.batch;

	for (int i = 0; i < ep->s->n_devices; i++)
		if (ep->on[i].ready)
			n += own / (double)choose_fastest(ep, &ep->on[i]);
	return fmax(fmin(n, (double)count), 1);
}

/* What sub-models cost when their answers can't be published as fast as they are computed. */
static int plan_times(struct sched *s, const struct group *group, enum outbox_view view,
		      struct plan_submodel *ret)
{
	const struct endpoint *ep = group->first->ep;
	const struct profile *profile = &served_of(group)->profile;
	const struct plan_submodel *m = profile_submodels(profile);
	int64_t publish =
		(int64_t)(side_by_side(group) * (double)outbox_cost(&s->outbox, view, ep->spec.batch));
	int64_t one = outbox_cost(&s->outbox, view, 1);
	double reserve = view == OUTBOX_CAREFUL ? profile_careful(profile) : 1;

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

/* Of what is at the group's device, and of the endpoint's next mini-batch there. */
static struct doubt doubt_of(const struct group *group)
{
	const struct device *device = group->device;
	struct doubt doubt = {.z = caution_deviations(&group->first->ep->caution),
			      .deviation = profile_deviation(&served_of(group)->profile)};

	for (int i = 0; i < device->n_out; i++) {
		const struct minibatch *mb = device->out[i];
		double off = profile_deviation(&mb->ep->on[device->number].profile) * (double)mb->expected;

		doubt.squares += off * off;
	}
	return doubt;
}

/*
 * Time that the group has at its device, which is free at `start`. Both the device and the publisher must
 * be done by then: the device early enough to publish the last mini-batch, the publisher with all that waits
 * for it or runs already (what the plan adds costs at least its publication, see plan_times).
 */
int64_t choose_time_left(struct sched *s, const struct group *group, int64_t start, enum outbox_view view)
{
	const struct endpoint *ep = group->first->ep;
	const struct outbox *box = &s->outbox;
	const struct minibatch *mb;
	uint64_t all = group->n + group->held,
		 last = all < (uint64_t)ep->spec.batch ? all : (uint64_t)ep->spec.batch;
	size_t on_the_way = box->outstanding + group->held;
	struct doubt doubt = doubt_of(group);
	int64_t margin = outbox_margin(box, view), device, publisher;

	for (int i = 0; (mb = devices_out(s, i)); i++)
		on_the_way += (size_t)mb->n;
	margin += doubt_before(&doubt);
	device = group->due - start - outbox_cost(box, view, last) - margin;
	publisher = group->due - loop_now(s->loop) - outbox_cost(box, view, on_the_way) - margin;
	return device < publisher ? device : publisher;
}

/*
 * Of the plan: full mini-batches first, the fastest first. When things go worse than planned, what is left then was to
 * be slow and can be made fast; were the fast ones left, instances would have to be dropped. When they go better, what is
 * left becomes slower still.
 */
static bool first_of_plan(const struct plan *plan, const struct plan_family *f, uint64_t instances, int batch,
			  struct choice *ret)
{
	int best = -1, k = instances < (uint64_t)batch ? (int)instances : batch;

	for (int i = 0; i < f->n; i++) {
		int64_t full = plan->n[i] - (plan->partial == i);

		if (full > 0 && (best < 0 || f->m[i].time_ns < f->m[best].time_ns))
			best = i;
	}
	if (best < 0 && plan->partial >= 0 && plan->n[plan->partial] > 0) {
		best = plan->partial;
		k = instances % (uint64_t)batch ? (int)(instances % (uint64_t)batch) : batch;
	}
	if (best < 0)
		return false;
	*ret = (struct choice){.submodel = f->of[best].first, .k = k, .of = f->of[best]};
	return true;
}

/* How many instances of a mini-batch the sub-model does in that time, reserve included. */
static int most_in(const struct plan_submodel *m, int batch, const struct doubt *doubt, int64_t time)
{
	int64_t one = m->time_one_ns + doubt_own(doubt, m->time_one_ns),
		full = m->time_ns + doubt_own(doubt, m->time_ns);

	if (time < one)
		return 0;
	if (time >= full || full <= one)
		return batch;
	/* Between them the reserve bends down, so what it takes is no more than this. */
	return 1 + (int)((double)(time - one) * (batch - 1) / (double)(full - one));
}

/* No mini-batch of the plan's fits: as many instances as do, where that brings most. */
static bool squeeze(const struct endpoint *ep, const struct plan_family *f, const struct doubt *doubt,
		    uint64_t instances, int64_t left, struct choice *ret)
{
	const struct plan_submodel *m = f->m;
	int batch = ep->spec.batch;
	double best = 0;

	for (int i = 0; i < ep->n_submodels; i++) {
		int k = most_in(&m[i], batch, doubt, left);

		if ((uint64_t)k > instances)
			k = (int)instances;
		if ((double)k * m[i].accuracy > best) {
			best = (double)k * m[i].accuracy;
			*ret = (struct choice){.submodel = i, .k = k, .of = f->of[i]};
		}
	}
	return best > 0;
}

/* Plans of all devices that have a part of a group. */
struct promise {
	double n[MAX_SUBMODELS]; /* mini-batches */
	double p_eff;
	enum plan_method method;
	int64_t solve_ns;
};

/* part: of the group's instances. So p_eff becomes the global one (SINGA-Easy, MM'21, section 3.2). */
static void add_plan(struct promise *ret, const struct plan *plan, const struct plan_family *f, double part)
{
	for (int i = 0; i < f->n; i++) {
		ret->n[f->of[i].first] += (double)plan->n[i];
		if (f->of[i].then >= 0)
			ret->n[f->of[i].then] += (double)plan->n[i] * (double)cascade_shares[f->of[i].point];
	}
	ret->p_eff += part * plan->p_eff;
	ret->method = plan->method;
	ret->solve_ns += plan->solve_ns;
}

/* The first plan of a task, for schedule.csv; what already ran (a moved deadline) counts as it did. */
static void note_plan(const struct group *group, const struct promise *plan)
{
	int seen = 0;

	for (struct list *at = &group->first->own; at != group->list && seen < LOOK_AHEAD;
	     at = at->next, seen++) {
		struct task *task = list_entry(at, struct task, own);
		double part = (double)task->n_queued / (double)group->n;

		if (task->due > group->until)
			break;
		if (task->planned)
			continue;
		task->planned = true;
		task->method = plan->method;
		task->solve_ns = plan->solve_ns;
		task->planned_p_eff = (task->expected + plan->p_eff * task->n_queued) / task->total;
		for (int i = 0; i < MAX_SUBMODELS; i++)
			task->n_planned[i] = task->n_real[i] + (int64_t)(plan->n[i] * part + 0.5);
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

static bool is_noted(const struct group *group)
{
	int seen = 0;

	for (struct list *at = &group->first->own; at != group->list && seen < LOOK_AHEAD;
	     at = at->next, seen++) {
		const struct task *task = list_entry(at, struct task, own);

		if (task->due > group->until)
			break;
		if (!task->planned)
			return false;
	}
	return true;
}

/* So many instances by the fastest; the last mini-batch counts as what it is. */
static int64_t least_time(const struct endpoint *ep, const struct plan_submodel *m, uint64_t instances)
{
	int64_t least = INT64_MAX, batch = ep->spec.batch, full = (int64_t)instances / batch,
		rest = (int64_t)instances % batch, time;

	for (int i = 0; i < ep->n_submodels; i++) {
		time = full * m[i].time_ns;
		if (rest) /* to the nanosecond as a plan has it, which is to fit into this; a day × 1024 fits int64_t */
			time += m[i].time_one_ns +
				(m[i].time_ns - m[i].time_one_ns) * (rest - 1) / (batch - 1);
		least = time < least ? time : least;
	}
	return least;
}

/*
 * The time that the group may use, at most `left`. In an overload that may not be enough for all of it even on the fastest sub-model;
 * then this is what runs next, being what gives most in a time, but no promise is made for more than there will be.
 */
static int64_t time_used(struct sched *s, const struct group *group, const struct contest *c,
			 enum outbox_view view, const struct plan_submodel *m, int64_t start, int64_t left)
{
	double part = fair_part(c, group->first->ep);
	int64_t least = least_time(group->first->ep, m, group->n), most = left, share;

	if (c->over)
		share = share_of_own(group, part, start, left);
	else
		share = (int64_t)(part * (double)share_of(&s->dispatch, group, start, left));
	if (c->over && view == OUTBOX_CAREFUL)
		most = (int64_t)(part * (double)left);
	if (share < least)
		share = least;
	return share < most ? share : most;
}

/* The reserve for the group's last mini-batch: in the times, which *doubt then knows nothing more of, or out of `deadline`. */
static int64_t reserve(const struct group *group, struct doubt *doubt, int64_t deadline,
		       struct plan_submodel *m)
{
	const struct endpoint *ep = group->first->ep;

	if (group->n + group->held > (uint64_t)ep->spec.batch) {
		deadline -= doubt_own(doubt, choose_fastest(ep, served_of(group)));
		return deadline > 1 ? deadline : 1;
	}
	for (int i = 0; i < ep->n_submodels; i++) {
		m[i].time_ns += doubt_own(doubt, m[i].time_ns);
		m[i].time_one_ns += doubt_own(doubt, m[i].time_one_ns);
	}
	doubt->deviation = 0;
	return deadline;
}

/* What a plan may use, of times with everything that view counts, and the time there is for it. */
static int64_t prepare(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
		       enum outbox_view view, int64_t deadline, struct plan_family *f, struct doubt *doubt)
{
	struct endpoint *ep = group->first->ep;
	struct plan_request request = {.n_submodels = plan_times(s, group, view, f->m),
				       .submodels = f->m,
				       .instances = (int64_t)(group->n + group->held),
				       .batch = ep->spec.batch,
				       .deadline_ns = deadline};

	*doubt = doubt_of(group);
	deadline = reserve(group, doubt, deadline, f->m);
	narrow(group, &request, f->m);
	f->n = ep->n_submodels;
	for (int i = 0; i < f->n; i++)
		f->of[i] = (struct cascade){i, -1, 0};
	deadline = time_used(s, group, c, view, f->m, start, deadline);
	if (ep->spec.policy->cascades && group->due != INT64_MAX)
		cascade_family(ep, f,
			       (int64_t)(side_by_side(group) *
					 (double)outbox_cost(&s->outbox, view, (size_t)ep->spec.batch)),
			       outbox_cost(&s->outbox, view, 1));
	return deadline;
}

/* Of `deadline` what is left to those that did not run yet, when those that are held run again as it was planned; but
 * never less than they need. */
static int64_t keep_for_held(const struct group *group, const struct plan_family *f, int64_t deadline)
{
	const struct endpoint *ep = group->first->ep;
	int64_t least = least_time(ep, f->m, group->n), again = 0;

	if (!group->held)
		return deadline;
	for (struct list *at = &group->first->own; at != group->list; at = at->next) {
		const struct instance *inst = cascade_least(list_entry(at, struct task, own));

		if (!inst)
			continue;
		again = (int64_t)((double)group->held / ep->spec.batch *
				  (double)f->m[inst->held->of.then].time_ns);
		break;
	}
	if (deadline - again >= least)
		return deadline - again;
	return deadline < least ? deadline : least;
}

static int plan_with(struct sched *s, const struct endpoint *ep, const struct plan_family *f,
		     uint64_t instances, int64_t deadline, struct plan *ret)
{
	return ep->spec.policy->plan(s->planner,
				     &(struct plan_request){.n_submodels = f->n,
							    .submodels = f->m,
							    .instances = (int64_t)instances,
							    .batch = ep->spec.batch,
							    .deadline_ns = deadline},
				     ret);
}

/* Of `time` what so many instances are promised. */
static int64_t promised_time(const struct group *group, int64_t time, uint64_t instances)
{
	const struct endpoint *ep = group->first->ep;
	const struct served *on = served_of(group);
	struct doubt doubt = doubt_of(group);
	double all = (double)time * (1 - caution_unpromised(&ep->caution)),
	       each = all / ceil((double)instances / ep->spec.batch);

	if (time <= 0)
		return time;
	each = fmin(fmax(each, (double)choose_fastest(ep, on)), (double)slowest(ep, on));
	return (int64_t)all - doubt_sum(&doubt, all, each);
}

/* The time that is kept free for a stall may be used by the last mini-batches only, when no plan fits any more: a wider slice gains a
 * percent, an answer that is late loses all. */
static int64_t safely(struct sched *s, int64_t left)
{
	return left - outbox_margin(&s->outbox, OUTBOX_CAREFUL) + outbox_margin(&s->outbox, OUTBOX_OF_LATE);
}

int64_t choose_time_planned(struct sched *s, const struct group *group, const struct group *own,
			    const struct contest *c, enum outbox_view view, struct plan_family *f)
{
	struct group whole = *group;
	struct doubt doubt;
	int64_t start = own->device == group->device ? device_free_at(own->device)
						     : device_reckoned_at(own->device),
		left, safe, deadline;

	whole.device = own->device;
	left = choose_time_left(s, &whole, start, view);
	if (view == OUTBOX_CAREFUL)
		left = promised_time(own, left, own->n);
	safe = view == OUTBOX_OF_LATE ? safely(s, left) : left;
	deadline = prepare(s, own, c, start, view, safe > 0 ? safe : left > 0 ? left : 0, f, &doubt);
	return left > 0 ? keep_for_held(own, f, deadline) : 0;
}

static void promise(struct sched *s, const struct group *group, const struct contest *c)
{
	struct group own[MAX_DEVICES];
	struct promise sum = {0};

	split(s, group, c, OUTBOX_CAREFUL, own);
	for (int i = 0; i < s->n_devices; i++) {
		struct plan plan = {.partial = -1};
		struct plan_family f;
		int64_t time;

		if (!own[i].n)
			continue;
		time = choose_time_planned(s, group, &own[i], c, OUTBOX_CAREFUL, &f);
		if (time <= 0 || plan_with(s, group->first->ep, &f, own[i].n, time, &plan) < 0)
			plan = (struct plan){.partial = -1};
		add_plan(&sum, &plan, &f, (double)own[i].n / (double)group->n);
	}
	note_plan(group, &sum);
}

/* The part of the group's device; where all devices together have no time for a full mini-batch each has all of it. */
static enum chosen take_part(struct sched *s, const struct group *group, const struct contest *c,
			     struct group *ret)
{
	struct group own[MAX_DEVICES];
	bool others = false;

	split(s, group, c, OUTBOX_OF_LATE, own);
	for (int i = 0; i < s->n_devices; i++)
		others |= own[i].n > 0;
	*ret = others ? own[group->device->number] : *group;
	return ret->n ? CHOSEN : CHOSEN_OTHERS;
}

enum chosen choose_due(struct sched *s, const struct group *whole, const struct contest *c, int64_t start,
		       struct choice *ret)
{
	const struct endpoint *ep = whole->first->ep;
	int64_t left = choose_time_left(s, whole, start, OUTBOX_OF_LATE), deadline;
	int64_t safe = safely(s, left);
	struct group part, *group = &part;
	struct plan plan;
	struct plan_family f;
	struct doubt doubt;

	if (!is_noted(whole))
		promise(s, whole, c);
	if (left <= 0)
		return CHOSEN_NOTHING;
	if (take_part(s, whole, c, &part) == CHOSEN_OTHERS)
		return CHOSEN_OTHERS;
	deadline = prepare(s, group, c, start, OUTBOX_OF_LATE, safe > 0 ? safe : left, &f, &doubt);
	if (safe <= 0 || plan_with(s, ep, &f, group->n, keep_for_held(group, &f, deadline), &plan) < 0 ||
	    !first_of_plan(&plan, &f, group->n, ep->spec.batch, ret))
		return squeeze(ep, &f, &doubt, group->n, left, ret) ? CHOSEN : CHOSEN_NOTHING;
	/* Room for later tasks: where they would not run on a better sub-model anyway. */
	if (deadline < safe || ret->submodel == most_accurate(f.m, ep->n_submodels)) {
		int most = most_in(&f.m[ret->submodel], ep->spec.batch, &doubt, left);

		ret->shared = most > ret->k;
		ret->k = ret->shared ? most : ret->k;
	}
	return CHOSEN;
}

bool choose_again(struct sched *s, const struct group *whole, const struct contest *c, int64_t start,
		  struct choice *ret)
{
	const struct endpoint *ep = whole->first->ep;
	int64_t left = choose_time_left(s, whole, start, OUTBOX_CAREFUL), deadline;
	struct group own[MAX_DEVICES], *group = &own[whole->device->number];
	const struct instance *least = NULL;
	struct plan_family f;
	struct doubt doubt;
	struct plan plan;

	split_roughly(s, whole, OUTBOX_CAREFUL, own);
	for (struct list *at = &whole->first->own; at != whole->list && !least; at = at->next)
		least = cascade_least(list_entry(at, struct task, own));
	if (left <= 0 || !least || !group->held)
		return false;
	/* What counts is what is gained. */
	deadline = prepare(s, group, c, start, OUTBOX_OF_LATE, left, &f, &doubt);
	f.n = ep->n_submodels;
	for (int i = 0; i < f.n; i++) {
		double gain = cascade_again(ep, &least->held->of, i) - cascade_unsure(ep, &least->held->of);

		f.m[i].accuracy = gain > 0 && f.m[i].accuracy > 0 ? gain : 0;
	}
	if (plan_with(s, ep, &f, group->held, deadline, &plan) < 0 ||
	    !first_of_plan(&plan, &f, group->held, ep->spec.batch, ret))
		return squeeze(ep, &f, &doubt, group->held, left, ret) && (ret->again = true);
	ret->again = true;
	return f.m[ret->submodel].accuracy > 0;
}

/* What the profile says of those that may run. */
static void allowed(const struct group *group, int64_t deadline, struct plan_submodel *m)
{
	const struct endpoint *ep = group->first->ep;
	const struct plan_submodel *of = profile_submodels(&served_of(group)->profile);

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

/* When the group's device could be done with one of its instances. */
static int64_t one_done(const struct group *group)
{
	const struct endpoint *ep = group->first->ep;
	struct plan_submodel m[MAX_SUBMODELS];
	int64_t start = device_free_at(group->device), least = INT64_MAX;

	allowed(group, group->due - start, m);
	for (int i = 0; i < ep->n_submodels; i++)
		least = m[i].time_one_ns < least ? m[i].time_one_ns : least;
	return start + least;
}

bool choose_is_hopeless(struct sched *s, const struct group *group)
{
	const struct endpoint *ep = group->first->ep;
	int64_t first = INT64_MAX;

	for (int i = 0; i < s->n_devices; i++) {
		struct group on = *group;
		int64_t at;

		on.device = &s->device[i];
		at = ep->on[i].ready ? one_done(&on) : INT64_MAX;
		first = at < first ? at : first;
	}
	return first > group->due - outbox_margin(&s->outbox, OUTBOX_OF_LATE);
}

void choose_free(const struct group *group, int64_t most, struct choice *ret)
{
	const struct endpoint *ep = group->first->ep;
	const struct profile *profile = &served_of(group)->profile;
	struct promise plan = {.method = PLAN_HULL};
	uint64_t count;
	struct plan_family f = {.n = ep->n_submodels};
	int best;

	allowed(group, INT64_MAX, f.m);
	best = most_accurate(f.m, f.n);
	for (int i = 0; i < f.n; i++)
		f.of[i] = (struct cascade){i, -1, 0};
	*ret = (struct choice){.submodel = best,
			       .k = group->n < (uint64_t)ep->spec.batch ? (int)group->n : ep->spec.batch,
			       .of = f.of[best]};
	if (profile_expect_ns(profile, best, 1) <= most)
		while (profile_expect_ns(profile, best, ret->k) > most)
			ret->k--;
	plan.p_eff = f.m[best].accuracy;
	count = (group->n + (uint64_t)ep->spec.batch - 1) / (uint64_t)ep->spec.batch;
	plan.n[best] = (double)count;
	note_plan(group, &plan);
}

struct group group_alone(struct task *task)
{
	return (struct group){.device = &task->ep->s->device[0],
			      .list = &task->ep->lane.due,
			      .first = task,
			      .n = task->n_queued,
			      .all = task->n_queued,
			      .due = task->due,
			      .until = task->due};
}

int64_t choose_kept(struct sched *s, const struct group *group, int64_t time)
{
	const struct endpoint *ep = group->first->ep;
	struct plan_family f;
	struct plan plan;

	time = promised_time(group, time, group->n);
	if (time <= 0 || !group->n)
		return 0;
	f.n = plan_times(s, group, OUTBOX_CAREFUL, f.m);
	narrow(group,
	       &(struct plan_request){.n_submodels = f.n,
				      .submodels = f.m,
				      .instances = (int64_t)group->n,
				      .batch = ep->spec.batch,
				      .deadline_ns = time},
	       f.m);
	if (plan_with(s, ep, &f, group->n, time, &plan) < 0)
		return 0;
	return (int64_t)group->n - plan.dropped;
}
