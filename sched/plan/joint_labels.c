/*
 * Dynamic programming over the groups in order: a label is a choice for the groups so far, with the time it takes
 * and its value; one that takes no less and is worth no more than another goes on no better. Known bounds keep
 * labels few:
 *
 * - what a label has lost against the LP's bound (joint_internal.h) it never makes good: it is dropped
 *   when it can't be worth more than joint_cut;
 * - where the price drops after task t, time left before D_t is lost too: only labels from which the groups up
 *   to there can still use enough of it are kept, and only such that can still keep the deadline.
 *
 * More labels than `width` are thinned: of those whose values lie within a step of each other the fastest stays.
 * What was thinned goes on as the one that stays does, for less by no more than the step. So the largest that any dropped
 * label could have become, plus all steps, bounds what there is beyond the best label. A group of many
 * mini-batches may have too many choices to list: then some around the best solution are tried, which may
 * find a better one and proves nothing.
 */
#include "sched/plan/joint_internal.h"

#include "engine/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHOICES 48 /* of a group; chosen: labels times this is the work of one */

struct choice {
	int64_t time;
	double value, loss;
	int64_t n[MAX_SUBMODELS];
};

struct label {
	int64_t time;
	double value, loss;
	uint32_t parent; /* in the stage before */
	uint32_t choice;
};

struct trace {
	uint32_t parent, choice;
};

struct stage {
	const struct group *group;
	int n_choices, tries; /* tries: at listing them that are left */
	struct choice *choices;
	int64_t low, high; /* what labels may take after it */
	int64_t limit;     /* when it is its task's last: D_t, … */
	double drop;       /* … and what a nanosecond left before it costs */
	struct trace *traces; /* (width) */
};

struct dp {
	int width;
	double budget;                         /* what may be lost */
	bool all;                              /* no choice within the budget is left out */
	double thinned;                        /* the steps */
	struct stage *stages;                  /* (groups) */
	struct choice *choices;                /* (MAX_CHOICES·groups) */
	struct trace *traces;                  /* (width·groups) */
	struct label *labels, *merged, *spare; /* (3·width) */
	int n, n_merged;
};

/* --- the choices of a group --- */

static void add_choice(struct stage *s, const int64_t n[], double loss)
{
	const struct group *g = s->group;
	struct choice *c = &s->choices[s->n_choices];
	__int128 time = 0;

	*c = (struct choice){.loss = loss};
	for (int i = 0; i < g->n_items; i++) {
		c->n[i] = n[i];
		time += (__int128)n[i] * g->items[i].time;
		c->value += (double)n[i] * g->items[i].value;
	}
	if (time > s->high)
		return;
	c->time = (int64_t)time;
	s->n_choices++;
}

/*
 * All with a loss within the budget: order[] are the items (n_items: dropped) that mini-batches may be on, the
 * last takes what the others leave of count. False: there are too many.
 */
static bool list_choices(struct stage *s, double budget, const int order[], int n_order, int64_t count,
			 double loss, int64_t n[])
{
	int i = order[0];
	double each = i < s->group->n_items ? s->group->loss[i] : s->group->worth;
	bool all = true;

	if (n_order == 1) {
		n[i] = count;
		all = s->tries-- > 0;
		if (all && loss + each * (double)count <= budget)
			add_choice(s, n, loss + each * (double)count);
	} else {
		for (int64_t k = 0; all && k <= count && loss + each * (double)k <= budget; k++) {
			n[i] = k;
			all = list_choices(s, budget, order + 1, n_order - 1, count - k,
					   loss + each * (double)k, n);
		}
	}
	n[i] = 0;
	return all;
}

static double group_loss(const struct group *g, const int64_t n[])
{
	double loss = (double)n[g->n_items] * g->worth;

	for (int i = 0; i < g->n_items; i++)
		loss += (double)n[i] * g->loss[i];
	return loss;
}

