/*
 * The training worker: one job, then it ends. Between two steps it looks at its socket: STOP ends the run
 * (what is done since the last epoch's checkpoint is lost and made again by the next worker), a closed
 * socket too.
 */
#include "sched/worker/worker.h"

#include "engine/base/clock.h"
#include "engine/base/io.h"
#include "engine/train.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_SPEC       (UINT64_C(1) << 20)
#define MAX_CHECKPOINT (UINT64_C(4) << 30)
#define MAX_MODEL_JSON (UINT64_C(16) << 20)
#define MAX_WEIGHTS    (UINT64_C(4) << 30)
#define PROGRESS_NS    INT64_C(200000000) /* five a second at most */
#define ALIVE_NS       INT64_C(1000000000)

struct train_job {
	struct worker *w;
	int epoch;                                 /* the last that ended, 0: none in this run */
	int64_t progress_at;                       /* when the last PROGRESS went */
	struct wire_progress progress;             /* the last of it */
	int r;                                     /* why a hook ended the run, when not by STOP */
	struct wire_slice slices[MODEL_MAX_RATES]; /* of the last epoch */
	uint32_t n_slices;
};

/* 1: the daemon wants the run to end. */
static int stop_wanted(struct train_job *job)
{
	struct wire_message m;
	int r = wire_recv(&job->w->channel, &m, MSG_DONTWAIT);

	if (r == -EAGAIN)
		return 0;
	if (r == 0) {
		r = m.type == WIRE_STOP ? 0 : -EPROTO;
		wire_clear(&m);
	}
	job->r = r;
	return 1;
}

static int send_or_stop(struct train_job *job, const struct wire_message *m)
{
	job->r = worker_send(job->w, m);
	return job->r < 0;
}

static int on_progress(void *data, const struct train_progress *p)
{
	struct train_job *job = data;
	int64_t now = clock_monotonic_ns();

	if (stop_wanted(job))
		return 1;
	if (now - job->progress_at < PROGRESS_NS)
		return 0;
	job->progress_at = now;
	job->progress = (struct wire_progress){.epoch = (uint32_t)p->epoch,
					       .epochs = (uint32_t)p->epochs,
					       .batch = (uint64_t)p->batch,
					       .batches = (uint64_t)p->batches,
					       .samples_per_s = p->samples_per_s,
					       .eta_s = p->eta_s,
					       .percent = p->percent};
	return send_or_stop(job, &(struct wire_message){.type = WIRE_PROGRESS, .progress = job->progress});
}

/* The same again, as a sign of life: a large validation split takes longer than the daemon's patience. */
static int on_evaluating(void *data)
{
	struct train_job *job = data;
	int64_t now = clock_monotonic_ns();

	if (stop_wanted(job))
		return 1;
	if (now - job->progress_at < ALIVE_NS)
		return 0;
	job->progress_at = now;
	if (!job->progress.epoch) /* no step is left to do */
		job->progress.percent = 100;
	return send_or_stop(job, &(struct wire_message){.type = WIRE_PROGRESS, .progress = job->progress});
}

static int on_epoch(void *data, const struct train_epoch *e)
{
	struct train_job *job = data;

	job->epoch = e->epoch;
	job->n_slices = (uint32_t)e->n_rates;
	for (int i = 0; i < e->n_rates; i++)
		job->slices[i] = (struct wire_slice){
			.rate = e->rates[i], .accuracy = e->val_accuracy[i], .loss = e->val_loss[i]};
	return send_or_stop(job, &(struct wire_message){.type = WIRE_EPOCH,
							.epoch = {.epoch = (uint32_t)e->epoch,
								  .seconds = e->seconds,
								  .lr = e->lr,
								  .train_loss = e->train_loss,
								  .train_accuracy = e->train_accuracy,
								  .slices = job->slices,
								  .n_slices = job->n_slices}});
}

static int on_checkpoint(void *data, const void *bytes, size_t len)
{
	struct train_job *job = data;
	struct wire_message m = {
		.type = WIRE_CHECKPOINT, .n_fds = 1, .checkpoint = {.epoch = (uint32_t)job->epoch}};
	int stop;

	job->r = io_memfd("checkpoint", bytes, len, &m.fds[0]);
	if (job->r < 0)
		return 1;
	stop = send_or_stop(job, &m);
	close(m.fds[0]);
	return stop;
}

static void on_note(void *data, const char *text)
{
	struct train_job *job = data;

	/* one that can't be sent: the next message says so */
	worker_send(job->w, &(struct wire_message){.type = WIRE_NOTE, .note = {.text = text}});
}

