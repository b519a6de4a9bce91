/*
 * Private to the dispatcher: which instances run next, on which sub-model.
 */
#ifndef SCHED_CHOOSE_H
#define SCHED_CHOOSE_H

#include "sched/cascade.h"
#include "sched/list.h"

#include <stdbool.h>
#include <stdint.h>

struct contest;
struct endpoint;
struct sched;
struct task;

#define LOOK_AHEAD 256 /* tasks; bounds the work of one choice */

/* What is planned for together: instances of one endpoint with about the same deadline. */
struct group {
	struct list *list; /* of its endpoint's lane */
	struct task *first;
	uint64_t n;         /* instances */
	uint64_t held;      /* and those that have an answer, and may run again */
	int64_t due, until; /* of the first, of the last that belongs to it */
};

struct choice {
	int submodel, k;
	bool shared;       /* tasks after the group may fill the mini-batch */
	bool again;        /* what is held */
	struct cascade of; /* that it is the first one of; then < 0: none */
};

/* When the executor is free for another mini-batch, as far as is known. */
int64_t executor_free_at(struct sched *s);
/* From `first` on in its endpoint's lane. */
struct group group_of(struct task *first, int64_t now);
/* False: nothing that could be in time. `start` is executor_free_at. */
bool choose_due(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
		struct choice *ret);
/* The same for what is held, when nothing else of the group is left. False: there is no time, or nothing to gain. */
bool choose_again(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
		  struct choice *ret);
/* Not one more instance could be in time, margins left aside. Until then estimates may still turn out too high: what
 * seems not to fit is looked at again rather than dropped. */
bool choose_is_hopeless(struct sched *s, const struct group *group, int64_t start);
/* No longer than `most`, where one instance is not. */
void choose_free(const struct group *group, int64_t most, struct choice *ret);
/* What the task takes on its slowest sub-model. */
double choose_most(const struct task *task);
/* For a task as it is submitted: the time until its deadline, less what a promise keeps free before it; and how many of its queued
 * instances a plan of that much time has in time. */
int64_t choose_time(struct sched *s, struct task *task, int64_t start);
int64_t choose_kept(struct sched *s, struct task *task, int64_t time);

#endif
