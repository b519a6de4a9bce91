/*
 * Of many mini-batches shares are rounded by their fractions: one more or less of FEW changes less than times do. Of FEW or less each
 * worker's best plans of up to AROUND mini-batches more or less than its share are made, and a DP over workers picks one of each.
 */
#include "sched/plan/partition.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define FEW    64 /* chosen: 2 % */
#define AROUND 3  /* measured: tests/sched/partition.c */
#define WINDOW (2 * AROUND + 2)
#define SUMS   (PARTITION_WORKERS * (WINDOW - 1) + 1)
/* Of equal value the shares nearest to the LP's: they are done sooner. */
#define NEAREST 1e-9
/* Vertices whose prices differ by less are passed together, so that workers that are equal but for noise have equal shares; chosen. */
#define SAME_PRICE 1e-3

struct curve { /* a worker's hull, the origin left out: ascending */
	double time, t[MAX_SUBMODELS], p[MAX_SUBMODELS];
	int n, at;
};

struct lp {
	struct curve curve[PARTITION_WORKERS];
	double x[PARTITION_WORKERS];
	double value; /* Σ p */
	bool all;     /* all `count` of them are in it */
};

static struct curve curve_of(const struct partition_worker *w)
{
	struct curve c = {.time = w->time_ns > 0 ? (double)w->time_ns : 0};
	double t = 0, p = 0;

	for (;;) {
		double steepest = 0;
		int next = -1;

		for (int i = 0; i < w->n; i++) {
			double slope = (w->submodels[i].accuracy - p) / ((double)w->submodels[i].time_ns - t);

			if ((double)w->submodels[i].time_ns <= t || w->submodels[i].accuracy <= p)
				continue;
			if (next < 0 || slope > steepest ||
			    (slope == steepest && w->submodels[i].time_ns > w->submodels[next].time_ns)) {
				next = i;
				steepest = slope;
			}
		}
		if (next < 0)
			return c;
		c.t[c.n] = t = (double)w->submodels[next].time_ns;
		c.p[c.n++] = p = w->submodels[next].accuracy;
	}
}

static double count_at(const struct curve *c, int vertex)
{
	return c->n ? c->time / c->t[vertex] : 0;
}

/* At which it goes on to its next vertex: both are worth the same. */
static double price_of(const struct curve *c)
{
	int k = c->at;

	return k + 1 < c->n ? (c->p[k] * c->t[k + 1] - c->p[k + 1] * c->t[k]) / (c->t[k + 1] - c->t[k])
			    : INFINITY;
}

/* All of them are done at the same time, as soon as can be; the end of the T is common. */
static void fill(struct lp *lp, int n, double count)
{
	double longest = 0, low = 0, high;

	for (int w = 0; w < n; w++)
		longest = fmax(longest, lp->curve[w].time);
	high = longest;
	for (int i = 0; i < 60; i++) {
		double level = (low + high) / 2, sum = 0;

		for (int w = 0; w < n; w++) {
			const struct curve *c = &lp->curve[w];
			double from = longest - c->time;

			lp->x[w] = c->n && level > from ? (level - from) / c->t[c->n - 1] : 0;
			sum += lp->x[w];
		}
		if (sum < count)
			low = level;
		else
			high = level;
	}
}

/* Those whose price is next go on: as far as need be. */
static bool raise_price(struct lp *lp, int n, double same, double *sum, double count)
{
	double price = INFINITY, less = 0, part;

	for (int w = 0; w < n; w++)
		price = fmin(price, price_of(&lp->curve[w]));
	if (price == INFINITY)
		return false;
	for (int w = 0; w < n; w++) {
		const struct curve *c = &lp->curve[w];

		if (price_of(c) <= price + same)
			less += count_at(c, c->at) - count_at(c, c->at + 1);
	}
	part = less > 0 ? fmin((*sum - count) / less, 1) : 1;
	for (int w = 0; w < n; w++) {
		struct curve *c = &lp->curve[w];
		double from, to;

		if (price_of(c) > price + same)
			continue;
		from = count_at(c, c->at);
		to = count_at(c, c->at + 1);
		lp->x[w] -= part * (from - to);
		lp->value += part * (to * c->p[c->at + 1] - from * c->p[c->at]);
		c->at++;
	}
	*sum -= part * less;
	return part >= 1;
}

