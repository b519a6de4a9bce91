/* To 8 or 16 bits and back. Rounds halves to even and saturates. */
#include "engine/onnx/half.h"
#include "engine/onnx/op.h"
#include "engine/onnx/quantum.h"

#include <math.h>
#include <string.h>

/* A scale or zero point: one for all, one for each index of the axis, or one for each block of these in each line along the axis. */
struct per_axis {
	const struct onnx_tensor *t; /* NULL: 0 */
	int64_t n, inner;            /* of the axis, elements behind it */
	int64_t block, blocks;       /* indices of a block, 0: no blocks; how many of them */
};

static int per_axis_init(struct onnx_call *c, struct per_axis *p, int i, const struct onnx_tensor *x,
			 int64_t axis)
{
	const int64_t block = c->version < 21 ? 0 : attr_int(c, "block_size", 0);
	bool fits;

	*p = (struct per_axis){.t = call_in(c, i), .n = 1, .inner = 1};
	if (!p->t || (!block && p->t->count == 1))
		return 0;
	if (block) {
		fits = block > 0 && axis >= 0 && axis < x->rank && p->t->rank == x->rank;
		for (int d = 0; fits && d < x->rank; d++)
			fits = p->t->dims[d] ==
			       (d == axis ? x->dims[d] / block + (x->dims[d] % block != 0) : x->dims[d]);
		if (!fits)
			return call_fail(c, "input %d isn't one for each block of %lld", i, (long long)block);
		p->block = block;
		p->blocks = p->t->dims[axis];
		p->n = x->dims[axis];
		for (int d = (int)axis + 1; d < x->rank; d++)
			p->inner *= x->dims[d];
		return 0;
	}
	if (axis < 0 || axis >= x->rank || p->t->count != (size_t)x->dims[axis])
		return call_fail(c, "input %d has %zu elements", i, p->t->count);
	p->n = x->dims[axis];
	for (int d = (int)axis + 1; d < x->rank; d++)
		p->inner *= x->dims[d];
	return 0;
}

static double per_axis_at(const struct per_axis *p, size_t i)
{
	const size_t inner = (size_t)p->inner, n = (size_t)p->n;
	size_t at;

	if (!p->t || !inner || !n)
		return 0;
	at = i / inner % n;
	return tensor_real(p->t,
			   p->block ? (i / inner / n * (size_t)p->blocks + at / (size_t)p->block) * inner +
					      i % inner
				    : at);
}

static void store_saturated(struct onnx_tensor *t, size_t i, double x)
{
	if (isnan(x))
		x = 0;
	if (t->type == ONNX_UINT8)
		((uint8_t *)t->data)[i] = (uint8_t)(x < 0 ? 0 : x > UINT8_MAX ? UINT8_MAX : x);
	else if (t->type == ONNX_INT8)
		((int8_t *)t->data)[i] = (int8_t)(x < INT8_MIN ? INT8_MIN : x > INT8_MAX ? INT8_MAX : x);
	else if (t->type == ONNX_UINT16)
		((uint16_t *)t->data)[i] = (uint16_t)(x < 0 ? 0 : x > UINT16_MAX ? UINT16_MAX : x);
	else
		((int16_t *)t->data)[i] = (int16_t)(x < INT16_MIN   ? INT16_MIN
						    : x > INT16_MAX ? INT16_MAX
								    : x);
}

static bool is_byte(enum onnx_type type)
{
	return type == ONNX_UINT8 || type == ONNX_INT8;
}

static bool is_narrow(enum onnx_type type)
{
	return is_byte(type) || type == ONNX_UINT16 || type == ONNX_INT16;
}

static bool is_single(enum onnx_type type)
{
	return type == ONNX_FLOAT || type == ONNX_FLOAT16 || type == ONNX_BFLOAT16;
}

int op_quantize_linear(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0], *zero = call_in(c, 2);
	const int64_t given = c->version < 21 ? 0 : attr_int(c, "output_dtype", 0);
	const enum onnx_type type = zero ? zero->type : given ? (enum onnx_type)given : ONNX_UINT8;
	const int64_t precision = c->version < 23 ? 0 : attr_int(c, "precision", 0);
	int64_t axis = attr_int(c, "axis", 1);
	struct per_axis scale = {0}, offset = {0};
	int r;

	if (!is_single(x->type) && x->type != ONNX_INT32)
		return call_bad_type(c, 0);
	if (!is_single(c->in[1]->type))
		return call_bad_type(c, 1);
	if (!is_narrow(type))
		return call_unsupported(c, "to type %s", onnx_type_name((int)type));
	if (zero && given && given != (int64_t)type)
		return call_fail(c, "output_dtype isn't the zero point's type");
	if (precision && precision != ONNX_FLOAT)
		return call_unsupported(c, "precision %lld", (long long)precision);
	axis += axis < 0 ? x->rank : 0;
	r = per_axis_init(c, &scale, 1, x, axis);
	if (r == 0)
		r = per_axis_init(c, &offset, 2, x, axis);
	if (r == 0)
		r = call_out(c, 0, type, x->rank, x->dims);
	for (size_t i = 0; r == 0 && i < x->count; i++)
		store_saturated(c->out[0], i,
				(double)rintf((float)tensor_real(x, i) / (float)per_axis_at(&scale, i)) +
					per_axis_at(&offset, i));
	return r;
}

