/*
 * What a device must offer to run a compiled network: for each op a kernel that is made once for its shapes
 * and then run. Private to engine/ and gpu/. The session (engine/session.c) owns memory, order and gradients'
 * flow; a kernel owns only what its library needs.
 *
 * Activations are dense (n, h, w, c), f32 but where op_desc.x_type, x2_type and y_type say otherwise. Weights are
 * views of full-width arrays, f32 in any precision: `weight_ld` gives the distance of two output rows, so a
 * slice needs no copy; kernels may keep a packed copy and must renew it when op_io.version differs from the
 * version it was made for.
 */
#ifndef ENGINE_BACKEND_H
#define ENGINE_BACKEND_H

#include "engine/net.h"
#include "engine/precision.h"

struct extent {
	int c, h, w;
};

/* One step of a compiled network. */
struct op_desc {
	enum op op;
	int n;
	struct extent in, out;
	int kernel, stride, pad;
	int kernel_w, pad_w; /* conv2d: of the width, where kernel and pad are of the height */
	int groups; /* conv2d: convolution groups of this slice; group_norm: groups of statistics; concat: of which
		     * each is one of x and then one of x2 */
	int64_t weight_ld; /* elements from one output's weights to the next in the full-width array */
	float eps;
	bool bias;
	/* y = norm(x) + x2, of group_norm and batch_norm. conv2d, never with training: y = conv(x) + x2, after the
	 * norm that it may do and before the ReLU; x2 (n, out) may be y itself */
	bool residual;
	bool relu;        /* the result goes through ReLU; conv2d, linear, the norms, add */
	float ceiling;    /* and is cut there; 0: it isn't. relu6: 6 */
	bool norm;        /* conv2d: a batch_norm by running statistics follows and is done with it */
	bool statistics;  /* batch_norm: by the batch's own, which move the running ones */
	bool exclude_pad; /* avg_pool: divides by the pixels inside the plane */
	float scale;      /* add: y = x + scale·x2 */
	float share;      /* dropout: of elements that become 0 */
	uint64_t salt;    /* dropout: makes its choices others than those of another */
	bool training;    /* backward will be called */
	bool need_dx;     /* with a gradient of its input */
	/* Of the values; any may differ from the others: an implementation refuses what it has no form for
	 * (-EOPNOTSUPP), and it runs on f32 copies. Of gradients, parameters and what is saved: f32. With training
	 * all are f32. */
	enum precision x_type, x2_type, y_type;
	float x_step, x2_step, y_step; /* where they are int8 or uint8 */
};

/* Where the ReLU that an op ends in cuts. */
static inline float op_ceiling(const struct op_desc *d)
{
	return d->ceiling > 0 ? d->ceiling : __builtin_inff();
}

/* Pointers of one run; what an op does not have is NULL. Where desc says so, x, x2 and y point to numbers of another type
 * all the same (io_bf16() and io_bytes() give them as these). dx may equal dy for relu, relu6, dropout, add and the
 * norms without residual. */
struct op_io {
	const float *x, *x2; /* (n, in); concat's x2 has the channels that out has more */
	float *y;            /* (n, out) */
	float *dy;           /* (n, out); backward may overwrite it */
	float *dx;           /* (n, in); overwritten; NULL: not wanted */
	float *dx2; /* the gradient of x2. But for concat it may equal dy: dy is then left as that gradient */
	const float *weight, *bias;
	float *dweight, *dbias;     /* full-width views as weight and bias: ADDED to; NULL: not wanted */
	const float *scale, *shift; /* conv2d with desc.norm: those of the norm */
	float *mean, *variance;     /* running, (channels): batch_norm, conv2d with desc.norm */
	uint64_t seed;              /* dropout: of this step */
	void *saved;                /* op_impl.saved_size bytes that live from forward to backward */
	void *scratch;              /* kernel->scratch_size bytes during the call */
	uint64_t version;           /* of the parameters, and of the statistics where mean is there */
};

static inline uint16_t *io_bf16(const float *value)
{
	return (uint16_t *)(uintptr_t)value;
}

static inline uint8_t *io_bytes(const float *value)
{
	return (uint8_t *)(uintptr_t)value;
}

/* First member of each implementation's own struct. */
struct kernel {
	const struct op_impl *impl;
	struct op_desc desc;
	size_t scratch_size;
};

struct op_impl {
	/* sibling: a kernel of the same step for another n, or NULL; packed weights may be shared with it.
	 * -EOPNOTSUPP (UNSUPPORTED_OP) when this form of the op can't be run. It is asked for types other than
	 * f32 only where `bf16` or `int8` is set, and may then refuse: the op runs on f32 copies. What it makes may
	 * name another implementation (ret->impl). */
	int (*create)(struct kernel **ret, const struct op_desc *desc, struct kernel *sibling,
		      struct err *err);
	void (*destroy)(struct kernel *k);                /* NULL: free() does */
	size_t (*saved_size)(const struct op_desc *desc); /* NULL: none */
	void (*trim)(struct kernel *k);                   /* drops packed weights; NULL: none are kept */
	int (*forward)(struct kernel *k, const struct op_io *io);
	int (*backward)(struct kernel *k, const struct op_io *io); /* NULL: no gradient */
	bool bf16; /* it has forms of its own for bf16 values */
	bool int8; /* and for int8 and uint8 ones */
};

struct backend {
	const char *name;
	void (*add_to)(float *y, const float *x,
		       size_t n); /* y += x: where gradients of several consumers meet */
	/* Whether this CPU runs that precision faster than f32; NULL: none */
	bool (*gains)(enum precision precision);
	const struct op_impl *ops[OP_COUNT]; /* NULL: unsupported */
};

/* The table of backends: "ref", "onednn"; NULL when there is none of that name. */
const struct backend *backend_find(const char *name);
const struct backend *backend_at(size_t i); /* NULL beyond the last */
/* Whether a session of that precision has anything for it here; of f32 always. Every precision runs anyway. */
bool backend_gains(const struct backend *backend, enum precision precision);

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
