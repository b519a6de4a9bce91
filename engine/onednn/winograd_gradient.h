/*
 * Private to engine/onednn: the gradient of the weights of a 3×3 convolution by Winograd's filtering. With d an input tile, dy
 * that of the gradient of outputs, of one input and one output channel:
 *	dg = Gᵀ (Σ Bᵀ d B ⊙ A dy Aᵀ) G		over all tiles
 * so each of the 36 spots is a product of matrices, (in, tiles) · (tiles, out): a quarter of the multiplications, as
 * forward.
 *
 *	if (winograd_suits(&shape))
 *		r = winograd_gradient_new(&g, &shape);
 *	…
 *	winograd_gradient_run(g, x, dy, dweight, ld, scratch);
 */
#ifndef ENGINE_ONEDNN_WINOGRAD_GRADIENT_H
#define ENGINE_ONEDNN_WINOGRAD_GRADIENT_H

#include "engine/onednn/winograd.h"

struct winograd_gradient;

/* shape: of the convolution, not transposed. -ENOMEM */
int winograd_gradient_new(struct winograd_gradient **ret, const struct winograd_shape *shape);
void winograd_gradient_free(struct winograd_gradient *g);            /* NULL is fine */
size_t winograd_gradient_scratch(const struct winograd_gradient *g); /* bytes for the run, 64-byte aligned */
/* x (n, h, w, in), dy (n, h, w, out); ADDS to dweight (out, in, 3, 3), rows `ld` elements apart. The same for the same thread
 * count. */
void winograd_gradient_run(const struct winograd_gradient *g, const float *x, const float *dy, float *dweight,
			   int64_t ld, void *scratch);

#endif
