/*
 * Private to sched: the records of tasks that have ended. Of a large one they go some at a time, since others wait while one batch of
 * 100,000 deletions is written (measured: a create took 0.4 s). The task's own record goes first, with what ends it (task.json); records without
 * one say nothing, and the next start deletes what a crash left of them.
 */
#ifndef SCHED_ERASE_H
#define SCHED_ERASE_H

#include <stddef.h>

struct endpoint;
struct erasure;
struct sched;
struct task;

/* Those of the tasks, without the tasks' own. malloc'd; NULL: they are so few that they may go at once (store_end), or there is no memory. */
struct erasure *erasure_new(struct endpoint *ep, struct task *const *tasks, size_t n);
void erasure_begin(struct erasure *erasure); /* takes it */
void erasures_forget(struct endpoint *ep);   /* it goes, and all its records with it */
void erasures_release(struct sched *s);

#endif
