/* Ops that make one element of two, with numpy's broadcasting, and folds of them over any number of inputs. */
#include "engine/onnx/op.h"

#include <math.h>
#include <string.h>
#include <tgmath.h>

/* Pairs of inputs a and b, and the output. */
struct pair {
	struct onnx_tensor *a, *b;
	struct walk w; /* 0: output, 1: a, 2: b */
};

/*
 * Before version 7: where `broadcast` is 1 and `axis` is given, b's dimensions are a's from that axis on. Ones are
 * put behind them, then it is numpy's way. *ret is a new reference.
 */
static int aligned(struct onnx_call *c, struct onnx_tensor **ret, const struct onnx_tensor *a,
		   struct onnx_tensor *b)
{
	int64_t axis = attr_int(c, "axis", a->rank - b->rank), dims[ONNX_MAX_RANK];

	if (c->version >= 7 || !attr_int(c, "broadcast", 0)) {
		*ret = tensor_ref(b);
		return 0;
	}
	if (axis < 0)
		axis += a->rank;
	if (axis < 0 || axis + b->rank > a->rank)
		return call_fail(c, "axis %lld at ranks %d and %d", (long long)axis, a->rank, b->rank);
	for (int d = 0; d < a->rank; d++)
		dims[d] = d >= axis && d < axis + b->rank ? b->dims[d - axis] : 1;
	return tensor_view(ret, b, a->rank, dims, c->err);
}

/* Makes the output, of type out or ONNX_NONE for a's, and the walk over it. */
static int pair_init(struct onnx_call *c, struct pair *p, enum onnx_type out)
{
	int64_t dims[ONNX_MAX_RANK];
	int rank, r;

	memset(p, 0, sizeof(*p));
	p->a = c->in[0];
	r = aligned(c, &p->b, p->a, c->in[1]);
	if (r < 0)
		return r;
	onnx_tensor_free(c->in[1]);
	c->in[1] = p->b;
	rank = p->a->rank;
	memcpy(dims, p->a->dims, sizeof(dims));
	r = call_broadcast(c, &rank, dims, p->b);
	if (r < 0)
		return r;
	r = call_out(c, 0, out ? out : p->a->type, rank, dims);
	if (r < 0)
		return r;
	walk_init(&p->w, rank, dims);
	walk_broadcast(&p->w, 0, rank, dims);
	walk_broadcast(&p->w, 1, p->a->rank, p->a->dims);
	walk_broadcast(&p->w, 2, p->b->rank, p->b->dims);
	walk_join(&p->w);
	return 0;
}

static int same_types(struct onnx_call *c)
{
	for (int i = 1; i < c->n_in; i++)
		if (c->in[i]->type != c->in[0]->type)
			return call_fail(c, "inputs of types %s and %s", onnx_type_name(c->in[0]->type),
					 onnx_type_name(c->in[i]->type));
	return 0;
}

/* Rows of T, to rows of U. The plain loop of whole rows is the one that compilers vectorise. */
#define PAIR_CASE(id, T, U, expr)                                                                       \
	case id:                                                                                        \
		if (p.w.row)                                                                            \
			do {                                                                            \
				typedef T elem;                                                         \
				const elem *a = (const elem *)p.a->data + p.w.at[1];                    \
				const elem *b = (const elem *)p.b->data + p.w.at[2];                    \
				U *to = (U *)c->out[0]->data + p.w.at[0];                               \
				const int64_t step_a = walk_step(&p.w, 1), step_b = walk_step(&p.w, 2); \
				if (step_a == 1 && step_b == 1) {                                       \
					for (int64_t i = 0; i < p.w.row; i++) {                         \
						const elem x = a[i], y = b[i];                          \
						to[i] = (U)(expr);                                      \
					}                                                               \
				} else {                                                                \
					for (int64_t i = 0; i < p.w.row; i++) {                         \
						const elem x = a[i * step_a], y = b[i * step_b];        \
						to[i] = (U)(expr);                                      \
					}                                                               \
				}                                                                       \
			} while (walk_next(&p.w));                                                      \
		return 0;

#define SAME_CASE(id, T, expr) PAIR_CASE(id, T, T, expr)
#define BOOL_CASE(id, T, expr) PAIR_CASE(id, T, uint8_t, expr)

#define PAIR_BODY(out_type, cases)                          \
	struct pair p;                                      \
	int r = same_types(c);                              \
	if (r != 0)                                         \
		return r;                                   \
	r = pair_init(c, &p, out_type);                     \
	if (r != 0)                                         \
		return r;                                   \
	switch (p.a->type) {                                \
		cases default : return call_bad_type(c, 0); \
	}

#define ARITHMETIC(function, expr, integer_expr)                                                          \
	function(struct onnx_call *c)                                                                     \
	{                                                                                                 \
		PAIR_BODY(ONNX_NONE, FLOAT_CASES(SAME_CASE, expr) INTEGER_CASES(SAME_CASE, integer_expr)) \
	}
