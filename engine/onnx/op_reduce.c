/* Ops that make one element of many. Floats are summed as doubles, whole numbers modulo 2^64. */
#include "engine/onnx/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The outputs, and for each of them what it is made of. */
struct reduction {
	struct onnx_tensor *in, *out;
	const void *from;    /* the input's elements; of none something to count from all the same */
	struct walk kept;    /* 0: output, 1: input */
	struct walk reduced; /* 0: input, from where kept says */
	int64_t n;           /* elements for each output */
};

static int reduction_init(struct onnx_call *c, struct reduction *p)
{
	const bool keep = attr_int(c, "keepdims", 1);
	int64_t dims[ONNX_MAX_RANK], strides[ONNX_MAX_RANK], around[ONNX_MAX_RANK], within[ONNX_MAX_RANK];
	int64_t step_around[ONNX_MAX_RANK], step_within[ONNX_MAX_RANK], dense[ONNX_MAX_RANK];
	/* the axes are an input from version 18 on, of ReduceSum from 13 on */
	const bool by_input = c->node->op->in_max > 1;
	int n, r, rank = 0, n_around = 0, n_within = 0;
	struct onnx_tensor *in = c->in[0];
	bool mask[ONNX_MAX_RANK], all;

	r = call_axes(c, by_input ? 1 : -1, by_input ? NULL : "axes", in->rank, mask, &n);
	if (r < 0)
		return r;
	/* over no axes each element is one by itself: what isn't its sum (a square, a logarithm) is taken all the same */
	all = n == 0 && !(by_input && attr_int(c, "noop_with_empty_axes", 0));
	dims_strides(in->rank, in->dims, strides);
	for (int d = 0; d < in->rank; d++) {
		if (mask[d] || all) {
			within[n_within] = in->dims[d];
			step_within[n_within++] = strides[d];
			if (keep)
				dims[rank++] = 1;
		} else {
			around[n_around] = in->dims[d];
			step_around[n_around++] = strides[d];
			dims[rank++] = in->dims[d];
		}
	}
	r = call_out(c, 0, in->type, rank, dims);
	if (r < 0)
		return r;
	p->in = in;
	p->from = in->count ? in->data : (const void *)in;
	p->out = c->out[0];
	p->n = dims_count(n_within, within);
	walk_init(&p->kept, n_around, around);
	walk_init(&p->reduced, n_within, within);
	dims_strides(n_around, around, dense);
	if (n_around) {
		walk_strides(&p->kept, 0, dense);
		walk_strides(&p->kept, 1, step_around);
	}
	if (n_within)
		walk_strides(&p->reduced, 0, step_within);
	walk_join(&p->reduced);
	return 0;
}

#define REDUCE_CASE(id, T, A, first, step, last)                                                         \
	case id:                                                                                         \
		do                                                                                       \
			for (int64_t i = 0; i < p.kept.row; i++) {                                       \
				typedef T elem;                                                          \
				const elem *from =                                                       \
					(const elem *)p.from + p.kept.at[1] + i * walk_step(&p.kept, 1); \
				const int64_t n = p.n, stride = walk_step(&p.reduced, 0);                \
				A a = (first);                                                           \
				(void)n;                                                                 \
				do                                                                       \
					for (int64_t j = 0; j < p.reduced.row; j++) {                    \
						const elem x = from[p.reduced.at[0] + j * stride];       \
						a = (step);                                              \
					}                                                                \
				while (walk_next(&p.reduced));                                           \
				((elem *)p.out->data)[p.kept.at[0] + i * walk_step(&p.kept, 0)] =        \
					(elem)(last);                                                    \
			}                                                                                \
		while (walk_next(&p.kept));                                                              \
		return 0;

#define REDUCE_FLOATS(...)                                  \
	REDUCE_CASE(ONNX_FLOAT, float, double, __VA_ARGS__) \
	REDUCE_CASE(ONNX_DOUBLE, double, double, __VA_ARGS__)
