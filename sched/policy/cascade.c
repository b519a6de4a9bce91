/*
 * Beyond Eq. 2, which gives a mini-batch to one sub-model: a small one answers, and what it is least certain of is answered anew by a
 * larger one in the time that is left. Where no cascade was measured it is `optimal`.
 */
#include "sched/policy/policy.h"

const struct policy policy_cascade = {
	.name = "cascade",
	.help = "optimal, and what was answered uncertainly runs again on a larger sub-model",
	.cascades = true,
	.may = policy_all,
	.plan = planner_plan};
