/*
 * Private to engine/ref: the reference backend. Plain loops over (n, h, w, c), sums in double; it is read to
 * learn what an op means and is the oracle of the conformance tests. Nothing here is made for speed.
 */
#ifndef ENGINE_REF_REF_H
#define ENGINE_REF_REF_H

#include "engine/backend.h"

#define OP(name, ...) extern const struct op_impl ref_##name;
#include "engine/ops.def"
#undef OP

int ref_create(struct kernel **ret, const struct op_desc *desc, struct kernel *sibling, struct err *err);

static inline size_t extent_size(const struct extent *e)
{
	return (size_t)e->c * (size_t)e->h * (size_t)e->w;
}

/* Index of one element of an (n, h, w, c) tensor. */
static inline size_t at(const struct extent *e, int n, int h, int w, int c)
{
	return (((size_t)n * (size_t)e->h + (size_t)h) * (size_t)e->w + (size_t)w) * (size_t)e->c + (size_t)c;
}

/* A value between 0 and the ceiling, and whether a result's gradient passes. */
static inline float ref_cut(const struct op_desc *d, float x)
{
	return x > 0 ? x < op_ceiling(d) ? x : op_ceiling(d) : 0;
}

static inline bool ref_passes(const struct op_desc *d, float y)
{
	return y > 0 && y < op_ceiling(d);
}

/* The ReLU that an op may end in: of its result, and of the gradient that comes in (y is the result). */
void ref_relu_after(const struct op_desc *d, float *y);
void ref_relu_before(const struct op_desc *d, const float *y, float *dy);

#endif
