#include "sched/policy/policy.h"

#include <string.h>

static const struct policy *const policies[] = {&policy_optimal,   &policy_algorithm2, &policy_best_single,
						&policy_full_drop, &policy_smallest,   &policy_oracle};
enum { N_POLICIES = sizeof(policies) / sizeof(policies[0]) };

const struct policy *policy_at(int i)
{
	return i >= 0 && i < N_POLICIES ? policies[i] : NULL;
}

const struct policy *policy_find(const char *name)
{
	for (int i = 0; i < N_POLICIES; i++)
		if (strcmp(policies[i]->name, name) == 0)
			return policies[i];
	return NULL;
}

void policy_narrow(const struct policy *policy, const struct plan_request *request, int begun,
		   struct plan_submodel *submodels)
{
	unsigned may = policy->may(request, begun);
	int slowest = -1;

	for (int i = 0; i < request->n_submodels; i++)
		if ((may & 1u << i) && (slowest < 0 || submodels[i].time_ns > submodels[slowest].time_ns))
			slowest = i;
	for (int i = 0; i < request->n_submodels && slowest >= 0; i++)
		if (!(may & 1u << i)) {
			submodels[i] = submodels[slowest];
			submodels[i].accuracy = 0;
		}
}

unsigned policy_all(const struct plan_request *request, int begun)
{
	unsigned may = 0;

	(void)begun;
	for (int i = 0; i < request->n_submodels; i++)
		may |= (unsigned)(request->submodels[i].accuracy > 0) << i;
	return may;
}

int policy_most_accurate(const struct plan_request *request)
{
	const struct plan_submodel *m = request->submodels;
	int best = -1;

	for (int i = 0; i < request->n_submodels; i++)
		if (m[i].accuracy > 0 &&
		    (best < 0 || m[i].accuracy > m[best].accuracy ||
		     (m[i].accuracy == m[best].accuracy && m[i].time_ns < m[best].time_ns)))
			best = i;
	return best;
}

int policy_fastest(const struct plan_request *request)
{
	const struct plan_submodel *m = request->submodels;
	int best = -1;

	for (int i = 0; i < request->n_submodels; i++)
		if (m[i].accuracy > 0 && (best < 0 || m[i].time_ns < m[best].time_ns))
			best = i;
	return best;
}