#define REDUCE_INTEGERS(...)                                      \
	REDUCE_CASE(ONNX_INT32, int32_t, uint64_t, __VA_ARGS__)   \
	REDUCE_CASE(ONNX_INT64, int64_t, uint64_t, __VA_ARGS__)   \
	REDUCE_CASE(ONNX_UINT32, uint32_t, uint64_t, __VA_ARGS__) \
	REDUCE_CASE(ONNX_UINT64, uint64_t, uint64_t, __VA_ARGS__)

#define REDUCE(name, cases)                                         \
	int op_##name(struct onnx_call *c)                          \
	{                                                           \
		struct reduction p;                                 \
		int r = reduction_init(c, &p);                      \
		if (r < 0)                                          \
			return r;                                   \
		switch (p.in->type) {                               \
			cases default : return call_bad_type(c, 0); \
		}                                                   \
	}

REDUCE(reduce_sum, REDUCE_FLOATS(0, a + x, a) REDUCE_INTEGERS(0, a + (uint64_t)x, a))
REDUCE(reduce_mean,
       REDUCE_FLOATS(0, a + x, a / (double)n) REDUCE_INTEGERS(0, a + (uint64_t)x, n ? (int64_t)a / n : 0))
REDUCE(reduce_prod, REDUCE_FLOATS(1, a *x, a) REDUCE_INTEGERS(1, a *(uint64_t)x, a))
REDUCE(reduce_l1, REDUCE_FLOATS(0, a + fabs((double)x), a))
REDUCE(reduce_l2, REDUCE_FLOATS(0, a + (double)x * x, sqrt(a)))
REDUCE(reduce_log_sum, REDUCE_FLOATS(0, a + x, log(a)))
REDUCE(reduce_sum_square,
       REDUCE_FLOATS(0, a + (double)x * x, a) REDUCE_INTEGERS(0, a + (uint64_t)x * (uint64_t)x, a))

#define FILL_CASE(id, T, value)                         \
	case id:                                        \
		for (size_t i = 0; i < t->count; i++)   \
			((T *)t->data)[i] = (T)(value); \
		return 0;
#define FILL_FLOAT_CASE(id, T, ...) FILL_CASE(id, T, low ? -HUGE_VAL : HUGE_VAL)
#define FILL_INTEGER_CASE(id, T, ...) \
	FILL_CASE(id, T, ((T)-1 < (T)1 ? UINT64_C(1) << (8 * sizeof(T) - 1) : 0) ^ (low ? 0 : UINT64_MAX))

/* The largest of no elements is the least that there is, and the smallest the greatest: from version 20 on. */
static int of_none(struct onnx_call *c, bool low)
{
	struct onnx_tensor *t = c->out[0];

	if (c->version < 20 && t->count)
		return call_fail(c, "of no elements");
	switch (t->type) {
		FLOAT_CASES(FILL_FLOAT_CASE, )
		INTEGER_CASES(FILL_INTEGER_CASE, )
		FILL_CASE(ONNX_BOOL, uint8_t, !low)
	default:
		return call_bad_type(c, 0);
	}
}

/* The accumulator has the element's type. */
#define EXTREME_CASE(id, T, step) REDUCE_CASE(id, T, T, from[0], step, a)
#define EXTREME(name, low, step)                                                                     \
	int op_##name(struct onnx_call *c)                                                           \
	{                                                                                            \
		struct reduction p;                                                                  \
		int r = reduction_init(c, &p);                                                       \
		if (r < 0)                                                                           \
			return r;                                                                    \
		if (!p.in->count)                                                                    \
			return of_none(c, low);                                                      \
		switch (p.in->type) {                                                                \
			FLOAT_CASES(EXTREME_CASE, step)                                              \
			INTEGER_CASES(EXTREME_CASE, step)                                            \
			EXTREME_CASE(ONNX_BOOL, uint8_t, step) default : return call_bad_type(c, 0); \
		}                                                                                    \
	}

