/*
 * Group normalisation (Wu & He 2018): over the channels of a group and the plane of each instance,
 *	u = (x - mean)·rstd,  y = scale[c]·u + shift[c],  rstd = 1/√(variance + eps), variance with 1/count
 * and, where a residual is fused, y + x2. Saved: mean and rstd of each (n, group).
 */
#include "engine/ref/ref.h"

#include <math.h>

static size_t saved_size(const struct op_desc *d)
{
	return (size_t)d->n * (size_t)d->groups * 2 * sizeof(float);
}

struct group {
	const struct op_desc *d;
	int n, first, last; /* channels */
	double count;
};

static struct group group_at(const struct op_desc *d, int n, int g)
{
	int size = d->in.c / d->groups;

	return (struct group){d, n, g * size, (g + 1) * size, (double)size * d->in.h * d->in.w};
}

#define EACH(group, i, c)                                                                                    \
	for (int h_ = 0; h_ < (group)->d->in.h; h_++)                                                        \
		for (int w_ = 0; w_ < (group)->d->in.w; w_++)                                                \
			for (int c = (group)->first; c < (group)->last; c++)                                 \
				for (size_t i = at(&(group)->d->in, (group)->n, h_, w_, c), e_ = i; i == e_; \
				     i++)

static void forward_group(const struct group *g, const struct op_io *io, float *ret_mean, float *ret_rstd)
{
	double mean = 0, variance = 0, rstd;

	EACH(g, i, c)
	mean += io->x[i];
	mean /= g->count;
	EACH(g, i, c)
	variance += (io->x[i] - mean) * (io->x[i] - mean);
	rstd = 1 / sqrt(variance / g->count + g->d->eps);
	EACH(g, i, c)
	{
		double y = io->weight[c] * (io->x[i] - mean) * rstd + io->bias[c];

		io->y[i] = (float)(g->d->residual ? y + io->x2[i] : y);
	}
	*ret_mean = (float)mean;
	*ret_rstd = (float)rstd;
}

static int forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	float *saved = io->saved;

	for (int n = 0; n < d->n; n++)
		for (int g = 0; g < d->groups; g++, saved += 2) {
			struct group group = group_at(d, n, g);

			forward_group(&group, io, &saved[0], &saved[1]);
		}
	ref_relu_after(d, io->y);
	return 0;
}

/* With du = dy·scale: dx = rstd·(du - mean(du) - u·mean(du·u)). */
static void backward_group(const struct group *g, const struct op_io *io, double mean, double rstd)
{
	double mean_du = 0, mean_duu = 0;

	EACH(g, i, c)
	{
		double du = (double)io->dy[i] * io->weight[c], u = (io->x[i] - mean) * rstd;

		mean_du += du / g->count;
		mean_duu += du * u / g->count;
	}
	if (!io->dx)
		return;
	EACH(g, i, c)
	{
		double du = (double)io->dy[i] * io->weight[c], u = (io->x[i] - mean) * rstd;

		io->dx[i] = (float)(rstd * (du - mean_du - u * mean_duu));
	}
}

/* dscale[c] = Σ dy·u and dshift[c] = Σ dy, over instances and the plane. */
static void channel_gradients(const struct op_desc *d, const struct op_io *io, int c)
{
	double scale = 0, shift = 0;

	for (int n = 0; n < d->n; n++) {
		const float *saved =
			(const float *)io->saved + (n * d->groups + c / (d->in.c / d->groups)) * 2;

		for (int h = 0; h < d->in.h; h++)
			for (int w = 0; w < d->in.w; w++) {
				size_t i = at(&d->in, n, h, w, c);

				scale += (double)io->dy[i] * (io->x[i] - saved[0]) * saved[1];
				shift += io->dy[i];
			}
	}
	if (io->dweight)
		io->dweight[c] += (float)scale;
	if (io->dbias)
		io->dbias[c] += (float)shift;
}

static int backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	const float *saved = io->saved;

	ref_relu_before(d, io->y, io->dy);
	for (int c = 0; c < d->in.c; c++)
		channel_gradients(d, io, c);
	for (int n = 0; n < d->n; n++)
		for (int g = 0; g < d->groups; g++, saved += 2) {
			struct group group = group_at(d, n, g);

			backward_group(&group, io, saved[0], saved[1]);
		}
	for (size_t i = 0; io->dx2 && i < (size_t)d->n * extent_size(&d->in); i++)
		io->dx2[i] = io->dy[i];
	return 0;
}

const struct op_impl ref_group_norm = {
	.create = ref_create, .saved_size = saved_size, .forward = forward, .backward = backward};
