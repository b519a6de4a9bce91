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
	/* `events`, as it is or will be: the first events_sent bytes were handed to the publisher. */
	struct buf events;
	size_t events_sent;
	bool events_anew;    /* the file is not what events_sent says: it is emptied and written whole */
	bool events_whole;   /* it can't be appended to: it is replaced */
	int64_t last_append; /* loop_now */
	char trouble[256];   /* as the last event of it said; "": none */
	struct buf last_status, last_metrics; /* as published */
	struct loop_timer *timer;
	bool soon; /* the timer is for something new */
};

void status_recover(struct sched *s);
void status_release(struct status *status);
/*
 * One line of `events`: {"time","event","name","what","count"}; count < 0: left out. The file is only ever appended to,
 * so that tail -f goes on; beyond EVENTS_MAX, in a quiet moment, its text becomes `events.old` and it starts anew, in
 * place: who followed it has read all by then and goes on at its beginning. Where no quiet moment comes, one is made.
 */
void status_event(struct sched *s, const char *event, const char *name, const char *what, int64_t count);
void status_answer(struct sched *s, struct endpoint *ep, enum result_status status, double gain,
		   int64_t latency_ns);
void status_flush(struct sched *s); /* at the end: what waits for its time */
/* A task has ended. */
void status_task(struct sched *s, const struct task *task);
void status_changed(struct sched *s); /* publishes soon */

#endif