EXTREME(reduce_max, true, x > a || x != x ? x : a)
EXTREME(reduce_min, false, x < a || x != x ? x : a)

/* log Σ exp(x) = m + log Σ exp(x - m), m the largest x that is finite. */
#define LARGEST(a, x) ((x) > (a) ? (x) : (a))
#define LOG_SUM_EXP_CASE(id, T, ...)                                                                        \
	case id:                                                                                            \
		do                                                                                          \
			for (int64_t i = 0; i < p.kept.row; i++) {                                          \
				const T *from =                                                             \
					(const T *)p.from + p.kept.at[1] + i * walk_step(&p.kept, 1);       \
				const int64_t stride = walk_step(&p.reduced, 0);                            \
				double m = -HUGE_VAL, sum = 0;                                              \
				do                                                                          \
					for (int64_t j = 0; j < p.reduced.row; j++)                         \
						m = LARGEST(m, (double)from[p.reduced.at[0] + j * stride]); \
				while (walk_next(&p.reduced));                                              \
				if (isinf(m))                                                               \
					m = 0;                                                              \
				do                                                                          \
					for (int64_t j = 0; j < p.reduced.row; j++)                         \
						sum += exp((double)from[p.reduced.at[0] + j * stride] - m); \
				while (walk_next(&p.reduced));                                              \
				((T *)p.out->data)[p.kept.at[0] + i * walk_step(&p.kept, 0)] =              \
					(T)(m + log(sum));                                                  \
			}                                                                                   \
		while (walk_next(&p.kept));                                                                 \
		return 0;

REDUCE(reduce_log_sum_exp, FLOAT_CASES(LOG_SUM_EXP_CASE, ))

/* An axis, and how many elements there are before and behind it. */
struct lines {
	int64_t outer, n, inner;
};

static int lines_init(struct onnx_call *c, struct lines *l, int64_t axis)
{
	const struct onnx_tensor *in = c->in[0];
	int r = call_axis(c, &axis, in->rank);

	if (r < 0)
		return r;
	*l = (struct lines){1, in->dims[axis], 1};
	for (int d = 0; d < in->rank; d++) {
		l->outer *= d < axis ? in->dims[d] : 1;
		l->inner *= d > axis ? in->dims[d] : 1;
	}
	return 0;
}

#define ARG_CASE(id, T, ...)                                                                     \
	case id:                                                                                 \
		for (int64_t o = 0; o < l.outer; o++)                                            \
			for (int64_t i = 0; i < l.inner; i++) {                                  \
				const T *from = (const T *)in->data + o * l.n * l.inner + i;     \
				int64_t best = 0;                                                \
				for (int64_t j = 1; j < l.n; j++) {                              \
					const T x = from[j * l.inner], y = from[best * l.inner]; \
					if ((largest ? x > y : x < y) || (last && x == y))       \
						best = j;                                        \
				}                                                                \
				*to++ = best;                                                    \
			}                                                                        \
		return 0;

