#include "sched/result.h"

#include "engine/base/json.h"
#include "engine/base/utf8.h"
#include "sched/internal.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
	[RESULT_OK] = "ok", [RESULT_LATE] = "late", [RESULT_DROPPED] = "dropped", [RESULT_FAILED] = "failed"};

const char *result_status_name(enum result_status status)
{
	return names[status];
}

int result_status_parse(enum result_status *ret, const char *name)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], name) == 0) {
			*ret = (enum result_status)i;
			return 0;
		}
	return -EBADMSG;
}

/* --- names --- */

#define LONGEST_PART 240 /* with ".gradcam.png" it is still a name */
#define KEPT         200

char *result_path(const struct endpoint *ep, const char *path, const char *suffix)
{
	const char *slash = strrchr(path, '/'), *part = slash ? slash + 1 : path;
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a: the same name at each run */
	int kept = KEPT;
	char *ret;

	if (strlen(part) <= LONGEST_PART)
		return asprintf(&ret, "infer/%s/out/%s%s", ep->name, path, suffix) < 0 ? NULL : ret;
	for (const char *p = part; *p; p++)
		hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
	while (kept > 0 && ((unsigned char)part[kept] & 0xc0) == 0x80)
		kept--; /* not within a UTF-8 character */
	return asprintf(&ret, "infer/%s/out/%.*s%.*s~%016" PRIx64 "%s", ep->name, (int)(part - path), path,
			kept, part, hash, suffix) < 0
		       ? NULL
		       : ret;
}

/* --- answers --- */

static void add_ms(cJSON *json, const char *key, int64_t ns)
{
	json_add_decimal(json, key, (double)ns / 1e6, 3);
}

static double digits(double x, double scale)
{
	return round(x * scale) / scale;
}

static const char *label_text(const struct endpoint *ep, int label)
{
	return label >= 0 && label < ep->n_labels ? ep->labels[label] : "?";
}

/* Names of files are bytes, JSON is UTF-8: what is no character becomes U+FFFD. */
static void add_name(cJSON *json, const char *key, const char *name)
{
	struct buf text = BUF_INIT;

	for (size_t n; *name; name += n ? n : 1) {
		n = utf8_length(name);
		if (n)
			buf_add(&text, name, n);
		else
			buf_adds(&text, UTF8_REPLACEMENT);
	}
	if (!text.failed)
		cJSON_AddStringToObject(json, key, text.data ? text.data : "");
	buf_release(&text);
}

void result_add_submodel(cJSON *json, double slice, const char *precision, const char *members, int n_parts)
{
	if (n_parts > 1)
		cJSON_AddNullToObject(json, "slice");
	else
		json_add_decimal(json, "slice", slice, 4);
	cJSON_AddStringToObject(json, "precision", precision);
	if (members)
		add_name(json, "members", members);
}

static void add_computed(cJSON *json, const struct instance *inst, const struct instance_verdict *v)
{
	const struct endpoint *ep = inst->task->ep;
	const struct submodel *m = &ep->submodels[v->submodel];
	const struct instance_answer *a = v->answer;
	cJSON *top;

	result_add_submodel(json, (double)m->slice, m->precision, m->members, m->n_parts);
	if (a->failed) {
		cJSON_AddNullToObject(json, "label");
		cJSON_AddNullToObject(json, "score");
		cJSON_AddArrayToObject(json, "top");
		return;
	}
	cJSON_AddStringToObject(json, "label", label_text(ep, a->label));
	json_add_decimal(json, "score", a->score, 6);
	top = cJSON_AddArrayToObject(json, "top");
	for (int i = 0; top && i < a->n_top && i < MAX_TOP; i++) {
		cJSON *item = cJSON_CreateObject();

		cJSON_AddStringToObject(item, "label", label_text(ep, a->top[i]));
		json_add_decimal(item, "score", a->top_score[i], 6);
		cJSON_AddItemToArray(top, item);
	}
}

