/*
 * What users bring into models/NAME: weights, and beside them model.json and labels.txt. A version is made of these files as make(1)
 * makes a target: when one of them is another than in the last import, it is made anew, under the next number; removing one
 * changes nothing. So it does not matter in which order they come, or that labels.txt was forgotten.
 *
 * An event marks the directory as dirty and starts the settle clock anew. When it was quiet, and nothing that counts in it is open
 * for writing, it is walked and each file of weights compared with what is recorded of it. A start of the daemon makes all directories
 * dirty: what was on its way is found like any other change.
 */
#include "sched/jobs_private.h"

#include "engine/base/log.h"
#include "engine/import.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>

/* --- files that are open for writing --- */

static size_t writing_at(const struct jobs *jobs, uint64_t ino)
{
	size_t i = 0;

	while (i < jobs->n_writing && jobs->writing[i] != ino)
		i++;
	return i;
}

static bool is_writing(const struct jobs *jobs, uint64_t ino)
{
	return writing_at(jobs, ino) < jobs->n_writing;
}

static void writing_add(struct jobs *jobs, uint64_t ino)
{
	uint64_t *more;

	if (is_writing(jobs, ino))
		return;
	more = reallocarray(jobs->writing, jobs->n_writing + 1, sizeof(*more));
	if (!more) {
		log_error("no memory: a model may be imported before it is whole");
		return;
	}
	jobs->writing = more;
	jobs->writing[jobs->n_writing++] = ino;
}

static void writing_remove(struct jobs *jobs, uint64_t ino)
{
	size_t at = writing_at(jobs, ino);

	if (at < jobs->n_writing)
		jobs->writing[at] = jobs->writing[--jobs->n_writing];
}

/* --- directories --- */

static struct model_dir *find_dir(const struct jobs *jobs, const char *name)
{
	struct model_dir *dir = jobs->model_dirs;

	while (dir && strcmp(dir->name, name) != 0)
		dir = dir->next;
	return dir;
}

static struct model_dir *find_or_add_dir(struct jobs *jobs, const char *name)
{
	struct model_dir *dir = find_dir(jobs, name);

	if (dir)
		return dir;
	dir = calloc(1, sizeof(*dir));
	if (!dir)
		return NULL;
	*dir = (struct model_dir){.jobs = jobs, .name = strdup(name), .next = jobs->model_dirs};
	if (!dir->name) {
		free(dir);
		return NULL;
	}
	jobs->model_dirs = dir;
	return dir;
}

static void dir_free(struct model_dir *dir)
{
	struct model_dir **p = &dir->jobs->model_dirs;

	while (*p != dir)
		p = &(*p)->next;
	*p = dir->next;
	loop_timer_cancel(dir->jobs->loop, dir->settle);
	free(dir->name);
	free(dir);
}

bool import_is_settled(const struct import *imp)
{
	const struct model_dir *dir = find_dir(imp->jobs, imp->model);

	return dir && !dir->dirty;
}

static void on_settled(void *data);

static void changed(struct model_dir *dir)
{
	struct jobs *jobs = dir->jobs;

	dir->dirty = true;
	loop_timer_cancel(jobs->loop, dir->settle);
	dir->settle = loop_timer_at(jobs->loop, loop_now(jobs->loop) + jobs->options->settle_batch_ns,
				    on_settled, dir);
}

/* --- imports --- */

static struct import *find_import(const struct jobs *jobs, uint64_t ino)
{
	struct import *imp = jobs->imports;

	while (imp && imp->ino != ino)
		imp = imp->next;
	return imp;
}

static struct import *import_new(struct jobs *jobs, uint64_t ino, const char *model, const char *file)
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

static bool is_held(const struct import *imp)
{
	return imp->state == IMPORT_PUBLISHING || imp->state == IMPORT_LINKING;
}

static void stop(struct import *imp)
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

	if (is_held(imp)) {
		imp->gone = true;
		return;
	}
	stop(imp);
	snprintf(number, sizeof(number), "%016" PRIx64, imp->ino);
	jobs_record(jobs, "import", number, &imp->record, NULL);
	imp->state = IMPORT_DONE;
	if (failed && !has_failed(jobs, imp->model) && find_dir(jobs, imp->model))
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

/* --- the walk --- */

static bool other(const struct inputs *seen, const struct inputs *used)
{
	return seen->weights != used->weights || (seen->json && seen->json != used->json) ||
	       (seen->labels && seen->labels != used->labels);
}