static int arg(struct onnx_call *c, bool largest)
{
	const bool keep = attr_int(c, "keepdims", 1), last = attr_int(c, "select_last_index", 0);
	const struct onnx_tensor *in = c->in[0];
	int64_t axis = attr_int(c, "axis", 0), dims[ONNX_MAX_RANK], *to;
	struct lines l;
	int rank = 0, r;

	r = lines_init(c, &l, axis);
	if (r < 0)
		return r;
	axis += axis < 0 ? in->rank : 0;
	for (int d = 0; d < in->rank; d++)
		if (d != axis)
			dims[rank++] = in->dims[d];
		else if (keep)
			dims[rank++] = 1;
	r = call_out(c, 0, ONNX_INT64, rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	if (!l.n)
		return call_fail(c, "of no elements");
	to = c->out[0]->data;
	switch (in->type) {
		FLOAT_CASES(ARG_CASE, )
		INTEGER_CASES(ARG_CASE, )
	default:
		return call_bad_type(c, 0);
	}
}

int op_arg_max(struct onnx_call *c)
{
	return arg(c, true);
}

int op_arg_min(struct onnx_call *c)
{
	return arg(c, false);
}

#define CUM_SUM_CASE(id, T, A)                                                                              \
	case id:                                                                                            \
		for (int64_t o = 0; o < l.outer; o++)                                                       \
			for (int64_t i = 0; i < l.inner; i++) {                                             \
				A sum = 0;                                                                  \
				for (int64_t j = 0; j < l.n; j++) {                                         \
					int64_t at = (o * l.n + (reverse ? l.n - 1 - j : j)) * l.inner + i; \
					const A x = (A)((const T *)c->in[0]->data)[at];                     \
					((T *)c->out[0]->data)[at] = (T)(exclusive ? sum : sum + x);        \
					sum += x;                                                           \
				}                                                                           \
			}                                                                                   \
		return 0;

int op_cum_sum(struct onnx_call *c)
{
	const bool exclusive = attr_int(c, "exclusive", 0), reverse = attr_int(c, "reverse", 0);
	struct lines l = {0};
	int64_t axis;
	int r, n;

	r = call_ints(c, 1, &axis, 1, &n);
	if (r == 0 && n != 1)
		r = call_fail(c, "there is no axis");
	if (r == 0)
		r = lines_init(c, &l, axis);
	if (r == 0)
		r = call_out(c, 0, c->in[0]->type, c->in[0]->rank, c->in[0]->dims);
	if (r < 0)
		return r;
	switch (c->in[0]->type) {
		FLOAT_CASES(CUM_SUM_CASE, double)
		CUM_SUM_CASE(ONNX_INT32, int32_t, uint64_t)
		CUM_SUM_CASE(ONNX_INT64, int64_t, uint64_t)
		CUM_SUM_CASE(ONNX_UINT32, uint32_t, uint64_t)
		CUM_SUM_CASE(ONNX_UINT64, uint64_t, uint64_t)
	default:
		return call_bad_type(c, 0);
	}
}

enum soft { SOFTMAX, LOG_SOFTMAX, HARDMAX };

#define SOFT_CASE(id, T, ...)                                                                         \
	case id:                                                                                      \
		for (int64_t o = 0; o < l.outer; o++)                                                 \
			for (int64_t i = 0; i < l.inner; i++) {                                       \
				const T *x = (const T *)in->data + o * l.n * l.inner + i;             \
				T *y = (T *)c->out[0]->data + o * l.n * l.inner + i;                  \
				int64_t best = 0;                                                     \
				double sum = 0;                                                       \
				for (int64_t j = 1; j < l.n; j++)                                     \
					if (x[j * l.inner] > x[best * l.inner])                       \
						best = j;                                             \
				const T most = l.n ? x[best * l.inner] : 0;                           \
				for (int64_t j = 0; j < l.n && kind != HARDMAX; j++)                  \
					sum += exp((double)(x[j * l.inner] - most));                  \
				for (int64_t j = 0; j < l.n; j++) {                                   \
					const double shifted = (double)(x[j * l.inner] - most);       \
					y[j * l.inner] = (T)(kind == SOFTMAX   ? exp(shifted) / sum   \
							     : kind == HARDMAX ? j == best            \
									       : shifted - log(sum)); \
				}                                                                     \
			}                                                                             \
		return 0;

/* Before version 13 all from the axis on is one line. */
static int soft(struct onnx_call *c, enum soft kind)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t axis = attr_int(c, "axis", c->version < 13 ? 1 : -1);
	struct lines l;
	int r;

	if (c->version < 13 && axis == in->rank) {
		l = (struct lines){(int64_t)in->count, 1, 1};
	} else {
		r = lines_init(c, &l, axis);
		if (r < 0)
			return r;
	}
	if (c->version < 13) {
		l.n *= l.inner;
		l.inner = 1;
	}
	r = call_out(c, 0, in->type, in->rank, in->dims);
	if (r < 0)
		return r;
	switch (in->type) {
		FLOAT_CASES(SOFT_CASE, )
	default:
		return call_bad_type(c, 0);
	}
}

