/*
 * Each device plans what is its part of a group, takes the first mini-batch of that, and all of it is divided anew when the next device has room:
 * what another one has done by then, or could not do, changes the parts. So nothing that waits belongs to a device, and there is nothing to be stolen.
 *
 * Where other tasks share a device's time, they do so on all of them alike (choose_time.c): the parts follow from what is left of it.
 */
#include "sched/split.h"

#include "sched/choose_time.h"
#include "sched/internal.h"
#include "sched/plan/partition.h"

#include <math.h>

static uint64_t part_of(uint64_t n, double part)
{
	uint64_t most = (uint64_t)ceil((double)n * part);

	return most < n ? most : n;
}

void split_roughly(struct sched *s, const struct group *group, enum outbox_view view,
		   struct group own[MAX_DEVICES])
{
	const struct endpoint *ep = group->first->ep;
	double can[MAX_DEVICES], all = 0;

	own[0] = *group;
	if (s->n_devices == 1)
		return;
	for (int i = 0; i < s->n_devices; i++) {
		can[i] = 0;
		own[i] = *group;
		own[i].device = &s->device[i];
		if (!ep->on[i].ready)
			continue;
		can[i] = (double)choose_time_left(s, &own[i], device_reckoned_at(own[i].device), view) /
			 (double)choose_fastest(ep, &ep->on[i]);
		can[i] = can[i] > 0 ? can[i] : 0;
		all += can[i];
	}
	for (int i = 0; i < s->n_devices; i++) {
		own[i].n = all > 0 ? part_of(group->n, can[i] / all) : 0;
		own[i].held = all > 0 ? part_of(group->held, can[i] / all) : 0;
	}
}

void split(struct sched *s, const struct group *group, const struct contest *c, enum outbox_view view,
	   struct group own[MAX_DEVICES])
{
	const struct endpoint *ep = group->first->ep;
	struct plan_family f[MAX_DEVICES];
	struct partition_worker worker[MAX_DEVICES];
	int64_t share[MAX_DEVICES], batch = ep->spec.batch, left = ((int64_t)group->n + batch - 1) / batch,
				    missing = left * batch - (int64_t)group->n;
	int most = 0;

	_Static_assert(MAX_DEVICES <= PARTITION_WORKERS, "each is one");
	split_roughly(s, group, view, own);
	if (s->n_devices == 1)
		return;
	for (int i = 0; i < s->n_devices; i++) {
		worker[i] = (struct partition_worker){.submodels = f[i].m};
		if (!own[i].n)
			continue;
		worker[i].time_ns = choose_time_planned(s, group, &own[i], c, view, &f[i]);
		worker[i].n = f[i].n;
	}
	partition(s->planner, ep->spec.policy->plan, worker, s->n_devices, left, ep->spec.batch, share);
	for (int i = 0; i < s->n_devices; i++)
		left -= share[i];
	for (int i = 0; i < s->n_devices; i++) {
		/* What nobody has time for as a full mini-batch is for whoever has nothing else. */
		int64_t count = share[i] || left < 0 || !own[i].n ? share[i] : left;
		uint64_t n = (uint64_t)count * (uint64_t)batch;

		own[i].n = n < group->n ? n : group->n;
		most = own[i].n > own[most].n ? i : most;
	}
	if (!left && own[most].n < group->n) /* one of them is not full */
		own[most].n -= (uint64_t)missing;
}
