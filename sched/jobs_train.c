/*
 * The training worker of jobs. Its last word is one of MODEL, STOPPED, FAILED; from then on trainer.job is
 * NULL and the next job starts when the process is gone. One that goes without a last word is a death: the
 * job is queued again and goes on from its checkpoint, until it died MAX_DEATHS times since the same
 * checkpoint. One that hangs is killed by the watchdog: a death too.
 */
#include "sched/jobs_private.h"

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_DEATHS     3
#define AGAIN_NS       NS_PER_S        /* before the second restart; the first comes at once */
#define PATIENCE_NS    (30 * NS_PER_S) /* from STOP to the end of the step at hand */
#define MAX_CHECKPOINT (UINT64_C(4) << 30)
/* A worker is silent for one step, which takes what it takes; for the start, when a data set is mapped and a
 * network compiled; and for writing a checkpoint. In evaluations it repeats its progress each second. */
#define SILENCE_NS     (600 * NS_PER_S)
#define SILENCE_STEPS  100
#define MAX_NOTES      8                           /* of one worker, in the log */
#define SILENCE_MAX_NS (INT64_C(86400) * NS_PER_S) /* whatever it made of the figures */

static bool number(double x)
{
	return isfinite(x) && x >= 0;
}

static void silent(void *data)
{
	struct jobs *jobs = data;

	jobs->trainer.watchdog = NULL;
	peer_kill(jobs->trainer.peer, "said nothing for too long");
}

static void watch(struct jobs *jobs)
{
	struct trainer *t = &jobs->trainer;
	int64_t limit = jobs->options->patience_ns;

	if (!limit) {
		limit = t->step_ns < SILENCE_MAX_NS / SILENCE_STEPS ? SILENCE_STEPS * t->step_ns
								    : SILENCE_MAX_NS;
		limit = limit < SILENCE_NS ? SILENCE_NS : limit;
	}
	loop_timer_cancel(jobs->loop, t->watchdog);
	t->watchdog = loop_timer_at(jobs->loop, loop_now(jobs->loop) + limit, silent, jobs);
}

/* The worker has nothing to say any more. */
static void last_word(struct jobs *jobs)
{
	loop_timer_cancel(jobs->loop, jobs->trainer.watchdog);
	jobs->trainer.watchdog = NULL;
	loop_timer_cancel(jobs->loop, jobs->trainer.patience);
	jobs->trainer.patience = NULL;
	jobs->trainer.job = NULL;
	if (jobs->trainer.peer)
		peer_kill(jobs->trainer.peer, "finished");
}

void train_kill(struct jobs *jobs)
{
	loop_timer_cancel(jobs->loop, jobs->trainer.patience);
	loop_timer_cancel(jobs->loop, jobs->trainer.again);
	loop_timer_cancel(jobs->loop, jobs->trainer.watchdog);
	peer_free(jobs->trainer.peer, &jobs->reaper);
	jobs->trainer = (struct trainer){0};
}

/* --- what the worker says --- */

static int on_progress(struct job *job, const struct wire_progress *m)
{
	struct trainer *t = &job->jobs->trainer;
	int64_t now = loop_now(job->jobs->loop);

	if (m->epoch > INT32_MAX || m->epochs > INT32_MAX || m->batch > INT64_MAX || m->batches > INT64_MAX ||
	    !number(m->samples_per_s) || !number(m->eta_s) || !(m->percent >= 0 && m->percent <= 100))
		return -EPROTO;
	if (t->heard_at && (int)m->epoch == job->progress.epoch && (int64_t)m->batch > job->progress.batch)
		t->step_ns = (now - t->heard_at) / ((int64_t)m->batch - job->progress.batch);
	t->heard_at = now;
	job->progress = (struct train_progress){.epoch = (int)m->epoch,
						.epochs = (int)m->epochs,
						.batch = (int64_t)m->batch,
						.batches = (int64_t)m->batches,
						.samples_per_s = m->samples_per_s,
						.eta_s = m->eta_s,
						.percent = m->percent};
	job_publish_progress(job);
	return 0;
}

