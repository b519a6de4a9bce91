/*
 * From what happens in in/ to tasks (DESIGN section 2, "submitted"). Nothing here looks at a file's content.
 *
 * Each event costs O(1): a batch that is written to for minutes only moves last_event on, and its one timer
 * looks at that when it fires. Deadlines are asked from the host once for each file when it is complete (they
 * may have been set before a rename) and after that known from events.
 */
#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESUBMIT_NS   NS_PER_S         /* after a submission that could not be recorded (disk full) */
#define MIN_SYNCED_NS (50 * NS_PER_MS) /* chosen: between the writes of a program that syncs now and then */

static void submit(struct batch *batch, int64_t at);

/* --- batches --- */

bool batch_is_loose(const struct batch *batch)
{
	return !batch->name[0];
}

struct batch *batch_get(struct endpoint *ep, const char *path, bool create)
{
	const char *slash = strchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	struct table_node *node;
	struct batch *batch;
	char name[MAX_NAME];

	if (len >= MAX_NAME)
		return NULL;
	memcpy(name, path, len);
	name[len] = '\0';
	node = table_find(&ep->batches, name);
	if (node || !create)
		return node ? list_entry(node, struct batch, node) : NULL;
	batch = calloc(1, sizeof(*batch));
	if (!batch)
		return NULL;
	batch->ep = ep;
	strcpy(batch->name, name);
	list_init(&batch->ready);
	list_init(&batch->writing);
	list_init(&batch->tasks);
	list_init(&batch->finished);
	if (table_add(&ep->batches, &batch->node, batch->name) < 0) {
		free(batch);
		return NULL;
	}
	return batch;
}

static struct batch *batch_named(struct endpoint *ep, const char *name, bool create)
{
	char path[MAX_NAME + 1];

	if (snprintf(path, sizeof(path), "%s/", name) >= (int)sizeof(path))
		return NULL;
	return batch_get(ep, *name ? path : "", create);
}

static void cancel_timers(struct batch *batch)
{
	loop_timer_cancel(batch->ep->s->loop, batch->settle);
	loop_timer_cancel(batch->ep->s->loop, batch->closing);
	batch->settle = batch->closing = NULL;
}

void batch_release_unused(struct batch *batch)
{
	if (!batch->removed || !list_empty(&batch->ready) || !list_empty(&batch->writing) ||
	    !list_empty(&batch->tasks) || !list_empty(&batch->finished))
		return;
	cancel_timers(batch);
	table_remove(&batch->ep->batches, &batch->node);
	free(batch);
}

static bool read_deadline(struct sched *s, uint64_t ino, struct deadline *ret)
{
	char text[80];
	int len = s->ops->getxattr(s->host, ino, "user.deadline", text, sizeof(text));

	return len > 0 && deadline_parse(ret, text, strlen(text), NULL) == 0;
}

static bool own_deadline(struct batch *batch)
{
	struct endpoint *ep = batch->ep;
	struct host_entry e;
	char path[2 * MAX_NAME + 32];

	if (!batch->deadline_known) {
		endpoint_path(ep, path, sizeof(path), "in%s%s", *batch->name ? "/" : "", batch->name);
		batch->deadline = (struct deadline){0};
		batch->deadline_known = true;
		if (ep->s->ops->lookup(ep->s->host, path, &e) == 0)
			read_deadline(ep->s, e.ino, &batch->deadline);
	}
	return batch->deadline.set;
}

enum deadline_source batch_deadline(struct batch *batch, struct deadline *ret)
{
	struct batch *in = batch_named(batch->ep, "", true);

	*ret = (struct deadline){0};
	if (!batch_is_loose(batch) && own_deadline(batch)) {
		*ret = batch->deadline;
		return DEADLINE_BATCH;
	}
	if (in && own_deadline(in)) {
		*ret = in->deadline;
		return DEADLINE_IN;
	}
	if (batch->ep->spec.deadline.set) {
		*ret = batch->ep->spec.deadline;
		return DEADLINE_SPEC;
	}
	return DEADLINE_NONE;
}

