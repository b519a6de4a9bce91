#include "sched/erase.h"

#include "sched/internal.h"

#include "engine/base/log.h"

#include <stdlib.h>
#include <string.h>

#define TOGETHER 512            /* chosen: well below a millisecond */
#define PAUSE_NS NS_PER_MS      /* for others who write */
#define AGAIN_NS (5 * NS_PER_S) /* after a commit that failed */

struct erasure {
	struct list link;
	struct endpoint *ep;
	size_t n, at;
	struct erased {
		uint32_t seq, no;
		char kind; /* enum key_kind */
		bool renewed;
	} key[];
};

struct erasure *erasure_new(struct endpoint *ep, struct task *const *tasks, size_t n)
{
	struct erasure *e;
	size_t keys = 0, k = 0;

	for (size_t i = 0; i < n; i++)
		keys += tasks[i]->n_rows + tasks[i]->n_noted;
	e = keys > TOGETHER ? malloc(sizeof(*e) + keys * sizeof(e->key[0])) : NULL;
	if (!e)
		return NULL;
	*e = (struct erasure){.ep = ep, .n = keys};
	list_init(&e->link);
	for (size_t i = 0; i < n; i++) {
		const struct task *task = tasks[i];

		for (size_t j = 0; j < task->n_rows; j++)
			e->key[k++] =
				(struct erased){task->seq, task->row[j].no, KEY_ROW, task->row[j].renewed};
		for (size_t j = 0; j < task->n_noted; j++)
			e->key[k++] = (struct erased){task->seq, task->noted[j], KEY_INSTANCES, false};
	}
	return e;
}

static void erase_some(void *data)
{
	struct sched *s = data;
	struct erasure *e = list_entry(s->erasures.next, struct erasure, link);
	size_t n = e->n - e->at < TOGETHER ? e->n - e->at : TOGETHER;
	struct opset ops = OPSET_INIT;
	int64_t wait = PAUSE_NS;
	char key[KEY_SIZE];

	s->erase_timer = NULL;
	for (size_t i = e->at; i < e->at + n; i++) {
		key_format(key, (enum key_kind)e->key[i].kind, e->ep->name, e->key[i].seq, e->key[i].no,
			   e->key[i].renewed ? "l" : "");
		opset_add(&ops, HOST_DEL, 0, key, NULL, 0);
	}
	if (opset_commit(&ops, s) < 0) {
		log_trace(LOG_SCHED, "%s: records of ended tasks can't be deleted now", e->ep->name);
		wait = AGAIN_NS;
	} else {
		e->at += n;
	}
	opset_release(&ops);
	if (e->at == e->n) {
		list_remove(&e->link);
		free(e);
	}
	if (!list_empty(&s->erasures))
		s->erase_timer = loop_timer_at(s->loop, loop_now(s->loop) + wait, erase_some, s);
}

void erasure_begin(struct erasure *e)
{
	struct sched *s = e->ep->s;

	list_append(&s->erasures, &e->link);
	if (!s->erase_timer)
		s->erase_timer = loop_timer_at(s->loop, loop_now(s->loop), erase_some, s);
}

static void forget(struct sched *s, const struct endpoint *ep)
{
	list_each(link, &s->erasures)
	{
		struct erasure *e = list_entry(link, struct erasure, link);

		if (ep && e->ep != ep)
			continue;
		list_remove(&e->link);
		free(e);
	}
	if (list_empty(&s->erasures)) {
		loop_timer_cancel(s->loop, s->erase_timer);
		s->erase_timer = NULL;
	}
}

void erasures_forget(struct endpoint *ep)
{
	forget(ep->s, ep);
}

void erasures_release(struct sched *s)
{
	forget(s, NULL);
}
