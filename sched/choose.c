/*
 * Of several tasks the one with the earliest deadline runs; tasks of the same endpoint whose deadlines are
 * within a twentieth of the time left go with it, in shared mini-batches. How much of the time it may use: choose_time.c.
 *
 * A task is planned once with careful figures (outbox.h, profile_careful): that
 * plan is its promise, schedule.csv's planned_p_eff. What runs next is chosen each time with the figures of late: what
 * goes better than promised is used, and what goes worse is known soon.
 */
#include "sched/choose.h"

#include "sched/choose_time.h"
#include "sched/internal.h"
#include "sched/minibatch.h"
#include "sched/split.h"

#include <math.h>
#include <string.h>

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

#define LEARNT  16  /* mini-batches on a device, until its times are believed; chosen */
#define LAST    8   /* mini-batches; chosen */
#define RESERVE 0.5 /* of the time; chosen */
#define GOLDEN  0.6180339887498949

static int64_t full_of(const struct plan *plan, int i)
{
	return plan->n[i] - (plan->partial == i);
}

/* Were the plan's full mini-batches in a row, the fastest first: that of which the one at that place is; -1: there is none. */
static int in_row(const struct plan *plan, const struct plan_family *f, double place)
{
	for (int i = 0; i < f->n; i++) {
		int64_t before = 0;

		for (int j = 0; j < f->n; j++)
			if (f->m[j].time_ns < f->m[i].time_ns ||
			    (f->m[j].time_ns == f->m[i].time_ns && j < i))
				before += full_of(plan, j);
		if (full_of(plan, i) > 0 && (double)before <= place &&
		    place < (double)(before + full_of(plan, i)))
			return i;
	}
	return -1;
}

/*
 * Of the plan: full mini-batches first. When things go worse than planned, what is left then was to be slow and can be made fast; were the
 * fast ones left, instances would have to be dropped. So the fastest come first, as long as no more than RESERVE of the time is kept for
 * slow ones; what is beyond that takes turns. For were all the fast ones first, what is gained would be lost on them where things go
 * better, as they do with a profile that was measured on a busy machine: what is left becomes slower, but what was answered stays as it is.
 * The turns: the r'th mini-batch from the end is from the place r·φ mod 1 of the row (Weyl's sequence), so that all stretches have about
 * as many of each. That costs where tasks come that nobody knew of: with this reserve nothing, with 0.3 some promises. Where tasks
 * contend, and of the last few, the fastest come first.
 */