static int on_epoch(struct job *job, const struct wire_epoch *m)
{
	struct epoch_row row = {.epoch = (int)m->epoch,
				.seconds = m->seconds,
				.lr = m->lr,
				.train_loss = m->train_loss,
				.train_accuracy = m->train_accuracy,
				.n_rates = (int)m->n_slices};
	char text[256];
	int len = 0;

	/* A loss may be infinite: it is only printed. */
	if (row.epoch <= job->jobs->trainer.epoch || m->n_slices > MODEL_MAX_RATES || !number(m->seconds) ||
	    !number(m->lr) || !(m->train_accuracy >= 0 && m->train_accuracy <= 1))
		return -EPROTO;
	for (int i = 0; i < row.n_rates; i++) {
		row.rates[i] = m->slices[i].rate;
		row.accuracy[i] = m->slices[i].accuracy;
		row.loss[i] = m->slices[i].loss;
		if (!(row.rates[i] > 0 && row.rates[i] <= 1) ||
		    !(row.accuracy[i] >= 0 && row.accuracy[i] <= 1))
			return -EPROTO;
		len += snprintf(text + len, sizeof(text) - (size_t)len, " %g:%.2f%%", row.rates[i],
				100 * row.accuracy[i]);
	}
	job->jobs->trainer.epoch = row.epoch;
	job_log(job, "epoch %d: %.1f s, loss %.4f, accuracy by slice%s", row.epoch, row.seconds,
		row.train_loss, len ? text : " unknown");
	return job_add_row(job, &row);
}

static int on_checkpoint(struct job *job, const struct wire_message *m)
{
	struct jobs *jobs = job->jobs;
	uint64_t len;
	char *name;
	int r;

	/* One for each epoch that ended: more would keep the disk busy. */
	if ((int64_t)m->checkpoint.epoch <= job->epoch ||
	    (int64_t)m->checkpoint.epoch > jobs->trainer.epoch ||
	    wire_check_memfd(m->fds[0], MAX_CHECKPOINT, &len) < 0)
		return -EPROTO;
	if (asprintf(&name, "checkpoint/%s", job->name) < 0)
		return -ENOMEM;
	r = jobs->ops->state_put(jobs->host, name, m->fds[0], len);
	free(name);
	if (r < 0) {
		/* The run itself is well: an older checkpoint only costs time if the worker dies. */
		job_log(job, "the checkpoint of epoch %u can't be kept: %s", m->checkpoint.epoch,
			strerror(-r));
		return 0;
	}
	job->epoch = (int)m->checkpoint.epoch;
	job->deaths = 0;
	job_save(job);
	return 0;
}

static int on_model(struct job *job, const struct wire_message *m)
{
	struct err err = ERR_INIT;
	int r = job_publish_model(job, m->fds, m->n_fds, &err);

	if (r == -EPROTO)
		return r;
	last_word(job->jobs);
	if (r < 0)
		job_set_state(job, JOB_FAILED, &err);
	return 0;
}

static int on_note(struct job *job, const char *text)
{
	char line[512];

	if (++job->jobs->trainer.notes > MAX_NOTES)
		return -EPROTO;
	snprintf(line, sizeof(line), "%s", text);
	utf8_clean(line);
	job_log(job, "%s", line);
	return 0;
}

/* What the run goes by: the spec's, the checkpoint's, and what came of those that the data and the network decide. */
static int on_knobs(struct job *job, const struct wire_message *m)
{
	struct trainer *t = &job->jobs->trainer;
	struct train_spec *spec;
	uint64_t size;
	size_t len;
	void *json;
	int r;

	if (t->knobs || wire_check_memfd(m->fds[0], MAX_SPEC, &size) < 0)
		return -EPROTO;
	t->knobs = true;
	r = io_read(m->fds[0], MAX_SPEC, &json, &len);
	if (r < 0)
		return r;
	if (train_spec_parse(&spec, json, len, NULL) == 0) {
		job_publish_knobs(job, spec);
		train_spec_free(spec);
	} else {
		r = -EPROTO;
	}
	free(json);
	return r;
}

/* A scan worker that was taken over may have made anything of the cache. */
static void drop_cache(struct job *job)
{
	int c, h, w;

	train_spec_input(job->parsed, &c, &h, &w);
	dataset_cache_bad(job->jobs, train_spec_dataset(job->parsed), c, h, w);
}

static int on_message(void *data, struct wire_message *m)
{
	struct jobs *jobs = data;
	struct job *job = jobs->trainer.job;
	struct err err = ERR_INIT;
	enum job_state state;

	if (!job)
		return -EPROTO;
	watch(jobs);
	switch (m->type) {
	case WIRE_PROGRESS:
		return on_progress(job, &m->progress);
	case WIRE_EPOCH:
		return on_epoch(job, &m->epoch);
	case WIRE_CHECKPOINT:
		return on_checkpoint(job, m);
	case WIRE_NOTE:
		return on_note(job, m->note.text);
	case WIRE_KNOBS:
		return on_knobs(job, m);
	case WIRE_MODEL:
		return on_model(job, m);
	case WIRE_STOPPED:
		if (job->wanted == JOB_RUNNING)
			return -EPROTO;
		state = job->wanted;
		last_word(jobs);
		job_set_state(job, state, NULL);
		return 0;
	case WIRE_FAILED:
		if (!wire_err(&err, m->failed.code, m->failed.detail) || err.code == ERR_NONE)
			return -EPROTO;
		last_word(jobs);
		if (err.code == ERR_BAD_CACHE)
			drop_cache(job);
		job_set_state(job, JOB_FAILED, &err);
		return 0;
	default:
		return -EPROTO;
	}
}

