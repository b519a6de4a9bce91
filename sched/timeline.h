/*
 * Private to sched: infer/APP/timeline.svg, what an endpoint's newest tasks ran, when, and by when it had to be.
 *
 * Of each mini-batch that ran two things are kept, a bounded number of the newest: itself, for its worker's row, and for the
 * row of each task that had instances in it a run: mini-batches of one sub-model and worker, one right after the other. Tasks and
 * mini-batches are copied, so nothing here outlives or holds anything. Owner thread only.
 */
#ifndef SCHED_TIMELINE_H
#define SCHED_TIMELINE_H

#include "engine/base/buf.h"
#include "sched/spec.h"

#include <stdbool.h>
#include <stdint.h>

struct batch_done;
struct endpoint;
struct loop_timer;
struct minibatch;
struct task;

/* Chosen: 8 s of mini-batches of 16 ms, and a picture of at most some 200 KB. */
#define TIMELINE_BATCHES 512
#define TIMELINE_RUNS    256
#define TIMELINE_TASKS   24

struct timeline_run {
	int64_t started, ended;    /* loop_now; the time between two answers, not the computing alone */
	int64_t expected, compute; /* ns, sums */
	int device;                /* its number */
	uint32_t seq;              /* of a task's run */
	int minibatches, instances;
	int slice; /* in 1/10,000 */
	char precision[8];
	const char *members; /* as struct submodel's */
	bool died;           /* the worker, with it */
	bool late;           /* ended after the task's deadline */
};

struct timeline_task {
	uint32_t seq;
	char name[MAX_NAME]; /* of the batch; "": loose files */
	int64_t submitted, due, begun,
		ended;    /* loop_now; due: INT64_MAX: none; begun: the first run's; 0: none */
	int64_t finished; /* 0: not yet */
	uint32_t total, ok, late, dropped, failed;
	double planned, real; /* effective accuracy in percent; real once it has finished */
};

struct timeline { /* rings: n[…] were added in all, the newest is at (n - 1) % size */
	struct endpoint *ep;
	struct loop_timer *timer;
	struct timeline_run batches[TIMELINE_BATCHES], runs[TIMELINE_RUNS];
	struct timeline_task tasks[TIMELINE_TASKS];
	unsigned n_batches, n_runs, n_tasks;
};

/* One was answered, or the worker died with it, now; its instances are still in it. */
void timeline_minibatch(const struct minibatch *mb, int64_t started, const struct batch_done *done);
void timeline_task(const struct task *task); /* has ended */
void timeline_free(struct timeline *t);      /* NULL is allowed */

/* --- timeline_svg.c --- */

/* wall_ns: loop_wall - loop_now. Nothing when there is no task. */
void timeline_svg(const struct timeline *t, int64_t wall_ns, struct buf *ret);

#endif
