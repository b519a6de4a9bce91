/*
 * After a start: tasks, queued instances, rows and pictures from the keys (store.h), then the endpoints'
 * specs and the instances in in/ that no key tells of. What is past its deadline by then is dropped by the
 * dispatcher like everything else that can't be in time.
 */
#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A key and its value; used after the scan, which must not be disturbed. */
struct found {
	struct list link;
	char *key, *value; /* NUL-terminated */
	size_t len;        /* of the value */
};

struct scan {
	struct list found;
	int r;
};

struct known { /* a task of the table */
	struct table_node node;
	struct list link;
	struct task *task;
	char key[KEY_SIZE];
};

struct recovery {
	struct sched *s;
	struct table tasks;   /* struct known, by "APP/SEQ" */
	struct list known;    /* the same, in order */
	struct opset garbage; /* keys that nothing belongs to any more */
};

static void found_free(struct found *f)
{
	list_remove(&f->link);
	free(f->key);
	free(f->value);
	free(f);
}

static void scan_release(struct scan *scan)
{
	list_each(link, &scan->found) found_free(list_entry(link, struct found, link));
}

static int note_key(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct scan *scan = data;
	struct found *f = calloc(1, sizeof(*f));

	if (!f) {
		scan->r = -ENOMEM;
		return 1;
	}
	f->key = strndup(key, key_len);
	f->value = calloc(1, value_len + 1);
	list_append(&scan->found, &f->link);
	if (!f->key || !f->value) {
		scan->r = -ENOMEM;
		return 1;
	}
	f->len = value_len;
	if (value_len)
		memcpy(f->value, value, value_len);
	return 0;
}

/* "t/APP/SEQ[/NO[l]]" in its parts; false if it is not of that form. */
static bool parse_key(const char *key, char app[MAX_NAME], uint32_t *seq, uint32_t *no, char *suffix)
{
	const char *name = key + 2, *slash;

	if (!key[0] || key[1] != '/' || !(slash = strchr(name, '/')) || slash == name ||
	    slash - name >= MAX_NAME)
		return false;
	memcpy(app, name, slash - name);
	app[slash - name] = '\0';
	*no = 0;
	*suffix = '\0';
	return sscanf(slash + 1, "%10" SCNu32 "/%10" SCNu32 "%c", seq, no, suffix) >= 1;
}

static struct task *find_task(const struct recovery *rec, const char *app, uint32_t seq)
{
	char key[KEY_SIZE];
	struct table_node *node;

	key_format(key, KEY_TASK, app, seq, -1, "");
	node = table_find(&rec->tasks, key);
	return node ? list_entry(node, struct known, node)->task : NULL;
}

static int recover_number(struct recovery *rec, const struct found *f, const char *app, uint32_t seq,
			  uint32_t no, char suffix)
{
	struct endpoint *ep = endpoint_get(rec->s, app, true);

	(void)f;
	(void)no;
	(void)suffix;
	if (!ep)
		return -ENOMEM;
	if (seq > ep->last_seq)
		ep->last_seq = seq;
	return 0;
}

static int recover_task(struct recovery *rec, const struct found *f, const char *app, uint32_t seq,
			uint32_t no, char suffix)
{
	struct endpoint *ep = endpoint_get(rec->s, app, true);
	struct deadline deadline = {0};
	int source, set, absolute, at = 0, r;
	struct known *known;
	struct batch *batch;
	int64_t wall;
	char path[MAX_NAME + 2];

	(void)no;
	(void)suffix;
	if (!ep)
		return -ENOMEM;
	if (sscanf(f->value, "1 %" SCNd64 " %d %d %d %" SCNd64 "%n", &wall, &source, &set, &absolute,
		   &deadline.ns, &at) != 5 ||
	    f->value[at] != ' ' || strlen(f->value + at + 1) >= MAX_NAME || source < DEADLINE_NONE ||
	    source > DEADLINE_FILE)
		return -EBADMSG;
	deadline.set = set;
	deadline.absolute = absolute;
	snprintf(path, sizeof(path), "%s%s", f->value + at + 1, f->value[at + 1] ? "/" : "");
	known = calloc(1, sizeof(*known));
	batch = batch_get(ep, path, true);
	if (!known || !batch) {
		free(known);
		return -ENOMEM;
	}
	r = task_new(&known->task, batch, seq, wall);
	if (r < 0) {
		free(known);
		return r;
	}
	if (seq > ep->last_seq)
		ep->last_seq = seq;
	task_set_deadline(known->task, &deadline, (enum deadline_source)source);
	key_format(known->key, KEY_TASK, app, seq, -1, "");
	list_append(&rec->known, &known->link);
	return table_add(&rec->tasks, &known->node, known->key);
}

