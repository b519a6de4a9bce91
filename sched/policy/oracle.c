/* As optimal, of times that are the real ones instead of measured earlier ones: who simulates says them. */
#include "sched/policy/policy.h"

const struct policy policy_oracle = {.name = "oracle",
				     .help = "optimal, and knows what times really are",
				     .simulated = true,
				     .may = policy_all,
				     .plan = planner_plan};
