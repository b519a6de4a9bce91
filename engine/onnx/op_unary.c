/* Ops that make of each element another one. */
#include "engine/onnx/op.h"

#include <math.h>
#include <string.h>
#include <tgmath.h>

/* The value of `expr` for each x of type `elem`. */
#define UNARY_CASE(id, T, expr)                          \
	case id: {                                       \
		typedef T elem;                          \
		const elem *from = in->data;             \
		elem *to = c->out[0]->data;              \
		for (size_t i = 0; i < in->count; i++) { \
			const elem x = from[i];          \
			to[i] = (elem)(expr);            \
		}                                        \
		return 0;                                \
	}

#define UNARY_BODY(cases)                                     \
	struct onnx_tensor *in = c->in[0];                    \
	int r = call_out(c, 0, in->type, in->rank, in->dims); \
	if (r < 0)                                            \
		return r;                                     \
	switch (in->type) {                                   \
		cases default : return call_bad_type(c, 0);   \
	}

#define UNARY_NAMED(function, expr)                       \
	function(struct onnx_call *c)                     \
	{                                                 \
		UNARY_BODY(FLOAT_CASES(UNARY_CASE, expr)) \
	}
#define UNARY(name, expr) UNARY_NAMED(int op_##name, expr)

/* With attributes a and b. */
#define UNARY_WITH(name, attr_a, default_a, attr_b, default_b, expr) \
	int op_##name(struct onnx_call *c)                           \
	{                                                            \
		const float a = attr_float(c, attr_a, default_a);    \
		const float b = attr_float(c, attr_b, default_b);    \
		(void)b;                                             \
		UNARY_BODY(FLOAT_CASES(UNARY_CASE, expr))            \
	}

/* Another expression for whole numbers. */
#define UNARY_NUMBER(name, expr, integer_expr)                                                    \
	int op_##name(struct onnx_call *c)                                                        \
	{                                                                                         \
		UNARY_BODY(FLOAT_CASES(UNARY_CASE, expr) INTEGER_CASES(UNARY_CASE, integer_expr)) \
	}

UNARY(acos, acos(x))
UNARY(acosh, acosh(x))
UNARY(asin, asin(x))
UNARY(asinh, asinh(x))
UNARY(atan, atan(x))
UNARY(atanh, atanh(x))
UNARY(ceil, ceil(x))
UNARY(cos, cos(x))
UNARY(cosh, cosh(x))
UNARY(erf, erf(x))
UNARY(exp, exp(x))
UNARY(floor, floor(x))
UNARY(log, log(x))
UNARY(reciprocal, 1 / x)
UNARY(round, rint(x)) /* halves to even */
UNARY(sigmoid, x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)))
UNARY(sin, sin(x))
UNARY(sinh, sinh(x))
UNARY(softplus, x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)))
UNARY(softsign, x / (1 + fabs(x)))
UNARY(sqrt, sqrt(x))
UNARY(tan, tan(x))
UNARY(tanh, tanh(x))
UNARY(mish, x *tanh(x > 0 ? x + log1p(exp(-x)) : log1p(exp(x))))
UNARY_WITH(swish, "alpha", 1, "", 0, x / (1 + exp(-a * x)))
UNARY(hard_swish, x *fmax((elem)0, fmin((elem)1, x / 6 + (elem)0.5)))
UNARY_WITH(celu, "alpha", 1, "", 0, fmax((elem)0, x) + fmin((elem)0, a *expm1(x / a)))
UNARY_WITH(elu, "alpha", 1, "", 0, x < 0 ? a * expm1(x) : x)
UNARY_WITH(hard_sigmoid, "alpha", 0.2f, "beta", 0.5f, fmax((elem)0, fmin((elem)1, a *x + b)))
UNARY_WITH(leaky_relu, "alpha", 0.01f, "", 0, x < 0 ? a * x : x)
UNARY_WITH(selu, "alpha", 1.67326319217681884765625f, "gamma", 1.05070102214813232421875f,
	   x > 0 ? b * x : b * (a * expm1(x)))
UNARY_WITH(shrink, "lambd", 0.5f, "bias", 0, x<-a ? x + b : x> a ? x - b : 0)
UNARY_WITH(thresholded_relu, "alpha", 1, "", 0, x > a ? x : 0)

UNARY_NUMBER(abs, fabs(x), (elem)-1 < (elem)1 && x < (elem)1 ? (elem)(0 - (uint64_t)x) : x)
UNARY_NUMBER(neg, -x, 0 - (uint64_t)x)
UNARY_NUMBER(relu, x > 0 ? x : x != x ? x : 0, x > (elem)0 ? x : 0)
UNARY_NUMBER(sign, (x > 0) - (x < 0), (x > (elem)0) - (x < (elem)1 && x != 0))

