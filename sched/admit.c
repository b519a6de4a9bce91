/*
 * A task is planned behind what is queued before it, on the fastest sub-models, with careful figures (choose.c). Of the time T until its
 * deadline
 *
 *	T - own - others
 *
 * is its own: `own` is what its endpoint has to do before it; others, what other endpoints have with earlier deadlines. In an overload
 * their turn comes whatever their deadlines are (fair.c), and who has less to do than its weight gives it uses larger sub-models: others
 * is all that they have on those, but no more than the part of T that is theirs.
 * What comes later may take from it, or leave it more than that.
 *
 * Several devices each do their part of all that.
 */
#include "sched/admit.h"

#include "sched/choose_time.h"
#include "sched/fair.h"
#include "sched/internal.h"
#include "sched/split.h"

#include "engine/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LOOK_BEHIND 4096 /* tasks; chosen: some 50 µs. Where more wait nothing is said */

/* False: too many to look at. */
static bool work_before(const struct task *task, bool all, double *ret_own, double *ret_others)
{
	const struct list *due = &task->ep->s->dispatch.due;
	bool before = true; /* of equals those that came earlier */
	int seen = 0;

	*ret_own = *ret_others = 0;
	for (struct list *at = due->next; at != due; at = at->next) {
		const struct task *t = list_entry(at, struct task, link);
		double careful = served_careful(t->ep);

		if (t == task)
			before = false;
		if (!before && !all)
			break;
		if (t == task)
			continue;
		if (seen++ == LOOK_BEHIND)
			return false;
		if (t->ep != task->ep)
			*ret_others += careful * (all ? choose_most(t) : fair_least(t));
		else if (before)
			*ret_own += careful * fair_least(t);
	}
	return true;
}

/* Of its queue; -1: not known. */
static int64_t keep(struct task *task)
{
	struct sched *s = task->ep->s;
	struct group group = group_alone(task), part[MAX_DEVICES];
	double own, others;
	struct contest c;
	int64_t kept = 0;

	if (task->due == INT64_MAX)
		return task->n_queued;
	if (!task->ep->ready)
		return -1;
	c = fair_look(s, devices_free_at(s));
	if (!work_before(task, c.over, &own, &others))
		return -1;
	split_roughly(s, &group, OUTBOX_CAREFUL, part);
	for (int i = 0; i < s->n_devices; i++) {
		int64_t time;
		double most;

		if (!part[i].n)
			continue;
		time = choose_time_left(s, &part[i], device_free_at(part[i].device), OUTBOX_CAREFUL);
		most = (1 - fair_part(&c, task->ep)) * (double)time;
		kept += choose_kept(
			s, &part[i],
			(int64_t)((double)time - own - (c.over && others > most ? most : others)));
	}
	return kept < task->n_queued ? kept : task->n_queued;
}

/* All tasks of the directory that are not finished. */
static void tell(const struct batch *batch)
{
	struct sched *s = batch->ep->s;
	struct opset ops = OPSET_INIT;
	char path[2 * MAX_NAME + 64], text[24];
	struct host_entry e;
	int64_t sum = 0;

	list_each(link, &batch->tasks)
	{
		const struct task *task = list_entry(link, struct task, batch_link);

		sum += task->admitted > 0 ? task->admitted : 0;
	}
	endpoint_path(batch->ep, path, sizeof(path), "in/%s", batch->name);
	if (s->ops->lookup(s->host, path, &e) < 0)
		return; /* it went meanwhile */
	snprintf(text, sizeof(text), "%" PRId64, sum);
	opset_add(&ops, HOST_STATE, e.ino, "user.admitted", text, strlen(text));
	if (opset_commit(&ops, s) < 0)
		log_trace(LOG_SCHED, "%s: user.admitted could not be set", path);
	opset_release(&ops);
}

void task_admit(struct task *task)
{
	int64_t kept;

	if (batch_is_loose(task->batch))
		return;
	kept = keep(task);
	task->admitted =
		kept < 0 ? -1
			 : kept + task->total - task->n_queued - task->late - task->dropped - task->failed;
	if (kept >= 0)
		tell(task->batch);
}
