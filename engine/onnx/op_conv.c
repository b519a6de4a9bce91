/*
 * Convolutions: the windows of some outputs are laid out as columns, and one product of matrices makes these
 * outputs. Columns are made for as many outputs at a time as fit into a cache.
 */
#include "engine/onnx/gemm.h"
#include "engine/onnx/op.h"
#include "engine/onnx/quantum.h"
#include "engine/onnx/window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 1 << 20 }; /* bytes at a time: half of a common second-level cache; chosen */

#define COLUMN_CASE(T)                                                                              \
	case sizeof(T):                                                                             \
		for (int64_t ch = 0; ch < channels; ch++)                                           \
			for (int64_t t = 0; t < w->taps; t++)                                       \
				for (int64_t i = 0; i < n; i++) {                                   \
					int64_t at = window_at(w, first + i, t);                    \
					((T *)columns)[(ch * w->taps + t) * n + i] =                \
						at < 0 ? 0 : ((const T *)x)[ch * w->in_plane + at]; \
				}                                                                   \
		break;

/* (channels · taps, n): the windows of outputs first … first+n-1 */
static void make_columns(const struct window *w, const void *x, size_t size, int64_t channels, int64_t first,
			 int64_t n, void *columns)
{
	switch (size) {
		COLUMN_CASE(uint32_t)
		COLUMN_CASE(uint64_t)
	}
}

static bool is_plain_product(const struct window *w)
{
	for (int d = 0; d < w->n; d++)
		if (w->kernel[d] != 1 || w->stride[d] != 1 || w->begin[d] || w->end[d])
			return false;
	return true;
}

