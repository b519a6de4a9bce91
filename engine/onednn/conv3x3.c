/*
 * conv2d by Winograd's filtering, where that is faster, in f32: forward, the gradient of the input, which is a convolution by the
 * same weights turned round, and that of the weights.
 */
#include "engine/onednn/conv3x3.h"

#include "engine/onednn/winograd_gradient.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct conv3x3 {
	struct kernel base;
	struct winograd *winograd;
	struct winograd *back;              /* dy to dx; NULL: not wanted */
	struct winograd_gradient *gradient; /* of the weights; NULL: not wanted */
	float *bias, *factor;               /* (out) each, with the norm folded in; NULL: there is none */
	uint64_t version;                   /* of the parameters that these are made from */
};

static struct winograd_shape shape_of(const struct op_desc *d)
{
	return (struct winograd_shape){.n = d->n, .h = d->in.h, .w = d->in.w, .in = d->in.c, .out = d->out.c};
}

static struct winograd_shape back_shape_of(const struct op_desc *d)
{
	return (struct winograd_shape){
		.n = d->n, .h = d->in.h, .w = d->in.w, .in = d->out.c, .out = d->in.c, .transposed = true};
}

bool conv3x3_suits(const struct op_desc *d)
{
	struct winograd_shape shape = shape_of(d);

	/* a norm that Grad-CAM goes through would be a factor of dy: the direct form's */
	return !(d->training && d->norm) && d->kernel == 3 && d->kernel_w == 3 && d->stride == 1 &&
	       d->pad == 1 && d->pad_w == 1 && d->groups == 1 && d->x_type == PRECISION_F32 &&
	       d->y_type == PRECISION_F32 && (!d->residual || d->x2_type == PRECISION_F32) &&
	       winograd_suits(&shape);
}

static void destroy(struct kernel *k)
{
	struct conv3x3 *c = (struct conv3x3 *)k;

	winograd_free(c->winograd);
	winograd_free(c->back);
	winograd_gradient_free(c->gradient);
	free(c->bias);
	free(c);
}

static void trim(struct kernel *k)
{
	struct conv3x3 *c = (struct conv3x3 *)k;

	winograd_trim(c->winograd);
	if (c->back)
		winograd_trim(c->back);
}

static void fold(struct conv3x3 *c, const struct op_io *io)
{
	const struct op_desc *d = &c->base.desc;

	for (int o = 0; o < d->out.c; o++) {
		c->factor[o] = onednn_norm_factor(d, io, o);
		c->bias[o] = onednn_norm_shift(d, io, o);
	}
}

static int forward(struct kernel *k, const struct op_io *io)
{
	struct conv3x3 *c = (struct conv3x3 *)k;
	const struct op_desc *d = &k->desc;
	const struct winograd_run run = {.x = io->x,
					 .bias = c->bias ? c->bias : io->bias,
					 .residual = io->x2,
					 .y = io->y,
					 .floor = d->relu ? 0 : -INFINITY,
					 .ceiling = d->relu ? op_ceiling(d) : INFINITY,
					 .scratch = io->scratch};
	int r = 0;

	if (c->bias && c->version != io->version) {
		fold(c, io);
		c->version = io->version;
	}
	if (!winograd_packed(c->winograd, io->version))
		r = winograd_pack(c->winograd, io->weight, d->weight_ld, c->factor, io->version);
	if (r == 0)
		winograd_run(c->winograd, &run);
	return r;
}

VECTORISED static void add_pixels(const float *restrict dy, size_t pixels, size_t c, float *restrict sum)
{
	memset(sum, 0, c * sizeof(*sum));
	for (size_t i = 0; i < pixels; i++)
		for (size_t j = 0; j < c; j++)
			sum[j] += dy[i * c + j];
}

/* By instance, then in their order, so that the thread count does not matter. */
static void add_bias(const struct op_desc *d, const struct op_io *io)
{
	size_t c = (size_t)d->out.c, pixels = (size_t)d->out.h * (size_t)d->out.w;
	float *sums = io->scratch;

#pragma omp parallel for schedule(static)
	for (int n = 0; n < d->n; n++)
		add_pixels(io->dy + (size_t)n * pixels * c, pixels, c, sums + (size_t)n * c);
	for (int n = 0; n < d->n; n++)
		for (size_t j = 0; j < c; j++)
			io->dbias[j] += sums[(size_t)n * c + j];
}

static int backward(struct kernel *k, const struct op_io *io)
{
	struct conv3x3 *c = (struct conv3x3 *)k;
	const struct op_desc *d = &k->desc;
	const struct winograd_run run = {
		.x = io->dy, .y = io->dx, .floor = -INFINITY, .ceiling = INFINITY, .scratch = io->scratch};
	int r = 0;

	onednn_relu_before(d, io->y, io->dy);
	if (io->dweight)
		winograd_gradient_run(c->gradient, io->x, io->dy, io->dweight, d->weight_ld, io->scratch);
	if (io->dbias)
		add_bias(d, io);
	if (!io->dx)
		return 0;
	if (!winograd_packed(c->back, io->version))
		r = winograd_pack(c->back, io->weight, d->weight_ld, NULL, io->version);
	if (r == 0)
		winograd_run(c->back, &run);
	return r;
}

static const struct op_impl conv3x3 = {
	.destroy = destroy, .trim = trim, .forward = forward, .backward = backward};

bool conv3x3_made(const struct kernel *k)
{
	return k->impl == &conv3x3;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static int make(struct conv3x3 *c, const struct op_desc *d, struct conv3x3 *other)
{
	struct winograd_shape shape = shape_of(d), back = back_shape_of(d);
	int r = winograd_new(&c->winograd, &shape, other ? other->winograd : NULL);

	if (r < 0)
		return r;
	c->base.scratch_size = winograd_scratch(c->winograd);
	if (d->norm) {
		c->bias = calloc(2 * (size_t)d->out.c, sizeof(float));
		if (!c->bias)
			return -ENOMEM;
		c->factor = c->bias + d->out.c;
	}
	if (!d->training)
		return 0;
	r = winograd_gradient_new(&c->gradient, &shape);
	if (r < 0)
		return r;
	c->base.scratch_size = larger(c->base.scratch_size, winograd_gradient_scratch(c->gradient));
	c->base.scratch_size = larger(c->base.scratch_size, (size_t)d->n * (size_t)d->out.c * sizeof(float));
	if (!d->need_dx)
		return 0;
	r = winograd_new(&c->back, &back, other ? other->back : NULL);
	if (r == 0)
		c->base.scratch_size = larger(c->base.scratch_size, winograd_scratch(c->back));
	return r;
}

int conv3x3_create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	struct conv3x3 *c = calloc(1, sizeof(*c));
	int r = c ? make(c, d, (struct conv3x3 *)sibling) : -ENOMEM;

	if (r < 0) {
		if (c)
			destroy(&c->base);
		return err_set(err, ERR_NO_MEMORY, "a convolution");
	}
	c->base.impl = &conv3x3;
	*ret = &c->base;
	return 0;
}
