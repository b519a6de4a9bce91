#include "sched/cascade.h"
#include "sched/choose.h"
#include "sched/internal.h"
#include "sched/minibatch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Instances, over all tasks; chosen: some 5 MiB, and twice that while they are published. */
#define MOST_HELD 16384

/* --- what a plan may use --- */

struct point {
	double time, accuracy;
	struct cascade of;
};

static int by_time(const void *a, const void *b)
{
	const struct point *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return (x->accuracy < y->accuracy) - (x->accuracy > y->accuracy);
}

/* The upper hull with the origin of what is sorted by time (Andrew's monotone chain), in place; how many are on it. */
static int hull(struct point *p, int n)
{
	int kept = 0;

	for (int i = 0; i < n; i++) {
		if (p[i].accuracy <= (kept ? p[kept - 1].accuracy : 0))
			continue;
		while (kept) {
			double t = kept > 1 ? p[kept - 2].time : 0, a = kept > 1 ? p[kept - 2].accuracy : 0;

			if ((p[kept - 1].accuracy - a) * (p[i].time - t) >
			    (p[i].accuracy - a) * (p[kept - 1].time - t))
				break;
			kept--;
		}
		p[kept++] = p[i];
	}
	return kept;
}

static double time_with(const struct plan_family *f, const struct cascade *of, int64_t publish)
{
	return fmax((double)publish,
		    (double)f->m[of->first].time_ns +
			    (double)cascade_shares[of->point] * (double)f->m[of->then].time_ns);
}

/* Those of one first sub-model, behind the n points. */
static int add_points(const struct endpoint *ep, const struct plan_family *f, int first, int64_t publish,
		      struct point *p, int n)
{
	const struct submodel *m = &ep->submodels[first];

	for (int then = 0; then < ep->n_submodels; then++)
		for (int k = 0; k < CASCADE_POINTS; k++) {
			struct cascade of = {first, then, k};

			if (m->then[then][k] > 0 && f->m[then].accuracy > 0)
				p[n++] = (struct point){time_with(f, &of, publish), m->then[then][k], of};
		}
	return n;
}

void cascade_family(const struct endpoint *ep, struct plan_family *family, int64_t publish,
		    int64_t publish_one)
{
	struct point p[2 * MAX_SUBMODELS *
		       CASCADE_POINTS]; /* the hull so far, and what one sub-model is the first of */
	int n = 0;

	for (int i = 0; i < ep->n_submodels; i++) {
		family->of[i] = (struct cascade){i, -1, 0};
		if (family->m[i].accuracy > 0)
			p[n++] = (struct point){(double)family->m[i].time_ns, family->m[i].accuracy,
						family->of[i]};
	}
	qsort(p, (size_t)n, sizeof(*p), by_time);
	n = hull(p, n);
	for (int i = 0; i < ep->n_submodels && n <= MAX_SUBMODELS * CASCADE_POINTS; i++) {
		int more = family->m[i].accuracy > 0 ? add_points(ep, family, i, publish, p, n) : n;

		if (more == n)
			continue;
		qsort(p, (size_t)more, sizeof(*p), by_time);
		n = hull(p, more);
	}
	for (int i = 0; i < n && family->n < MAX_SUBMODELS; i++) {
		const struct cascade *of = &p[i].of;
		struct plan_submodel *to = &family->m[family->n];

		if (of->then < 0)
			continue;
		*to = (struct plan_submodel){.accuracy = p[i].accuracy,
					     .time_ns = llround(p[i].time),
					     .time_one_ns = family->m[of->first].time_one_ns +
							    llround((double)cascade_shares[of->point] *
								    (double)family->m[of->then].time_one_ns)};
		to->time_one_ns = to->time_one_ns < publish_one ? publish_one : to->time_one_ns;
		family->of[family->n++] = *of;
	}
}

float cascade_threshold(const struct endpoint *ep, const struct cascade *of)
{
	return of->then < 0 ? 0 : ep->submodels[of->first].first.threshold[of->point];
}

double cascade_sure(const struct endpoint *ep, const struct cascade *of)
{
	return (double)ep->submodels[of->first].first.sure[of->point];
}

/* Of the q, when all have that accuracy. */
static double among_unsure(const struct endpoint *ep, const struct cascade *of, double all)
{
	double q = (double)cascade_shares[of->point], right = (all - (1 - q) * cascade_sure(ep, of)) / q;

	return fmin(fmax(right, 0), 1);
}

