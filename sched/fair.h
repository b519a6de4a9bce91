/*
 * Private to the dispatcher: whose turn it is when several endpoints have work (fair.c says why).
 *
 *	c = fair_look(s, start);			// before each choice
 *	if (fair_is_free_turn(s, &c)) …			// what has no deadline
 *	fair_begin(s); while ((ep = fair_turn(…))) …	// endpoints, the one whose turn it is first
 *	fair_charge(s, &c, mb);				// it was handed over
 *	fair_correct(mb, ns);				// and took so long
 */
#ifndef SCHED_FAIR_H
#define SCHED_FAIR_H

#include "sched/list.h"

#include <stdbool.h>
#include <stdint.h>

struct device;
struct endpoint;
struct minibatch;
struct policy;
struct sched;
struct task;

struct fair_queue {
	double now; /* v: S of what was handed over last */
};

struct fair_flow {
	double end; /* F of its last mini-batch */
};

/* Who pays for a mini-batch; flow NULL: nobody. */
struct fair_bill {
	struct fair_flow *flow;
	double weight;
};

/* An endpoint's tasks that wait: those with a deadline, earliest first, and those without, by submission (task.own). */
struct lane {
	struct list link; /* of fair.lanes, while there are any */
	struct list due, free;
	struct fair_flow of_due, of_free;
	unsigned tried; /* fair.round */
	/* What a full mini-batch takes at least, as one of many that all devices run, and what that was worked out from. */
	int64_t least;
	uint64_t least_generation;
	const struct policy *least_policy;
};

struct fair {
	struct list lanes;
	struct fair_queue due, free;      /* between endpoints */
	struct fair_queue classes;        /* between the two … */
	struct fair_flow of_due, of_free; /* … which are these */
	bool has_due, has_free;           /* at the last look */
	unsigned round;
};

/* Who wants to have the device. */
struct contest {
	/* Weights of the endpoints that have tasks with a deadline, and FREE_SHARE of the weights of those that have others only. */
	double due, free;
	int n_due, n_free; /* endpoints with tasks of either kind */
	/* Time left over before the deadlines when all runs as fast as it can; INT64_MAX where nobody asks. */
	int64_t slack;
	bool over; /* there is none: weights count */
};

void fair_init(struct fair *f);
void lane_init(struct lane *lane);
/* A task that is in no lane joins its endpoint's; and leaves it. */
void fair_put(struct sched *s, struct task *task);
void fair_remove(struct task *task);

/* start: when devices are free. */
struct contest fair_look(struct sched *s, int64_t start);
/* The part of the device's time that an endpoint's tasks with deadlines may reckon with: its weight's in an overload, else what is
 * left to all of them. */
double fair_part(const struct contest *c, const struct endpoint *ep);
bool fair_is_free_turn(const struct sched *s, const struct contest *c);
void fair_begin(struct sched *s);
/* The next endpoint that the device serves, has such tasks and was not returned since fair_begin; NULL: none. alone: only those that have no others. */
struct endpoint *fair_turn_due(struct device *device);
struct endpoint *fair_turn_free(struct device *device, bool alone);
/* mb->expected, for what somebody else wanted to have, too. */
void fair_charge(struct sched *s, const struct contest *c, struct minibatch *mb, bool free);
void fair_correct(const struct minibatch *mb, int64_t took); /* 0: it did not run */

/* What an instance of many takes at least, ns, and a task's queue, on all devices. */
double fair_each(struct endpoint *ep);
double fair_least(const struct task *task);

#endif
