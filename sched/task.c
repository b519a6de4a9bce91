/*
 * Tasks: their deadlines, the answers of their instances, their end. An answer and its bookkeeping are one
 * publication: the row's key comes in the write batch that makes out/PATH.json visible, so after a crash an
 * instance either has its answer or is still queued.
 *
 * Whether an answer is in time is judged for the moment it will be visible (outbox_delay). Where the
 * publisher took longer than that, and the deadline passed in between, the answer is renewed, once, as
 * `late`: what says `ok` was visible in time.
 */
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

static void end_if_done(struct task *task);

int task_new(struct task **ret, struct batch *batch, uint32_t seq, int64_t submitted_wall)
{
	struct loop *loop = batch->ep->s->loop;
	struct task *task = calloc(1, sizeof(*task));

	if (!task)
		return -ENOMEM;
	task->ep = batch->ep;
	task->batch = batch;
	task->seq = seq;
	snprintf(task->id, sizeof(task->id), "%s-%06" PRIu32, batch->ep->name, seq);
	task->submitted_wall = submitted_wall;
	task->submitted = loop_now(loop) - (loop_wall(loop) - submitted_wall);
	task->due = INT64_MAX;
	list_init(&task->queue);
	list_init(&task->removed);
	list_init(&task->removing);
	list_init(&task->link);
	list_append(&batch->tasks, &task->batch_link);
	*ret = task;
	return 0;
}

