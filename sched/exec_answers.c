/* What an inference worker says: each message must fit the request at the head of the queue and what was sent with it. */
#include "sched/exec_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LABELS      65536
#define MAX_LABEL_BYTES (16 << 20)
#define MAX_PICTURES    (UINT64_C(1) << 32)

/* --- answers --- */

static bool fraction(double x)
{
	return x >= 0 && x <= 1; /* false for NaN */
}

static int on_labels(struct exec_worker *w, const struct wire_labels *m)
{
	struct exec_endpoint *e;
	char **labels;

	if (!w->head || w->head->kind != REQUEST_LOAD || w->head->endpoint != m->endpoint)
		return -EPROTO;
	e = exec_find(w, m->endpoint);
	if (!e || e->generation != w->head->generation)
		return 0;
	if (m->n_names == 0 || m->n_names > (uint32_t)(MAX_LABELS - e->n_labels))
		return -EPROTO;
	labels = reallocarray(e->labels, (size_t)e->n_labels + m->n_names, sizeof(*labels));
	if (!labels)
		return -ENOMEM;
	e->labels = labels;
	for (uint32_t i = 0; i < m->n_names; i++) {
		e->label_bytes += strlen(m->names[i].text);
		if (e->label_bytes > MAX_LABEL_BYTES)
			return -EPROTO;
		labels[e->n_labels] = strdup(m->names[i].text);
		if (!labels[e->n_labels])
			return -ENOMEM;
		e->n_labels++;
	}
	return 0;
}

/* One of a sub-model at most, and of none that is idle. */
static int take_first(struct submodel *submodels, int n, const struct wire_cascade_first *f)
{
	struct cascade_first *first;

	if (f->submodel >= (uint32_t)n || f->n_points != CASCADE_POINTS || submodels[f->submodel].idle)
		return -EPROTO;
	first = &submodels[f->submodel].first;
	for (int i = 0; i < CASCADE_POINTS; i++) {
		const struct wire_cascade_point *p = &f->points[i];

		if (!fraction((double)p->threshold) || !fraction((double)p->sure) ||
		    (i && p->threshold < first->threshold[i - 1]))
			return -EPROTO;
		first->threshold[i] = p->threshold;
		first->sure[i] = p->sure;
	}
	return 0;
}

static int take_pair(struct submodel *submodels, int n, const struct wire_cascade_pair *p)
{
	if (p->first >= (uint32_t)n || p->then >= (uint32_t)n || p->first == p->then ||
	    p->n_points != CASCADE_POINTS || submodels[p->then].idle)
		return -EPROTO;
	for (int i = 0; i < CASCADE_POINTS; i++) {
		if (!fraction((double)p->points[i].accuracy))
			return -EPROTO;
		submodels[p->first].then[p->then][i] = p->points[i].accuracy;
	}
	return 0;
}

/* Each first and each pair once; a pair's first is one of the firsts. */
static int take_cascades(struct submodel *submodels, int n, const struct wire_loaded *m)
{
	uint32_t firsts = 0, pairs[MAX_SUBMODELS] = {0};

	_Static_assert(MAX_SUBMODELS <= 32, "a bit each");
	for (uint32_t i = 0; i < m->n_firsts; i++) {
		if (take_first(submodels, n, &m->firsts[i]) < 0 || (firsts & 1u << m->firsts[i].submodel))
			return -EPROTO;
		firsts |= 1u << m->firsts[i].submodel;
	}
	for (uint32_t i = 0; i < m->n_pairs; i++) {
		const struct wire_cascade_pair *p = &m->pairs[i];

		if (take_pair(submodels, n, p) < 0 || !(firsts & 1u << p->first) ||
		    (pairs[p->first] & 1u << p->then))
			return -EPROTO;
		pairs[p->first] |= 1u << p->then;
	}
	return 0;
}

/* What an ensemble's is made of, one part each of some of its members; nothing of the sub-model of an only one. */
static int take_parts(struct submodel *ret, const struct wire_submodel *s, int n_members)
{
	int last = -1;

	if (n_members == 1 ? s->n_parts != 0 : s->n_parts < 1 || s->n_parts > (uint32_t)n_members)
		return -EPROTO;
	for (uint32_t i = 0; i < s->n_parts; i++) {
		const struct wire_part *p = &s->parts[i];
		struct submodel_part *part = &ret->parts[ret->n_parts++];

		if (p->member >= (uint32_t)n_members || (int)p->member <= last ||
		    !(p->slice > 0 && p->slice <= 1) || strlen(p->precision) >= sizeof(part->precision))
			return -EPROTO;
		last = part->member = (int)p->member;
		part->slice = p->slice;
		strcpy(part->precision, p->precision);
	}
	return 0;
}

static int take_submodel(struct submodel *ret, const struct wire_submodel *s, int n_members)
{
	if (!(s->slice > 0 && s->slice <= 1) || !fraction(s->accuracy) ||
	    strlen(s->precision) >= sizeof(ret->precision) || s->time_ns == 0 ||
	    s->time_ns > INT64_MAX / 1000 || s->time_one_ns == 0 || s->time_one_ns > INT64_MAX / 1000)
		return -EPROTO;
	*ret = (struct submodel){.slice = s->slice,
				 .accuracy = s->accuracy,
				 .time_ns = (int64_t)s->time_ns,
				 .time_one_ns = (int64_t)s->time_one_ns,
				 .idle = s->idle};
	strcpy(ret->precision, s->precision);
	return take_parts(ret, s, n_members);
}

