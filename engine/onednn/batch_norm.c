/*
 * Batch normalisation, fused with the residual and the ReLU that follow it. The statistics of each instance are
 * taken while its plane is in the cache and then joined in the order of instances (Chan et al. 1983, eq. 2.1),
 * so memory is read twice and the thread count does not matter.
 */
#include "engine/onednn/rows.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define MOMENTUM 0.1f

enum { ROW_ARRAYS = 2 + ROWS_SPACE }; /* of one thread */

struct norm {
	struct kernel base;
	int period, threads;
	/* in scratch memory: three rows that all threads read, and (n, 2, c), of each instance its mean and squared
	 * deviations, or the gradients of shift and scale */
	size_t shared_offset, sums_offset;
};

static int create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	struct norm *k = calloc(1, sizeof(*k));

	(void)sibling;
	if (!k)
		return err_set(err, ERR_NO_MEMORY, "a kernel of batch_norm");
	k->period = rows_period(d->in.c);
	k->threads = omp_get_max_threads();
	k->shared_offset = (size_t)k->threads * ROW_ARRAYS * (size_t)k->period * sizeof(float);
	k->sums_offset = k->shared_offset + 3 * (size_t)k->period * sizeof(float);
	k->base.scratch_size = k->sums_offset + (size_t)d->n * 2 * (size_t)d->in.c * sizeof(float);
	*ret = &k->base;
	return 0;
}

static size_t saved_size(const struct op_desc *d)
{
	return (size_t)d->in.c * 2 * sizeof(float);
}

static float *thread_rows(const struct norm *k, const struct op_io *io)
{
	return (float *)io->scratch + (size_t)omp_get_thread_num() * ROW_ARRAYS * (size_t)k->period;
}

static void instance_statistics(const struct norm *k, const struct op_io *io, int n, float *rows, float *sums)
{
	const struct op_desc *d = &k->base.desc;
	size_t size = extent_size(&d->in), period = (size_t)k->period, c = (size_t)d->in.c;
	struct plane x = plane_at(io->x, d->x_type, d->x_step, (size_t)n * size);
	float *sum = rows, *mean = rows + period, *space = mean + period, *of_n = sums + (size_t)n * 2 * c;
	double count = (double)d->in.h * d->in.w;

	memset(sum, 0, period * sizeof(float));
	rows_sum(x, sum, size, period, space);
	for (int i = 0; i < d->in.c; i++)
		of_n[i] = mean[i] = (float)(rows_fold(sum, k->period, d->in.c, i, 1) / count);
	rows_repeat(mean, k->period, d->in.c);
	memset(sum, 0, period * sizeof(float));
	rows_square(x, mean, sum, size, period, space);
	for (int i = 0; i < d->in.c; i++)
		of_n[c + (size_t)i] = (float)rows_fold(sum, k->period, d->in.c, i, 1);
}

/* saved: mean and rstd of each channel; the running statistics move. */
static void join_statistics(const struct op_desc *d, const struct op_io *io, const float *sums, float *saved)
{
	size_t c = (size_t)d->in.c;
	double plane = (double)d->in.h * d->in.w, count = plane * d->n;

	for (size_t i = 0; i < c; i++) {
		double mean = 0, squares = 0;

		for (size_t n = 0; n < (size_t)d->n; n++)
			mean += sums[2 * n * c + i];
		mean /= d->n;
		for (size_t n = 0; n < (size_t)d->n; n++) {
			double off = sums[2 * n * c + i] - mean;

			squares += sums[(2 * n + 1) * c + i] + plane * off * off;
		}
		saved[2 * i] = (float)mean;
		saved[2 * i + 1] = (float)(1 / sqrt(squares / count + d->eps));
		io->mean[i] += MOMENTUM * ((float)mean - io->mean[i]);
		io->variance[i] += MOMENTUM * ((float)(squares / fmax(count - 1, 1)) - io->variance[i]);
	}
}

