/*
 * Private to sched: counts and latencies of an endpoint since the daemon started. Latencies (submission to
 * visible answer) go into a histogram with buckets of 2^(1/8), 9 %, from 1 µs on, so a quantile is exact to
 * that and costs no memory.
 */
#ifndef SCHED_STATS_H
#define SCHED_STATS_H

#include <stdint.h>

#define STATS_BUCKETS 320 /* 2^40 µs */
#define STATS_WINDOW  10  /* seconds that the throughput looks back */

struct stats {
	uint64_t ok, late, dropped, failed, explained, tasks, worker_deaths, renewed;
	double gained; /* Σ p_i of those in time */
	uint64_t latencies[STATS_BUCKETS], n_latencies;
	uint64_t per_second[STATS_WINDOW];
	int64_t second[STATS_WINDOW]; /* that per_second[i] is of */
};

void stats_answer(struct stats *st, int64_t now, int64_t latency_ns);
double stats_quantile_ms(const struct stats *st, double q);   /* 0 when there are none */
double stats_throughput(const struct stats *st, int64_t now); /* answers a second */

#endif
