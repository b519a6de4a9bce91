/*
 * The LP relaxation is solved by looking at the upper hull of (t_i, v_i) with the origin: with m mini-batches
 * in d ns it is m·h(d/m), h the hull, flat beyond its end; its optimum mixes the two vertices around d/m.
 *
 * hull_solve rounds that optimum and goes on from there: depth first over the sub-models, those that the LP
 * does not use first, each count from its LP value outward. The LP of what is left bounds each choice, and as
 * it is concave in the choice, the first one that can't beat the best ends its direction. Mostly a few
 * dozen nodes prove the optimum; where more than max_nodes are needed, the best so far stays unproved.
 * All times and counts are exact integers; doubles only bound values.
 */
#include "sched/plan/internal.h"

#include <errno.h>
#include <math.h>
#include <string.h>

void hull_init(struct hull *h, const struct item *items, int n, unsigned mask)
{
	h->n = 0;
	h->time[0] = h->value[0] = h->slope[0] = 0;
	for (int i = 0; i < n; i++) {
		double slope;

		if (!(mask & (1u << i)))
			continue;
		for (;; h->n--) {
			slope = (items[i].value - h->value[h->n]) / ((double)items[i].time - h->time[h->n]);
			if (!h->n || slope < h->slope[h->n])
				break;
		}
		if (slope <= 0)
			continue;
		h->item[h->n++] = i;
		h->time[h->n] = (double)items[i].time;
		h->value[h->n] = items[i].value;
		h->slope[h->n] = slope;
	}
}

double hull_lp(const struct hull *h, double m, double d, int *ret_v, double *ret_x)
{
	int v = 1;

	while (v <= h->n && h->time[v] * m <= d)
		v++;
	*ret_v = v;
	if (v > h->n) {
		*ret_x = 0;
		return m * h->value[h->n];
	}
	d -= h->time[v - 1] * m;
	*ret_x = d / (h->time[v] - h->time[v - 1]);
	return m * h->value[v - 1] + d * h->slope[v];
}

struct search {
	const struct problem *p;
	struct solution *best;
	int part;                             /* request index of this case; -1 */
	int order[MAX_SUBMODELS];             /* of p->items */
	struct hull hulls[MAX_SUBMODELS + 1]; /* [d]: of what comes from order[d] on */
	int64_t counts[MAX_SUBMODELS];        /* of order[…] */
	int nodes;                            /* left */
};

static void leaf(struct search *s, double value)
{
	const struct problem *p = s->p;

	if (value <= s->best->value)
		return;
	*s->best = (struct solution){.part = s->part, .value = value};
	for (int i = 0; i < p->n_items; i++)
		s->best->n[p->items[s->order[i]].index] = s->counts[i];
}

static void descend(struct search *s, int depth, int64_t m, int64_t d, double value);

/* Gives order[depth] that many; false: this direction can't beat the best any more. */
static bool try_count(struct search *s, int depth, int64_t count, int64_t m, int64_t d, double value)
{
	const struct item *item = &s->p->items[s->order[depth]];
	double x;
	int v;

	m -= count;
	d -= count * item->time;
	value += (double)count * item->value;
	s->nodes--;
	if (problem_closed(s->p, value + hull_lp(&s->hulls[depth + 1], (double)m, (double)d, &v, &x),
			   s->best->value))
		return false;
	s->counts[depth] = count;
	descend(s, depth + 1, m, d, value);
	return true;
}

static void descend(struct search *s, int depth, int64_t m, int64_t d, double value)
{
	const struct problem *p = s->p;
	const struct hull *h = &s->hulls[depth];
	const struct item *item;
	int64_t most, count;
	int v;
	double x;

	if (depth == p->n_items) {
		leaf(s, value);
		return;
	}
	item = &p->items[s->order[depth]];
	most = d / item->time < m ? d / item->time : m;
	if (depth == p->n_items - 1) {
		s->counts[depth] = most;
		leaf(s, value + (double)most * item->value);
		return;
	}
	hull_lp(h, (double)m, (double)d, &v, &x);
	if (v <= h->n && h->item[v - 1] == s->order[depth])
		count = (int64_t)x;
	else if (v > 1 && h->item[v - 2] == s->order[depth])
		count = (int64_t)((double)m - x);
	else
		count = 0;
	count = count < 0 ? 0 : count > most ? most : count;
	for (int64_t n = count; n >= 0 && s->nodes > 0; n--)
		if (!try_count(s, depth, n, m, d, value))
			break;
	for (int64_t n = count + 1; n <= most && s->nodes > 0; n++)
		if (!try_count(s, depth, n, m, d, value))
			break;
}

/* What the LP does not use comes first, the worst of it foremost: few or none of it are in an optimum. */
static void set_order(struct search *s, const struct hull *all, int v)
{
	const struct problem *p = s->p;
	double loss[MAX_SUBMODELS];
	unsigned mask = 0;

	for (int i = 0; i < p->n_items; i++) {
		/* How far below the line through the optimum's two vertices; 0 for these. */
		double slope = v <= all->n ? all->slope[v] : 0;
		double item_loss = all->value[v - 1] + ((double)p->items[i].time - all->time[v - 1]) * slope -
				   p->items[i].value;
		int k = i;

		if ((v <= all->n && all->item[v - 1] == i) || (v > 1 && all->item[v - 2] == i))
			item_loss = -1;
		for (; k && loss[k - 1] < item_loss; k--) {
			loss[k] = loss[k - 1];
			s->order[k] = s->order[k - 1];
		}
		loss[k] = item_loss;
		s->order[k] = i;
	}
	for (int i = p->n_items; i >= 0; i--) {
		if (i < p->n_items)
			mask |= 1u << s->order[i];
		hull_init(&s->hulls[i], p->items, p->n_items, mask);
	}
}

struct branch { /* a case of the mini-batch that is not full */
	int part;
	int64_t deadline;
	double value, bound;
	int v;
};

void hull_solve(const struct problem *p, struct solution *best, int max_nodes)
{
	struct branch branches[MAX_SUBMODELS + 1];
	struct search s = {.p = p, .best = best, .nodes = max_nodes};
	struct hull all;
	double x;

	hull_init(&all, p->items, p->n_items, ~0u);
	for (int i = 0; i <= p->n_parts; i++) {
		struct branch b = {.part = -1, .deadline = p->deadline};
		int k = i;

		if (i < p->n_parts)
			b = (struct branch){.part = p->parts[i].index,
					    .deadline = p->deadline - p->parts[i].time,
					    .value = p->parts[i].value};
		b.bound = b.value + hull_lp(&all, (double)p->full, (double)b.deadline, &b.v, &x);
		for (; k && branches[k - 1].bound < b.bound; k--)
			branches[k] = branches[k - 1];
		branches[k] = b;
	}
	for (int i = 0; i <= p->n_parts && s.nodes > 0; i++) {
		const struct branch *b = &branches[i];

		if (problem_closed(p, b->bound, best->value))
			break;
		s.part = b->part;
		set_order(&s, &all, b->v);
		descend(&s, 0, p->full, b->deadline, b->value);
	}
	best->proved = s.nodes > 0;
}

int plan_by_hull(const struct plan_request *request, struct plan *ret)
{
	struct solution s = SOLUTION_NONE;
	struct problem p;
	int r = problem_init(&p, request);

	if (r < 0)
		return r;
	hull_solve(&p, &s, HULL_NODES);
	if (!s.proved)
		return -EAGAIN;
	problem_plan(&p, &s, PLAN_HULL, ret);
	return 0;
}
