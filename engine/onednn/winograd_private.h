/* Private to engine/onednn/winograd*: how the work is cut, and the loops for each instruction set. */
#ifndef ENGINE_ONEDNN_WINOGRAD_PRIVATE_H
#define ENGINE_ONEDNN_WINOGRAD_PRIVATE_H

#include "engine/onednn/winograd.h"

#define TILE  4               /* outputs of a tile, each way */
#define PATCH (TILE + 2)      /* inputs */
#define SPOTS (PATCH * PATCH) /* of a transformed tile, each a product of matrices by itself */

/*
 * The points 0, ±NEAR, ±FAR, ∞ that the transforms interpolate at. Chosen by trying: with 0.65 and 1.55 the worst error of 64
 * input channels is 1.4e-6 of the largest output, the mean one 1.7e-7; with the usual 1 and 2 6.3e-6 and 3.2e-7.
 */
#define NEAR 0.65f
#define FAR  1.55f

struct winograd_loops;

/* Tiles are numbered through images, rows of tiles and columns. */
struct winograd_cut {
	struct winograd_shape shape;
	int rows, columns, tiles; /* of tiles: in a plane; in all */
	int chunk;                /* tiles that are transformed and multiplied together */
	int panel, panels;        /* output channels of a panel, all but the last; how many */
	int threads;
	bool by_panels; /* threads share the panels of one chunk, which is all tiles; else each has chunks of its own */
	size_t v_spot, m_spot;         /* elements from one spot to the next in V and M */
	size_t v_size, u_size, m_size; /* elements of each, 64-byte aligned */
	const struct winograd_loops *loops;
	const float *zeros; /* (in): what lies around a plane */
};

/*
 * V (SPOTS, chunk, in): transformed inputs. U (PATCH, in, panel): transformed weights of one row of spots, M (SPOTS, chunk, panel):
 * their products with V. packed: (panel, in, 9, panel's width), of one panel here.
 */
struct winograd_loops {
	int lanes; /* channels come in multiples of it */
	int panel; /* the widest */
	void (*input)(const struct winograd_cut *c, const float *x, int first, int end, int start, float *v);
	void (*multiply)(const struct winograd_cut *c, const float *packed, int width, int n, const float *v,
			 float *u, float *m);
	void (*output)(const struct winograd_cut *c, const struct winograd_run *run, const float *m,
		       int first, int end, int channel, int width);
	/*
	 * For the gradient of weights. One tile at v and m, `spot` elements from one spot to the next: of x from the pixels p, of dy from those
	 * of the tile; `channels` of each pixel.
	 */
	void (*input_tile)(float *v, size_t spot, const float *const p[SPOTS], int channels);
	void (*gradient_tile)(float *m, size_t spot, const float *const p[TILE * TILE], int channels);
	/* sum (in, width) = or, with add, += vᵀ (in, n) · m (n, width) */
	void (*multiply_transposed)(float *sum, size_t sum_row, const float *v, size_t v_row, const float *m,
				    size_t m_row, int n, int in, int width, bool add);
	/* dweight (lanes, lanes, 9), outputs first, `ld` apart, += what the spots' sums (lanes, lanes), inputs first, come to; they
	 * are the sums of `parts`, `part` elements apart */
	void (*add_weights)(float *dweight, int64_t ld, const float *sum, size_t sum_row, size_t spot,
			    int parts, size_t part);
};

extern const struct winograd_loops winograd_avx512, winograd_avx2;

const struct winograd_loops *winograd_find_loops(void); /* of this CPU; NULL: it has none */
int winograd_tiles(int side);                           /* along a side of a plane */
/*
 * The pixels of tile t, side × side, of values (n, h, w, channels) from channel c on; `before` of them lie above and left of the
 * tile. Outside of the plane: zeros (channels).
 */
void winograd_pixels(const float **p, const struct winograd_shape *s, const float *values, int channels,
		     int t, int side, int before, int c, const float *zeros);

#endif