#define COMPARISON(name, expr)                                                                   \
	int op_##name(struct onnx_call *c)                                                       \
	{                                                                                        \
		PAIR_BODY(ONNX_BOOL, FLOAT_CASES(BOOL_CASE, expr) INTEGER_CASES(BOOL_CASE, expr) \
					     BOOL_CASE(ONNX_BOOL, uint8_t, expr))                \
	}
#define BITWISE(name, expr)                                          \
	int op_bitwise_##name(struct onnx_call *c)                   \
	{                                                            \
		PAIR_BODY(ONNX_NONE, INTEGER_CASES(SAME_CASE, expr)) \
	}
#define LOGIC(name, expr)                                                 \
	int op_##name(struct onnx_call *c)                                \
	{                                                                 \
		PAIR_BODY(ONNX_BOOL, BOOL_CASE(ONNX_BOOL, uint8_t, expr)) \
	}

/* Whole numbers wrap around, so they are computed without sign. By 0: 0, as numpy has it. */
#define SIGNED    ((elem)-1 < (elem)1)
#define NEGATE(x) ((elem)(0 - (uint64_t)(x)))
#define QUOTIENT  (y == 0 ? 0 : SIGNED && y == (elem)-1 ? NEGATE(x) : (elem)(x / y))
#define REST      (y == 0 || (SIGNED && y == (elem)-1) ? 0 : (elem)(x % y))

ARITHMETIC(int op_add, x + y, (uint64_t)x + (uint64_t)y)
ARITHMETIC(int op_sub, x - y, (uint64_t)x - (uint64_t)y)
ARITHMETIC(int op_mul, x *y, (uint64_t)x *(uint64_t)y)
ARITHMETIC(int op_div, x / y, QUOTIENT)
/* the sign of the dividend (C) or of the divisor (Python) */
ARITHMETIC(static int mod_c, fmod(x, y), REST)
#define FLOAT_REST fmod(x, y)
ARITHMETIC(static int mod_python,
	   FLOAT_REST == 0                     ? copysign((elem)0, y)
	   : signbit(FLOAT_REST) != signbit(y) ? FLOAT_REST + y
					       : FLOAT_REST,
	   REST != 0 && (REST ^ y) < (elem)1 && SIGNED && (REST ^ y) != 0 ? REST + y : REST)
ARITHMETIC(static int max_pair, x > y || isnan(x) ? x : y, x > y ? x : y)
ARITHMETIC(static int min_pair, x < y || isnan(x) ? x : y, x < y ? x : y)
ARITHMETIC(static int prelu_pair, x < 0 ? x * y : x,
	   x < (elem)1 && x != 0 ? (elem)((uint64_t)x * (uint64_t)y) : x)

COMPARISON(equal, x == y)
COMPARISON(greater, x > y)
COMPARISON(greater_or_equal, x >= y)
COMPARISON(less, x < y)
COMPARISON(less_or_equal, x <= y)
LOGIC(and, x &&y)
LOGIC(or, x || y)
LOGIC(xor, !x != !y)
BITWISE(and, x &y)
BITWISE(or, x | y)
BITWISE(xor, x ^ y)

int op_mod(struct onnx_call *c)
{
	return attr_int(c, "fmod", 0) ? mod_c(c) : mod_python(c);
}

/* By all bits or more, or by less than none, only the sign is left, and of a shift to the left nothing. */
#define FAR      ((uint64_t)y >= 8 * sizeof(elem))
#define NEGATIVE (SIGNED && x != 0 && x < (elem)1)

int op_bit_shift(struct onnx_call *c)
{
	const bool left = strcmp(attr_string(c, "direction", ""), "LEFT") == 0;

	if (c->version < 28 && c->in[0]->type >= ONNX_INT8 && c->in[0]->type <= ONNX_INT64 &&
	    c->in[0]->type != ONNX_UINT16)
		return call_bad_type(c, 0);
	PAIR_BODY(ONNX_NONE, INTEGER_CASES(SAME_CASE, FAR    ? (left || !NEGATIVE ? 0 : -1)
						      : left ? (int64_t)((uint64_t)x << y)
							     : (int64_t)(x >> y)))
}

/* Whole powers of whole numbers, wrapping; of a negative exponent what is left of the fraction. */
static int64_t power(int64_t base, int64_t exponent)
{
	uint64_t result = 1, square = (uint64_t)base;

	if (exponent < 0)
		return base == 1 ? 1 : base == -1 ? (exponent % 2 ? -1 : 1) : 0;
	for (; exponent; exponent >>= 1) {
		if (exponent & 1)
			result *= square;
		square *= square;
	}
	return (int64_t)result;
}

static double in_range(double x, double low, double high)
{
	return isnan(x) ? 0 : x < low ? low : x > high ? high : x;
}