static int64_t settle_ns(const struct batch *batch)
{
	const struct endpoint *ep = batch->ep;
	int64_t own = batch_is_loose(batch) ? ep->spec.settle_ns : ep->spec.settle_batch_ns;

	if (ep->has_spec && own >= 0)
		return own;
	return batch_is_loose(batch) ? ep->s->options.settle_ns : ep->s->options.settle_batch_ns;
}

static void settled(void *data)
{
	struct batch *batch = data;
	struct loop *loop = batch->ep->s->loop;
	int64_t at = batch->last_event + settle_ns(batch);

	batch->settle = NULL;
	if (batch_is_loose(batch)) {
		submit(batch, loop_now(loop));
		return;
	}
	if (batch->n_writing || batch->closing || list_empty(&batch->ready))
		return; /* the next event sets the timer again */
	if (loop_now(loop) < at)
		batch->settle = loop_timer_at(loop, at, settled, batch);
	else
		submit(batch, loop_now(loop));
}

/* Something happened in the batch: a directory is quiet from here on, a window of loose files may open. */
static void touch(struct batch *batch)
{
	struct loop *loop = batch->ep->s->loop;

	batch->last_event = loop_now(loop);
	if (batch->settle || list_empty(&batch->ready) || (!batch_is_loose(batch) && batch->n_writing))
		return;
	if (settle_ns(batch) == 0)
		submit(batch, batch->last_event);
	else
		batch->settle = loop_timer_at(loop, batch->last_event + settle_ns(batch), settled, batch);
}

static void closing_ends(void *data)
{
	struct batch *batch = data;

	batch->closing = NULL;
	submit(batch, batch->asked_at);
}

/* The user said that the batch is whole: now, or when what is still open is closed, but soon in any case. */
static void ask_submission(struct batch *batch)
{
	struct sched *s = batch->ep->s;
	int64_t now = loop_now(s->loop);

	if (list_empty(&batch->ready) && !batch->n_writing)
		return;
	if (!batch->n_writing) {
		submit(batch, now);
	} else if (!batch->closing) {
		batch->asked_at = now;
		batch->closing = loop_timer_at(s->loop, now + s->options.settle_ns, closing_ends, batch);
	}
}

/* --- instances --- */

static bool part_waits(const char *part, size_t len)
{
	static const char *const endings[] = {"~", ".tmp", ".part"};

	if (len && part[0] == '.')
		return true;
	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		size_t n = strlen(endings[i]);

		if (len >= n && memcmp(part + len - n, endings[i], n) == 0)
			return true;
	}
	return false;
}

bool instance_name_waits(const char *path)
{
	for (const char *part = path;; part++) {
		size_t len = strcspn(part, "/");

		if (part_waits(part, len))
			return true;
		part += len;
		if (!*part)
			return false;
	}
}

static struct instance *find_instance(struct endpoint *ep, const char *path)
{
	struct table_node *node = table_find(&ep->instances, path);

	return node ? list_entry(node, struct instance, node) : NULL;
}

struct instance *instance_new(struct batch *batch, const char *path, uint64_t ino)
{
	struct instance *inst = calloc(1, sizeof(*inst) + strlen(path) + 1);

	if (!inst)
		return NULL;
	strcpy(inst->path, path);
	list_init(&inst->link);
	inst->batch = batch;
	inst->ino = ino;
	if (table_add(&batch->ep->instances, &inst->node, inst->path) < 0) {
		free(inst);
		return NULL;
	}
	inst->named = true;
	list_append(&batch->writing, &inst->link);
	batch->n_writing++;
	return inst;
}

static void cancel_synced(struct instance *inst)
{
	loop_timer_cancel(inst->batch->ep->s->loop, inst->synced);
	inst->synced = NULL;
}

