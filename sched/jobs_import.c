/*
 * The import worker. It gets a file of weights with the texts beside it, writes the files of a version into files that it was
 * given, and says how long they are; the daemon looks at no byte of a model. The version is a tree of files (sched/host.h) that
 * appears whole, at once, in one batch with the record. Its model.onnx shares the bytes of the user's file where the volume can do that.
 *
 * What may run for ever is the user's network: an import has LIMIT_NS in all, and one that is over it is not tried again. A death may be
 * an accident (of memory, say): the second one fails it.
 */
#include "sched/jobs_private.h"

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/import.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEATHS 2
#define LIMIT_NS   (600 * NS_PER_S) /* chosen: VGG-16 takes seconds */
#define MAX_MODEL  (UINT64_C(4) << 30)
#define MAX_TEXT   (UINT64_C(16) << 20)
#define MAX_TRIES  100 /* to find a free number; who makes versions by hand makes few at once */

static void tell(const struct import *imp, const char *what)
{
	const struct jobs *jobs = imp->jobs;

	if (jobs->events && jobs->events->import_changed)
		jobs->events->import_changed(jobs->data, imp->model, what);
}

static void drop_tree(struct import *imp)
{
	if (imp->tree)
		imp->jobs->ops->tree_free(imp->jobs->host, imp->tree);
	imp->tree = NULL;
}

void import_stop(struct jobs *jobs)
{
	struct importer *in = &jobs->importer;

	loop_timer_cancel(jobs->loop, in->limit);
	peer_free(in->peer, &jobs->reaper);
	if (in->import)
		drop_tree(in->import);
	*in = (struct importer){.weights_fd = -1};
}

/* --- how it ends --- */

static int set_ops(struct import *imp, const char *state, const char *version, struct record_ops *ops,
		   char **ret_value)
{
	int r = import_record_ops(imp, ops, ret_value);

	if (r < 0)
		return r;
	ops->ops[ops->n++] = (struct host_op){.type = HOST_STATE,
					      .ino = imp->ino,
					      .key = "user.state",
					      .key_len = strlen("user.state"),
					      .value = state,
					      .value_len = strlen(state)};
	if (version)
		ops->ops[ops->n++] = (struct host_op){.type = HOST_STATE,
						      .ino = imp->ino,
						      .key = "user.version",
						      .key_len = strlen("user.version"),
						      .value = version,
						      .value_len = strlen(version)};
	return 0;
}

static void on_error_visible(void *data, int r, int64_t visible)
{
	struct import *imp = data;

	(void)visible;
	if (r == 0)
		imp->record = imp->next_record;
	else if (r != -ENOENT)
		log_error("models/%s/error: %s", imp->model, strerror(-r));
	import_ended(imp);
}

/* `error` says so, and the record; no worker is at it. */
static void fail(struct import *imp, const struct err *err)
{
	struct jobs *jobs = imp->jobs;
	char text[1024], sentence[640], path[600], *value = NULL;
	struct record_ops ops;
	int r;

	drop_tree(imp);
	imp->state = IMPORT_PUBLISHING;
	imp->failed = imp->linked = true;
	imp->version = 0;
	snprintf(text, sizeof(text), "%.255s: %s\n", imp->file, err_format(err, sentence, sizeof(sentence)));
	snprintf(path, sizeof(path), "models/%s/error", imp->model);
	log_warn("models/%s: import of %.*s", imp->model, (int)strlen(text) - 1, text);
	r = set_ops(imp, "failed", NULL, &ops, &value);
	if (r == 0)
		r = jobs->ops->publish(jobs->host, &(struct host_publication){.path = path,
									      .content = text,
									      .len = strlen(text),
									      .flags = HOST_RESULT,
									      .ops = ops.ops,
									      .n_ops = ops.n,
									      .done = on_error_visible,
									      .data = imp});
	free(value);
	tell(imp, "import failed");
	if (r < 0)
		on_error_visible(imp, r, 0);
}

