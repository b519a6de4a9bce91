/*
 * What a job shows in the tree. Everything that tells of a transition goes as HOST_RESULT, so that it
 * appears in order; progress, log and curves are status files whose newest text counts.
 */
#include "sched/jobs_private.h"

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/model.h"
#include "engine/validation.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_LOG   (64 * 1024) /* the oldest half goes when it is full */
#define MAX_CSV   (4 << 20)
#define MAX_MODEL (UINT64_C(4) << 30)
#define MAX_TEXT  (UINT64_C(16) << 20) /* model.json, labels.txt, slices.csv */

void jobs_publish_then(struct jobs *jobs, unsigned flags, const void *data, size_t len, const char *path,
		       void (*done)(void *data, int r, int64_t visible), void *done_data)
{
	int r = jobs->ops->publish(jobs->host, &(struct host_publication){.path = path,
									  .content = data,
									  .len = len,
									  .flags = flags,
									  .done = done,
									  .data = done_data});

	if (r < 0)
		log_error("%s can't be published: %s", path, strerror(-r));
	if (r < 0 && done)
		done(done_data, r, 0);
}

void jobs_publish(struct jobs *jobs, unsigned flags, const void *data, size_t len, const char *path, ...)
{
	va_list ap;
	char *text;
	int n;

	va_start(ap, path);
	n = vasprintf(&text, path, ap);
	va_end(ap);
	if (n < 0) {
		log_error("%s can't be published: no memory", path);
		return;
	}
	jobs_publish_then(jobs, flags, data, len, text, NULL, NULL);
	free(text);
}

void jobs_unpublish(struct jobs *jobs, const char *path, ...)
{
	va_list ap;
	char *text;
	int n;

	va_start(ap, path);
	n = vasprintf(&text, path, ap);
	va_end(ap);
	if (n < 0)
		return;
	jobs->ops->unpublish(jobs->host, text);
	free(text);
}

static void jobs_symlink(struct jobs *jobs, const char *target, const char *path, ...)
	__attribute__((format(printf, 3, 4)));

static void jobs_symlink(struct jobs *jobs, const char *target, const char *path, ...)
{
	va_list ap;
	char *text;
	int n, r;

	va_start(ap, path);
	n = vasprintf(&text, path, ap);
	va_end(ap);
	r = n < 0 ? -ENOMEM : jobs->ops->symlink(jobs->host, text, target, NULL, NULL);
	if (r < 0)
		log_error("the link %s can't be made: %s", n < 0 ? path : text, strerror(-r));
	if (n >= 0)
		free(text);
}

/* --- log, progress --- */

