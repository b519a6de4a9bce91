/*
 * Private to the dispatcher: a group's instances, divided among the devices.
 */
#ifndef SCHED_SPLIT_H
#define SCHED_SPLIT_H

#include "sched/choose.h"
#include "sched/device.h"
#include "sched/outbox.h"

/*
 * What each device is to have of it, so that most effective accuracy comes of it (plan/partition.h): own[i] is for device i the group with n and
 * held of its own, all that it can do where that is not all of it; 0 of both: nothing, or it does not serve the endpoint. With one device it is the group.
 */
void split(struct sched *s, const struct group *group, const struct contest *c, enum outbox_view view,
	   struct group own[MAX_DEVICES]);
/* The same by what each could do on its fastest sub-model, and at least one instance for each that has time. */
void split_roughly(struct sched *s, const struct group *group, enum outbox_view view,
		   struct group own[MAX_DEVICES]);

#endif
