/*
 * The plan of one task: how many of its N_mb mini-batches each sub-model gets so that the effective accuracy
 *
 *	p_eff = Σ n_i·p_i / N_mb	subject to  Σ n_i ≤ N_mb,  Σ n_i·t_i ≤ D,  n_i ≥ 0 integer
 *
 * is largest (SINGA-Easy, MM'21, Eq. 2-6; DESIGN section 6). Instances of a mini-batch that is not full count
 * as what they are, so p_eff is over N instances.
 *
 *	struct planner *pl;
 *	planner_new(&pl);
 *	planner_plan(pl, &(struct plan_request){…}, &plan);
 *
 * Not thread-safe: GLPK has global state; one planner, one thread.
 */
#ifndef SCHED_PLAN_PLAN_H
#define SCHED_PLAN_PLAN_H

#include "sched/executor.h"

#include <stdint.h>

struct planner;

struct plan_submodel {
	double accuracy;     /* p_i, 0…1 */
	int64_t time_ns;     /* t_i of a full mini-batch */
	int64_t time_one_ns; /* of one instance; 0: as a full one. A part-filled batch takes
			      * time_one + (time - time_one)·(k-1)/(S-1) */
};

struct plan_request {
	int n_submodels; /* 1…MAX_SUBMODELS */
	const struct plan_submodel *submodels;
	int64_t instances;   /* N */
	int batch;           /* S */
	int64_t deadline_ns; /* D from now; INT64_MAX: none; what is not positive: everything is dropped */
};

enum plan_method { PLAN_HULL, PLAN_BNB, PLAN_DP, PLAN_CACHE, PLAN_METHODS };

struct plan {
	int64_t n[MAX_SUBMODELS]; /* mini-batches of each sub-model, the one that is not full included */
	int partial;     /* the sub-model that takes the one that is not full; -1: none, or it is dropped */
	double p_eff;    /* 0…1, over N instances */
	double bound;    /* of the LP: p_eff ≤ bound */
	int64_t dropped; /* instances without a mini-batch */
	enum plan_method method;
	int64_t solve_ns;
};

int planner_new(struct planner **ret);
void planner_free(struct planner *pl);
/*
 * The best plan: cache, hull, B&B, DP, in this order, until one proves an optimum (p_eff within 1e-9; a
 * B&B's within 1e-8). When none can, the best that was found; `bound` tells how far it may be off. Takes
 * some 20 ms at most. The cache is keyed by the exact request: who wants hits rounds D down to a step that
 * does not matter. -EINVAL (then *ret is untouched): 1 ≤ N ≤ 1e12, 1 ≤ S ≤ 1e6, 0 ≤ p_i ≤ 1, 1 ns ≤ t_i ≤
 * 2^60 ns do not hold.
 */
int planner_plan(struct planner *pl, const struct plan_request *request, struct plan *ret);
const char *plan_method_name(enum plan_method method); /* "hull", "bnb", "dp", "cache" */

/* The ways one by one, for tests and the bench; each returns -EAGAIN when it can't prove an optimum. solve_ns
 * is left 0. */
int plan_by_hull(const struct plan_request *request, struct plan *ret);
int plan_by_bnb(const struct plan_request *request, struct plan *ret);
int plan_by_dp(const struct plan_request *request, struct plan *ret);

/*
 * The paper's own Algorithm 2, where planner_plan is Eq. 2-6's optimum: to compare with. Every mini-batch counts as a full one, and when
 * not even the fastest sub-model is in time all of them are given to it: n may take longer than D, and p_eff counts what is in time. Errors
 * as planner_plan, -EINVAL also beyond 2^31 mini-batches; -EAGAIN, -ENOMEM: no plan.
 */
int plan_by_algorithm2(const struct plan_request *request, struct plan *ret);

/* The `inferfs plan` command. */
int plan_main(int argc, char **argv);

#endif
