/* relu: y = max(x, 0); its gradient passes where y > 0. add: y = x + x2. */
#include "engine/ref/ref.h"

static int relu_forward(struct kernel *k, const struct op_io *io)
{
	for (size_t i = 0; i < (size_t)k->desc.n * extent_size(&k->desc.out); i++)
		io->y[i] = io->x[i] > 0 ? io->x[i] : 0;
	return 0;
}

static int relu_backward(struct kernel *k, const struct op_io *io)
{
	for (size_t i = 0; io->dx && i < (size_t)k->desc.n * extent_size(&k->desc.out); i++)
		io->dx[i] = io->y[i] > 0 ? io->dy[i] : 0;
	return 0;
}

static int add_forward(struct kernel *k, const struct op_io *io)
{
	for (size_t i = 0; i < (size_t)k->desc.n * extent_size(&k->desc.out); i++)
		io->y[i] = io->x[i] + io->x2[i];
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
			io->dx2[i] = io->dy[i];
	}
	return 0;
}

const struct op_impl ref_relu = {.create = ref_create, .forward = relu_forward, .backward = relu_backward};
const struct op_impl ref_add = {.create = ref_create, .forward = add_forward, .backward = add_backward};