int op_softmax(struct onnx_call *c)
{
	return soft(c, SOFTMAX);
}

int op_log_softmax(struct onnx_call *c)
{
	return soft(c, LOG_SOFTMAX);
}

int op_hardmax(struct onnx_call *c)
{
	return soft(c, HARDMAX);
}

struct candidate {
	double real;
	int64_t whole; /* of whole numbers; unsigned ones with the top bit turned over */
	int64_t at;
};

static int by_size(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (isnan(a->real) != isnan(b->real)) /* no number counts as the largest */
		return isnan(a->real) ? 1 : -1;
	if (a->real != b->real && !isnan(a->real))
		return a->real < b->real ? -1 : 1;
	return (a->whole > b->whole) - (a->whole < b->whole);
}

static int smallest_first(const void *pa, const void *pb)
{
	int order = by_size(pa, pb);
	const struct candidate *a = pa, *b = pb;

	return order ? order : (a->at > b->at) - (a->at < b->at);
}

static int largest_first(const void *pa, const void *pb)
{
	int order = by_size(pb, pa);
	const struct candidate *a = pa, *b = pb;

	return order ? order : (a->at > b->at) - (a->at < b->at);
}

/* Of equals the first come first. They are in order also where `sorted` is 0. */
int op_top_k(struct onnx_call *c)
{
	const bool largest = attr_int(c, "largest", 1);
	const struct onnx_tensor *in = c->in[0];
	int64_t axis = attr_int(c, "axis", -1), k = attr_int(c, "k", -1), dims[ONNX_MAX_RANK];
	size_t size = onnx_type_size(in->type);
	struct candidate *list;
	struct lines l;
	int r, n;

	r = lines_init(c, &l, axis);
	if (r == 0 && c->version >= 10) {
		r = call_ints(c, 1, &k, 1, &n);
		if (r == 0 && n != 1)
			r = call_fail(c, "there is no k");
	}
	if (r < 0)
		return r;
	if (k < 0 || k > l.n)
		return call_fail(c, "%lld of %lld", (long long)k, (long long)l.n);
	memcpy(dims, in->dims, sizeof(dims));
	dims[axis < 0 ? axis + in->rank : axis] = k;
	r = call_out(c, 0, in->type, in->rank, dims);
	if (r == 0)
		r = call_out(c, 1, ONNX_INT64, in->rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	list = malloc((size_t)l.n * sizeof(*list));
	if (!list)
		return err_set(c->err, ERR_NO_MEMORY, "TopK");
	for (int64_t o = 0; o < l.outer; o++)
		for (int64_t i = 0; i < l.inner; i++) {
			for (int64_t j = 0; j < l.n; j++) {
				size_t at = (size_t)((o * l.n + j) * l.inner + i);

				list[j] = (struct candidate){.at = j};
				if (!type_is_integer(in->type))
					list[j].real = tensor_real(in, at);
				else if (in->type == ONNX_UINT64)
					list[j].whole =
						(int64_t)((uint64_t)tensor_int(in, at) ^ UINT64_C(1) << 63);
				else
					list[j].whole = tensor_int(in, at);
			}
			qsort(list, (size_t)l.n, sizeof(*list), largest ? largest_first : smallest_first);
			for (int64_t j = 0; j < k; j++) {
				int64_t to = (o * k + j) * l.inner + i,
					from = (o * l.n + list[j].at) * l.inner + i;

				memcpy((char *)c->out[0]->data + (size_t)to * size,
				       (const char *)in->data + (size_t)from * size, size);
				((int64_t *)c->out[1]->data)[to] = list[j].at;
			}
		}
	free(list);
	return 0;
}
