/*
 * The profile of one endpoint: what a mini-batch of each sub-model takes on this device, first as the
 * executor measured it when it loaded the endpoint, then kept current by every mini-batch that ran.
 *
 *	profile_init(&p, S, submodels, n);		// in executor_events.loaded
 *	request.submodels = profile_submodels(&p);	// for planner_plan
 *	profile_measured(&p, submodel, k, ns);		// in executor_events.done, r == 0
 *
 * Formulas. With w = (k-1)/(S-1) (1 when S = 1), T_i and O_i the loaded times of a full mini-batch and of one
 * instance:
 *
 *	t_i = T_i·f·g_i		one_i = min(O_i·f·h_i, t_i)	expect(i, k) = one_i + (t_i - one_i)·w
 *
 * f follows the device, so that a sub-model that has not run for long is not judged by a machine that was
 * idle then; g_i and h_i follow what is special to a sub-model. A mini-batch that took ρ times what was
 * expected:
 *
 *	f ← f·(1 + a·(ρ-1))	g_i ← g_i·(1 + b·(ρ-1)·w)	h_i ← h_i·(1 + b·(ρ-1)·(1-w))
 *
 * which is an exponentially weighted mean (a = 0.1, b = 0.05; chosen) of measured ÷ loaded time. A ρ
 * outside [1/2, 2] is an outlier (a suspended machine, a worker that paged) and changes nothing, unless
 * three in a row lie on the same side: then the device has changed, and f ← f·(the ρ of the three that is
 * nearest to 1).
 *
 * profile_submodels are steady: they and the generation change only when a time is more than 2 % away from
 * what they say (a plan off by 2 % is mended by the next re-plan, and the plan cache is keyed by them).
 * No order is forced between sub-models: a wider slice may be the faster one on a device, and a planner
 * ignores what is dominated.
 *
 * An idle sub-model shows as one of accuracy 0 that takes what the slowest of the others takes: no plan uses it.
 *
 * Owner thread only.
 */
#ifndef SCHED_PROFILE_H
#define SCHED_PROFILE_H

#include "sched/executor.h"
#include "sched/plan/plan.h"

#include <stdint.h>

#define PROFILE_RECENT 64

/* The fields are profile.c's. */
struct profile {
	int batch, n;
	int times_of[MAX_SUBMODELS]; /* itself, or of an idle one the slowest other */
	double loaded[MAX_SUBMODELS], loaded_one[MAX_SUBMODELS]; /* T_i, O_i in ns */
	double device;                                           /* f */
	double full[MAX_SUBMODELS], one[MAX_SUBMODELS];          /* g_i, h_i */
	double spread;                                           /* mean |ρ-1| */
	double deviation; /* the same of those that are no outliers, slower */
	unsigned n_deviations;
	int outliers;                 /* in a row: > 0 above, < 0 below */
	double mildest;               /* ρ of these that is nearest to 1 */
	float recent[PROFILE_RECENT]; /* f, of late */
	unsigned n_recent;            /* since the start */
	double careful;               /* a quantile of them */
	struct plan_submodel out[MAX_SUBMODELS];
	uint64_t generation;
};

/*
 * From what `loaded` gave; times less than 1 ns count as 1 ns, time_one_ns outside (0, time_ns] as time_ns.
 * -EINVAL: no or too many sub-models, none but idle ones, S < 1, an accuracy outside [0, 1], a time of a day or more. Usable
 * again on an initialised profile (the worker died and measured anew): the generation goes on and
 * profile_deviation is kept when the memory was zeroed before the first init.
 */
int profile_init(struct profile *p, int batch, const struct submodel *submodels, int n);

/* (n) as given to init, for plan_request; borrowed, changes at profile_measured. */
const struct plan_submodel *profile_submodels(const struct profile *p);
uint64_t profile_generation(const struct profile *p); /* from 1; moves when profile_submodels changed */

/* A mini-batch of k instances took ns. What can't be (k outside [1, S], ns ≤ 0) is ignored. */
void profile_measured(struct profile *p, int submodel, int k, int64_t ns);
/* What one of k instances (1…S) would take now, ns ≥ 1. */
int64_t profile_expect_ns(const struct profile *p, int submodel, int k);
/* The mean of |measured ÷ expected - 1| of late, 0…1: how much reserve a mini-batch needs. */
double profile_spread(const struct profile *p);
/* δ: the mean of |ρ-1| of the last 64 that are no outliers (an exponentially weighted one from there on; more while there are few,
 * since a mean of few may be far too small). 0 as long as times are exact. */
double profile_deviation(const struct profile *p);
/* How many times what they take of late many mini-batches take when things go badly, ≥ 1: the 90 % quantile of f after the last 64, or two
 * mean deviations while there are few. What single ones are off isn't in it: over many it comes to nothing (caution.h). */
double profile_careful(const struct profile *p);

#endif
