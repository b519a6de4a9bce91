/*
 * The table of imports and what the host's key space remembers of them: "import/INODE/NUMBER", a record of what each that has ended
 * was made of and became. By inode, so that a file may be renamed.
 */
#include "sched/jobs_private.h"

#include "engine/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>

struct import *import_find(const struct jobs *jobs, uint64_t ino)
{
	struct import *imp = jobs->imports;

	while (imp && imp->ino != ino)
		imp = imp->next;
	return imp;
}

struct import *import_new(struct jobs *jobs, uint64_t ino, const char *model, const char *file)
{
	struct import *imp = calloc(1, sizeof(*imp));

	if (!imp)
		return NULL;
	*imp = (struct import){.jobs = jobs,
			       .ino = ino,
			       .model = strdup(model),
			       .file = strdup(file),
			       .next = jobs->imports};
	if (!imp->model || !imp->file) {
		free(imp->model);
		free(imp->file);
		free(imp);
		return NULL;
	}
	jobs->imports = imp;
	return imp;
}

static void import_free(struct import *imp)
{
	struct import **p = &imp->jobs->imports;

	while (*p != imp)
		p = &(*p)->next;
	*p = imp->next;
	if (imp->tree)
		imp->jobs->ops->tree_free(imp->jobs->host, imp->tree);
	free(imp->model);
	free(imp->file);
	free(imp);
}

bool import_is_held(const struct import *imp)
{
	return imp->state == IMPORT_PUBLISHING || imp->state == IMPORT_LINKING;
}

void import_halt(struct import *imp)
{
	if (imp->state != IMPORT_RUNNING)
		return;
	import_stop(imp->jobs);
	imp->state = IMPORT_QUEUED;
}

static bool has_failed(const struct jobs *jobs, const char *model)
{
	for (const struct import *imp = jobs->imports; imp; imp = imp->next)
		if (strcmp(imp->model, model) == 0 && imp->state == IMPORT_FAILED)
			return true;
	return false;
}

void import_forget(struct import *imp)
{
	struct jobs *jobs = imp->jobs;
	bool failed = imp->state == IMPORT_FAILED;
	char number[24];

	if (import_is_held(imp)) {
		imp->gone = true;
		return;
	}
	import_halt(imp);
	snprintf(number, sizeof(number), "%016" PRIx64, imp->ino);
	jobs_record(jobs, "import", number, &imp->record, NULL);
	imp->state = IMPORT_DONE;
	if (failed && !has_failed(jobs, imp->model) && models_has(jobs, imp->model))
		jobs_unpublish(jobs, "models/%s/error", imp->model);
	import_free(imp);
}

/* --- records --- */

static void add_hex(cJSON *json, const char *key, uint64_t x)
{
	char hex[24];

	snprintf(hex, sizeof(hex), "%016" PRIx64, x);
	cJSON_AddStringToObject(json, key, hex);
}

static char *record_text(const struct import *imp)
{
	cJSON *json = cJSON_CreateObject();
	char *text = NULL;

	if (json && cJSON_AddStringToObject(json, "model", imp->model) &&
	    cJSON_AddStringToObject(json, "file", imp->file) &&
	    cJSON_AddNumberToObject(json, "version", imp->version) &&
	    cJSON_AddBoolToObject(json, "linked", imp->linked)) {
		add_hex(json, "weights", imp->used.weights);
		add_hex(json, "json", imp->used.json);
		add_hex(json, "labels", imp->used.labels);
		add_hex(json, "beside", imp->used.beside);
		text = cJSON_PrintUnformatted(json);
	}
	cJSON_Delete(json);
	return text;
}

int import_record_ops(struct import *imp, struct record_ops *ops, char **ret_value)
{
	char number[24], *text = record_text(imp);

	if (!text)
		return -ENOMEM;
	snprintf(number, sizeof(number), "%016" PRIx64, imp->ino);
	jobs_record_ops(imp->jobs, "import", number, imp->record, text, ops);
	imp->next_record = ops->number;
	*ret_value = text;
	return 0;
}

int import_save(struct import *imp)
{
	char number[24], *text = record_text(imp);
	int r = -ENOMEM;

	snprintf(number, sizeof(number), "%016" PRIx64, imp->ino);
	if (text)
		r = jobs_record(imp->jobs, "import", number, &imp->record, text);
	cJSON_free(text);
	return r;
}

/* --- restarts and reports --- */

struct recovery {
	struct jobs *jobs;
	int r;
};

static uint64_t hex_of(const cJSON *json, const char *key)
{
	const char *hex = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));

	return hex ? strtoull(hex, NULL, 16) : 0;
}

/* "import/INODE/NUMBER" */
static int on_record(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct recovery *rec = data;
	cJSON *json = cJSON_ParseWithLength(value, value_len);
	const char *model = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "model")),
		   *file = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "file"));
	const cJSON *version = cJSON_GetObjectItemCaseSensitive(json, "version");
	uint64_t ino, number;
	struct import *imp;
	char text[64];

	if (key_len >= sizeof(text) || !model || !file)
		goto damaged;
	memcpy(text, key, key_len);
	text[key_len] = '\0';
	if (sscanf(text, "import/%16" SCNx64 "/%16" SCNx64, &ino, &number) != 2)
		goto damaged;
	imp = import_new(rec->jobs, ino, model, file);
	if (!imp) {
		rec->r = -ENOMEM;
		goto out;
	}
	imp->record = number;
	imp->version = cJSON_IsNumber(version) ? version->valueint : 0;
	imp->linked = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "linked"));
	imp->used = (struct inputs){hex_of(json, "weights"), hex_of(json, "json"), hex_of(json, "labels"),
				    hex_of(json, "beside")};
	imp->failed = imp->version == 0;
	imp->state = imp->failed ? IMPORT_FAILED : IMPORT_DONE;
	if (number > rec->jobs->number)
		rec->jobs->number = number;
	goto out;
damaged:
	log_error("an import's record is damaged and left alone");
out:
	cJSON_Delete(json);
	return rec->r;
}

int imports_recover(struct jobs *jobs)
{
	struct recovery rec = {.jobs = jobs};
	int r = jobs->ops->scan(jobs->host, "import/", strlen("import/"), on_record, &rec);

	return r < 0 ? r : rec.r;
}

void imports_free_all(struct jobs *jobs)
{
	for (struct import *imp = jobs->imports, *next; imp; imp = next) {
		next = imp->next;
		import_free(imp);
	}
}

void imports_status(struct jobs *jobs, struct buf *ret)
{
	for (const struct import *imp = jobs->imports; imp; imp = imp->next) {
		switch (imp->state) {
		case IMPORT_WAITS:
			buf_addf(ret, "model %s %s waits for model.json\n", imp->model, imp->file);
			break;
		case IMPORT_QUEUED:
			buf_addf(ret, "model %s %s waits to be imported\n", imp->model, imp->file);
			break;
		case IMPORT_RUNNING:
			buf_addf(ret, "model %s importing %s %lld s\n", imp->model, imp->file,
				 (long long)((loop_now(jobs->loop) - imp->started) / NS_PER_S));
			break;
		case IMPORT_FAILED:
			buf_addf(ret, "model %s import of %s failed: see models/%s/error\n", imp->model,
				 imp->file, imp->model);
			break;
		default:
			break;
		}
	}
}