void job_log(struct job *job, const char *fmt, ...)
{
	time_t now = (time_t)(loop_wall(job->jobs->loop) / NS_PER_S);
	char line[1024], stamp[32];
	struct tm tm;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	gmtime_r(&now, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (job->log.len > MAX_LOG) {
		const char *half = strchr(job->log.data + MAX_LOG / 2, '\n');
		size_t cut = half ? (size_t)(half + 1 - job->log.data) : job->log.len;

		memmove(job->log.data, job->log.data + cut, job->log.len - cut + 1);
		job->log.len -= cut;
	}
	buf_addf(&job->log, "%s %s\n", stamp, line);
	job->log.failed = false; /* a line less, when memory is short */
	jobs_publish(job->jobs, 0, job->log.data, job->log.len, "jobs/%s/log", job->name);
}

static void add_duration(struct buf *b, double seconds)
{
	int64_t s = llround(seconds < 1e9 ? seconds : 1e9);

	if (s >= 3600)
		buf_addf(b, "%lldh%02lldm", (long long)(s / 3600), (long long)(s / 60 % 60));
	else if (s >= 60)
		buf_addf(b, "%lldm%02llds", (long long)(s / 60), (long long)(s % 60));
	else
		buf_addf(b, "%llds", (long long)s);
}

void job_progress_text(const struct job *job, struct buf *ret)
{
	const struct train_progress *p = &job->progress;

	buf_addf(ret, "%.1f%% epoch %d/%d batch %lld/%lld %.0f samples/s ETA ", p->percent, p->epoch,
		 p->epochs, (long long)p->batch, (long long)p->batches, p->samples_per_s);
	add_duration(ret, p->eta_s);
	if (job->state == JOB_QUEUED && *job->waits_for)
		buf_addf(ret, " (%s)", job->waits_for);
}

static void publish_progress(struct job *job, unsigned flags)
{
	struct buf b = BUF_INIT;

	job_progress_text(job, &b);
	buf_adds(&b, "\n");
	if (buf_status(&b) == 0)
		jobs_publish(job->jobs, flags, b.data, b.len, "jobs/%s/progress", job->name);
	buf_release(&b);
}

void job_publish_progress(struct job *job)
{
	publish_progress(job, 0);
}

/* --- metrics.csv --- */

int job_add_row(struct job *job, const struct epoch_row *row)
{
	struct epoch_row *rows;

	job_keep_rows(job, row->epoch - 1);
	rows = reallocarray(job->rows, (size_t)job->n_rows + 1, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	job->rows = rows;
	rows[job->n_rows++] = *row;
	job_publish_rows(job);
	return 0;
}

void job_keep_rows(struct job *job, int epoch)
{
	while (job->n_rows && job->rows[job->n_rows - 1].epoch > epoch)
		job->n_rows--;
}

static void rows_csv(const struct job *job, struct buf *b)
{
	const struct epoch_row *first = job->rows;

	buf_adds(b, "epoch,seconds,lr,train_loss,train_accuracy");
	for (int i = 0; i < first->n_rates; i++)
		buf_addf(b, ",val_accuracy_%g", first->rates[i]);
	for (int i = 0; i < first->n_rates; i++)
		buf_addf(b, ",val_loss_%g", first->rates[i]);
	buf_adds(b, "\n");
	for (const struct epoch_row *row = first; row < first + job->n_rows; row++) {
		buf_addf(b, "%d,%.2f,%.6g,%.5f,%.2f", row->epoch, row->seconds, row->lr, row->train_loss,
			 100 * row->train_accuracy);
		for (int i = 0; i < first->n_rates; i++)
			buf_addf(b, ",%.2f", 100 * row->accuracy[i]);
		for (int i = 0; i < first->n_rates; i++)
			buf_addf(b, ",%.5f", row->loss[i]);
		buf_adds(b, "\n");
	}
}

static void publish_rows(struct job *job, unsigned flags)
{
	struct buf b = BUF_INIT;

	if (!job->n_rows)
		return;
	rows_csv(job, &b);
	if (buf_status(&b) == 0) {
		jobs_publish(job->jobs, flags, b.data, b.len, "jobs/%s/trials/1/metrics.csv", job->name);
		jobs_publish(job->jobs, flags, b.data, b.len, "jobs/%s/metrics.csv", job->name);
	}
	buf_clear(&b);
	curves_svg(job->rows, job->n_rows, job->name, &b);
	if (buf_status(&b) == 0)
		jobs_publish(job->jobs, flags, b.data, b.len, "jobs/%s/curves.svg", job->name);
	buf_release(&b);
}

void job_publish_rows(struct job *job)
{
	publish_rows(job, 0);
}

static void *read_published(struct job *job, const char *file, size_t max, size_t *ret_len)
{
	struct host_entry e;
	void *data = NULL;
	char *path;

	if (asprintf(&path, "jobs/%s/%s", job->name, file) < 0)
		return NULL;
	if (job->jobs->ops->lookup(job->jobs->host, path, &e) < 0 ||
	    job->jobs->ops->read(job->jobs->host, e.ino, max, &data, ret_len) < 0)
		data = NULL;
	free(path);
	return data;
}

/* The numbers of one line; their count, or -1 when a field is no number. */
static int numbers(const char *line, double *ret, int max)
{
	int n = 0;

	for (const char *p = line; n < max; p++) {
		char *end;

		ret[n++] = strtod(p, &end);
		if (end == p || (*end != ',' && *end != '\0'))
			return -1;
		if (!*end)
			return n;
		p = end;
	}
	return -1;
}

/* What an earlier run of the daemon wrote; rows that do not fit the header end it. */
static void parse_rows(struct job *job, char *text)
{
	double rates[MODEL_MAX_RATES], x[5 + 2 * MODEL_MAX_RATES];
	char *line, *save = NULL;
	int n_rates = 0;

	line = strtok_r(text, "\n", &save);
	for (char *p = line ? strstr(line, ",val_accuracy_") : NULL; p && n_rates < MODEL_MAX_RATES;
	     p = strstr(p + 1, ",val_accuracy_"))
		rates[n_rates++] = strtod(p + strlen(",val_accuracy_"), NULL);
	while ((line = strtok_r(NULL, "\n", &save)) &&
	       numbers(line, x, 5 + 2 * MODEL_MAX_RATES) == 5 + 2 * n_rates) {
		struct epoch_row row = {.epoch = (int)x[0],
					.seconds = x[1],
					.lr = x[2],
					.train_loss = x[3],
					.train_accuracy = x[4] / 100,
					.n_rates = n_rates};
		struct epoch_row *rows = reallocarray(job->rows, (size_t)job->n_rows + 1, sizeof(*rows));

		if (!rows)
			return;
		job->rows = rows;
		for (int i = 0; i < n_rates; i++) {
			row.rates[i] = rates[i];
			row.accuracy[i] = x[5 + i] / 100;
			row.loss[i] = x[5 + n_rates + i];
		}
		rows[job->n_rows++] = row;
	}
}

void job_read_back(struct job *job)
{
	size_t len;
	char *text;

	text = read_published(job, "log", 2 * MAX_LOG, &len);
	if (text) {
		buf_clear(&job->log);
		buf_add(&job->log, text, len);
	}
	free(text);
	text = read_published(job, "metrics.csv", MAX_CSV, &len);
	if (text && len) {
		char *copy = strndup(text, len);

		job->n_rows = 0;
		if (copy)
			parse_rows(job, copy);
		free(copy);
	}
	free(text);
	text = read_published(job, "progress", 4096, &len);
	if (text && len) {
		char *copy = strndup(text, len);
		struct train_progress p = {0};
		long long batch = 0, batches = 0;

		if (copy && sscanf(copy, "%lf%% epoch %d/%d batch %lld/%lld", &p.percent, &p.epoch, &p.epochs,
				   &batch, &batches) == 5) {
			p.batch = batch;
			p.batches = batches;
			job->progress = p;
		}
		free(copy);
	}
	free(text);
}

/* --- the model --- */

void publishing_forget(struct job *job)
{
	for (struct publishing *p = job->jobs->publishing; p; p = p->next)
		if (p->job == job)
			p->job = NULL;
}

static void publishing_free(struct publishing *pub)
{
	struct publishing **p = &pub->jobs->publishing;

	while (*p != pub)
		p = &(*p)->next;
	*p = pub->next;
	free(pub->model);
	free(pub);
}

void publishing_free_all(struct jobs *jobs)
{
	while (jobs->publishing)
		publishing_free(jobs->publishing);
}

/* The job's last state appears after the links, so `latest` is there. */
static void on_announced(void *data, int r, int64_t visible)
{
	struct publishing *pub = data;
	struct jobs *jobs = pub->jobs;

	(void)r;
	(void)visible;
	if (jobs->events && jobs->events->model_published)
		jobs->events->model_published(jobs->data, pub->model, pub->version);
	publishing_free(pub);
}

void job_publish_state(struct job *job)
{
	struct publishing *announce = job->announce;
	char text[16], *path;
	int len = snprintf(text, sizeof(text), "%s\n", job_state_names[job->state]);

	job->announce = NULL;
	if (job->state != JOB_QUEUED && job->state != JOB_RUNNING) {
		/* Who waits for this state finds the last row beside it, not the one of 0.2 s ago. */
		publish_rows(job, HOST_RESULT);
		if (job->progress.epochs)
			publish_progress(job, HOST_RESULT);
	}
	jobs_publish(job->jobs, HOST_RESULT, text, (size_t)len, "jobs/%s/trials/1/state", job->name);
	if (asprintf(&path, "jobs/%s/state", job->name) < 0) {
		log_error("job %s: no memory to publish its state", job->name);
		if (announce)
			on_announced(announce, -ENOMEM, 0);
		return;
	}
	jobs_publish_then(job->jobs, HOST_RESULT, text, (size_t)len, path, announce ? on_announced : NULL,
			  announce);
	free(path);
}

static void finish_job(struct job *job, struct publishing *pub)
{
	char target[600];

	job->progress.percent = 100; /* the worker's last word on it was some steps before */
	job->progress.epoch = job->progress.epochs;
	job->progress.batch = job->progress.batches;
	job->progress.eta_s = 0;
	job_publish_progress(job);
	snprintf(target, sizeof(target), "../../models/%s/%d", pub->model, pub->version);
	jobs_symlink(job->jobs, "trials/1", "jobs/%s/best", job->name);
	jobs_symlink(job->jobs, target, "jobs/%s/model", job->name);
	job_log(job, "models/%s/%d is published", pub->model, pub->version);
	job->announce = pub;
	job_set_state(job, JOB_DONE, NULL);
	job_forget_checkpoint(job);
}

static void on_published(void *data, int r, int64_t visible)
{
	struct publishing *pub = data;
	struct jobs *jobs = pub->jobs;
	struct err err = ERR_INIT;
	char text[16];

	(void)visible;
	if (r < 0)
		pub->r = r;
	if (--pub->left)
		return;
	if (pub->r < 0) {
		err_set(&err, ERR_IO, "models/%s/%d can't be published: %s", pub->model, pub->version,
			strerror(-pub->r));
		log_error("%s", err.detail);
		if (pub->job)
			job_set_state(pub->job, JOB_FAILED, &err);
		publishing_free(pub);
		return;
	}
	snprintf(text, sizeof(text), "%d", pub->version);
	jobs_symlink(jobs, text, "models/%s/latest", pub->model);
	if (pub->job)
		finish_job(pub->job, pub);
	else
		on_announced(pub, 0, 0);
}

struct versions {
	int max;
};

static int on_version(void *data, const struct host_entry *e)
{
	struct versions *v = data;
	char *end;
	long n;

	if (!isdigit((unsigned char)e->path[0]))
		return 0;
	n = strtol(e->path, &end, 10);
	if ((*end == '\0' || *end == '/') && n > v->max && n < INT32_MAX)
		v->max = (int)n;
	return 0;
}

int jobs_next_version(struct jobs *jobs, const char *model, int *ret)
{
	struct versions v = {0};
	char *path;
	int r;

	if (asprintf(&path, "models/%s", model) < 0)
		return -ENOMEM;
	r = jobs->ops->walk(jobs->host, path, on_version, &v);
	free(path);
	if (r < 0 && r != -ENOENT)
		return r;
	for (const struct publishing *p = jobs->publishing; p; p = p->next)
		if (strcmp(p->model, model) == 0 && p->version > v.max)
			v.max = p->version;
	for (const struct import *imp = jobs->imports; imp; imp = imp->next)
		if (imp->state == IMPORT_PUBLISHING && strcmp(imp->model, model) == 0 && imp->version > v.max)
			v.max = imp->version;
	*ret = v.max + 1;
	return 0;
}

int job_publish_model(struct job *job, const int *fds, int n, struct err *err)
{
	static const struct {
		const char *name;
		uint64_t max;
	} files[5] = {{MODEL_JSON, MAX_TEXT},
		      {MODEL_WEIGHTS, MAX_MODEL},
		      {MODEL_LABELS, MAX_TEXT},
		      {MODEL_SLICES, MAX_TEXT},
		      {MODEL_VALIDATION, VALIDATION_MAX}};
	const char *model = train_spec_model(job->parsed) ? train_spec_model(job->parsed) : job->name;
	struct jobs *jobs = job->jobs;
	void *data[5] = {NULL};
	size_t len[5];
	struct publishing *pub = NULL;
	int r = 0;

	for (int i = 0; i < n; i++) {
		uint64_t size;

		if (wire_check_memfd(fds[i], files[i].max, &size) < 0)
			return -EPROTO;
	}
	for (int i = 0; r == 0 && i < n; i++)
		r = io_read(fds[i], files[i].max, &data[i], &len[i]);
	/* A version that an earlier daemon began to publish is made whole under the same number. */
	if (r == 0 && !job->version)
		r = jobs_next_version(jobs, model, &job->version);
	if (r == 0)
		r = job_save(job);
	pub = r == 0 ? calloc(1, sizeof(*pub)) : NULL;
	if (r == 0 && pub) {
		*pub = (struct publishing){
			.jobs = jobs, .job = job, .model = strdup(model), .version = job->version, .left = n};
		pub->next = jobs->publishing;
		jobs->publishing = pub;
	}
	if (r == 0 && (!pub || !pub->model))
		r = -ENOMEM;
	if (r < 0 || !pub) {
		if (pub)
			publishing_free(pub);
		err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "publishing models/%s: %s", model,
			strerror(-r));
		goto out;
	}
	for (int i = 0; i < n; i++) {
		char path[800];

		snprintf(path, sizeof(path), "models/%s/%d/%s", pub->model, pub->version, files[i].name);
		jobs_publish_then(jobs, HOST_RESULT | HOST_FSYNC, data[i], len[i], path, on_published, pub);
	}
out:
	for (int i = 0; i < n; i++)
		free(data[i]);
	return r;
}