/* Output 0 = x (N, C, …) by weights (M, C / groups, …), both float, double or int32. */
static int convolve(struct onnx_call *c, const struct onnx_tensor *x, const struct onnx_tensor *weight)
{
	const int64_t groups = attr_int(c, "group", 1);
	size_t size = onnx_type_size(x->type);
	int64_t dims[ONNX_MAX_RANK], maps, channels, depth, tile;
	struct onnx_tensor *columns = NULL;
	struct window w;
	bool plain;
	int r;

	if (x->type != weight->type)
		return call_fail(c, "%s by %s", onnx_type_name(x->type), onnx_type_name(weight->type));
	if (x->type != ONNX_FLOAT && x->type != ONNX_DOUBLE && x->type != ONNX_INT32)
		return call_bad_type(c, 0);
	r = window_init(c, &w, x, weight, false);
	if (r < 0)
		return r;
	if (groups < 1 || x->dims[1] % groups || weight->dims[0] % groups ||
	    weight->dims[1] != x->dims[1] / groups)
		return call_fail(c, "%lld channels, %lld groups, weights of %lld×%lld", (long long)x->dims[1],
				 (long long)groups, (long long)weight->dims[0], (long long)weight->dims[1]);
	dims[0] = x->dims[0];
	dims[1] = weight->dims[0];
	memcpy(dims + 2, w.out, (size_t)w.n * sizeof(*dims));
	r = call_out(c, 0, x->type, x->rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	maps = dims[1] / groups;
	channels = weight->dims[1];
	depth = channels * w.taps; /* fits: the weights have as many, and more */
	plain = is_plain_product(&w);
	tile = depth ? COLUMNS / (int64_t)size / depth : w.out_plane;
	tile = plain || tile > w.out_plane ? w.out_plane : tile < 16 ? 16 : tile;
	if (!plain) {
		columns = call_scratch(c, x->type, 2, (int64_t[]){depth, tile});
		if (!columns)
			return call_error(c);
	}
	for (int64_t i = 0; r == 0 && i < dims[0] * groups; i++) {
		const char *from = (const char *)x->data + (size_t)(i * channels * w.in_plane) * size;
		const char *by = (const char *)weight->data + (size_t)(i % groups * maps * depth) * size;
		char *to = (char *)c->out[0]->data + (size_t)(i * maps * w.out_plane) * size;

		for (int64_t o = 0; r == 0 && o < w.out_plane; o += tile) {
			int64_t n = w.out_plane - o < tile ? w.out_plane - o : tile;

			if (!plain)
				make_columns(&w, from, size, channels, o, n, columns->data);
			r = gemm(x->type, false, false, maps, n, depth, by, depth ? depth : 1,
				 plain ? (const void *)from : columns->data, n, false, to + (size_t)o * size,
				 w.out_plane);
		}
	}
	onnx_tensor_free(columns);
	return r < 0 ? err_set(c->err, ERR_NO_MEMORY, "a convolution") : 0;
}

#define BIAS_CASE(id, T, ...)                                                                         \
	case id:                                                                                      \
		for (size_t i = 0; i < y->count; i++)                                                 \
			((T *)y->data)[i] += ((const T *)bias->data)[i / plane % (size_t)y->dims[1]]; \
		return 0;
#define BIAS_INTEGER_CASE(id, T)                                                                        \
	case id:                                                                                        \
		for (size_t i = 0; i < y->count; i++)                                                   \
			((T *)y->data)[i] =                                                             \
				(T)((uint64_t)((T *)y->data)[i] +                                       \
				    (uint64_t)((const T *)bias->data)[i / plane % (size_t)y->dims[1]]); \
		return 0;

/* To output 0 (N, M, …), one number for each of the M. */
static int add_bias(struct onnx_call *c, int i)
{
	const struct onnx_tensor *bias = call_in(c, i);
	struct onnx_tensor *y = c->out[0];
	size_t plane;

	if (!bias)
		return 0;
	if (bias->type != y->type || bias->rank != 1 || bias->dims[0] != y->dims[1])
		return call_fail(c, "a bias of %zu %s for %lld channels", bias->count,
				 onnx_type_name(bias->type), (long long)y->dims[1]);
	if (!y->count)
		return 0;
	plane = y->count / (size_t)(y->dims[0] * y->dims[1]);
	switch (y->type) {
		FLOAT_CASES(BIAS_CASE, )
		BIAS_INTEGER_CASE(ONNX_INT32, int32_t)
	default:
		return call_bad_type(c, i);
	}
}

int op_conv(struct onnx_call *c)
{
	int r = c->in[0]->type == ONNX_INT32 ? call_bad_type(c, 0) : convolve(c, c->in[0], c->in[1]);

	return r < 0 ? r : add_bias(c, 2);
}

static int widened(struct onnx_call *c, int i_x, int i_zero_x, int i_w, int i_zero_w)
{
	struct onnx_tensor *x = NULL, *weight = NULL;
	int r = quantum_widen(c, &x, i_x, i_zero_x, -1);

	if (r == 0)
		r = quantum_widen(c, &weight, i_w, i_zero_w, 0);
	if (r == 0)
		r = convolve(c, x, weight);
	onnx_tensor_free(x);
	onnx_tensor_free(weight);
	return r;
}

int op_conv_integer(struct onnx_call *c)
{
	return widened(c, 0, 2, 1, 3);
}

int op_qlinear_conv(struct onnx_call *c)
{
	int r = widened(c, 0, 2, 3, 5);

	if (r == 0)
		r = add_bias(c, 8);
	return r < 0 ? r : quantum_narrow(c, 1, 4, 6, 7, 1);
}

/* Windows as columns, as above, but added to where they were taken from. */
#define SPREAD_CASE(id, T, ...)                                                                              \
	case id:                                                                                             \
		for (int64_t m = 0; m < maps; m++)                                                           \
			for (int64_t t = 0; t < w->taps; t++)                                                \
				for (int64_t i = 0; i < w->out_plane; i++) {                                 \
					int64_t at = window_at(w, i, t);                                     \
					if (at >= 0)                                                         \
						((T *)y)[m * w->in_plane + at] +=                            \
							((const T *)                                         \
								 columns)[(m * w->taps + t) * w->out_plane + \
									  i];                                \
				}                                                                            \
		break;

static void spread_columns(enum onnx_type type, const struct window *w, const void *columns, int64_t maps,
			   void *y)
{
	switch (type) {
		FLOAT_CASES(SPREAD_CASE, )
	default:
		break;
	}
}

/* The gradient of a convolution: each input is spread over a window of the output. */
int op_conv_transpose(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0], *weight = c->in[1];
	const int64_t groups = attr_int(c, "group", 1);
	size_t size = onnx_type_size(x->type);
	int64_t dims[ONNX_MAX_RANK], maps, channels, depth, many;
	struct window w, back;
	struct onnx_tensor *columns;
	int r;

	if (x->type != ONNX_FLOAT && x->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	r = window_init_transposed(c, &w, x, weight);
	if (r < 0)
		return r;
	if (weight->type != x->type || groups < 1 || x->dims[1] % groups || weight->dims[0] != x->dims[1])
		return call_fail(c, "%lld channels, %lld groups, weights of %lld×%lld", (long long)x->dims[1],
				 (long long)groups, (long long)weight->dims[0], (long long)weight->dims[1]);
	maps = weight->dims[1];
	dims[0] = x->dims[0];
	if (__builtin_mul_overflow(maps, groups, &dims[1]))
		return call_fail(c, "too many groups");
	memcpy(dims + 2, w.out, (size_t)w.n * sizeof(*dims));
	r = call_out(c, 0, x->type, x->rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	memset(c->out[0]->data, 0, c->out[0]->count * size);
	channels = x->dims[1] / groups;
	depth = maps * w.taps;
	columns = call_scratch(c, x->type, 2, (int64_t[]){depth, w.in_plane});
	if (!columns)
		return call_error(c);
	back = w; /* windows of the output's plane, one for each input */
	memcpy(back.in, w.out, sizeof(w.out));
	memcpy(back.out, w.in, sizeof(w.in));
	back.in_plane = w.out_plane;
	back.out_plane = w.in_plane;
	for (many = 0; r == 0 && many < dims[0] * groups; many++) {
		r = gemm(x->type, true, false, depth, w.in_plane, channels,
			 (const char *)weight->data + (size_t)(many % groups * channels * depth) * size,
			 depth, (const char *)x->data + (size_t)(many * channels * w.in_plane) * size,
			 w.in_plane ? w.in_plane : 1, false, columns->data, w.in_plane);
		if (r == 0)
			spread_columns(x->type, &back, columns->data, maps,
				       (char *)c->out[0]->data + (size_t)(many * maps * w.out_plane) * size);
	}
	onnx_tensor_free(columns);
	return r < 0 ? err_set(c->err, ERR_NO_MEMORY, "a convolution") : add_bias(c, 2);
}

#define COL2IM_CASE(id, T, ...)                                                                            \
	case id:                                                                                           \
		for (int64_t p = 0; p < planes; p++)                                                       \
			for (int64_t t = 0; t < w.taps; t++)                                               \
				for (int64_t o = 0; o < w.out_plane; o++) {                                \
					int64_t at = window_at(&w, o, t);                                  \
					if (at >= 0)                                                       \
						((T *)c->out[0]->data)[p * w.in_plane + at] +=             \
							((const T *)                                       \
								 x->data)[(p * w.taps + t) * w.out_plane + \
									  o];                              \
				}                                                                          \
		return 0;

/* (N, C · taps, windows) back to planes (N, C, …), where windows overlap their sum */
int op_col2im(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	int64_t image[WINDOW_MAX], block[WINDOW_MAX], dims[ONNX_MAX_RANK], planes;
	struct window w;
	int n = 0, n_block = 0, r;

	r = call_ints(c, 1, image, WINDOW_MAX, &n);
	if (r == 0)
		r = call_ints(c, 2, block, WINDOW_MAX, &n_block);
	if (r == 0 && (n != n_block || n < 1 || x->rank != 3))
		r = call_fail(c, "a plane of %d and a block of %d dimensions, an input of rank %d", n,
			      n_block, x->rank);
	if (r == 0)
		r = window_init_sized(c, &w, n, image, block);
	if (r != 0)
		return r;
	if (x->dims[1] % w.taps || x->dims[2] != w.out_plane)
		return call_fail(c, "%lld by %lld for %lld windows of %lld", (long long)x->dims[1],
				 (long long)x->dims[2], (long long)w.out_plane, (long long)w.taps);
	dims[0] = x->dims[0];
	dims[1] = x->dims[1] / w.taps;
	memcpy(dims + 2, image, (size_t)n * sizeof(*dims));
	r = call_out(c, 0, x->type, n + 2, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	memset(c->out[0]->data, 0, c->out[0]->count * onnx_type_size(x->type));
	planes = dims[0] * dims[1];
	switch (x->type) {
		FLOAT_CASES(COL2IM_CASE, )
	default:
		return call_bad_type(c, 0);
	}
}