void task_free(struct task *task)
{
	struct batch *batch = task->batch;

	dispatch_task_gone(task);
	list_remove(&task->removing);
	list_remove(&task->batch_link);
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

static int add_row(struct task *task, uint32_t no, bool renewed, const char *text, size_t *ret)
{
	size_t i = *ret;

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
	if (task->rows.failed)
		return -ENOMEM;
	task->row[i] = (struct row){.no = no, .renewed = renewed, .at = task->rows.len, .len = strlen(text)};
	buf_adds(&task->rows, text);
	if (task->rows.failed)
		return -ENOMEM;
	if (i == task->n_rows)
		task->n_rows++;
	*ret = i;
	return 0;
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
	if (add_row(from, old_no, false, "", &row) < 0 || store_split(from, old_no, to, inst) < 0)
		log_error("%s: %s: the moved deadline is not recorded", to->id, inst->path);
	if (to->seq > to->ep->last_seq)
		to->ep->last_seq = to->seq;
	from->split_seq = to->seq;
	from->planned = to->planned = false;
	dispatch_task(to->ep->s, to);
	dispatch_task(from->ep->s, from);
	end_if_done(from);
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
	result_csv(&csv->content, old, old_len, tasks, n);
	free(old);
	result_task(&json->content, tasks, n);
	for (size_t i = 0; i < n; i++)
		store_end(&json->ops, tasks[i]);
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

/* May free the task and its batch. */
static void end_if_done(struct task *task)
{
	struct endpoint *ep = task->ep;
	struct batch *batch = task->batch;
	struct opset ops = OPSET_INIT;

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
	status_task(ep->s, task);
	if (batch_is_loose(batch)) {
		store_end(&ops, task);
		if (opset_commit(&ops, ep->s) < 0)
			log_error("%s: its records could not be removed", task->id);
		opset_release(&ops);
		task_free(task);
		return;
	}
	list_remove(&task->batch_link);
	list_append(&batch->finished, &task->batch_link);
	if (list_empty(&batch->tasks))
		end_batch(batch);
}

/* --- answers --- */

static void count(struct task *task, enum result_status status, double gain)
{
	switch (status) {
	case RESULT_OK:
		task->ok++;
		task->gained += gain;
		break;
	case RESULT_LATE:
		task->late++;
		break;
	case RESULT_DROPPED:
		task->dropped++;
		break;
	case RESULT_FAILED:
		task->failed++;
		break;
	}
}

int task_recover_row(struct task *task, uint32_t no, bool renewed, const char *status, double gain,
		     const struct host_access *access, const char *text)
{
	enum result_status what;
	size_t i = SIZE_MAX;
	int r;

	if (strcmp(status, STATUS_MOVED) == 0)
		return add_row(task, no, renewed, "", &i);
	r = result_status_parse(&what, status);
	if (r == 0)
		r = add_row(task, no, renewed, text, &i);
	if (r < 0)
		return r;
	task->total++;
	if (no >= task->next_no)
		task->next_no = no + 1;
	if (access)
		readers_add(&task->readers, access);
	count(task, what, gain);
	task->expected += what == RESULT_OK ? gain : 0;
	return 0;
}

/* What is on its way with a parcel of an answer. */
struct answer {
	struct task *task;
	enum result_status status;
	double gain;
	uint32_t no;
	uint64_t ino;
	struct host_access access; /* mode 0: it counts for nothing */
	bool renewed;              /* the second publication of this answer; the first one put its row */
};

static void answer_visible(struct parcel *p, bool visible);

/* Ops that an answer's publication carries. */
static void add_answer_ops(struct parcel *p, const struct answer *a, const char *row)
{
	const char *app = p->ep->name;
	char key[KEY_SIZE];
	struct buf value = BUF_INIT;
	const char *status = result_status_name(a->status);

	if (a->renewed) { /* the row as it was */
		key_format(key, KEY_ROW, app, a->task->seq, a->no, "");
		opset_add(&p->ops, HOST_DEL, 0, key, NULL, 0);
	}
	key_format(key, KEY_ROW, app, a->task->seq, a->no, a->renewed ? "l" : "");
	buf_addf(&value, "%.9g %s", a->gain, status);
	if (a->access.mode)
		buf_addf(&value, " %" PRIo32 " %" PRIu32 " %" PRIu32, a->access.mode, a->access.uid,
			 a->access.gid);
	buf_addf(&value, "\n%s", row);
	opset_add(&p->ops, HOST_PUT, 0, key, value.data, value.len);
	p->ops.bytes.failed |= value.failed;
	buf_release(&value);
	opset_add(&p->ops, HOST_STATE, a->ino, "user.state", status, strlen(status));
	opset_add(&p->ops, HOST_STATE, a->ino, "user.result", p->path, strlen(p->path));
}

/* Fills content, row and ops from the answer's JSON. */
static int fill_parcel(struct parcel *p, const struct answer *a, const cJSON *json)
{
	struct buf row = BUF_INIT;
	int r;

	buf_clear(&p->content);
	json_print(&p->content, json);
	result_row(&row, json);
	r = buf_status(&row) ? -ENOMEM : add_row(a->task, a->no, a->renewed, row.data, &p->row);
	if (r == 0)
		add_answer_ops(p, a, row.data);
	buf_release(&row);
	return r;
}

static void add_picture_op(struct parcel *p, const struct instance *inst, const struct instance_verdict *v)
{
	char key[KEY_SIZE];
	struct buf value = BUF_INIT;

	key_format(key, KEY_PICTURE, p->ep->name, inst->task->seq, inst->no, "");
	buf_addf(&value, "%" PRIu64 " %d %d %.6f %s", inst->ino, v->submodel, v->answer->label,
		 v->answer->score, inst->path);
	opset_add(&p->ops, HOST_PUT, 0, key, value.data, value.len);
	p->ops.bytes.failed |= value.failed;
	buf_release(&value);
}

static struct picture *picture_new(const struct instance *inst, const struct instance_verdict *v)
{
	struct picture *picture = calloc(1, sizeof(*picture) + strlen(inst->path) + 1);

	if (!picture)
		return NULL;
	picture->ep = inst->task->ep;
	picture->ino = inst->ino;
	picture->seq = inst->task->seq;
	picture->no = inst->no;
	picture->submodel = v->submodel;
	picture->label = v->answer->label;
	picture->score = v->answer->score;
	strcpy(picture->path, inst->path);
	return picture;
}

/* The picture's record that came with the first publication, which was not made. */
static void keep_picture_op(struct parcel *p, struct parcel *old)
{
	const struct host_op *ops = opset_ops(&old->ops);

	for (size_t i = 0; ops && i < old->ops.n; i++)
		if (ops[i].type == HOST_PUT && *(const char *)ops[i].key == KEY_PICTURE)
			opset_add(&p->ops, HOST_PUT, 0, ops[i].key, ops[i].value, ops[i].value_len);
}

/* The deadline passed between handing over and being visible: the answer is published as late, for the first time
 * if the publisher saw it in time (expired), else again. */
static int renew(struct parcel *old, struct answer *a)
{
	struct endpoint *ep = old->ep;
	struct parcel *p = parcel_new(ep);
	cJSON *json = cJSON_Parse(old->content.data);
	int r = -ENOMEM;

	if (!p || !json)
		goto out;
	p->path = strdup(old->path);
	if (!p->path)
		goto out;
	p->owner_ino = old->owner_ino;
	p->row = old->row;
	p->done = answer_visible;
	a->status = RESULT_LATE;
	a->gain = 0;
	a->renewed = !old->expired;
	if (a->renewed)
		cJSON_AddNumberToObject(json, "visible_ms",
					(double)(old->visible_at - a->task->submitted) / 1e6);
	result_set_status(json, RESULT_LATE);
	r = fill_parcel(p, a, json);
	if (r < 0)
		goto out;
	if (old->expired)
		keep_picture_op(p, old);
	else
		ep->stats.renewed++;
	p->data = a;
	outbox_send(p);
	p = NULL;
out:
	cJSON_Delete(json);
	parcel_free(p);
	return r;
}

static void answer_visible(struct parcel *p, bool visible)
{
	struct answer *a = p->data;
	struct task *task = a->task; /* not there any more when it is not visible */
	struct sched *s = p->ep->s;

	if (!visible)
		return; /* the endpoint is gone, and its tasks with it */
	p->data = NULL;
	if (a->status == RESULT_OK && (p->expired || p->visible_at > task->due)) {
		if (renew(p, a) == 0)
			return;
		if (p->expired) {
			log_error("%s: out of memory, published after the next start", p->path);
			free(a);
			return;
		}
	}
	count(task, a->status, a->gain);
	status_answer(s, p->ep, a->status, a->gain, p->visible_at - task->submitted);
	task->open--;
	free(a);
	end_if_done(task);
}

static enum result_status judge(const struct instance *inst, const struct instance_verdict *v, int64_t now)
{
	if (v->dropped)
		return RESULT_DROPPED;
	if (!v->answer || v->answer->failed)
		return RESULT_FAILED;
	if (inst->task->due != INT64_MAX && now + outbox_delay(&inst->task->ep->s->outbox) > inst->task->due)
		return RESULT_LATE;
	return RESULT_OK;
}

void instance_answer(struct instance *inst, const struct instance_verdict *v)
{
	struct task *task = inst->task;
	struct endpoint *ep = task->ep;
	struct sched *s = ep->s;
	int64_t now = loop_now(s->loop);
	enum result_status status = judge(inst, v, now);
	struct answer *a = calloc(1, sizeof(*a));
	struct parcel *p = parcel_new(ep);
	cJSON *json = result_answer(inst, v, status, now);
	int r = -ENOMEM;

	if (!a || !p || !json)
		goto out;
	*a = (struct answer){.task = task, .status = status, .no = inst->no, .ino = inst->ino};
	if (status == RESULT_OK)
		a->gain = ep->submodels[v->submodel].accuracy;
	p->path = result_path(ep, inst->path, ".json");
	if (!p->path)
		goto out;
	p->owner_ino = v->dropped && v->err.code == ERR_REMOVED ? 0 : inst->ino;
	if (p->owner_ino && !batch_is_loose(task->batch)) {
		if (s->ops->access(s->host, inst->ino, &a->access) < 0) /* its file went while it ran */
			a->access = (struct host_access){.mode = S_IFREG, .uid = geteuid(), .gid = getegid()};
		readers_add(&task->readers, &a->access);
	}
	p->done = answer_visible;
	p->row = SIZE_MAX;
	r = fill_parcel(p, a, json);
	if (r < 0)
		goto out;
	if (ep->spec.gradcam && (status == RESULT_OK || status == RESULT_LATE)) {
		struct picture *picture = picture_new(inst, v);

		if (picture) {
			add_picture_op(p, inst, v);
			dispatch_picture(s, picture);
		}
	}
	p->computed = !v->dropped;
	if (status == RESULT_OK && task->due != INT64_MAX)
		p->publish_by = task->due;
	p->data = a;
	a = NULL;
	outbox_send(p);
	p = NULL;
out:
	if (r < 0)
		log_error("%s: %s: out of memory; it is answered after the next start", task->id, inst->path);
	cJSON_Delete(json);
	parcel_free(p);
	free(a);
	instance_free(inst);
}

void task_drop_instance(struct instance *inst, enum err_code code)
{
	struct instance_verdict verdict = {.dropped = true, .err = {.code = code}};
	struct task *task = inst->task;

	list_remove(&inst->link);
	task->n_queued--;
	task->ep->s->dispatch.n_queued--;
	instance_answer(inst, &verdict);
	if (!task->n_queued)
		dispatch_task_gone(task);
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
	if (!task->n_queued)
		dispatch_task_gone(task);
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
	if (source == DEADLINE_FILE && task->n_queued) {
		struct instance *inst = list_entry(task->queue.next, struct instance, link);
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
		end_if_done(task);
}

static void free_batch(void *data, struct table_node *node)
{
	struct batch *batch = list_entry(node, struct batch, node);
	struct list *lists[] = {&batch->tasks, &batch->finished}, *loose[] = {&batch->writing, &batch->ready};

	(void)data;
	batch->removed = false; /* it goes at the end, not within */
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
	loop_timer_cancel(batch->ep->s->loop, batch->settle);
	loop_timer_cancel(batch->ep->s->loop, batch->closing);
	table_remove(&batch->ep->batches, &batch->node);
	free(batch);
}

void task_forget_all(struct endpoint *ep)
{
	table_each(&ep->batches, free_batch, NULL);
}
