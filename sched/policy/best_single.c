/*
 * Model-Switching (HotCloud'20): one sub-model for the whole task, the one with which most of it is answered right in time,
 *
 *	p_i · min(1, ⌊D/t_i⌋/N_mb)
 */
#include "sched/policy/policy.h"

static unsigned best_single(const struct plan_request *request, int begun)
{
	int64_t count = (request->instances + request->batch - 1) / request->batch;
	int best = policy_fastest(request);
	double most = 0;

	if (begun >= 0 && request->submodels[begun].accuracy > 0)
		return 1u << begun;
	for (int i = 0; i < request->n_submodels; i++) {
		const struct plan_submodel *m = &request->submodels[i];
		int64_t fits = request->deadline_ns > 0 ? request->deadline_ns / m->time_ns : 0;
		double gain = m->accuracy * (double)(fits < count ? fits : count);

		if (gain > most) {
			best = i;
			most = gain;
		}
	}
	return best < 0 ? 0 : 1u << best;
}

const struct policy policy_best_single = {.name = "best-single",
					  .help = "one sub-model for a task (Model-Switching)",
					  .may = best_single,
					  .plan = planner_plan};
