#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 4096 /* instances of one commit; chosen: some hundred KB of write batch */

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

static void add_task(struct opset *set, const struct task *task)
{
	const char *app = task->ep->name;
	char key[KEY_SIZE];
	struct buf value = BUF_INIT;

	key_format(key, KEY_NUMBER, app, task->seq, -1, "");
	opset_add(set, HOST_PUT, 0, key, NULL, 0);
	if (task->seq > 1) {
		key_format(key, KEY_NUMBER, app, task->seq - 1, -1, "");
		opset_add(set, HOST_DEL, 0, key, NULL, 0);
	}
	key_format(key, KEY_TASK, app, task->seq, -1, "");
	buf_addf(&value, "1 %" PRId64 " %d %d %d %" PRId64 " %s", task->submitted_wall, (int)task->source,
		 task->deadline.set, task->deadline.absolute, task->deadline.ns, task->batch->name);
	if (value.failed)
		set->bytes.failed = true;
	else
		opset_add(set, HOST_PUT, 0, key, value.data, value.len);
	buf_release(&value);
}

static void add_pending(struct opset *set, const struct task *task, const struct instance *inst)
{
	char key[KEY_SIZE];
	struct buf value = BUF_INIT;

	key_format(key, KEY_PENDING, task->ep->name, task->seq, inst->no, "");
	buf_addf(&value, "%" PRIu64 " %s", inst->ino, inst->path);
	if (value.failed)
		set->bytes.failed = true;
	else
		opset_add(set, HOST_PUT, 0, key, value.data, value.len);
	buf_release(&value);
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

int store_submit(struct task *task)
{
	struct opset set = OPSET_INIT;
	bool first = true;
	int r = 0;

	add_task(&set, task);
	list_each(link, &task->queue)
	{
		const struct instance *inst = list_entry(link, struct instance, link);

		add_pending(&set, task, inst);
		opset_add(&set, HOST_STATE, inst->ino, "user.state", "queued", 6);
		if (set.n < 2 * CHUNK && link->next != &task->queue)
			continue;
		r = opset_commit(&set, task->ep->s);
		if (r < 0 && !first) {
			log_error("%s: its instances from %" PRIu32 " on are not recorded: %s", task->id,
				  inst->no, strerror(-r));
			r = 0;
		}
		if (r < 0)
			break;
		first = false;
		opset_release(&set);
	}
	opset_release(&set);
	return r;
}

int store_split(struct task *from, uint32_t old_no, struct task *to, struct instance *inst)
{
	struct opset set = OPSET_INIT;
	char key[KEY_SIZE];
	int r;

	if (to->total == 1)
		add_task(&set, to);
	key_format(key, KEY_PENDING, from->ep->name, from->seq, old_no, "");
	opset_add(&set, HOST_DEL, 0, key, NULL, 0);
	add_pending(&set, to, inst);
	r = opset_commit(&set, to->ep->s);
	opset_release(&set);
	return r;
}
