/* Tasks: their deadlines and their end. */
#include "sched/admit.h"
#include "sched/internal.h"
#include "sched/result.h"

#include "engine/base/json.h"
#include "engine/base/log.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_RESULTS (UINT64_C(1) << 28) /* bytes of an older results.csv that is taken up; chosen */

void task_set_submitted(struct task *task, int64_t submitted_wall)
{
	const struct loop *loop = task->ep->s->loop;

	task->submitted_wall = submitted_wall;
	task->submitted = loop_now(loop) - (loop_wall(loop) - submitted_wall);
}

int task_new(struct task **ret, struct batch *batch, uint32_t seq, int64_t submitted_wall)
{
	struct task *task = calloc(1, sizeof(*task));

	if (!task)
		return -ENOMEM;
	task->ep = batch->ep;
	task->batch = batch;
	task->seq = seq;
	snprintf(task->id, sizeof(task->id), "%s-%06" PRIu32, batch->ep->name, seq);
	task_set_submitted(task, submitted_wall);
	task->due = INT64_MAX;
	task->admitted = -1;
	list_init(&task->queue);
	list_init(&task->pages);
	list_init(&task->removed);
	list_init(&task->removing);
	list_init(&task->link);
	list_init(&task->own);
	list_append(&batch->tasks, &task->batch_link);
	*ret = task;
	return 0;
}

void task_free(struct task *task)
{
	struct batch *batch = task->batch;

	dispatch_task_gone(task);
	spill_forget(task);
	list_remove(&task->removing);
	list_remove(&task->batch_link);
	cascade_forget(task);
	buf_release(&task->rows);
	free(task->row);
	free(task->noted);
	free(task);
	batch_release_unused(batch);
}

void task_set_deadline(struct task *task, const struct deadline *deadline, enum deadline_source source)
{
	task->deadline = *deadline;
	task->source = source;
	task->due = INT64_MAX;
	if (deadline->set)
		task->due = task->submitted +
			    (deadline->absolute ? deadline->ns - task->submitted_wall : deadline->ns);
}

int task_add_row(struct task *task, uint32_t no, bool renewed, const char *text, size_t *ret)
{
	size_t i = *ret, len = strlen(text);

	if (i == SIZE_MAX) {
		if (task->n_rows == task->rows_size) {
			size_t size = task->rows_size ? task->rows_size * 2 : 32;
			struct row *row = realloc(task->row, size * sizeof(*row));

			if (!row)
				return -ENOMEM;
			task->row = row;
			task->rows_size = size;
		}
		i = task->n_rows;
	}
	task->row[i] = (struct row){.no = no, .renewed = renewed, .at = ROW_STORED};
	if (!*text) {
		task->row[i].at = 0; /* a moved instance's: nothing */
	} else if (batch_is_loose(task->batch) || task->rows.len + len > ROWS_KEPT) {
		task->rows_stored = true;
	} else {
		task->row[i].at = (uint32_t)task->rows.len;
		task->row[i].len = (uint32_t)len & INT32_MAX;
		buf_add(&task->rows, text, len);
		if (task->rows.failed)
			return -ENOMEM;
	}
	if (i == task->n_rows)
		task->n_rows++;
	*ret = i;
	return 0;
}

/* Its value ends in the row. */
static int read_row(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct task *task = data;
	const char *slash = memrchr(key, '/', key_len), *text = memchr(value, '\n', value_len);
	size_t row = SIZE_MAX, len = text ? (size_t)((const char *)value + value_len - ++text) : 0;
	bool renewed = ((const char *)key)[key_len - 1] == 'l';
	int r = task_add_row(task, slash ? (uint32_t)strtoul(slash + 1, NULL, 10) : 0, renewed, "", &row);

	if (r < 0)
		return r;
	task->row[row].at = (uint32_t)task->rows.len;
	task->row[row].len = (uint32_t)len & INT32_MAX;
	buf_add(&task->rows, text, len);
	return buf_status(&task->rows);
}

