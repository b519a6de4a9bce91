/*
 * The inference worker: endpoints, each a model with a session for each sub-model at the batch size S.
 * Mini-batches are decoded by all threads, the readable instances moved together, and run at once; one that
 * can't be decoded fails alone. Messages are answered in the order in which they came.
 */
#include "sched/worker/infer_private.h"

#include "engine/backend.h"
#include "engine/base/clock.h"
#include "engine/base/io.h"
#include "engine/image.h"
#include "engine/model.h"
#include "sched/executor.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_JSON       (UINT64_C(16) << 20)
#define MAX_BATCH      65536
#define ANSWERS_A_TIME 64 /* with the longest error texts these fit in WIRE_MAX */
#define NAMES_BYTES    (32 * 1024)

int map_open(struct map *ret, int fd)
{
	struct stat st;
	void *data;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0) {
		*ret = (struct map){.data = (const uint8_t *)""};
		return 0;
	}
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	*ret = (struct map){.data = data, .len = (size_t)st.st_size};
	return 0;
}

void map_close(struct map *map)
{
	if (map->len)
		munmap((void *)map->data, map->len);
}

void map_rest(const struct map *map)
{
	if (map->len)
		madvise((void *)map->data, map->len, MADV_DONTNEED);
}

/* --- endpoints --- */

static void endpoint_free(struct infer_endpoint *e)
{
	if (!e)
		return;
	for (int i = 0; i < e->n_submodels; i++)
		session_free(e->submodels[i].session);
	session_free(e->cam);
	model_free(e->model);
	map_close(&e->weights);
	free(e->pixels);
	free(e->logits);
	free(e->answers);
	free(e->tops);
	free(e->errs);
	free(e);
}

struct infer_endpoint *infer_find(struct infer *in, uint32_t number)
{
	struct infer_endpoint *e = in->endpoints;

	while (e && e->number != number)
		e = e->next;
	return e;
}

static void unload(struct infer *in, uint32_t number)
{
	for (struct infer_endpoint **p = &in->endpoints; *p; p = &(*p)->next) {
		struct infer_endpoint *e = *p;

		if (e->number != number)
			continue;
		*p = e->next;
		endpoint_free(e);
		return;
	}
}

static int set_labels(struct model *model, int fd, struct err *err)
{
	void *data;
	size_t len;
	int r = io_read(fd, MAX_JSON, &data, &len);

	if (r == 0) {
		r = model_set_labels(model, data, len);
		free(data);
	}
	return r < 0 ? err_set(err, ERR_BAD_MODEL, "labels.txt: %s", strerror(-r)) : 0;
}

static int endpoint_new(struct infer_endpoint **ret, const struct wire_message *m, int threads,
			struct err *err)
{
	struct map json = {0};
	const struct model_info *info;
	struct infer_endpoint *e;
	int r;

	if (m->load.batch < 1 || m->load.batch > MAX_BATCH)
		return err_set(err, ERR_SPEC_VALUE, "batch: %u", m->load.batch);
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	r = map_open(&json, m->fds[0]);
	if (r == 0)
		r = map_open(&e->weights, m->fds[1]);
	if (r == 0 && json.len > MAX_JSON)
		r = err_set(err, ERR_BAD_MODEL, "model.json has %zu bytes", json.len);
	if (r == 0)
		r = model_open(&e->model, (const char *)json.data, json.len, e->weights.data, e->weights.len,
			       err);
	map_close(&json);
	if (r < 0)
		goto out;
	info = model_info(e->model);
	e->number = m->load.endpoint;
	e->threads = threads;
	e->batch = (int)m->load.batch;
	e->gradcam = m->load.gradcam;
	e->classes = info->classes;
	e->channels = info->channels;
	e->height = info->height;
	e->width = info->width;
	e->image_size = (size_t)info->channels * (size_t)info->height * (size_t)info->width;
	if (m->n_fds == 3)
		r = set_labels(e->model, m->fds[2], err);
	if (r == 0)
		r = infer_submodels_list(e, m->load.precisions, err);
	if (r < 0)
		goto out;
	r = -ENOMEM;
	e->pixels = calloc((size_t)e->batch, e->image_size);
	e->logits = calloc((size_t)e->batch, sizeof(float) * (size_t)e->classes);
	e->answers = calloc((size_t)e->batch, sizeof(*e->answers));
	e->tops = calloc((size_t)e->batch, MAX_TOP * sizeof(*e->tops));
	e->errs = calloc((size_t)e->batch, sizeof(*e->errs));
	if (e->pixels && e->logits && e->answers && e->tops && e->errs) {
		*ret = e;
		e = NULL;
		r = 0;
	}
out:
	endpoint_free(e);
	return r;
}

