/*
 * Private to sched: the tree's own `status`, `metrics` and `events`.
 */
#ifndef SCHED_STATUS_H
#define SCHED_STATUS_H

#include "engine/base/buf.h"
#include "sched/result.h"

#include <stdint.h>

struct sched;
struct loop_timer;

struct status {
	struct buf events; /* JSON lines, the newest ones */
	bool events_changed;
	struct buf last_status, last_metrics; /* as published */
	struct loop_timer *timer;
	bool soon; /* the timer is for something new */
};

void status_recover(struct sched *s);
void status_release(struct status *status);
/* One line of `events`: {"time","event","name","what","count"}; count < 0: left out. */
void status_event(struct sched *s, const char *event, const char *name, const char *what, int64_t count);
void status_answer(struct sched *s, struct endpoint *ep, enum result_status status, double gain,
		   int64_t latency_ns);
/* A task has ended. */
void status_task(struct sched *s, const struct task *task);
void status_changed(struct sched *s); /* publishes soon */

#endif