static bool first_of_plan(const struct plan *plan, const struct plan_family *f, bool turns,
			  uint64_t instances, int batch, struct choice *ret)
{
	int best = in_row(plan, f, 0), k = instances < (uint64_t)batch ? (int)instances : batch;
	double time = 0, more, place;
	int64_t all = 0;

	for (int i = 0; i < f->n; i++) {
		all += full_of(plan, i);
		time += (double)full_of(plan, i) * (double)f->m[i].time_ns;
	}
	more = best < 0 ? 0 : time - (double)all * (double)f->m[best].time_ns;
	if (turns && all > LAST && more > RESERVE * time) {
		place = 1 - (1 - fmod((double)all * GOLDEN, 1)) / (1 - RESERVE * time / more);
		best = in_row(plan, f, fmax(place, 0) * (double)all);
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

/* No mini-batch of the plan's fits: as many instances as do, where that brings most. */
static bool squeeze(const struct endpoint *ep, const struct plan_family *f, const struct doubt *doubt,
		    uint64_t instances, int64_t left, struct choice *ret)
{
	const struct plan_submodel *m = f->m;
	int batch = ep->spec.batch;
	double best = 0;

	for (int i = 0; i < ep->n_submodels; i++) {
		int k = choose_most_in(&m[i], batch, doubt, left);

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

/* Σ p_i of what of the task is at a device. */
static double under_way(const struct task *task)
{
	const struct minibatch *mb;
	double sum = 0;

	for (int i = 0; task->n_running && (mb = devices_out(task->ep->s, i)); i++)
		for (int k = 0; !mb->explains && k < mb->n; k++)
			if (mb->inst[k] && mb->inst[k]->task == task)
				sum += mb->ep->submodels[mb->submodel].accuracy;
	return sum;
}

void choose_note(struct task *task, double p_eff)
{
	task->planned = true;
	task->planned_p_eff = (task->expected + under_way(task) + p_eff * task->n_queued) / task->total;
	for (int i = 0; i < MAX_SUBMODELS; i++)
		task->n_planned[i] = task->n_real[i];
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
		task->method = plan->method;
		task->solve_ns = plan->solve_ns;
		choose_note(task, plan->p_eff);
		for (int i = 0; i < MAX_SUBMODELS; i++)
			task->n_planned[i] += (int64_t)(plan->n[i] * part + 0.5);
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
	int64_t safe = choose_time_safe(s, left);
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
	deadline = choose_prepare(s, group, c, start, OUTBOX_OF_LATE, safe > 0 ? safe : left, &f, &doubt);
	if (safe <= 0 || plan_with(s, ep, &f, group->n, choose_time_new(group, &f, deadline), &plan) < 0 ||
	    !first_of_plan(&plan, &f, !c->over && group_served(group)->minibatches >= LEARNT, group->n,
			   ep->spec.batch, ret))
		return squeeze(ep, &f, &doubt, group->n, left, ret) ? CHOSEN : CHOSEN_NOTHING;
	/* Room for later tasks: where they would not run on a better sub-model anyway. */
	if (deadline < safe || ret->submodel == most_accurate(f.m, ep->n_submodels)) {
		int most = choose_most_in(&f.m[ret->submodel], ep->spec.batch, &doubt, left);

		ret->shared = most > ret->k;
		ret->k = ret->shared ? most : ret->k;
	}
	return CHOSEN;
}

/* Those of one kind, in that time: what counts is what is gained. */
static bool again_of(struct sched *s, const struct endpoint *ep, const struct cascade_kind *kind,
		     const struct plan_family *family, const struct doubt *doubt, int64_t deadline,
		     int64_t left, struct choice *ret)
{
	uint64_t count = (uint64_t)ceil(kind->count);
	struct plan_family f = *family;
	int64_t slowest = 0;
	struct plan plan;

	f.n = ep->n_submodels;
	for (int i = 0; i < f.n; i++)
		slowest = f.m[i].time_ns > slowest ? f.m[i].time_ns : slowest;
	for (int i = 0; i < f.n; i++) {
		double gain = cascade_again(ep, &kind->of, i) - cascade_unsure(ep, &kind->of);

		if (gain > 0 && f.m[i].accuracy > 0)
			f.m[i].accuracy = gain;
		else /* as idle ones are (profile.h): what there is no time for stays as it is held, and takes none */
			f.m[i] = (struct plan_submodel){0, slowest, slowest};
	}
	if ((plan_with(s, ep, &f, count, deadline, &plan) < 0 ||
	     !first_of_plan(&plan, &f, false, count, ep->spec.batch, ret)) &&
	    !squeeze(ep, &f, doubt, count, left, ret))
		return false;
	ret->of = kind->of;
	ret->again = true;
	return f.m[ret->submodel].accuracy > 0;
}

bool choose_again(struct sched *s, const struct group *whole, const struct contest *c, int64_t start,
		  struct choice *ret)
{
	const struct endpoint *ep = whole->first->ep;
	int64_t left = choose_time_left(s, whole, start, OUTBOX_CAREFUL), deadline;
	struct group own[MAX_DEVICES], *group = &own[whole->device->number];
	struct cascade_kind kind[CASCADE_KINDS];
	double all = 0, time[CASCADE_KINDS];
	struct plan_family f;
	struct doubt doubt;
	int n;

	split_roughly(s, whole, OUTBOX_CAREFUL, own);
	if (left <= 0 || !group->held)
		return false;
	deadline = choose_prepare(s, group, c, start, OUTBOX_OF_LATE, left, &f, &doubt);
	n = cascade_kinds(group, f.m, kind);
	for (int i = 0; i < n; i++)
		all += time[i] = kind[i].count / ep->spec.batch * (double)f.m[kind[i].of.then].time_ns;
	/* Each may use what the others, run as planned, leave. */
	for (int i = 0; i < n; i++)
		if (again_of(s, ep, &kind[i], &f, &doubt,
			     (int64_t)fmin(fmax((double)deadline - (all - time[i]), time[i]),
					   (double)deadline),
			     left, ret))
			return true;
	return false;
}

void choose_allowed(const struct endpoint *ep, const struct served *on, int64_t deadline,
		    struct plan_submodel *m)
{
	const struct plan_submodel *of = profile_submodels(&on->profile);
	struct plan_request request = {.n_submodels = ep->n_submodels,
				       .submodels = m,
				       .instances = ep->spec.batch,
				       .batch = ep->spec.batch,
				       .deadline_ns = deadline};

	for (int i = 0; i < ep->n_submodels; i++)
		m[i] = of[i];
	policy_narrow(ep->spec.policy, &request, -1, m);
}

int choose_unhurried(const struct endpoint *ep, const struct served *on)
{
	struct plan_submodel m[MAX_SUBMODELS];

	choose_allowed(ep, on, INT64_MAX, m);
	return most_accurate(m, ep->n_submodels);
}

/* What the profile says of those that may run. */
static void allowed(const struct group *group, int64_t deadline, struct plan_submodel *m)
{
	const struct endpoint *ep = group->first->ep;
	const struct plan_submodel *of = profile_submodels(&group_served(group)->profile);

	for (int i = 0; i < ep->n_submodels; i++)
		m[i] = of[i];
	choose_narrow(group,
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
	const struct profile *profile = &group_served(group)->profile;
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

	time = choose_time_promised(group, time, group->n);
	if (time <= 0 || !group->n)
		return 0;
	f.n = choose_times(s, group, OUTBOX_CAREFUL, f.m);
	choose_narrow(group,
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
