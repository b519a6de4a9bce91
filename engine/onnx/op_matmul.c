/* Products of matrices. */
#include "engine/onnx/gemm.h"
#include "engine/onnx/op.h"
#include "engine/onnx/quantum.h"

#include <errno.h>
#include <string.h>

static int gemm_status(struct onnx_call *c, int r)
{
	if (r == -EOPNOTSUPP)
		return call_bad_type(c, 0);
	return r < 0 ? err_set(c->err, ERR_NO_MEMORY, "%s", c->node->op->type) : 0;
}

/* numpy's matmul of tensors that need not be the call's inputs; output 0. */
static int matmul(struct onnx_call *c, const struct onnx_tensor *a, const struct onnx_tensor *b)
{
	struct onnx_tensor batch_a = *a, batch_b = *b;
	int64_t dims[ONNX_MAX_RANK], out[ONNX_MAX_RANK], m = 1, n = 1, k;
	size_t size = onnx_type_size(a->type);
	int rank, r, full;
	struct walk w;

	if (a->rank < 1 || b->rank < 1 || a->type != b->type)
		return call_fail(c, "ranks %d and %d, types %s and %s", a->rank, b->rank,
				 onnx_type_name(a->type), onnx_type_name(b->type));
	k = a->dims[a->rank - 1];
	if (b->dims[b->rank > 1 ? b->rank - 2 : 0] != k) {
		char first[64], second[64];

		return call_fail(c, "%s by %s", dims_text(first, sizeof(first), a->rank, a->dims),
				 dims_text(second, sizeof(second), b->rank, b->dims));
	}
	batch_a.rank = a->rank > 2 ? a->rank - 2 : 0;
	batch_b.rank = b->rank > 2 ? b->rank - 2 : 0;
	rank = batch_a.rank;
	memcpy(dims, a->dims, sizeof(dims));
	r = call_broadcast(c, &rank, dims, &batch_b);
	if (r < 0)
		return r;
	memcpy(out, dims, sizeof(out));
	full = rank;
	if (a->rank > 1)
		out[full++] = m = a->dims[a->rank - 2];
	if (b->rank > 1)
		out[full++] = n = b->dims[b->rank - 1];
	r = call_out(c, 0, a->type, full, out);
	if (r < 0 || !c->out[0]->count)
		return r;
	walk_init(&w, rank, dims);
	walk_broadcast(&w, 0, rank, dims);
	walk_broadcast(&w, 1, batch_a.rank, batch_a.dims);
	walk_broadcast(&w, 2, batch_b.rank, batch_b.dims);
	do
		for (int64_t i = 0; r == 0 && i < w.row; i++)
			r = gemm(a->type, false, false, m, n, k,
				 (char *)a->data + (size_t)((w.at[1] + i * walk_step(&w, 1)) * m * k) * size,
				 k ? k : 1,
				 (char *)b->data + (size_t)((w.at[2] + i * walk_step(&w, 2)) * k * n) * size,
				 n, false, (char *)c->out[0]->data + (size_t)((w.at[0] + i) * m * n) * size,
				 n);
	while (r == 0 && walk_next(&w));
	return gemm_status(c, r);
}

int op_matmul(struct onnx_call *c)
{
	return matmul(c, c->in[0], c->in[1]);
}

#define SCALE_CASE(id, T, ...)                                                                            \
	case id:                                                                                          \
		for (int64_t i = 0; i < dims[0]; i++)                                                     \
			for (int64_t j = 0; j < dims[1]; j++) {                                           \
				T *y = (T *)c->out[0]->data + i * dims[1] + j;                            \
				T sum = (T)(alpha * *y);                                                  \
				if (bias)                                                                 \
					sum += (T)(beta *                                                 \
						   ((const T *)bias->data)[w.at[1] + i * w.stride[1][0] + \
									   j * w.stride[1][1]]);          \
				*y = sum;                                                                 \
			}                                                                                 \
		return 0;
