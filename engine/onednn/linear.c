/* An inner product over the whole map: its weight counts c, h, w (PyTorch's flatten) while the map lies as h,
 * w, c. */
#include "engine/onednn/bytes.h"
#include "engine/onednn/int8.h"

static int create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	bool plane = d->in.h * d->in.w > 1;
	int rank = plane ? 4 : 2, r = 0;
	struct weighted_descs descs = {0};
	dnnl_memory_desc_t x, y, weight, bias;
	dnnl_dims_t x_dims = {d->n, d->in.c, d->in.h, d->in.w}, y_dims = {d->n, d->out.c};
	dnnl_dims_t weight_dims = {d->out.c, d->in.c, d->in.h, d->in.w}, bias_dims = {d->out.c};
	bool int8 = precision_steps(d->x_type);
	dnnl_dims_t strides = {int8 ? (int64_t)onednn_int8_row(d) : d->weight_ld, d->in.h * d->in.w, d->in.w,
			       1};
	dnnl_inner_product_desc_t what;

	if (bytes_suits(d))
		return bytes_create(ret, d, sibling, err);
	if (!onednn_int8_suits(d))
		goto out;
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&x, rank, x_dims, onednn_type(d->x_type),
						plane ? dnnl_nhwc : dnnl_nc));
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&y, 2, y_dims, onednn_type(d->y_type), dnnl_nc));
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_x));
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(
		&weight, rank, weight_dims, int8 ? dnnl_s8 : onednn_type(d->x_type), dnnl_format_tag_any));
	DNNL_CHECK(dnnl_memory_desc_init_by_strides(&descs.weight_view, rank, weight_dims,
						    int8 ? dnnl_s8 : dnnl_f32, strides));
	DNNL_CHECK(dnnl_inner_product_forward_desc_init(&what, dnnl_forward_inference, &x, &weight,
							d->bias ? &bias : NULL, &y));
	r = onednn_describe(&descs.forward, &what, d, NULL, NULL);
	if (r == 0 && d->training) {
		DNNL_CHECK(dnnl_inner_product_backward_weights_desc_init(&what, &x, &weight,
									 d->bias ? &bias : NULL, &y));
		r = onednn_describe(&descs.backward_weights, &what, NULL, descs.forward, NULL);
	}
	if (r == 0 && d->need_dx) {
		DNNL_CHECK(dnnl_inner_product_backward_data_desc_init(&what, &x, &weight, &y));
		r = onednn_describe(&descs.backward_data, &what, NULL, descs.forward, NULL);
	}
	if (r == 0)
		return weighted_create(ret, d, sibling, &descs, err);
out:
	if (descs.forward)
		dnnl_primitive_desc_destroy(descs.forward);
	if (descs.backward_weights)
		dnnl_primitive_desc_destroy(descs.backward_weights);
	return err_set(err, ERR_UNSUPPORTED_OP, "onednn linear of %d×%d×%d to %d", d->in.c, d->in.h, d->in.w,
		       d->out.c);
}

const struct op_impl onednn_linear = {.create = create,
				      .bf16 = true,
				      .int8 = true,
				      .destroy = weighted_destroy,
				      .trim = weighted_trim,
				      .forward = weighted_forward,
				      .backward = weighted_backward};