static void solve(struct lp *lp, const struct partition_worker *worker, int n, double same, double count)
{
	double sum = 0;

	*lp = (struct lp){0};
	for (int w = 0; w < n; w++) {
		struct curve *c = &lp->curve[w];

		*c = curve_of(&worker[w]);
		lp->x[w] = count_at(c, 0);
		lp->value += c->n ? lp->x[w] * c->p[0] : 0;
		sum += lp->x[w];
	}
	if (sum < count)
		return;
	lp->all = true;
	while (raise_price(lp, n, same, &sum, count))
		;
	if (sum > count * (1 + 1e-9)) { /* each is on its most accurate one */
		fill(lp, n, count);
		lp->value = 0;
		for (int w = 0; w < n; w++)
			lp->value += lp->curve[w].n ? lp->x[w] * lp->curve[w].p[lp->curve[w].n - 1] : 0;
	}
}

/* By the largest fractions. */
static void round_shares(const struct lp *lp, int n, int64_t count, int64_t share[])
{
	double rest[PARTITION_WORKERS] = {0};
	int64_t left = count;

	for (int w = 0; w < n; w++) {
		share[w] = (int64_t)lp->x[w];
		rest[w] = lp->x[w] - (double)share[w];
		left -= share[w];
	}
	for (; left > 0; left--) {
		int most = 0;

		for (int w = 1; w < n; w++)
			most = rest[w] > rest[most] ? w : most;
		share[most]++;
		rest[most] -= 1;
	}
}

/* Σ p of the worker's own best plan. */
static double local(struct planner *pl, partition_plan plan, const struct partition_worker *w, int64_t count,
		    int batch)
{
	struct plan local;

	if (count <= 0 || w->time_ns <= 0 || !w->n ||
	    plan(pl,
		 &(struct plan_request){.n_submodels = w->n,
					.submodels = w->submodels,
					.instances = count * batch,
					.batch = batch,
					.deadline_ns = w->time_ns},
		 &local) < 0)
		return 0;
	return local.p_eff * (double)count;
}

struct choices {
	double best[SUMS]; /* of the workers so far, by how many more than Σ least they have; < 0: none */
	int8_t more[PARTITION_WORKERS][SUMS]; /* what the last of them has then */
	int64_t least[PARTITION_WORKERS];
	int n_sums;
};

static void add_worker(struct choices *c, int w, const double *value, int n_values)
{
	double best[SUMS];
	int n_sums = c->n_sums + n_values - 1;

	for (int s = 0; s < n_sums; s++)
		best[s] = -1;
	for (int s = 0; s < c->n_sums; s++)
		for (int k = 0; c->best[s] >= 0 && k < n_values; k++)
			if (c->best[s] + value[k] > best[s + k]) {
				best[s + k] = c->best[s] + value[k];
				c->more[w][s + k] = (int8_t)k;
			}
	memcpy(c->best, best, (size_t)n_sums * sizeof(*best));
	c->n_sums = n_sums;
}

static void choose(struct planner *pl, partition_plan plan, const struct partition_worker *worker, int n,
		   const struct lp *lp, int64_t count, int batch, int64_t share[])
{
	struct choices c = {.n_sums = 1};
	int64_t left = count;
	int s = 0;

	for (int w = 0; w < n; w++) {
		int64_t low = (int64_t)lp->x[w] - AROUND, high = (int64_t)ceil(lp->x[w]) + AROUND;
		double value[WINDOW];
		int n_values = 0;

		low = low > 0 ? low : 0;
		high = high < count ? high : count;
		for (int64_t k = low; k <= high; k++) {
			double off = (double)k - lp->x[w];

			/* below the Σ of these values nothing differs by as little */
			value[n_values++] = local(pl, plan, &worker[w], k, batch) +
					    NEAREST * ((double)count * (double)count - off * off);
		}
		c.least[w] = low;
		left -= low;
		add_worker(&c, w, value, n_values);
	}
	for (int i = 1; i < c.n_sums && i <= left; i++)
		if (c.best[i] > c.best[s])
			s = i;
	for (int w = n - 1; w >= 0; w--) {
		share[w] = c.least[w] + c.more[w][s];
		s -= c.more[w][s];
	}
}

void partition(struct planner *pl, partition_plan plan, const struct partition_worker *w, int n,
	       int64_t count, int batch, int64_t share[])
{
	struct lp lp;

	solve(&lp, w, n, SAME_PRICE, (double)count);
	if (count <= FEW)
		choose(pl, plan, w, n, &lp, count, batch, share);
	else if (lp.all)
		round_shares(&lp, n, count, share);
	else
		for (int i = 0; i < n; i++)
			share[i] = lp.x[i] > 0 ? count : 0;
}

double partition_bound(const struct partition_worker *w, int n, double count)
{
	struct lp lp;

	solve(&lp, w, n, 0, count);
	return lp.value;
}
