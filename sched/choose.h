/*
 * Private to the dispatcher: which instances run next, on which sub-model.
 */
#ifndef SCHED_CHOOSE_H
#define SCHED_CHOOSE_H

#include "sched/cascade.h"
#include "sched/device.h"
#include "sched/list.h"
#include "sched/outbox.h"

#include <stdbool.h>
#include <stdint.h>

struct contest;
struct endpoint;
struct sched;
struct task;

#define LOOK_AHEAD 256 /* tasks; bounds the work of one choice */

/* What is planned for together: instances of one endpoint with about the same deadline. */
struct group {
	struct device *device; /* that it is looked at for */
	struct list *list;     /* of its endpoint's lane */
	struct task *first;
	uint64_t n;         /* instances, of the whole group or of a device's part */
	uint64_t all;       /* instances of the whole group */
	uint64_t held;      /* and those that have an answer, and may run again */
	int64_t due, until; /* of the first, of the last that belongs to it */
};

struct choice {
	int submodel, k;
	bool shared;       /* tasks after the group may fill the mini-batch */
	bool again;        /* what is held, of the kind `of` */
	struct cascade of; /* that it is the first one of; then < 0: none */
};

/* From `first` on in its endpoint's lane. */
struct group group_of(struct device *device, struct task *first, int64_t now);
enum chosen {
	CHOSEN_NOTHING, /* nothing could be in time */
	CHOSEN_OTHERS,  /* other devices have all of it */
	CHOSEN,
};
/* `start` is when the group's device is free. */
enum chosen choose_due(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
		       struct choice *ret);
/* The same for what is held, when nothing else of the group is left. False: there is no time, or nothing to gain. */
bool choose_again(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
		  struct choice *ret);
/* Not one more instance could be in time on any device, margins left aside. Until then estimates may still turn out too high: what
 * seems not to fit is looked at again rather than dropped. */
bool choose_is_hopeless(struct sched *s, const struct group *group);
/* The task is planned: what ran and what runs of it as it did, what is queued with that accuracy. */
void choose_note(struct task *task, double p_eff);
/* The endpoint's sub-models there; those that its policy does not let run a mini-batch with so much time are as idle ones. */
void choose_allowed(const struct endpoint *ep, const struct served *on, int64_t deadline,
		    struct plan_submodel *m);
/* The sub-model that is best without a deadline. */
int choose_unhurried(const struct endpoint *ep, const struct served *on);
/* No longer than `most`, where one instance is not. */
void choose_free(const struct group *group, int64_t most, struct choice *ret);
/* A task by itself, as it is submitted; and how many of a group's instances a careful plan of that much time has in time. */
struct group group_alone(struct task *task);
int64_t choose_kept(struct sched *s, const struct group *group, int64_t time);

#endif
