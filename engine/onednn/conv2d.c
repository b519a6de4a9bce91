#include "engine/onednn/bytes.h"
#include "engine/onednn/conv3x3.h"
#include "engine/onednn/int8.h"

/* (groups, outputs, inputs, kernel, kernel) when grouped, else without the first; `view`: of the full-width
 * array, or of the dense one that int8 weights are made in. */
static int weight_format(dnnl_memory_desc_t *ret, const struct op_desc *d, bool view)
{
	dnnl_dim_t plane = (dnnl_dim_t)d->kernel * d->kernel_w;
	dnnl_dims_t dims = {d->groups, d->out.c / d->groups, d->in.c / d->groups, d->kernel, d->kernel_w};
	bool int8 = precision_steps(d->x_type);
	int64_t ld = int8 ? (int64_t)onednn_int8_row(d) : d->weight_ld;
	dnnl_dims_t strides = {d->out.c / d->groups * ld, ld, plane, d->kernel_w, 1};
	int skip = d->groups == 1, r = 0;

	if (view)
		DNNL_CHECK(dnnl_memory_desc_init_by_strides(ret, 5 - skip, dims + skip,
							    int8 ? dnnl_s8 : dnnl_f32, strides + skip));
	else
		DNNL_CHECK(dnnl_memory_desc_init_by_tag(ret, 5 - skip, dims + skip,
							int8 ? dnnl_s8 : onednn_type(d->x_type),
							dnnl_format_tag_any));
out:
	return r;
}

/*
 * oneDNN's jit_1x1 gathers the input of a strided 1×1 convolution in a workspace that it takes for whole
 * blocks of channels: with fewer than a block (8 with AVX2, 16 with AVX-512) its weight gradient reads and
 * writes past it (oneDNN issue 6035; seen here with 2.6.3: 4 inputs, AVX2, wrong gradients that change from
 * run to run).
 */
static const char *avoid_in(const struct op_desc *d)
{
	return d->kernel == 1 && d->kernel_w == 1 && d->stride > 1 && d->in.c / d->groups % 16 ? "jit_1x1"
											       : NULL;
}

static int create_direct(struct kernel **ret, const struct op_desc *d, struct kernel *sibling,
			 struct err *err)
{
	struct weighted_descs descs = {0};
	dnnl_memory_desc_t x, y, weight, bias;
	dnnl_dims_t x_dims = {d->n, d->in.c, d->in.h, d->in.w}, y_dims = {d->n, d->out.c, d->out.h, d->out.w};
	dnnl_dims_t bias_dims = {d->out.c}, stride = {d->stride, d->stride}, pad = {d->pad, d->pad_w};
	dnnl_convolution_desc_t what;
	bool has_bias = d->bias || d->norm; /* a norm that is folded in gives one */
	int r = 0;

	if (!onednn_int8_suits(d))
		goto out;
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&x, 4, x_dims, onednn_type(d->x_type), dnnl_nhwc));
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&y, 4, y_dims, onednn_type(d->y_type), dnnl_nhwc));
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_x));
	if (weight_format(&weight, d, false) < 0 || weight_format(&descs.weight_view, d, true) < 0)
		goto out;
	DNNL_CHECK(dnnl_convolution_forward_desc_init(&what, dnnl_forward_inference, dnnl_convolution_direct,
						      &x, &weight, has_bias ? &bias : NULL, &y, stride, pad,
						      pad));
	r = onednn_describe(&descs.forward, &what, d, NULL, NULL);
	if (r == 0 && d->training && !d->norm) {
		DNNL_CHECK(dnnl_convolution_backward_weights_desc_init(&what, dnnl_convolution_direct, &x,
								       &weight, has_bias ? &bias : NULL, &y,
								       stride, pad, pad));
		r = onednn_describe(&descs.backward_weights, &what, NULL, descs.forward, avoid_in(d));
	}
	if (r == 0 && d->need_dx) {
		DNNL_CHECK(dnnl_convolution_backward_data_desc_init(&what, dnnl_convolution_direct, &x,
								    &weight, &y, stride, pad, pad));
		r = onednn_describe(&descs.backward_data, &what, NULL, descs.forward, NULL);
	}
	if (r == 0)
		return weighted_create(ret, d, sibling, &descs, err);
out:
	if (descs.forward)
		dnnl_primitive_desc_destroy(descs.forward);
	if (descs.backward_weights)
		dnnl_primitive_desc_destroy(descs.backward_weights);
	return err_set(err, ERR_UNSUPPORTED_OP, "onednn conv2d of %d×%d×%d to %d×%d×%d in %d groups", d->in.c,
		       d->in.h, d->in.w, d->out.c, d->out.h, d->out.w, d->groups);
}

static int create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	if (bytes_suits(d))
		return bytes_create(ret, d, sibling, err);
	/* a sibling's form, though another suits this batch size better: else both have packed weights */
	return (sibling ? conv3x3_made(sibling) : conv3x3_suits(d)) ? conv3x3_create(ret, d, sibling, err)
								    : create_direct(ret, d, sibling, err);
}

const struct op_impl onednn_conv2d = {.create = create,
				      .bf16 = true,
				      .int8 = true,
				      .destroy = weighted_destroy,
				      .trim = weighted_trim,
				      .forward = weighted_forward,
				      .backward = weighted_backward};
