/*
 * The steps, in the order of their cost, until the gap is good enough: the LP and its optimum rounded; labels,
 * few at a time at first, since what they find makes the next ones' budget small; GLPK.
 */
#include "sched/plan/joint_internal.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define MIN_WEIGHT 1e-12
#define MAX_WEIGHT 1e12
#define TOLERANCE  1e-10 /* of the bound, when the optimum is asked for; the rounding of doubles is finer */

#define MIN_WIDTH 32   /* of labels; measured: fewer prove little */
#define MAX_WIDTH 8192 /* traces keep a label in 16 bits */

const struct joint_limits joint_default = {.gap = 0.005, .time_ns = 1500000};

double joint_cut(const struct joint *j)
{
	double cut = j->value + TOLERANCE * j->lp;

	if (j->gap < 1)
		cut = fmax(cut, j->value / (1 - j->gap));
	else
		cut = j->lp;
	return fmin(cut, j->lp);
}

double joint_budget(const struct joint *j)
{
	/* Sums of doubles may be off by some 1e-13. */
	return j->lp - joint_cut(j) + 1e-11 * j->lp;
}

bool joint_done(const struct joint *j)
{
	return j->bound <= joint_cut(j) * (1 + TOLERANCE / 100);
}

static int check(const struct joint_task *tasks, int n, const struct joint_limits *limits)
{
	if (n < 1 || !(limits->gap >= 0 && limits->gap <= 1) || limits->time_ns < 0)
		return -EINVAL;
	for (int t = 0; t < n; t++) {
		if (!(tasks[t].weight >= MIN_WEIGHT && tasks[t].weight <= MAX_WEIGHT))
			return -EINVAL;
		if (t && tasks[t].request.deadline_ns < tasks[t - 1].request.deadline_ns)
			return -EINVAL;
	}
	return 0;
}

static void add_group(struct joint *j, int task, bool part, double weight)
{
	const struct problem *p = &j->problems[task];
	const struct item *items = part ? p->parts : p->items;
	struct group *g = &j->groups[j->n_groups];

	g->task = task;
	g->part = part;
	g->count = part ? 1 : p->full;
	g->n_items = part ? p->n_parts : p->n_items;
	if (!g->n_items)
		return;
	for (int i = 0; i < g->n_items; i++) {
		g->items[i] = items[i];
		g->items[i].value *= weight;
		g->n[i] = 0;
	}
	j->n_groups++;
}

static int init(struct joint *j)
{
	size_t n = (size_t)j->n_tasks;
	double largest = 0;

	j->problems = malloc(n * sizeof(*j->problems));
	j->groups = malloc(2 * n * sizeof(*j->groups));
	j->limits = malloc(n * sizeof(*j->limits));
	j->left = malloc(n * sizeof(*j->left));
	j->room = malloc(n * sizeof(*j->room));
	j->price = malloc((n + 1) * sizeof(*j->price));
	if (!j->problems || !j->groups || !j->limits || !j->left || !j->room || !j->price)
		return -ENOMEM;
	for (int t = 0; t < j->n_tasks; t++)
		largest = fmax(largest, j->tasks[t].weight);
	for (int t = 0; t < j->n_tasks; t++) {
		double weight = j->tasks[t].weight / largest;
		int r = problem_init(&j->problems[t], &j->tasks[t].request);

		if (r < 0)
			return r;
		j->limits[t] = j->problems[t].deadline;
		j->total += weight * (double)j->tasks[t].request.instances;
		add_group(j, t, false, weight);
		add_group(j, t, true, weight);
	}
	return 0;
}

static void release(struct joint *j)
{
	free(j->problems);
	free(j->groups);
	free(j->limits);
	free(j->left);
	free(j->room);
	free(j->price);
}

static void solve(struct joint *j)
{
	int width = MIN_WIDTH;

	joint_round(j);
	while (!joint_done(j) && width <= MAX_WIDTH && clock_monotonic_ns() < j->end_ns) {
		double cost = joint_labels(j, width);

		if (cost == 0)
			break;
		/* Measured: four times the width costs a tenth or less. */
		width *= cost > 20 ? 16 : 4;
	}
	if (j->n_tasks <= JOINT_TASKS && !joint_done(j))
		joint_bnb(j);
}

/* The best solution as plans. problem_plan gives out what is worth nothing too: that comes out of the room. */
static void write_plans(struct joint *j, struct plan *plans)
{
	int g = 0;

	for (int k = 0; k < j->n_groups; k++)
		for (int i = 0; i < j->groups[k].n_items; i++)
			j->groups[k].next[i] = j->groups[k].n[i];
	joint_room(j);
	for (int t = 0; t < j->n_tasks; t++) {
		struct problem *p = &j->problems[t];
		struct solution s = SOLUTION_NONE;
		int64_t before, more;

		for (; g < j->n_groups && j->groups[g].task == t; g++) {
			const struct group *group = &j->groups[g];

			for (int i = 0; i < group->n_items; i++) {
				if (!group->part)
					s.n[group->items[i].index] = group->n[i];
				else if (group->n[i])
					s.part = group->items[i].index;
			}
		}
		before = (int64_t)problem_time(p, &s);
		p->deadline = before + j->room[t];
		problem_plan(p, &s, j->method, &plans[t]);
		more = (int64_t)problem_time(p, &s) - before;
		if (more)
			joint_use(j, t, more);
	}
}

int joint_plan(const struct joint_task *tasks, int n, const struct joint_limits *limits,
	       struct joint_plan *ret, struct plan *plans)
{
	int64_t start = clock_monotonic_ns();
	struct joint j = {.tasks = tasks, .n_tasks = n, .gap = limits->gap};
	int r = check(tasks, n, limits);

	if (r < 0)
		return r;
	j.end_ns = limits->time_ns < INT64_MAX - start ? start + limits->time_ns : INT64_MAX;
	r = init(&j);
	if (r < 0)
		goto out;
	r = joint_lp(&j);
	if (r < 0)
		goto out;
	solve(&j);
	write_plans(&j, plans);
	ret->value = j.value / j.total;
	ret->bound = fmax(j.bound, j.value) / j.total;
	ret->gap = ret->bound > 0 ? (ret->bound - ret->value) / ret->bound : 0;
	ret->method = j.method;
	ret->solve_ns = clock_monotonic_ns() - start;
out:
	release(&j);
	return r;
}