int task_read_rows(struct task *task)
{
	struct sched *s = task->ep->s;
	size_t n = task->n_rows;
	char key[KEY_SIZE];
	int r;

	if (!task->rows_stored)
		return 0;
	key_format(key, KEY_ROW, task->ep->name, task->seq, -1, "");
	strcat(key, "/");
	buf_clear(&task->rows);
	task->n_rows = 0;
	r = s->ops->scan(s->host, key, strlen(key), read_row, task);
	if (r == 0)
		r = buf_status(&task->rows);
	if (r == 0 && task->n_rows != n)
		log_error("%s: %zu rows of results were read, there should be %zu", task->id, task->n_rows,
			  n);
	return r;
}

int task_note_instances(struct task *task, uint32_t first)
{
	uint32_t *noted = realloc(task->noted, (task->n_noted + 1) * sizeof(*noted));

	if (!noted)
		return -ENOMEM;
	task->noted = noted;
	noted[task->n_noted++] = first;
	return 0;
}

static int by_number(const void *key, const void *row)
{
	uint32_t a = *(const uint32_t *)key, b = ((const struct row *)row)->no;

	return a < b ? -1 : a > b;
}

bool task_has_row(const struct task *task, uint32_t no)
{
	return task->n_rows && bsearch(&no, task->row, task->n_rows, sizeof(*task->row), by_number);
}

void task_move_deadline(struct task *task, const struct deadline *deadline, enum deadline_source source)
{
	int64_t due = task->due;

	task_set_deadline(task, deadline, source);
	if (task->due == due)
		return;
	task->planned = false;
	dispatch_task(task->ep->s, task);
	task_admit(task);
}

void task_move_instance(struct instance *inst, const struct deadline *deadline, enum deadline_source source)
{
	struct task *from = inst->task, *to = NULL;
	uint32_t old_no = inst->no;
	size_t row = SIZE_MAX;
	bool running = inst->state == INSTANCE_IS_RUNNING;

	if (from->total == 1) {
		task_move_deadline(from, deadline, source);
		return;
	}
	if (running && inst->held && !list_empty(&inst->link)) { /* it has an answer */
		cascade_release_one(inst);
		return;
	}
	/* Those that move to the same deadline one after the other share a task. */
	list_each(link, &from->batch->tasks)
	{
		struct task *t = list_entry(link, struct task, batch_link);

		if (t->seq == from->split_seq)
			to = t;
	}
	if (!to || to->source != source || to->deadline.absolute != deadline->absolute ||
	    to->deadline.ns != deadline->ns || to->deadline.set != deadline->set) {
		if (task_new(&to, from->batch, from->ep->last_seq + 1, from->submitted_wall) < 0)
			return;
		task_set_deadline(to, deadline, source);
	}
	list_remove(&inst->link);
	from->total--;
	from->open--;
	if (running)
		from->n_running--;
	else
		from->n_queued--;
	from->ep->s->dispatch.n_queued -= !running;
	inst->task = NULL;
	instance_queue(inst, to);
	if (running) {
		list_remove(&inst->link);
		inst->state = INSTANCE_IS_RUNNING;
		to->n_queued--;
		to->n_running++;
		to->ep->s->dispatch.n_queued--;
	}
	if (task_add_row(from, old_no, false, "", &row) < 0 || store_split(from, old_no, to, inst) < 0)
		log_error("%s: %s: the moved deadline is not recorded", to->id, inst->path);
	if (to->seq > to->ep->last_seq)
		to->ep->last_seq = to->seq;
	from->split_seq = to->seq;
	from->planned = to->planned = false;
	dispatch_task(to->ep->s, to);
	dispatch_task(from->ep->s, from);
	task_end_if_done(from);
}

/* --- the end of a task --- */

static int send_text(struct endpoint *ep, struct parcel *p, const char *batch, const char *name)
{
	if (asprintf(&p->path, "infer/%s/out/%s/%s", ep->name, batch, name) < 0) {
		p->path = NULL;
		return -ENOMEM;
	}
	outbox_send(p);
	return 0;
}

static void keep_from_others(struct parcel *p, const struct readers *readers)
{
	p->has_access = readers_access(readers, &p->access);
}

