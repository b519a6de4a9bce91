/*
 * Private to sched: what runs next on each device (see dispatch.c for how that is chosen).
 */
#ifndef SCHED_DISPATCH_H
#define SCHED_DISPATCH_H

#include "sched/device.h"
#include "sched/executor.h"
#include "sched/fair.h"
#include "sched/list.h"

struct sched;
struct task;
struct endpoint;
struct minibatch;
struct loop_timer;

#define RUN_AGAIN_NS \
	(10 * NS_PER_MS) /* until an executor that did not take what it was given is asked again */

struct picture { /* to be made */
	struct list link;
	struct endpoint *ep;
	uint64_t ino;
	uint32_t seq, no;
	int submodel, label;
	float score;
	unsigned tries;
	char path[]; /* of the instance, relative to in/ */
};

struct dispatch {
	struct fair fair; /* tasks with queued instances, by endpoint */
	/* Those of them that have a deadline, earliest first, of endpoints that are ready, and of those that are not: they cost
	 * the others nothing. */
	struct list due, due_asleep;
	struct list overdue;  /* of both: their deadline passed, and they are being dropped */
	struct list removing; /* tasks with removed instances whose answers wait */
	struct list pictures; /* waiting */
	uint64_t next_id;
	struct loop_timer *timer, *kick;
	struct list early;         /* batches of which some may be computed ahead */
	uint64_t n_queued, n_held; /* instances, over all tasks */
	uint64_t n_ahead;          /* instances that were computed ahead, or are, and are not submitted */
};

void dispatch_init(struct dispatch *d);
void dispatch_release(struct sched *s); /* frees mini-batches and pictures; the executors are gone already */
/* The task has queued instances, or its due changed. */
void dispatch_task(struct sched *s, struct task *task);
void dispatch_task_gone(struct task *task); /* out of the lists */
void dispatch_task_less(struct task *task); /* the same, when nothing of it waits any more */
/* Looks again at that time (loop_now) at the latest. */
void dispatch_look_again(struct sched *s, int64_t at);
/* Its tasks may run there from now on, or not; ep->ready says whether anywhere. */
void dispatch_set_ready(struct endpoint *ep, struct device *device, bool ready);
/* Something changed: looks again, soon, from the loop. */
void dispatch_kick(struct sched *s);
void dispatch_done(void *device, const struct batch_done *done); /* executor_events */

/* Whether the instance is in a mini-batch that runs now. */
bool dispatch_runs(const struct sched *s, const char *path);

/* --- pictures.c --- */

void pictures_add(struct sched *s, struct picture *picture); /* takes it */
void pictures_forget(struct endpoint *ep);

#endif
