/*
 * Batch normalisation (Ioffe & Szegedy 2015): over instances and the plane of each channel,
 *	u = (x - mean)·rstd,  y = scale[c]·u + shift[c],  rstd = 1/√(variance + eps), variance with 1/count
 * and, where a residual is fused, y + x2. With desc.statistics mean and variance are the batch's, and the
 * running ones move towards them by a tenth (the variance's with 1/(count-1), as in PyTorch); else they are
 * the running ones, which are constants to the gradient. Saved: mean and rstd of each channel.
 */
#include "engine/ref/ref.h"

#include <math.h>

#define MOMENTUM 0.1f

static size_t saved_size(const struct op_desc *d)
{
	return (size_t)d->in.c * 2 * sizeof(float);
}

/* i: every element of channel c */
#define EACH(d, c, i) \
	for (size_t i = (size_t)(c); i < (size_t)(d)->n * extent_size(&(d)->in); i += (size_t)(d)->in.c)

static void statistics(const struct op_desc *d, const struct op_io *io, int c, float *saved)
{
	double count = (double)d->n * d->in.h * d->in.w, mean = 0, variance = 0;

	if (!d->statistics) {
		saved[0] = io->mean[c];
		saved[1] = (float)(1 / sqrt((double)io->variance[c] + d->eps));
		return;
	}
	EACH(d, c, i)
	mean += io->x[i];
	mean /= count;
	EACH(d, c, i)
	variance += (io->x[i] - mean) * (io->x[i] - mean);
	saved[0] = (float)mean;
	saved[1] = (float)(1 / sqrt(variance / count + d->eps));
	io->mean[c] += MOMENTUM * ((float)mean - io->mean[c]);
	io->variance[c] += MOMENTUM * ((float)(variance / fmax(count - 1, 1)) - io->variance[c]);
}

static int forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	float *saved = io->saved;

	for (int c = 0; c < d->in.c; c++, saved += 2) {
		statistics(d, io, c, saved);
		EACH(d, c, i)
		{
			double y = (double)io->weight[c] * (io->x[i] - saved[0]) * saved[1] + io->bias[c];

			io->y[i] = (float)(d->residual ? y + io->x2[i] : y);
		}
	}
	ref_relu_after(d, io->y);
	return 0;
}

/* dscale = Σ dy·u, dshift = Σ dy, dx = rstd·scale·(dy - mean(dy) - u·mean(dy·u)); without the means where
 * the statistics are constants. */
static int backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	const float *saved = io->saved;

	ref_relu_before(d, io->y, io->dy);
	for (size_t i = 0; io->dx2 && io->dx2 != io->dy && i < (size_t)d->n * extent_size(&d->in); i++)
		io->dx2[i] = io->dy[i];
	for (int c = 0; c < d->in.c; c++, saved += 2) {
		double count = (double)d->n * d->in.h * d->in.w, scale = 0, shift = 0;

		EACH(d, c, i)
		{
			scale += (double)io->dy[i] * (io->x[i] - saved[0]) * saved[1];
			shift += io->dy[i];
		}
		if (io->dweight)
			io->dweight[c] += (float)scale;
		if (io->dbias)
			io->dbias[c] += (float)shift;
		if (!io->dx)
			continue;
		EACH(d, c, i)
		{
			double dy = io->dy[i], u = ((double)io->x[i] - saved[0]) * saved[1];

			if (d->statistics)
				dy -= shift / count + u * scale / count;
			io->dx[i] = (float)(saved[1] * io->weight[c] * dy);
		}
	}
	return 0;
}

const struct op_impl ref_batch_norm = {
	.create = ref_create, .saved_size = saved_size, .forward = forward, .backward = backward};
