/* Pools. */
#include "engine/onnx/op.h"
#include "engine/onnx/window.h"

#include <math.h>
#include <string.h>

static int pool_out(struct onnx_call *c, const struct window *w)
{
	const struct onnx_tensor *x = c->in[0];
	int64_t dims[ONNX_MAX_RANK] = {x->dims[0], x->dims[1]};
	int r;

	memcpy(dims + 2, w->out, (size_t)w->n * sizeof(*dims));
	r = call_out(c, 0, x->type, x->rank, dims);
	if (r == 0 && c->n_out > 1)
		r = call_out(c, 1, ONNX_INT64, x->rank, dims);
	return r;
}

/* The same element, counted with the first dimension of the plane running fastest. */
static int64_t column_major(const struct window *w, int64_t at)
{
	int64_t index[WINDOW_MAX], sum = 0;

	for (int d = w->n - 1; d >= 0; d--) {
		index[d] = at % w->in[d];
		at /= w->in[d];
	}
	for (int d = w->n - 1; d >= 0; d--)
		sum = sum * w->in[d] + index[d];
	return sum;
}

#define MAX_POOL_CASE(id, T, ...)                                                                            \
	case id:                                                                                             \
		for (int64_t p = 0; p < planes; p++)                                                         \
			for (int64_t o = 0; o < w.out_plane; o++) {                                          \
				const T *from = (const T *)x->data + p * w.in_plane;                         \
				int64_t best = -1;                                                           \
				for (int64_t t = 0; t < w.taps; t++) {                                       \
					int64_t at = window_at(&w, o, t);                                    \
					if (at >= 0 && (best < 0 || from[at] > from[best]))                  \
						best = at;                                                   \
				}                                                                            \
				((T *)c->out[0]->data)[p * w.out_plane + o] = best < 0 ? 0 : from[best];     \
				if (c->out[1])                                                               \
					((int64_t *)c->out[1]->data)[p * w.out_plane + o] =                  \
						best < 0                                                     \
							? 0                                                  \
							: p * w.in_plane +                                   \
								  (columns ? column_major(&w, best) : best); \
			}                                                                                    \
		return 0;

int op_max_pool(struct onnx_call *c)
{
	const bool columns = attr_int(c, "storage_order", 0);
	const struct onnx_tensor *x = c->in[0];
	struct window w;
	int64_t planes;
	int r;

	r = window_init(c, &w, x, NULL, attr_int(c, "ceil_mode", 0));
	if (r == 0)
		r = pool_out(c, &w);
	if (r < 0 || !c->out[0]->count)
		return r;
	planes = x->dims[0] * x->dims[1];
	switch (x->type) {
		FLOAT_CASES(MAX_POOL_CASE, )
		MAX_POOL_CASE(ONNX_UINT8, uint8_t, )
		MAX_POOL_CASE(ONNX_INT8, int8_t, )
	default:
		return call_bad_type(c, 0);
	}
}

/* How many taps of the window at output o lie in the input or its pads, but not beyond (ceil_mode). */
static int64_t taps_with_pads(const struct window *w, int64_t o)
{
	int64_t count = 1;

	for (int d = w->n - 1; d >= 0; d--) {
		int64_t first = o % w->out[d] * w->stride[d], inside = 0;

		for (int64_t t = 0; t < w->kernel[d]; t++)
			inside += first + t * w->dilation[d] < w->begin[d] + w->in[d] + w->end[d];
		count *= inside;
		o /= w->out[d];
	}
	return count;
}

#define AVERAGE_POOL_CASE(id, T, ...)                                                             \
	case id:                                                                                  \
		for (int64_t p = 0; p < planes; p++)                                              \
			for (int64_t o = 0; o < w.out_plane; o++) {                               \
				const T *from = (const T *)x->data + p * w.in_plane;              \
				int64_t n = 0;                                                    \
				double sum = 0;                                                   \
				for (int64_t t = 0; t < w.taps; t++) {                            \
					int64_t at = window_at(&w, o, t);                         \
					if (at < 0)                                               \
						continue;                                         \
					sum += power ? pow(fabs((double)from[at]), (double)power) \
						     : from[at];                                  \
					n++;                                                      \
				}                                                                 \
				if (pads_too)                                                     \
					n = taps_with_pads(&w, o);                                \
				((T *)c->out[0]->data)[p * w.out_plane + o] =                     \
					(T)(power ? pow(sum, 1 / (double)power)                   \
					    : n   ? sum / (double)n                               \
						  : 0);                                             \
			}                                                                         \
		return 0;

/* power 0: the mean; else the p-norm. */
static int average(struct onnx_call *c, bool pads_too, int64_t power)
{
	const struct onnx_tensor *x = c->in[0];
	struct window w;
	int64_t planes;
	int r;

	r = window_init(c, &w, x, NULL, attr_int(c, "ceil_mode", 0));
	if (r == 0)
		r = pool_out(c, &w);
	if (r < 0 || !c->out[0]->count)
		return r;
	planes = x->dims[0] * x->dims[1];
	switch (x->type) {
		FLOAT_CASES(AVERAGE_POOL_CASE, )
	default:
		return call_bad_type(c, 0);
	}
}

int op_average_pool(struct onnx_call *c)
{
	return average(c, attr_int(c, "count_include_pad", 0), 0);
}