/* What is to be done about a file as it was last seen. */
static void decide(struct import *imp)
{
	bool waits = import_format(imp->file) == IMPORT_TENSORS && !imp->seen.json;

	if (is_held(imp) || !imp->seen.weights) /* import_ended asks again, or the first walk */
		return;
	if (!other(&imp->seen, &imp->used) &&
	    (imp->state == IMPORT_DONE || imp->state == IMPORT_FAILED || imp->state == IMPORT_RUNNING))
		return;
	stop(imp);
	if (imp->state == IMPORT_QUEUED && !waits)
		return;
	imp->deaths = 0;
	imp->state = waits ? IMPORT_WAITS : IMPORT_QUEUED;
	imp->order = jobs_number(imp->jobs);
}

void import_ended(struct import *imp)
{
	struct jobs *jobs = imp->jobs;

	imp->state = imp->failed ? IMPORT_FAILED : IMPORT_DONE;
	if (imp->gone)
		import_forget(imp);
	else
		decide(imp);
	jobs_kick(jobs);
}

struct model_walk {
	struct model_dir *dir;
	struct host_entry *files; /* (n): of weights; paths are ours */
	size_t n;
	struct host_entry json, labels; /* ino 0: not there */
	bool writing;
	int r;
};

static int add_weights(struct model_walk *walk, const struct host_entry *e)
{
	struct host_entry *more = reallocarray(walk->files, walk->n + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	walk->files = more;
	more[walk->n] = *e;
	more[walk->n].path = strdup(e->path);
	return more[walk->n++].path ? 0 : -ENOMEM;
}

static bool name_waits(const char *name)
{
	return name[0] == '.'; /* the other names that wait end otherwise than those that count */
}

static int on_file(void *data, const struct host_entry *e)
{
	struct model_walk *walk = data;

	if (e->is_dir || e->is_other || strchr(e->path, '/'))
		return e->is_dir ? HOST_NOT_BELOW : 0;
	if (strcmp(e->path, "model.json") == 0)
		walk->json = *e;
	else if (strcmp(e->path, "labels.txt") == 0)
		walk->labels = *e;
	else if (import_format(e->path) != IMPORT_NONE && !name_waits(e->path))
		walk->r = add_weights(walk, e);
	else
		return 0;
	walk->writing |= is_writing(walk->dir->jobs, e->ino);
	return walk->r;
}

static uint64_t print_of(const struct host_entry *e)
{
	uint64_t h = e->ino ? mix_entry(0, e) : 0;

	return e->ino && !h ? 1 : h;
}

/* The name under which it is recorded may be another: it was renamed, or the directory was. */
static int take_name(struct import *imp, const struct model_dir *dir, const char *file)
{
	char *model, *name;

	if (strcmp(imp->model, dir->name) == 0 && strcmp(imp->file, file) == 0)
		return 0;
	model = strdup(dir->name);
	name = strdup(file);
	if (!model || !name) {
		free(model);
		free(name);
		return -ENOMEM;
	}
	if (strcmp(imp->model, model) != 0 && !dir->came)
		imp->used = (struct inputs){0}; /* it is another model's now */
	free(imp->model);
	free(imp->file);
	imp->model = model;
	imp->file = name;
	return imp->record ? import_save(imp) : 0;
}

static int look_at(const struct model_walk *walk, const struct host_entry *e)
{
	struct jobs *jobs = walk->dir->jobs;
	struct import *imp = find_import(jobs, e->ino);
	int r = 0;

	if (!imp)
		imp = import_new(jobs, e->ino, walk->dir->name, e->path);
	if (!imp)
		return -ENOMEM;
	imp->found = true;
	imp->gone = false;
	if (!is_held(imp))
		r = take_name(imp, walk->dir, e->path);
	imp->size = e->size;
	imp->json_ino = walk->json.ino;
	imp->labels_ino = walk->labels.ino;
	imp->seen = (struct inputs){print_of(e), print_of(&walk->json), print_of(&walk->labels)};
	decide(imp);
	return r;
}

/* Until a walk finds it. */
static void leave(struct import *imp)
{
	if (is_held(imp) || imp->state == IMPORT_DONE || imp->state == IMPORT_FAILED)
		return;
	stop(imp);
	imp->used = (struct inputs){0};
	imp->state = IMPORT_DONE;
}

/* Of the directory's files those that were not found; when it was not there at all, all whose inode went: a directory that was moved
 * is walked under its new name. */
static void forget_missing(struct jobs *jobs, const char *model, bool all)
{
	for (struct import *imp = jobs->imports, *next; imp; imp = next) {
		struct host_access access;

		next = imp->next;
		if (strcmp(imp->model, model) != 0)
			continue;
		if (!all && imp->found)
			continue;
		if (!all || !jobs->ops->access || jobs->ops->access(jobs->host, imp->ino, &access) < 0)
			import_forget(imp);
		else
			leave(imp);
	}
}

static int walk_dir(struct model_dir *dir, struct model_walk *walk)
{
	char *path;
	int r;

	*walk = (struct model_walk){.dir = dir};
	if (asprintf(&path, "models/%s", dir->name) < 0)
		return -ENOMEM;
	r = dir->jobs->ops->walk(dir->jobs->host, path, on_file, walk);
	free(path);
	return walk->r < 0 ? walk->r : r < 0 ? r : 0;
}

static void on_settled(void *data)
{
	struct model_dir *dir = data;
	struct jobs *jobs = dir->jobs;
	struct model_walk walk;
	int r = walk_dir(dir, &walk);

	dir->settle = NULL;
	if (r == -ENOENT || r == -ENOTDIR || r == -ESTALE) {
		forget_missing(jobs, dir->name, true);
		dir_free(dir);
		goto out;
	}
	if (r == 0 && walk.writing) /* its end is an event */
		goto out;
	for (struct import *imp = jobs->imports; imp; imp = imp->next)
		imp->found = false;
	for (size_t i = 0; r == 0 && i < walk.n; i++)
		r = look_at(&walk, &walk.files[i]);
	if (r < 0) {
		log_error("models/%s can't be looked at: %s", dir->name, strerror(-r));
		changed(dir);
		goto out;
	}
	dir->dirty = dir->came = false;
	forget_missing(jobs, dir->name, false);
out:
	for (size_t i = 0; i < walk.n; i++)
		free((void *)walk.files[i].path);
	free(walk.files);
	jobs_kick(jobs);
}

void jobs_model_event(struct jobs *jobs, const char *name, enum model_event event, uint64_t ino)
{
	struct import *running = jobs->importer.import;
	struct model_dir *dir;

	if (jobs->stopped)
		return;
	if (event == MODEL_WRITING)
		writing_add(jobs, ino);
	else if (event == MODEL_COMPLETE || event == MODEL_REMOVED)
		writing_remove(jobs, ino);
	if (running && ((event == MODEL_GONE && strcmp(running->model, name) == 0) ||
			((event == MODEL_WRITING || event == MODEL_REMOVED) && running->ino == ino)))
		stop(running);
	dir = *name ? find_or_add_dir(jobs, name) : NULL;
	if (!dir) {
		if (*name)
			log_error("models/%s: no memory; it is looked at after the next start", name);
		return;
	}
	dir->came |= event == MODEL_CAME;
	changed(dir);
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
	imp->used = (struct inputs){hex_of(json, "weights"), hex_of(json, "json"), hex_of(json, "labels")};
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

static int on_dir(void *data, const struct host_entry *e)
{
	struct recovery *rec = data;
	struct model_dir *dir;

	if (!e->is_dir || strchr(e->path, '/'))
		return 0;
	dir = find_or_add_dir(rec->jobs, e->path);
	if (!dir)
		return rec->r = -ENOMEM;
	changed(dir);
	return HOST_NOT_BELOW;
}

int models_recover(struct jobs *jobs)
{
	struct recovery rec = {.jobs = jobs};
	int r;

	r = jobs->ops->scan(jobs->host, "import/", strlen("import/"), on_record, &rec);
	if (r >= 0)
		r = rec.r;
	if (r < 0)
		return r;
	r = jobs->ops->walk(jobs->host, "models", on_dir, &rec);
	if (r < 0 && r != -ENOENT && rec.r == 0)
		log_error("not all models are looked at after this start: %s", strerror(-r));
	for (struct import *imp = jobs->imports, *next; rec.r == 0 && imp; imp = next) {
		next = imp->next;
		if (!find_dir(jobs, imp->model))
			import_forget(imp);
		else if (imp->state == IMPORT_DONE && !imp->linked)
			import_link(imp);
	}
	return rec.r;
}

void models_free_all(struct jobs *jobs)
{
	while (jobs->imports)
		import_free(jobs->imports);
	while (jobs->model_dirs)
		dir_free(jobs->model_dirs);
	free(jobs->writing);
	jobs->writing = NULL;
	jobs->n_writing = 0;
}

void models_status(struct jobs *jobs, struct buf *ret)
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
