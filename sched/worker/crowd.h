/*
 * Private to the worker: a computing thread that leaves a core where others compute, too.
 *
 *	struct crowd crowd = CROWD_NONE;
 *	crowd_begin(&crowd);
 *	… a mini-batch …
 *	crowd_end(&crowd);
 *
 * Linux moves a thread when it wakes, and by balancing; but one that always has its next mini-batch never wakes, and whoever serves
 * the mount stays on his client's core (fs/mount/attend.h) and can't be moved. Measured on 2 cores: for hundreds of
 * milliseconds both, the client and the worker shared one, while the other was idle, and answers came late at half of the load that is possible.
 */
#ifndef SCHED_WORKER_CROWD_H
#define SCHED_WORKER_CROWD_H

#include <stdint.h>

struct crowd {
	int64_t wall, cpu; /* when it began, and what the thread had used by then; ns */
	unsigned rest;     /* mini-batches until it may move again */
};
#define CROWD_NONE \
	{          \
		0  \
	}

void crowd_begin(struct crowd *c);
/* The thread that began. Moves if it had much less than a core since. */
void crowd_end(struct crowd *c);

#endif
