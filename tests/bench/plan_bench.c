/*
 * How long planning takes: `bench-plan [CASES]` (target bench-plan). 4 sub-models of the paper's Table 3
 * with times and accuracies moved at random, N from 1 to 1e9 and D from nothing to more than enough, both
 * spread evenly over their logarithm and over the load. Figures, never pass or fail.
 */
#include "sched/plan/plan.h"

#include "engine/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct plan_submodel xray[] = {
	{0.7937, 45120000, 0}, {0.7188, 34560000, 0}, {0.7094, 22720000, 0}, {0.6512, 15680000, 0}};

static unsigned short seed[3] = {4, 2, 1};

static struct planner *planner;
static struct plan_request request;
static struct plan_submodel submodels[4];

static void make_request(void)
{
	double mean = 0;

	request = (struct plan_request){.n_submodels = 4, .submodels = submodels, .batch = 32};
	request.instances = (int64_t)exp(erand48(seed) * log(1e9));
	for (int i = 0; i < 4; i++) {
		submodels[i] = xray[i];
		submodels[i].time_ns = (int64_t)((double)xray[i].time_ns * (0.8 + 0.4 * erand48(seed)));
		submodels[i].time_one_ns = submodels[i].time_ns / 4;
		submodels[i].accuracy = round(1e4 * (xray[i].accuracy + 0.05 * erand48(seed))) / 1e4;
		mean += (double)submodels[i].time_ns / 4;
	}
	request.deadline_ns =
		(int64_t)(1.6 * erand48(seed) * mean * ceil((double)request.instances / request.batch));
}

static int by_planner(struct plan *ret)
{
	return planner_plan(planner, &request, ret);
}

static int by_hull(struct plan *ret)
{
	return plan_by_hull(&request, ret);
}

static int by_bnb(struct plan *ret)
{
	return plan_by_bnb(&request, ret);
}

static int by_dp(struct plan *ret)
{
	return plan_by_dp(&request, ret);
}

/* The planner was just asked the same. */
static int by_cache(struct plan *ret)
{
	int r = planner_plan(planner, &request, ret);

	return r == 0 && ret->method != PLAN_CACHE ? -1 : r;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static const struct {
	const char *name;
	int (*solve)(struct plan *ret);
	int share; /* one in so many cases */
} ways[] = {{"planner", by_planner, 1},
	    {"cache", by_cache, 1},
	    {"hull", by_hull, 1},
	    {"bnb", by_bnb, 1},
	    {"dp", by_dp, 20}};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

int main(int argc, char **argv)
{
	int cases = argc > 1 ? atoi(argv[1]) : 20000, n[WAYS] = {0}, proved[WAYS] = {0},
	    by[PLAN_METHODS] = {0};
	int64_t *ns[WAYS], start;
	struct plan plan;

	if (cases < 1 || planner_new(&planner) < 0)
		return 1;
	for (size_t w = 0; w < WAYS; w++)
		if (!(ns[w] = calloc((size_t)cases, sizeof(*ns[w]))))
			return 1;
	for (int c = 0; c < cases; c++) {
		make_request();
		for (size_t w = 0; w < WAYS; w++) {
			if (c % ways[w].share)
				continue;
			start = clock_monotonic_ns();
			if (ways[w].solve(&plan) == 0) {
				proved[w]++;
				if (w == 0)
					by[plan.method]++;
			}
			ns[w][n[w]++] = clock_monotonic_ns() - start;
		}
	}
	printf("%-8s %8s %12s %10s %10s %10s\n", "way", "cases", "answered", "median_us", "p99_us", "max_us");
	for (size_t w = 0; w < WAYS; w++) {
		qsort(ns[w], (size_t)n[w], sizeof(*ns[w]), compare);
		printf("%-8s %8d %11.2f%% %10.2f %10.2f %10.2f\n", ways[w].name, n[w],
		       100.0 * proved[w] / n[w], (double)ns[w][n[w] / 2] / 1e3,
		       (double)ns[w][n[w] * 99L / 100] / 1e3, (double)ns[w][n[w] - 1] / 1e3);
		free(ns[w]);
	}
	printf("planner by method: hull %d, bnb %d, dp %d\n", by[PLAN_HULL], by[PLAN_BNB], by[PLAN_DP]);
	planner_free(planner);
	return 0;
}
