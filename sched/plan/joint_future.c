/*
 * The least that what comes after a stage can lose, by how much time the stages so far take: too little leaves
 * time unused where that costs (struct stage's drop) or makes later groups slower for little gain, too much
 * makes them fast. As for the LP, each later group may mix its choices, so that the function is convex:
 *
 *	future_s-1(T) = min over mixes of choices of stage s (loss + G_s(T + time)),
 *	G_s(T) = future_s(T) + drop_s·(D - T) for T ≤ D, when s is its task's last; future_s(T) otherwise
 *
 * which is an infimal convolution: the edges of G_s and of the choices' lower hull, merged by slope. Where it
 * is larger than the budget it is cut off, which leaves few edges. In doubles, with a nanosecond allowed for
 * rounding: struct stage's high keeps the deadlines exactly.
 */
#include "sched/plan/joint_internal.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLACK_NS  1         /* and 1e-12 of the time */
#define MAX_EDGES (1 << 22) /* 64 MiB; chosen */

struct curve {
	double start, value; /* value at start */
	int n;
	struct edge *edges; /* by slope, ascending */
};

/* Ends the curve at `end`. */
static void cut_right(struct curve *c, double end)
{
	double time = c->start;

	for (int i = 0; i < c->n; i++) {
		if (time + c->edges[i].length >= end) {
			c->edges[i].length = fmax(end - time, 0);
			c->n = i + 1;
			return;
		}
		time += c->edges[i].length;
	}
}

/* Leaves what is within the budget; -ERANGE: nothing is. */
static int cut_budget(struct curve *c, double budget)
{
	double value;
	int skip = 0;

	for (; skip < c->n && c->value > budget; skip++) {
		struct edge *e = &c->edges[skip];
		double end = c->value + e->length * e->slope, part;

		if (e->slope >= 0)
			return -ERANGE;
		if (end > budget) {
			c->value = end;
			c->start += e->length;
			continue;
		}
		part = (budget - c->value) / e->slope;
		e->length -= part;
		c->start += part;
		c->value = budget;
		break;
	}
	if (c->value > budget)
		return -ERANGE;
	c->n -= skip;
	memmove(c->edges, c->edges + skip, (size_t)c->n * sizeof(*c->edges));
	value = c->value;
	for (int i = 0; i < c->n; i++) {
		struct edge *e = &c->edges[i];

		if (value + e->length * e->slope > budget) {
			e->length = (budget - value) / e->slope;
			c->n = i + 1;
			break;
		}
		value += e->length * e->slope;
	}
	return 0;
}

/* The lower hull of (-time, loss): starts at the slowest choice. */
static struct curve choices_hull(const struct stage *s, struct edge edges[])
{
	double time[MAX_SUBMODELS + 1] = {0}, loss[MAX_SUBMODELS + 1] = {0};
	int order[MAX_SUBMODELS + 1] = {0}, n = 0;
	struct curve c = {.edges = edges};

	for (int i = 0; i < s->n_choices; i++) {
		int k;

		for (k = i; k && s->choices[order[k - 1]].time < s->choices[i].time; k--)
			order[k] = order[k - 1];
		order[k] = i;
	}
	for (int i = 0; i < s->n_choices; i++) {
		double t = -(double)s->choices[order[i]].time, l = s->choices[order[i]].loss;

		if (n && t == time[n - 1] && l >= loss[n - 1])
			continue;
		if (n && t == time[n - 1])
			n--;
		for (; n > 1 && (loss[n - 1] - loss[n - 2]) * (t - time[n - 1]) >=
					(l - loss[n - 1]) * (time[n - 1] - time[n - 2]);)
			n--;
		time[n] = t;
		loss[n++] = l;
	}
	c.start = time[0];
	c.value = loss[0];
	for (int i = 1; i < n; i++)
		edges[c.n++] = (struct edge){time[i] - time[i - 1],
					     (loss[i] - loss[i - 1]) / (time[i] - time[i - 1])};
	return c;
}

/* c becomes its infimal convolution with the choices; room (n + MAX_SUBMODELS) for its edges. */
static void add_choices(struct curve *c, const struct stage *s, struct edge *room)
{
	struct edge edges[MAX_SUBMODELS];
	struct curve hull = choices_hull(s, edges);
	int i = 0, k = 0, n = 0;

	while (i < c->n || k < hull.n)
		if (k == hull.n || (i < c->n && c->edges[i].slope <= hull.edges[k].slope))
			room[n++] = c->edges[i++];
		else
			room[n++] = hull.edges[k++];
	c->start += hull.start;
	c->value += hull.value;
	c->n = n;
	memcpy(c->edges, room, (size_t)n * sizeof(*room));
}

static int keep(struct stages *stages, struct stage *s, const struct curve *c)
{
	if (c->n > MAX_EDGES - stages->n_edges)
		return -ENOMEM;
	if (stages->n_edges + c->n > stages->max_edges) {
		int max = 2 * stages->max_edges + c->n + 1024;
		struct edge *edges = realloc(stages->edges, (size_t)max * sizeof(*edges));

		if (!edges)
			return -ENOMEM;
		stages->edges = edges;
		stages->max_edges = max;
	}
	s->future = (struct future){c->start, c->value, stages->n_edges, c->n};
	memcpy(stages->edges + stages->n_edges, c->edges, (size_t)c->n * sizeof(*c->edges));
	stages->n_edges += c->n;
	return 0;
}

int joint_futures(struct stages *stages, double budget, int64_t end_ns)
{
	size_t most = (size_t)stages->n * MAX_SUBMODELS + 1;
	struct curve c = {.edges = malloc(2 * most * sizeof(struct edge))};
	int r = c.edges ? 0 : -ENOMEM;

	if (stages->n && r == 0)
		c.edges[c.n++] = (struct edge){(double)stages->stages[stages->n - 1].limit, 0};
	for (int k = stages->n - 1; k >= 0 && r == 0; k--) {
		struct stage *s = &stages->stages[k];

		if (s->limit) {
			cut_right(&c, (double)s->limit);
			r = keep(stages, s, &c);
			c.value += s->drop * ((double)s->limit - c.start);
			for (int i = 0; i < c.n; i++)
				c.edges[i].slope -= s->drop;
		} else {
			r = keep(stages, s, &c);
		}
		if (r == 0 && clock_monotonic_ns() > end_ns)
			r = -ETIME;
		if (r == 0)
			r = cut_budget(&c, budget);
		if (r < 0)
			break;
		add_choices(&c, s, c.edges + most);
		r = cut_budget(&c, budget);
	}
	free(c.edges);
	return r;
}

double joint_future(const struct stages *stages, const struct stage *s, struct cursor *c, int64_t time)
{
	const struct edge *edges = stages->edges + s->future.edge;
	double t = (double)time, slack = SLACK_NS + 1e-12 * t;

	if (t + slack < s->future.start)
		return INFINITY;
	for (; c->edge < s->future.n && c->time + edges[c->edge].length < t; c->edge++) {
		c->time += edges[c->edge].length;
		c->value += edges[c->edge].length * edges[c->edge].slope;
	}
	if (c->edge == s->future.n)
		return t > c->time + slack ? INFINITY : c->value;
	return c->value + fmax(t - c->time, 0) * edges[c->edge].slope;
}
