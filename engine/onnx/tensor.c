#include "engine/onnx/half.h"
#include "engine/onnx/tensor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	uint8_t size;
} types[ONNX_TYPES] = {
	[ONNX_FLOAT] = {"float", 4},
	[ONNX_UINT8] = {"uint8", 1},
	[ONNX_INT8] = {"int8", 1},
	[ONNX_UINT16] = {"uint16", 2},
	[ONNX_INT16] = {"int16", 2},
	[ONNX_INT32] = {"int32", 4},
	[ONNX_INT64] = {"int64", 8},
	[ONNX_STRING] = {"string", 0},
	[ONNX_BOOL] = {"bool", 1},
	[ONNX_FLOAT16] = {"float16", 2},
	[ONNX_DOUBLE] = {"double", 8},
	[ONNX_UINT32] = {"uint32", 4},
	[ONNX_UINT64] = {"uint64", 8},
	[ONNX_COMPLEX64] = {"complex64", 0},
	[ONNX_COMPLEX128] = {"complex128", 0},
	[ONNX_BFLOAT16] = {"bfloat16", 2},
	[ONNX_FLOAT8E4M3FN] = {"float8e4m3fn", 0},
	[ONNX_FLOAT8E4M3FNUZ] = {"float8e4m3fnuz", 0},
	[ONNX_FLOAT8E5M2] = {"float8e5m2", 0},
	[ONNX_FLOAT8E5M2FNUZ] = {"float8e5m2fnuz", 0},
	[ONNX_UINT4] = {"uint4", 0},
	[ONNX_INT4] = {"int4", 0},
	[ONNX_FLOAT4E2M1] = {"float4e2m1", 0},
	[ONNX_FLOAT8E8M0] = {"float8e8m0", 0},
	[ONNX_UINT2] = {"uint2", 0},
	[ONNX_INT2] = {"int2", 0},
};

const char *onnx_type_name(int type)
{
	return type > 0 && type < ONNX_TYPES ? types[type].name : "?";
}

size_t onnx_type_size(int type)
{
	return type > 0 && type < ONNX_TYPES ? types[type].size : 0;
}

bool type_is_integer(enum onnx_type type)
{
	return (type >= ONNX_UINT8 && type <= ONNX_INT64) || type == ONNX_UINT32 || type == ONNX_UINT64;
}

bool type_is_half(enum onnx_type type)
{
	return type == ONNX_FLOAT16 || type == ONNX_BFLOAT16;
}

int64_t dims_count(int rank, const int64_t *dims)
{
	int64_t count = 1;
	bool empty = false;

	/* also [2^62, 2^62, 0] is refused: strides are products too */
	for (int d = 0; d < rank; d++) {
		if (dims[d] < 0)
			return -1;
		if (dims[d] == 0)
			empty = true;
		else if (__builtin_mul_overflow(count, dims[d], &count) || count > INT64_MAX / 16)
			return -1;
	}
	return empty ? 0 : count;
}

bool dims_equal(int rank_a, const int64_t *a, int rank_b, const int64_t *b)
{
	if (rank_a != rank_b)
		return false;
	for (int d = 0; d < rank_a; d++)
		if (a[d] != b[d])
			return false;
	return true;
}

const char *dims_text(char *text, size_t size, int rank, const int64_t *dims)
{
	size_t len = 0;

	snprintf(text, size, rank < 0 ? "any shape" : "scalar");
	for (int d = 0; d < rank && len < size; d++) {
		if (dims[d] < 0)
			len += (size_t)snprintf(text + len, size - len, "%s?", d ? "×" : "");
		else
			len += (size_t)snprintf(text + len, size - len, "%s%lld", d ? "×" : "",
						(long long)dims[d]);
	}
	return text;
}

void dims_strides(int rank, const int64_t *dims, int64_t *strides)
{
	int64_t stride = 1;

	for (int d = rank - 1; d >= 0; d--) {
		strides[d] = stride;
		stride *= dims[d] ? dims[d] : 1;
	}
}

int tensor_make(struct onnx_tensor **ret, enum onnx_type type, int rank, const int64_t *dims,
		struct onnx_memory *memory, struct err *err)
{
	size_t size = onnx_type_size(type), bytes;
	struct onnx_tensor *t;
	int64_t count;

