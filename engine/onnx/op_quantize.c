/* To 8 bits and back. Rounds halves to even and saturates. */
#include "engine/onnx/op.h"
#include "engine/onnx/quantum.h"

#include <math.h>
#include <string.h>

/* A scale or zero point: one for all, or one for each index of the axis. */
struct per_axis {
	const struct onnx_tensor *t; /* NULL: 0 */
	int64_t n, inner;            /* of the axis, elements behind it */
};

static int per_axis_init(struct onnx_call *c, struct per_axis *p, int i, const struct onnx_tensor *x,
			 int64_t axis)
{
	*p = (struct per_axis){call_in(c, i), 1, 1};
	if (!p->t || p->t->count == 1)
		return 0;
	if (axis < 0 || axis >= x->rank || p->t->count != (size_t)x->dims[axis])
		return call_fail(c, "input %d has %zu elements", i, p->t->count);
	p->n = x->dims[axis];
	for (int d = (int)axis + 1; d < x->rank; d++)
		p->inner *= x->dims[d];
	return 0;
}

static double per_axis_at(const struct per_axis *p, size_t i)
{
	return p->t ? tensor_real(p->t, i / (size_t)p->inner % (size_t)p->n) : 0;
}

static void store_saturated(struct onnx_tensor *t, size_t i, double x)
{
	if (isnan(x))
		x = 0;
	if (t->type == ONNX_UINT8)
		((uint8_t *)t->data)[i] = (uint8_t)(x < 0 ? 0 : x > UINT8_MAX ? UINT8_MAX : x);
	else
		((int8_t *)t->data)[i] = (int8_t)(x < INT8_MIN ? INT8_MIN : x > INT8_MAX ? INT8_MAX : x);
}

static bool is_byte(enum onnx_type type)
{
	return type == ONNX_UINT8 || type == ONNX_INT8;
}

int op_quantize_linear(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0], *zero = call_in(c, 2);
	const enum onnx_type type = zero ? zero->type : ONNX_UINT8;
	int64_t axis = attr_int(c, "axis", 1);
	struct per_axis scale = {0}, offset = {0};
	int r;

	if (x->type != ONNX_FLOAT && x->type != ONNX_INT32)
		return call_bad_type(c, 0);
	if (!is_byte(type))
		return call_bad_type(c, 2);
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
	int64_t axis = attr_int(c, "axis", 1);
	struct per_axis scale = {0}, offset = {0};
	int r;

	if (!is_byte(x->type) && x->type != ONNX_INT32)
		return call_bad_type(c, 0);
	axis += axis < 0 ? x->rank : 0;
	r = per_axis_init(c, &scale, 1, x, axis);
	if (r == 0)
		r = per_axis_init(c, &offset, 2, x, axis);
	if (r == 0)
		r = call_out(c, 0, ONNX_FLOAT, x->rank, x->dims);
	for (size_t i = 0; r == 0 && i < x->count; i++)
		((float *)c->out[0]->data)[i] =
			(float)((tensor_real(x, i) - per_axis_at(&offset, i)) * per_axis_at(&scale, i));
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