/* The best solution's and those that differ by one mini-batch. */
static void list_near(struct stage *s, double budget, int64_t n[])
{
	const struct group *g = s->group;
	double loss = group_loss(g, n);

	if (loss <= budget)
		add_choice(s, n, loss);
	for (int from = 0; from <= g->n_items; from++)
		for (int to = 0; to <= g->n_items; to++) {
			if (!n[from] || to == from || s->n_choices == MAX_CHOICES)
				continue;
			n[from]--;
			n[to]++;
			loss = group_loss(g, n);
			if (loss <= budget)
				add_choice(s, n, loss);
			n[from]++;
			n[to]--;
		}
}

static void set_choices(struct dp *d, struct stage *s)
{
	const struct group *g = s->group;
	int64_t n[MAX_SUBMODELS + 1] = {0};
	int order[MAX_SUBMODELS + 1], n_order = 0;

	/* In order of loss, the largest first, so that what can't be ends the listing early. */
	for (int i = 0; i <= g->n_items; i++) {
		double loss = i < g->n_items ? g->loss[i] : g->worth;
		int k;

		if (loss > d->budget)
			continue;
		for (k = n_order++; k; k--) {
			int before = order[k - 1];

			if ((before < g->n_items ? g->loss[before] : g->worth) >= loss)
				break;
			order[k] = before;
		}
		order[k] = i;
	}
	s->tries = MAX_CHOICES;
	if (list_choices(s, d->budget, order, n_order, g->count, 0, n))
		return;
	d->all = false;
	s->n_choices = 0;
	memcpy(n, g->n, sizeof(g->n));
	n[g->n_items] = g->count;
	for (int i = 0; i < g->n_items; i++)
		n[g->n_items] -= n[i];
	list_near(s, d->budget, n);
}

static void set_stages(struct dp *d, const struct joint *j)
{
	struct choice *choices = d->choices;
	int64_t low = 0, high = INT64_MAX;

	for (int k = 0; k < j->n_groups; k++) {
		struct stage *s = &d->stages[k];
		int task = j->groups[k].task;

		*s = (struct stage){.group = &j->groups[k],
				    .choices = choices,
				    .high = j->limits[task],
				    .traces = d->traces + (size_t)k * (size_t)d->width};
		if (k == j->n_groups - 1 || j->groups[k + 1].task != task) {
			s->limit = j->limits[task];
			/* A task without groups has the price of the next. */
			s->drop = j->price[task] - j->price[task + 1];
		}
		set_choices(d, s);
		choices += s->n_choices;
	}
	for (int k = j->n_groups - 1; k >= 0; k--) {
		struct stage *s = &d->stages[k];
		int64_t least = INT64_MAX, most = 0;

		high = s->high < high ? s->high : high;
		if (s->drop > 0 && d->budget / s->drop < (double)s->limit) {
			int64_t needed = s->limit - (int64_t)(d->budget / s->drop) - 1;

			low = needed > low ? needed : low;
		}
		s->low = low;
		s->high = high;
		for (int c = 0; c < s->n_choices; c++) {
			least = s->choices[c].time < least ? s->choices[c].time : least;
			most = s->choices[c].time > most ? s->choices[c].time : most;
		}
		low = low > most ? low - most : 0;
		high -= s->n_choices ? least : 0;
	}
}

/* --- labels --- */

/* Of those whose values lie within a step the fastest stays; returns how many that are. */
static int thin(const struct label *from, int n, double step, struct label *to)
{
	int kept = 0;
	double last = 0;

	for (int i = 0; i < n; i++) {
		if (kept && from[i].value <= last + step)
			continue;
		last = from[i].value;
		if (to)
			to[kept] = from[i];
		kept++;
	}
	return kept;
}

static void limit_width(struct dp *d)
{
	double range, step;

	if (d->n_merged <= d->width)
		return;
	range = d->merged[d->n_merged - 1].value - d->merged[0].value;
	for (step = range / (16 * d->width); thin(d->merged, d->n_merged, step, NULL) > d->width;)
		step *= 2;
	d->n_merged = thin(d->merged, d->n_merged, step, d->merged);
	d->thinned += step;
}

