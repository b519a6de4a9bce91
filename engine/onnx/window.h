/*
 * Private to engine/onnx: windows that slide over the planes of (N, C, D1 … Dn): what convolutions and pools have
 * in common.
 */
#ifndef ENGINE_ONNX_WINDOW_H
#define ENGINE_ONNX_WINDOW_H

#include "engine/onnx/op.h"

enum { WINDOW_MAX = ONNX_MAX_RANK - 2 };

struct window {
	int n; /* spatial dimensions */
	int64_t in[WINDOW_MAX], out[WINDOW_MAX];
	int64_t kernel[WINDOW_MAX], stride[WINDOW_MAX], dilation[WINDOW_MAX];
	int64_t begin[WINDOW_MAX], end[WINDOW_MAX]; /* pads */
	int64_t in_plane, out_plane, taps;          /* products of in, out, kernel */
};

/*
 * From the attributes kernel_shape (or from `weight`'s dims from 2 on, when it isn't NULL), strides, dilations, pads
 * and auto_pad, for an input x. round_up: ceil_mode, with no window that begins beyond the input and its first pad.
 */
int window_init(struct onnx_call *c, struct window *w, const struct onnx_tensor *x,
		const struct onnx_tensor *weight, bool round_up);
/* The same, for windows that spread x (a transposed convolution): out is larger than in. */
int window_init_transposed(struct onnx_call *c, struct window *w, const struct onnx_tensor *x,
			   const struct onnx_tensor *weight);

/* From the attributes strides, dilations and pads, for planes of n dimensions and given kernels. */
int window_init_sized(struct onnx_call *c, struct window *w, int n, const int64_t *in, const int64_t *kernel);

/* Where tap t of the window at output o (both row-major) lies in the input's plane; -1: in the padding. */
int64_t window_at(const struct window *w, int64_t o, int64_t t);

#endif
