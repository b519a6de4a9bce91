/*
 * Private to engine/onnx: what an operator's function sees. ops.def lists the operators; each family has a file.
 *
 * A function reads c->in (NULL: left out), makes its outputs by call_out and returns 0, or sets the cause by
 * call_fail or call_unsupported, which name the node. It may make fewer outputs than the table's most, never fewer
 * than its least. Inputs are constant and may be handed on by tensor_ref as outputs.
 */
#ifndef ENGINE_ONNX_OP_H
#define ENGINE_ONNX_OP_H

#include "engine/onnx/model.h"

enum { ONNX_MANY = 1 << 20 }; /* as most inputs or outputs: any number */

struct onnx_call {
	const struct onnx_node *node;
	struct onnx_tensor **in, **out;
	int n_in, n_out; /* of the node; out has room for the table's most as well */
	int64_t version;
	struct onnx_memory *memory;
	struct onnx_frame *frame;       /* for subgraphs */
	const struct onnx_attr *misfit; /* an attribute that was asked for as another type */
	struct err *err;                /* never NULL */
};

typedef int onnx_op_fn(struct onnx_call *c);

enum onnx_half {
	ONNX_MOVES, /* 16-bit floats are handed to the function as they are */
	ONNX_WIDENS /* it sees them as floats, and its float outputs become 16-bit again */
};

struct onnx_op {
	const char *type;
	int since, until; /* versions of the operator set; 0: the newest known */
	int in_min, in_max, out_min, out_max;
	enum onnx_half half;
	onnx_op_fn *run;
};

#define ONNX_OP(type, since, until, in_min, in_max, out_min, out_max, half, fn) onnx_op_fn op_##fn;
#include "engine/onnx/ops.def"
#undef ONNX_OP

#define ONNX_NEWEST 28 /* operator set that the table knows */

/* NULL: none of this name; *other is then a row of another version, or NULL. */
const struct onnx_op *onnx_op_find(const char *type, int64_t version, const struct onnx_op **other);

int call_fail(struct onnx_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int call_unsupported(struct onnx_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Every cause gives a negative errno, which compilers and analysers can't see. */
static inline int call_negative(int r)
{
	if (r >= 0)
		__builtin_unreachable();
	return r;
}
#define call_fail(...)        call_negative(call_fail(__VA_ARGS__))
#define call_unsupported(...) call_negative(call_unsupported(__VA_ARGS__))
int call_bad_type(struct onnx_call *c, int i); /* input i is of a type that isn't supported */

/* Attributes, or what stands for them. */
int64_t attr_int(struct onnx_call *c, const char *name, int64_t otherwise);
float attr_float(struct onnx_call *c, const char *name, float otherwise);
const char *attr_string(struct onnx_call *c, const char *name, const char *otherwise);
const int64_t *attr_ints(struct onnx_call *c, const char *name, size_t *n); /* NULL: not there, *n is 0 */
const float *attr_floats(struct onnx_call *c, const char *name, size_t *n);
const char *const *attr_strings(struct onnx_call *c, const char *name, size_t *n);
struct onnx_tensor *attr_tensor(struct onnx_call *c, const char *name);
const struct onnx_graph *attr_graph(struct onnx_call *c, const char *name);

/* Input i, or NULL. */
static inline struct onnx_tensor *call_in(const struct onnx_call *c, int i)
{
	return i < c->n_in ? c->in[i] : NULL;
}

/* Output i: made, not zeroed, or given (takes the reference over). */
int call_out(struct onnx_call *c, int i, enum onnx_type type, int rank, const int64_t *dims);
void call_give(struct onnx_call *c, int i, struct onnx_tensor *t);
/* One that is needed for the time of the call only; free it by onnx_tensor_free. NULL: see call_error. */
struct onnx_tensor *call_scratch(struct onnx_call *c, enum onnx_type type, int rank, const int64_t *dims);
/* What went wrong, as a negative errno. */
static inline int call_error(const struct onnx_call *c)
{
	return call_negative(-err_errno(c->err->code));
}

/* *axis of -rank … rank-1 becomes 0 … rank-1. */
int call_axis(struct onnx_call *c, int64_t *axis, int rank);
/* As many integers as input i, a vector or scalar, has; at most `room`. */
int call_ints(struct onnx_call *c, int i, int64_t *ret, int room, int *n);
/* Axes from input i (if i >= 0 and it is there), else from the attribute; as a mask over rank. *given: any. */
int call_axes(struct onnx_call *c, int i, const char *attr, int rank, bool *mask, int *n);

/* Runs a subgraph of this node on in[n_in]; out[n_out] becomes the caller's. */
int call_graph(struct onnx_call *c, const struct onnx_graph *g, struct onnx_tensor *const *in, int n_in,
	       struct onnx_tensor **out, int n_out);

/*
 * Visits the elements of up to four arrays side by side, row by row: dims are the visit's, stride[k] how far
 * array k goes for a step of each dimension (0: it is broadcast), at[k] where its row begins, in elements.
 *
 *	walk_init(&w, rank, dims);
 *	walk_broadcast(&w, 0, a); …
 *	do
 *		row(a + w.at[0], walk_step(&w, 0), …, w.row);
 *	while (walk_next(&w));
 *
 * With no elements w.row is 0 and one empty row is visited.
 */
enum { WALK_MAX = 4 };
struct walk {
	int rank; /* >= 1 */
	int64_t dims[ONNX_MAX_RANK], index[ONNX_MAX_RANK], stride[WALK_MAX][ONNX_MAX_RANK], at[WALK_MAX], row;
};
void walk_init(struct walk *w, int rank, const int64_t *dims);
/* Array k is dense with the shape of t, broadcast to dims as numpy does it; the shapes fit. */
void walk_broadcast(struct walk *w, int k, int rank, const int64_t *dims);
/* Array k goes by these strides. */
void walk_strides(struct walk *w, int k, const int64_t *strides);
bool walk_next(struct walk *w);
static inline int64_t walk_step(const struct walk *w, int k)
{
	return w->stride[k][w->rank - 1];
}
/* Joins dimensions that all arrays run through as if they were one: longer rows. After the strides are set. */
void walk_join(struct walk *w);

/* dims becomes the shape that both broadcast to. */
int call_broadcast(struct onnx_call *c, int *rank, int64_t *dims, const struct onnx_tensor *t);

/* Copies elements of `size` bytes between arrays that go by strides over the same dims; both may be offset. */
void move_strided(void *to, const int64_t *to_strides, const void *from, const int64_t *from_strides,
		  int rank, const int64_t *dims, size_t size);

/* Adds each type's case to a switch: M(ONNX_…, C type, further arguments). */
#define FLOAT_CASES(M, ...)               \
	M(ONNX_FLOAT, float, __VA_ARGS__) \
	M(ONNX_DOUBLE, double, __VA_ARGS__)
#define INTEGER_CASES(M, ...)                 \
	M(ONNX_INT8, int8_t, __VA_ARGS__)     \
	M(ONNX_INT16, int16_t, __VA_ARGS__)   \
	M(ONNX_INT32, int32_t, __VA_ARGS__)   \
	M(ONNX_INT64, int64_t, __VA_ARGS__)   \
	M(ONNX_UINT8, uint8_t, __VA_ARGS__)   \
	M(ONNX_UINT16, uint16_t, __VA_ARGS__) \
	M(ONNX_UINT32, uint32_t, __VA_ARGS__) \
	M(ONNX_UINT64, uint64_t, __VA_ARGS__)

#endif
