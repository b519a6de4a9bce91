/* Ops that put elements elsewhere, whatever they are. */
#include "engine/onnx/op.h"

#include <string.h>

/* Output 0 of these dims, each element from the input at `offset` + index · strides. */
static int give_strided(struct onnx_call *c, int i, int rank, const int64_t *dims, int64_t offset,
			const int64_t *strides)
{
	const struct onnx_tensor *in = c->in[0];
	size_t size = onnx_type_size(in->type);
	int64_t dense[ONNX_MAX_RANK];
	int r = call_out(c, i, in->type, rank, dims);

	if (r < 0 || !c->out[i]->count)
		return r;
	dims_strides(rank, dims, dense);
	move_strided(c->out[i]->data, dense, (const char *)in->data + offset * (int64_t)size, strides, rank,
		     dims, size);
	return 0;
}

int op_transpose(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t strides[ONNX_MAX_RANK], moved[ONNX_MAX_RANK], dims[ONNX_MAX_RANK];
	bool seen[ONNX_MAX_RANK] = {false};
	const int64_t *perm;
	size_t n;

	perm = attr_ints(c, "perm", &n);
	if (perm && n != (size_t)in->rank)
		return call_fail(c, "perm has %zu axes at rank %d", n, in->rank);
	dims_strides(in->rank, in->dims, strides);
	for (int d = 0; d < in->rank; d++) {
		int64_t from = perm ? perm[d] : in->rank - 1 - d;

		if (from < 0 || from >= in->rank || seen[from])
			return call_fail(c, "perm is no permutation");
		seen[from] = true;
		dims[d] = in->dims[from];
		moved[d] = strides[from];
	}
	return give_strided(c, 0, in->rank, dims, 0, moved);
}

int op_expand(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t dims[ONNX_MAX_RANK], shape[ONNX_MAX_RANK];
	struct walk w;
	int rank, n, r;

	r = call_ints(c, 1, shape, ONNX_MAX_RANK, &n);
	if (r < 0)
		return r;
	rank = in->rank;
	memcpy(dims, in->dims, sizeof(dims));
	if (dims_count(n, shape) < 0)
		return call_fail(c, "an impossible shape");
	{
		struct onnx_tensor like = {.rank = n};

		memcpy(like.dims, shape, (size_t)n * sizeof(*shape));
		r = call_broadcast(c, &rank, dims, &like);
	}
	if (r < 0)
		return r;
	walk_init(&w, rank, dims);
	walk_broadcast(&w, 0, in->rank, in->dims);
	return give_strided(c, 0, rank, dims, 0, w.stride[0]);
}

