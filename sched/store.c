#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- op sets --- */

void opset_release(struct opset *set)
{
	free(set->ops);
	buf_release(&set->bytes);
	*set = OPSET_INIT;
}

void opset_add(struct opset *set, enum host_op_type type, uint64_t ino, const char *key, const void *value,
	       size_t value_len)
{
	struct host_op *op;

	if (set->n == set->size) {
		size_t size = set->size ? set->size * 2 : 8;
		struct host_op *ops = realloc(set->ops, size * sizeof(*ops));

		if (!ops) {
			set->bytes.failed = true;
			return;
		}
		set->ops = ops;
		set->size = size;
	}
	op = &set->ops[set->n++];
	*op = (struct host_op){.type = type, .ino = ino, .key_len = strlen(key), .value_len = value_len};
	op->key = (void *)(uintptr_t)set->bytes.len;
	buf_add(&set->bytes, key, op->key_len + 1); /* keys end in NUL: names of xattrs */
	op->value = (void *)(uintptr_t)set->bytes.len;
	buf_add(&set->bytes, value ? value : "", value_len);
}

/* The bytes move while they grow: offsets become pointers only here. A set is closed then: `size` 0 tells. */
const struct host_op *opset_ops(struct opset *set)
{
	if (set->bytes.failed)
		return NULL;
	if (set->size) {
		for (size_t i = 0; i < set->n; i++) {
			set->ops[i].key = set->bytes.data + (uintptr_t)set->ops[i].key;
			set->ops[i].value = set->bytes.data + (uintptr_t)set->ops[i].value;
		}
		set->size = 0;
	}
	return set->ops;
}

int opset_commit(struct opset *set, struct sched *s)
{
	int r = 0;

	if (set->n || set->bytes.failed)
		r = opset_ops(set) ? s->ops->commit(s->host, set->ops, set->n) : -ENOMEM;
	if (r == 0)
		opset_release(set);
	return r;
}

void key_format(char key[KEY_SIZE], enum key_kind kind, const char *app, uint32_t seq, int64_t no,
		const char *suffix)
{
	if (no >= 0)
		snprintf(key, KEY_SIZE, "%c/%s/%010" PRIu32 "/%010" PRId64 "%s", kind, app, seq, no, suffix);
	else
		snprintf(key, KEY_SIZE, "%c/%s/%010" PRIu32, kind, app, seq);
}

/* --- submission --- */

static void add_number(struct opset *set, const char *app, uint32_t seq)
{
	char key[KEY_SIZE];

	key_format(key, KEY_NUMBER, app, seq, -1, "");
	opset_add(set, HOST_PUT, 0, key, NULL, 0);
	if (seq > 1) {
		key_format(key, KEY_NUMBER, app, seq - 1, -1, "");
		opset_add(set, HOST_DEL, 0, key, NULL, 0);
	}
}

int store_take_number(struct endpoint *ep, uint32_t *ret)
{
	struct opset set = OPSET_INIT;
	int r;

	add_number(&set, ep->name, ep->last_seq + 1);
	r = opset_commit(&set, ep->s);
	opset_release(&set);
	if (r == 0)
		*ret = ++ep->last_seq;
	return r;
}

void store_add_task(struct opset *set, const char *app, uint32_t seq, int64_t submitted_wall, int source,
		    const struct deadline *deadline, const char *batch)
{
	char key[KEY_SIZE];
	struct buf value = BUF_INIT;

	key_format(key, KEY_TASK, app, seq, -1, "");
	buf_addf(&value, "1 %" PRId64 " %d %d %d %" PRId64 " %s", submitted_wall, source, deadline->set,
		 deadline->absolute, deadline->ns, batch);
	if (value.failed)
		set->bytes.failed = true;
	else
		opset_add(set, HOST_PUT, 0, key, value.data, value.len);
	buf_release(&value);
}

static void add_task(struct opset *set, const struct task *task)
{
	if (!task->numbered)
		add_number(set, task->ep->name, task->seq);
	store_add_task(set, task->ep->name, task->seq, task->submitted_wall, (int)task->source,
		       &task->deadline, task->batch->name);
}

static void add_instance(struct buf *value, const struct instance *inst)
{
	buf_addf(value, "%" PRIu64 " %s", inst->ino, inst->path);
	buf_add(value, "", 1);
}

static int put_instances(struct opset *set, struct task *task, uint32_t first, struct buf *value)
{
	char key[KEY_SIZE];
	int r = buf_status(value);

	if (r == 0)
		r = task_note_instances(task, first);
	if (r == 0) {
		key_format(key, KEY_INSTANCES, task->ep->name, task->seq, first, "");
		opset_add(set, HOST_PUT, 0, key, value->data, value->len);
	}
	buf_clear(value);
	return r;
}

static int note_number(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	const char *slash = memrchr(key, '/', key_len);
	uint32_t *last = data, seq = 0;

	(void)value;
	(void)value_len;
	for (const char *p = slash ? slash + 1 : NULL; p && p < (const char *)key + key_len; p++)
		seq = seq * 10 + (uint32_t)(*p - '0');
	if (seq > *last)
		*last = seq;
	return 0;
}