double cascade_unsure(const struct endpoint *ep, const struct cascade *of)
{
	return among_unsure(ep, of, ep->submodels[of->first].accuracy);
}

double cascade_again(const struct endpoint *ep, const struct cascade *of, int then)
{
	float all = ep->submodels[of->first].then[then][of->point];

	return all > 0 ? among_unsure(ep, of, (double)all) : 0;
}

/* --- what is held --- */

static int step_of(float score)
{
	int step = score > 0 ? (int)(score * HELD_STEPS) : 0;

	return step < HELD_STEPS ? step : HELD_STEPS - 1;
}

static bool same_kind(const struct cascade *a, const struct cascade *b)
{
	return a->first == b->first && a->then == b->then;
}

static struct held_kind *kind_of(const struct task *task, const struct cascade *of)
{
	struct held_kind *kind = task->held;

	while (kind && !same_kind(&kind->of, of))
		kind = kind->next;
	return kind;
}

static struct held_kind *add_kind(struct task *task, const struct cascade *of)
{
	struct held_kind *kind = malloc(sizeof(*kind));

	if (!kind)
		return NULL;
	*kind = (struct held_kind){.next = task->held, .of = *of};
	for (int i = 0; i < HELD_STEPS; i++)
		list_init(&kind->step[i]);
	return task->held = kind;
}

bool cascade_hold(struct instance *inst, const struct cascade *of, const struct instance_answer *answer,
		  int64_t compute_ns)
{
	struct task *task = inst->task;
	struct dispatch *d = &task->ep->s->dispatch;
	struct held_kind *kind = kind_of(task, of);

	if (d->n_held >= MOST_HELD)
		return false;
	if (!kind)
		kind = add_kind(task, of);
	inst->held = kind ? malloc(sizeof(*inst->held)) : NULL;
	if (!inst->held)
		return false;
	*inst->held = (struct held){*of, *answer, compute_ns};
	list_append(&kind->step[step_of(answer->score)], &inst->link);
	kind->count++;
	d->n_held++;
	if (++task->n_held == 1 && !task->n_queued)
		dispatch_task(task->ep->s, task);
	return true;
}

static struct instance *least_of(const struct held_kind *kind)
{
	for (int i = 0; kind->count && i < HELD_STEPS; i++)
		if (!list_empty(&kind->step[i]))
			return list_entry(kind->step[i].next, struct instance, link);
	return NULL;
}

static void leave_set(struct instance *inst)
{
	struct task *task = inst->task;

	kind_of(task, &inst->held->of)->count--;
	list_remove(&inst->link);
	task->n_held--;
	task->ep->s->dispatch.n_held--;
	dispatch_task_less(task);
}

struct instance *cascade_take(struct task *task, const struct cascade *of)
{
	const struct held_kind *kind = kind_of(task, of);
	struct instance *inst = kind ? least_of(kind) : NULL;

	if (inst)
		leave_set(inst);
	return inst;
}

/* Those of a task, together with what ret has; how many there are then. */
static int add_kinds(const struct task *task, struct cascade_kind ret[CASCADE_KINDS], int n)
{
	for (const struct held_kind *kind = task->held; kind; kind = kind->next) {
		int k = 0;

		if (!kind->count)
			continue;
		while (k < n && !same_kind(&ret[k].of, &kind->of))
			k++;
		if (k == CASCADE_KINDS)
			continue; /* its turn comes when others are done */
		if (k == n)
			ret[n++] = (struct cascade_kind){.of = least_of(kind)->held->of};
		ret[k].count += (double)kind->count;
	}
	return n;
}

static int by_worth(const void *a, const void *b)
{
	const struct cascade_kind *x = a, *y = b;

	return (x->worth < y->worth) - (x->worth > y->worth);
}

int cascade_kinds(const struct group *group, const struct plan_submodel *m,
		  struct cascade_kind ret[CASCADE_KINDS])
{
	const struct endpoint *ep = group->first->ep;
	struct list *at = &group->first->own;
	double all = 0;
	int n = 0, kept = 0;

	for (int seen = 0; at != group->list && seen < LOOK_AHEAD; at = at->next, seen++) {
		const struct task *task = list_entry(at, struct task, own);

		if (task->due > group->until)
			break;
		n = add_kinds(task, ret, n);
	}
	for (int i = 0; i < n; i++)
		all += ret[i].count;
	for (int i = 0; i < n; i++) {
		const struct cascade *of = &ret[i].of;
		double gain = cascade_again(ep, of, of->then) - cascade_unsure(ep, of);

		ret[i].count *= (double)group->held / all;
		ret[i].worth = gain / (double)m[of->then].time_ns;
		if (gain > 0 && m[of->then].accuracy > 0)
			ret[kept++] = ret[i];
	}
	qsort(ret, (size_t)kept, sizeof(*ret), by_worth);
	return kept;
}

