/*
 * conv2d and linear of int8 and uint8 values. An output's weights have a step of their own, by which the largest of them is 127, and
 * products of steps are summed in 32 bits:
 *
 *	y = (Σ x·w + bias / (x_step·w_step)) · x_step·w_step / y_step
 *
 * The factor is a post-op, one number an output, so that a primitive doesn't depend on the weights and equal layers share it.
 */
#include "engine/onednn/int8.h"

#include <string.h>

/* The bit that VNNI adds to AVX-512's. */
enum { AVX512_VNNI = dnnl_cpu_isa_avx512_core_vnni & ~dnnl_cpu_isa_avx512_core };

bool onednn_multiplies_bytes(void)
{
	return (dnnl_get_effective_cpu_isa() & AVX512_VNNI) != 0;
}

bool onednn_int8_suits(const struct op_desc *d)
{
	if (precision_steps(d->y_type) && d->residual && !precision_steps(d->x2_type))
		return false;
	if (!precision_steps(d->x_type))
		return !precision_steps(d->y_type);
	return onednn_multiplies_bytes();
}

int onednn_int8_factor_format(dnnl_memory_desc_t *ret, const struct op_desc *d)
{
	dnnl_dims_t dims = {1, d->out.c, 1, 1};
	int r = 0;

	if (d->op == OP_conv2d)
		DNNL_CHECK(dnnl_memory_desc_init_by_tag(ret, 4, dims, dnnl_f32, dnnl_nhwc));
	else
		DNNL_CHECK(dnnl_memory_desc_init_by_tag(ret, 2, dims, dnnl_f32, dnnl_nc));
out:
	return r;
}

size_t onednn_int8_row(const struct op_desc *d)
{
	return d->op == OP_conv2d ? (size_t)(d->in.c / d->groups) * (size_t)d->kernel * (size_t)d->kernel_w
				  : extent_size(&d->in);
}

void onednn_int8_weights(const struct op_desc *d, const struct op_io *io, int8_t *to, float *steps)
{
	size_t row = onednn_int8_row(d);

#pragma omp parallel for schedule(static) if ((size_t)d->out.c * row > 1 << 18)
	for (int o = 0; o < d->out.c; o++) {
		const float *weight = io->weight + o * d->weight_ld;
		float factor = d->norm ? onednn_norm_factor(d, io, o) : 1;
		float largest = fabsf(factor) * numbers_largest(weight, row);
		int8_t *of = to + (size_t)o * row;

		steps[o] = largest > 0 ? precision_step(PRECISION_INT8, largest) : 1;
		if (largest > 0)
			numbers_round(weight, of, PRECISION_INT8, steps[o] / factor, row);
		else
			memset(of, 0, row);
	}
}

void onednn_int8_factors(const struct op_desc *d, const struct op_io *io, const float *steps, float *factors,
			 float *bias)
{
	for (int o = 0; o < d->out.c; o++) {
		float product = d->x_step * steps[o];

		factors[o] = precision_steps(d->y_type) ? product / d->y_step : product;
		if (bias)
			bias[o] = (d->norm ? onednn_norm_shift(d, io, o) : io->bias[o]) / product;
	}
}