int op_lp_pool(struct onnx_call *c)
{
	const int64_t p = attr_int(c, "p", 2);

	return p < 1 ? call_fail(c, "p of %lld", (long long)p) : average(c, false, p);
}

enum global { GLOBAL_MEAN, GLOBAL_MAX, GLOBAL_NORM };

#define GLOBAL_CASE(id, T, ...)                                                                     \
	case id:                                                                                    \
		for (size_t p = 0; p < c->out[0]->count; p++) {                                     \
			const T *from = (const T *)x->data + p * plane;                             \
			double sum = how == GLOBAL_MAX ? from[0] : 0;                               \
			for (size_t i = 0; i < plane; i++)                                          \
				sum = how == GLOBAL_MEAN  ? sum + from[i]                           \
				      : how == GLOBAL_MAX ? (from[i] > sum ? from[i] : sum)         \
							  : sum + pow(fabs((double)from[i]), norm); \
			((T *)c->out[0]->data)[p] = (T)(how == GLOBAL_MEAN  ? sum / (double)plane   \
							: how == GLOBAL_MAX ? sum                   \
									    : pow(sum, 1 / norm));  \
		}                                                                                   \
		return 0;

static int global(struct onnx_call *c, enum global how, double norm)
{
	const struct onnx_tensor *x = c->in[0];
	int64_t dims[ONNX_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1};
	size_t plane;
	int r;

	if (x->rank < 3)
		return call_fail(c, "an input of rank %d", x->rank);
	dims[0] = x->dims[0];
	dims[1] = x->dims[1];
	r = call_out(c, 0, x->type, x->rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	plane = x->count / c->out[0]->count;
	if (!plane)
		return call_fail(c, "an empty plane");
	switch (x->type) {
		FLOAT_CASES(GLOBAL_CASE, )
	default:
		return call_bad_type(c, 0);
	}
}

int op_global_average_pool(struct onnx_call *c)
{
	return global(c, GLOBAL_MEAN, 0);
}

int op_global_max_pool(struct onnx_call *c)
{
	return global(c, GLOBAL_MAX, 0);
}

int op_global_lp_pool(struct onnx_call *c)
{
	const int64_t p = attr_int(c, "p", 2);

	return p < 1 ? call_fail(c, "p of %lld", (long long)p) : global(c, GLOBAL_NORM, (double)p);
}

/*
 * Puts what a MaxPool took back to where its second output says: indices into the tensor that the shape without
 * output_shape would have.
 */
int op_max_unpool(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0], *indices = c->in[1];
	int64_t dims[ONNX_MAX_RANK], given[ONNX_MAX_RANK], strides[ONNX_MAX_RANK];
	size_t size = onnx_type_size(x->type), n_kernel, n_strides, n_pads;
	const int64_t *kernel = attr_ints(c, "kernel_shape", &n_kernel);
	const int64_t *stride = attr_ints(c, "strides", &n_strides), *pads = attr_ints(c, "pads", &n_pads);
	size_t n = x->rank > 2 ? (size_t)x->rank - 2 : 0;
	int r, rank;

	if (!n || n_kernel != n || (stride && n_strides != n) || (pads && n_pads != 2 * n))
		return call_fail(c, "rank %d and a kernel of %zu dimensions", x->rank, n_kernel);
	if (indices->type != ONNX_INT64 || !dims_equal(x->rank, x->dims, indices->rank, indices->dims))
		return call_fail(c, "the indices have another shape, or aren't int64");
	dims[0] = x->dims[0];
	dims[1] = x->dims[1];
	for (size_t d = 0; d < n; d++) {
		int64_t step = stride ? stride[d] : 1, cut = pads ? pads[d] + pads[n + d] : 0;

		if (step < 1 || step > INT32_MAX || kernel[d] < 1 || kernel[d] > INT32_MAX || cut < 0 ||
		    x->dims[d + 2] > INT32_MAX)
			return call_fail(c, "strides, kernel or pads out of range");
		dims[d + 2] = (x->dims[d + 2] - 1) * step - cut + kernel[d];
	}
	rank = x->rank;
	memcpy(given, dims, sizeof(given));
	if (call_in(c, 2)) {
		r = call_ints(c, 2, given, ONNX_MAX_RANK, &rank);
		if (r < 0)
			return r;
		if (rank != x->rank)
			return call_fail(c, "output_shape of rank %d", rank);
	}
	if (dims_count(rank, dims) < 0)
		return call_fail(c, "an impossible shape");
	r = call_out(c, 0, x->type, rank, given);
	if (r < 0 || !c->out[0]->count)
		return r;
	memset(c->out[0]->data, 0, c->out[0]->count * size);
	dims_strides(rank, given, strides);
	for (size_t i = 0; i < x->count; i++) {
		int64_t rest = ((const int64_t *)indices->data)[i], to = 0;

		if (rest < 0 || rest >= dims_count(rank, dims))
			return call_fail(c, "index %lld", (long long)rest);
		for (int d = rank - 1; d >= 0; d--) {
			int64_t at = rest % dims[d];

			if (at >= given[d])
				return call_fail(c, "an index outside of output_shape");
			to += at * strides[d];
			rest /= dims[d];
		}
		memcpy((char *)c->out[0]->data + (size_t)to * size, (const char *)x->data + i * size, size);
	}
	return 0;
}
