/*
 * One mini-batch on one sub-model: decoded once for each input size, then each of its parts, whose probabilities are averaged by the
 * weights of their members.
 */
#include "sched/worker/infer_private.h"

#include "engine/image.h"

#include <math.h>
#include <string.h>

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

/* Which members' pixels a sub-model wants, a bit each. */
static unsigned inputs_of(const struct infer_endpoint *e, const struct infer_submodel *s)
{
	unsigned ret = 0;

	for (int i = 0; i < s->n_parts; i++)
		ret |= 1u << e->members[s->parts[i].member].like;
	return ret;
}

/* Of instance i, as each of these wants it. */
static void decode(struct infer_endpoint *e, unsigned inputs, const struct map *data, int i)
{
	int r = 0;

	e->answers[i] = (struct wire_answer){.id = e->answers[i].id};
	e->errs[i] = ERR_INIT;
	for (int m = 0; r == 0 && m < e->n_members; m++) {
		const struct infer_member *member = &e->members[m];

		if (inputs & 1u << m)
			r = image_load(member->pixels + (size_t)i * member->image_size, member->height,
				       member->width, member->channels, data->data, data->len, &e->errs[i]);
	}
	if (r < 0) {
		worker_err(&e->errs[i], r, "decoding");
		fail(&e->answers[i], &e->errs[i]);
	}
}

/* The n ones that did not fail stand first then. */
static int move_together(struct infer_endpoint *e, unsigned inputs, int n)
{
	int good = 0;

	for (int i = 0; i < n; i++) {
		if (e->answers[i].failed)
			continue;
		for (int m = 0; good < i && m < e->n_members; m++) {
			const struct infer_member *member = &e->members[m];

			if (inputs & 1u << m)
				memmove(member->pixels + (size_t)good * member->image_size,
					member->pixels + (size_t)i * member->image_size, member->image_size);
		}
		good++;
	}
	return good;
}

/* Adds a member's probabilities of n instances, times `share`, to e->means. */
static void add_shares(struct infer_endpoint *e, const struct infer_member *m, float share, int n)
{
	for (int i = 0; i < n; i++) {
		const float *p = e->logits + (size_t)i * (size_t)e->classes;
		float *mean = e->means + (size_t)i * (size_t)e->classes;

		for (int c = 0; c < e->classes; c++)
			mean[m->labels ? m->labels[c] : c] += share * p[c];
	}
}

/* Rounded up a mean of probabilities can be more than one. NaN stays. */
static void at_most_one(float *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] > 1)
			p[i] = 1;
}

/* Probabilities of n instances, by the endpoint's classes: Σ w_m·p_m / Σ w_m. */
static int forward(struct infer_endpoint *e, const struct infer_submodel *s, int n, const float **ret)
{
	double weights = 0;
	int r = 0;

	*ret = e->n_members > 1 ? e->means : e->logits;
	if (e->n_members > 1)
		memset(e->means, 0, (size_t)n * (size_t)e->classes * sizeof(*e->means));
	for (int i = 0; i < s->n_parts; i++)
		weights += e->members[s->parts[i].member].weight;
	for (int i = 0; r == 0 && i < s->n_parts; i++) {
		const struct infer_member *m = &e->members[s->parts[i].member];

		r = session_forward(infer_part(e, s->parts[i])->session, e->members[m->like].pixels, n,
				    e->logits);
		if (r < 0)
			break;
		softmax_rows(e->logits, n, e->classes);
		if (e->n_members > 1)
			add_shares(e, m, (float)(m->weight / weights), n);
	}
	if (e->n_members > 1)
		at_most_one(e->means, (size_t)n * (size_t)e->classes);
	return r;
}

void infer_run(struct infer_endpoint *e, int submodel, const struct map *data, int n)
{
	const struct infer_submodel *s = &e->submodels[submodel];
	const unsigned inputs = inputs_of(e, s);
	const float *scores = NULL;
	int good, r;

#pragma omp parallel for schedule(dynamic)
	for (int i = 0; i < n; i++)
		decode(e, inputs, &data[i], i);
	good = move_together(e, inputs, n);
	if (!good)
		return;
	r = infer_submodel_sessions(e, submodel, NULL);
	if (r == 0)
		r = forward(e, s, good, &scores);
	for (int i = 0, at = 0; i < n; i++) {
		struct wire_answer *a = &e->answers[i];

		if (a->failed)
			continue;
		if (r == 0)
			answer_top(a, e->tops + (size_t)i * MAX_TOP, scores + (size_t)at * (size_t)e->classes,
				   e->classes);
		else
			worker_err(&e->errs[i], r, "the network");
		at++;
		if (r == 0 && !isfinite(a->score))
			err_set(&e->errs[i], ERR_BAD_MODEL, "its outputs are not numbers");
		if (e->errs[i].code)
			fail(a, &e->errs[i]);
	}
}