/* Out of the batch's lists; a queued or running one is in none of them. */
static void leave_batch(struct instance *inst)
{
	if (inst->state == INSTANCE_IS_WRITING)
		inst->batch->n_writing--;
	else if (inst->state == INSTANCE_IS_COMPLETE)
		inst->batch->n_ready--;
	else
		return;
	list_remove(&inst->link);
}

void instance_unname(struct instance *inst)
{
	if (inst->named)
		table_remove(&inst->batch->ep->instances, &inst->node);
	inst->named = false;
}

void instance_free(struct instance *inst)
{
	leave_batch(inst);
	cancel_synced(inst);
	list_remove(&inst->link);
	instance_unname(inst);
	free(inst);
}

void instance_queue(struct instance *inst, struct task *task)
{
	leave_batch(inst);
	inst->state = INSTANCE_IS_QUEUED;
	if (!inst->task) {
		inst->task = task;
		inst->no = task->next_no;
	}
	if (inst->no >= task->next_no)
		task->next_no = inst->no + 1;
	task->total++;
	task->open++;
	task->n_queued++;
	task->ep->s->dispatch.n_queued++;
	list_append(&task->queue, &inst->link);
}

static void instance_writing(struct endpoint *ep, struct instance *inst, const char *path, uint64_t ino)
{
	struct batch *batch = inst ? inst->batch : batch_get(ep, path, true);

	if (inst &&
	    inst->state == INSTANCE_IS_RUNNING) { /* what comes is another content: another instance */
		instance_unname(inst);
		inst = NULL;
	}
	if (!batch || (inst && inst->state == INSTANCE_IS_QUEUED))
		return;
	if (!inst) {
		inst = instance_new(batch, path, ino);
	} else if (inst->state == INSTANCE_IS_COMPLETE) {
		leave_batch(inst);
		inst->state = INSTANCE_IS_WRITING;
		list_append(&batch->writing, &inst->link);
		batch->n_writing++;
	} else if (inst->state == INSTANCE_IS_UNPACKING) {
		unpack_cancel(inst);
		inst->state = INSTANCE_IS_WRITING;
		list_append(&batch->writing, &inst->link);
		batch->n_writing++;
	}
	if (inst) {
		inst->ino = ino;
		cancel_synced(inst);
		if (unpack_wants(inst))
			unpack_expect(inst);
	}
	batch->last_event = loop_now(ep->s->loop);
}

static void instance_complete(struct endpoint *ep, struct instance *inst, const char *path, uint64_t ino)
{
	struct deadline own;

	instance_writing(ep, inst, path, ino);
	inst = find_instance(ep, path);
	if (!inst) {
		log_error("infer/%s/in/%s: out of memory; it is seen again after a restart", ep->name, path);
		return;
	}
	if (inst->state == INSTANCE_IS_QUEUED) {
		inst->ino = ino; /* replaced by a rename; what is there when it runs counts */
		return;
	}
	leave_batch(inst);
	if (read_deadline(ep->s, ino, &own))
		inst->own = own;
	if (unpack_wants(inst)) {
		inst->state = INSTANCE_IS_UNPACKING;
		unpack_take(inst);
		return;
	}
	inst->state = INSTANCE_IS_COMPLETE;
	list_append(&inst->batch->ready, &inst->link);
	inst->batch->n_ready++;
	if (inst->batch->closing && !inst->batch->n_writing) {
		int64_t at = inst->batch->asked_at;

		submit(inst->batch, at);
		return;
	}
	touch(inst->batch);
}

static void synced_ends(void *data)
{
	struct instance *inst = data;
	struct endpoint *ep = inst->batch->ep;
	char *path = strdup(inst->path); /* completing it may submit it, run it and free it */

	inst->synced = NULL;
	if (path)
		instance_complete(ep, inst, path, inst->ino);
	free(path);
}

