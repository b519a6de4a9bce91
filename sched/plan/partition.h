/*
 * Several workers (SINGA-Easy, MM'21, section 3.2): which of them runs how many of a task's N_mb mini-batches. With x_wi of them on
 * sub-model i of worker w, which takes t_wi there and has T_w until the deadline,
 *
 *	maximise  Σ_w Σ_i x_wi·p_i / N_mb   subject to  Σ_w Σ_i x_wi ≤ N_mb,  Σ_i x_wi·t_wi ≤ T_w for each w,  x_wi ≥ 0 integer
 *
 * which is the global effective accuracy: the workers' own, weighted by their mini-batches. Once it is known how many each gets, what is
 * left is Eq. 2 for each of them: a local plan.
 *
 * Without integers only the sum couples them. With a price μ of a mini-batch each worker uses, for itself, the sub-model of the largest
 * (p_i - μ)/t_wi: a vertex of its hull of times and accuracies with the origin, the one of most accuracy in a time at μ = 0, a more accurate one as μ
 * rises, and then it runs fewer mini-batches. So μ is raised, from vertex to vertex, until they are N_mb in all. Where even
 * the most accurate ones leave time, all of them are to be done soon: each worker has what it can do until all are done.
 *
 * Rounded: of few mini-batches local plans of the numbers around those decide, exactly; of many it hardly matters which (partition.c).
 */
#ifndef SCHED_PLAN_PARTITION_H
#define SCHED_PLAN_PARTITION_H

#include "sched/plan/plan.h"

#include <stdint.h>

#define PARTITION_WORKERS 32

struct partition_worker {
	const struct plan_submodel *submodels; /* (n); of accuracy 0: none */
	int n;
	int64_t time_ns; /* T; not positive: it gets nothing */
};

/* Local plans: planner_plan, or what a policy has in its place. */
typedef int (*partition_plan)(struct planner *pl, const struct plan_request *request, struct plan *ret);

/*
 * share[w] of `count` mini-batches of `batch` instances. Where they can't all be done it may be fewer in all, or (of many) `count` for each that has
 * time: what it can do of them. n: at most PARTITION_WORKERS.
 */
void partition(struct planner *pl, partition_plan plan, const struct partition_worker *w, int n,
	       int64_t count, int batch, int64_t share[]);
/* The LP's value, Σ p over `count` mini-batches: no partition has more. */
double partition_bound(const struct partition_worker *w, int n, double count);

#endif
