/*
 * Elementwise, so bound by memory: threads take stretches. The norm of the gradient is summed by stretch and then
 * in the order of stretches, which keeps it the same for any number of threads.
 */
#include "engine/optim.h"

#include "engine/base/vectorised.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { STRETCH = 16384 }; /* elements, chosen as in engine/onednn/elementwise.c */

static float **arrays(const struct params *params)
{
	float **list = calloc((size_t)params->n + 1, sizeof(*list));

	for (int i = 0; list && i < params->n; i++) {
		list[i] = calloc(params->list[i].size, sizeof(float));
		if (!list[i]) {
			while (i--)
				free(list[i]);
			free(list);
			return NULL;
		}
	}
	return list;
}

static void arrays_free(float **list, int n)
{
	for (int i = 0; list && i < n; i++)
		free(list[i]);
	free(list);
}

int optim_init(struct optim *o, const struct params *params, const struct optim_options *options)
{
	*o = (struct optim){.options = *options, .n = params->n, .momentum = arrays(params)};
	if (options->kind == OPTIM_ADAMW)
		o->second = arrays(params);
	if (options->ema > 0)
		o->average = arrays(params);
	if (!o->momentum || (options->kind == OPTIM_ADAMW && !o->second) ||
	    (options->ema > 0 && !o->average)) {
		optim_release(o);
		return -ENOMEM;
	}
	for (int i = 0; o->average && i < params->n; i++)
		for (size_t j = 0; j < params->list[i].size; j++)
			o->average[i][j] = params->list[i].value[j];
	return 0;
}

void optim_release(struct optim *o)
{
	arrays_free(o->momentum, o->n);
	arrays_free(o->second, o->n);
	arrays_free(o->average, o->n);
	*o = (struct optim){0};
}

/* What an update is made of; the moments, the average and whether it decays are the parameter's. */
struct update {
	float lr, momentum, decay, scale; /* scale: of the gradient, from clipping */
	float c1, c2;                     /* AdamW: corrections of the moments */
	float keep;                       /* of the average */
};

VECTORISED static void sgd(float *restrict w, const float *restrict grad, float *restrict m, size_t n,
			   const struct update *u)
{
	float lr = u->lr, mu = u->momentum, decay = u->decay, scale = u->scale;

	for (size_t j = 0; j < n; j++) {
		float g = grad[j] * scale + decay * w[j];

		m[j] = mu * m[j] + g;
		w[j] -= lr * (g + mu * m[j]);
	}
}

VECTORISED static void adamw(float *restrict w, const float *restrict grad, float *restrict m,
			     float *restrict v, size_t n, const struct update *u)
{
	const float beta2 = 0.999f, eps = 1e-8f;
	float lr = u->lr, beta1 = u->momentum, decay = u->decay, scale = u->scale, c1 = u->c1, c2 = u->c2;

	for (size_t j = 0; j < n; j++) {
		float g = grad[j] * scale;

		m[j] = beta1 * m[j] + (1 - beta1) * g;
		v[j] = beta2 * v[j] + (1 - beta2) * g * g;
		w[j] -= lr * (m[j] / c1 / (sqrtf(v[j] / c2) + eps) + decay * w[j]);
	}
}

VECTORISED static void move_average(float *restrict average, const float *restrict w, size_t n, float keep)
{
	for (size_t j = 0; j < n; j++)
		average[j] = keep * average[j] + (1 - keep) * w[j];
}

static double square(const float *grad, size_t n)
{
	double sum = 0;

#pragma omp simd reduction(+ : sum)
	for (size_t j = 0; j < n; j++)
		sum += (double)grad[j] * grad[j];
	return sum;
}

static size_t length(const struct param *p, size_t from)
{
	return p->size - from < STRETCH ? p->size - from : STRETCH;
}

static double norm_of(const struct params *params)
{
	double norm = 0;

	for (int i = 0; i < params->n; i++) {
		const struct param *p = &params->list[i];

		if (!p->grad)
			continue;
#pragma omp parallel for ordered schedule(static, 1) if (p->size > STRETCH)
		for (size_t j = 0; j < p->size; j += STRETCH) {
			double part = square(p->grad + j, length(p, j));

#pragma omp ordered
			norm += part;
		}
	}
	return sqrt(norm);
}

static void update_param(struct optim *o, struct param *p, int i, struct update u)
{
	u.decay = p->decay ? u.decay : 0;
#pragma omp parallel for schedule(static) if (p->size > STRETCH)
	for (size_t j = 0; j < p->size; j += STRETCH) {
		float *w = p->value + j, *m = o->momentum[i] + j;
		size_t n = length(p, j);

		if (!p->statistic && o->second)
			adamw(w, p->grad + j, m, o->second[i] + j, n, &u);
		else if (!p->statistic)
			sgd(w, p->grad + j, m, n, &u);
		if (o->average)
			move_average(o->average[i] + j, w, n, u.keep);
	}
}

void optim_step(struct optim *o, struct params *params, double lr)
{
	const struct optim_options *options = &o->options;
	double norm = options->clip > 0 ? norm_of(params) : 0, step = (double)o->step;
	struct update u = {.lr = (float)lr,
			   .momentum = (float)options->momentum,
			   .decay = (float)options->weight_decay,
			   .scale = norm > options->clip ? (float)(options->clip / norm) : 1,
			   .c1 = 1 - powf((float)options->momentum, (float)(step + 1)),
			   .c2 = 1 - powf(0.999f, (float)(step + 1)),
			   /* the average starts short, so that early weights do not linger */
			   .keep = (float)fmin(options->ema, (1 + step) / (10 + step))};

	for (int i = 0; i < params->n; i++)
		update_param(o, &params->list[i], i, u);
	o->step++;
	params_changed(params);
}

void optim_swap_average(struct optim *o, struct params *params)
{
	if (!o->average)
		return;
	for (int i = 0; i < params->n; i++)
		for (size_t j = 0; j < params->list[i].size; j++) {
			float value = params->list[i].value[j];

			params->list[i].value[j] = o->average[i][j];
			o->average[i][j] = value;
		}
	params_changed(params);
}
