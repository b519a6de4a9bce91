/*
 * Private to engine/onednn: 3×3 convolutions of stride 1 by Winograd's minimal filtering, F(4×4, 3×3) (Lavin & Gray 2016, section 4.1),
 * on (n, h, w, c) as it lies. oneDNN has it for channels in blocks of 16 only.
 *
 *	if (winograd_suits(&shape))
 *		r = winograd_new(&w, &shape, sibling);
 *	…
 *	winograd_pack(w, weight, ld, factor, version);		// when the weights have changed
 *	winograd_run(w, &run);
 */
#ifndef ENGINE_ONEDNN_WINOGRAD_H
#define ENGINE_ONEDNN_WINOGRAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct winograd;

/* A convolution with padding 1: planes of h × w before and after. */
struct winograd_shape {
	int n, h, w, in, out; /* in, out: channels */
	/* The gradient of the input of a convolution of `out` to `in` channels: its weights are read the other way round. */
	bool transposed;
};

/* Whether the CPU has instructions for it and it is faster than oneDNN's direct convolution. */
bool winograd_suits(const struct winograd_shape *shape);

/* sibling: one of the same channels, with which packed weights are shared, or NULL. -ENOMEM */
int winograd_new(struct winograd **ret, const struct winograd_shape *shape, struct winograd *sibling);
void winograd_free(struct winograd *w);            /* NULL is fine */
size_t winograd_scratch(const struct winograd *w); /* bytes for winograd_run */
bool winograd_packed(const struct winograd *w, uint64_t version);
/* weight (out, in, 3, 3), rows `ld` elements apart (transposed: (in, out, 3, 3)); factor (out) of each output, NULL: 1. -ENOMEM */
int winograd_pack(struct winograd *w, const float *weight, int64_t ld, const float *factor, uint64_t version);
void winograd_trim(struct winograd *w); /* drops the packed weights */

struct winograd_run {
	const float *x;        /* (n, h, w, in) */
	const float *bias;     /* (out); NULL: none */
	const float *residual; /* (n, h, w, out), added after the bias, may be y; NULL: none */
	float *y;              /* (n, h, w, out) */
	float floor, ceiling;  /* y is kept between them: 0 and infinity for ReLU */
	void *scratch;         /* 64-byte aligned */
};
void winograd_run(const struct winograd *w, const struct winograd_run *run);

#endif
