/* Clipper (NSDI'17): the full model only, and what isn't in time is dropped. */
#include "sched/policy/policy.h"

static unsigned most_accurate(const struct plan_request *request, int begun)
{
	int i = policy_most_accurate(request);

	(void)begun;
	return i < 0 ? 0 : 1u << i;
}

const struct policy policy_full_drop = {
	.name = "full-drop",
	.help = "the most accurate sub-model always; drops the rest (Clipper)",
	.may = most_accurate,
	.plan = planner_plan};