double cascade_worth_until(const struct plan_family *f, int batch, uint64_t instances, double worth)
{
	struct point p[MAX_SUBMODELS];
	int n = 0, i = 0;

	for (int k = 0; k < f->n; k++)
		if (f->m[k].accuracy > 0)
			p[n++] = (struct point){(double)f->m[k].time_ns, f->m[k].accuracy, f->of[k]};
	qsort(p, (size_t)n, sizeof(*p), by_time);
	n = hull(p, n);
	while (i + 1 < n && p[i + 1].accuracy - p[i].accuracy > worth * (p[i + 1].time - p[i].time))
		i++;
	return n ? (double)instances / batch * p[i].time : 0;
}

void cascade_answer(struct instance *inst)
{
	const struct endpoint *ep = inst->task->ep;
	const struct held *held = inst->held;
	struct instance_verdict v = {.answer = &held->answer,
				     .submodel = held->of.first,
				     .accuracy = held->of.then < 0 ? ep->submodels[held->of.first].accuracy
								   : cascade_unsure(ep, &held->of),
				     .compute_ns = held->compute_ns};

	inst->task->expected += v.accuracy;
	inst->task->n_running--;
	instance_answer(inst, &v);
}

void cascade_release_one(struct instance *inst)
{
	leave_set(inst);
	cascade_answer(inst);
}

void cascade_release(struct task *task)
{
	struct instance *inst;

	for (const struct held_kind *kind = task->held; kind; kind = kind->next)
		while ((inst = cascade_take(task, &kind->of)))
			cascade_answer(inst);
}

static void release_batch(void *data, struct table_node *node)
{
	struct batch *batch = list_entry(node, struct batch, node);

	(void)data;
	list_each(link, &batch->tasks) cascade_release(list_entry(link, struct task, batch_link));
}

void cascade_release_all(struct endpoint *ep)
{
	if (ep->s->dispatch.n_held)
		table_each(&ep->batches, release_batch, NULL);
}

void cascade_forget(struct task *task)
{
	struct held_kind *kind;
	struct instance *inst;

	while ((kind = task->held)) {
		while ((inst = cascade_take(task, &kind->of)))
			instance_free(inst);
		task->held = kind->next;
		free(kind);
	}
}

/* When so many answers must be handed over to be in time. */
static int64_t release_at(struct sched *s, int64_t due, size_t n)
{
	return due - outbox_cost(&s->outbox, OUTBOX_OF_LATE, n) - outbox_margin(&s->outbox, OUTBOX_CAREFUL);
}

/* Instances of it that have an answer, and when the first of their tasks is due. */
static size_t count_out(const struct minibatch *mb, int64_t *ret_due)
{
	size_t n = 0;

	*ret_due = INT64_MAX;
	for (int i = 0; i < mb->n && mb->again; i++)
		if (mb->inst[i]) {
			*ret_due = mb->inst[i]->task->due < *ret_due ? mb->inst[i]->task->due : *ret_due;
			n++;
		}
	return n;
}

/* What runs again may take longer than it should: its answers are given, too. All of them are published one after the other. */
int64_t cascade_release_due(struct sched *s)
{
	struct dispatch *d = &s->dispatch;
	struct minibatch *mb;
	int64_t next = INT64_MAX, now = loop_now(s->loop), due, at;
	size_t before = s->outbox.outstanding;
	int seen = 0;

	for (int i = 0; (mb = devices_out(s, i)); i++)
		before += count_out(mb, &due);
	for (int i = 0; (mb = devices_out(s, i)); i++) {
		if (!count_out(mb, &due) || due == INT64_MAX)
			continue;
		at = release_at(s, due, before);
		if (at <= now)
			minibatch_release(mb);
		else if (at < next)
			next = at;
	}
	if (!d->n_held)
		return next;
	list_each(link, &d->due)
	{
		struct task *task = list_entry(link, struct task, link);

		if (seen++ == LOOK_AHEAD)
			break;
		before += task->n_held;
		if (!task->n_held)
			continue;
		at = release_at(s, task->due, before);
		if (at <= now)
			cascade_release(task);
		else if (at < next)
			next = at;
	}
	return next;
}