static void batch_visible(struct parcel *p, bool visible)
{
	if (!visible)
		return; /* the endpoint is gone, with all records */
	erasure_begin(p->data);
	p->data = NULL;
}

/* All tasks of a directory have ended: results.csv, then task.json, with which their keys go. */
static int publish_batch(struct batch *batch, struct task **tasks, size_t n)
{
	struct endpoint *ep = batch->ep;
	struct sched *s = ep->s;
	struct parcel *csv = parcel_new(ep), *json = parcel_new(ep);
	struct readers readers = {0};
	struct host_access access;
	struct host_entry e;
	char path[2 * MAX_NAME + 64];
	void *old = NULL;
	size_t old_len = 0;
	int r = csv && json ? 0 : -ENOMEM;

	if (r < 0)
		goto fail;
	endpoint_path(ep, path, sizeof(path), "out/%s/results.csv", batch->name);
	if (s->ops->lookup(s->host, path, &e) == 0 && !e.is_dir &&
	    s->ops->access(s->host, e.ino, &access) == 0 &&
	    s->ops->read(s->host, e.ino, MAX_RESULTS, &old, &old_len) == 0)
		readers_add(&readers, &access);
	for (size_t i = 0; i < n; i++)
		readers_join(&readers, &tasks[i]->readers);
	keep_from_others(csv, &readers);
	keep_from_others(json, &readers);
	for (size_t i = 0; i < n && r == 0; i++)
		r = task_read_rows(tasks[i]);
	if (r == 0)
		result_csv(&csv->content, old, old_len, tasks, n);
	free(old);
	for (size_t i = 0; i < n; i++) { /* twice they are enough */
		buf_release(&tasks[i]->rows);
		tasks[i]->rows_stored = true;
	}
	if (r < 0)
		goto fail;
	result_task(&json->content, tasks, n);
	json->data = erasure_new(ep, tasks, n);
	json->done = json->data ? batch_visible : NULL;
	for (size_t i = 0; i < n; i++)
		(json->data ? store_end_task : store_end)(&json->ops, tasks[i]);
	r = send_text(ep, csv, batch->name, "results.csv");
	if (r < 0)
		goto fail;
	r = send_text(ep, json, batch->name, "task.json");
	csv = NULL;
	if (r == 0)
		return 0;
fail:
	parcel_free(csv);
	parcel_free(json);
	return r;
}

static void end_batch(struct batch *batch)
{
	size_t n = 0;
	struct task **tasks;

	list_each(link, &batch->finished) n++;
	tasks = calloc(n ? n : 1, sizeof(struct task *));
	n = 0;
	list_each(link, &batch->finished) if (tasks) tasks[n++] = list_entry(link, struct task, batch_link);
	if (!tasks || publish_batch(batch, tasks, n) < 0) {
		log_error("infer/%s/out/%s: out of memory; task.json comes after the next start",
			  batch->ep->name, batch->name);
		goto out;
	}
	for (size_t i = 0; i < n; i++)
		task_free(tasks[i]);
out:
	free(tasks);
}

/* Of what was promised; of it the user takes some back, and some can't be read. */
static int64_t broken(const struct task *task)
{
	int64_t missed = task->admitted - task->ok - task->failed - task->taken;

	return missed > 0 ? missed : 0;
}

void task_end_if_done(struct task *task)
{
	struct endpoint *ep = task->ep;
	struct batch *batch = task->batch;
	struct opset ops = OPSET_INIT;
	struct erasure *erasure;

	if (task->open)
		return;
	dispatch_task_gone(task);
	if (!task->total) { /* all its instances moved to other tasks */
		store_end(&ops, task);
		opset_commit(&ops, ep->s);
		opset_release(&ops);
		task_free(task);
		return;
	}
	task->finished = loop_now(ep->s->loop);
	if (task->due != INT64_MAX)
		caution_ended(&ep->caution, task->admitted, broken(task));
	status_task(ep->s, task);
	if (batch_is_loose(batch)) {
		erasure = erasure_new(ep, &task, 1);
		(erasure ? store_end_task : store_end)(&ops, task);
		if (opset_commit(&ops, ep->s) < 0) {
			log_error("%s: its records could not be removed", task->id);
			free(erasure);
		} else if (erasure) {
			erasure_begin(erasure);
		}
		opset_release(&ops);
		task_free(task);
		return;
	}
	list_remove(&task->batch_link);
	list_append(&batch->finished, &task->batch_link);
	if (list_empty(&batch->tasks))
		end_batch(batch);
}