static void instance_synced(struct instance *inst)
{
	struct sched *s = inst->batch->ep->s;
	int64_t wait = s->options.settle_ns > MIN_SYNCED_NS ? s->options.settle_ns : MIN_SYNCED_NS;

	cancel_synced(inst);
	inst->synced = loop_timer_at(s->loop, loop_now(s->loop) + wait, synced_ends, inst);
}

static void instance_removed(struct instance *inst)
{
	struct batch *batch = inst->batch;

	switch (inst->state) {
	case INSTANCE_IS_WRITING:
	case INSTANCE_IS_COMPLETE:
		instance_free(inst);
		touch(batch);
		if (batch->closing && !batch->n_writing)
			submit(batch, batch->asked_at);
		break;
	case INSTANCE_IS_QUEUED:
		task_remove_instance(inst);
		break;
	case INSTANCE_IS_REMOVED:
		break;            /* it has no name: not found */
	case INSTANCE_IS_RUNNING: /* it did run: its answer comes; the name may be used anew */
		instance_unname(inst);
		break;
	case INSTANCE_IS_UNPACKING:
		unpack_cancel(inst);
		instance_free(inst);
		break;
	}
}

void task_instance_event(struct endpoint *ep, enum instance_event event, const char *path, uint64_t ino)
{
	struct instance *inst = find_instance(ep, path);

	switch (event) {
	case INSTANCE_WRITING:
		instance_writing(ep, inst, path, ino);
		break;
	case INSTANCE_COMPLETE:
		instance_complete(ep, inst, path, ino);
		break;
	case INSTANCE_REMOVED:
		if (inst)
			instance_removed(inst);
		break;
	case INSTANCE_SYNCED:
		if (inst && inst->state == INSTANCE_IS_WRITING)
			instance_synced(inst);
		break;
	case INSTANCE_CLOSED: /* else it is complete since a while */
		if (inst && inst->state == INSTANCE_IS_WRITING)
			instance_complete(ep, inst, path, ino);
		break;
	}
}

/* --- directories --- */

struct walk {
	struct endpoint *ep;
	const char *dir;  /* relative to in/ */
	struct buf found; /* ino, path with NUL: the events are made when the walk is over */
};

static int note_file(void *data, const struct host_entry *e)
{
	struct walk *walk = data;

	if (e->is_dir || instance_name_waits(e->path))
		return 0;
	buf_add(&walk->found, &e->ino, sizeof(e->ino));
	buf_adds(&walk->found, walk->dir);
	buf_adds(&walk->found, "/");
	buf_add(&walk->found, e->path, strlen(e->path) + 1);
	return walk->found.failed;
}

static void renamed_in(struct endpoint *ep, const char *dir)
{
	struct walk walk = {.ep = ep, .dir = dir};
	char *path = NULL;
	int r = -ENOMEM;

	if (asprintf(&path, "infer/%s/in/%s", ep->name, dir) >= 0)
		r = ep->s->ops->walk(ep->s->host, path, note_file, &walk);
	if (r >= 0)
		r = buf_status(&walk.found);
	if (r < 0)
		log_error("%s: looking for instances: %s", path ? path : dir, strerror(-r));
	for (size_t at = 0; at < walk.found.len;) {
		uint64_t ino;

		memcpy(&ino, walk.found.data + at, sizeof(ino));
		at += sizeof(ino);
		task_instance_event(ep, INSTANCE_COMPLETE, walk.found.data + at, ino);
		at += strlen(walk.found.data + at) + 1;
	}
	buf_release(&walk.found);
	free(path);
}

static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return strncmp(path, dir, len) == 0 && path[len] == '/';
}

static void remove_below(struct batch *batch, const char *dir)
{
	struct list *lists[] = {&batch->writing, &batch->ready};

	for (size_t i = 0; i < 2; i++)
		list_each(link, lists[i])
		{
			struct instance *inst = list_entry(link, struct instance, link);

			if (is_below(inst->path, dir))
				instance_free(inst);
		}
	list_each(task_link, &batch->tasks)
	{
		struct task *task = list_entry(task_link, struct task, batch_link);

		list_each(link, &task->queue)
		{
			struct instance *inst = list_entry(link, struct instance, link);

			if (is_below(inst->path, dir))
				task_remove_instance(inst);
		}
	}
}

