/*
 * The LP relaxation of several tasks, exactly, by giving the hulls' segments time in order of value per time.
 *
 * Think of a segment as unit jobs, one a nanosecond, each worth its slope and due at its task's deadline. The
 * sets of unit jobs that can all be in time are the independent sets of a matroid, so that taking jobs in order
 * of worth wherever the set stays independent is optimal (Lawler, Combinatorial Optimization, 1976, chapter
 * 7; for the chain of prefix constraints as a polymatroid: Federgruen and Groenevelt, Operations Research 34,
 * 1986). A hull's segments have descending slopes, so a mini-batch's first comes first by itself. Nothing is
 * lost by whole nanoseconds: deadlines and the segments' lengths are whole, and a polymatroid of whole ranks has
 * whole vertices.
 *
 * A set is independent if each job finds a nanosecond of its own before its deadline: each takes the latest
 * that is free. Between two deadlines all are alike, so there are n_tasks intervals; those that are full
 * are skipped by union-find.
 *
 * When a segment of task t finds too little, all intervals up to t are full, perhaps some more after it: say up
 * to k. No task up to k gets anything more, what is to come is worth no more, and so those of them that have
 * no price yet get this slope. These prices are the dual optimum: a segment that is steeper than its task's
 * price was taken whole, one that is less steep not at all; and where the price drops, after k, D_k is used up, as
 * later tasks took nothing from intervals up to k while the one after it had some left.
 */
#include "sched/plan/joint_internal.h"

#include <errno.h>
#include <stdlib.h>

struct segment {
	double slope;
	int group, vertex; /* from vertex - 1 to this one */
};

static int compare(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;

	if (x->slope != y->slope)
		return x->slope < y->slope ? 1 : -1;
	return x->group != y->group ? x->group - y->group : x->vertex - y->vertex;
}

static int64_t vertex_time(const struct group *g, int vertex)
{
	return vertex ? g->items[g->hull.item[vertex - 1]].time : 0;
}

/* The last interval up to k that is not full; -1. intervals[k + 1] is where to look when k is full. */
static int find(int *parents, int k)
{
	int root = k, next;

	while (parents[root + 1] != root)
		root = parents[root + 1];
	for (; k != root; k = next) {
		next = parents[k + 1];
		parents[k + 1] = root;
	}
	return root;
}

static void set_losses(const struct joint *j, struct group *g)
{
	double price = j->price[g->task];

	g->worth = 0;
	for (int i = 0; i < g->n_items; i++) {
		double worth = g->items[i].value - price * (double)g->items[i].time;

		g->loss[i] = -worth;
		if (worth > g->worth)
			g->worth = worth;
	}
	for (int i = 0; i < g->n_items; i++)
		g->loss[i] += g->worth;
}

int joint_lp(struct joint *j)
{
	struct segment *segments = malloc((size_t)j->n_groups * MAX_SUBMODELS * sizeof(*segments) + 1);
	int64_t *free_ns = malloc((size_t)j->n_tasks * sizeof(*free_ns));
	int *parents = malloc(((size_t)j->n_tasks + 1) * sizeof(*parents));
	int n = 0, priced = 0, r = -ENOMEM;

	if (!segments || !free_ns || !parents)
		goto out;
	parents[0] = -1;
	for (int t = 0; t < j->n_tasks; t++) {
		free_ns[t] = j->limits[t] - (t ? j->limits[t - 1] : 0);
		parents[t + 1] = free_ns[t] ? t : t - 1;
	}
	for (int i = 0; i < j->n_groups; i++) {
		struct group *g = &j->groups[i];

		hull_init(&g->hull, g->items, g->n_items, ~0u);
		g->time = g->vertex = 0;
		g->critical = -1;
		for (int v = 1; v <= g->hull.n; v++)
			segments[n++] = (struct segment){g->hull.slope[v], i, v};
	}
	qsort(segments, (size_t)n, sizeof(*segments), compare);
	j->lp = 0;
	for (int i = 0; i < n; i++) {
		const struct segment *s = &segments[i];
		struct group *g = &j->groups[s->group];
		__int128 need =
			(__int128)g->count * (vertex_time(g, s->vertex) - vertex_time(g, s->vertex - 1));
		int64_t taken = 0;

		for (int k = find(parents, g->task); need && k >= 0; k = find(parents, k)) {
			int64_t take = need < free_ns[k] ? (int64_t)need : free_ns[k];

			need -= take;
			taken += take;
			free_ns[k] -= take;
			if (!free_ns[k])
				parents[k + 1] = k - 1;
		}
		g->time += taken;
		j->lp += (double)taken * s->slope;
		if (!need) {
			g->vertex = s->vertex;
			continue;
		}
		if (priced > g->task)
			continue;
		for (; priced < j->n_tasks && (priced <= g->task || !free_ns[priced]); priced++)
			j->price[priced] = s->slope;
		g->critical = priced - 1;
	}
	for (; priced <= j->n_tasks; priced++)
		j->price[priced] = 0;
	for (int i = 0; i < j->n_groups; i++)
		set_losses(j, &j->groups[i]);
	j->bound = j->lp;
	r = 0;
out:
	free(segments);
	free(free_ns);
	free(parents);
	return r;
}
