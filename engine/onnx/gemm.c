#include "engine/onnx/gemm.h"

#include <errno.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>

/* Row by row of y, so that the innermost loop runs along rows where b isn't transposed. */
#define GEMM_CASE(id, T, A)                                                                           \
	case id:                                                                                      \
		for (int64_t i = 0; i < m; i++) {                                                     \
			T *row = (T *)y + i * ldy;                                                    \
			if (!add)                                                                     \
				memset(row, 0, (size_t)n * sizeof(T));                                \
			for (int64_t l = 0; l < k; l++) {                                             \
				const A x = (A)((const T *)a)[trans_a ? l * lda + i : i * lda + l];   \
				const T *from = (const T *)b + (trans_b ? l : l * ldb);               \
				for (int64_t j = 0; j < n; j++)                                       \
					row[j] = (T)((A)row[j] + x * (A)from[trans_b ? j * ldb : j]); \
			}                                                                             \
		}                                                                                     \
		return 0;

int gemm(enum onnx_type type, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const void *a,
	 int64_t lda, const void *b, int64_t ldb, bool add, void *y, int64_t ldy)
{
	if (m == 0 || n == 0)
		return 0;
	switch (type) {
	case ONNX_FLOAT:
		if (k == 0) {
			for (int64_t i = 0; !add && i < m; i++)
				memset((float *)y + i * ldy, 0, (size_t)n * sizeof(float));
			return 0;
		}
		return dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, 1, a, lda, b, ldb,
				  add ? 1 : 0, y, ldy) == dnnl_success
			       ? 0
			       : -ENOMEM;
		GEMM_CASE(ONNX_DOUBLE, double, double)
		GEMM_CASE(ONNX_INT32, int32_t, uint64_t)
		GEMM_CASE(ONNX_INT64, int64_t, uint64_t)
		GEMM_CASE(ONNX_UINT32, uint32_t, uint64_t)
		GEMM_CASE(ONNX_UINT64, uint64_t, uint64_t)
	default:
		return -EOPNOTSUPP;
	}
}