void task_batch_event(struct endpoint *ep, enum batch_event event, const char *path, uint64_t ino)
{
	bool top = !strchr(path, '/');
	struct batch *batch = top ? batch_named(ep, path, event != BATCH_REMOVED) : batch_get(ep, path, true);

	(void)ino;
	if (!batch || !*path)
		return;
	switch (event) {
	case BATCH_MADE:
	case BATCH_RENAMED_IN:
		if (top) {
			batch->removed = false;
			batch->fresh = true;
			batch->deadline_known = false;
		}
		if (event == BATCH_RENAMED_IN) {
			renamed_in(ep, path);
			if (top)
				ask_submission(batch);
		}
		batch->last_event = loop_now(ep->s->loop);
		break;
	case BATCH_REMOVED:
		remove_below(batch, path);
		if (top) {
			batch->removed = true;
			batch_release_unused(batch);
		}
		break;
	}
}

/* --- deadlines --- */

static void batch_deadline_event(struct batch *batch, const struct deadline *deadline)
{
	batch->deadline = *deadline;
	batch->deadline_known = true;
	batch->last_event = loop_now(batch->ep->s->loop);
	if (batch_is_loose(batch))
		return; /* of in/: counts for what is submitted from now on */
	list_each(link, &batch->tasks)
	{
		struct task *task = list_entry(link, struct task, batch_link);
		enum deadline_source source;
		struct deadline now;

		if (task->source == DEADLINE_FILE)
			continue;
		source = batch_deadline(batch, &now);
		task_move_deadline(task, &now, source);
	}
	if (deadline->set)
		ask_submission(batch);
}

static void file_deadline_event(struct instance *inst, const struct deadline *deadline)
{
	enum deadline_source source = DEADLINE_FILE;
	struct deadline now = *deadline;

	inst->own = *deadline;
	if (inst->state == INSTANCE_IS_WRITING || inst->state == INSTANCE_IS_COMPLETE ||
	    inst->state == INSTANCE_IS_UNPACKING)
		return;
	if (!now.set)
		source = batch_deadline(inst->batch, &now);
	task_move_instance(inst, &now, source);
}

void task_deadline_event(struct endpoint *ep, const char *path, uint64_t ino, const char *text)
{
	struct deadline deadline = {0};
	struct instance *inst = find_instance(ep, path);
	struct host_entry e;
	struct err err = ERR_INIT;
	char whole[2 * MAX_NAME + 32];

	(void)ino;
	if (text && deadline_parse(&deadline, text, strlen(text), &err) < 0) {
		log_warn("infer/%s/in/%s: not a deadline: %s", ep->name, path, err.detail);
		return;
	}
	if (inst) {
		file_deadline_event(inst, &deadline);
		return;
	}
	if (text && unpack_deadline(ep, path, ino, text))
		return;
	if (strchr(path, '/') || strlen(path) >= MAX_NAME)
		return; /* an answered file, or a directory in a batch: no task has its deadline from it */
	endpoint_path(ep, whole, sizeof(whole), "in%s%s", *path ? "/" : "", path);
	if (*path && !batch_named(ep, path, false) &&
	    (ep->s->ops->lookup(ep->s->host, whole, &e) < 0 || !e.is_dir))
		return;
	if (batch_named(ep, path, true))
		batch_deadline_event(batch_named(ep, path, false), &deadline);
}

/* --- submission --- */

static int by_own_deadline(const void *a, const void *b)
{
	const struct deadline *x = &(*(struct instance *const *)a)->own,
			      *y = &(*(struct instance *const *)b)->own;

	if (x->absolute != y->absolute)
		return x->absolute - y->absolute;
	return x->ns < y->ns ? -1 : x->ns > y->ns;
}

