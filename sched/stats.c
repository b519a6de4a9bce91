#include "sched/stats.h"
#include "sched/loop.h"

#include <math.h>

void stats_answer(struct stats *st, int64_t now, int64_t latency_ns)
{
	double us = (double)latency_ns / 1e3;
	int bucket = us > 1 ? (int)(log2(us) * 8) : 0;
	int64_t second = now / NS_PER_S;
	int slot = (int)(second % STATS_WINDOW);

	st->latencies[bucket < STATS_BUCKETS ? bucket : STATS_BUCKETS - 1]++;
	st->n_latencies++;
	if (st->second[slot] != second) {
		st->second[slot] = second;
		st->per_second[slot] = 0;
	}
	st->per_second[slot]++;
}

double stats_quantile_ms(const struct stats *st, double q)
{
	uint64_t seen = 0, want = (uint64_t)ceil(q * (double)st->n_latencies);
	int bucket = 0;

	if (!st->n_latencies)
		return 0;
	for (; bucket < STATS_BUCKETS - 1; bucket++) {
		seen += st->latencies[bucket];
		if (seen >= want)
			break;
	}
	return exp2((bucket + 0.5) / 8) / 1e3; /* the bucket's middle */
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