/* latest leads to it. */
static void on_linked(void *data, int r, int64_t visible)
{
	struct import *imp = data;
	struct jobs *jobs = imp->jobs;

	(void)visible;
	imp->linked = r == 0 || r == -ENOENT;
	if (imp->linked)
		import_save(imp);
	else /* the next start tries again */
		log_error("models/%s/latest: %s", imp->model, strerror(-r));
	if (r == 0 && jobs->events && jobs->events->model_published)
		jobs->events->model_published(jobs->data, imp->model, imp->version);
	import_ended(imp);
}

void import_link(struct import *imp)
{
	struct jobs *jobs = imp->jobs;
	struct host_entry e;
	char path[600], target[16];
	int r;

	imp->state = IMPORT_LINKING;
	snprintf(target, sizeof(target), "%d", imp->version);
	snprintf(path, sizeof(path), "models/%s/%s", imp->model, target);
	r = jobs->ops->lookup(jobs->host, path, &e); /* it may have been removed meanwhile */
	snprintf(path, sizeof(path), "models/%s/latest", imp->model);
	if (r == 0)
		r = jobs->ops->symlink(jobs->host, path, target, on_linked, imp);
	if (r < 0)
		on_linked(imp, r, 0);
}

static void publish(struct import *imp);

static void on_version_visible(void *data, int r, int64_t visible)
{
	struct import *imp = data;
	struct err err = ERR_INIT;

	(void)visible;
	if ((r == -EEXIST || r == -ENOTDIR || r == -ENOTEMPTY) && ++imp->tries < MAX_TRIES) {
		publish(imp); /* somebody made this one by hand */
		return;
	}
	drop_tree(imp);
	if (r == 0) {
		imp->record = imp->next_record;
		if (!imp->gone)
			jobs_unpublish(imp->jobs, "models/%s/error", imp->model);
		import_link(imp);
		return;
	}
	if (r == -ENOENT || r == -ESTALE || imp->jobs->stopped) { /* the directory went: a walk decides */
		imp->used = (struct inputs){0};
		import_ended(imp);
		return;
	}
	err_set(&err, ERR_IO, "models/%s/%d can't be published: %s", imp->model, imp->version, strerror(-r));
	fail(imp, &err);
}

/* The tree becomes the next version. */
static void publish(struct import *imp)
{
	struct jobs *jobs = imp->jobs;
	char path[600], version[16], *value = NULL;
	struct record_ops ops;
	int r;

	imp->state = IMPORT_PUBLISHING;
	imp->failed = imp->linked = false;
	imp->version = 0;
	r = jobs_next_version(jobs, imp->model, &imp->version);
	snprintf(version, sizeof(version), "%d", imp->version);
	snprintf(path, sizeof(path), "models/%s/%s", imp->model, version);
	if (r == 0)
		r = set_ops(imp, "imported", version, &ops, &value);
	if (r == 0)
		r = jobs->ops->publish(jobs->host, &(struct host_publication){.path = path,
									      .flags = HOST_RESULT,
									      .ops = ops.ops,
									      .n_ops = ops.n,
									      .tree = imp->tree,
									      .done = on_version_visible,
									      .data = imp});
	free(value);
	if (r < 0)
		on_version_visible(imp, r == -EEXIST ? -EIO : r, 0);
}

/* --- the worker --- */

/* It said all it has to say, or is not listened to any more; the next one starts when it is gone. */
static struct import *last_word(struct jobs *jobs)
{
	struct importer *in = &jobs->importer;
	struct import *imp = in->import;

	loop_timer_cancel(jobs->loop, in->limit);
	in->limit = NULL;
	in->import = NULL;
	peer_kill(in->peer, "finished");
	return imp;
}

static bool has_length(int fd, uint64_t len)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (uint64_t)st.st_size == len;
}

