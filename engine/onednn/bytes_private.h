/* Private to engine/onednn/bytes*: how the work is cut, and the loops. */
#ifndef ENGINE_ONEDNN_BYTES_PRIVATE_H
#define ENGINE_ONEDNN_BYTES_PRIVATE_H

#include "engine/onednn/bytes.h"

enum {
	BYTES_PANEL = 16, /* outputs of a panel */
	BYTES_HALF = BYTES_PANEL / 2,
	BYTES_TALL = 5, /* pixels that are multiplied together: 5 × 16 sums are 10 of 16 registers */
	BYTES_QUAD = 4, /* inputs whose products are added at once */
	BYTES_DEPTH =
		512 /* inputs before the next pixels' turn; chosen: weights of 8 KiB stay in the first cache */
};

/* Of each output pixel what its window sees of one row of inputs lies together: `rows` segments of `segment` values. */
struct bytes_cut {
	struct extent in, out;
	int n, rows, columns, stride, pad, pad_w; /* of the window, rows × columns */
	int segment, depth;                       /* filled to whole quads; depth: of all rows */
	int row;                                  /* gathered values from one pixel's to the next one's */
	int pixels, chunk, chunks;  /* output pixels, of all instances; those that are done together */
	int panels, at_once, parts; /* a thread does a chunk with so many panels; ceil(panels ÷ at_once) */
	bool negative;              /* inputs are int8; gathered they are 128 more */
};

/* Weights of half a panel, for the quads at `quad`: what is added besides the panel's. */
struct bytes_excess {
	const int8_t *at; /* (n, BYTES_HALF, BYTES_QUAD) */
	const int32_t *quad;
	int n;
};

/* What becomes of sums: y = (sum - offset)·factor + shift (+ residual·residual_factor), kept between low and high, rounded where y is bytes. */
struct bytes_finish {
	const int32_t *offset; /* (out, filled to whole panels), as are: */
	const float *factor, *shift;
	const void *residual; /* (n, out), may be y; NULL: none */
	void *y;              /* (n, out) */
	enum precision residual_type, y_type;
	float residual_factor, low, high;
};

struct bytes_loops {
	/* to (pixels first … end-1, c->row): what their windows see of x (n, in). */
	void (*gather)(const struct bytes_cut *c, const uint8_t *x, int first, int end, uint8_t *to);
	/*
	 * sum (n, BYTES_PANEL) = from (n, depth), c->row apart, · weights (depth / BYTES_QUAD, BYTES_PANEL, BYTES_QUAD) and each half's excess
	 */
	void (*multiply)(const struct bytes_cut *c, const int8_t *weights,
			 const struct bytes_excess excess[2], int n, const uint8_t *from, int32_t *sum);
	/* n pixels from `first` on; the panel's outputs from `channel` on */
	void (*finish)(const struct bytes_cut *c, const struct bytes_finish *f, const int32_t *sum, int first,
		       int n, int channel);
};

extern const struct bytes_loops bytes_avx2;

#endif
