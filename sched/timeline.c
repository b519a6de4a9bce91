#include "sched/timeline.h"
#include "sched/internal.h"
#include "sched/minibatch.h"
#include "sched/result.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SOON_NS NS_PER_S /* chosen: drawing takes 1 to 4 ms of the scheduler's thread (measured) */

static void publish(void *data)
{
	struct timeline *t = data;
	struct loop *loop = t->ep->s->loop;
	struct buf text = BUF_INIT;

	t->timer = NULL;
	timeline_svg(t, loop_wall(loop) - loop_now(loop), &text);
	endpoint_publish(t->ep, "timeline.svg", &text);
	buf_release(&text);
}

static void changed(struct timeline *t)
{
	struct loop *loop = t->ep->s->loop;

	if (!t->timer)
		t->timer = loop_timer_at(loop, loop_now(loop) + SOON_NS, publish, t);
}

void timeline_free(struct timeline *t)
{
	if (t)
		loop_timer_cancel(t->ep->s->loop, t->timer);
	free(t);
}

/* NULL: out of memory, and then there is no picture. */
static struct timeline *timeline_of(struct endpoint *ep)
{
	if (!ep->timeline) {
		ep->timeline = calloc(1, sizeof(*ep->timeline));
		if (ep->timeline)
			ep->timeline->ep = ep;
	}
	return ep->timeline;
}

/* As it is now. */
static struct timeline_task *note_task(struct timeline *t, const struct task *task)
{
	unsigned kept = t->n_tasks < TIMELINE_TASKS ? t->n_tasks : TIMELINE_TASKS;
	struct timeline_task *ret = NULL;

	for (unsigned i = 0; i < kept && !ret; i++)
		if (t->tasks[i].seq == task->seq)
			ret = &t->tasks[i];
	if (!ret) {
		ret = &t->tasks[t->n_tasks++ % TIMELINE_TASKS];
		*ret = (struct timeline_task){.seq = task->seq};
		memcpy(ret->name, task->batch->name, sizeof(ret->name));
	}
	ret->submitted = task->submitted;
	ret->due = task->due;
	ret->total = task->total;
	ret->ok = task->ok;
	ret->late = task->late;
	ret->dropped = task->dropped;
	ret->failed = task->failed;
	ret->planned = 100 * task->planned_p_eff;
	return ret;
}

void timeline_task(const struct task *task)
{
	struct timeline *t = timeline_of(task->ep);
	struct timeline_task *noted;

	if (!t)
		return;
	noted = note_task(t, task);
	noted->finished = task->finished;
	noted->real = result_p_eff(task);
	changed(t);
}

/* The task's last run goes on when this is of the same kind and came without a pause. */
static void add_run(struct timeline *t, const struct timeline_run *run)
{
	unsigned kept = t->n_runs < TIMELINE_RUNS ? t->n_runs : TIMELINE_RUNS;

	for (unsigned i = 1; i <= kept; i++) {
		struct timeline_run *last = &t->runs[(t->n_runs - i) % TIMELINE_RUNS];

		if (last->seq != run->seq || last->device != run->device)
			continue;
		if (last->slice != run->slice || strcmp(last->precision, run->precision) != 0 ||
		    last->members != run->members || last->died != run->died || last->late != run->late ||
		    run->started - last->ended > (run->ended - run->started) / 4)
			break;
		last->ended = run->ended;
		last->expected += run->expected;
		last->compute += run->compute;
		last->minibatches++;
		last->instances += run->instances;
		return;
	}
	t->runs[t->n_runs++ % TIMELINE_RUNS] = *run;
}

/* NULL: it was released, or is not submitted yet. */
static const struct task *task_of(const struct minibatch *mb, int i)
{
	return mb->inst[i] ? mb->inst[i]->task : NULL;
}

void timeline_minibatch(const struct minibatch *mb, int64_t started, const struct batch_done *done)
{
	struct timeline *t = timeline_of(mb->ep);
	const struct submodel *m = &mb->ep->submodels[mb->submodel];
	struct timeline_run run = {.started = started,
				   .expected = mb->expected,
				   .compute = done->compute_ns,
				   .device = mb->device->number,
				   .minibatches = 1,
				   .instances = mb->n,
				   .slice = (int)lround(m->slice * 1e4),
				   .members = m->members,
				   .died = done->r < 0};
	int n_tasks = 0;

	if (!t)
		return;
	run.ended = loop_now(mb->ep->s->loop);
	memcpy(run.precision, m->precision, sizeof(run.precision));
	t->batches[t->n_batches++ % TIMELINE_BATCHES] = run;
	/* Its newest tasks: no more of them have a row. Those of one task stand together. */
	for (int i = mb->n, first; i > 0 && n_tasks < TIMELINE_TASKS; i = first) {
		const struct task *task = task_of(mb, i - 1);
		struct timeline_task *noted;

		for (first = i - 1; first > 0 && task_of(mb, first - 1) == task; first--)
			;
		if (!task)
			continue;
		noted = note_task(t, task);
		n_tasks++;
		if (!noted->begun)
			noted->begun = started;
		noted->ended = run.ended;
		run.seq = task->seq;
		run.instances = i - first;
		run.late = run.ended > task->due;
		add_run(t, &run);
	}
	changed(t);
}
