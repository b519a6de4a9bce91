/* Ops that make tensors of little or nothing. */
#include "engine/onnx/op.h"

#include <math.h>
#include <string.h>

int op_constant(struct onnx_call *c)
{
	struct onnx_tensor *value = attr_tensor(c, "value");
	const struct onnx_attr *a;
	int64_t n;
	int r;

	if (value) {
		call_give(c, 0, tensor_ref(value));
		return 0;
	}
	if (onnx_attr_find(c->node, "value_float")) {
		r = call_out(c, 0, ONNX_FLOAT, 0, NULL);
		if (r == 0)
			*(float *)c->out[0]->data = attr_float(c, "value_float", 0);
		return r;
	}
	if (onnx_attr_find(c->node, "value_int")) {
		r = call_out(c, 0, ONNX_INT64, 0, NULL);
		if (r == 0)
			*(int64_t *)c->out[0]->data = attr_int(c, "value_int", 0);
		return r;
	}
	a = onnx_attr_find(c->node, "value_floats");
	if (a && a->type == ONNX_ATTR_FLOATS) {
		n = (int64_t)a->n;
		r = call_out(c, 0, ONNX_FLOAT, 1, &n);
		if (r == 0 && n)
			memcpy(c->out[0]->data, a->floats, a->n * sizeof(float));
		return r;
	}
	a = onnx_attr_find(c->node, "value_ints");
	if (a && a->type == ONNX_ATTR_INTS) {
		n = (int64_t)a->n;
		r = call_out(c, 0, ONNX_INT64, 1, &n);
		if (r == 0 && n)
			memcpy(c->out[0]->data, a->ints, a->n * sizeof(int64_t));
		return r;
	}
	return call_unsupported(c, "what is neither a tensor, floats nor ints");
}

int op_constant_of_shape(struct onnx_call *c)
{
	static const uint64_t zero;
	const struct onnx_tensor *value = attr_tensor(c, "value");
	const void *fill = value ? value->data : &zero;
	int64_t dims[ONNX_MAX_RANK];
	size_t size;
	int rank, r;

	r = call_ints(c, 0, dims, ONNX_MAX_RANK, &rank);
	if (r < 0)
		return r;
	if (value && value->count != 1)
		return call_fail(c, "the value has %zu elements", value->count);
	r = call_out(c, 0, value ? value->type : ONNX_FLOAT, rank, dims);
	if (r < 0)
		return r;
	size = onnx_type_size(c->out[0]->type);
	for (size_t i = 0; i < c->out[0]->count; i++)
		memcpy((char *)c->out[0]->data + i * size, fill, size);
	return 0;
}

#define RANGE_CASE(id, T, ...)                                                                        \
	case id:                                                                                      \
		for (int64_t i = 0; i < n; i++)                                                       \
			((T *)c->out[0]->data)[i] = (T)(*(T *)start->data + (T)i * *(T *)step->data); \
		return 0;

#define RANGE_INTEGER_CASE(id, T)                                                                     \
	case id:                                                                                      \
		for (int64_t i = 0; i < n; i++)                                                       \
			((T *)c->out[0]->data)[i] = (T)((uint64_t)tensor_int(start, 0) +              \
							(uint64_t)i * (uint64_t)tensor_int(step, 0)); \
		return 0;

int op_range(struct onnx_call *c)
{
	const struct onnx_tensor *start = c->in[0], *limit = c->in[1], *step = c->in[2];
	double steps;
	int64_t n;
	int r;

	for (int i = 0; i < 3; i++)
		if (c->in[i]->count != 1 || c->in[i]->type != start->type)
			return call_fail(c, "start, limit and step have to be scalars of one type");
	steps = ceil((tensor_real(limit, 0) - tensor_real(start, 0)) / tensor_real(step, 0));
	if (!(steps < 0x1p53)) /* step 0 too */
		return call_fail(c, "more elements than can be counted");
	n = steps > 0 ? (int64_t)steps : 0;
	r = call_out(c, 0, start->type, 1, &n);
	if (r < 0)
		return r;
	switch (start->type) {
		FLOAT_CASES(RANGE_CASE, )
		RANGE_INTEGER_CASE(ONNX_INT16, int16_t)
		RANGE_INTEGER_CASE(ONNX_INT32, int32_t)
		RANGE_INTEGER_CASE(ONNX_INT64, int64_t)
	default:
		return call_bad_type(c, 0);
	}
}

int op_eye_like(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	const enum onnx_type type = (enum onnx_type)attr_int(c, "dtype", in->type);
	const int64_t k = attr_int(c, "k", 0);
	struct onnx_tensor *out;
	int r;

	if (in->rank != 2)
		return call_fail(c, "rank %d", in->rank);
	r = call_out(c, 0, type, 2, in->dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	out = c->out[0];
	memset(out->data, 0, out->count * onnx_type_size(type));
	for (int64_t i = 0; i < in->dims[0]; i++) {
		int64_t j, at = i * in->dims[1];

		if (__builtin_add_overflow(i, k, &j) || j < 0 || j >= in->dims[1])
			continue;
		at += j;
		if (type == ONNX_FLOAT)
			((float *)out->data)[at] = 1;
		else if (type == ONNX_DOUBLE)
			((double *)out->data)[at] = 1;
		else if (type_is_half(type))
			((uint16_t *)out->data)[at] = type == ONNX_FLOAT16 ? 0x3c00 : 0x3f80;
		else /* little-endian: the first byte of a whole number */
			((uint8_t *)out->data)[(size_t)at * onnx_type_size(type)] = 1;
	}
	return 0;
}

/* What lies on and above (upper) or below diagonal k is kept, the rest is 0. */
int op_trilu(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *by = call_in(c, 1);
	const int64_t k = by && by->count == 1 ? tensor_int(by, 0) : 0;
	const bool upper = attr_int(c, "upper", 1);
	size_t size = onnx_type_size(in->type);
	int64_t h, w;
	int r;

	if (in->rank < 2)
		return call_fail(c, "rank %d", in->rank);
	r = call_out(c, 0, in->type, in->rank, in->dims);
	if (r < 0 || !in->count)
		return r;
	h = in->dims[in->rank - 2];
	w = in->dims[in->rank - 1];
	for (size_t i = 0; i < in->count; i++) {
		int64_t column = (int64_t)i % w, row = (int64_t)i / w % h;
		int64_t distance = column - row;
		bool keep = upper ? distance >= k : distance <= k;

		if (keep)
			memcpy((char *)c->out[0]->data + i * size, (const char *)in->data + i * size, size);
		else
			memset((char *)c->out[0]->data + i * size, 0, size);
	}
	return 0;
}
