/*
 * Windows of kernel × kernel pixels. max_pool keeps the first largest of each (saved: its pixel h·W + w, an
 * int32 for each output); avg_pool divides by kernel² also at the border, where padding counts as zeros
 * (PyTorch's count_include_pad) unless exclude_pad; global_avg_pool takes the whole plane.
 */
#include "engine/ref/ref.h"

#include <math.h>
#include <string.h>

struct window {
	int h0, h1, w0, w1; /* inside the plane */
};

static struct window window_at(const struct op_desc *d, int oh, int ow)
{
	int h = oh * d->stride - d->pad, w = ow * d->stride - d->pad;

	if (d->op == OP_global_avg_pool)
		return (struct window){0, d->in.h, 0, d->in.w};
	return (struct window){h < 0 ? 0 : h, h + d->kernel < d->in.h ? h + d->kernel : d->in.h,
			       w < 0 ? 0 : w, w + d->kernel < d->in.w ? w + d->kernel : d->in.w};
}

static double divisor(const struct op_desc *d, struct window win)
{
	return d->op == OP_global_avg_pool || d->exclude_pad ? (double)(win.h1 - win.h0) * (win.w1 - win.w0)
							     : (double)d->kernel * d->kernel;
}

#define EACH_OUTPUT(d, n, oh, ow, c)                            \
	for (int n = 0; n < (d)->n; n++)                        \
		for (int oh = 0; oh < (d)->out.h; oh++)         \
			for (int ow = 0; ow < (d)->out.w; ow++) \
				for (int c = 0; c < (d)->out.c; c++)

static size_t max_saved_size(const struct op_desc *d)
{
	return d->training ? (size_t)d->n * extent_size(&d->out) * sizeof(int32_t) : 0;
}

static int max_forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	int32_t *from = io->saved;

	EACH_OUTPUT(d, n, oh, ow, c)
	{
		struct window win = window_at(d, oh, ow);
		size_t y = at(&d->out, n, oh, ow, c);

		io->y[y] = -INFINITY;
		if (from) /* for a window of NaNs too */
			from[y] = win.h0 * d->in.w + win.w0;
		for (int h = win.h0; h < win.h1; h++)
			for (int w = win.w0; w < win.w1; w++) {
				float x = io->x[at(&d->in, n, h, w, c)];

				if (x > io->y[y]) {
					io->y[y] = x;
					if (from)
						from[y] = h * d->in.w + w;
				}
			}
	}
	return 0;
}

static int max_backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	const int32_t *from = io->saved;

	if (!io->dx)
		return 0;
	memset(io->dx, 0, (size_t)d->n * extent_size(&d->in) * sizeof(float));
	EACH_OUTPUT(d, n, oh, ow, c)
	{
		size_t y = at(&d->out, n, oh, ow, c);

		io->dx[at(&d->in, n, from[y] / d->in.w, from[y] % d->in.w, c)] += io->dy[y];
	}
	return 0;
}

static int avg_forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

	EACH_OUTPUT(d, n, oh, ow, c)
	{
		struct window win = window_at(d, oh, ow);
		double sum = 0;

		for (int h = win.h0; h < win.h1; h++)
			for (int w = win.w0; w < win.w1; w++)
				sum += io->x[at(&d->in, n, h, w, c)];
		io->y[at(&d->out, n, oh, ow, c)] = (float)(sum / divisor(d, win));
	}
	return 0;
}

static int avg_backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

	if (!io->dx)
		return 0;
	memset(io->dx, 0, (size_t)d->n * extent_size(&d->in) * sizeof(float));
	EACH_OUTPUT(d, n, oh, ow, c)
	{
		struct window win = window_at(d, oh, ow);
		float share = (float)(io->dy[at(&d->out, n, oh, ow, c)] / divisor(d, win));

		for (int h = win.h0; h < win.h1; h++)
			for (int w = win.w0; w < win.w1; w++)
				io->dx[at(&d->in, n, h, w, c)] += share;
	}
	return 0;
}

const struct op_impl ref_max_pool = {
	.create = ref_create, .saved_size = max_saved_size, .forward = max_forward, .backward = max_backward};
const struct op_impl ref_avg_pool = {.create = ref_create, .forward = avg_forward, .backward = avg_backward};
const struct op_impl ref_global_avg_pool = {
	.create = ref_create, .forward = avg_forward, .backward = avg_backward};
