#include "sched/stats.h"
#include "sched/executor.h"
#include "sched/loop.h"

#include <math.h>
#include <string.h>

void stats_answer(struct stats *st, int64_t now, int64_t latency_ns)
{
	int64_t second = now / NS_PER_S;
	int slot = (int)(second % STATS_WINDOW);

	histogram_add(&st->latency, latency_ns);
	if (st->second[slot] != second) {
		st->second[slot] = second;
		st->per_second[slot] = 0;
	}
	st->per_second[slot]++;
}

double stats_throughput(const struct stats *st, int64_t now)
{
	int64_t second = now / NS_PER_S, first = second;
	uint64_t sum = 0;

	for (int i = 0; i < STATS_WINDOW; i++)
		if (st->per_second[i] && st->second[i] > second - STATS_WINDOW && st->second[i] <= second) {
			sum += st->per_second[i];
			if (st->second[i] < first)
				first = st->second[i];
		}
	return (double)sum / (double)(second - first + 1);
}

/* NULL: no room. */
static struct stats_share *share_of(struct stats *st, const struct submodel *m)
{
	int slice = (int)lround(m->slice * 1e4);
	struct stats_share *share;

	for (int i = 0; i < st->n_shares; i++)
		if (st->share[i].slice == slice && strcmp(st->share[i].precision, m->precision) == 0 &&
		    st->share[i].members == m->members)
			return &st->share[i];
	if (st->n_shares == STATS_SHARES)
		return NULL;
	share = &st->share[st->n_shares++];
	share->slice = slice;
	memcpy(share->precision, m->precision, sizeof(share->precision));
	share->members = m->members;
	share->n_parts = m->n_parts;
	return share;
}

void stats_submodels(struct stats *st, const struct submodel *submodels, int n)
{
	for (int i = 0; i < n; i++)
		if (!submodels[i].idle)
			share_of(st, &submodels[i]);
}

void stats_minibatch(struct stats *st, const struct submodel *m, int n, int64_t compute_ns)
{
	struct stats_share *share = share_of(st, m);

	histogram_add(&st->compute, compute_ns);
	if (!share)
		return;
	share->minibatches++;
	share->instances += (uint64_t)n;
	share->compute_ns += compute_ns;
}
