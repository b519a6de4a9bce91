/*
 * Private to sched: counts and times of an endpoint since the daemon started.
 */
#ifndef SCHED_STATS_H
#define SCHED_STATS_H

#include "sched/histogram.h"

#include <stdint.h>

struct submodel;

#define STATS_WINDOW 10 /* seconds that the throughput looks back */
#define STATS_SHARES 48 /* those of two models; chosen */

/* What one sub-model computed. Counters never fall, so those of a model that was reloaded stay beside the new one's. */
struct stats_share {
	int slice; /* in 1/10,000, as it is printed */
	char precision[8];
	const char *members; /* as struct submodel's */
	int n_parts;
	uint64_t minibatches, instances;
	int64_t compute_ns; /* in the worker */
};

struct stats {
	uint64_t ok, late, dropped, failed, explained, tasks, worker_deaths, renewed, ahead;
	double gained;            /* Σ p_i of those in time */
	struct histogram latency; /* submission to visible answer */
	struct histogram plan;    /* choosing one mini-batch */
	struct histogram compute; /* a mini-batch in the worker */
	struct stats_share share[STATS_SHARES];
	int n_shares;
	uint64_t per_second[STATS_WINDOW];
	int64_t second[STATS_WINDOW]; /* that per_second[i] is of */
};

void stats_answer(struct stats *st, int64_t now, int64_t latency_ns);
double stats_throughput(const struct stats *st, int64_t now); /* answers a second */
/* An endpoint was loaded with these: their shares are there from now on, 0 at first. */
void stats_submodels(struct stats *st, const struct submodel *submodels, int n);
/* One was computed, of n instances. Where there is no room for another share it counts in `compute` alone. */
void stats_minibatch(struct stats *st, const struct submodel *m, int n, int64_t compute_ns);

#endif
