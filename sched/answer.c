/*
 * The answer of an instance. It and its bookkeeping are one publication: the row's key comes in the write batch that makes
 * out/PATH.json visible, so after a crash an instance either has its answer or is still queued.
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
		return task_add_row(task, no, renewed, "", &i);
	r = result_status_parse(&what, status);
	if (r == 0)
		r = task_add_row(task, no, renewed, text, &i);
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
	r = buf_status(&row) ? -ENOMEM : task_add_row(a->task, a->no, a->renewed, row.data, &p->row);
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
	if (task->due != INT64_MAX && (a->status == RESULT_OK || a->status == RESULT_LATE))
		caution_answered(&p->ep->caution, a->status == RESULT_LATE);
	status_answer(s, p->ep, a->status, a->gain, p->visible_at - task->submitted);
	task->open--;
	free(a);
	task_end_if_done(task);
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
		a->gain = v->accuracy;
	p->path = result_path(ep, inst->path, ".json");
	if (!p->path)
		goto out;
	p->owner_ino = v->dropped && v->err.code == ERR_REMOVED ? 0 : inst->ino;
	if (p->owner_ino && !batch_is_loose(task->batch)) {
		if (s->ops->access(s->host, inst->ino, &a->access) < 0) /* its file went while it ran */
			a->access = (struct host_access){.mode = S_IFREG, .uid = geteuid(), .gid = getegid()};
		readers_add(&task->readers, &a->access);
	}
	task->taken += v->dropped && v->err.code == ERR_REMOVED;
	p->done = answer_visible;
	p->row = SIZE_MAX;
	r = fill_parcel(p, a, json);
	if (r < 0)
		goto out;
	if (ep->spec.gradcam && (status == RESULT_OK || status == RESULT_LATE)) {
		struct picture *picture = picture_new(inst, v);

		if (picture) {
			add_picture_op(p, inst, v);
			pictures_add(s, picture);
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
