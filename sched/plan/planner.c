/*
 * The ways to solve a request, in the order of their cost, until one proves its optimum. The last is the hull
 * again, with patience: exact where GLPK's tolerances and the DP's cells are not.
 */
#include "sched/plan/internal.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <stdlib.h>

static void hull_short(const struct problem *p, struct solution *s)
{
	hull_solve(p, s, HULL_NODES);
}

static void hull_long(const struct problem *p, struct solution *s)
{
	hull_solve(p, s, HULL_PATIENCE);
}

static const struct way {
	enum plan_method method;
	void (*solve)(const struct problem *p, struct solution *s);
} ways[] = {
	{PLAN_HULL, hull_short},
	{PLAN_BNB, bnb_solve},
	{PLAN_DP, dp_solve},
	{PLAN_HULL, hull_long},
};

static const char *const names[PLAN_METHODS] = {
	[PLAN_HULL] = "hull", [PLAN_BNB] = "bnb", [PLAN_DP] = "dp", [PLAN_CACHE] = "cache"};

struct planner {
	struct plan_cache *cache;
};

int planner_new(struct planner **ret)
{
	struct planner *pl = malloc(sizeof(*pl));
	int r;

	if (!pl)
		return -ENOMEM;
	r = plan_cache_new(&pl->cache);
	if (r < 0) {
		free(pl);
		return r;
	}
	bnb_warm_up();
	*ret = pl;
	return 0;
}

void planner_free(struct planner *pl)
{
	if (!pl)
		return;
	plan_cache_free(pl->cache);
	free(pl);
}

int planner_plan(struct planner *pl, const struct plan_request *request, struct plan *ret)
{
	struct solution s = SOLUTION_NONE;
	enum plan_method method = PLAN_HULL;
	int64_t start = clock_monotonic_ns();
	struct problem p;
	int r;

	if (plan_cache_get(pl->cache, request, ret)) {
		ret->method = PLAN_CACHE;
		ret->solve_ns = clock_monotonic_ns() - start;
		return 0;
	}
	r = problem_init(&p, request);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]) && !s.proved; i++) {
		double before = s.value;

		ways[i].solve(&p, &s);
		if (s.proved || s.value > before)
			method = ways[i].method;
	}
	problem_plan(&p, &s, method, ret);
	ret->solve_ns = clock_monotonic_ns() - start;
	plan_cache_put(pl->cache, request, ret);
	return 0;
}

const char *plan_method_name(enum plan_method method)
{
	return (unsigned)method < PLAN_METHODS ? names[method] : "?";
}