static UNARY_NAMED(int gelu_by_erf, x / 2 * (1 + erf(x * (elem)M_SQRT1_2))) static UNARY_NAMED(
	int gelu_by_tanh,
	x / 2 * (1 + tanh((elem)(M_2_SQRTPI * M_SQRT1_2) * (x + (elem)0.044715 * x * x * x))))

	int op_gelu(struct onnx_call *c)
{
	const char *how = attr_string(c, "approximate", "none");

	if (strcmp(how, "none") != 0 && strcmp(how, "tanh") != 0)
		return call_unsupported(c, "approximate %.40s", how);
	return *how == 'n' ? gelu_by_erf(c) : gelu_by_tanh(c);
}

int op_bitwise_not(struct onnx_call *c)
{
	UNARY_BODY(INTEGER_CASES(UNARY_CASE, ~(uint64_t)x))
}

/* To bool. */
#define TEST_CASE(id, T, expr)                           \
	case id: {                                       \
		const T *from = in->data;                \
		for (size_t i = 0; i < in->count; i++) { \
			const T x = from[i];             \
			to[i] = (expr);                  \
		}                                        \
		return 0;                                \
	}

int op_is_nan(struct onnx_call *c)
{
	struct onnx_tensor *in = c->in[0];
	int r = call_out(c, 0, ONNX_BOOL, in->rank, in->dims);
	uint8_t *to;

	if (r < 0)
		return r;
	to = c->out[0]->data;
	switch (in->type) {
		FLOAT_CASES(TEST_CASE, isnan(x))
	default:
		return call_bad_type(c, 0);
	}
}

int op_is_inf(struct onnx_call *c)
{
	const bool negative = attr_int(c, "detect_negative", 1), positive = attr_int(c, "detect_positive", 1);
	struct onnx_tensor *in = c->in[0];
	int r = call_out(c, 0, ONNX_BOOL, in->rank, in->dims);
	uint8_t *to;

	if (r < 0)
		return r;
	to = c->out[0]->data;
	switch (in->type) {
		FLOAT_CASES(TEST_CASE, isinf(x) && (x > 0 ? positive : negative))
	default:
		return call_bad_type(c, 0);
	}
}

int op_not(struct onnx_call *c)
{
	struct onnx_tensor *in = c->in[0];
	int r = call_out(c, 0, ONNX_BOOL, in->rank, in->dims);

	if (r < 0)
		return r;
	if (in->type != ONNX_BOOL)
		return call_bad_type(c, 0);
	for (size_t i = 0; i < in->count; i++)
		((uint8_t *)c->out[0]->data)[i] = !((const uint8_t *)in->data)[i];
	return 0;
}

/* Before version 11 the bounds are attributes, then scalars that may be left out. */
#define CLIP_CASE(id, T, ...)                                                              \
	case id: {                                                                         \
		const T *from = in->data;                                                  \
		T *to = c->out[0]->data;                                                   \
		const T low = c->version < 11 ? (T)attr_float(c, "min", -HUGE_VALF)        \
			      : min           ? *(T *)min->data                            \
					      : 0;                                                   \
		const T high = c->version < 11 ? (T)attr_float(c, "max", HUGE_VALF)        \
			       : max           ? *(T *)max->data                           \
					       : 0;                                                  \
		const bool lower = c->version < 11 || min, upper = c->version < 11 || max; \
		for (size_t i = 0; i < in->count; i++) {                                   \
			T x = from[i];                                                     \
			if (lower && x < low)                                              \
				x = low;                                                   \
			if (upper && x > high)                                             \
				x = high;                                                  \
			to[i] = x;                                                         \
		}                                                                          \
		return 0;                                                                  \
	}

int op_clip(struct onnx_call *c)
{
	struct onnx_tensor *in = c->in[0], *min = call_in(c, 1), *max = call_in(c, 2);
	int r = call_out(c, 0, in->type, in->rank, in->dims);

	if (r < 0)
		return r;
	if ((min && (min->type != in->type || min->count != 1)) ||
	    (max && (max->type != in->type || max->count != 1)))
		return call_fail(c, "the bounds have to be scalars of the input's type");
	if (c->version < 11 && type_is_integer(in->type))
		return call_bad_type(c, 0);
	switch (in->type) {
		FLOAT_CASES(CLIP_CASE, )
		INTEGER_CASES(CLIP_CASE, )
	default:
		return call_bad_type(c, 0);
	}
}
