/*
 * Private to sched: the loop's thread keeps off the cores of workers that have more to do.
 *
 *	apart_from(&s->apart, cores, n);	// as workers say with their answers, from 1; 0: not known
 *
 * A worker's answer wakes the loop's thread, and Linux takes it that who writes into a socket waits for what comes of it (a "sync"
 * wake-up, kernel/sched/fair.c): with no idle core it puts the reader on the writer's. There it is preferred, being the daemon's, and the
 * worker waits with its next mini-batch in hand. Measured on 2 cores, mini-batches of 3.8 ms: 41 of 1,029 ms; with this 7.
 *
 * Where all cores are taken the thread may use each again. What it starts inherits what it may use: workers set that right
 * (sched/worker/main.c).
 */
#ifndef SCHED_APART_H
#define SCHED_APART_H

#include <sched.h>
#include <stdbool.h>

/* The fields are apart.c's; zeroed at first. */
struct apart {
	bool known;
	cpu_set_t all, now; /* what the thread might use at first, and what it may */
};

/* Always the same thread. What fails is left as it is. */
void apart_from(struct apart *a, const int *cores, int n);

#endif
