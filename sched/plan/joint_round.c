/*
 * Solutions from the LP's optimum: each group's time is rounded down to whole mini-batches, which keeps all
 * deadlines, and what that leaves goes to single mini-batches that gain most by it: one that was dropped, or
 * one that runs on a better sub-model.
 */
#include "sched/plan/joint_internal.h"

#include <errno.h>
#include <string.h>

static int64_t dropped(const struct group *g)
{
	int64_t n = g->count;

	for (int i = 0; i < g->n_items; i++)
		n -= g->next[i];
	return n;
}

static void set_room(struct joint *j)
{
	for (int t = j->n_tasks - 1; t >= 0; t--)
		j->room[t] = t + 1 < j->n_tasks && j->room[t + 1] < j->left[t] ? j->room[t + 1] : j->left[t];
}

int joint_room(struct joint *j)
{
	__int128 used = 0;
	int g = 0;

	for (int t = 0; t < j->n_tasks; t++) {
		for (; g < j->n_groups && j->groups[g].task == t; g++) {
			const struct group *group = &j->groups[g];

			for (int i = 0; i < group->n_items; i++) {
				if (group->next[i] < 0)
					return -ERANGE;
				used += (__int128)group->next[i] * group->items[i].time;
			}
			if (dropped(group) < 0)
				return -ERANGE;
		}
		if (used > j->limits[t])
			return -ERANGE;
		j->left[t] = j->limits[t] - (int64_t)used;
	}
	set_room(j);
	return 0;
}

void joint_use(struct joint *j, int task, int64_t time)
{
	for (int t = task; t < j->n_tasks; t++)
		j->left[t] -= time;
	set_room(j);
}

static void find_move(const struct joint *j, struct group *g)
{
	g->move = (struct move){.to = -1};
	for (int from = dropped(g) ? -1 : 0; from < g->n_items; from++) {
		struct item item = {0};

		if (from >= 0 && !g->next[from])
			continue;
		if (from >= 0)
			item = g->items[from];
		for (int to = g->n_items - 1; to > from; to--) {
			double gain = g->items[to].value - item.value;

			if (g->items[to].time - item.time > j->room[g->task])
				continue;
			if (gain > g->move.gain)
				g->move = (struct move){from, to, g->items[to].time - item.time, gain};
			break; /* those that are faster gain less */
		}
	}
}

/* As many as fit: each move uses up its room or what it moves, so there are few. */
static void make_move(struct joint *j, struct group *g)
{
	const struct move *m = &g->move;
	int64_t n = j->room[g->task] / m->time, most = m->from < 0 ? dropped(g) : g->next[m->from];

	n = n < most ? n : most;
	if (m->from >= 0)
		g->next[m->from] -= n;
	g->next[m->to] += n;
	joint_use(j, g->task, n * m->time);
	find_move(j, g);
}

static void fill(struct joint *j)
{
	struct group *best;

	for (int k = 0; k < j->n_groups; k++)
		find_move(j, &j->groups[k]);
	do {
		best = NULL;
		for (int k = 0; k < j->n_groups; k++) {
			struct group *g = &j->groups[k];

			if (g->move.to >= 0 && g->move.time > j->room[g->task])
				find_move(j, g);
			if (g->move.to >= 0 && (!best || g->move.gain > best->move.gain))
				best = g;
		}
		if (best)
			make_move(j, best);
	} while (best);
}

void joint_offer(struct joint *j, enum plan_method method)
{
	double value = 0;

	if (joint_room(j) < 0)
		return;
	fill(j);
	for (int g = 0; g < j->n_groups; g++)
		for (int i = 0; i < j->groups[g].n_items; i++)
			value += (double)j->groups[g].next[i] * j->groups[g].items[i].value;
	if (value <= j->value)
		return;
	j->value = value;
	j->method = method;
	for (int g = 0; g < j->n_groups; g++)
		memcpy(j->groups[g].n, j->groups[g].next, sizeof(j->groups[g].n));
}

void joint_round(struct joint *j)
{
	for (int k = 0; k < j->n_groups; k++) {
		struct group *g = &j->groups[k];
		int low = g->vertex ? g->hull.item[g->vertex - 1] : -1;
		int64_t low_time = low < 0 ? 0 : g->items[low].time, better = 0;

		memset(g->next, 0, sizeof(g->next));
		if (g->vertex < g->hull.n) {
			int high = g->hull.item[g->vertex];

			better =
				(int64_t)((g->time - g->count * low_time) / (g->items[high].time - low_time));
			g->next[high] = better;
		}
		if (low >= 0)
			g->next[low] = g->count - better;
	}
	joint_offer(j, PLAN_HULL);
}
