/*
 * ONNX models: loading, looking at and running them. What the model says is trusted in nothing: sizes, shapes,
 * names and nesting are checked against limits before memory is taken for them.
 *
 *	onnx_load(&model, bytes, size, NULL, &err);		// bytes may go away afterwards
 *	value = onnx_input(model, 0);				// name, type, shape
 *	onnx_tensor_new(&in[0], value->type, 4, (int64_t[]){1, 3, 224, 224}, &err);
 *	onnx_run(model, in, 1, out, onnx_outputs(model), &err);
 *	… out[0]->data …
 *	onnx_tensor_free(out[0]);
 *	onnx_free(model);
 *
 * The interpreter behind onnx_run computes what the operator documentation of ONNX says (opsets 1 to 28, see
 * ops.def for the versions of each), op by op; it plans nothing across ops. engine/onnx/model.h shows the
 * parsed graph to those who compile it.
 */
#ifndef ENGINE_ONNX_ONNX_H
#define ENGINE_ONNX_ONNX_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define ONNX_MAX_RANK 8

/* ONNX's own numbers. Complex numbers, strings and what is less than a byte or a float of one byte have no tensors here. */
enum onnx_type {
	ONNX_NONE,
	ONNX_FLOAT,
	ONNX_UINT8,
	ONNX_INT8,
	ONNX_UINT16,
	ONNX_INT16,
	ONNX_INT32,
	ONNX_INT64,
	ONNX_STRING,
	ONNX_BOOL, /* one byte, 0 or 1 */
	ONNX_FLOAT16,
	ONNX_DOUBLE,
	ONNX_UINT32,
	ONNX_UINT64,
	ONNX_COMPLEX64,
	ONNX_COMPLEX128,
	ONNX_BFLOAT16,
	ONNX_FLOAT8E4M3FN,
	ONNX_FLOAT8E4M3FNUZ,
	ONNX_FLOAT8E5M2,
	ONNX_FLOAT8E5M2FNUZ,
	ONNX_UINT4,
	ONNX_INT4,
	ONNX_FLOAT4E2M1,
	ONNX_FLOAT8E8M0,
	ONNX_UINT2,
	ONNX_INT2,
	ONNX_TYPES
};

const char *onnx_type_name(int type); /* "float", "int64"; "?" for others */
size_t onnx_type_size(int type);      /* bytes of an element; 0: no tensors of this type */

/* Row-major and dense. Whoever holds a reference may read; only who made it writes, before handing it on. */
struct onnx_tensor {
	enum onnx_type type;
	int rank;
	int64_t dims[ONNX_MAX_RANK];
	size_t count; /* elements: the product of dims, 1 at rank 0 */
	void *data;   /* aligned to 64 bytes where it was made here; NULL when count is 0 */

	/* private */
	int refs;
	struct onnx_tensor *owner; /* of data, when this is another shape of it */
	struct onnx_memory *memory;
};

/* Zeroed. -EOPNOTSUPP: a type without tensors; -EFBIG: the rank; -EINVAL (ONNX_TENSOR): dims out of range. The
 * caller owns it. */
int onnx_tensor_new(struct onnx_tensor **ret, enum onnx_type type, int rank, const int64_t *dims,
		    struct err *err);
/* Reads a serialised TensorProto, as test data has it; errors as onnx_load's. */
int onnx_tensor_load(struct onnx_tensor **ret, const void *data, size_t size, struct err *err);
void onnx_tensor_free(struct onnx_tensor *t); /* drops one reference; NULL is fine */

struct onnx_limits {
	size_t file;   /* bytes of the model */
	size_t nodes;  /* of all its graphs together */
	size_t tensor; /* bytes of any one tensor */
	size_t memory; /* bytes that parsing may take; and bytes of all tensors that a run holds at once */
	int depth;     /* of messages in messages; two or three of them make a subgraph */
	int64_t steps; /* nodes that one run may execute, loops counted through */
};
extern const struct onnx_limits onnx_limits_default;

struct onnx_model;

/* An input or output of a model. */
struct onnx_value {
	const char *name;
	enum onnx_type type;         /* ONNX_NONE: not said */
	int rank;                    /* -1: not said */
	int64_t dims[ONNX_MAX_RANK]; /* -1: any */
};

/*
 * Parses, checks and orders a model. limits NULL: onnx_limits_default. -EBADMSG (BAD_ONNX): damaged or against
 * the rules; -EFBIG (ONNX_LIMIT); -EOPNOTSUPP (ONNX_UNSUPPORTED): the detail begins with the op, its opset
 * version and the node's name.
 */
int onnx_load(struct onnx_model **ret, const void *data, size_t size, const struct onnx_limits *limits,
	      struct err *err);
void onnx_free(struct onnx_model *m);

/* Inputs that an initializer provides are none: what is asked for is what has to be given. */
size_t onnx_inputs(const struct onnx_model *m);
size_t onnx_outputs(const struct onnx_model *m);
const struct onnx_value *onnx_input(const struct onnx_model *m, size_t i);
const struct onnx_value *onnx_output(const struct onnx_model *m, size_t i);

/* What its metadata says of that key; NULL: nothing. */
const char *onnx_metadata(const struct onnx_model *m, const char *key);

/*
 * Runs the model on in[n_in], in the order of its inputs; puts its outputs into out[n_out], the caller's. Safe in
 * several threads at once on one model. On failure out is untouched. -EINVAL (ONNX_INPUT): count, type or shape
 * isn't the model's; -EDOM (ONNX_RUN): shapes that don't fit one another, or values that an op forbids.
 */
int onnx_run(const struct onnx_model *m, struct onnx_tensor *const *in, size_t n_in, struct onnx_tensor **out,
	     size_t n_out, struct err *err);

#endif
