/*
 * relu: y = max(x, 0); its gradient passes where y > 0. relu6: y = min(max(x, 0), 6); where 0 < y < 6.
 * add: y = x + scale·x2. concat: of the channels, group by group. dropout: y = 0 for a share of the elements,
 * x/(1-share) for the others, chosen by engine/dropout.h.
 */
#include "engine/dropout.h"
#include "engine/ref/ref.h"

static int relu_forward(struct kernel *k, const struct op_io *io)
{
	for (size_t i = 0; i < (size_t)k->desc.n * extent_size(&k->desc.out); i++)
		io->y[i] = ref_cut(&k->desc, io->x[i]);
	return 0;
}

static int relu_backward(struct kernel *k, const struct op_io *io)
{
	for (size_t i = 0; io->dx && i < (size_t)k->desc.n * extent_size(&k->desc.out); i++)
		io->dx[i] = ref_passes(&k->desc, io->y[i]) ? io->dy[i] : 0;
	return 0;
}

static int add_forward(struct kernel *k, const struct op_io *io)
{
	for (size_t i = 0; i < (size_t)k->desc.n * extent_size(&k->desc.out); i++)
		io->y[i] = io->x[i] + k->desc.scale * io->x2[i];
	ref_relu_after(&k->desc, io->y);
	return 0;
}

static int add_backward(struct kernel *k, const struct op_io *io)
{
	ref_relu_before(&k->desc, io->y, io->dy);
	for (size_t i = 0; i < (size_t)k->desc.n * extent_size(&k->desc.out); i++) {
		if (io->dx)
			io->dx[i] = io->dy[i];
		if (io->dx2)
			io->dx2[i] = k->desc.scale * io->dy[i];
	}
	return 0;
}

/* Where element y of the result comes from: *ret_second: of x2. */
static size_t joined_from(const struct op_desc *d, size_t y, bool *ret_second)
{
	size_t c = (size_t)d->out.c, a = (size_t)(d->in.c / d->groups), both = c / (size_t)d->groups;
	size_t pixel = y / c, group = y % c / both, at = y % both, b = both - a;

	*ret_second = at >= a;
	return *ret_second ? pixel * (c - (size_t)d->in.c) + group * b + at - a
			   : pixel * (size_t)d->in.c + group * a + at;
}

static int concat_forward(struct kernel *k, const struct op_io *io)
{
	for (size_t i = 0; i < (size_t)k->desc.n * extent_size(&k->desc.out); i++) {
		bool second;
		size_t from = joined_from(&k->desc, i, &second);

		io->y[i] = second ? io->x2[from] : io->x[from];
	}
	return 0;
}

static int concat_backward(struct kernel *k, const struct op_io *io)
{
	for (size_t i = 0; i < (size_t)k->desc.n * extent_size(&k->desc.out); i++) {
		bool second;
		size_t from = joined_from(&k->desc, i, &second);

		if (second && io->dx2)
			io->dx2[from] = io->dy[i];
		if (!second && io->dx)
			io->dx[from] = io->dy[i];
	}
	return 0;
}

static int dropout_forward(struct kernel *k, const struct op_io *io)
{
	const struct dropout choice = dropout_init(io->seed, &k->desc);

	for (size_t i = 0; i < (size_t)k->desc.n * extent_size(&k->desc.out); i++)
		io->y[i] = dropout_of(&choice, i, io->x[i]);
	return 0;
}

static int dropout_backward(struct kernel *k, const struct op_io *io)
{
	const struct dropout choice = dropout_init(io->seed, &k->desc);

	for (size_t i = 0; io->dx && i < (size_t)k->desc.n * extent_size(&k->desc.out); i++)
		io->dx[i] = dropout_of(&choice, i, io->dy[i]);
	return 0;
}

const struct op_impl ref_relu = {.create = ref_create, .forward = relu_forward, .backward = relu_backward};
const struct op_impl ref_relu6 = {.create = ref_create, .forward = relu_forward, .backward = relu_backward};
const struct op_impl ref_concat = {
	.create = ref_create, .forward = concat_forward, .backward = concat_backward};
const struct op_impl ref_dropout = {
	.create = ref_create, .forward = dropout_forward, .backward = dropout_backward};
const struct op_impl ref_add = {.create = ref_create, .forward = add_forward, .backward = add_backward};
