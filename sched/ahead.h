/*
 * Private to sched: what lies complete in a batch directory is computed before it is submitted, while nothing that was submitted waits.
 *
 * A batch counts from its submission, and until then the device would have nothing to do while files are copied. Full mini-batches of what
 * is complete run on the sub-model that is best without a deadline, and their answers are held: at the submission as many of them are given
 * as can be published in time, and the others are queued like those that were not computed. So it costs what was submitted nothing but
 * what is at the device then, and a file that is written anew or goes away only what was computed for it.
 *
 *	ahead_add(inst)		// it is complete
 *	ahead_forget(inst)	// it is written anew, or goes
 *	ahead_submitted(task)	// its instances are queued and recorded
 */
#ifndef SCHED_AHEAD_H
#define SCHED_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

struct device;
struct endpoint;
struct instance;
struct instance_answer;
struct minibatch;
struct task;

void ahead_add(struct instance *inst);
/* Nothing is begun for it any more: it is not complete, or it is submitted. */
void ahead_leave(struct instance *inst);
/* Neither waits to be computed ahead, nor is it, nor has an answer of that. */
void ahead_forget(struct instance *inst);
/* The same of all of the endpoint's, which may be computed anew: its sub-models will be others. */
void ahead_forget_all(struct endpoint *ep);
/* Hands a mini-batch over. False: there is none. */
bool ahead_next(struct device *device);
/* Of one that is not submitted yet: its answer (NULL: none), and that the worker died; suspected: it may be the cause. */
void ahead_keep(struct minibatch *mb, struct instance *inst, const struct instance_answer *answer,
		int64_t compute_ns);
void ahead_died(struct instance *inst, bool suspected);
void ahead_submitted(struct task *task);

#endif
