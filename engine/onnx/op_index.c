/* Ops that pick elements by index, or put them there. Negative indices count from the end. */
#include "engine/onnx/op.h"

#include <stdlib.h>
#include <string.h>

/* Index i of the tensor, within 0 … n-1. */
static int index_at(struct onnx_call *c, const struct onnx_tensor *t, size_t i, int64_t n, int64_t *ret)
{
	int64_t at = tensor_int(t, i);

	if (at < -n || at >= n)
		return call_fail(c, "index %lld in %lld", (long long)at, (long long)n);
	*ret = at < 0 ? at + n : at;
	return 0;
}

static int check_indices(struct onnx_call *c, int i)
{
	if (c->in[i]->type != ONNX_INT64 && c->in[i]->type != ONNX_INT32)
		return call_fail(c, "indices of type %s", onnx_type_name(c->in[i]->type));
	return 0;
}

/* Elements before and behind an axis. */
static void around(const struct onnx_tensor *t, int64_t axis, int64_t *outer, int64_t *inner)
{
	*outer = *inner = 1;
	for (int d = 0; d < t->rank; d++) {
		*outer *= d < axis ? t->dims[d] : 1;
		*inner *= d > axis ? t->dims[d] : 1;
	}
}

int op_gather(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *indices = c->in[1];
	int64_t axis = attr_int(c, "axis", 0), dims[2 * ONNX_MAX_RANK], outer, inner, n;
	size_t bytes;
	char *to;
	int r, rank = 0;

	r = check_indices(c, 1);
	if (r == 0)
		r = call_axis(c, &axis, in->rank);
	if (r < 0)
		return r;
	for (int d = 0; d < axis; d++)
		dims[rank++] = in->dims[d];
	for (int d = 0; d < indices->rank; d++)
		dims[rank++] = indices->dims[d];
	for (int d = (int)axis + 1; d < in->rank; d++)
		dims[rank++] = in->dims[d];
	r = call_out(c, 0, in->type, rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	around(in, axis, &outer, &inner);
	n = in->dims[axis];
	bytes = (size_t)inner * onnx_type_size(in->type);
	to = c->out[0]->data;
	for (int64_t o = 0; o < outer; o++)
		for (size_t i = 0; i < indices->count; i++, to += bytes) {
			int64_t at;

			r = index_at(c, indices, i, n, &at);
			if (r < 0)
				return r;
			memcpy(to, (const char *)in->data + (size_t)(o * n + at) * bytes, bytes);
		}
	return 0;
}

/* Where in `in`, in elements, each element of the indices points, one after another. */
struct pointing {
	struct walk w; /* 0: in, with no step along the axis; over the indices' shape */
	int64_t axis, n, stride, column;
	size_t i;
};

static int pointing_init(struct onnx_call *c, struct pointing *p, const struct onnx_tensor *in,
			 const struct onnx_tensor *indices)
{
	int64_t strides[ONNX_MAX_RANK];
	int r;

	p->axis = attr_int(c, "axis", 0);
	r = call_axis(c, &p->axis, in->rank);
	if (r < 0)
		return r;
	if (indices->rank != in->rank)
		return call_fail(c, "indices of rank %d at rank %d", indices->rank, in->rank);
	for (int d = 0; d < in->rank; d++)
		if (d != p->axis && indices->dims[d] > in->dims[d])
			return call_fail(c, "more indices than elements along axis %d", d);
	p->n = in->dims[p->axis];
	dims_strides(in->rank, in->dims, strides);
	p->stride = strides[p->axis];
	strides[p->axis] = 0;
	walk_init(&p->w, indices->rank, indices->dims);
	walk_strides(&p->w, 0, strides);
	p->column = 0;
	p->i = 0;
	return 0;
}

static int pointing_next(struct onnx_call *c, struct pointing *p, const struct onnx_tensor *indices,
			 int64_t *at)
{
	int r = index_at(c, indices, p->i++, p->n, at);

	if (r < 0)
		return r;
	*at = p->w.at[0] + p->column * walk_step(&p->w, 0) + *at * p->stride;
	if (++p->column == p->w.row) {
		p->column = 0;
		walk_next(&p->w);
	}
	return 0;
}

int op_gather_elements(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *indices = c->in[1];
	size_t size = onnx_type_size(in->type);
	struct pointing p;
	int r;

	r = check_indices(c, 1);
	if (r == 0)
		r = pointing_init(c, &p, in, indices);
	if (r == 0)
		r = call_out(c, 0, in->type, indices->rank, indices->dims);
	for (size_t i = 0; r == 0 && i < indices->count; i++) {
		int64_t at;

		r = pointing_next(c, &p, indices, &at);
		if (r == 0)
			memcpy((char *)c->out[0]->data + i * size, (const char *)in->data + (size_t)at * size,
			       size);
	}
	return r;
}

/* What a scatter does where there is something already. */
enum combine { COMBINE_SET, COMBINE_ADD, COMBINE_MUL, COMBINE_MAX, COMBINE_MIN };

static int combine_of(struct onnx_call *c, enum combine *ret)
{
	static const char *const names[] = {"none", "add", "mul", "max", "min"};
	const char *name = attr_string(c, "reduction", "none");
	const enum combine last = c->version < 18 ? COMBINE_MUL : COMBINE_MIN;

	for (*ret = COMBINE_SET; *ret <= last && strcmp(name, names[*ret]) != 0;)
		++*ret;
	if (*ret > last)
		return call_unsupported(c, "reduction %.40s", name);
	if (*ret == COMBINE_SET || c->in[0]->type == ONNX_FLOAT || c->in[0]->type == ONNX_DOUBLE ||
	    type_is_integer(c->in[0]->type))
		return 0;
	return call_bad_type(c, 0);
}

/* x: what is there, y: what is added; A: the type that sums and products are computed in */
#define COMBINE_CASE(id, T, A)                                         \
	case id: {                                                     \
		const T x = ((T *)to)[i], y = ((const T *)from)[j];    \
		((T *)to)[i] = how == COMBINE_ADD   ? (T)((A)x + (A)y) \
			       : how == COMBINE_MUL ? (T)((A)x * (A)y) \
			       : how == COMBINE_MAX ? (x < y ? y : x)  \
						    : (x > y ? y : x); \
		break;                                                 \
	}
#define COMBINE_FLOAT_CASE(id, T, ...)   COMBINE_CASE(id, T, T)
#define COMBINE_INTEGER_CASE(id, T, ...) COMBINE_CASE(id, T, uint64_t)

static void combine(enum combine how, enum onnx_type type, void *to, size_t i, const void *from, size_t j)
{
	size_t size = onnx_type_size(type);

	if (how == COMBINE_SET) {
		memcpy((char *)to + i * size, (const char *)from + j * size, size);
		return;
	}
	switch (type) {
		FLOAT_CASES(COMBINE_FLOAT_CASE, )
		INTEGER_CASES(COMBINE_INTEGER_CASE, )
	default:
		break;
	}
}

/* Output 0 begins as a copy of input 0. */
static int copy_input(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int r = call_out(c, 0, in->type, in->rank, in->dims);

	if (r == 0 && in->count)
		memcpy(c->out[0]->data, in->data, in->count * onnx_type_size(in->type));
	return r;
}

int op_scatter_elements(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *indices = c->in[1], *updates = c->in[2];
	enum combine how;
	struct pointing p;
	int r;

	if (updates->type != in->type ||
	    !dims_equal(updates->rank, updates->dims, indices->rank, indices->dims))
		return call_fail(c, "the updates have another type or shape");
	r = check_indices(c, 1);
	if (r == 0)
		r = combine_of(c, &how);
	if (r == 0)
		r = pointing_init(c, &p, in, indices);
	if (r == 0)
		r = copy_input(c);
	for (size_t i = 0; r == 0 && i < indices->count; i++) {
		int64_t at;

		r = pointing_next(c, &p, indices, &at);
		if (r == 0)
			combine(how, in->type, c->out[0]->data, (size_t)at, updates->data, i);
	}
	return r;
}

/* Index tuple i (of `depth` numbers) of the indices: the elements before what it points to in dims. */
static int tuple_at(struct onnx_call *c, const struct onnx_tensor *indices, size_t i, int depth,
		    const int64_t *dims, int64_t *ret)
{
	int64_t at = 0;

	for (int d = 0; d < depth; d++) {
		int64_t step;
		int r = index_at(c, indices, i * (size_t)depth + (size_t)d, dims[d], &step);

		if (r < 0)
			return r;
		at = at * dims[d] + step;
	}
	*ret = at;
	return 0;
}

int op_gather_nd(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *indices = c->in[1];
	const int64_t batch = attr_int(c, "batch_dims", 0);
	int64_t dims[2 * ONNX_MAX_RANK], batches = 1, inner = 1, of_batch = 1;
	size_t tuples, bytes;
	int r, rank = 0, depth, first;

	r = check_indices(c, 1);
	if (r < 0)
		return r;
	if (indices->rank < 1 || batch < 0 || batch >= indices->rank || batch >= in->rank ||
	    indices->dims[indices->rank - 1] < 1 || indices->dims[indices->rank - 1] > in->rank - batch)
		return call_fail(c, "indices of rank %d at rank %d", indices->rank, in->rank);
	depth = (int)indices->dims[indices->rank - 1];
	first = (int)batch;
	for (int d = 0; d < first; d++) {
		if (in->dims[d] != indices->dims[d])
			return call_fail(c, "batches of %lld and %lld", (long long)in->dims[d],
					 (long long)indices->dims[d]);
		batches *= in->dims[d];
	}
	for (int d = 0; d < indices->rank - 1; d++)
		dims[rank++] = indices->dims[d];
	for (int d = first + depth; d < in->rank; d++) {
		dims[rank++] = in->dims[d];
		inner *= in->dims[d];
	}
	r = call_out(c, 0, in->type, rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	for (int d = first; d < first + depth; d++)
		of_batch *= in->dims[d];
	tuples = indices->count / (size_t)depth / (size_t)batches;
	bytes = (size_t)inner * onnx_type_size(in->type);
	for (size_t i = 0; i < tuples * (size_t)batches; i++) {
		int64_t at;

		r = tuple_at(c, indices, i, depth, in->dims + first, &at);
		if (r < 0)
			return r;
		at += (int64_t)(i / tuples) * of_batch;
		memcpy((char *)c->out[0]->data + i * bytes, (const char *)in->data + (size_t)at * bytes,
		       bytes);
	}
	return 0;
}

int op_scatter_nd(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *indices = c->in[1], *updates = c->in[2];
	int64_t dims[2 * ONNX_MAX_RANK], inner = 1;
	int r, rank = 0, depth;
	enum combine how;
	size_t tuples = 1;

	if (indices->type != ONNX_INT64 || indices->rank < 1 || indices->dims[indices->rank - 1] > in->rank)
		return call_fail(c, "indices of type %s and rank %d", onnx_type_name(indices->type),
				 indices->rank);
	depth = (int)indices->dims[indices->rank - 1];
	for (int d = 0; d < indices->rank - 1; d++) {
		dims[rank++] = indices->dims[d];
		tuples *= (size_t)indices->dims[d];
	}
	for (int d = depth; d < in->rank; d++) {
		dims[rank++] = in->dims[d];
		inner *= in->dims[d];
	}
	if (updates->type != in->type || !dims_equal(updates->rank, updates->dims, rank, dims))
		return call_fail(c, "the updates have another type or shape");
	r = combine_of(c, &how);
	if (r == 0)
		r = copy_input(c);
	for (size_t i = 0; r == 0 && updates->count && i < tuples; i++) {
		int64_t at;

		r = tuple_at(c, indices, i, depth, in->dims, &at);
		for (int64_t j = 0; r == 0 && j < inner; j++)
			combine(how, in->type, c->out[0]->data, (size_t)(at * inner + j), updates->data,
				i * (size_t)inner + (size_t)j);
	}
	return r;
}

int op_where(struct onnx_call *c)
{
	const struct onnx_tensor *a = c->in[1], *b = c->in[2];
	size_t size = onnx_type_size(a->type);
	int64_t dims[ONNX_MAX_RANK] = {0};
	int r = 0, rank = 0;
	struct walk w;

	if (c->in[0]->type != ONNX_BOOL || a->type != b->type)
		return call_fail(c, "inputs of types %s, %s and %s", onnx_type_name(c->in[0]->type),
				 onnx_type_name(a->type), onnx_type_name(b->type));
	for (int i = 0; r == 0 && i < 3; i++)
		r = call_broadcast(c, &rank, dims, c->in[i]);
	if (r == 0)
		r = call_out(c, 0, a->type, rank, dims);
	if (r < 0)
		return r;
	walk_init(&w, rank, dims);
	walk_broadcast(&w, 0, rank, dims);
	for (int i = 0; i < 3; i++)
		walk_broadcast(&w, i + 1, c->in[i]->rank, c->in[i]->dims);
	walk_join(&w);
	do
		for (int64_t i = 0; i < w.row; i++) {
			bool yes = ((const uint8_t *)c->in[0]->data)[w.at[1] + i * walk_step(&w, 1)];
			int64_t from = yes ? w.at[2] + i * walk_step(&w, 2) : w.at[3] + i * walk_step(&w, 3);

			memcpy((char *)c->out[0]->data + (size_t)(w.at[0] + i) * size,
			       (const char *)(yes ? a : b)->data + (size_t)from * size, size);
		}
	while (walk_next(&w));
	return 0;
}

/* What may be given as a float, too: INT32_MIN for what no dimension can be. */
static int64_t whole_at(const struct onnx_tensor *t, size_t i)
{
	double x = tensor_real(t, i);

	return x > -0x1p52 && x < 0x1p52 ? (int64_t)x : INT32_MIN;
}

/* Indices out of range give a line of off values. */
int op_one_hot(struct onnx_call *c)
{
	const struct onnx_tensor *indices = c->in[0], *depth = c->in[1], *values = c->in[2];
	int64_t axis = attr_int(c, "axis", -1), dims[ONNX_MAX_RANK + 1], n, outer = 1, inner = 1;
	size_t size = onnx_type_size(values->type);
	char *to;
	int r, rank = indices->rank + 1;

	if (depth->count != 1 || values->count != 2)
		return call_fail(c, "the depth has to be a number, the values two");
	n = whole_at(depth, 0);
	r = call_axis(c, &axis, rank);
	if (r < 0)
		return r;
	for (int d = 0; d < rank; d++) {
		dims[d] = d < axis ? indices->dims[d] : d == axis ? n : indices->dims[d - 1];
		outer *= d < axis ? dims[d] : 1;
		inner *= d > axis ? dims[d] : 1;
	}
	r = call_out(c, 0, values->type, rank, dims);
	if (r < 0)
		return r;
	to = c->out[0]->data;
	for (int64_t o = 0; o < outer; o++)
		for (int64_t j = 0; j < n; j++)
			for (int64_t i = 0; i < inner; i++, to += size) {
				int64_t at = whole_at(indices, (size_t)(o * inner + i));

				at = at < 0 ? at + n : at;
				memcpy(to, (const char *)values->data + (at == j ? size : 0), size);
			}
	return 0;
}

/* (rank, number of elements that aren't 0) */
int op_non_zero(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t dims[2] = {in->rank ? in->rank : 1, 0}, column = 0;
	int r;

	for (size_t i = 0; i < in->count; i++)
		dims[1] += tensor_real(in, i) != 0;
	r = call_out(c, 0, ONNX_INT64, 2, dims);
	if (r < 0)
		return r;
	for (size_t i = 0; i < in->count; i++) {
		int64_t rest = (int64_t)i;

		if (tensor_real(in, i) == 0)
			continue;
		if (!in->rank)
			((int64_t *)c->out[0]->data)[column] = 0;
		for (int d = in->rank - 1; d >= 0; d--) {
			((int64_t *)c->out[0]->data)[d * dims[1] + column] = rest % in->dims[d];
			rest /= in->dims[d];
		}
		column++;
	}
	return 0;
}

int op_compress(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *condition = c->in[1];
	const bool flat = !onnx_attr_find(c->node, "axis");
	int64_t axis = attr_int(c, "axis", 0), dims[ONNX_MAX_RANK], outer = 1, inner = 1, n, taken = 0;
	const uint8_t *yes = condition->data;
	size_t bytes;
	char *to;
	int r;

	if (condition->type != ONNX_BOOL || condition->rank != 1)
		return call_fail(c, "the condition has to be a vector of bool");
	if (flat) {
		n = (int64_t)in->count;
	} else {
		r = call_axis(c, &axis, in->rank);
		if (r < 0)
			return r;
		n = in->dims[axis];
		around(in, axis, &outer, &inner);
	}
	for (int64_t i = 0; i < n && (size_t)i < condition->count; i++)
		taken += yes[i];
	memcpy(dims, in->dims, sizeof(dims));
	dims[flat ? 0 : axis] = taken;
	r = call_out(c, 0, in->type, flat ? 1 : in->rank, dims);
	if (r < 0)
		return r;
	bytes = (size_t)inner * onnx_type_size(in->type);
	to = c->out[0]->data;
	for (int64_t o = 0; bytes && o < outer; o++)
		for (int64_t i = 0; i < n && (size_t)i < condition->count; i++) {
			if (!yes[i])
				continue;
			memcpy(to, (const char *)in->data + (size_t)(o * n + i) * bytes, bytes);
			to += bytes;
		}
	return 0;
}