static int on_loaded(struct exec_worker *w, const struct wire_loaded *m)
{
	struct submodel submodels[MAX_SUBMODELS];
	struct err err = ERR_INIT;
	struct exec_endpoint *e;
	struct exec_request *q;
	int n = (int)m->n_submodels, used = 0;

	if (!w->head || w->head->kind != REQUEST_LOAD || w->head->endpoint != m->endpoint ||
	    m->n_submodels > MAX_SUBMODELS || !wire_err(&err, m->code, m->detail) ||
	    (m->code == ERR_NONE) != (n > 0))
		return -EPROTO;
	for (int i = 0; i < n; i++) {
		if (take_submodel(&submodels[i], &m->submodels[i], w->head->n) < 0)
			return -EPROTO;
		used += !submodels[i].idle;
	}
	if ((n && !used) || take_cascades(submodels, n, m) < 0)
		return -EPROTO;
	e = exec_find(w, m->endpoint);
	if (e && e->generation != w->head->generation)
		e = NULL; /* unloaded, and perhaps loaded anew, since it was asked */
	if (e && n && e->n_labels == 0)
		return -EPROTO;
	q = exec_pop(w);
	exec_request_free(q);
	w->delay_ns = 0;
	if (!e)
		return 0;
	e->deaths = 0;
	if (n == 0) {
		e->given_up = true;
		w->events->loaded(w->data, e->number, -err_errno(err.code), &err, NULL, 0, NULL, 0);
		return 0;
	}
	e->ready = true;
	e->n_submodels = n;
	for (int i = 0; i < n; i++)
		e->time_ns[i] = submodels[i].time_ns;
	{
		/* The caller may unload this endpoint in the call, but not pull the labels from under it. */
		char **labels = e->labels;
		int n_labels = e->n_labels;
		struct exec_endpoint keep = {.labels = labels, .n_labels = n_labels};

		e->labels = NULL;
		e->n_labels = 0;
		w->events->loaded(w->data, e->number, 0, &err, submodels, n, (const char *const *)labels,
				  n_labels);
		exec_forget_labels(&keep);
	}
	return 0;
}

static int take_answer(struct instance_answer *ret, const struct wire_answer *a)
{
	*ret = (struct instance_answer){.id = a->id, .failed = a->failed};
	if (a->failed)
		return a->code != ERR_NONE && wire_err(&ret->err, a->code, a->detail) ? 0 : -EPROTO;
	if (a->n_top < 1 || a->n_top > MAX_TOP || a->label > INT32_MAX || !fraction(a->score))
		return -EPROTO;
	ret->label = (int)a->label;
	ret->score = a->score;
	ret->n_top = (int)a->n_top;
	for (uint32_t i = 0; i < a->n_top; i++) {
		if (a->top[i].label > INT32_MAX || !fraction(a->top[i].score))
			return -EPROTO;
		ret->top[i] = (int)a->top[i].label;
		ret->top_score[i] = a->top[i].score;
	}
	return 0;
}

static int on_answers(struct exec_worker *w, const struct wire_answers *m)
{
	struct exec_request *q = w->head;

	if (!q || q->kind != REQUEST_RUN || q->batch != m->batch ||
	    m->n_answers > (uint32_t)(q->n - q->answered))
		return -EPROTO;
	for (uint32_t i = 0; i < m->n_answers; i++) {
		int r = take_answer(&q->answers[q->answered], &m->answers[i]);

		if (r < 0 || m->answers[i].id != q->ids[q->answered])
			return -EPROTO;
		q->answered++;
	}
	return 0;
}

static int on_done(struct exec_worker *w, const struct wire_done *m)
{
	struct exec_request *q = w->head;

	if (!q || q->kind != REQUEST_RUN || q->batch != m->batch || q->answered != q->n ||
	    m->compute_ns > INT64_MAX)
		return -EPROTO;
	exec_pop(w);
	w->delay_ns = 0;
	w->events->done(w->data, &(struct batch_done){.batch = q->batch,
						      .core = (int)m->core,
						      .compute_ns = (int64_t)m->compute_ns,
						      .n = q->n,
						      .answers = q->answers,
						      .picture_fd = -1});
	exec_request_free(q);
	return 0;
}

static int on_pictures(struct exec_worker *w, const struct wire_message *m)
{
	struct exec_request *q = w->head;
	uint64_t size, sum = 0;
	uint64_t *len;

	if (!q || q->kind != REQUEST_EXPLAIN || q->batch != m->pictures.batch ||
	    m->pictures.n_pictures != (uint32_t)q->n || m->pictures.compute_ns > INT64_MAX ||
	    wire_check_memfd(m->fds[0], MAX_PICTURES, &size) < 0)
		return -EPROTO;
	len = calloc((size_t)q->n + 1, sizeof(*len));
	if (!len)
		return -ENOMEM;
	for (int i = 0; i < q->n; i++) {
		len[i] = m->pictures.pictures[i].len;
		if (len[i] > size - sum) {
			free(len);
			return -EPROTO;
		}
		sum += len[i];
	}
	exec_pop(w);
	w->delay_ns = 0;
	w->events->done(w->data, &(struct batch_done){.batch = q->batch,
						      .compute_ns = (int64_t)m->pictures.compute_ns,
						      .n = q->n,
						      .picture_fd = m->fds[0],
						      .picture_len = len});
	exec_request_free(q);
	free(len);
	return 0;
}

int exec_message(void *data, struct wire_message *m)
{
	struct exec_worker *w = data;

	switch (m->type) {
	case WIRE_LABELS:
		return on_labels(w, &m->labels);
	case WIRE_LOADED:
		return on_loaded(w, &m->loaded);
	case WIRE_ANSWERS:
		return on_answers(w, &m->answers);
	case WIRE_DONE:
		return on_done(w, &m->done);
	case WIRE_PICTURES:
		return on_pictures(w, m);
	default:
		return -EPROTO;
	}
}