static int recover_row(struct recovery *rec, const struct found *f, const char *app, uint32_t seq,
		       uint32_t no, char suffix)
{
	struct task *task = find_task(rec, app, seq);
	char status[16];
	struct host_access access;
	bool known = false;
	double gain;
	int at = 0, more = 0;

	if (!task)
		return -ENOENT; /* of a draft */
	if (sscanf(f->value, "%lf %15s%n", &gain, status, &at) != 2)
		return -EBADMSG;
	if (f->value[at] == ' ') {
		known = sscanf(f->value + at, "%" SCNo32 " %" SCNu32 " %" SCNu32 "%n", &access.mode,
			       &access.uid, &access.gid, &more) == 3;
		at += more;
	}
	if (f->value[at] != '\n')
		return -EBADMSG;
	return task_recover_row(task, no, suffix == 'l', status, gain, known ? &access : NULL,
				f->value + at + 1);
}

static int recover_instances(struct recovery *rec, const struct found *f, const char *app, uint32_t seq,
			     uint32_t no, char suffix)
{
	struct task *task = find_task(rec, app, seq);
	const char *at = f->value, *path;
	uint32_t first = no;
	int r = task ? task_note_instances(task, no) : -ENOENT; /* of a draft */
	uint64_t ino;

	(void)suffix;
	for (; r == 0 && store_next_instance(&at, f->value + f->len, &ino, &path); no++) {
		struct instance *inst;

		if (!path) {
			log_warn("a record that says nothing usable: %s, instance %" PRIu32, f->key, no);
			continue;
		}
		if (task_has_row(task, no))
			continue;
		inst = instance_new(task->batch, path, ino);
		if (!inst)
			return -ENOMEM;
		inst->task = task;
		inst->no = no;
		instance_queue(inst, task);
		rec->s->ops->mark(rec->s->host, ino, "queued");
	}
	if (r == 0 && spill_is_due(rec->s)) {
		if (store_mark(task, first) < 0)
			log_trace(LOG_SCHED, "%s: user.state could not be stored", task->id);
		spill_from(task, first);
	}
	return r;
}

static int recover_picture(struct recovery *rec, const struct found *f, const char *app, uint32_t seq,
			   uint32_t no, char suffix)
{
	struct endpoint *ep = endpoint_get(rec->s, app, true);
	struct picture *picture;
	uint64_t ino;
	int submodel, label, at = 0;
	float score;

	(void)suffix;
	if (sscanf(f->value, "%" SCNu64 " %d %d %f%n", &ino, &submodel, &label, &score, &at) != 4 ||
	    f->value[at] != ' ')
		return -EBADMSG;
	picture = ep ? calloc(1, sizeof(*picture) + strlen(f->value + at)) : NULL;
	if (!picture)
		return -ENOMEM;
	picture->ep = ep;
	picture->ino = ino;
	picture->seq = seq;
	picture->no = no;
	picture->submodel = submodel;
	picture->label = label;
	picture->score = score;
	strcpy(picture->path, f->value + at + 1);
	pictures_add(rec->s, picture);
	return 0;
}

