/* Private to engine/onnx: products of matrices, row-major. */
#ifndef ENGINE_ONNX_GEMM_H
#define ENGINE_ONNX_GEMM_H

#include "engine/onnx/onnx.h"

#include <stdbool.h>

/*
 * y (m, n; rows ldy apart) = a (m, k) · b (k, n), or their transposes where `trans` says so: then a is (k, m) or b
 * (n, k) in memory. add: to what y holds. Floats by oneDNN; double, int32, int64, uint32 and uint64 by plain loops,
 * whole numbers wrapping. 0, or -EOPNOTSUPP for other types, -ENOMEM.
 */
int gemm(enum onnx_type type, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const void *a,
	 int64_t lda, const void *b, int64_t ldb, bool add, void *y, int64_t ldy);

#endif