static void died(struct job *job, const char *reason)
{
	struct err err = ERR_INIT;

	if (job->wanted != JOB_RUNNING) { /* it was to end anyway */
		job_set_state(job, job->wanted, NULL);
		return;
	}
	job->deaths++;
	job_log(job, "the worker %s (%d since epoch %d)", reason, job->deaths, job->epoch);
	if (job->deaths >= MAX_DEATHS) {
		err_set(&err, ERR_WORKER_DIED, "%d times after epoch %d", job->deaths, job->epoch);
		if (!job->epoch)
			drop_cache(job);
		job_set_state(job, JOB_FAILED, &err);
		return;
	}
	if (job->deaths > 1)
		job->not_before = loop_now(job->jobs->loop) + AGAIN_NS;
	job_set_state(job, JOB_QUEUED, NULL);
}

static void on_gone(void *data, const char *reason)
{
	struct jobs *jobs = data;
	struct job *job = jobs->trainer.job;

	if (job)
		log_warn("training worker %d of job %s: %s", peer_pid(jobs->trainer.peer), job->name, reason);
	train_kill(jobs);
	if (job)
		died(job, reason);
	jobs_kick(jobs);
}

static const struct peer_events events = {.message = on_message, .gone = on_gone};

/* --- starting and stopping --- */

static void out_of_patience(void *data)
{
	struct jobs *jobs = data;

	jobs->trainer.patience = NULL;
	peer_kill(jobs->trainer.peer, "did not stop in time");
}

void train_tell_stop(struct job *job, enum job_state wanted)
{
	struct jobs *jobs = job->jobs;
	bool told = job->wanted != JOB_RUNNING;

	if (jobs->trainer.job != job) { /* its model is being published: that is not taken back */
		job_log(job, "it is done: too late to stop it");
		return;
	}
	job->wanted = wanted;
	if (told)
		return;
	peer_send(jobs->trainer.peer, &(struct wire_message){.type = WIRE_STOP});
	jobs->trainer.patience =
		loop_timer_at(jobs->loop, loop_now(jobs->loop) + PATIENCE_NS, out_of_patience, jobs);
}

static int open_checkpoint(struct job *job, int *ret_fd)
{
	char *name;
	int r;

	if (asprintf(&name, "checkpoint/%s", job->name) < 0)
		return -ENOMEM;
	r = job->jobs->ops->state_open(job->jobs->host, name, O_RDONLY, ret_fd);
	free(name);
	return r;
}

/* The inode of a file of the version that a job begins with. */
static int init_file(struct job *job, const char *file, uint64_t *ret_ino)
{
	struct jobs *jobs = job->jobs;
	struct host_entry e = {0};
	int version, r;
	const char *name = train_spec_init(job->parsed, &version);
	char *path, number[16] = "latest";

	if (version)
		snprintf(number, sizeof(number), "%d", version);
	if (asprintf(&path, "models/%s/%s/%s", name, number, file) < 0)
		return -ENOMEM;
	r = jobs->ops->lookup(jobs->host, path, &e);
	if (r == 0 && e.is_dir)
		r = -EINVAL;
	free(path);
	*ret_ino = e.ino;
	return r;
}

/* The files of the model that the job begins with. "latest" may come to mean another while they are opened: then
 * they are opened again. -ENOENT and the like: there are none. */
static int open_init(struct job *job, struct wire_message *m)
{
	struct jobs *jobs = job->jobs;
	static const char *const files[2] = {MODEL_JSON, MODEL_WEIGHTS};
	uint64_t ino[2], again[2], len;
	int r = 0;

	*m = (struct wire_message){.type = WIRE_INIT, .fds = {-1, -1}};
	do {
		for (int i = 0; i < 2 && r == 0; i++)
			r = init_file(job, files[i], &ino[i]);
		for (int i = 0; i < 2 && r == 0; i++)
			r = init_file(job, files[i], &again[i]);
	} while (r == 0 && memcmp(ino, again, sizeof(ino)) != 0);
	for (int i = 0; i < 2 && r == 0; i++) {
		r = jobs->ops->open(jobs->host, ino[i], &m->fds[i], &len);
		m->n_fds += r == 0;
	}
	return r;
}

