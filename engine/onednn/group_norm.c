/*
 * Group normalisation, fused with the residual and the ReLU that follow it. Threads share out instances; one
 * instance's plane fits the second-level cache, so its passes cost memory traffic once.
 */
#include "engine/onednn/rows.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_ARRAYS = 3 + ROWS_SPACE }; /* of one thread */

struct norm {
	struct kernel base;
	int period, threads;
	size_t sums_offset; /* in scratch memory: (n, 2, c), gradients of scale and shift by instance */
};

static int create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	struct norm *k = calloc(1, sizeof(*k));

	(void)sibling;
	if (!k)
		return err_set(err, ERR_NO_MEMORY, "a kernel of group_norm");
	k->period = rows_period(d->in.c);
	k->threads = omp_get_max_threads();
	k->sums_offset = (size_t)k->threads * ROW_ARRAYS * (size_t)k->period * sizeof(float);
	k->base.scratch_size = k->sums_offset + (size_t)d->n * 2 * (size_t)d->in.c * sizeof(float);
	*ret = &k->base;
	return 0;
}

static size_t saved_size(const struct op_desc *d)
{
	return (size_t)d->n * (size_t)d->groups * 2 * sizeof(float);
}

static void forward_one(const struct norm *k, const struct op_io *io, int n, float *rows)
{
	const struct op_desc *d = &k->base.desc;
	size_t size = extent_size(&d->in), at = (size_t)n * size, period = (size_t)k->period;
	int channels = d->in.c, group = channels / d->groups;
	double count = (double)group * d->in.h * d->in.w;
	float *sum = rows, *a = rows + period, *b = a + period, *space = b + period;
	struct plane x = plane_at(io->x, d->x_type, d->x_step, at);
	float *saved = (float *)io->saved + (size_t)n * (size_t)d->groups * 2;

	memset(sum, 0, period * sizeof(float));
	rows_sum(x, sum, size, period, space);
	for (int g = 0; g < d->groups; g++) {
		saved[2 * g] = (float)(rows_fold(sum, k->period, channels, g * group, group) / count);
		for (int c = g * group; c < (g + 1) * group; c++)
			a[c] = saved[2 * g];
	}
	rows_repeat(a, k->period, channels);
	memset(sum, 0, period * sizeof(float));
	rows_square(x, a, sum, size, period, space);
	for (int g = 0; g < d->groups; g++) {
		double variance = rows_fold(sum, k->period, channels, g * group, group) / count;

		saved[2 * g + 1] = (float)(1 / sqrt(variance + d->eps));
	}
	for (int c = 0; c < channels; c++) {
		const float *s = saved + c / group * 2;

		a[c] = io->weight[c] * s[1];
		b[c] = io->bias[c] - s[0] * a[c];
	}
	rows_repeat(a, k->period, channels);
	rows_repeat(b, k->period, channels);
	rows_apply(x, plane_at(io->x2, d->x2_type, d->x2_step, at), plane_at(io->y, d->y_type, d->y_step, at),
		   a, b, size, period, d->relu ? 0 : -INFINITY, d->relu ? op_ceiling(d) : INFINITY, space);
}

static int forward(struct kernel *kernel, const struct op_io *io)
{
	const struct norm *k = (const struct norm *)kernel;

#pragma omp parallel for schedule(static) num_threads(k->threads)
	for (int n = 0; n < kernel->desc.n; n++)
		forward_one(k, io, n,
			    (float *)io->scratch +
				    (size_t)omp_get_thread_num() * ROW_ARRAYS * (size_t)k->period);
	return 0;
}

/*
 * With u = (x - mean)·rstd and du = dy·scale: dx = rstd·(du - mean(du) - u·mean(du·u)), a sum of dy, x and 1
 * with factors that are constant in a channel.
 */
static void backward_one(const struct norm *k, const struct op_io *io, int n, float *rows, float *sums)
{
	const struct op_desc *d = &k->base.desc;
	size_t size = extent_size(&d->in), at = (size_t)n * size, period = (size_t)k->period;
	int channels = d->in.c, group = channels / d->groups;
	double count = (double)group * d->in.h * d->in.w;
	float *a = rows, *b = a + period, *sum = b + period, *sum_u = sum + period;
	float *dshift = sums + (size_t)n * 2 * (size_t)channels, *dscale = dshift + channels;
	const float *saved = (const float *)io->saved + (size_t)n * (size_t)d->groups * 2;

	for (int c = 0; c < channels; c++) {
		a[c] = saved[c / group * 2 + 1];
		b[c] = -saved[c / group * 2] * a[c];
	}
	rows_repeat(a, k->period, channels);
	rows_repeat(b, k->period, channels);
	memset(sum, 0, 2 * period * sizeof(float));
	rows_gradient_sums(io->x + at, d->relu ? io->y + at : NULL, io->dy + at, a, b, sum, sum_u, size,
			   period, op_ceiling(d));
	for (int c = 0; c < channels; c++) {
		dshift[c] = (float)rows_fold(sum, k->period, channels, c, 1);
		dscale[c] = (float)rows_fold(sum_u, k->period, channels, c, 1);
	}
	if (io->dx2 && io->dx2 != io->dy)
		memcpy(io->dx2 + at, io->dy + at, size * sizeof(float));
	if (!io->dx)
		return;
	for (int g = 0; g < d->groups; g++) {
		double du = 0, duu = 0, mean = saved[2 * g], rstd = saved[2 * g + 1];

		for (int c = g * group; c < (g + 1) * group; c++) {
			du += (double)io->weight[c] * dshift[c] / count;
			duu += (double)io->weight[c] * dscale[c] / count;
		}
		for (int c = g * group; c < (g + 1) * group; c++) {
			a[c] = (float)(rstd * io->weight[c]);
			b[c] = (float)(-rstd * rstd * duu);
			sum[c] = (float)(-rstd * du + rstd * rstd * mean * duu);
		}
	}
	rows_repeat(a, k->period, channels);
	rows_repeat(b, k->period, channels);
	rows_repeat(sum, k->period, channels);
	rows_gradient(io->x + at, io->dy + at, io->dx + at, a, b, sum, size, period);
}

static int backward(struct kernel *kernel, const struct op_io *io)
{
	const struct norm *k = (const struct norm *)kernel;
	float *sums = (float *)((char *)io->scratch + k->sums_offset);
	int channels = kernel->desc.in.c;

#pragma omp parallel for schedule(static) num_threads(k->threads)
	for (int n = 0; n < kernel->desc.n; n++)
		backward_one(k, io, n,
			     (float *)io->scratch +
				     (size_t)omp_get_thread_num() * ROW_ARRAYS * (size_t)k->period,
			     sums);
	/* in the order of instances, so that the thread count does not matter */
	for (int c = 0; c < channels; c++) {
		double shift = 0, scale = 0;

		for (int n = 0; n < kernel->desc.n; n++) {
			shift += sums[(size_t)(2 * n * channels + c)];
			scale += sums[(size_t)((2 * n + 1) * channels + c)];
		}
		if (io->dbias)
			io->dbias[c] += (float)shift;
		if (io->dweight)
			io->dweight[c] += (float)scale;
	}
	return 0;
}

const struct op_impl onednn_group_norm = {.create = create,
					  .saved_size = saved_size,
					  .forward = forward,
					  .backward = backward,
					  .bf16 = true,
					  .int8 = true};