cJSON *result_answer(const struct instance *inst, const struct instance_verdict *v, enum result_status status,
		     int64_t now)
{
	const struct task *task = inst->task;
	const struct err *err = v->answer ? &v->answer->err : &v->err;
	cJSON *json = cJSON_CreateObject();
	char text[512];

	if (!json)
		return NULL;
	add_name(json, "file", inst->path);
	cJSON_AddStringToObject(json, "task", task->id);
	endpoint_add_model(task->ep, json);
	if (v->answer) {
		add_computed(json, inst, v);
		add_ms(json, "queued_ms", inst->started - task->submitted);
		add_ms(json, "compute_ms", v->compute_ns);
	} else {
		static const char *const nothing[] = {"slice", "precision", "label", "score"};

		for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++)
			cJSON_AddNullToObject(json, nothing[i]);
		cJSON_AddArrayToObject(json, "top");
		add_ms(json, "queued_ms", now - task->submitted);
		cJSON_AddNullToObject(json, "compute_ms");
	}
	add_ms(json, "finished_ms", now - task->submitted);
	if (task->due == INT64_MAX)
		cJSON_AddNullToObject(json, "deadline_ms");
	else
		add_ms(json, "deadline_ms", task->due - task->submitted);
	cJSON_AddStringToObject(json, "status", names[status]);
	if (status == RESULT_DROPPED || status == RESULT_FAILED)
		cJSON_AddStringToObject(json, "error", err_format(err, text, sizeof(text)));
	else
		cJSON_AddNullToObject(json, "error");
	return json;
}

void result_set_status(cJSON *answer, enum result_status status)
{
	cJSON_ReplaceItemInObjectCaseSensitive(answer, "status", cJSON_CreateString(names[status]));
}

/* --- results.csv --- */

static void csv_text(struct buf *ret, const char *text)
{
	if (!strpbrk(text, ",\"\r\n")) {
		buf_adds(ret, text);
		return;
	}
	buf_adds(ret, "\"");
	for (; *text; text++)
		buf_add(ret, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
	buf_adds(ret, "\"");
}

void result_row(struct buf *ret, const cJSON *answer)
{
	static const char *const columns[] = {"file",        "status",      "label",     "score",
					      "slice",       "precision",   "queued_ms", "compute_ms",
					      "finished_ms", "deadline_ms", "task",      "error"};

	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
		const cJSON *item = cJSON_GetObjectItemCaseSensitive(answer, columns[i]);

		if (strcmp(columns[i], "slice") == 0 && cJSON_HasObjectItem(answer, "members"))
			item = cJSON_GetObjectItemCaseSensitive(answer, "members");
		if (i)
			buf_adds(ret, ",");
		if (cJSON_IsString(item))
			csv_text(ret, item->valuestring);
		else if (cJSON_IsRaw(item)) /* of json_add_decimal */
			buf_adds(ret, item->valuestring);
		else if (cJSON_IsNumber(item))
			buf_addf(ret, "%.10g", item->valuedouble);
	}
	buf_adds(ret, "\n");
}

/* Lengths of the first field as it is written, and of the whole line with its newline; quoted fields may hold
 * newlines. */
static size_t csv_line(const char *text, size_t len, size_t *ret_field)
{
	bool quoted = false, field = true;
	size_t i;

	*ret_field = 0;
	for (i = 0; i < len; i++) {
		if (text[i] == '"')
			quoted = !quoted;
		if (!quoted && field && (text[i] == ',' || text[i] == '\n')) {
			*ret_field = i;
			field = false;
		}
		if (!quoted && text[i] == '\n')
			return i + 1;
	}
	if (field)
		*ret_field = len;
	return len;
}

struct file_name { /* a first field */
	struct table_node node;
	char text[];
};

static void free_name(void *data, struct table_node *node)
{
	(void)data;
	free(list_entry(node, struct file_name, node));
}

static struct file_name *name_new(const char *text, size_t len)
{
	struct file_name *name = calloc(1, sizeof(*name) + len + 1);

	if (name)
		memcpy(name->text, text, len);
	return name;
}

static void add_names(struct table *names_seen, const struct task *task, struct buf *ret)
{
	for (size_t i = 0; i < task->n_rows; i++) {
		const char *line = task->rows.data + task->row[i].at;
		struct file_name *name;
		size_t field;

		if (!task->row[i].len)
			continue; /* of one that moved to another task */
		csv_line(line, task->row[i].len, &field);
		name = name_new(line, field);
		if (!name || (!table_find(names_seen, name->text) &&
			      table_add(names_seen, &name->node, name->text) < 0)) {
			free(name);
			ret->failed = true;
			return;
		}
		if (!name->node.name)
			free(name);
	}
}

