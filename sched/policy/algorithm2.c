/* The paper's own scheduler (sched/plan/algorithm2.c). */
#include "sched/policy/policy.h"

#include "engine/base/clock.h"

static int plan(struct planner *planner, const struct plan_request *request, struct plan *ret)
{
	int64_t start = clock_monotonic_ns();
	int r = plan_by_algorithm2(request, ret);

	(void)planner;
	if (r == 0)
		ret->solve_ns = clock_monotonic_ns() - start;
	return r;
}

const struct policy policy_algorithm2 = {
	.name = "algorithm2", .help = "Algorithm 2 as it is printed", .may = policy_all, .plan = plan};
