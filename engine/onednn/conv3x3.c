/* conv2d by Winograd's filtering, where that is faster: inference in f32. */
#include "engine/onednn/conv3x3.h"

#include "engine/onednn/winograd.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

struct conv3x3 {
	struct kernel base;
	struct winograd *winograd;
	float *bias, *factor; /* (out) each, with the norm folded in; NULL: there is none */
	uint64_t version;     /* of the parameters that these are made from */
};

static struct winograd_shape shape_of(const struct op_desc *d)
{
	return (struct winograd_shape){.n = d->n, .h = d->in.h, .w = d->in.w, .in = d->in.c, .out = d->out.c};
}

bool conv3x3_suits(const struct op_desc *d)
{
	struct winograd_shape shape = shape_of(d);

	return !d->training && d->kernel == 3 && d->kernel_w == 3 && d->stride == 1 && d->pad == 1 &&
	       d->pad_w == 1 && d->groups == 1 && d->x_type == PRECISION_F32 && d->y_type == PRECISION_F32 &&
	       (!d->residual || d->x2_type == PRECISION_F32) && winograd_suits(&shape);
}

static void destroy(struct kernel *k)
{
	struct conv3x3 *c = (struct conv3x3 *)k;

	winograd_free(c->winograd);
	free(c->bias);
	free(c);
}

static void trim(struct kernel *k)
{
	winograd_trim(((struct conv3x3 *)k)->winograd);
}

static void fold(struct conv3x3 *c, const struct op_io *io)
{
	const struct op_desc *d = &c->base.desc;

	for (int o = 0; o < d->out.c; o++) {
		c->factor[o] = (float)(io->scale[o] / sqrt((double)io->variance[o] + d->eps));
		c->bias[o] = io->shift[o] + ((io->bias ? io->bias[o] : 0) - io->mean[o]) * c->factor[o];
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

static const struct op_impl conv3x3 = {.destroy = destroy, .trim = trim, .forward = forward};

int conv3x3_create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	struct conv3x3 *c = calloc(1, sizeof(*c)), *other = (struct conv3x3 *)sibling;
	struct winograd_shape shape = shape_of(d);
	int r = c ? 0 : -ENOMEM;

	if (sibling && sibling->impl != &conv3x3)
		other = NULL;
	if (r == 0)
		r = winograd_new(&c->winograd, &shape, other ? other->winograd : NULL);
	if (r == 0 && d->norm) {
		c->bias = calloc(2 * (size_t)d->out.c, sizeof(float));
		if (!c->bias)
			r = -ENOMEM;
		else
			c->factor = c->bias + d->out.c;
	}
	if (r < 0) {
		if (c)
			destroy(&c->base);
		return err_set(err, ERR_NO_MEMORY, "a convolution");
	}
	c->base.impl = &conv3x3;
	c->base.scratch_size = winograd_scratch(c->winograd);
	*ret = &c->base;
	return 0;
}