/* In this order: what comes later needs what came before. */
static const struct kind {
	const char *prefix;
	int (*recover)(struct recovery *rec, const struct found *f, const char *app, uint32_t seq,
		       uint32_t no, char suffix);
	bool outlives; /* the removal of its endpoint */
	bool at_once;  /* while the keys are read, for there may be many: asks nothing of the host */
} kinds[] = {
	{"n/", recover_number, true, false},   {"t/", recover_task, false, false},
	{"r/", recover_row, false, true},      {"p/", recover_instances, false, false},
	{"x/", recover_picture, false, false},
};

static bool app_exists(struct sched *s, const char *app)
{
	struct host_entry e;
	char path[MAX_NAME + 16];

	snprintf(path, sizeof(path), "infer/%s", app);
	return s->ops->lookup(s->host, path, &e) == 0 && e.is_dir;
}

static int recover_one(struct recovery *rec, const struct kind *kind, const struct found *f, const char *app,
		       uint32_t seq, uint32_t no, char suffix)
{
	int r = kind->recover(rec, f, app, seq, no, suffix);

	if (r != -EBADMSG && r != -ENOENT)
		return r;
	if (r == -EBADMSG)
		log_warn("a record that says nothing usable is removed: %s", f->key);
	opset_add(&rec->garbage, HOST_DEL, 0, f->key, NULL, 0);
	return 0;
}

struct reading {
	struct recovery *rec;
	const struct kind *kind;
	struct buf key, value;
	int r;
};

static int recover_key(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct reading *reading = data;
	struct found f = {.len = value_len};
	char app[MAX_NAME], suffix;
	uint32_t seq, no;

	buf_clear(&reading->key);
	buf_clear(&reading->value);
	buf_add(&reading->key, key, key_len);
	buf_add(&reading->value, value, value_len);
	if (buf_status(&reading->key) < 0 || buf_status(&reading->value) < 0) {
		reading->r = -ENOMEM;
		return 1;
	}
	f.key = reading->key.data;
	f.value = reading->value.data;
	if (parse_key(f.key, app, &seq, &no, &suffix))
		reading->r = recover_one(reading->rec, reading->kind, &f, app, seq, no, suffix);
	else
		log_warn("an unknown key is left alone: %s", f.key);
	return reading->r != 0;
}

static int recover_at_once(struct recovery *rec, const struct kind *kind)
{
	struct reading reading = {.rec = rec, .kind = kind};
	int r = rec->s->ops->scan(rec->s->host, kind->prefix, strlen(kind->prefix), recover_key, &reading);

	buf_release(&reading.key);
	buf_release(&reading.value);
	return r < 0 ? r : reading.r;
}

static int recover_kind(struct recovery *rec, const struct kind *kind)
{
	struct sched *s = rec->s;
	struct scan scan = {0};
	char last[MAX_NAME] = "";
	bool exists = false;
	int r;

	if (kind->at_once)
		return recover_at_once(rec, kind);
	list_init(&scan.found);
	r = s->ops->scan(s->host, kind->prefix, strlen(kind->prefix), note_key, &scan);
	if (r >= 0)
		r = scan.r;
	list_each(link, &scan.found)
	{
		struct found *f = list_entry(link, struct found, link);
		char app[MAX_NAME], suffix;
		uint32_t seq, no;

		if (r < 0)
			break;
		if (!parse_key(f->key, app, &seq, &no, &suffix)) {
			log_warn("an unknown key is left alone: %s", f->key);
			continue;
		}
		if (strcmp(app, last) != 0) {
			strcpy(last, app);
			exists = app_exists(s, app);
		}
		if (!exists && !kind->outlives) {
			opset_add(&rec->garbage, HOST_DEL, 0, f->key, NULL, 0);
			continue;
		}
		r = recover_one(rec, kind, f, app, seq, no, suffix);
	}
	scan_release(&scan);
	return r;
}

/* --- what lies in infer/ --- */

