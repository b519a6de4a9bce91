/*
 * The inference worker: endpoints, each a model, or several that answer together, with a session for each slice in use at the batch
 * size S. Mini-batches are decoded by all threads, once for each input size, the readable instances moved together, and run at once;
 * one that can't be decoded fails alone. Messages are answered in the order in which they came.
 */
#include "sched/worker/infer_private.h"

#include "engine/backend.h"
#include "engine/base/clock.h"
#include "engine/base/io.h"
#include "engine/model.h"
#include "sched/executor.h"

#include <errno.h>
#include <sched.h>
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

static void member_release(struct infer_member *m)
{
	for (int i = 0; i < m->n_parts; i++)
		session_free(m->parts[i].session);
	model_free(m->model);
	map_close(&m->weights);
	free(m->notes);
	free(m->labels);
	free(m->pixels);
}

static void endpoint_free(struct infer_endpoint *e)
{
	if (!e)
		return;
	session_free(e->cam);
	for (int i = 0; i < e->n_members; i++)
		member_release(&e->members[i]);
	free(e->logits);
	free(e->means);
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

/* Damaged, too large or of a later format it is as if it weren't there: what it is for can be done without. Not mapped: it is checked
 * once, and who may write the file could change it then. */
static int read_notes(struct infer_member *m, int fd)
{
	size_t len;
	int r = io_read(fd, VALIDATION_MAX, &m->notes, &len);

	if (r == 0 && validation_open(&m->validation, m->notes, len, NULL) < 0)
		m->validation = (struct validation){0};
	return r == -ENOMEM ? r : 0;
}

/* Descriptors as LOAD has them. */
static int member_open(struct infer_member *m, const int *fds, int n_fds, bool has_validation,
		       struct err *err)
{
	struct map json = {0};
	const struct model_info *info;
	int r = map_open(&json, fds[0]);

	if (r == 0)
		r = map_open(&m->weights, fds[1]);
	if (r == 0 && json.len > MAX_JSON)
		r = err_set(err, ERR_BAD_MODEL, "model.json has %zu bytes", json.len);
	if (r == 0)
		r = model_open(&m->model, (const char *)json.data, json.len, m->weights.data, m->weights.len,
			       err);
	map_close(&json);
	if (r < 0)
		return r;
	info = model_info(m->model);
	m->channels = info->channels;
	m->height = info->height;
	m->width = info->width;
	m->image_size = (size_t)info->channels * (size_t)info->height * (size_t)info->width;
	if (n_fds - has_validation == 3)
		r = set_labels(m->model, fds[2], err);
	if (r == 0 && has_validation)
		r = read_notes(m, fds[n_fds - 1]);
	return r;
}

static bool same_input(const struct infer_member *a, const struct infer_member *b)
{
	return a->channels == b->channels && a->height == b->height && a->width == b->width;
}

static int add_member(struct infer_endpoint *e, const struct wire_message *message, const char *name,
		      double weight, bool has_validation, struct err *err)
{
	struct infer_member *m = &e->members[e->n_members];
	struct err own = ERR_INIT;
	int r;

	if (message->n_fds - has_validation < 2 || message->n_fds - has_validation > 3)
		return -EPROTO;
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->weight = weight;
	e->n_members++;
	r = member_open(m, message->fds, message->n_fds, has_validation, &own);
	/* one of several: which */
	if (r < 0 && own.code && e->n_members > 1)
		err_set(err, own.code, "%s: %s", m->name, own.detail);
	else if (r < 0)
		*err = own;
	while (!same_input(&e->members[m->like], m))
		m->like++;
	return r;
}

static int allocate(struct infer_endpoint *e)
{
	size_t outputs = (size_t)e->batch * (size_t)e->classes;
	bool all = true;

	for (int i = 0; i < e->n_members; i++)
		if (e->members[i].like == i)
			all &= (e->members[i].pixels = calloc((size_t)e->batch, e->members[i].image_size)) !=
			       NULL;
	if (e->n_members > 1)
		all &= (e->means = calloc(outputs, sizeof(*e->means))) != NULL;
	e->logits = calloc(outputs, sizeof(*e->logits));
	e->answers = calloc((size_t)e->batch, sizeof(*e->answers));
	e->tops = calloc((size_t)e->batch, MAX_TOP * sizeof(*e->tops));
	e->errs = calloc((size_t)e->batch, sizeof(*e->errs));
	return all && e->logits && e->answers && e->tops && e->errs ? 0 : -ENOMEM;
}

/* more: ENSEMBLE, n of them */
static int endpoint_new(struct infer_endpoint **ret, const struct wire_message *m,
			const struct wire_message *more, int n, int threads, struct err *err)
{
	struct infer_endpoint *e;
	int r;

	if (m->load.batch < 1 || m->load.batch > MAX_BATCH)
		return err_set(err, ERR_SPEC_VALUE, "batch: %u", m->load.batch);
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->number = m->load.endpoint;
	e->threads = threads;
	e->batch = (int)m->load.batch;
	e->gradcam = m->load.gradcam;
	r = add_member(e, m, m->load.name, m->load.weight, m->load.has_validation, err);
	for (int i = 0; r == 0 && i < n; i++)
		r = add_member(e, &more[i], more[i].ensemble.name, more[i].ensemble.weight,
			       more[i].ensemble.has_validation, err);
	if (r < 0)
		goto out;
	e->classes = model_info(e->members[0].model)->classes;
	r = infer_ensemble_labels(e, err);
	if (r == 0)
		r = infer_submodels_list(e, m->load.precisions, err);
	if (r == 0)
		r = allocate(e);
	if (r == 0) {
		*ret = e;
		e = NULL;
	}
out:
	endpoint_free(e);
	return r;
}

/* --- mini-batches --- */

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
	if (r < 0)
		return r;
	return worker_send(in->w, &(struct wire_message){.type = WIRE_DONE,
							 .done = {.batch = m->run.batch,
								  .compute_ns = (uint64_t)compute_ns,
								  .core = (uint32_t)(sched_getcpu() + 1)}});
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
		const char *label = model_label(e->members[0].model, i);

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

static int on_member(struct infer *in, struct wire_message *m)
{
	const uint32_t before = in->n_coming ? in->coming[0].ensemble.endpoint : m->ensemble.endpoint;

	if (in->n_coming == ENSEMBLE_MEMBERS - 1 || before != m->ensemble.endpoint ||
	    !(m->ensemble.weight > 0))
		return -EPROTO;
	in->coming[in->n_coming++] = *m;
	*m = (struct wire_message){0};
	return 0;
}

static void drop_coming(struct infer *in)
{
	while (in->n_coming)
		wire_clear(&in->coming[--in->n_coming]);
}

/* What LOADED says of one; parts (n_parts) are filled for an ensemble's. The slice and precision of several: the widest, and theirs
 * if all have the same. */
static struct wire_submodel to_wire(struct infer_endpoint *e, const struct infer_submodel *s,
				    struct wire_part *parts)
{
	const struct infer_part *first = infer_part(e, s->parts[0]);
	struct wire_submodel ret = {.slice = first->rate,
				    .precision = precision_name(first->precision),
				    .accuracy = (double)s->accuracy,
				    .time_ns = (uint64_t)s->time_ns,
				    .time_one_ns = (uint64_t)s->time_one_ns,
				    .idle = s->idle};

	for (int i = 0; i < s->n_parts && e->n_members > 1; i++) {
		const struct infer_part *part = infer_part(e, s->parts[i]);

		parts[i] = (struct wire_part){.member = (uint32_t)s->parts[i].member,
					      .slice = part->rate,
					      .precision = precision_name(part->precision)};
		ret.slice = part->rate > ret.slice ? part->rate : ret.slice;
		ret.precision = part->precision == first->precision ? ret.precision : "mixed";
		ret.parts = parts;
		ret.n_parts = (uint32_t)s->n_parts;
	}
	return ret;
}

static int on_load(struct infer *in, const struct wire_message *m)
{
	struct wire_message answer = {.type = WIRE_LOADED, .loaded = {.endpoint = m->load.endpoint}};
	struct wire_part parts[MAX_SUBMODELS][ENSEMBLE_MEMBERS];
	struct wire_submodel submodels[MAX_SUBMODELS];
	struct infer_endpoint *e = NULL;
	struct err err = ERR_INIT;
	void *cascades = NULL;
	int r;

	if (in->n_coming && (in->coming[0].ensemble.endpoint != m->load.endpoint || !(m->load.weight > 0)))
		return -EPROTO;
	unload(in, m->load.endpoint);
	r = endpoint_new(&e, m, in->coming, in->n_coming, in->w->threads, &err);
	drop_coming(in);
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
		answer.loaded.detail = e->note;
		for (int i = 0; i < e->n_submodels; i++)
			submodels[i] = to_wire(e, &e->submodels[i], parts[i]);
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
	struct infer in = {.w = w, .crowd = CROWD_NONE};
	struct wire_message m;
	int r;

	while ((r = wire_recv(&w->channel, &m, 0)) == 0) {
		switch (m.type) {
		case WIRE_LOAD:
			r = on_load(&in, &m);
			break;
		case WIRE_ENSEMBLE:
			r = on_member(&in, &m);
			break;
		case WIRE_UNLOAD:
			unload(&in, m.unload.endpoint);
			break;
		case WIRE_RUN:
			crowd_begin(&in.crowd);
			r = on_run(&in, &m);
			if (w->threads == 1)
				crowd_end(&in.crowd);
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
	drop_coming(&in);
	while (in.endpoints)
		unload(&in, in.endpoints->number);
	return r;
}
