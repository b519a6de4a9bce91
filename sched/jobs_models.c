/*
 * What users bring into models/NAME: weights, and beside them model.json and labels.txt; beside x.onnx what it keeps in x.onnx.data (as
 * PyTorch writes it) or x.onnx_data. A version is made of these files as make(1)
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

bool models_has(const struct jobs *jobs, const char *name)
{
	return find_dir(jobs, name);
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

/* --- the walk --- */

static bool other(const struct inputs *seen, const struct inputs *used)
{
	return seen->weights != used->weights || (seen->json && seen->json != used->json) ||
	       (seen->labels && seen->labels != used->labels) ||
	       (seen->beside && seen->beside != used->beside);
}

/* What is to be done about a file as it was last seen. */
static void decide(struct import *imp)
{
	bool waits = import_format(imp->file) == IMPORT_TENSORS && !imp->seen.json;

	if (import_is_held(imp) || !imp->seen.weights) /* import_ended asks again, or the first walk */
		return;
	if (!other(&imp->seen, &imp->used) &&
	    (imp->state == IMPORT_DONE || imp->state == IMPORT_FAILED || imp->state == IMPORT_RUNNING))
		return;
	import_halt(imp);
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
	struct host_entry *files; /* (n): of weights, and those beside them; paths are ours */
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

static const char *const beside_ends[] = {".data", "_data"};

/* x.onnx.data or x.onnx_data; *ret_len: of x.onnx */
static bool is_beside(const char *file, size_t *ret_len, int *ret_end)
{
	size_t len = strlen(file);

	for (int i = 0; i < 2; i++) {
		size_t n = strlen(beside_ends[i]);

		if (len <= n || strcmp(file + len - n, beside_ends[i]) != 0)
			continue;
		*ret_len = len - n;
		*ret_end = i;
		return *ret_len > 5 && strncmp(file + *ret_len - 5, ".onnx", 5) == 0;
	}
	return false;
}

static bool name_waits(const char *name)
{
	return name[0] == '.'; /* the other names that wait end otherwise than those that count */
}

static int on_file(void *data, const struct host_entry *e)
{
	struct model_walk *walk = data;
	size_t len;
	int end;

	if (e->is_dir || e->is_other || strchr(e->path, '/'))
		return e->is_dir ? HOST_NOT_BELOW : 0;
	if (strcmp(e->path, "model.json") == 0)
		walk->json = *e;
	else if (strcmp(e->path, "labels.txt") == 0)
		walk->labels = *e;
	else if ((import_format(e->path) != IMPORT_NONE || is_beside(e->path, &len, &end)) &&
		 !name_waits(e->path))
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

/* NULL: nothing lies beside that file. */
static const struct host_entry *find_beside(const struct model_walk *walk, const char *file, int *ret_end)
{
	size_t len;

	for (size_t i = 0; i < walk->n; i++)
		if (is_beside(walk->files[i].path, &len, ret_end) && strlen(file) == len &&
		    strncmp(walk->files[i].path, file, len) == 0)
			return &walk->files[i];
	return NULL;
}

static int look_at(const struct model_walk *walk, const struct host_entry *e)
{
	struct jobs *jobs = walk->dir->jobs;
	const struct host_entry *beside;
	struct import *imp;
	size_t len;
	int r = 0, end = 0;

	if (is_beside(e->path, &len, &end))
		return 0;
	imp = import_find(jobs, e->ino);
	if (!imp)
		imp = import_new(jobs, e->ino, walk->dir->name, e->path);
	if (!imp)
		return -ENOMEM;
	imp->found = true;
	imp->gone = false;
	if (!import_is_held(imp))
		r = take_name(imp, walk->dir, e->path);
	imp->size = e->size;
	imp->json_ino = walk->json.ino;
	imp->labels_ino = walk->labels.ino;
	beside = find_beside(walk, e->path, &end);
	imp->beside_ino = beside ? beside->ino : 0;
	imp->beside_size = beside ? beside->size : 0;
	imp->beside_end = beside_ends[end];
	imp->seen = (struct inputs){print_of(e), print_of(&walk->json), print_of(&walk->labels),
				    beside ? print_of(beside) : 0};
	decide(imp);
	return r;
}

/* Until a walk finds it. */
static void leave(struct import *imp)
{
	if (import_is_held(imp) || imp->state == IMPORT_DONE || imp->state == IMPORT_FAILED)
		return;
	import_halt(imp);
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
			((event == MODEL_WRITING || event == MODEL_REMOVED) &&
			 (running->ino == ino || running->beside_ino == ino))))
		import_halt(running);
	dir = *name ? find_or_add_dir(jobs, name) : NULL;
	if (!dir) {
		if (*name)
			log_error("models/%s: no memory; it is looked at after the next start", name);
		return;
	}
	dir->came |= event == MODEL_CAME;
	changed(dir);
}

/* --- restarts --- */

struct recovery {
	struct jobs *jobs;
	int r;
};

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
	int r = imports_recover(jobs);

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
	for (struct model_dir *dir = jobs->model_dirs, *next; dir; dir = next) {
		next = dir->next;
		dir_free(dir);
	}
	free(jobs->writing);
	jobs->writing = NULL;
	jobs->n_writing = 0;
}