static bool is_answered(struct sched *s, uint64_t ino)
{
	static const char *const final[] = {"ok", "late", "dropped", "failed", "unpacked"};
	char state[32];

	if (s->ops->getxattr(s->host, ino, "user.state", state, sizeof(state)) < 0)
		return false;
	for (size_t i = 0; i < sizeof(final) / sizeof(final[0]); i++)
		if (strcmp(state, final[i]) == 0)
			return true;
	return false;
}

/* What the walk found, in a buf: this and the path with NUL. There may be many. */
struct entry {
	uint64_t ino;
	bool is_dir;
};

static int note_entry(void *data, const struct host_entry *e)
{
	const char *slash = strchr(e->path, '/');
	struct entry entry = {.ino = e->ino, .is_dir = e->is_dir};

	/* There may be a million answers in out/. */
	if (slash && strcmp(slash, "/in") != 0 && strncmp(slash, "/in/", 4) != 0)
		return e->is_dir ? HOST_NOT_BELOW : 0;
	buf_add(data, &entry, sizeof(entry));
	buf_add(data, e->path, strlen(e->path) + 1);
	return buf_status(data);
}

/* path: "APP", "APP/in/…" and others, which do not count. */
static void recover_entry(struct sched *s, const struct entry *e, const char *found)
{
	char app[MAX_NAME];
	const char *slash = strchr(found, '/'), *path;
	size_t len = slash ? (size_t)(slash - found) : strlen(found);
	struct endpoint *ep;

	if (len >= MAX_NAME || (!slash && !e->is_dir))
		return;
	memcpy(app, found, len);
	app[len] = '\0';
	if (!slash) {
		ep = endpoint_get(s, app, true);
		if (ep)
			endpoint_recover(ep);
		return;
	}
	if (strncmp(slash, "/in/", 4) != 0 || e->is_dir)
		return;
	path = slash + 4;
	if (sched_expects(s, e->ino))
		return;
	ep = endpoint_get(s, app, true);
	if (ep && !instance_name_waits(path) && !instance_is_known(ep, path) && !is_answered(s, e->ino))
		task_instance_event(ep, INSTANCE_COMPLETE, path, e->ino);
}

static int recover_tree(struct sched *s)
{
	struct buf found = BUF_INIT;
	int r = s->ops->walk(s->host, "infer", note_entry, &found);

	for (size_t at = 0; at < found.len;) {
		const char *path = found.data + at + sizeof(struct entry);
		struct entry entry;

		memcpy(&entry, found.data + at, sizeof(entry));
		at += sizeof(entry) + strlen(path) + 1;
		recover_entry(s, &entry, path);
	}
	buf_release(&found);
	return r == -ENOENT ? 0 : r;
}

int store_recover(struct sched *s)
{
	struct recovery rec = {.s = s};
	int r = 0, r2;

	list_init(&rec.known);
	for (size_t i = 0; r == 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		r = recover_kind(&rec, &kinds[i]);
	list_each(link, &rec.known)
	{
		struct known *known = list_entry(link, struct known, link);

		task_recovered(known->task);
		free(known);
	}
	table_release(&rec.tasks);
	r2 = opset_commit(&rec.garbage, s);
	opset_release(&rec.garbage);
	if (r == 0)
		r = r2;
	r2 = recover_tree(s);
	return r < 0 ? r : r2;
}

int store_forget(struct sched *s, const char *app)
{
	struct opset garbage = OPSET_INIT;
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct scan scan = {0};
		char prefix[KEY_SIZE];

		if (kinds[i].outlives)
			continue;
		list_init(&scan.found);
		snprintf(prefix, sizeof(prefix), "%s%s/", kinds[i].prefix, app);
		r = s->ops->scan(s->host, prefix, strlen(prefix), note_key, &scan);
		list_each(link, &scan.found)
			opset_add(&garbage, HOST_DEL, 0, list_entry(link, struct found, link)->key, NULL, 0);
		scan_release(&scan);
	}
	if (r >= 0)
		r = opset_commit(&garbage, s);
	opset_release(&garbage);
	return r;
}