/* --- mini-batches --- */

static void fail(struct wire_answer *a, struct err *e)
{
	a->failed = 1;
	a->code = (uint16_t)e->code;
	a->detail = e->detail;
}

/* score: softmax of the logits (classes). */
static void answer_top(struct wire_answer *a, struct wire_top *top, const float *score, int classes)
{
	int n = 0;

	for (int c = 0; c < classes; c++) {
		int at = n < MAX_TOP ? n++ : MAX_TOP;

		while (at > 0 && score[c] > top[at - 1].score) {
			if (at < MAX_TOP)
				top[at] = top[at - 1];
			at--;
		}
		if (at < MAX_TOP)
			top[at] = (struct wire_top){.label = (uint32_t)c, .score = score[c]};
	}
	a->top = top;
	a->n_top = (uint32_t)n;
	a->label = top[0].label;
	a->score = top[0].score;
}

void infer_run(struct infer_endpoint *e, int submodel, const struct map *data, int n)
{
	int good = 0, r;

#pragma omp parallel for schedule(dynamic)
	for (int i = 0; i < n; i++) {
		int d;

		e->answers[i] = (struct wire_answer){.id = e->answers[i].id};
		e->errs[i] = ERR_INIT;
		d = image_load(e->pixels + (size_t)i * e->image_size, e->height, e->width, e->channels,
			       data[i].data, data[i].len, &e->errs[i]);
		if (d < 0) {
			worker_err(&e->errs[i], d, "decoding");
			fail(&e->answers[i], &e->errs[i]);
		}
	}
	for (int i = 0; i < n; i++) {
		if (e->answers[i].failed)
			continue;
		if (good < i)
			memmove(e->pixels + (size_t)good * e->image_size,
				e->pixels + (size_t)i * e->image_size, e->image_size);
		good++;
	}
	if (!good)
		return;
	r = infer_submodel_session(e, submodel, NULL);
	if (r == 0)
		r = session_forward(e->submodels[submodel].session, e->pixels, good, e->logits);
	if (r == 0)
		softmax_rows(e->logits, good, e->classes);
	for (int i = 0, at = 0; i < n; i++) {
		const float *score = e->logits + (size_t)at * (size_t)e->classes;
		struct wire_answer *a = &e->answers[i];

		if (a->failed)
			continue;
		at++;
		if (r == 0)
			answer_top(a, e->tops + (size_t)i * MAX_TOP, score, e->classes);
		else
			worker_err(&e->errs[i], r, "the network");
		if (r == 0 && !isfinite(a->score))
			err_set(&e->errs[i], ERR_BAD_MODEL, "its outputs are not numbers");
		if (e->errs[i].code)
			fail(a, &e->errs[i]);
	}
}

/* Where each instance lies in the pack; false when the lengths go beyond it. */
bool map_split(struct map *ret, const struct map *pack, const uint64_t *len, size_t stride, int n)
{
	size_t at = 0;

	for (int i = 0; i < n; i++) {
		uint64_t l = *(const uint64_t *)((const char *)len + (size_t)i * stride);

		if (l > pack->len - at)
			return false;
		ret[i] = (struct map){.data = pack->data + at, .len = l};
		at += l;
	}
	return true;
}

static int send_answers(struct infer *in, const struct wire_message *m, struct infer_endpoint *e,
			int64_t compute_ns)
{
	uint32_t n = m->run.n_inputs;
	int r = 0;

	for (uint32_t at = 0; r == 0 && at < n; at += ANSWERS_A_TIME) {
		struct wire_message part = {
			.type = WIRE_ANSWERS,
			.answers = {.batch = m->run.batch,
				    .answers = e->answers + at,
				    .n_answers = n - at < ANSWERS_A_TIME ? n - at : ANSWERS_A_TIME}};

		r = worker_send(in->w, &part);
	}
	if (r == 0)
		r = worker_send(in->w, &(struct wire_message){.type = WIRE_DONE,
							      .done = {.batch = m->run.batch,
								       .compute_ns = (uint64_t)compute_ns}});
	return r;
}

