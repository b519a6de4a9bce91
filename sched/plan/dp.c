/*
 * The two-dimensional unbounded knapsack: best[c][d] is the largest value of at most c mini-batches in d
 * cells of time,
 *
 *	best[c][d] = max(best[c-1][d], max_i best[c-1][d - t_i] + v_i)
 *
 * and the mini-batch that is not full is tried with each sub-model at the end. A cell is the greatest common
 * divisor of all times where the table is then small enough: exact. Otherwise times are rounded up to cells
 * of D / MAX_CELLS, which never breaks the deadline but may miss the optimum; then only the LP's
 * bound can prove it. When there are more mini-batches than rows, the LP's optimum less a margin is given
 * out beforehand and the table decides about the rest.
 *
 * Work is bounded by MAX_TABLE·K steps.
 */
#include "sched/plan/internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CELLS 4096
#define MAX_ROWS  256
#define MAX_TABLE (MAX_CELLS * MAX_ROWS)
#define MARGIN    24 /* mini-batches of each sub-model that the LP's optimum does not decide; chosen */

/* Gives out the LP's optimum but for a margin; the rest of the time and of the mini-batches stays. */
static void give_base(const struct problem *p, int64_t time, int64_t base[], int64_t *count, int64_t *left)
{
	struct hull h;
	double x;
	int v;

	hull_init(&h, p->items, p->n_items, ~0u);
	hull_lp(&h, (double)p->full, (double)time, &v, &x);
	for (int k = v; k >= v - 1 && k >= 1; k--) {
		int64_t n, most;
		int i;

		if (k > h.n)
			continue;
		i = h.item[k - 1];
		n = (int64_t)(k == v ? x : (double)p->full - x) - MARGIN;
		most = *left / p->items[i].time;
		n = n < most ? n : most;
		n = n < *count ? n : *count;
		if (n <= 0)
			continue;
		base[i] = n;
		*count -= n;
		*left -= n * p->items[i].time;
	}
}

void dp_solve(const struct problem *p, struct solution *best)
{
	int64_t base[MAX_SUBMODELS] = {0}, left = p->deadline, count = p->full, cell = 0, most, cells64;
	int64_t time[MAX_SUBMODELS], n[MAX_SUBMODELS];
	uint8_t *choice = NULL; /* (rows, cells): item + 1, 0: as the row before */
	double *value = NULL, *next = NULL, *swap;
	struct solution found = *best;
	bool exact;
	int rows, cells;

	for (int i = 0; i < p->n_items; i++)
		cell = plan_gcd(cell, p->items[i].time);
	for (int i = 0; i < p->n_parts; i++)
		cell = plan_gcd(cell, p->parts[i].time);
	if (!cell) { /* nothing fits */
		best->proved = true;
		return;
	}
	most = p->n_items ? p->deadline / p->items[0].time : 0;
	most = most < p->full ? most : p->full;
	/* More time than the slowest of all need does not matter. */
	cells64 = left / cell;
	if (p->n_items && (__int128)most * p->items[p->n_items - 1].time +
					  (p->n_parts ? p->parts[p->n_parts - 1].time : 0) <
				  left)
		cells64 = (most * p->items[p->n_items - 1].time +
			   (p->n_parts ? p->parts[p->n_parts - 1].time : 0)) /
			  cell;
	exact = most <= MAX_TABLE && cells64 < MAX_TABLE && (most + 1) * (cells64 + 1) <= MAX_TABLE;
	if (!exact) {
		int64_t reserve = p->n_parts ? p->parts[p->n_parts - 1].time : 0;

		if (most > MAX_ROWS)
			give_base(p, left - reserve > 0 ? left - reserve : 0, base, &count, &left);
		most = p->n_items ? left / p->items[0].time : 0;
		most = most < count ? most : count;
		most = most < MAX_ROWS ? most : MAX_ROWS - 1;
		if (p->n_items && (__int128)most * p->items[p->n_items - 1].time + reserve < left)
			left = most * p->items[p->n_items - 1].time + reserve;
		cell = left / (MAX_CELLS - 1) + 1;
		cells64 = left / cell;
	}
	rows = (int)most + 1;
	cells = (int)cells64 + 1;
	for (int i = 0; i < p->n_items; i++)
		time[i] = (p->items[i].time - 1) / cell + 1;

	choice = calloc((size_t)rows * (size_t)cells, sizeof(*choice));
	value = calloc((size_t)cells, sizeof(*value));
	next = calloc((size_t)cells, sizeof(*next));
	if (!choice || !value || !next)
		goto out;
	for (int c = 1; c < rows; c++) {
		uint8_t *row = choice + (size_t)c * (size_t)cells;

		memcpy(next, value, (size_t)cells * sizeof(*next));
		for (int i = 0; i < p->n_items; i++)
			for (int64_t d = time[i]; d < cells; d++) {
				double v = value[d - time[i]] + p->items[i].value;

				if (v > next[d]) {
					next[d] = v;
					row[d] = (uint8_t)(i + 1);
				}
			}
		swap = value;
		value = next;
		next = swap;
	}
	for (int j = -1; j < p->n_parts; j++) {
		int64_t d = cells - 1 - (j < 0 ? 0 : (p->parts[j].time - 1) / cell + 1);
		struct solution s = {.part = j < 0 ? -1 : p->parts[j].index};

		if (d < 0)
			continue;
		memcpy(n, base, sizeof(n));
		for (int c = rows - 1; c > 0; c--) {
			int i = choice[(size_t)c * (size_t)cells + (size_t)d];

			if (i) {
				n[i - 1]++;
				d -= time[i - 1];
			}
		}
		for (int i = 0; i < p->n_items; i++)
			s.n[p->items[i].index] = n[i];
		if (problem_check(p, &s) == 0 && s.value > found.value)
			found = s;
	}
	*best = found;
	best->proved = exact || problem_closed(p, p->bound, best->value);
out:
	free(choice);
	free(value);
	free(next);
}

int plan_by_dp(const struct plan_request *request, struct plan *ret)
{
	struct solution s = SOLUTION_NONE;
	struct problem p;
	int r = problem_init(&p, request);

	if (r < 0)
		return r;
	dp_solve(&p, &s);
	if (!s.proved)
		return -EAGAIN;
	problem_plan(&p, &s, PLAN_DP, ret);
	return 0;
}
