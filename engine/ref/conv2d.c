/*
 * y[n,oh,ow,o] = bias[o] + Σ x[n, oh·stride-pad+kh, ow·stride-pad_w+kw, i]·w[o,i,kh,kw], i over o's group;
 * with a norm, y' = (y - mean[o])·scale[o]/√(variance[o] + eps) + shift[o]; with a residual, + x2
 */
#include "engine/ref/ref.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

struct window {
	int in_group;       /* inputs that one output sees */
	int first;          /* the first of them, for the output at hand */
	int h, w;           /* input position, may lie in the padding */
	int64_t weight;     /* index of w[o, 0, kh, kw] */
	int64_t next_input; /* from w[o, i] to w[o, i+1] */
};

static bool window_at(struct window *win, const struct op_desc *d, int o, int oh, int ow, int kh, int kw)
{
	win->in_group = d->in.c / d->groups;
	win->first = o / (d->out.c / d->groups) * win->in_group;
	win->h = oh * d->stride - d->pad + kh;
	win->w = ow * d->stride - d->pad_w + kw;
	win->weight = o * d->weight_ld + kh * d->kernel_w + kw;
	win->next_input = (int64_t)d->kernel * d->kernel_w;
	return win->h >= 0 && win->h < d->in.h && win->w >= 0 && win->w < d->in.w;
}

static double norm_factor(const struct op_desc *d, const struct op_io *io, int o)
{
	return io->scale[o] / sqrt((double)io->variance[o] + d->eps);
}

static int forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	struct window win;

	for (int n = 0; n < d->n; n++)
		for (int oh = 0; oh < d->out.h; oh++)
			for (int ow = 0; ow < d->out.w; ow++)
				for (int o = 0; o < d->out.c; o++) {
					double sum = d->bias ? io->bias[o] : 0;
					const float *x, *w;

					for (int kh = 0; kh < d->kernel; kh++)
						for (int kw = 0; kw < d->kernel_w; kw++) {
							if (!window_at(&win, d, o, oh, ow, kh, kw))
								continue;
							x = io->x + at(&d->in, n, win.h, win.w, win.first);
							w = io->weight + win.weight;
							for (int i = 0; i < win.in_group; i++)
								sum += (double)x[i] * w[i * win.next_input];
						}
					if (d->norm)
						sum = (sum - io->mean[o]) * norm_factor(d, io, o) +
						      io->shift[o];
					if (d->residual)
						sum += io->x2[at(&d->out, n, oh, ow, o)];
					io->y[at(&d->out, n, oh, ow, o)] = (float)sum;
				}
	ref_relu_after(d, io->y);
	return 0;
}

/* dx and dw, in double: every product of the forward pass gives each a share. */
static void spread(const struct op_desc *d, const struct op_io *io, double *dx, double *dw)
{
	struct window win;

	for (int n = 0; n < d->n; n++)
		for (int oh = 0; oh < d->out.h; oh++)
			for (int ow = 0; ow < d->out.w; ow++)
				for (int o = 0; o < d->out.c; o++) {
					double dy = io->dy[at(&d->out, n, oh, ow, o)];
					size_t x;

					for (int kh = 0; kh < d->kernel; kh++)
						for (int kw = 0; kw < d->kernel_w; kw++) {
							if (!window_at(&win, d, o, oh, ow, kh, kw))
								continue;
							x = at(&d->in, n, win.h, win.w, win.first);
							for (int i = 0; i < win.in_group; i++) {
								int64_t w = win.weight + i * win.next_input;

								dx[x + i] += dy * io->weight[w];
								dw[w] += dy * io->x[x + i];
							}
						}
				}
}

static int backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	size_t n_x = (size_t)d->n * extent_size(&d->in);
	size_t row = (size_t)d->in.c / d->groups * d->kernel * d->kernel_w;
	double *dx = calloc(n_x, sizeof(*dx)), *dw = calloc((size_t)(d->out.c * d->weight_ld), sizeof(*dw));
	int r = -ENOMEM;

	if (!dx || !dw)
		goto out;
	ref_relu_before(d, io->y, io->dy);
	for (size_t i = 0; d->norm && i < (size_t)d->n * extent_size(&d->out); i++)
		io->dy[i] *= (float)norm_factor(d, io, (int)(i % (size_t)d->out.c));
	spread(d, io, dx, dw);
	for (size_t i = 0; io->dx && i < n_x; i++)
		io->dx[i] = (float)dx[i];
	for (int o = 0; io->dweight && o < d->out.c; o++)
		for (size_t j = 0; j < row; j++)
			io->dweight[o * d->weight_ld + (int64_t)j] +=
				(float)dw[o * d->weight_ld + (int64_t)j];
	for (int o = 0; io->dbias && o < d->out.c; o++) {
		double sum = 0;

		for (size_t i = (size_t)o; i < (size_t)d->n * extent_size(&d->out); i += (size_t)d->out.c)
			sum += io->dy[i];
		io->dbias[o] += (float)sum;
	}
	r = 0;
out:
	free(dx);
	free(dw);
	return r;
}

const struct op_impl ref_conv2d = {.create = ref_create, .forward = forward, .backward = backward};