static int on_run(struct infer *in, const struct wire_message *m)
{
	struct infer_endpoint *e = infer_find(in, m->run.endpoint);
	int64_t start = clock_monotonic_ns();
	struct map pack = {0}, *data;
	int n = (int)m->run.n_inputs, r;

	if (!e || m->run.n_inputs > (uint32_t)e->batch || m->run.submodel >= (uint32_t)e->n_submodels)
		return -EPROTO;
	r = map_open(&pack, m->fds[0]);
	if (r < 0)
		return r;
	data = calloc((size_t)n + 1, sizeof(*data));
	if (!data)
		r = -ENOMEM;
	else if (!map_split(data, &pack, n ? &m->run.inputs->len : NULL, sizeof(*m->run.inputs), n))
		r = -EPROTO;
	if (r == 0) {
		for (int i = 0; i < n; i++)
			e->answers[i].id = m->run.inputs[i].id;
		infer_run(e, (int)m->run.submodel, data, n);
		r = send_answers(in, m, e, clock_monotonic_ns() - start);
	}
	free(data);
	map_close(&pack);
	return r;
}

static int send_labels(struct infer *in, const struct infer_endpoint *e)
{
	struct wire_name names[256];
	struct wire_message m = {.type = WIRE_LABELS, .labels = {.endpoint = e->number, .names = names}};
	size_t bytes = 0;
	int r = 0;

	for (int i = 0; r == 0 && i < e->classes; i++) {
		const char *label = model_label(e->model, i);

		names[m.labels.n_names++].text = label;
		bytes += strlen(label);
		if (m.labels.n_names == 256 || bytes > NAMES_BYTES || i + 1 == e->classes) {
			r = worker_send(in->w, &m);
			m.labels.n_names = 0;
			bytes = 0;
		}
	}
	return r;
}

static int on_load(struct infer *in, const struct wire_message *m)
{
	struct wire_message answer = {.type = WIRE_LOADED, .loaded = {.endpoint = m->load.endpoint}};
	struct wire_submodel submodels[MAX_SUBMODELS];
	struct infer_endpoint *e = NULL;
	struct err err = ERR_INIT;
	void *cascades = NULL;
	int r;

	unload(in, m->load.endpoint);
	r = endpoint_new(&e, m, in->w->threads, &err);
	if (r == 0)
		r = infer_submodels_measure(e, &err);
	if (r == 0)
		r = infer_cascades_list(e, &answer.loaded, &cascades);
	if (r == 0) {
		r = send_labels(in, e);
		if (r == -EMSGSIZE)
			r = err_set(&err, ERR_BAD_MODEL, "a label is too long");
	}
	if (r == -EPIPE) {
		endpoint_free(e);
		free(cascades);
		return r;
	}
	if (r == 0) {
		answer.loaded.submodels = submodels;
		answer.loaded.n_submodels = (uint32_t)e->n_submodels;
		for (int i = 0; i < e->n_submodels; i++)
			submodels[i] =
				(struct wire_submodel){.slice = e->submodels[i].rate,
						       .precision = precision_name(e->submodels[i].precision),
						       .accuracy = (double)e->submodels[i].accuracy,
						       .time_ns = (uint64_t)e->submodels[i].time_ns,
						       .time_one_ns = (uint64_t)e->submodels[i].time_one_ns,
						       .idle = e->submodels[i].idle};
		e->next = in->endpoints;
		in->endpoints = e;
	} else {
		endpoint_free(e);
		worker_err(&err, r, "loading the model");
		answer.loaded = (struct wire_loaded){
			.endpoint = m->load.endpoint, .code = (uint16_t)err.code, .detail = err.detail};
	}
	r = worker_send(in->w, &answer);
	free(cascades);
	return r;
}

int infer_worker(struct worker *w)
{
	struct infer in = {.w = w};
	struct wire_message m;
	int r;

	while ((r = wire_recv(&w->channel, &m, 0)) == 0) {
		switch (m.type) {
		case WIRE_LOAD:
			r = on_load(&in, &m);
			break;
		case WIRE_UNLOAD:
			unload(&in, m.unload.endpoint);
			break;
		case WIRE_RUN:
			r = on_run(&in, &m);
			break;
		case WIRE_EXPLAIN:
			r = infer_explain(&in, &m);
			break;
		default:
			r = -EPROTO;
		}
		wire_clear(&m);
		if (r < 0)
			break;
	}
	while (in.endpoints)
		unload(&in, in.endpoints->number);
	return r;
}
