/*
 * Dynamic programming over the stages in order: a label is a choice for the stages so far, with the time it takes
 * and its value; one that takes no less and is worth no more than another goes on no better. Known bounds keep
 * labels few:
 *
 * - what a label has lost against the LP's bound (joint_internal.h) it never makes good: it is dropped
 *   when it can't be worth more than joint_cut;
 * - the stages to come lose something too, depending on the time that is left (joint_future.c).
 *
 * More labels than `width` are thinned: of those whose values lie within a step of each other the fastest stays.
 * What was thinned goes on as the one that stays does, for less by no more than the step. So no solution is
 * worth more than the larger of joint_cut and the best label, plus all steps; labels are dropped a margin later,
 * so that some steps are for nothing.
 */
#include "sched/plan/joint_internal.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MARGIN 0.05 /* of the gap that is good enough, for steps; chosen */

struct label {
	int64_t time;
	double value, loss;
	uint32_t parent; /* in the stage before */
	uint32_t choice;
};

struct trace {
	uint16_t parent, choice;
};

struct dp {
	int width;
	double budget;  /* what may be lost */
	double thinned; /* the steps */
	struct stages stages;
	struct trace *traces;                  /* (stages, width) */
	struct label *labels, *merged, *spare; /* (3·width) */
	int n, n_merged;
};

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

static bool extend(const struct dp *d, const struct stage *s, int choice, int parent, struct cursor *future,
		   struct label *ret)
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
	if (s->limit)
		ret->loss += s->drop * (double)(s->limit - ret->time);
	return ret->loss + joint_future(&d->stages, s, future, ret->time) <= d->budget;
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
	struct cursor future = {.time = s->future.start, .value = s->future.value};
	struct label *swap = d->merged, next;
	int n = 0, i = 0;

	for (int k = 0; k < d->n; k++) {
		if (!extend(d, s, choice, k, &future, &next))
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

static void advance(struct dp *d, const struct stage *s, struct trace *traces)
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
		traces[i] = (struct trace){(uint16_t)d->labels[i].parent, (uint16_t)d->labels[i].choice};
}

static void offer_last(const struct dp *d, struct joint *j)
{
	int label = d->n - 1;

	for (int k = 0; k < j->n_groups; k++)
		memset(j->groups[k].next, 0, sizeof(j->groups[k].next));
	for (int k = d->stages.n - 1; k >= 0; k--) {
		const struct stage *s = &d->stages.stages[k];
		const struct trace *t = &d->traces[(size_t)k * (size_t)d->width + (size_t)label];
		const struct choice *c = &s->choices[t->choice];

		if (c->item >= 0)
			j->groups[s->group].next[c->item] += s->size;
		label = t->parent;
	}
	joint_offer(j, PLAN_DP);
}

static bool allocate(struct dp *d, size_t stages)
{
	size_t width = (size_t)d->width;

	d->traces = calloc(stages * width + 1, sizeof(*d->traces));
	d->labels = calloc(3 * width, sizeof(*d->labels));
	d->merged = calloc(3 * width, sizeof(*d->merged));
	d->spare = calloc(3 * width, sizeof(*d->spare));
	return d->traces && d->labels && d->merged && d->spare;
}

double joint_labels(struct joint *j, int width)
{
	double margin = MARGIN * (joint_cut(j) - j->value), beyond = joint_cut(j) - margin;
	struct dp d = {.width = width, .budget = joint_budget(j) + margin};
	int r = joint_stages(j, d.budget, &d.stages);

	if ((r < 0 && r != -ERANGE) || !allocate(&d, (size_t)d.stages.n))
		goto out;
	d.labels[0] = (struct label){0};
	d.n = r == 0;
	for (int k = 0; k < d.stages.n && d.n; k++) {
		if (clock_monotonic_ns() > j->end_ns)
			goto out;
		advance(&d, &d.stages.stages[k], d.traces + (size_t)k * (size_t)width);
	}
	if (d.n) {
		beyond = fmax(beyond, d.labels[d.n - 1].value);
		offer_last(&d, j);
	}
	if (d.stages.complete)
		j->bound = fmin(j->bound, beyond + d.thinned);
out:
	free(d.traces);
	free(d.labels);
	free(d.merged);
	free(d.spare);
	joint_stages_free(&d.stages);
	return d.stages.complete ? d.thinned / margin : 0;
}