int op_tile(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t repeats[ONNX_MAX_RANK], dims[ONNX_MAX_RANK], dense[ONNX_MAX_RANK], strides[ONNX_MAX_RANK];
	size_t size = onnx_type_size(in->type);
	struct walk w;
	int n, r;

	r = call_ints(c, 1, repeats, ONNX_MAX_RANK, &n);
	if (r < 0)
		return r;
	if (n != in->rank || dims_count(n, repeats) < 0)
		return call_fail(c, "%d repeats at rank %d, or negative ones", n, in->rank);
	for (int d = 0; d < n; d++)
		if (__builtin_mul_overflow(in->dims[d], repeats[d], &dims[d]))
			return call_fail(c, "too many repeats");
	r = call_out(c, 0, in->type, n, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	/* the input is copied to where each of its repeats begins */
	dims_strides(n, dims, dense);
	dims_strides(n, in->dims, strides);
	walk_init(&w, n, repeats);
	for (int d = 0; d < n; d++)
		w.stride[0][d] = dense[d] * in->dims[d];
	do
		for (int64_t i = 0; i < w.row; i++)
			move_strided((char *)c->out[0]->data +
					     (w.at[0] + i * walk_step(&w, 0)) * (int64_t)size,
				     dense, in->data, strides, n, in->dims, size);
	while (walk_next(&w));
	return 0;
}

int op_concat(struct onnx_call *c)
{
	const struct onnx_tensor *first = c->in[0];
	size_t size = onnx_type_size(first->type);
	int64_t axis = attr_int(c, "axis", 1), dims[ONNX_MAX_RANK], outer = 1, inner = 1, sum = 0, at = 0;
	int r;

	r = call_axis(c, &axis, first->rank);
	if (r < 0)
		return r;
	for (int i = 0; i < c->n_in; i++) {
		const struct onnx_tensor *t = c->in[i];
		bool fits = t && t->type == first->type && t->rank == first->rank;

		for (int d = 0; fits && d < t->rank; d++)
			fits = d == axis || t->dims[d] == first->dims[d];
		if (!fits)
			return call_fail(c, "input %d is of another shape or type than the first", i);
		if (__builtin_add_overflow(sum, t->dims[axis], &sum))
			return call_fail(c, "too much");
	}
	memcpy(dims, first->dims, sizeof(dims));
	dims[axis] = sum;
	r = call_out(c, 0, first->type, first->rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	for (int d = 0; d < first->rank; d++) {
		outer *= d < axis ? dims[d] : 1;
		inner *= d > axis ? dims[d] : 1;
	}
	for (int i = 0; i < c->n_in; i++) {
		size_t bytes = (size_t)(c->in[i]->dims[axis] * inner) * size;

		for (int64_t o = 0; bytes && o < outer; o++)
			memcpy((char *)c->out[0]->data + (size_t)((o * sum + at) * inner) * size,
			       (const char *)c->in[i]->data + (size_t)o * bytes, bytes);
		at += c->in[i]->dims[axis];
	}
	return 0;
}

int op_split(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t axis = attr_int(c, "axis", 0), dims[ONNX_MAX_RANK], strides[ONNX_MAX_RANK], at = 0;
	const struct onnx_tensor *lengths = c->version >= 13 ? call_in(c, 1) : NULL;
	const int64_t *given = NULL;
	int64_t part, parts = c->version < 18 ? 0 : attr_int(c, "num_outputs", 0);
	size_t n;
	int r;

	r = call_axis(c, &axis, in->rank);
	if (r < 0)
		return r;
	n = (size_t)c->n_out;
	if (parts && (parts != c->n_out || lengths))
		return call_fail(c, "num_outputs of %lld, for %d outputs%s", (long long)parts, c->n_out,
				 lengths ? " of given lengths" : "");
	if (c->version < 13)
		given = attr_ints(c, "split", &n);
	else if (lengths && (lengths->type != ONNX_INT64 || lengths->rank != 1))
		return call_fail(c, "the lengths have to be a vector of int64");
	if (lengths) {
		given = lengths->data;
		n = lengths->count;
	}
	if (given && n != (size_t)c->n_out)
		return call_fail(c, "%zu lengths for %d outputs", n, c->n_out);
	part = in->dims[axis] / c->n_out;
	if (parts) /* the last one may be shorter */
		part += in->dims[axis] % c->n_out != 0;
	else if (!given && in->dims[axis] % c->n_out)
		return call_fail(c, "%lld in %d equal parts", (long long)in->dims[axis], c->n_out);
	memcpy(dims, in->dims, sizeof(dims));
	dims_strides(in->rank, in->dims, strides);
	for (int i = 0; i < c->n_out; i++) {
		dims[axis] = given ? given[i] : part;
		if (parts && dims[axis] > in->dims[axis] - at)
			dims[axis] = in->dims[axis] - at;
		if (dims[axis] < 0 || dims[axis] > in->dims[axis] - at)
			return call_fail(c, "the parts are more than %lld together",
					 (long long)in->dims[axis]);
		r = give_strided(c, i, in->rank, dims, at * strides[axis], strides);
		if (r < 0)
			return r;
		at += dims[axis];
	}
	return at == in->dims[axis]
		       ? 0
		       : call_fail(c, "the parts are less than %lld together", (long long)in->dims[axis]);
}

/* numpy's start:end:step on a dimension; *begin is the first index taken, *n how many are. */
static void slice_range(int64_t dim, int64_t start, int64_t end, int64_t step, int64_t *begin, int64_t *n)
{
	const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? dim : dim - 1;

	start = start < 0 ? start + dim : start;
	end = end < 0 ? end + dim : end;
	start = start < low ? low : start > high ? high : start;
	end = end < low ? low : end > high ? high : end;
	if (step < -INT64_MAX)
		step = -INT64_MAX;
	*begin = start;
	if (step > 0)
		*n = end > start ? (end - start - 1) / step + 1 : 0;
	else
		*n = start > end ? (start - end - 1) / -step + 1 : 0;
}

int op_slice(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t starts[ONNX_MAX_RANK], ends[ONNX_MAX_RANK], axes[ONNX_MAX_RANK], steps[ONNX_MAX_RANK];
	int64_t dims[ONNX_MAX_RANK], strides[ONNX_MAX_RANK], offset = 0;
	int n = 0, n_ends = 0, n_axes = 0, n_steps = 0, r = 0;

	if (c->version < 10) {
		static const char *const names[] = {"starts", "ends", "axes"};
		int64_t *const to[] = {starts, ends, axes};
		int *const counts[] = {&n, &n_ends, &n_axes};

		for (int i = 0; i < 3; i++) {
			size_t many;
			const int64_t *list = attr_ints(c, names[i], &many);

			if (many > ONNX_MAX_RANK)
				return call_fail(c, "%zu %s", many, names[i]);
			if (many)
				memcpy(to[i], list, many * sizeof(*list));
			*counts[i] = (int)many;
		}
	} else {
		r = call_ints(c, 1, starts, ONNX_MAX_RANK, &n);
		if (r == 0)
			r = call_ints(c, 2, ends, ONNX_MAX_RANK, &n_ends);
		if (r == 0 && call_in(c, 3))
			r = call_ints(c, 3, axes, ONNX_MAX_RANK, &n_axes);
		if (r == 0 && call_in(c, 4))
			r = call_ints(c, 4, steps, ONNX_MAX_RANK, &n_steps);
		if (r < 0)
			return r;
	}
	if (n_ends != n || (n_axes && n_axes != n) || (n_steps && n_steps != n) || (!n_axes && n > in->rank))
		return call_fail(c, "%d starts, %d ends, %d axes, %d steps", n, n_ends, n_axes, n_steps);
	memcpy(dims, in->dims, sizeof(dims));
	dims_strides(in->rank, in->dims, strides);
	for (int i = 0; i < n; i++) {
		int64_t axis = n_axes ? axes[i] : i, step = n_steps ? steps[i] : 1, begin;

		r = call_axis(c, &axis, in->rank);
		if (r < 0)
			return r;
		for (int j = 0; j < i; j++) {
			int64_t earlier = n_axes ? axes[j] : j;

			if (earlier == axis || earlier + in->rank == axis)
				return call_fail(c, "axis %lld is given twice", (long long)axis);
		}
		if (step == 0)
			return call_fail(c, "a step of 0");
		slice_range(in->dims[axis], starts[i], ends[i], step, &begin, &dims[axis]);
		if (dims[axis])
			offset += begin * strides[axis];
		strides[axis] =
			dims[axis] > 1 ? strides[axis] * step : 0; /* a step beyond the end counts nothing */
	}
	return give_strided(c, 0, in->rank, dims, offset, strides);
}

/* Blocks of channels to blocks of the plane: (N, b, b, C', H, W) or (N, C', b, b, H, W) to (N, C', H, b, W, b). */
int op_depth_to_space(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	const int64_t b = attr_int(c, "blocksize", 0), *d = in->dims;
	const bool crd = strcmp(attr_string(c, "mode", "DCR"), "CRD") == 0;
	int r;

	if (in->rank != 4 || b < 1 || b > INT32_MAX || d[1] % (b * b))
		return call_fail(c, "rank %d, %lld channels, blocks of %lld", in->rank,
				 in->rank > 1 ? (long long)d[1] : 0, (long long)b);
	{
		int64_t n = d[0], channels = d[1] / (b * b), h = d[2], w = d[3], plane = h * w;
		int64_t dims[6] = {n, channels, h, b, w, b}, shape[4] = {n, channels, h * b, w * b};
		int64_t by_block = crd ? plane : channels * plane;
		int64_t strides[6] = {d[1] * plane, crd ? b * b * plane : plane, w, b * by_block, 1,
				      by_block};
		struct onnx_tensor *view;

		r = give_strided(c, 0, 6, dims, 0, strides);
		if (r == 0)
			r = tensor_view(&view, c->out[0], 4, shape, c->err);
		if (r == 0)
			call_give(c, 0, view);
	}
	return r;
}

/* (N, C, H', b, W', b) to (N, b, b, C, H', W'), or to (N, C, b, b, H', W'). */
int op_space_to_depth(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	const int64_t b = attr_int(c, "blocksize", 0), *d = in->dims;
	const bool crd = c->version >= 28 && strcmp(attr_string(c, "mode", "DCR"), "CRD") == 0;
	struct onnx_tensor *view;
	int r;

	if (in->rank != 4 || b < 1 || b > INT32_MAX || d[2] % b || d[3] % b)
		return call_fail(c, "rank %d, blocks of %lld", in->rank, (long long)b);
	{
		int64_t h = d[2] / b, w = d[3] / b, plane = d[2] * d[3];
		int64_t dims[6] = {d[0], b, b, d[1], h, w}, shape[4] = {d[0], d[1] * b * b, h, w};
		int64_t strides[6] = {d[1] * plane, d[3], 1, plane, b * d[3], b};

		if (crd) {
			dims[1] = d[1];
			dims[3] = b;
			strides[1] = plane;
			strides[2] = d[3];
			strides[3] = 1;
		}
		r = give_strided(c, 0, 6, dims, 0, strides);
		if (r == 0)
			r = tensor_view(&view, c->out[0], 4, shape, c->err);
		if (r == 0)
			call_give(c, 0, view);
	}
	return r;
}

/* The first lengths[b] steps of each sequence turned round. */
int op_reverse_sequence(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *lengths = c->in[1];
	const int64_t batch = attr_int(c, "batch_axis", 1), time = attr_int(c, "time_axis", 0);
	size_t size = onnx_type_size(in->type), bytes;
	int64_t inner = 1, steps, n;
	int r;

	if (in->rank < 2 || batch + time != 1 || (batch != 0 && time != 0))
		return call_fail(c, "rank %d, batch axis %lld, time axis %lld", in->rank, (long long)batch,
				 (long long)time);
	n = in->dims[batch];
	steps = in->dims[time];
	if (lengths->type != ONNX_INT64 || lengths->rank != 1 || lengths->dims[0] != n)
		return call_fail(c, "there has to be a length for each of %lld sequences", (long long)n);
	r = call_out(c, 0, in->type, in->rank, in->dims);
	if (r < 0 || !in->count)
		return r;
	for (int d = 2; d < in->rank; d++)
		inner *= in->dims[d];
	bytes = (size_t)inner * size;
	for (int64_t b = 0; b < n; b++) {
		int64_t len = ((const int64_t *)lengths->data)[b];

		if (len < 0 || len > steps)
			return call_fail(c, "a length of %lld in %lld steps", (long long)len,
					 (long long)steps);
		for (int64_t t = 0; t < steps; t++) {
			int64_t from = t < len ? len - 1 - t : t;
			size_t here = (size_t)(batch ? t * n + b : b * steps + t);
			size_t there = (size_t)(batch ? from * n + b : b * steps + from);

			memcpy((char *)c->out[0]->data + here * bytes, (const char *)in->data + there * bytes,
			       bytes);
		}
	}
	return 0;
}