static void on_knobs(void *data, const char *json, size_t len)
{
	struct wire_message m = {.type = WIRE_KNOBS, .n_fds = 1};

	/* the daemon reads it as it reads a spec; without it, knobs.json stays as the spec was understood */
	if (len > MAX_SPEC || io_memfd("knobs.json", json, len, &m.fds[0]) < 0)
		return;
	worker_send(((struct train_job *)data)->w, &m);
	close(m.fds[0]);
}

/* The model that INIT brought, for the spec. */
static int give_init(struct train_spec *spec, const struct wire_message *init, struct err *err)
{
	void *json = NULL, *weights = NULL;
	size_t json_len, weights_len;
	int r;

	r = io_read(init->fds[0], MAX_MODEL_JSON, &json, &json_len);
	if (r == 0)
		r = io_read(init->fds[1], MAX_WEIGHTS, &weights, &weights_len);
	if (r == 0)
		r = train_spec_give_init(spec, json, json_len, weights, weights_len, err);
	free(json);
	free(weights);
	return r;
}

static int send_model(struct train_job *job, struct train *t, struct err *err)
{
	static const char *const names[] = {MODEL_JSON, MODEL_WEIGHTS, MODEL_LABELS, MODEL_SLICES,
					    MODEL_VALIDATION};
	struct buf bufs[5] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	struct wire_message m = {.type = WIRE_MODEL};
	const struct model_info *info = model_info(train_model(t));
	int r;

	r = model_save(train_model(t), &bufs[0], &bufs[1], &bufs[2], &bufs[3], err);
	if (r == 0)
		r = train_validation(t, &bufs[4]);
	for (int i = 0; r == 0 && i < 5 && (i < 4 || bufs[4].len); i++) {
		r = io_memfd(names[i], bufs[i].data, bufs[i].len, &m.fds[i]);
		if (r == 0)
			m.n_fds++;
	}
	m.model.slices = job->slices;
	m.model.n_slices = (uint32_t)info->n_rates;
	for (int i = 0; i < info->n_rates; i++)
		job->slices[i] = (struct wire_slice){.rate = info->rates[i], .accuracy = info->accuracy[i]};
	if (r == 0)
		r = worker_send(job->w, &m);
	for (int i = 0; i < m.n_fds; i++)
		close(m.fds[i]);
	for (int i = 0; i < 5; i++)
		buf_release(&bufs[i]);
	return r;
}

/* init: NULL when there was none. */
static int train(struct train_job *job, const struct wire_message *m, const struct wire_message *init,
		 struct err *err)
{
	static const struct train_hooks hooks = {.progress = on_progress,
						 .evaluating = on_evaluating,
						 .epoch = on_epoch,
						 .checkpoint = on_checkpoint,
						 .note = on_note,
						 .knobs = on_knobs};
	void *spec_text = NULL, *checkpoint = NULL;
	size_t spec_len, checkpoint_len = 0;
	struct train_spec *spec = NULL;
	struct dataset *ds = NULL;
	struct train *t = NULL;
	int r;

	r = io_read(m->fds[0], MAX_SPEC, &spec_text, &spec_len);
	if (r == 0)
		r = train_spec_parse(&spec, spec_text, spec_len, err);
	if (r == 0 && init)
		r = give_init(spec, init, err);
	if (r == 0)
		r = dataset_open(&ds, m->fds[1], err);
	if (r == 0 && m->n_fds == 3)
		r = io_read(m->fds[2], MAX_CHECKPOINT, &checkpoint, &checkpoint_len);
	if (r == 0)
		r = train_new(&t, spec, ds, checkpoint, checkpoint_len, &hooks, job, err);
	free(checkpoint);
	if (spec)
		train_spec_drop_init(spec);
	if (r == 0)
		r = train_run(t, err);
	if (r == 0)
		r = send_model(job, t, err);
	else if (r == -ECANCELED)
		r = job->r < 0
			    ? job->r
			    : worker_send(job->w, &(struct wire_message){.type = WIRE_STOPPED,
									 .stopped = {(uint32_t)job->epoch}});
	train_free(t);
	dataset_close(ds);
	train_spec_free(spec);
	free(spec_text);
	return r;
}

int train_worker(struct worker *w)
{
	struct train_job job = {.w = w};
	struct err err = ERR_INIT;
	struct wire_message m, init;
	bool has_init = false;
	int r;

	r = wire_recv(&w->channel, &m, 0);
	if (r == 0 && m.type == WIRE_INIT) {
		init = m;
		has_init = true;
		r = wire_recv(&w->channel, &m, 0);
	}
	if (r < 0)
		goto out;
	if (m.type == WIRE_TRAIN) {
		r = train(&job, &m, has_init ? &init : NULL, &err);
		if (r < 0 && r != -EPIPE)
			r = worker_send_failed(w, r, &err);
	} else {
		r = m.type == WIRE_STOP ? 0 : -EPROTO;
	}
	wire_clear(&m);
out:
	if (has_init)
		wire_clear(&init);
	return r;
}
