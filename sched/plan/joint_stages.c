/*
 * What joint_labels decides, one by one. A group of many mini-batches has far too many ways to choose from; the
 * budget rules out nearly all. Say its items (and being dropped) are in order of what one mini-batch loses on
 * them: at most budget ÷ loss of the second mini-batches can be elsewhere than on the first. When these are few,
 * each is a stage of its own with all choices, and the rest is one stage with one choice.
 *
 * When they are many, since the LP mixes the first two for nothing, the same is done with the third, and the
 * rest is cut in sizes 1, 2, 4, … and what remains, each as a whole on the first or on the second: sums of
 * such sizes are all numbers, so that any mix is there. When even those elsewhere are many, only UNITS of them
 * are tried, which may find a better solution but proves nothing.
 */
#include "sched/plan/joint_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define UNITS  12 /* chosen: stages that a large group may cost */
#define SIZES  41 /* of 1, 2, 4, … up to planner_plan's most mini-batches, and what remains */
#define STAGES (UNITS + SIZES)

static double item_loss(const struct group *g, int item)
{
	return item < 0 ? g->worth : g->loss[item];
}

/* The items (-1: dropped) that one mini-batch may be on, the one that loses least first; how many. */
static int set_order(const struct group *g, double budget, int order[])
{
	int n = 0;

	for (int i = -1; i < g->n_items; i++) {
		double loss = item_loss(g, i);
		int k;

		if (loss > budget)
			continue;
		for (k = n++; k && item_loss(g, order[k - 1]) > loss; k--)
			order[k] = order[k - 1];
		order[k] = i;
	}
	return n;
}

/* How many mini-batches the budget allows on what loses that much each. */
static int64_t allowed(const struct group *g, double budget, double loss)
{
	double n = loss > 0 ? budget / loss : INFINITY;

	return n < (double)g->count ? (int64_t)n : g->count;
}

static void add_stage(struct stages *ret, const struct joint *j, int group, int64_t size, const int order[],
		      int n_order)
{
	const struct group *g = &j->groups[group];
	struct stage *s = &ret->stages[ret->n++];

	*s = (struct stage){.group = group, .size = size, .high = j->limits[g->task]};
	for (int k = 0; k < n_order; k++) {
		int i = order[k];
		struct choice *c = &s->choices[s->n_choices];

		*c = (struct choice){.item = i, .loss = (double)size * item_loss(g, i)};
		if (i >= 0) {
			if (size > s->high / g->items[i].time)
				continue;
			c->time = size * g->items[i].time;
			c->value = (double)size * g->items[i].value;
		}
		s->n_choices++;
	}
}

static void add_group(struct stages *ret, const struct joint *j, double budget, int group)
{
	const struct group *g = &j->groups[group];
	int order[MAX_SUBMODELS + 1] = {0}, n = set_order(g, budget, order), base = 1;
	int64_t units = n > 1 ? allowed(g, budget, item_loss(g, order[1])) : 0, rest;

	if (units > UNITS) {
		base = 2;
		units = n > 2 ? allowed(g, budget, item_loss(g, order[2])) : 0;
	}
	if (units > UNITS) {
		units = UNITS;
		ret->complete = false;
	}
	rest = g->count - units;
	for (int64_t size = base == 1 ? rest : 1; rest; size = 2 * size < rest ? 2 * size : rest) {
		add_stage(ret, j, group, size, order, base);
		rest -= size;
	}
	for (; units; units--)
		add_stage(ret, j, group, 1, order, n);
}

/* -ERANGE: no choices keep the deadlines. */
static int set_highs(struct stages *ret)
{
	int64_t high = INT64_MAX;

	for (int k = ret->n - 1; k >= 0; k--) {
		struct stage *s = &ret->stages[k];
		int64_t least = INT64_MAX;

		high = s->high < high ? s->high : high;
		s->high = high;
		for (int c = 0; c < s->n_choices; c++)
			least = s->choices[c].time < least ? s->choices[c].time : least;
		if (least > high)
			return -ERANGE;
		high -= least;
	}
	return 0;
}

/* Room for a group's more. */
static int grow(struct stages *s)
{
	int max = 2 * (s->max_stages + STAGES);
	struct stage *stages;

	if (s->max_stages - s->n >= STAGES)
		return 0;
	stages = realloc(s->stages, (size_t)max * sizeof(*stages));
	if (!stages)
		return -ENOMEM;
	s->stages = stages;
	s->max_stages = max;
	return 0;
}

int joint_stages(const struct joint *j, double budget, struct stages *ret)
{
	int r;

	*ret = (struct stages){.complete = true};
	for (int k = 0; k < j->n_groups; k++) {
		int task = j->groups[k].task;

		if (grow(ret) < 0)
			return -ENOMEM;
		add_group(ret, j, budget, k);
		if (k < j->n_groups - 1 && j->groups[k + 1].task == task)
			continue;
		/* A task without groups has the price of the next. */
		ret->stages[ret->n - 1].drop = j->price[task] - j->price[task + 1];
		ret->stages[ret->n - 1].limit = j->limits[task];
	}
	r = set_highs(ret);
	return r < 0 ? r : joint_futures(ret, budget, j->end_ns);
}

void joint_stages_free(struct stages *s)
{
	free(s->stages);
	free(s->edges);
}
