/* What comes of an archive that was read: a task of all that was in it, or an answer that says why not. */
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

#define STATE_UNPACKED "unpacked"

static char *in_path(const struct archive_job *job, char *ret, size_t size)
{
	return endpoint_path(job->ep, ret, size, "in/%.*s", (int)job->stem, job->name);
}

int unpack_check(const struct archive_job *job, struct err *err)
{
	struct sched *s = job->ep->s;
	char path[2 * MAX_NAME + 32], stem[MAX_NAME];
	struct host_entry e;

	snprintf(stem, sizeof(stem), "%.*s", (int)job->stem, job->name);
	if (instance_name_waits(stem))
		return err_set(err, ERR_ARCHIVE_ENTRY, "%s can't be a batch's name", stem);
	if (s->ops->lookup(s->host, in_path(job, path, sizeof(path)), &e) == 0)
		return err_set(err, ERR_BATCH_THERE, "in/%s", stem);
	return 0;
}

/* --- failed --- */

static void failure_visible(struct parcel *p, bool visible)
{
	if (visible)
		status_answer(p->ep->s, p->ep, RESULT_FAILED, 0, 0);
}

static int send_failure(struct archive_job *job, const struct err *err)
{
	struct endpoint *ep = job->ep;
	struct instance_verdict verdict = {.err = *err};
	struct task task = {.ep = ep, .submitted = job->complete, .due = INT64_MAX}; /* for the words only */
	struct parcel *p = parcel_new(ep);
	cJSON *json;
	int r = -ENOMEM;

	job->inst->task = &task;
	json = result_answer(job->inst, &verdict, RESULT_FAILED, loop_now(ep->s->loop));
	job->inst->task = NULL;
	if (!p || !json)
		goto out;
	cJSON_ReplaceItemInObjectCaseSensitive(json, "task", cJSON_CreateNull());
	json_print(&p->content, json);
	p->path = result_path(ep, job->name, ".json");
	if (!p->path || p->content.failed)
		goto out;
	p->owner_ino = job->ino;
	opset_add(&p->ops, HOST_STATE, job->ino, "user.state", "failed", strlen("failed"));
	opset_add(&p->ops, HOST_STATE, job->ino, "user.result", p->path, strlen(p->path));
	p->done = failure_visible;
	outbox_send(p);
	p = NULL;
	r = 0;
out:
	cJSON_Delete(json);
	parcel_free(p);
	return r;
}

void unpack_fail(struct archive_job *job, const struct err *err)
{
	struct instance *inst = job->inst;
	char text[512];

	if (inst) {
		log_warn("infer/%s/in/%s: %s", job->ep->name, job->name, err_format(err, text, sizeof(text)));
		if (send_failure(job, err) < 0)
			log_error("infer/%s/in/%s: out of memory; it is unpacked after the next start",
				  job->ep->name, job->name);
	}
	unpack_free(job);
	if (inst)
		instance_free(inst);
}

/* --- unpacked --- */

struct found { /* one of job->entries */
	uint64_t ino;
	const char *path;
};

static size_t found_at(const struct buf *entries, size_t at, struct found *ret)
{
	memcpy(&ret->ino, entries->data + at, sizeof(ret->ino));
	ret->path = entries->data + at + sizeof(ret->ino);
	return at + sizeof(ret->ino) + strlen(ret->path) + 1;
}

static int64_t submitted_wall(const struct archive_job *job)
{
	const struct loop *loop = job->ep->s->loop;

	return loop_wall(loop) - (loop_now(loop) - job->complete);
}

/* As store_submit for a task that is not there yet. */
static int add_ops(struct opset *set, const struct archive_job *job, const char *batch)
{
	const char *app = job->ep->name;
	char key[KEY_SIZE], path[2 * MAX_NAME + 32];
	struct buf value = BUF_INIT;
	struct found f;
	uint32_t no = 0;
	int r;

	store_add_task(set, app, job->seq, submitted_wall(job), job->source, &job->deadline, batch);
	for (size_t at = 0; at < job->entries.len; no++) {
		at = found_at(&job->entries, at, &f);
		buf_addf(&value, "%" PRIu64 " %s/%s", f.ino, batch, f.path);
		buf_add(&value, "", 1);
		if ((no + 1) % STORE_TOGETHER && at < job->entries.len)
			continue;
		key_format(key, KEY_INSTANCES, app, job->seq, no - no % STORE_TOGETHER, "");
		opset_add(set, HOST_PUT, 0, key, value.data, value.len);
		set->bytes.failed |= value.failed;
		buf_clear(&value);
	}
	in_path(job, path, sizeof(path));
	opset_add(set, HOST_STATE, job->ino, "user.state", STATE_UNPACKED, strlen(STATE_UNPACKED));
	opset_add(set, HOST_STATE, job->ino, "user.result", path, strlen(path));
	r = set->bytes.failed || value.failed ? -ENOMEM : 0;
	buf_release(&value);
	return r;
}