static void store(struct onnx_tensor *t, int64_t i, int64_t whole, double real)
{
	switch (t->type) {
	case ONNX_FLOAT:
		((float *)t->data)[i] = (float)real;
		break;
	case ONNX_DOUBLE:
		((double *)t->data)[i] = real;
		break;
	case ONNX_INT32:
		((int32_t *)t->data)[i] = (int32_t)whole;
		break;
	default:
		((int64_t *)t->data)[i] = whole;
	}
}

/* Base and exponent of different types: the result has the base's. */
static int mixed_power(struct onnx_call *c)
{
	const bool whole = type_is_integer(c->in[0]->type) && type_is_integer(c->in[1]->type);
	struct pair p;
	int r;

	if (c->in[0]->type != ONNX_FLOAT && c->in[0]->type != ONNX_DOUBLE && c->in[0]->type != ONNX_INT32 &&
	    c->in[0]->type != ONNX_INT64)
		return call_bad_type(c, 0);
	if (c->in[1]->type == ONNX_BOOL)
		return call_bad_type(c, 1);
	r = pair_init(c, &p, ONNX_NONE);
	if (r < 0)
		return r;
	do
		for (int64_t i = 0; i < p.w.row; i++) {
			size_t a = (size_t)(p.w.at[1] + i * walk_step(&p.w, 1));
			size_t b = (size_t)(p.w.at[2] + i * walk_step(&p.w, 2));
			double real = whole ? 0 : pow(tensor_real(p.a, a), tensor_real(p.b, b));

			store(c->out[0], p.w.at[0] + i,
			      whole ? power(tensor_int(p.a, a), tensor_int(p.b, b))
				    : (int64_t)in_range(real, -0x1p63, 0x1.fffffffffffffp62),
			      real);
		}
	while (walk_next(&p.w));
	return 0;
}

int op_pow(struct onnx_call *c)
{
	if (c->in[0]->type != c->in[1]->type || type_is_integer(c->in[0]->type))
		return mixed_power(c);
	PAIR_BODY(ONNX_NONE, FLOAT_CASES(SAME_CASE, y == 2 ? x * x : pow(x, y)))
}

/* The slope broadcasts to x only; before version 7 a vector of slopes is one for each channel. */
int op_prelu(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0], *slope = c->in[1];
	int64_t dims[ONNX_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1};
	struct onnx_tensor *view;
	int r;

	if (c->version < 7 && slope->rank == 1 && x->rank > 1) {
		dims[1] = slope->dims[0];
		r = tensor_view(&view, c->in[1], x->rank, dims, c->err);
		if (r < 0)
			return r;
		onnx_tensor_free(c->in[1]);
		c->in[1] = view;
	}
	r = prelu_pair(c);
	if (r == 0 && !dims_equal(c->out[0]->rank, c->out[0]->dims, x->rank, x->dims))
		return call_fail(c, "the slope has more than the input's shape");
	return r;
}

/* Folds all inputs by an op of two. */
static int fold(struct onnx_call *c, onnx_op_fn *op)
{
	struct onnx_tensor *sum = tensor_ref(c->in[0]), *slots[2];
	struct onnx_call two = *c;
	int r = 0;

	two.in = slots;
	two.n_in = 2;
	for (int i = 1; r == 0 && i < c->n_in; i++) {
		slots[0] = sum;
		slots[1] = tensor_ref(c->in[i]);
		r = op(&two);
		onnx_tensor_free(slots[0]);
		onnx_tensor_free(slots[1]);
		sum = c->out[0];
		c->out[0] = NULL;
	}
	if (r == 0)
		call_give(c, 0, sum);
	else
		onnx_tensor_free(sum);
	return r;
}

int op_max(struct onnx_call *c)
{
	return fold(c, max_pair);
}

int op_min(struct onnx_call *c)
{
	return fold(c, min_pair);
}

int op_sum(struct onnx_call *c)
{
	return fold(c, op_add);
}

int op_mean(struct onnx_call *c)
{
	struct onnx_tensor *sum, *mean;
	int r = fold(c, op_add);

	sum = c->out[0];
	if (r < 0 || !sum)
		return r;
	mean = call_scratch(c, sum->type, sum->rank, sum->dims);
	if (!mean)
		return call_error(c);
	for (size_t i = 0; i < sum->count; i++) {
		if (sum->type == ONNX_FLOAT)
			((float *)mean->data)[i] = ((float *)sum->data)[i] / (float)c->n_in;
		else if (sum->type == ONNX_DOUBLE)
			((double *)mean->data)[i] = ((double *)sum->data)[i] / c->n_in;
	}
	call_give(c, 0, mean);
	return mean->type == ONNX_FLOAT || mean->type == ONNX_DOUBLE ? 0 : call_bad_type(c, 0);
}
