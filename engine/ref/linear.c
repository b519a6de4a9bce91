/*
 * y[n,o] = bias[o] + Σ x[n,j]·w[o,j], j = c·H·W + h·W + w of the input map: PyTorch's order after a flatten
 */
#include "engine/ref/ref.h"

static size_t weight_at(const struct op_desc *d, int o, int h, int w, int c)
{
	return (size_t)(o * d->weight_ld + ((int64_t)c * d->in.h + h) * d->in.w + w);
}

static int forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

	for (int n = 0; n < d->n; n++)
		for (int o = 0; o < d->out.c; o++) {
			double sum = d->bias ? io->bias[o] : 0;

			for (int h = 0; h < d->in.h; h++)
				for (int w = 0; w < d->in.w; w++)
					for (int c = 0; c < d->in.c; c++)
						sum += (double)io->x[at(&d->in, n, h, w, c)] *
						       io->weight[weight_at(d, o, h, w, c)];
			io->y[at(&d->out, n, 0, 0, o)] = (float)sum;
		}
	ref_relu_after(d, io->y);
	return 0;
}

static void input_gradient(const struct op_desc *d, const struct op_io *io, int n, int h, int w, int c)
{
	double sum = 0;

	for (int o = 0; o < d->out.c; o++)
		sum += (double)io->dy[at(&d->out, n, 0, 0, o)] * io->weight[weight_at(d, o, h, w, c)];
	io->dx[at(&d->in, n, h, w, c)] = (float)sum;
}

static void weight_gradient(const struct op_desc *d, const struct op_io *io, int o, int h, int w, int c)
{
	double sum = 0;

	for (int n = 0; n < d->n; n++)
		sum += (double)io->dy[at(&d->out, n, 0, 0, o)] * io->x[at(&d->in, n, h, w, c)];
	io->dweight[weight_at(d, o, h, w, c)] += (float)sum;
}

static int backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

	ref_relu_before(d, io->y, io->dy);
	for (int h = 0; h < d->in.h; h++)
		for (int w = 0; w < d->in.w; w++)
			for (int c = 0; c < d->in.c; c++) {
				for (int n = 0; io->dx && n < d->n; n++)
					input_gradient(d, io, n, h, w, c);
				for (int o = 0; io->dweight && o < d->out.c; o++)
					weight_gradient(d, io, o, h, w, c);
			}
	for (int o = 0; io->dbias && o < d->out.c; o++) {
		double sum = 0;

		for (int n = 0; n < d->n; n++)
			sum += io->dy[at(&d->out, n, 0, 0, o)];
		io->dbias[o] += (float)sum;
	}
	return 0;
}

const struct op_impl ref_linear = {.create = ref_create, .forward = forward, .backward = backward};
