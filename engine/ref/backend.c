#include "engine/ref/ref.h"

#include <stdlib.h>

static void add_to(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
}

extern const struct backend ref_backend;

const struct backend ref_backend = {
	.name = "ref",
	.add_to = add_to,
	.ops =
		{
			[OP_conv2d] = &ref_conv2d,
			[OP_linear] = &ref_linear,
			[OP_group_norm] = &ref_group_norm,
			[OP_batch_norm] = &ref_batch_norm,
			[OP_relu] = &ref_relu,
			[OP_relu6] = &ref_relu6,
			[OP_add] = &ref_add,
			[OP_concat] = &ref_concat,
			[OP_dropout] = &ref_dropout,
			[OP_max_pool] = &ref_max_pool,
			[OP_avg_pool] = &ref_avg_pool,
			[OP_global_avg_pool] = &ref_global_avg_pool,
		},
};

int ref_create(struct kernel **ret, const struct op_desc *desc, struct kernel *sibling, struct err *err)
{
	struct kernel *k = calloc(1, sizeof(*k));

	(void)desc;
	(void)sibling;
	if (!k)
		return err_set(err, ERR_NO_MEMORY, "a kernel of %s", op_info(desc->op)->name);
	*ret = k;
	return 0;
}

void ref_relu_after(const struct op_desc *d, float *y)
{
	if (d->relu)
		for (size_t i = 0; i < (size_t)d->n * extent_size(&d->out); i++)
			y[i] = ref_cut(d, y[i]);
}

void ref_relu_before(const struct op_desc *d, const float *y, float *dy)
{
	if (d->relu)
		for (size_t i = 0; i < (size_t)d->n * extent_size(&d->out); i++)
			dy[i] = ref_passes(d, y[i]) ? dy[i] : 0;
}
