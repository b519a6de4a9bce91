/*
 * Private to engine/onednn: the CPU backend. oneDNN 2.6 runs convolutions and inner products; normalisation,
 * pooling and elementwise ops are loops of our own that the compiler vectorises (oneDNN has no group norm,
 * and the others are bound by memory).
 */
#ifndef ENGINE_ONEDNN_ONEDNN_H
#define ENGINE_ONEDNN_ONEDNN_H

#include "engine/backend.h"
#include "engine/base/vectorised.h"

#include <dnnl.h>
#include <math.h>

#define OP(name, ...) extern const struct op_impl onednn_##name;
#include "engine/ops.def"
#undef OP

/* Logs what failed and jumps to `out` with r set. */
#define DNNL_CHECK(call)                                  \
	do {                                              \
		dnnl_status_t status_ = (call);           \
		if (status_ != dnnl_success) {            \
			r = onednn_error(status_, #call); \
			goto out;                         \
		}                                         \
	} while (0)

static inline dnnl_data_type_t onednn_type(enum precision type)
{
	static const dnnl_data_type_t types[] = {dnnl_f32, dnnl_bf16, dnnl_s8, dnnl_u8};

	return types[type];
}

/* Whether products of matrices are faster in it here than in f32, as measured. */
bool onednn_gains(enum precision precision);

int onednn_error(dnnl_status_t status, const char *call);

/* The process's CPU engine and stream, made at first use; NULL when oneDNN could not make them. */
dnnl_engine_t onednn_engine(void);
dnnl_stream_t onednn_stream(void);

int plain_create(struct kernel **ret, const struct op_desc *desc, struct kernel *sibling, struct err *err);

static inline size_t extent_size(const struct extent *e)
{
	return (size_t)e->c * (size_t)e->h * (size_t)e->w;
}

/*
 * What is large comes from the system and goes back to it: the heap would keep what lies below its top, some
 * megabytes a network. 64-byte aligned; free it with the same size.
 */
void *onednn_large_new(size_t size);
void onednn_large_free(void *p, size_t size);

/* A norm by running statistics after a convolution is a factor of each output o, and a shift that takes in its bias. */
static inline float onednn_norm_factor(const struct op_desc *d, const struct op_io *io, int o)
{
	return (float)(io->scale[o] / sqrt((double)io->variance[o] + d->eps));
}

static inline float onednn_norm_shift(const struct op_desc *d, const struct op_io *io, int o)
{
	return io->shift[o] + ((io->bias ? io->bias[o] : 0) - io->mean[o]) * onednn_norm_factor(d, io, o);
}

/* dy = 0 < y < ceiling ? dy : 0 */
void onednn_relu_before(const struct op_desc *d, const float *y, float *dy);
void onednn_add_to(float *y, const float *x, size_t n);
/* y = x2, for a kernel that adds to it: in y's type, by all threads; steps stay those of x2. */
void onednn_residual(const struct kernel *k, const struct op_io *io);

/*
 * Ops with a weight (conv2d, linear) differ only in their primitive descriptors. weight_view describes the
 * slice within the full-width array; the primitives' own formats are whatever oneDNN prefers.
 */
struct weighted_descs {
	dnnl_primitive_desc_t forward, backward_data, backward_weights; /* NULL where they are not wanted */
	dnnl_memory_desc_t weight_view;
};
/* Takes the descriptors over, also when it fails. */
int weighted_create(struct kernel **ret, const struct op_desc *desc, struct kernel *sibling,
		    struct weighted_descs *descs, struct err *err);
void weighted_destroy(struct kernel *k);
void weighted_trim(struct kernel *k);
int weighted_forward(struct kernel *k, const struct op_io *io);
int weighted_backward(struct kernel *k, const struct op_io *io);

/*
 * Makes a primitive descriptor with our attributes (scratch memory from the session; with `d`, for forward, that it
 * adds to what lies in y if d->residual, and the ReLU that it ends in). hint: the forward one for backward passes; avoid: implementations whose name begins so are passed
 * over, or NULL.
 */
int onednn_describe(dnnl_primitive_desc_t *ret, const_dnnl_op_desc_t what, const struct op_desc *d,
		    dnnl_primitive_desc_t hint, const char *avoid);

#endif
