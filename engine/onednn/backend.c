#include "engine/onednn/onednn.h"

#include <stdlib.h>

extern const struct backend onednn_backend;

const struct backend onednn_backend = {
	.name = "onednn",
	.add_to = onednn_add_to,
	.gains = onednn_gains,
	.ops =
		{
			[OP_conv2d] = &onednn_conv2d,
			[OP_linear] = &onednn_linear,
			[OP_group_norm] = &onednn_group_norm,
			[OP_batch_norm] = &onednn_batch_norm,
			[OP_relu] = &onednn_relu,
			[OP_relu6] = &onednn_relu6,
			[OP_add] = &onednn_add,
			[OP_concat] = &onednn_concat,
			[OP_dropout] = &onednn_dropout,
			[OP_max_pool] = &onednn_max_pool,
			[OP_avg_pool] = &onednn_avg_pool,
			[OP_global_avg_pool] = &onednn_global_avg_pool,
		},
};

int plain_create(struct kernel **ret, const struct op_desc *desc, struct kernel *sibling, struct err *err)
{
	struct kernel *k = calloc(1, sizeof(*k));

	(void)sibling;
	if (!k)
		return err_set(err, ERR_NO_MEMORY, "a kernel of %s", op_info(desc->op)->name);
	*ret = k;
	return 0;
}
