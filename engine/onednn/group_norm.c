/*
 * Group normalisation, fused with the residual and the ReLU that follow it. Threads share out instances; one
 * instance's plane fits the second-level cache, so its passes cost memory traffic once.
 *
 * Few channels (slices of 4 to 32) are shorter than vectors. So a plane of (h·w, c) is read as rows of
 * `period` elements, a multiple of both c and 16 where that is possible: sums are taken per column of such
 * rows and folded to channels at the end, and per-channel factors are repeated along a row. All loops then
 * are long, branch-free and over columns.
 */
#include "engine/onednn/onednn.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_ARRAYS = 4 }; /* of one thread */

struct norm {
	struct kernel base;
	int period, threads;
	size_t sums_offset; /* in scratch memory: (n, 2, c), gradients of scale and shift by instance */
};

static int gcd(int a, int b)
{
	return b ? gcd(b, a % b) : a;
}

static int period_of(int channels)
{
	int pixels = 16 / gcd(channels, 16);

	return channels * pixels * ((63 + channels * pixels) / (channels * pixels));
}

static int create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	struct norm *k = calloc(1, sizeof(*k));

	(void)sibling;
	if (!k)
		return err_set(err, ERR_NO_MEMORY, "a kernel of group_norm");
	k->period = period_of(d->in.c);
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

/* Each body works on one row of up to `period` elements; the plane functions below cut a plane into rows. */
VECTORISED static void row_sum(const float *restrict x, float *restrict sum, size_t size, size_t period)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;

		for (size_t j = 0; j < n; j++)
			sum[j] += x[i + j];
	}
}

VECTORISED static void row_square(const float *restrict x, const float *restrict mean, float *restrict sum,
				  size_t size, size_t period)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;

		for (size_t j = 0; j < n; j++) {
			float d = x[i + j] - mean[j];

			sum[j] += d * d;
		}
	}
}

VECTORISED static void row_apply(const float *restrict x, const float *restrict x2, float *restrict y,
				 const float *restrict a, const float *restrict b, size_t size, size_t period,
				 float floor)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;

		if (x2)
			for (size_t j = 0; j < n; j++) {
				float v = x[i + j] * a[j] + b[j] + x2[i + j];

				y[i + j] = v > floor ? v : floor;
			}
		else
			for (size_t j = 0; j < n; j++) {
				float v = x[i + j] * a[j] + b[j];

				y[i + j] = v > floor ? v : floor;
			}
	}
}

/* dy is masked by y > 0 in place; sums of dy and of dy·u, u = x·a + b. */
VECTORISED static void row_gradient_sums(const float *restrict x, const float *restrict y, float *restrict dy,
					 const float *restrict a, const float *restrict b,
					 float *restrict sum, float *restrict sum_u, size_t size,
					 size_t period)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;

		if (y)
			for (size_t j = 0; j < n; j++)
				dy[i + j] = y[i + j] > 0 ? dy[i + j] : 0;
		for (size_t j = 0; j < n; j++) {
			sum[j] += dy[i + j];
			sum_u[j] += dy[i + j] * (x[i + j] * a[j] + b[j]);
		}
	}
}

/* dx may be dy */
VECTORISED static void row_gradient(const float *restrict x, const float *dy, float *dx,
				    const float *restrict a, const float *restrict b, const float *restrict c,
				    size_t size, size_t period)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;

#pragma omp simd
		for (size_t j = 0; j < n; j++)
			dx[i + j] = dy[i + j] * a[j] + x[i + j] * b[j] + c[j];
	}
}

/* Sum over one group of what row_* left in columns. */
static double fold_group(const float *columns, int period, int channels, int first, int size)
{
	double sum = 0;

	for (int p = 0; p < period; p += channels)
		for (int c = first; c < first + size; c++)
			sum += columns[p + c];
	return sum;
}

static void repeat(float *row, int period, int channels)
{
	for (int p = channels; p < period; p += channels)
		memcpy(row + p, row, (size_t)channels * sizeof(float));
}

static void forward_one(const struct norm *k, const struct op_io *io, int n, float *rows)
{
	const struct op_desc *d = &k->base.desc;
	size_t size = extent_size(&d->in), at = (size_t)n * size, period = (size_t)k->period;
	int channels = d->in.c, group = channels / d->groups;
	double count = (double)group * d->in.h * d->in.w;
	float *sum = rows, *a = rows + period, *b = a + period;
	float *saved = (float *)io->saved + (size_t)n * (size_t)d->groups * 2;

	memset(sum, 0, period * sizeof(float));
	row_sum(io->x + at, sum, size, period);
	for (int g = 0; g < d->groups; g++) {
		saved[2 * g] = (float)(fold_group(sum, k->period, channels, g * group, group) / count);
		for (int c = g * group; c < (g + 1) * group; c++)
			a[c] = saved[2 * g];
	}
	repeat(a, k->period, channels);
	memset(sum, 0, period * sizeof(float));
	row_square(io->x + at, a, sum, size, period);
	for (int g = 0; g < d->groups; g++) {
		double variance = fold_group(sum, k->period, channels, g * group, group) / count;

		saved[2 * g + 1] = (float)(1 / sqrt(variance + d->eps));
	}
	for (int c = 0; c < channels; c++) {
		const float *s = saved + c / group * 2;

		a[c] = io->weight[c] * s[1];
		b[c] = io->bias[c] - s[0] * a[c];
	}
	repeat(a, k->period, channels);
	repeat(b, k->period, channels);
	row_apply(io->x + at, io->x2 ? io->x2 + at : NULL, io->y + at, a, b, size, period,
		  d->relu ? 0 : -INFINITY);
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
	repeat(a, k->period, channels);
	repeat(b, k->period, channels);
	memset(sum, 0, 2 * period * sizeof(float));
	row_gradient_sums(io->x + at, d->relu ? io->y + at : NULL, io->dy + at, a, b, sum, sum_u, size,
			  period);
	for (int c = 0; c < channels; c++) {
		dshift[c] = (float)fold_group(sum, k->period, channels, c, 1);
		dscale[c] = (float)fold_group(sum_u, k->period, channels, c, 1);
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
	repeat(a, k->period, channels);
	repeat(b, k->period, channels);
	repeat(sum, k->period, channels);
	row_gradient(io->x + at, io->dy + at, io->dx + at, a, b, sum, size, period);
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

const struct op_impl onednn_group_norm = {
	.create = create, .saved_size = saved_size, .forward = forward, .backward = backward};
