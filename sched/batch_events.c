/* What happens to directories in in/, and to deadlines. */
#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
		const struct instance *inst;
		uint64_t ino;

		memcpy(&ino, walk.found.data + at, sizeof(ino));
		at += sizeof(ino);
		inst = instance_find(ep, walk.found.data + at);
		if (!inst || inst->state != INSTANCE_IS_WRITING) /* else its end tells */
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

	spill_recall_below(batch, dir);
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
				batch_ask_submission(batch);
		}
		batch->last_event = loop_now(ep->s->loop);
		break;
	case BATCH_REMOVED:
		if (top)
			draft_discard(batch);
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
		batch_ask_submission(batch);
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
	struct instance *inst = instance_find(ep, path);
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