static void close_all(struct wire_message *m)
{
	for (int i = 0; i < m->n_fds; i++)
		close(m->fds[i]);
	m->n_fds = 0;
}

/* Before anything else is done: whether what the job begins with is there. A run that has a checkpoint goes on without. */
static int prepare_init(struct job *job, struct wire_message *m)
{
	struct err err = ERR_INIT;
	int version, r;
	const char *name = train_spec_init(job->parsed, &version), *what = NULL;
	uint64_t ino;

	m->n_fds = 0;
	if (!name)
		return 0;
	r = open_init(job, m);
	m->init.from = name;
	if (r == 0)
		return 0;
	close_all(m);
	if (job->epoch > 0)
		return 0;
	if (r == -ENOENT && init_file(job, MODEL_ONNX, &ino) == 0)
		what = "it is an ONNX model, which can be served, not trained";
	err_set(&err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_NO_MODEL, "\"init\": models/%s/%s%.0d: %s", name,
		version ? "" : "latest", version, what ? what : strerror(-r));
	job_set_state(job, JOB_FAILED, &err);
	return r;
}

static void start(struct job *job, int cache_fd)
{
	struct jobs *jobs = job->jobs;
	struct wire_message m = {.type = WIRE_TRAIN, .n_fds = 2, .fds = {-1, cache_fd, -1}}, init;
	int r;

	if (prepare_init(job, &init) < 0)
		return;
	r = io_memfd("spec.json", job->spec, job->spec_len, &m.fds[0]);
	if (r == 0 && job->epoch > 0) {
		if (open_checkpoint(job, &m.fds[2]) == 0)
			m.n_fds = 3;
		else
			job->epoch = 0;
	}
	job_keep_rows(job, job->epoch);
	m.train.job = job->name;
	if (r == 0)
		r = peer_new(&jobs->trainer.peer, jobs->loop, jobs->ops, jobs->host, "train", &events, jobs);
	if (r == 0) {
		jobs->trainer.job = job;
		jobs->trainer.epoch = job->epoch;
		r = peer_send(jobs->trainer.peer,
			      &(struct wire_message){.type = WIRE_SETUP,
						     .setup = {(uint32_t)jobs->options->worker_threads}});
	}
	if (r == 0 && init.n_fds)
		r = peer_send(jobs->trainer.peer, &init);
	if (r == 0)
		r = peer_send(jobs->trainer.peer, &m);
	if (r == 0) {
		watch(jobs);
		job_set_state(job, JOB_RUNNING, NULL);
	} else {
		log_error("job %s: its worker can't be started: %s", job->name, strerror(-r));
		train_kill(jobs);
		died(job, "can't be started");
	}
	if (m.fds[0] >= 0)
		close(m.fds[0]);
	if (m.n_fds == 3)
		close(m.fds[2]);
	close_all(&init);
}

static void try_again(void *data)
{
	struct jobs *jobs = data;

	jobs->trainer.again = NULL;
	train_next(jobs);
}

/* The first in the queue after `order`. */
static struct job *queued_after(struct jobs *jobs, uint64_t order)
{
	struct job *first = NULL;

	for (struct job *job = jobs->jobs; job; job = job->next)
		if (job->state == JOB_QUEUED && job->order > order && (!first || job->order < first->order))
			first = job;
	return first;
}

static void wait_for(struct job *job, const char *what)
{
	if (strcmp(job->waits_for, what) == 0)
		return;
	snprintf(job->waits_for, sizeof(job->waits_for), "%s", what);
	job_publish_progress(job);
}

void train_next(struct jobs *jobs)
{
	uint64_t order = 0;
	struct job *job;

	while (!jobs->stopped && (job = queued_after(jobs, order))) {
		struct err err = ERR_INIT;
		char text[300];
		int c, h, w, fd, r;

		order = job->order;
		if (jobs->trainer.peer) {
			if (jobs->trainer.job)
				snprintf(text, sizeof(text), "waits for job %s", jobs->trainer.job->name);
			else
				snprintf(text, sizeof(text), "waits for the training worker");
			wait_for(job, text);
			continue;
		}
		if (job->not_before > loop_now(jobs->loop)) {
			if (!jobs->trainer.again)
				jobs->trainer.again =
					loop_timer_at(jobs->loop, job->not_before, try_again, jobs);
			continue;
		}
		train_spec_input(job->parsed, &c, &h, &w);
		r = dataset_cache(jobs, train_spec_dataset(job->parsed), c, h, w, &fd, text, sizeof(text),
				  &err);
		if (r == -EAGAIN) {
			wait_for(job, text);
		} else if (r < 0) {
			job_set_state(job, JOB_FAILED, &err);
		} else {
			start(job, fd);
			close(fd);
		}
	}
}