static bool same_deadline(const struct deadline *a, const struct deadline *b)
{
	return a->set == b->set && (!a->set || (a->absolute == b->absolute && a->ns == b->ns));
}

/* Instances of `list` up to the first whose own deadline differs from the first one's. They go back to the
 * batch when the task could not be recorded. */
static int submit_some(struct batch *batch, struct list *list, int64_t at)
{
	struct endpoint *ep = batch->ep;
	struct instance *first = list_entry(list->next, struct instance, link);
	enum deadline_source source = DEADLINE_FILE;
	struct deadline deadline = first->own;
	struct task *task;
	int64_t wall = loop_wall(ep->s->loop) - (loop_now(ep->s->loop) - at);
	int r = task_new(&task, batch, ep->last_seq + 1, wall);

	if (r < 0)
		return r;
	if (!deadline.set)
		source = batch_deadline(batch, &deadline);
	task_set_deadline(task, &deadline, source);
	list_each(link, list)
	{
		struct instance *inst = list_entry(link, struct instance, link);

		if (!same_deadline(&inst->own, &first->own))
			break;
		instance_queue(inst, task);
	}
	r = store_submit(task);
	if (r < 0) {
		list_each(link, &task->queue)
		{
			struct instance *inst = list_entry(link, struct instance, link);

			list_remove(&inst->link);
			list_append(list, &inst->link);
			inst->task = NULL;
			inst->no = 0;
			inst->state = INSTANCE_IS_COMPLETE;
			batch->n_ready++;
			ep->s->dispatch.n_queued--;
		}
		task_free(task);
		return r;
	}
	ep->last_seq = task->seq;
	status_event(ep->s, "submitted", ep->name, task->id, task->total);
	dispatch_task(ep->s, task);
	return 0;
}

/* Those without a deadline of their own first, then by deadline. */
static void sort_by_deadline(struct list *list, size_t n)
{
	struct list own;
	struct instance **sorted;
	size_t n_own = 0;

	list_init(&own);
	list_each(link, list) if (list_entry(link, struct instance, link)->own.set)
	{
		list_remove(link);
		list_append(&own, link);
		n_own++;
	}
	sorted = n_own > 1 ? malloc(n * sizeof(struct instance *)) : NULL;
	if (sorted) {
		n_own = 0;
		list_each(link, &own) sorted[n_own++] = list_entry(link, struct instance, link);
		list_init(&own);
		qsort(sorted, n_own, sizeof(*sorted), by_own_deadline);
		for (size_t i = 0; i < n_own; i++)
			list_append(&own, &sorted[i]->link);
		free(sorted);
	} /* unsorted they only make more tasks */
	list_splice(list, &own);
}

static void submit(struct batch *batch, int64_t at)
{
	struct endpoint *ep = batch->ep;
	struct list list;
	int r = 0;

	cancel_timers(batch);
	if (list_empty(&batch->ready))
		return;
	if (!batch_is_loose(batch)) {
		char path[2 * MAX_NAME + 64];

		/* `inferfs wait out/B/task.json` must not find an older one. */
		endpoint_path(ep, path, sizeof(path), "out/%s/task.json", batch->name);
		ep->s->ops->unpublish(ep->s->host, path);
		if (batch->fresh) {
			endpoint_path(ep, path, sizeof(path), "out/%s/results.csv", batch->name);
			ep->s->ops->unpublish(ep->s->host, path);
		}
		batch->fresh = false;
	}
	list_init(&list);
	list_splice(&list, &batch->ready);
	sort_by_deadline(&list, batch->n_ready);
	while (r == 0 && !list_empty(&list))
		r = submit_some(batch, &list, at);
	list_splice(&batch->ready, &list);
	if (r < 0) {
		log_error("infer/%s/in/%s: submitting: %s", ep->name, batch->name, strerror(-r));
		batch->settle =
			loop_timer_at(ep->s->loop, loop_now(ep->s->loop) + RESUBMIT_NS, settled, batch);
	}
}
