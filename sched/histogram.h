/*
 * Private to sched: how long something took, time after time. Buckets of 2^(1/8), 9 %, from 1 ns on make a quantile exact
 * to that and cost no memory; beside them some at round times are what Prometheus is told.
 */
#ifndef SCHED_HISTOGRAM_H
#define SCHED_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_FINE   400 /* 2^50 ns, 13 days */
#define HISTOGRAM_BOUNDS 24  /* of 1, 2.5, 5, 10 … µs to 50 s */

struct histogram {
	uint32_t fine[HISTOGRAM_FINE];
	uint64_t coarse[HISTOGRAM_BOUNDS]; /* [i]: beyond bound i-1, at most bound i */
	uint64_t n;                        /* those beyond the last bound included */
	double sum;                        /* ns */
};

void histogram_add(struct histogram *h, int64_t ns);
double histogram_quantile(const struct histogram *h, double q); /* ns; 0 when it is empty */
int64_t histogram_bound(int i);                                 /* ns */

#endif
