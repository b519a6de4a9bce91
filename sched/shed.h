/*
 * Private to the dispatcher: whom to give up when not all can be in time.
 */
#ifndef SCHED_SHED_H
#define SCHED_SHED_H

#include "sched/choose.h"

struct contest;
struct sched;
struct task;

/*
 * With which task of its endpoint's lane the next mini-batch is to begin, `choice` being the one that begins with the group's first: that
 * one, or a later one, and then those before it are not in time any more. `start` is when the group's device is free.
 */
struct task *shed_until(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
			const struct choice *choice);

#endif