static void add_old(struct buf *ret, const char *old, size_t old_len, const struct table *seen)
{
	size_t header = strlen(RESULTS_HEADER), field, len;

	if (old_len < header || memcmp(old, RESULTS_HEADER, header) != 0)
		return;
	for (size_t at = header; at < old_len; at += len) {
		struct file_name *name;

		len = csv_line(old + at, old_len - at, &field);
		name = name_new(old + at, field);
		if (!name) {
			ret->failed = true;
			return;
		}
		if (old[at + len - 1] == '\n' && !table_find(seen, name->text))
			buf_add(ret, old + at, len);
		free(name);
	}
}

void result_csv(struct buf *ret, const char *old, size_t old_len, struct task *const *tasks, size_t n)
{
	struct table seen = TABLE_INIT;
	size_t len = strlen(RESULTS_HEADER) + old_len + 1;

	for (size_t i = 0; i < n; i++)
		len += tasks[i]->rows.len;
	buf_reserve(ret, len);
	buf_adds(ret, RESULTS_HEADER);
	if (old) {
		for (size_t i = 0; i < n; i++)
			add_names(&seen, tasks[i], ret);
		add_old(ret, old, old_len, &seen);
		table_each(&seen, free_name, NULL);
		table_release(&seen);
	}
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < tasks[i]->n_rows; k++)
			buf_add(ret, tasks[i]->rows.data + tasks[i]->row[k].at, tasks[i]->row[k].len);
}

/* --- task.json and schedule.csv --- */

double result_p_eff(const struct task *task)
{
	return task->total ? 100 * task->gained / task->total : 0;
}

static cJSON *schedule_json(struct task *const *tasks, size_t n)
{
	const struct endpoint *ep = tasks[0]->ep;
	cJSON *list = cJSON_CreateArray();

	for (int i = 0; list && i < ep->n_submodels; i++) {
		const struct submodel *m = &ep->submodels[i];
		cJSON *item = cJSON_CreateObject();
		int64_t planned = 0, real = 0;

		for (size_t k = 0; k < n; k++) {
			planned += tasks[k]->n_planned[i];
			real += tasks[k]->n_real[i];
		}
		result_add_submodel(item, (double)m->slice, m->precision, m->members, m->n_parts);
		cJSON_AddNumberToObject(item, "accuracy", digits(100 * m->accuracy, 1e4));
		cJSON_AddNumberToObject(item, "planned", (double)planned);
		cJSON_AddNumberToObject(item, "real", (double)real);
		cJSON_AddItemToArray(list, item);
	}
	return list;
}

void result_task(struct buf *ret, struct task *const *tasks, size_t n)
{
	const struct task *first = tasks[0];
	struct {
		double total, ok, late, dropped, failed, gained, planned, solve, admitted;
		int64_t finished;
	} sum = {0};
	bool has_deadline = false, met = true, admitted = true;
	cJSON *json = cJSON_CreateObject(), *ids;

	if (!json) {
		ret->failed = true;
		return;
	}
	for (size_t i = 0; i < n; i++) {
		const struct task *t = tasks[i];

		sum.total += t->total;
		sum.ok += t->ok;
		sum.late += t->late;
		sum.dropped += t->dropped;
		sum.failed += t->failed;
		sum.admitted += (double)t->admitted;
		admitted &= t->admitted >= 0;
		sum.gained += t->gained;
		sum.planned += t->planned_p_eff * t->total;
		sum.solve += (double)t->solve_ns / 1e3;
		if (t->finished - first->submitted > sum.finished)
			sum.finished = t->finished - first->submitted;
		has_deadline |= t->due != INT64_MAX;
		met &= t->late + t->dropped == 0;
	}
	cJSON_AddStringToObject(json, "task", first->id);
	if (n > 1) { /* tasks of one directory whose lives overlapped */
		ids = cJSON_AddArrayToObject(json, "tasks");
		for (size_t i = 0; ids && i < n; i++)
			cJSON_AddItemToArray(ids, cJSON_CreateString(tasks[i]->id));
	}
	endpoint_add_model(first->ep, json);
	cJSON_AddNumberToObject(json, "instances", sum.total);
	if (admitted)
		cJSON_AddNumberToObject(json, "admitted", sum.admitted);
	else
		cJSON_AddNullToObject(json, "admitted");
	cJSON_AddNumberToObject(json, "ok", sum.ok);
	cJSON_AddNumberToObject(json, "late", sum.late);
	cJSON_AddNumberToObject(json, "dropped", sum.dropped);
	cJSON_AddNumberToObject(json, "failed", sum.failed);
	cJSON_AddNumberToObject(json, "submitted", digits((double)first->submitted_wall / 1e9, 1e6));
	if (first->due != INT64_MAX)
		add_ms(json, "deadline_ms", first->due - first->submitted);
	else
		cJSON_AddNullToObject(json, "deadline_ms");
	add_ms(json, "finished_ms", sum.finished);
	if (has_deadline)
		cJSON_AddBoolToObject(json, "deadline_met", met);
	else
		cJSON_AddNullToObject(json, "deadline_met");
	cJSON_AddNumberToObject(json, "effective_accuracy",
				sum.total > 0 ? digits(100 * sum.gained / sum.total, 1e4) : 0);
	cJSON_AddNumberToObject(json, "planned_effective_accuracy",
				sum.total > 0 ? digits(100 * sum.planned / sum.total, 1e4) : 0);
	cJSON_AddItemToObject(json, "schedule", schedule_json(tasks, n));
	if (first->planned)
		cJSON_AddStringToObject(json, "method", plan_method_name(first->method));
	else
		cJSON_AddNullToObject(json, "method");
	cJSON_AddNumberToObject(json, "solve_us", digits(sum.solve, 10));
	json_print(ret, json);
	cJSON_Delete(json);
}

