/*
 * Private to sched: what can be kept of a task, said when it is submitted.
 */
#ifndef SCHED_ADMIT_H
#define SCHED_ADMIT_H

#include "sched/task.h"

/*
 * task->admitted, and user.admitted of its directory: the instances that are expected in time, those that are answered already (its
 * deadline was moved) among them. Of loose files it isn't asked.
 */
void task_admit(struct task *task);

#endif
