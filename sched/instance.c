/*
 * Instances, from the first event of their file until a task has them. Nothing here looks at a file's content.
 * Its deadline is asked from the host once when it is complete (it may have been set before a rename) and
 * after that known from events.
 */
#include "sched/ahead.h"
#include "sched/internal.h"

#include "engine/base/log.h"

#include <stdlib.h>
#include <string.h>

#define MIN_SYNCED_NS (50 * NS_PER_MS) /* chosen: between the writes of a program that syncs now and then */

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

struct instance *instance_find(struct endpoint *ep, const char *path)
{
	struct table_node *node = table_find(&ep->instances, path);

	return node ? list_entry(node, struct instance, node) : spill_find(ep, path);
}

bool instance_is_known(const struct endpoint *ep, const char *path)
{
	return table_find(&ep->instances, path) || spill_has(ep, path);
}

int64_t instance_bytes(const struct instance *inst)
{
	return (int64_t)(sizeof(*inst) + strlen(inst->path) + 1);
}

struct instance *instance_new(struct batch *batch, const char *path, uint64_t ino)
{
	struct instance *inst = calloc(1, sizeof(*inst) + strlen(path) + 1);

	if (!inst)
		return NULL;
	strcpy(inst->path, path);
	list_init(&inst->link);
	list_init(&inst->early);
	inst->batch = batch;
	inst->ino = ino;
	if (table_add(&batch->ep->instances, &inst->node, inst->path) < 0) {
		free(inst);
		return NULL;
	}
	inst->named = true;
	batch->ep->s->in_memory++;
	batch->ep->s->in_memory_bytes += instance_bytes(inst);
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
	ahead_leave(inst);
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
	instance_discard(inst->batch->ep->s, inst);
}

void instance_discard(struct sched *s, struct instance *inst)
{
	s->in_memory--;
	s->in_memory_bytes -= instance_bytes(inst);
	ahead_forget(inst);
	free(inst->held);
	free(inst);
}

void instance_ready(struct instance *inst)
{
	leave_batch(inst);
	inst->state = INSTANCE_IS_COMPLETE;
	list_append(&inst->batch->ready, &inst->link);
	inst->batch->n_ready++;
	ahead_add(inst);
}

void instance_wait(struct instance *inst, struct task *task, uint32_t no)
{
	leave_batch(inst);
	inst->state = INSTANCE_IS_QUEUED;
	inst->task = task;
	inst->no = no;
	list_append(&task->queue, &inst->link);
}

void instance_queue(struct instance *inst, struct task *task)
{
	instance_wait(inst, task, inst->task ? inst->no : task->next_no);
	if (inst->no >= task->next_no)
		task->next_no = inst->no + 1;
	task->total++;
	task->open++;
	task->n_queued++;
	task->ep->s->dispatch.n_queued++;
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
		ahead_forget(inst);
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
	struct batch *batch;

	instance_writing(ep, inst, path, ino);
	inst = instance_find(ep, path);
	if (!inst) {
		log_error("infer/%s/in/%s: out of memory; it is seen again after a restart", ep->name, path);
		return;
	}
	if (inst->state == INSTANCE_IS_QUEUED) {
		inst->ino = ino; /* replaced by a rename; what is there when it runs counts */
		return;
	}
	if (deadline_read(ep->s, ino, &own))
		inst->own = own;
	if (unpack_wants(inst)) {
		leave_batch(inst);
		inst->state = INSTANCE_IS_UNPACKING;
		unpack_take(inst);
		return;
	}
	batch = inst->batch;
	instance_ready(inst);
	if (batch->closing && !batch->n_writing) {
		batch_submit(batch, batch->asked_at);
		return;
	}
	batch_touch(batch);
	draft_gather(batch);
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
		batch_touch(batch);
		if (batch->closing && !batch->n_writing)
			batch_submit(batch, batch->asked_at);
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
	struct instance *inst = instance_find(ep, path);

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