static int queue_one(struct task *task, const struct found *f, uint32_t no)
{
	struct sched *s = task->ep->s;
	char path[MAX_NAME + ARCHIVE_PATH];
	struct instance *inst;

	snprintf(path, sizeof(path), "%s/%s", task->batch->name, f->path);
	if (instance_is_known(task->ep, path))
		return 0; /* it is written anew already: another instance, of a further task */
	inst = instance_new(task->batch, path, f->ino);
	if (!inst)
		return -ENOMEM;
	inst->task = task;
	inst->no = no;
	instance_queue(inst, task);
	s->ops->mark(s->host, f->ino, "queued");
	return 0;
}

/* What recovery would make of the records. */
static int queue_all(struct archive_job *job, const char *name)
{
	struct endpoint *ep = job->ep;
	char path[MAX_NAME + 1];
	struct batch *batch;
	struct task *task;
	struct found f;
	uint32_t no = 0;
	int r;

	snprintf(path, sizeof(path), "%s/", name);
	batch = batch_get(ep, path, true);
	r = batch ? task_new(&task, batch, job->seq, submitted_wall(job)) : -ENOMEM;
	if (r < 0)
		return r;
	batch->removed = batch->fresh = false;
	batch->deadline = job->source == DEADLINE_BATCH ? job->deadline : (struct deadline){0};
	batch->deadline_known = true;
	task_set_deadline(task, &job->deadline, (enum deadline_source)job->source);
	for (size_t at = 0; at < job->entries.len; no++) {
		if (r == 0 && no % STORE_TOGETHER == 0)
			r = task_note_instances(task, no);
		at = found_at(&job->entries, at, &f);
		if (r == 0)
			r = queue_one(task, &f, no);
		if (((no + 1) % STORE_TOGETHER == 0 || at == job->entries.len) && spill_is_due(ep->s)) {
			if (store_mark(task, no - no % STORE_TOGETHER) < 0)
				log_trace(LOG_SCHED, "%s: user.state could not be stored", task->id);
			spill_from(task, no - no % STORE_TOGETHER);
		}
	}
	if (r < 0)
		task->open++; /* it must not end: its records tell the next start of those that are missing */
	status_event(ep->s, "submitted", ep->name, task->id, no);
	dispatch_task(ep->s, task);
	task_admit(task);
	return r;
}

static bool same(const struct deadline *a, const struct deadline *b)
{
	return a->set == b->set && a->absolute == b->absolute && a->ns == b->ns;
}

static void unpacked(struct archive_job *job)
{
	struct endpoint *ep = job->ep;
	struct sched *s = ep->s;
	struct instance *inst = job->inst;
	char name[MAX_NAME], text[80];

	snprintf(name, sizeof(name), "%.*s", (int)job->stem, job->name);
	if (queue_all(job, name) < 0)
		log_error("infer/%s/in/%s: out of memory; some of it is answered after the next start",
			  ep->name, name);
	/* A deadline that came while the directory was being made. */
	if (inst && inst->own.set && (job->source != DEADLINE_BATCH || !same(&inst->own, &job->deadline)) &&
	    s->ops->getxattr(s->host, job->ino, "user.deadline", text, sizeof(text)) > 0)
		unpack_deadline(ep, job->name, job->ino, text);
	unpack_free(job);
	if (inst)
		instance_free(inst);
}

static void tree_visible(void *data, int r, int64_t visible)
{
	struct archive_job *job = data;
	struct err err = ERR_INIT;

	(void)visible;
	list_remove(&job->link);
	if (r == 0 && !job->ep->gone) {
		unpacked(job);
		return;
	}
	if (r == 0 || job->ep->gone || job->ep->s->stopping || r == -ENOENT || r == -ESTALE) {
		unpack_free(job); /* its endpoint went, or the next start goes on */
		return;
	}
	if (r == -EEXIST || r == -ENOTDIR || r == -ENOTEMPTY)
		err_set(&err, ERR_BATCH_THERE, "in/%.*s", (int)job->stem, job->name);
	else if (r == -ENOSPC || r == -EDQUOT)
		err_set(&err, ERR_NO_ROOM, "%s", strerror(-r));
	else
		err_set(&err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "making the batch: %s", strerror(-r));
	unpack_fail(job, &err);
}