/* --- removed or dropped before it ran --- */

void task_drop_instance(struct instance *inst, enum err_code code)
{
	struct instance_verdict verdict = {.dropped = true, .err = {.code = code}};
	struct task *task = inst->task;

	list_remove(&inst->link);
	task->n_queued--;
	task->ep->s->dispatch.n_queued--;
	instance_answer(inst, &verdict);
	dispatch_task_less(task);
}

void task_remove_instance(struct instance *inst)
{
	struct task *task = inst->task;
	struct dispatch *d = &task->ep->s->dispatch;

	if (list_empty(&task->removed))
		list_append(&d->removing, &task->removing);
	list_remove(&inst->link);
	list_append(&task->removed, &inst->link);
	inst->state = INSTANCE_IS_REMOVED;
	instance_unname(inst);
	task->n_queued--;
	d->n_queued--;
	dispatch_task_less(task);
	dispatch_kick(task->ep->s);
}

void task_answer_removed(struct task *task)
{
	struct instance_verdict verdict = {.dropped = true, .err = {.code = ERR_REMOVED}};
	struct instance *inst = list_entry(task->removed.next, struct instance, link);

	list_remove(&inst->link);
	if (list_empty(&task->removed))
		list_remove(&task->removing);
	instance_answer(inst, &verdict); /* the task lives at least as long as its publication */
}

/* --- recovery and removal --- */

void task_recovered(struct task *task)
{
	enum deadline_source source = task->source;
	struct deadline deadline = task->deadline;

	/* A deadline may have been moved after the record was made. */
	if (source == DEADLINE_FILE && task_next(task)) {
		struct instance *inst = task_next(task);
		struct sched *s = task->ep->s;
		char text[80];

		if (s->ops->getxattr(s->host, inst->ino, "user.deadline", text, sizeof(text)) > 0)
			deadline_parse(&deadline, text, strlen(text), NULL);
	} else if (source != DEADLINE_FILE && !batch_is_loose(task->batch)) {
		struct deadline now;
		enum deadline_source now_source = batch_deadline(task->batch, &now);

		if (now_source == DEADLINE_BATCH || source == DEADLINE_BATCH) {
			source = now_source;
			deadline = now;
		}
	}
	task_set_deadline(task, &deadline, source);
	if (task->open)
		dispatch_task(task->ep->s, task);
	else
		task_end_if_done(task);
}

static void free_batch(void *data, struct table_node *node)
{
	struct batch *batch = list_entry(node, struct batch, node);
	struct list *lists[] = {&batch->tasks, &batch->finished}, *loose[] = {&batch->writing, &batch->ready};

	(void)data;
	batch->removed = false; /* it goes at the end, not within */
	if (batch->draft)
		task_free(batch->draft);
	batch->draft = NULL;
	for (size_t i = 0; i < 2; i++)
		list_each(link, loose[i]) instance_free(list_entry(link, struct instance, link));
	for (size_t i = 0; i < 2; i++)
		list_each(link, lists[i])
		{
			struct task *task = list_entry(link, struct task, batch_link);

			list_each(inst_link, &task->queue)
			{
				instance_free(list_entry(inst_link, struct instance, link));
				task->ep->s->dispatch.n_queued--;
			}
			list_each(inst_link, &task->removed)
				instance_free(list_entry(inst_link, struct instance, link));
			task_free(task);
		}
	batch_cancel_timers(batch);
	table_remove(&batch->ep->batches, &batch->node);
	free(batch);
}

void task_forget_all(struct endpoint *ep)
{
	table_each(&ep->batches, free_batch, NULL);
}
