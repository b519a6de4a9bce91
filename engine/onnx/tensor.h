/* Private to engine/onnx: tensors that count against a budget, and references to them. */
#ifndef ENGINE_ONNX_TENSOR_H
#define ENGINE_ONNX_TENSOR_H

#include "engine/onnx/onnx.h"

#include <stdbool.h>

/* What the tensors of a model or a run may hold together. Owner thread only. */
struct onnx_memory {
	size_t used, limit; /* bytes */
	size_t tensor;      /* the limit of one */
};

/* NULL dims only at rank 0; memory NULL: counts against nothing. Not zeroed. */
int tensor_make(struct onnx_tensor **ret, enum onnx_type type, int rank, const int64_t *dims,
		struct onnx_memory *memory, struct err *err);
/* Another shape of the same elements: shares t's data, and keeps it alive. dims have t's count. */
int tensor_view(struct onnx_tensor **ret, struct onnx_tensor *t, int rank, const int64_t *dims,
		struct err *err);
struct onnx_tensor *tensor_ref(struct onnx_tensor *t);
/* It outlives its budget: no longer counts against it. */
void tensor_detach(struct onnx_tensor *t);

/* Elements of a shape; -1 when a dimension is negative or the product doesn't fit. */
int64_t dims_count(int rank, const int64_t *dims);
bool dims_equal(int rank_a, const int64_t *a, int rank_b, const int64_t *b);
/* Writes "2×3×?" into text. */
const char *dims_text(char *text, size_t size, int rank, const int64_t *dims);
/* Distance in elements from one index to the next, of each dimension. */
void dims_strides(int rank, const int64_t *dims, int64_t *strides);

/* Of an integer or bool tensor / of any: element i, converted. */
int64_t tensor_int(const struct onnx_tensor *t, size_t i);
double tensor_real(const struct onnx_tensor *t, size_t i);

bool type_is_integer(enum onnx_type type); /* bool isn't */
bool type_is_half(enum onnx_type type);    /* float16, bfloat16 */

#endif
