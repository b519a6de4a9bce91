/*
 * What a device must offer to run a compiled network: for each op a kernel that is made once for its shapes
 * and then run. Private to engine/ and gpu/. The session (engine/session.c) owns memory, order and gradients'
 * flow; a kernel owns only what its library needs.
 *
 * Activations are dense (n, h, w, c) f32. Weights are views of full-width arrays: `weight_ld` gives the
 * distance of two output rows, so a slice needs no copy; kernels may keep a packed copy and must renew it
 * when op_io.version differs from the version it was made for.
 */
#ifndef ENGINE_BACKEND_H
#define ENGINE_BACKEND_H

#include "engine/net.h"

struct extent {
	int c, h, w;
};

/* One step of a compiled network. */
struct op_desc {
	enum op op;
	int n;
	struct extent in, out;
	int kernel, stride, pad;
	int groups;        /* conv2d: convolution groups of this slice; group_norm: groups of statistics */
	int64_t weight_ld; /* elements from one output's weights to the next in the full-width array */
	float eps;
	bool bias;
	bool residual; /* group_norm: y = gn(x) + x2 */
	bool relu;     /* the result goes through ReLU; conv2d, linear, group_norm, add */
	bool training; /* backward will be called */
	bool need_dx;  /* with a gradient of its input */
};

/* Pointers of one run; what an op does not have is NULL. dx may equal dy for relu, add and group_norm without
 * residual. */
struct op_io {
	const float *x, *x2; /* (n, in) */
	float *y;            /* (n, out) */
	float *dy;           /* (n, out); backward may overwrite it */
	float *dx;           /* (n, in); overwritten; NULL: not wanted */
	float *dx2; /* add and residual: the gradient of x2. May equal dy: dy is then left as that gradient */
	const float *weight, *bias;
	float *dweight, *dbias; /* full-width views as weight and bias: ADDED to; NULL: not wanted */
	void *saved;            /* op_impl.saved_size bytes that live from forward to backward */
	void *scratch;          /* kernel->scratch_size bytes during the call */
	uint64_t version;       /* of the parameters */
};

/* First member of each implementation's own struct. */
struct kernel {
	const struct op_impl *impl;
	struct op_desc desc;
	size_t scratch_size;
};

struct op_impl {
	/* sibling: a kernel of the same step for another n, or NULL; packed weights may be shared with it.
	 * -EOPNOTSUPP (UNSUPPORTED_OP) when this form of the op can't be run. */
	int (*create)(struct kernel **ret, const struct op_desc *desc, struct kernel *sibling,
		      struct err *err);
	void (*destroy)(struct kernel *k);                /* NULL: free() does */
	size_t (*saved_size)(const struct op_desc *desc); /* NULL: none */
	void (*trim)(struct kernel *k);                   /* drops packed weights; NULL: none are kept */
	int (*forward)(struct kernel *k, const struct op_io *io);
	int (*backward)(struct kernel *k, const struct op_io *io); /* NULL: no gradient */
};

struct backend {
	const char *name;
	void (*add_to)(float *y, const float *x,
		       size_t n);            /* y += x: where gradients of several consumers meet */
	const struct op_impl *ops[OP_COUNT]; /* NULL: unsupported */
};

/* The table of backends: "ref", "onednn"; NULL when there is none of that name. */
const struct backend *backend_find(const char *name);
const struct backend *backend_at(size_t i); /* NULL beyond the last */

/* Wrappers that all callers use. kernel_create: -EOPNOTSUPP with the op's and the backend's name when the
 * slot is empty. */
int kernel_create(struct kernel **ret, const struct backend *backend, const struct op_desc *desc,
		  struct kernel *sibling, struct err *err);
void kernel_destroy(struct kernel *k); /* NULL is fine */
size_t kernel_saved_size(const struct backend *backend, const struct op_desc *desc);
void kernel_trim(struct kernel *k);
int kernel_forward(struct kernel *k, const struct op_io *io);
int kernel_backward(struct kernel *k, const struct op_io *io);

#endif
