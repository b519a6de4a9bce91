/*
 * What an endpoint lets run: a policy a file, all in one table (policy.c); spec.json's "policy" names one.
 *
 *	p = policy_find("optimal");
 *	policy_narrow(p, &request, begun, submodels);	// request.submodels
 *	r = p->plan(planner, &request, &plan);
 *
 * The dispatcher asks anew for each mini-batch, whatever the policy: what one took longer than it should is known to the next one's
 * plan, also to those whose papers plan once. Order, sharing with other tasks and margins are the dispatcher's (choose_time.c, dispatch.c).
 */
#ifndef SCHED_POLICY_POLICY_H
#define SCHED_POLICY_POLICY_H

#include "sched/plan/plan.h"

#include <stdbool.h>

struct policy {
	const char *name;
	const char *help; /* half a line */
	bool cascades;    /* sub-models may run one after the other (sched/cascade.h) */
	bool simulated;   /* it knows what nobody knows: for `inferfs simulate` only */
	/*
	 * Which sub-models may run, a bit each; of accuracy 0 (idle ones, profile.h) none is asked for. begun: the one that the task's
	 * mini-batches ran on so far, -1 where none did. Never 0 where any has an accuracy.
	 */
	unsigned (*may)(const struct plan_request *request, int begun);
	/* As planner_plan. */
	int (*plan)(struct planner *planner, const struct plan_request *request, struct plan *ret);
};

extern const struct policy policy_cascade, policy_optimal, policy_algorithm2, policy_best_single,
	policy_full_drop, policy_smallest, policy_oracle;

const struct policy *policy_find(const char *name); /* NULL: there is none */
const struct policy *policy_at(int i);              /* from 0; NULL beyond the last */
/* Those that may not run become as idle ones are in a profile: of accuracy 0, and no faster than the slowest that may. */
void policy_narrow(const struct policy *policy, const struct plan_request *request, int begun,
		   struct plan_submodel *submodels);

/* --- for the policies --- */

unsigned policy_all(const struct plan_request *request, int begun);
/* The most accurate, of equals the faster one; the fastest. -1: none has an accuracy. */
int policy_most_accurate(const struct plan_request *request);
int policy_fastest(const struct plan_request *request);

#endif