static int on_imported(struct jobs *jobs, const struct wire_imported *m)
{
	struct importer *in = &jobs->importer;
	struct import *imp = in->import;
	bool shared = in->weights_fd < 0, onnx = import_format(imp->file) == IMPORT_ONNX;
	struct host_file files[] = {
		{.path = MODEL_JSON, .len = m->json},
		{.path = MODEL_LABELS, .offset = m->json, .len = m->labels},
		{.path = MODEL_SLICES, .offset = m->json + m->labels, .len = m->slices},
		{.path = onnx ? MODEL_ONNX : MODEL_WEIGHTS, .len = m->weights, .shared = true},
	};
	struct err err = ERR_INIT;
	int r;

	if (m->json > MAX_TEXT || m->labels > MAX_TEXT || m->slices > MAX_TEXT || !m->json || !m->weights ||
	    !has_length(jobs->ops->tree_fd(jobs->host, imp->tree), m->json + m->labels + m->slices) ||
	    (shared ? m->weights != in->weights_len : !has_length(in->weights_fd, m->weights)))
		return -EPROTO;
	r = jobs->ops->tree_add(jobs->host, imp->tree, files, sizeof(files) / sizeof(files[0]));
	last_word(jobs);
	if (r == 0) {
		imp->tries = 0;
		publish(imp);
	} else {
		err_set(&err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "storing the version: %s", strerror(-r));
		fail(imp, &err);
	}
	return 0;
}

static int on_message(void *data, struct wire_message *m)
{
	struct jobs *jobs = data;
	struct err err = ERR_INIT;

	if (!jobs->importer.import)
		return -EPROTO;
	switch (m->type) {
	case WIRE_IMPORTED:
		return on_imported(jobs, &m->imported);
	case WIRE_FAILED:
		if (!wire_err(&err, m->failed.code, m->failed.detail) || err.code == ERR_NONE)
			return -EPROTO;
		fail(last_word(jobs), &err);
		return 0;
	default:
		return -EPROTO;
	}
}

static void died(struct import *imp, bool hung, const char *reason)
{
	struct err err = ERR_INIT;

	if (!hung && ++imp->deaths < MAX_DEATHS) {
		imp->state = IMPORT_QUEUED;
		return;
	}
	if (hung)
		err_set(&err, ERR_IMPORT_TIME, "it was stopped after %lld s",
			(long long)((loop_now(imp->jobs->loop) - imp->started) / NS_PER_S));
	else
		err_set(&err, ERR_IMPORT_DIED, "%d times; at last it %s", imp->deaths, reason);
	fail(imp, &err);
}

static void on_gone(void *data, const char *reason)
{
	struct jobs *jobs = data;
	struct importer *in = &jobs->importer;
	struct import *imp = in->import;
	bool hung = in->hung;

	if (imp)
		log_warn("models/%s: the worker %d that imports %s %s", imp->model, peer_pid(in->peer),
			 imp->file, reason);
	import_stop(jobs);
	if (imp)
		died(imp, hung, reason);
	jobs_kick(jobs);
}

static const struct peer_events events = {.message = on_message, .gone = on_gone};

static void over_limit(void *data)
{
	struct jobs *jobs = data;

	jobs->importer.limit = NULL;
	jobs->importer.hung = true;
	peer_kill(jobs->importer.peer, "took too long");
}

/* --- the start --- */