static bool extend(const struct dp *d, const struct stage *s, int choice, int parent, struct label *ret)
{
	const struct choice *c = &s->choices[choice];
	const struct label *l = &d->labels[parent];

	if (c->time > s->high - l->time)
		return false;
	*ret = (struct label){.time = l->time + c->time,
			      .value = l->value + c->value,
			      .loss = l->loss + c->loss,
			      .parent = (uint32_t)parent,
			      .choice = (uint32_t)choice};
	if (ret->time < s->low)
		return false;
	ret->loss += s->drop * (double)(s->limit - ret->time);
	return ret->loss <= d->budget;
}

static int append(struct label *labels, int n, const struct label *l)
{
	if (n && l->value <= labels[n - 1].value)
		return n;
	if (n && l->time == labels[n - 1].time)
		n--;
	labels[n] = *l;
	return n + 1;
}

/* Merges the labels that this choice makes of all of the stage before into merged. */
static void merge(struct dp *d, const struct stage *s, int choice)
{
	struct label *swap = d->merged, next;
	int n = 0, i = 0;

	for (int k = 0; k < d->n; k++) {
		if (!extend(d, s, choice, k, &next))
			continue;
		while (i < d->n_merged && d->merged[i].time <= next.time)
			n = append(d->spare, n, &d->merged[i++]);
		n = append(d->spare, n, &next);
	}
	while (i < d->n_merged)
		n = append(d->spare, n, &d->merged[i++]);
	d->merged = d->spare;
	d->spare = swap;
	d->n_merged = n;
	if (n > 2 * d->width)
		limit_width(d);
}

static void advance(struct dp *d, const struct stage *s)
{
	struct label *swap = d->labels;

	d->n_merged = 0;
	for (int c = 0; c < s->n_choices; c++)
		merge(d, s, c);
	limit_width(d);
	d->labels = d->merged;
	d->merged = swap;
	d->n = d->n_merged;
	for (int i = 0; i < d->n; i++)
		s->traces[i] = (struct trace){d->labels[i].parent, d->labels[i].choice};
}

static void offer_last(struct dp *d, struct joint *j)
{
	uint32_t label = (uint32_t)d->n - 1;

	for (int k = j->n_groups - 1; k >= 0; k--) {
		const struct trace *t = &d->stages[k].traces[label];

		memcpy(j->groups[k].next, d->stages[k].choices[t->choice].n, sizeof(j->groups[k].next));
		label = t->parent;
	}
	joint_offer(j, PLAN_DP);
}

static bool allocate(struct dp *d, size_t groups)
{
	size_t width = (size_t)d->width;

	d->stages = malloc(groups * sizeof(*d->stages));
	d->choices = malloc(groups * MAX_CHOICES * sizeof(*d->choices));
	d->traces = malloc(groups * width * sizeof(*d->traces));
	d->labels = malloc(3 * width * sizeof(*d->labels));
	d->merged = malloc(3 * width * sizeof(*d->merged));
	d->spare = malloc(3 * width * sizeof(*d->spare));
	return d->stages && d->choices && d->traces && d->labels && d->merged && d->spare;
}

void joint_labels(struct joint *j, int width)
{
	double cut = joint_cut(j), beyond = cut;
	/* Sums of doubles may be off by some 1e-13. */
	struct dp d = {.width = width, .budget = j->lp - cut + 1e-12 * j->lp, .all = true};

	if (!allocate(&d, (size_t)j->n_groups))
		goto out;
	set_stages(&d, j);
	d.labels[0] = (struct label){0};
	d.n = 1;
	for (int k = 0; k < j->n_groups && d.n; k++) {
		if (clock_monotonic_ns() > j->end_ns)
			goto out;
		advance(&d, &d.stages[k]);
	}
	if (d.n) {
		beyond = fmax(beyond, d.labels[d.n - 1].value);
		offer_last(&d, j);
	}
	if (d.all)
		j->bound = fmin(j->bound, beyond + d.thinned);
out:
	free(d.stages);
	free(d.choices);
	free(d.traces);
	free(d.labels);
	free(d.merged);
	free(d.spare);
}
