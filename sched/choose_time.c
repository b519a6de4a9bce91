/*
 * How much of the time until its deadline a group may use follows from the tasks behind it: with w_j the time task j takes on its slowest
 * sub-model, task 1 gets
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
 */
#include "sched/choose_time.h"

#include "sched/internal.h"
#include "sched/minibatch.h"

#include <math.h>

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

const struct served *group_served(const struct group *group)
{
	return &group->first->ep->on[group->device->number];
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
	double own = (double)choose_fastest(ep, group_served(group)), n = 0;
	uint64_t count = group->all / (uint64_t)ep->spec.batch;

	for (int i = 0; i < ep->s->n_devices; i++)
		if (ep->on[i].ready)
			n += own / (double)choose_fastest(ep, &ep->on[i]);
	return fmax(fmin(n, (double)count), 1);
}

int choose_times(struct sched *s, const struct group *group, enum outbox_view view, struct plan_submodel *ret)
{
	const struct endpoint *ep = group->first->ep;
	const struct profile *profile = &group_served(group)->profile;
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

void choose_narrow(const struct group *group, const struct plan_request *request, struct plan_submodel *m)
{
	policy_narrow(group->first->ep->spec.policy, request, group->first->began - 1, m);
}

struct doubt choose_doubt(const struct group *group)
{
	const struct device *device = group->device;
	struct doubt doubt = {.z = caution_deviations(&group->first->ep->caution),
			      .deviation = profile_deviation(&group_served(group)->profile)};

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
	struct doubt doubt = choose_doubt(group);
	int64_t margin = outbox_margin(box, view), device, publisher;

	for (int i = 0; (mb = devices_out(s, i)); i++)
		on_the_way += (size_t)mb->n;
	margin += doubt_before(&doubt);
	device = group->due - start - outbox_cost(box, view, last) - margin;
	publisher = group->due - loop_now(s->loop) - outbox_cost(box, view, on_the_way) - margin;
	return device < publisher ? device : publisher;
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
		deadline -= doubt_own(doubt, choose_fastest(ep, group_served(group)));
		return deadline > 1 ? deadline : 1;
	}
	for (int i = 0; i < ep->n_submodels; i++) {
		m[i].time_ns += doubt_own(doubt, m[i].time_ns);
		m[i].time_one_ns += doubt_own(doubt, m[i].time_one_ns);
	}
	doubt->deviation = 0;
	return deadline;
}

int64_t choose_prepare(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
		       enum outbox_view view, int64_t deadline, struct plan_family *f, struct doubt *doubt)
{
	struct endpoint *ep = group->first->ep;
	struct plan_request request = {.n_submodels = choose_times(s, group, view, f->m),
				       .submodels = f->m,
				       .instances = (int64_t)(group->n + group->held),
				       .batch = ep->spec.batch,
				       .deadline_ns = deadline};

	*doubt = choose_doubt(group);
	deadline = reserve(group, doubt, deadline, f->m);
	choose_narrow(group, &request, f->m);
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

int64_t choose_time_new(const struct group *group, const struct plan_family *f, int64_t deadline)
{
	const struct endpoint *ep = group->first->ep;
	struct cascade_kind kind[CASCADE_KINDS];
	int64_t least = least_time(ep, f->m, group->n);
	double left = (double)deadline;
	int n = group->held ? cascade_kinds(group, f->m, kind) : 0;

	for (int i = 0; i < n; i++) {
		double again = kind[i].count / ep->spec.batch * (double)f->m[kind[i].of.then].time_ns,
		       need = cascade_worth_until(f, ep->spec.batch, group->n, kind[i].worth);

		left = fmax(left - again, fmin(left, need));
	}
	if ((int64_t)left >= least)
		return (int64_t)left;
	return deadline < least ? deadline : least;
}

int64_t choose_time_promised(const struct group *group, int64_t time, uint64_t instances)
{
	const struct endpoint *ep = group->first->ep;
	const struct served *on = group_served(group);
	struct doubt doubt = choose_doubt(group);
	double all = (double)time * (1 - caution_unpromised(&ep->caution)),
	       each = all / ceil((double)instances / ep->spec.batch);

	if (time <= 0)
		return time;
	each = fmin(fmax(each, (double)choose_fastest(ep, on)), (double)slowest(ep, on));
	return (int64_t)all - doubt_sum(&doubt, all, each);
}

int choose_most_in(const struct plan_submodel *m, int batch, const struct doubt *doubt, int64_t time)
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

int64_t choose_time_safe(struct sched *s, int64_t left)
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
		left = choose_time_promised(own, left, own->n);
	safe = view == OUTBOX_OF_LATE ? choose_time_safe(s, left) : left;
	deadline = choose_prepare(s, own, c, start, view, safe > 0 ? safe : left > 0 ? left : 0, f, &doubt);
	return left > 0 ? choose_time_new(own, f, deadline) : 0;
}