uint32_t store_last_number(struct sched *s, const char *app)
{
	char prefix[KEY_SIZE];
	uint32_t last = 0;

	snprintf(prefix, sizeof(prefix), "%c/%s/", KEY_NUMBER, app);
	if (s->ops->scan(s->host, prefix, strlen(prefix), note_number, &last) < 0)
		log_error("%s: its last task number can't be read", app);
	return last;
}

static void add_queued(struct opset *set, uint64_t ino)
{
	opset_add(set, HOST_STATE, ino, "user.state", "queued", strlen("queued"));
}

static int add_queue(struct opset *set, struct task *task, size_t kept)
{
	struct buf value = BUF_INIT;
	uint32_t first = 0, n = 0;
	size_t place = 0;
	int r = 0;

	list_each(link, &task->queue)
	{
		const struct instance *inst = list_entry(link, struct instance, link);

		if (!n)
			first = inst->no;
		add_instance(&value, inst);
		if (place++ >= kept)
			add_queued(set, inst->ino);
		if (++n < STORE_TOGETHER && link->next != &task->queue)
			continue;
		r = put_instances(set, task, first, &value);
		if (r < 0)
			break;
		n = 0;
	}
	buf_release(&value);
	return r;
}

int store_submit(struct task *task, size_t kept)
{
	struct sched *s = task->ep->s;
	struct opset set = OPSET_INIT;
	size_t noted = task->n_noted, place = 0;
	int r;

	add_task(&set, task);
	r = add_queue(&set, task, kept);
	if (r == 0)
		r = opset_commit(&set, s);
	if (r < 0)
		task->n_noted = noted;
	else
		list_each(link, &task->queue)
		{
			if (place++ < kept)
				s->ops->mark(s->host, list_entry(link, struct instance, link)->ino, "queued");
		}
	opset_release(&set);
	return r;
}

int store_gather(struct task *task)
{
	struct opset set = OPSET_INIT;
	size_t noted = task->n_noted;
	int r = add_queue(&set, task, 0);

	if (r == 0)
		r = opset_commit(&set, task->ep->s);
	if (r < 0)
		task->n_noted = noted;
	opset_release(&set);
	return r;
}

int store_withdraw(struct task *task, uint32_t no)
{
	struct opset set = OPSET_INIT;
	size_t row = SIZE_MAX;
	char key[KEY_SIZE];
	int r = task_add_row(task, no, false, "", &row);

	key_format(key, KEY_ROW, task->ep->name, task->seq, no, "");
	opset_add(&set, HOST_PUT, 0, key, ROW_MOVED, strlen(ROW_MOVED));
	if (r == 0)
		r = opset_commit(&set, task->ep->s);
	opset_release(&set);
	return r;
}

int store_mark(struct task *task, uint32_t first)
{
	struct opset set = OPSET_INIT;
	int r;

	for (const struct list *at = task->queue.prev; at != &task->queue; at = at->prev) {
		const struct instance *inst = list_entry(at, struct instance, link);

		if (inst->no < first)
			break;
		add_queued(&set, inst->ino);
	}
	r = opset_commit(&set, task->ep->s);
	opset_release(&set);
	return r;
}

bool store_next_instance(const char **at, const char *end, uint64_t *ret_ino, const char **ret_path)
{
	const char *p = *at;
	int len = 0;

	if (p >= end)
		return false;
	*at = p + strlen(p) + 1;
	*ret_path = sscanf(p, "%" SCNu64 "%n", ret_ino, &len) == 1 && p[len] == ' ' ? p + len + 1 : NULL;
	return true;
}

int store_split(struct task *from, uint32_t old_no, struct task *to, struct instance *inst)
{
	struct opset set = OPSET_INIT;
	struct buf value = BUF_INIT;
	char key[KEY_SIZE];
	int r;

	if (to->total == 1)
		add_task(&set, to);
	key_format(key, KEY_ROW, from->ep->name, from->seq, old_no, "");
	opset_add(&set, HOST_PUT, 0, key, ROW_MOVED, strlen(ROW_MOVED));
	add_instance(&value, inst);
	r = put_instances(&set, to, inst->no, &value);
	if (r == 0)
		r = opset_commit(&set, to->ep->s);
	buf_release(&value);
	opset_release(&set);
	return r;
}

void store_end_task(struct opset *set, const struct task *task)
{
	char key[KEY_SIZE];

	key_format(key, KEY_TASK, task->ep->name, task->seq, -1, "");
	opset_add(set, HOST_DEL, 0, key, NULL, 0);
}

void store_end(struct opset *set, const struct task *task)
{
	char key[KEY_SIZE];

	for (size_t i = 0; i < task->n_rows; i++) {
		key_format(key, KEY_ROW, task->ep->name, task->seq, task->row[i].no,
			   task->row[i].renewed ? "l" : "");
		opset_add(set, HOST_DEL, 0, key, NULL, 0);
	}
	for (size_t i = 0; i < task->n_noted; i++) {
		key_format(key, KEY_INSTANCES, task->ep->name, task->seq, task->noted[i], "");
		opset_add(set, HOST_DEL, 0, key, NULL, 0);
	}
	if (task != task->batch->draft)
		store_end_task(set, task);
}
