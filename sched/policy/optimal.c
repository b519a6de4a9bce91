/* Eq. 2-6's optimum of what is left (sched/plan/). */
#include "sched/policy/policy.h"

const struct policy policy_optimal = {.name = "optimal",
				      .help = "most effective accuracy, proved",
				      .may = policy_all,
				      .plan = planner_plan};