int op_dequantize_linear(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	const int64_t given = c->version < 23 ? 0 : attr_int(c, "output_dtype", 0);
	const enum onnx_type type = given ? (enum onnx_type)given : c->in[1]->type;
	int64_t axis = attr_int(c, "axis", 1);
	struct per_axis scale = {0}, offset = {0};
	int r;

	if (!is_narrow(x->type) && x->type != ONNX_INT32)
		return call_bad_type(c, 0);
	if (!is_single(c->in[1]->type))
		return call_bad_type(c, 1);
	if (!is_single(type))
		return call_unsupported(c, "to type %s", onnx_type_name((int)type));
	axis += axis < 0 ? x->rank : 0;
	r = per_axis_init(c, &scale, 1, x, axis);
	if (r == 0)
		r = per_axis_init(c, &offset, 2, x, axis);
	if (r == 0)
		r = call_out(c, 0, type, x->rank, x->dims);
	for (size_t i = 0; r == 0 && i < x->count; i++) {
		const float y =
			(float)((tensor_real(x, i) - per_axis_at(&offset, i)) * per_axis_at(&scale, i));

		if (type == ONNX_FLOAT)
			((float *)c->out[0]->data)[i] = y;
		else
			((uint16_t *)c->out[0]->data)[i] =
				type == ONNX_FLOAT16 ? half_of_float(y) : bfloat_of_float(y);
	}
	return r;
}

/* The scale covers 0 as well, so that 0 stays 0. */
int op_dynamic_quantize_linear(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	float low = 0, high = 0, scale, zero;
	int r;

	if (x->type != ONNX_FLOAT)
		return call_bad_type(c, 0);
	for (size_t i = 0; i < x->count; i++) {
		low = fminf(low, ((const float *)x->data)[i]);
		high = fmaxf(high, ((const float *)x->data)[i]);
	}
	scale = (high - low) / 255;
	zero = scale > 0 ? rintf(fminf(fmaxf(-low / scale, 0), 255)) : 0;
	r = call_out(c, 0, ONNX_UINT8, x->rank, x->dims);
	if (r == 0)
		r = call_out(c, 1, ONNX_FLOAT, 0, NULL);
	if (r == 0)
		r = call_out(c, 2, ONNX_UINT8, 0, NULL);
	if (r < 0)
		return r;
	*(float *)c->out[1]->data = scale;
	*(uint8_t *)c->out[2]->data = (uint8_t)zero;
	for (size_t i = 0; i < x->count; i++)
		store_saturated(c->out[0], i,
				scale > 0 ? rintf(((const float *)x->data)[i] / scale) + zero : zero);
	return 0;
}

int quantum_widen(struct onnx_call *c, struct onnx_tensor **ret, int i, int i_zero, int axis)
{
	const struct onnx_tensor *x = c->in[i];
	struct per_axis zero = {0};
	struct onnx_tensor *t;
	int r;

	if (!is_byte(x->type))
		return call_bad_type(c, i);
	r = per_axis_init(c, &zero, i_zero, x, axis);
	if (r < 0)
		return r;
	t = call_scratch(c, ONNX_INT32, x->rank, x->dims);
	if (!t)
		return call_error(c);
	for (size_t j = 0; j < x->count; j++)
		((int32_t *)t->data)[j] = (int32_t)(tensor_int(x, j) - (int64_t)per_axis_at(&zero, j));
	*ret = t;
	return 0;
}

int quantum_narrow(struct onnx_call *c, int i_scale_a, int i_scale_b, int i_scale_y, int i_zero_y, int axis)
{
	const struct onnx_tensor *x = c->out[0], *zero = c->in[i_zero_y];
	struct per_axis a = {0}, b = {0}, y = {0}, offset = {0};
	struct onnx_tensor *t;
	int r;

	if (!is_byte(zero->type))
		return call_bad_type(c, i_zero_y);
	axis += axis < 0 ? x->rank : 0;
	r = per_axis_init(c, &a, i_scale_a, x, x->rank - 2);
	if (r == 0)
		r = per_axis_init(c, &b, i_scale_b, x, axis);
	if (r == 0)
		r = per_axis_init(c, &y, i_scale_y, x, axis);
	if (r == 0)
		r = per_axis_init(c, &offset, i_zero_y, x, axis);
	if (r < 0)
		return r;
	t = call_scratch(c, zero->type, x->rank, x->dims);
	if (!t)
		return call_error(c);
	for (size_t i = 0; i < x->count; i++)
		store_saturated(t, i,
				rint((double)((const int32_t *)x->data)[i] *
				     (per_axis_at(&a, i) * per_axis_at(&b, i) / per_axis_at(&y, i))) +
					per_axis_at(&offset, i));
	call_give(c, 0, t);
	return 0;
}
