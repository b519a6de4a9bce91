/* From one type to another. */
#include "engine/onnx/half.h"
#include "engine/onnx/op.h"

#include <math.h>

/* Out of range there is no answer that all agree on: the nearest is taken, 0 for what is no number. */
static int64_t to_int64(double x)
{
	return isnan(x) ? 0 : x < -0x1p63 ? INT64_MIN : x >= 0x1p63 ? INT64_MAX : (int64_t)x;
}

static uint64_t to_uint64(double x)
{
	return isnan(x) || x < 0 ? (uint64_t)to_int64(x) : x >= 0x1p64 ? UINT64_MAX : (uint64_t)x;
}

/* Each element as a double or, whole numbers that a double can't hold, as int64. */
#define CAST_CASE(id, T, expr)                           \
	case id:                                         \
		for (size_t i = 0; i < in->count; i++)   \
			((T *)out->data)[i] = (T)(expr); \
		return 0;

static int cast(struct onnx_call *c, enum onnx_type type)
{
	struct onnx_tensor *in = c->in[0], *out;
	const bool whole = type_is_integer(in->type) || in->type == ONNX_BOOL;
	int r;

	if (in->type == type) {
		call_give(c, 0, tensor_ref(in));
		return 0;
	}
	if (!onnx_type_size(type))
		return call_unsupported(c, "to type %s", onnx_type_name(type));
	r = call_out(c, 0, type, in->rank, in->dims);
	if (r < 0)
		return r;
	out = c->out[0];
	switch (type) {
		CAST_CASE(ONNX_FLOAT, float, tensor_real(in, i))
		CAST_CASE(ONNX_DOUBLE, double, tensor_real(in, i))
		CAST_CASE(ONNX_FLOAT16, uint16_t, half_of_float((float)tensor_real(in, i)))
		CAST_CASE(ONNX_BFLOAT16, uint16_t, bfloat_of_float((float)tensor_real(in, i)))
		CAST_CASE(ONNX_BOOL, uint8_t, whole ? tensor_int(in, i) != 0 : tensor_real(in, i) != 0)
		CAST_CASE(ONNX_UINT64, uint64_t,
			  whole ? (uint64_t)tensor_int(in, i) : to_uint64(tensor_real(in, i)))
		CAST_CASE(ONNX_INT64, int64_t, whole ? tensor_int(in, i) : to_int64(tensor_real(in, i)))
		CAST_CASE(ONNX_INT32, int32_t, whole ? tensor_int(in, i) : to_int64(tensor_real(in, i)))
		CAST_CASE(ONNX_UINT32, uint32_t, whole ? tensor_int(in, i) : to_int64(tensor_real(in, i)))
		CAST_CASE(ONNX_INT16, int16_t, whole ? tensor_int(in, i) : to_int64(tensor_real(in, i)))
		CAST_CASE(ONNX_UINT16, uint16_t, whole ? tensor_int(in, i) : to_int64(tensor_real(in, i)))
		CAST_CASE(ONNX_INT8, int8_t, whole ? tensor_int(in, i) : to_int64(tensor_real(in, i)))
		CAST_CASE(ONNX_UINT8, uint8_t, whole ? tensor_int(in, i) : to_int64(tensor_real(in, i)))
	default:
		return call_unsupported(c, "to type %s", onnx_type_name(type));
	}
}

/* Before version 6 the type is given by name, which nothing exports any more. */
int op_cast(struct onnx_call *c)
{
	return cast(c, (enum onnx_type)attr_int(c, "to", 0));
}

int op_cast_like(struct onnx_call *c)
{
	return cast(c, c->in[1]->type);
}