static void unpublish_if_there(struct sched *s, const char *path)
{
	struct host_entry e;

	/* Asked first: the publisher would make the directories on the way, with nothing to take their modes from. */
	if (s->ops->lookup(s->host, path, &e) == 0)
		s->ops->unpublish(s->host, path);
}

/* What older archives and batches of this name left in out/. */
static void forget_older(struct archive_job *job)
{
	struct sched *s = job->ep->s;
	static const char *const names[] = {"task.json", "results.csv"};
	char path[2 * MAX_NAME + 64];
	char *answer = result_path(job->ep, job->name, ".json");

	for (size_t i = 0; i < 2; i++)
		unpublish_if_there(s, endpoint_path(job->ep, path, sizeof(path), "out/%.*s/%s",
						    (int)job->stem, job->name, names[i]));
	if (answer)
		unpublish_if_there(s, answer);
	free(answer);
}

static void choose_deadline(struct archive_job *job, struct batch *batch)
{
	if (job->inst->own.set) {
		job->deadline = job->inst->own;
		job->source = DEADLINE_BATCH; /* the directory gets the archive's xattr */
	} else {
		batch->deadline_known = false; /* there is no such directory: of in/, or the spec */
		job->source = batch_deadline(batch, &job->deadline);
	}
}

void unpack_submit(struct archive_job *job)
{
	struct endpoint *ep = job->ep;
	struct sched *s = ep->s;
	char path[2 * MAX_NAME + 32], name[MAX_NAME + 1], text[80];
	struct opset ops = OPSET_INIT;
	struct err err = ERR_INIT;
	struct batch *batch;
	int r;

	r = unpack_check(job, &err);
	if (r < 0)
		goto fail;
	snprintf(name, sizeof(name), "%.*s/", (int)job->stem, job->name);
	batch = batch_get(ep, name, true);
	r = batch ? store_take_number(ep, &job->seq) : -ENOMEM;
	if (r < 0)
		goto fail;
	name[job->stem] = '\0';
	choose_deadline(job, batch);
	if (job->source == DEADLINE_BATCH &&
	    s->ops->getxattr(s->host, job->ino, "user.deadline", text, sizeof(text)) > 0)
		r = s->ops->tree_xattr(s->host, job->tree, "user.deadline", text);
	if (r == 0)
		r = add_ops(&ops, job, name);
	if (r < 0)
		goto fail;
	forget_older(job);
	list_append(&s->unpacker.publishing, &job->link);
	r = s->ops->publish(s->host, &(struct host_publication){.path = in_path(job, path, sizeof(path)),
								.flags = HOST_RESULT,
								.tree = job->tree,
								.ops = opset_ops(&ops),
								.n_ops = ops.n,
								.done = tree_visible,
								.data = job});
	if (r < 0)
		list_remove(&job->link);
fail:
	opset_release(&ops);
	if (r == 0)
		return;
	if (err.code == ERR_NONE)
		err_set(&err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "submitting: %s", strerror(-r));
	unpack_fail(job, &err);
}

bool unpack_deadline(struct endpoint *ep, const char *path, uint64_t ino, const char *text)
{
	struct sched *s = ep->s;
	size_t stem = strchr(path, '/') ? 0 : archive_stem(path);
	char whole[2 * MAX_NAME + 32], name[MAX_NAME], state[32];
	struct opset ops = OPSET_INIT;
	struct host_entry e;

	if (!stem || stem >= MAX_NAME ||
	    s->ops->getxattr(s->host, ino, "user.state", state, sizeof(state)) < 0 ||
	    strcmp(state, STATE_UNPACKED) != 0)
		return false;
	snprintf(name, sizeof(name), "%.*s", (int)stem, path);
	if (s->ops->lookup(s->host, endpoint_path(ep, whole, sizeof(whole), "in/%s", name), &e) < 0 ||
	    !e.is_dir)
		return true;
	opset_add(&ops, HOST_STATE, e.ino, "user.deadline", text, strlen(text));
	if (opset_commit(&ops, s) < 0)
		log_error("infer/%s/in/%s: the moved deadline is not recorded", ep->name, name);
	opset_release(&ops);
	task_deadline_event(ep, name, e.ino, text);
	return true;
}