/* Adds a text to what the worker gets. A file that went meanwhile is not there. */
static int add_text(struct jobs *jobs, uint64_t ino, int fd, uint8_t *has, uint64_t *ret_len)
{
	void *data;
	size_t len;
	int r;

	if (!ino)
		return 0;
	r = jobs->ops->read(jobs->host, ino, MAX_TEXT, &data, &len);
	if (r == -ESTALE || r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	r = io_write(fd, data, len);
	free(data);
	*has = 1;
	*ret_len = len;
	return r;
}

/* The tree and the descriptors; own[2]: of them what is to be closed. */
static int prepare(struct import *imp, struct wire_message *m, int *own)
{
	struct jobs *jobs = imp->jobs;
	struct importer *in = &jobs->importer;
	uint64_t len;
	int r;

	if (!jobs->ops->tree_new)
		return -ENOSYS;
	r = jobs->ops->tree_new(jobs->host, imp->ino, &imp->tree);
	if (r < 0)
		return r;
	r = import_format(imp->file) == IMPORT_ONNX && !imp->beside_ino
		    ? jobs->ops->tree_share(jobs->host, imp->tree, imp->ino, &m->fds[0], &in->weights_len)
		    : -ENODATA;
	if (r == -ENODATA) {
		r = jobs->ops->open(jobs->host, imp->ino, &own[0], &len);
		m->fds[0] = own[0];
		if (r == 0)
			r = jobs->ops->tree_apart(jobs->host, imp->tree, &in->weights_fd);
		if (r == 0)
			m->fds[m->n_fds++] = in->weights_fd;
	}
	if (r == 0 && imp->beside_ino) {
		r = jobs->ops->open(jobs->host, imp->beside_ino, &own[1], &len);
		m->fds[m->n_fds++] = own[1];
	}
	if (r == 0)
		m->fds[2] = jobs->ops->tree_fd(jobs->host, imp->tree);
	return r;
}

static int launch(struct import *imp)
{
	struct jobs *jobs = imp->jobs;
	struct wire_message m = {
		.type = WIRE_IMPORT, .n_fds = 3, .fds = {-1, -1}, .import = {.file = imp->file}};
	struct importer *in = &jobs->importer;
	int64_t limit = jobs->options->patience_ns ? jobs->options->patience_ns : LIMIT_NS;
	char beside[NAME_MAX + 8] = "";
	int own[2] = {-1, -1}, r;

	*in = (struct importer){.import = imp, .weights_fd = -1};
	if (imp->beside_ino)
		snprintf(beside, sizeof(beside), "%s%s", imp->file, imp->beside_end);
	m.import.beside = beside;
	r = prepare(imp, &m, own);
	if (r == 0)
		r = io_memfd_new("texts", &m.fds[1]);
	if (r == 0)
		r = add_text(jobs, imp->json_ino, m.fds[1], &m.import.has_json, &m.import.json);
	if (r == 0)
		r = add_text(jobs, imp->labels_ino, m.fds[1], &m.import.has_labels, &m.import.labels);
	if (r == 0)
		r = io_memfd_seal(m.fds[1]);
	if (r == 0)
		r = peer_new(&in->peer, jobs->loop, jobs->ops, jobs->host, "import", &events, jobs);
	if (r == 0)
		r = peer_send(in->peer,
			      &(struct wire_message){.type = WIRE_SETUP,
						     .setup = {(uint32_t)jobs->options->worker_threads}});
	if (r == 0)
		r = peer_send(in->peer, &m);
	if (r == 0)
		in->limit = loop_timer_at(jobs->loop, loop_now(jobs->loop) + limit, over_limit, jobs);
	else
		import_stop(jobs);
	for (int i = 0; i < 2; i++)
		if (own[i] >= 0)
			close(own[i]);
	if (m.fds[1] >= 0)
		close(m.fds[1]);
	return r;
}

static void start(struct import *imp)
{
	struct jobs *jobs = imp->jobs;
	struct err err = ERR_INIT;
	int r;

	imp->used = imp->seen;
	if (imp->size > MAX_MODEL || imp->beside_size > MAX_MODEL - imp->size) {
		err_set(&err, ERR_IMPORT_SIZE, "it has %llu bytes",
			(unsigned long long)(imp->size + imp->beside_size));
		fail(imp, &err);
		return;
	}
	r = launch(imp);
	if (r == 0) {
		imp->state = IMPORT_RUNNING;
		imp->started = loop_now(jobs->loop);
		jobs->ops->mark(jobs->host, imp->ino, "importing");
		tell(imp, "importing");
	} else if (r == -ESTALE || r == -ENOENT) {
		import_forget(imp); /* the news of its removal is on the way */
	} else {
		if (r == -EFBIG)
			err_set(&err, ERR_IMPORT_SIZE, "model.json or labels.txt");
		else
			err_set(&err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "starting the import: %s",
				strerror(-r));
		fail(imp, &err);
	}
}

void import_next(struct jobs *jobs)
{
	while (!jobs->stopped && !jobs->importer.peer) {
		struct import *first = NULL;

		for (struct import *imp = jobs->imports; imp; imp = imp->next)
			if (imp->state == IMPORT_QUEUED && import_is_settled(imp) &&
			    (!first || imp->order < first->order))
				first = imp;
		if (!first)
			return;
		start(first);
	}
}