#define SCALE_INTEGER_CASE(id, T)                                                                \
	case id:                                                                                 \
		for (int64_t i = 0; bias && i < dims[0]; i++)                                    \
			for (int64_t j = 0; j < dims[1]; j++) {                                  \
				T *y = (T *)c->out[0]->data + i * dims[1] + j;                   \
				*y = (T)((uint64_t)*y +                                          \
					 (uint64_t)((const T *)bias->data)[i * w.stride[1][0] +  \
									   j * w.stride[1][1]]); \
			}                                                                        \
		return 0;

/* alpha · A' · B' + beta · C; before version 7 C broadcasts only where `broadcast` says so, which is no matter. */
int op_gemm(struct onnx_call *c)
{
	const struct onnx_tensor *a = c->in[0], *b = c->in[1], *bias = call_in(c, 2);
	const bool trans_a = attr_int(c, "transA", 0), trans_b = attr_int(c, "transB", 0);
	const float alpha = attr_float(c, "alpha", 1), beta = attr_float(c, "beta", 1);
	int64_t dims[2], k;
	int r, rank = 2;
	struct walk w;

	if (a->rank != 2 || b->rank != 2 || a->type != b->type ||
	    (bias && (bias->type != a->type || bias->rank > 2)))
		return call_fail(c, "ranks %d and %d, types %s and %s", a->rank, b->rank,
				 onnx_type_name(a->type), onnx_type_name(b->type));
	dims[0] = a->dims[trans_a];
	dims[1] = b->dims[!trans_b];
	k = a->dims[!trans_a];
	if (k != b->dims[trans_b])
		return call_fail(c, "inner dimensions %lld and %lld", (long long)k,
				 (long long)b->dims[trans_b]);
	if (bias) {
		int64_t both[ONNX_MAX_RANK] = {dims[0], dims[1]};

		r = call_broadcast(c, &rank, both, bias);
		if (r < 0)
			return r;
		if (both[0] != dims[0] || both[1] != dims[1])
			return call_fail(c, "C has more than the product's shape");
	}
	r = call_out(c, 0, a->type, 2, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	r = gemm_status(c, gemm(a->type, trans_a, trans_b, dims[0], dims[1], k, a->data,
				a->dims[1] ? a->dims[1] : 1, b->data, b->dims[1] ? b->dims[1] : 1, false,
				c->out[0]->data, dims[1]));
	if (r < 0)
		return r;
	walk_init(&w, 2, dims);
	if (bias)
		walk_broadcast(&w, 1, bias->rank, bias->dims);
	if (type_is_integer(a->type) && (alpha != 1 || beta != 1))
		return call_unsupported(c, "alpha and beta of whole numbers");
	switch (a->type) {
		FLOAT_CASES(SCALE_CASE, )
		SCALE_INTEGER_CASE(ONNX_INT32, int32_t)
		SCALE_INTEGER_CASE(ONNX_INT64, int64_t)
		SCALE_INTEGER_CASE(ONNX_UINT32, uint32_t)
		SCALE_INTEGER_CASE(ONNX_UINT64, uint64_t)
	default:
		return call_bad_type(c, 0);
	}
}

/* zero: a scalar, or one for each row of a / column of b. */
static int widened_product(struct onnx_call *c, int i_a, int i_zero_a, int i_b, int i_zero_b)
{
	struct onnx_tensor *a = NULL, *b = NULL;
	int r = quantum_widen(c, &a, i_a, i_zero_a, c->in[i_a]->rank - 2);

	if (r == 0)
		r = quantum_widen(c, &b, i_b, i_zero_b, c->in[i_b]->rank - 1);
	if (r == 0)
		r = matmul(c, a, b);
	onnx_tensor_free(a);
	onnx_tensor_free(b);
	return r;
}

int op_matmul_integer(struct onnx_call *c)
{
	return widened_product(c, 0, 2, 1, 3);
}

int op_qlinear_matmul(struct onnx_call *c)
{
	int r = widened_product(c, 0, 2, 3, 5);

	return r < 0 ? r : quantum_narrow(c, 1, 4, 6, 7, -1);
}
