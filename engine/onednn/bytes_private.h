/* Private to engine/onednn/bytes*: how the work is cut, and the loops. */
#ifndef ENGINE_ONEDNN_BYTES_PRIVATE_H
#define ENGINE_ONEDNN_BYTES_PRIVATE_H

#include "engine/onednn/bytes.h"

enum {
	BYTES_PANEL = 16, /* outputs of a panel */
	BYTES_HALF = BYTES_PANEL / 2,
	BYTES_TALL = 5,  /* pixels that are multiplied together: 5 × 16 sums are 10 of 16 registers */
	BYTES_QUAD = 4,  /* inputs whose products are added at once */
	BYTES_TAPS = 64, /* of a depthwise window, at most; chosen */
	/* Inputs before the next pixels' turn; chosen: weights of 8 KiB stay in the first cache. */
	BYTES_DEPTH = 512
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
	bool direct;                /* inputs lie as if they were gathered */
	bool depthwise;             /* an output sees its own channel only; nothing is gathered */
};

/* Weights of half a panel, for the quads at `quad`: what is added besides the panel's. */
struct bytes_excess {
	const int8_t *at; /* (n, BYTES_HALF, BYTES_QUAD) */
	const int32_t *quad;
	int n;
};

struct bytes_packed {
	int users;
	int8_t *data; /* (panels, depth / BYTES_QUAD, BYTES_PANEL, BYTES_QUAD), or depthwise ones; NULL: none */
	int8_t *excess;  /* (n, BYTES_HALF, BYTES_QUAD) */
	int32_t *quad;   /* (n): of which quads */
	int *excess_at;  /* (2 · panels + 1): from where on those of half a panel are; the last is n */
	float *steps;    /* (out): what 1 of an output's weights stands for */
	int32_t *offset; /* (out, filled to whole panels) */
	uint64_t version;
};

/* The weights of a slice, which kernels of several batch sizes share. -ENOMEM */
int bytes_packed_new(struct bytes_packed **ret, const struct bytes_cut *c);
void bytes_pack_release(struct bytes_packed *p, const struct bytes_cut *c); /* one user less; NULL is fine */
void bytes_pack_drop(struct bytes_packed *p, const struct bytes_cut *c);    /* until bytes_pack */
/* Packs them, if the version is another one. -ENOMEM */
int bytes_pack(struct bytes_packed *p, const struct bytes_cut *c, const struct op_desc *d,
	       const struct op_io *io);
/* Of one panel; of a depthwise one 16 bits each. */
const int8_t *bytes_panel_at(const struct bytes_packed *p, const struct bytes_cut *c, int panel);
struct bytes_excess bytes_excess_at(const struct bytes_packed *p, int half); /* of 2 · panels */

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
	/*
	 * sum (n, BYTES_PANEL): of the pixels from `first` on, channels from `channel` on. weights: as pack_taps() of bytes_pack.c leaves them; of
	 * x (n, in) nothing beyond the channels is read.
	 */
	void (*depthwise)(const struct bytes_cut *c, const uint8_t *x, int first, int n, int channel,
			  const int16_t *weights, int32_t *sum);
	/* n pixels from `first` on; the panel's outputs from `channel` on */
	void (*finish)(const struct bytes_cut *c, const struct bytes_finish *f, const int32_t *sum, int first,
		       int n, int channel);
};

extern const struct bytes_loops bytes_avx2;

#endif