static int forward(struct kernel *kernel, const struct op_io *io)
{
	const struct norm *k = (const struct norm *)kernel;
	const struct op_desc *d = &kernel->desc;
	size_t size = extent_size(&d->in);
	float *a = (float *)((char *)io->scratch + k->shared_offset), *b = a + k->period;
	float *sums = (float *)((char *)io->scratch + k->sums_offset), *saved = io->saved;
	float ceiling = d->relu ? op_ceiling(d) : INFINITY;

	if (d->statistics) {
#pragma omp parallel for schedule(static) num_threads(k->threads)
		for (int n = 0; n < d->n; n++)
			instance_statistics(k, io, n, thread_rows(k, io), sums);
		join_statistics(d, io, sums, saved);
	} else {
		for (int i = 0; i < d->in.c; i++) {
			saved[2 * i] = io->mean[i];
			saved[2 * i + 1] = (float)(1 / sqrt((double)io->variance[i] + d->eps));
		}
	}
	for (int i = 0; i < d->in.c; i++) {
		a[i] = io->weight[i] * saved[2 * i + 1];
		b[i] = io->bias[i] - saved[2 * i] * a[i];
	}
	rows_repeat(a, k->period, d->in.c);
	rows_repeat(b, k->period, d->in.c);
#pragma omp parallel for schedule(static) num_threads(k->threads)
	for (int n = 0; n < d->n; n++)
		rows_apply(plane_at(io->x, d->x_type, d->x_step, (size_t)n * size),
			   plane_at(io->x2, d->x2_type, d->x2_step, (size_t)n * size),
			   plane_at(io->y, d->y_type, d->y_step, (size_t)n * size), a, b, size,
			   (size_t)k->period, d->relu ? 0 : -INFINITY, ceiling, thread_rows(k, io));
	return 0;
}

static void instance_gradients(const struct norm *k, const struct op_io *io, int n, float *rows, float *sums)
{
	const struct op_desc *d = &k->base.desc;
	size_t size = extent_size(&d->in), at = (size_t)n * size, period = (size_t)k->period,
	       c = (size_t)d->in.c;
	float *a = rows, *b = a + period, *sum = b + period, *sum_u = sum + period;
	const float *saved = io->saved;

	for (size_t i = 0; i < c; i++) {
		a[i] = saved[2 * i + 1];
		b[i] = -saved[2 * i] * a[i];
	}
	rows_repeat(a, k->period, d->in.c);
	rows_repeat(b, k->period, d->in.c);
	memset(sum, 0, 2 * period * sizeof(float));
	rows_gradient_sums(io->x + at, d->relu ? io->y + at : NULL, io->dy + at, a, b, sum, sum_u, size,
			   period, op_ceiling(d));
	for (int i = 0; i < d->in.c; i++) {
		sums[(size_t)n * 2 * c + (size_t)i] = (float)rows_fold(sum, k->period, d->in.c, i, 1);
		sums[((size_t)n * 2 + 1) * c + (size_t)i] = (float)rows_fold(sum_u, k->period, d->in.c, i, 1);
	}
	if (io->dx2 && io->dx2 != io->dy)
		memcpy(io->dx2 + at, io->dy + at, size * sizeof(float));
}

/*
 * With u = (x - mean)·rstd: dx = rstd·scale·(dy - mean(dy) - u·mean(dy·u)), a sum of dy, x and 1 with factors
 * that are constant in a channel; the means fall away where the statistics are constants.
 */
static int backward(struct kernel *kernel, const struct op_io *io)
{
	const struct norm *k = (const struct norm *)kernel;
	const struct op_desc *d = &kernel->desc;
	size_t size = extent_size(&d->in), channels = (size_t)d->in.c;
	float *a = (float *)((char *)io->scratch + k->shared_offset), *b = a + k->period, *c = b + k->period;
	float *sums = (float *)((char *)io->scratch + k->sums_offset);
	const float *saved = io->saved;
	double count = (double)d->n * d->in.h * d->in.w;

#pragma omp parallel for schedule(static) num_threads(k->threads)
	for (int n = 0; n < d->n; n++)
		instance_gradients(k, io, n, thread_rows(k, io), sums);
	for (size_t i = 0; i < channels; i++) {
		double shift = 0, scale = 0, mean = saved[2 * i], rstd = saved[2 * i + 1],
		       factor = rstd * io->weight[i];

		for (size_t n = 0; n < (size_t)d->n; n++) {
			shift += sums[2 * n * channels + i];
			scale += sums[(2 * n + 1) * channels + i];
		}
		if (io->dbias)
			io->dbias[i] += (float)shift;
		if (io->dweight)
			io->dweight[i] += (float)scale;
		if (!d->statistics)
			shift = scale = 0;
		a[i] = (float)factor;
		b[i] = (float)(-factor * rstd * scale / count);
		c[i] = (float)(factor * (rstd * mean * scale - shift) / count);
	}
	if (!io->dx)
		return 0;
	rows_repeat(a, k->period, d->in.c);
	rows_repeat(b, k->period, d->in.c);
	rows_repeat(c, k->period, d->in.c);
#pragma omp parallel for schedule(static) num_threads(k->threads)
	for (int n = 0; n < d->n; n++)
		rows_gradient(io->x + (size_t)n * size, io->dy + (size_t)n * size, io->dx + (size_t)n * size,
			      a, b, c, size, (size_t)k->period);
	return 0;
}

const struct op_impl onednn_batch_norm = {.create = create,
					  .saved_size = saved_size,
					  .forward = forward,
					  .backward = backward,
					  .bf16 = true,
					  .int8 = true};
