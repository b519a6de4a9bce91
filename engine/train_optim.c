/*
 * SGD with Nesterov momentum (Sutskever et al. 2013, in the form of PyTorch: v = μv + g; w -= lr(g + μv)) and
 * AdamW (Loshchilov & Hutter 2019, algorithm 2). Weight decay is for weights only, not biases and norms.
 */
#include "engine/train_private.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static float **arrays(const struct params *params)
{
	float **list = calloc(params->n + 1, sizeof(*list));

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

int train_optim_init(struct train *t)
{
	const struct params *params = &t->model->net->params;

	t->momentum = arrays(params);
	if (t->spec->optimizer == TRAIN_ADAMW)
		t->second = arrays(params);
	if (t->spec->ema > 0)
		t->average = arrays(params);
	if (!t->momentum || (t->spec->optimizer == TRAIN_ADAMW && !t->second) ||
	    (t->spec->ema > 0 && !t->average))
		return -ENOMEM;
	for (int i = 0; t->average && i < params->n; i++)
		for (size_t j = 0; j < params->list[i].size; j++)
			t->average[i][j] = params->list[i].value[j];
	return 0;
}

void train_optim_free(struct train *t)
{
	int n = t->model ? t->model->net->params.n : 0;

	arrays_free(t->momentum, n);
	arrays_free(t->second, n);
	arrays_free(t->average, n);
}

static void sgd(struct param *p, float *m, float lr, float mu, float decay, float scale)
{
	for (size_t j = 0; j < p->size; j++) {
		float g = p->grad[j] * scale + decay * p->value[j];

		m[j] = mu * m[j] + g;
		p->value[j] -= lr * (g + mu * m[j]);
	}
}

static void adamw(struct param *p, float *m, float *v, float lr, float beta1, float decay, float scale,
		  int64_t step)
{
	const float beta2 = 0.999f, eps = 1e-8f;
	float c1 = 1 - powf(beta1, (float)step), c2 = 1 - powf(beta2, (float)step);

	for (size_t j = 0; j < p->size; j++) {
		float g = p->grad[j] * scale;

		m[j] = beta1 * m[j] + (1 - beta1) * g;
		v[j] = beta2 * v[j] + (1 - beta2) * g * g;
		p->value[j] -= lr * (m[j] / c1 / (sqrtf(v[j] / c2) + eps) + decay * p->value[j]);
	}
}

void train_optim_step(struct train *t, double lr)
{
	struct params *params = &t->model->net->params;
	const struct train_spec *spec = t->spec;
	float scale = 1;

	if (spec->clip > 0) {
		double norm = 0;

		for (int i = 0; i < params->n; i++)
			for (size_t j = 0; j < params->list[i].size && params->list[i].grad; j++)
				norm += (double)params->list[i].grad[j] * params->list[i].grad[j];
		norm = sqrt(norm);
		if (norm > spec->clip)
			scale = (float)(spec->clip / norm);
	}
	for (int i = 0; i < params->n; i++) {
		struct param *p = &params->list[i];
		float decay = p->decay ? (float)spec->weight_decay : 0;

		if (p->statistic)
			continue;
		if (spec->optimizer == TRAIN_ADAMW)
			adamw(p, t->momentum[i], t->second[i], (float)lr, (float)spec->momentum, decay, scale,
			      t->step + 1);
		else
			sgd(p, t->momentum[i], (float)lr, (float)spec->momentum, decay, scale);
	}
	if (t->average) {
		/* The average starts short, so that early weights do not linger. */
		float keep = (float)fmin(spec->ema, (1.0 + t->step) / (10.0 + t->step));

		for (int i = 0; i < params->n; i++)
			for (size_t j = 0; j < params->list[i].size; j++)
				t->average[i][j] =
					keep * t->average[i][j] + (1 - keep) * params->list[i].value[j];
	}
	params_changed(params);
}

void train_swap_average(struct train *t)
{
	struct params *params = &t->model->net->params;

	if (!t->average)
		return;
	for (int i = 0; i < params->n; i++)
		for (size_t j = 0; j < params->list[i].size; j++) {
			float value = params->list[i].value[j];

			params->list[i].value[j] = t->average[i][j];
			t->average[i][j] = value;
		}
	params_changed(params);
}