/* One for each sub-model: "n_0.25_f32", of an ensemble's "n_a:0.25+b:1". */
static void add_columns(struct buf *ret, const struct endpoint *ep, const char *what)
{
	for (int i = 0; i < ep->n_submodels; i++) {
		const struct submodel *m = &ep->submodels[i];
		struct buf name = BUF_INIT;

		if (m->members)
			buf_addf(&name, "%s_%s", what, m->members);
		else
			buf_addf(&name, "%s_%g_%s", what, digits(m->slice, 1e4), m->precision);
		buf_adds(ret, ",");
		csv_text(ret, name.data ? name.data : "");
		ret->failed |= name.failed;
		buf_release(&name);
	}
}

void result_schedule_header(struct buf *ret, const struct endpoint *ep)
{
	buf_adds(ret, "task,N,D_ms");
	add_columns(ret, ep, "n");
	buf_adds(ret, ",planned_p_eff,real_p_eff,method,solve_us,late,dropped,failed,finished_ms");
	add_columns(ret, ep, "planned");
	buf_adds(ret, "\n");
}

void result_schedule_row(struct buf *ret, const struct task *task)
{
	csv_text(ret, task->id);
	buf_addf(ret, ",%" PRIu32 ",", task->total);
	if (task->due != INT64_MAX)
		buf_addf(ret, "%.10g", round((double)(task->due - task->submitted) / 1e3) / 1e3);
	for (int i = 0; i < task->ep->n_submodels; i++)
		buf_addf(ret, ",%" PRId64, task->n_real[i]);
	buf_addf(ret, ",%.4f,%.4f,%s,%.1f,%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%.3f",
		 100 * task->planned_p_eff, result_p_eff(task),
		 task->planned ? plan_method_name(task->method) : "", (double)task->solve_ns / 1e3,
		 task->late, task->dropped, task->failed, (double)(task->finished - task->submitted) / 1e6);
	for (int i = 0; i < task->ep->n_submodels; i++)
		buf_addf(ret, ",%" PRId64, task->n_planned[i]);
	buf_adds(ret, "\n");
}

void result_slices(struct buf *ret, const struct endpoint *ep)
{
	buf_adds(ret, "slice,precision,accuracy,ms,ms_one,loaded\n");
	for (int i = 0; i < ep->n_submodels; i++) {
		const struct submodel *m = &ep->submodels[i];

		if (m->members)
			csv_text(ret, m->members);
		else
			buf_addf(ret, "%g", digits(m->slice, 1e4));
		buf_addf(ret, ",%s,%.4f,%.4f,%.4f,%s\n", m->precision, 100 * m->accuracy,
			 (double)m->time_ns / 1e6, (double)m->time_one_ns / 1e6, m->idle ? "no" : "yes");
	}
}
