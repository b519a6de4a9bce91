/*
 * Private to the dispatcher: how much time there is until a deadline, how much of it a group's plan may use, and what sub-models take of it.
 */
#ifndef SCHED_CHOOSE_TIME_H
#define SCHED_CHOOSE_TIME_H

#include "sched/caution.h"
#include "sched/choose.h"

/* Until its deadline, less what is kept free, for the group's device, which is free at `start`. */
int64_t choose_time_left(struct sched *s, const struct group *group, int64_t start, enum outbox_view view);
/* What a plan of `own`, its device's part of the group, may use, and the time there is for it. */
int64_t choose_time_planned(struct sched *s, const struct group *group, const struct group *own,
			    const struct contest *c, enum outbox_view view, struct plan_family *f);
/* Of `time` what so many instances are promised. */
int64_t choose_time_promised(const struct group *group, int64_t time, uint64_t instances);
/* The time that is kept free for a stall may be used by the last mini-batches only, when no plan fits any more: a wider slice gains a
 * percent, an answer that is late loses all. */
int64_t choose_time_safe(struct sched *s, int64_t left);
/* Of `deadline` what those that did not run yet may use: what is held runs again as it was planned, where that is worth more than the time is to
 * them; and never less than they need. */
int64_t choose_time_new(const struct group *group, const struct plan_family *f, int64_t deadline);

/* What its endpoint is on the device that it is looked at for. */
const struct served *group_served(const struct group *group);
/* What sub-models cost when their answers can't be published as fast as they are computed. */
int choose_times(struct sched *s, const struct group *group, enum outbox_view view,
		 struct plan_submodel *ret);
/* Of the request's sub-models (m, borrowed by it) those that the endpoint's policy does not let run are as idle ones. */
void choose_narrow(const struct group *group, const struct plan_request *request, struct plan_submodel *m);
/* What a plan may use, of times with everything that view counts, and the time there is for it. *doubt gets what the times don't have in
 * them. */
int64_t choose_prepare(struct sched *s, const struct group *group, const struct contest *c, int64_t start,
		       enum outbox_view view, int64_t deadline, struct plan_family *f, struct doubt *doubt);

/* Of what is at the group's device, and of the endpoint's next mini-batch there. */
struct doubt choose_doubt(const struct group *group);
/* How many instances of a mini-batch the sub-model does in that time, reserve included. */
int choose_most_in(const struct plan_submodel *m, int batch, const struct doubt *doubt, int64_t time);

int64_t choose_fastest(const struct endpoint *ep, const struct served *on); /* a full mini-batch */
/* What the task takes on its slowest sub-model. */
double choose_most(const struct task *task);

#endif