	if (!size)
		return err_set(err, ERR_ONNX_UNSUPPORTED, "tensors of type %s", onnx_type_name(type));
	if (rank < 0 || rank > ONNX_MAX_RANK)
		return err_set(err, ERR_ONNX_LIMIT, "a tensor of rank %d; at most %d", rank, ONNX_MAX_RANK);
	count = dims_count(rank, dims);
	if (count < 0)
		return err_set(err, ERR_ONNX_TENSOR,
			       "a tensor with a negative or an absurdly large dimension");
	bytes = (size_t)count * size;
	if (memory && (bytes > memory->tensor || bytes > memory->limit - memory->used)) {
		char text[128];

		return err_set(err, ERR_ONNX_LIMIT,
			       "no room for a tensor %s (%s): %zu bytes, %zu of %zu in use",
			       dims_text(text, sizeof(text), rank, dims), onnx_type_name(type), bytes,
			       memory->used, memory->limit);
	}
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, ERR_NO_MEMORY, "a tensor");
	*t = (struct onnx_tensor){.type = type, .rank = rank, .count = (size_t)count, .refs = 1};
	if (rank)
		memcpy(t->dims, dims, (size_t)rank * sizeof(*dims));
	if (bytes) {
		t->data = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
		if (!t->data) {
			free(t);
			return err_set(err, ERR_NO_MEMORY, "a tensor of %zu bytes", bytes);
		}
	}
	if (memory) {
		memory->used += bytes;
		t->memory = memory;
	}
	*ret = t;
	return 0;
}

int onnx_tensor_new(struct onnx_tensor **ret, enum onnx_type type, int rank, const int64_t *dims,
		    struct err *err)
{
	struct onnx_tensor *t = NULL;
	int r = tensor_make(&t, type, rank, dims, NULL, err);

	if (r < 0)
		return r;
	if (t->data)
		memset(t->data, 0, t->count * onnx_type_size(type));
	*ret = t;
	return 0;
}

int tensor_view(struct onnx_tensor **ret, struct onnx_tensor *t, int rank, const int64_t *dims,
		struct err *err)
{
	struct onnx_tensor *view;

	if (rank > ONNX_MAX_RANK)
		return err_set(err, ERR_ONNX_LIMIT, "a tensor of rank %d; at most %d", rank, ONNX_MAX_RANK);
	view = calloc(1, sizeof(*view));
	if (!view)
		return err_set(err, ERR_NO_MEMORY, "a tensor");
	*view = (struct onnx_tensor){
		.type = t->type, .rank = rank, .count = t->count, .data = t->data, .refs = 1};
	if (rank)
		memcpy(view->dims, dims, (size_t)rank * sizeof(*dims));
	view->owner = tensor_ref(t->owner ? t->owner : t);
	*ret = view;
	return 0;
}

struct onnx_tensor *tensor_ref(struct onnx_tensor *t)
{
	/* a model's constants are shared by the runs of several threads */
	__atomic_add_fetch(&t->refs, 1, __ATOMIC_RELAXED);
	return t;
}

void onnx_tensor_free(struct onnx_tensor *t)
{
	if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (t->owner) {
		onnx_tensor_free(t->owner);
	} else {
		if (t->memory)
			t->memory->used -= t->count * onnx_type_size(t->type);
		free(t->data);
	}
	free(t);
}

void tensor_detach(struct onnx_tensor *t)
{
	if (t->owner)
		t = t->owner;
	if (!t->memory) /* not even written: constants are other runs' as well */
		return;
	t->memory->used -= t->count * onnx_type_size(t->type);
	t->memory = NULL;
}

int64_t tensor_int(const struct onnx_tensor *t, size_t i)
{
	switch (t->type) {
	case ONNX_UINT8:
	case ONNX_BOOL:
		return ((const uint8_t *)t->data)[i];
	case ONNX_INT8:
		return ((const int8_t *)t->data)[i];
	case ONNX_UINT16:
		return ((const uint16_t *)t->data)[i];
	case ONNX_INT16:
		return ((const int16_t *)t->data)[i];
	case ONNX_INT32:
		return ((const int32_t *)t->data)[i];
	case ONNX_UINT32:
		return ((const uint32_t *)t->data)[i];
	case ONNX_INT64:
	case ONNX_UINT64:
		return ((const int64_t *)t->data)[i];
	default:
		return 0;
	}
}

double tensor_real(const struct onnx_tensor *t, size_t i)
{
	switch (t->type) {
	case ONNX_FLOAT:
		return ((const float *)t->data)[i];
	case ONNX_DOUBLE:
		return ((const double *)t->data)[i];
	case ONNX_FLOAT16:
		return half_to_float(((const uint16_t *)t->data)[i]);
	case ONNX_BFLOAT16:
		return bfloat_to_float(((const uint16_t *)t->data)[i]);
	case ONNX_UINT64:
		return (double)((const uint64_t *)t->data)[i];
	default:
		return (double)tensor_int(t, i);
	}
}
