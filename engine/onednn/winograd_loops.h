/*
 * The loops of a Winograd convolution, for vectors of LANES floats: included once for each instruction set, with TARGET, LANES, WIDE
 * (vectors in a panel's row), LESS and MORE (the minimum and maximum of two vectors, of a NaN the second) and LOOPS, the name of what they make.
 *
 * Inputs and outputs are vectors of neighbouring channels, so that a transform is the same for all lanes and nothing is shuffled.
 */
#include "engine/onednn/winograd_private.h"

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#define INLINE static inline TARGET __attribute__((always_inline))

INLINE vec load(const float *p)
{
	return *(const loose *)p;
}

INLINE void store(float *p, vec v)
{
	*(loose *)p = v;
}

/* Bᵀx: the polynomials of the patch times those that vanish at all points but one. */
INLINE void transform_input(vec to[PATCH], const vec x[PATCH])
{
	vec even_a = x[4] - (FAR * FAR) * x[2], odd_a = x[3] - (FAR * FAR) * x[1];
	vec even_b = x[4] - (NEAR * NEAR) * x[2], odd_b = x[3] - (NEAR * NEAR) * x[1];

	to[0] = even_a - (NEAR * NEAR) * x[2] + (NEAR * NEAR * FAR * FAR) * x[0];
	to[1] = even_a + NEAR * odd_a;
	to[2] = even_a - NEAR * odd_a;
	to[3] = even_b + FAR * odd_b;
	to[4] = even_b - FAR * odd_b;
	to[5] = x[5] - (NEAR * NEAR + FAR * FAR) * x[3] + (NEAR * NEAR * FAR * FAR) * x[1];
}

/* Aᵀm */
INLINE void transform_output(vec to[TILE], const vec m[PATCH])
{
	vec even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];

	to[0] = m[0] + even_a + even_b;
	to[1] = NEAR * odd_a + FAR * odd_b;
	to[2] = (NEAR * NEAR) * even_a + (FAR * FAR) * even_b;
	to[3] = (NEAR * NEAR * NEAR) * odd_a + (FAR * FAR * FAR) * odd_b + m[5];
}

/* Gg of one column or row; the denominators are products of a point's distances from the others. */
#define NORM_A (1 / (2 * NEAR * NEAR * (NEAR * NEAR - FAR * FAR)))
#define NORM_B (1 / (2 * FAR * FAR * (FAR * FAR - NEAR * NEAR)))

INLINE vec weight_at(int point, vec g0, vec g1, vec g2)
{
	switch (point) {
	case 0:
		return g0 * (1 / (NEAR * NEAR * FAR * FAR));
	case 1:
		return (g0 + (NEAR * NEAR) * g2 + NEAR * g1) * NORM_A;
	case 2:
		return (g0 + (NEAR * NEAR) * g2 - NEAR * g1) * NORM_A;
	case 3:
		return (g0 + (FAR * FAR) * g2 + FAR * g1) * NORM_B;
	case 4:
		return (g0 + (FAR * FAR) * g2 - FAR * g1) * NORM_B;
	default:
		return g2;
	}
}

/* --- inputs --- */

static TARGET void input_tile(float *v, size_t spot, const float *const p[SPOTS], int channels)
{
	for (int c = 0; c < channels; c += LANES) {
		vec half[PATCH][PATCH];

#pragma GCC unroll 6
		for (int i = 0; i < PATCH; i++) {
			vec x[PATCH], t[PATCH];

#pragma GCC unroll 6
			for (int j = 0; j < PATCH; j++)
				x[j] = load(p[i * PATCH + j] + c);
			transform_input(t, x);
#pragma GCC unroll 6
			for (int j = 0; j < PATCH; j++)
				half[j][i] = t[j];
		}
#pragma GCC unroll 6
		for (int j = 0; j < PATCH; j++) {
			vec t[PATCH];

			transform_input(t, half[j]);
#pragma GCC unroll 6
			for (int i = 0; i < PATCH; i++)
				store(v + (size_t)(i * PATCH + j) * spot + c, t[i]);
		}
	}
}

/* Tiles first … end-1; v is that of the tile `start`. */
static TARGET void input(const struct winograd_cut *c, const float *x, int first, int end, int start,
			 float *v)
{
	const float *p[SPOTS];

	for (int t = first; t < end; t++) {
		winograd_pixels(p, &c->shape, x, c->shape.in, t, PATCH, 1, 0, c->zeros);
		input_tile(v + (size_t)(t - start) * (size_t)c->shape.in, c->v_spot, p, c->shape.in);
	}
}

/* --- products --- */

/* m (rows, vectors·LANES) = or += v (rows, depth) · u (depth, vectors·LANES) */
INLINE void product(int rows, int vectors, float *m, size_t m_row, const float *v, size_t v_row,
		    const float *u, int depth, bool first)
{
	vec sum[12][4];

#pragma GCC unroll 12
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
		for (int j = 0; j < vectors; j++)
			sum[r][j] = first ? (vec){0} : load(m + (size_t)r * m_row + j * LANES);
	for (int k = 0; k < depth; k++) {
		vec weight[4];

#pragma GCC unroll 4
		for (int j = 0; j < vectors; j++)
			weight[j] = load(u + (k * vectors + j) * LANES);
#pragma GCC unroll 12
		for (int r = 0; r < rows; r++) {
			float x = v[(size_t)r * v_row + (size_t)k];

#pragma GCC unroll 4
			for (int j = 0; j < vectors; j++)
				sum[r][j] += x * weight[j];
		}
	}
#pragma GCC unroll 12
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
		for (int j = 0; j < vectors; j++)
			store(m + (size_t)r * m_row + j * LANES, sum[r][j]);
}

/* n rows in parts as high as the registers allow. */
INLINE void products(int tall, int vectors, int n, float *m, size_t m_row, const float *v, size_t v_row,
		     const float *u, int depth, bool first)
{
	int r = 0;

	for (; r + tall <= n; r += tall)
		product(tall, vectors, m + (size_t)r * m_row, m_row, v + (size_t)r * v_row, v_row, u, depth,
			first);
	for (; r + 4 <= n; r += 4)
		product(4, vectors, m + (size_t)r * m_row, m_row, v + (size_t)r * v_row, v_row, u, depth,
			first);
	for (; r < n; r++)
		product(1, vectors, m + (size_t)r * m_row, m_row, v + (size_t)r * v_row, v_row, u, depth,
			first);
}

#define PRODUCTS(vectors, tall)                                                                         \
	static TARGET __attribute__((noinline)) void products_##vectors(                                \
		int n, float *m, size_t m_row, const float *v, size_t v_row, const float *u, int depth, \
		bool first)                                                                             \
	{                                                                                               \
		products(tall, vectors, n, m, m_row, v, v_row, u, depth, first);                        \
	}
PRODUCTS(1, 12)
PRODUCTS(2, WIDE == 2 ? 6 : 12)
#if WIDE == 4
PRODUCTS(3, 8)
PRODUCTS(4, 6)
#endif

/* Row i of the transformed weights. */
INLINE void weights_row(int i, float *u, size_t spot, const float *packed, int depth, int width)
{
	for (int k = 0; k < depth; k++)
		for (int j = 0; j < width; j += LANES) {
			const float *g = packed + (size_t)k * 9 * (size_t)width + j;
			vec t[3];

#pragma GCC unroll 3
			for (int q = 0; q < 3; q++)
				t[q] = weight_at(i, load(g + q * width), load(g + (3 + q) * width),
						 load(g + (6 + q) * width));
#pragma GCC unroll 6
			for (int q = 0; q < PATCH; q++)
				store(u + (size_t)q * spot + (size_t)k * (size_t)width + j,
				      weight_at(q, t[0], t[1], t[2]));
		}
}

static TARGET void weights(int i, float *u, size_t spot, const float *packed, int depth, int width)
{
	switch (i) {
	case 0:
		weights_row(0, u, spot, packed, depth, width);
		break;
	case 1:
		weights_row(1, u, spot, packed, depth, width);
		break;
	case 2:
		weights_row(2, u, spot, packed, depth, width);
		break;
	case 3:
		weights_row(3, u, spot, packed, depth, width);
		break;
	case 4:
		weights_row(4, u, spot, packed, depth, width);
		break;
	default:
		weights_row(5, u, spot, packed, depth, width);
	}
}

/* n tiles with one panel. The depth is cut so that a panel of weights stays in the first cache. */
static TARGET void multiply(const struct winograd_cut *c, const float *packed, int width, int n,
			    const float *v, float *u, float *m)
{
	enum { DEPTH = 128 }; /* chosen: 128 × 64 floats are two thirds of 48 KiB */
	size_t row = (size_t)c->shape.in, spot = row * (size_t)c->panel;

	for (int i = 0; i < PATCH; i++) {
		weights(i, u, spot, packed, c->shape.in, width);
		for (int j = 0; j < PATCH; j++) {
			float *to = m + (size_t)(i * PATCH + j) * c->m_spot;
			const float *from = v + (size_t)(i * PATCH + j) * c->v_spot;

			for (int k = 0; k < c->shape.in; k += DEPTH) {
				int depth = c->shape.in - k < DEPTH ? c->shape.in - k : DEPTH;
				const float *by = u + (size_t)j * spot + (size_t)k * (size_t)width;

				switch (width / LANES) {
				case 1:
					products_1(n, to, (size_t)width, from + k, row, by, depth, k == 0);
					break;
				case 2:
					products_2(n, to, (size_t)width, from + k, row, by, depth, k == 0);
					break;
#if WIDE == 4
				case 3:
					products_3(n, to, (size_t)width, from + k, row, by, depth, k == 0);
					break;
				default:
					products_4(n, to, (size_t)width, from + k, row, by, depth, k == 0);
#endif
				}
			}
		}
	}
}

/* --- outputs --- */

struct output_place {
	float *y;
	const float *residual; /* NULL: none */
	size_t row, pixel;     /* elements to the next */
	int rows, columns;     /* of the tile, inside the plane */
};

/* NaN stays. */
INLINE vec bounded(vec v, float low, float high)
{
	return LESS(high - (vec){0}, MORE(low - (vec){0}, v));
}

static TARGET void output_vector(const struct output_place *p, const float *m, size_t spot, vec bias,
				 float low, float high)
{
	vec half[TILE][PATCH];

#pragma GCC unroll 6
	for (int j = 0; j < PATCH; j++) {
		vec x[PATCH], t[TILE];

#pragma GCC unroll 6
		for (int i = 0; i < PATCH; i++)
			x[i] = load(m + (size_t)(i * PATCH + j) * spot);
		transform_output(t, x);
#pragma GCC unroll 4
		for (int i = 0; i < TILE; i++)
			half[i][j] = t[i];
	}
	for (int i = 0; i < p->rows; i++) {
		vec t[TILE];

		transform_output(t, half[i]);
#pragma GCC unroll 4
		for (int j = 0; j < TILE; j++) {
			size_t at = (size_t)i * p->row + (size_t)j * p->pixel;

			if (j == p->columns)
				break;
			t[j] += bias;
			if (p->residual)
				t[j] += load(p->residual + at);
			store(p->y + at, bounded(t[j], low, high));
		}
	}
}

/* Tiles first … end-1, m is that of `first`; `width` channels from `channel` on. */
static TARGET void output(const struct winograd_cut *c, const struct winograd_run *run, const float *m,
			  int first, int end, int channel, int width)
{
	const struct winograd_shape *s = &c->shape;
	int plane = c->rows * c->columns;

	for (int t = first; t < end; t++) {
		int top = t % plane / c->columns * TILE, left = t % c->columns * TILE;
		size_t at = ((size_t)(t / plane) * (size_t)(s->h * s->w) + (size_t)(top * s->w + left)) *
				    (size_t)s->out +
			    (size_t)channel;
		struct output_place p = {.row = (size_t)s->w * (size_t)s->out,
					 .pixel = (size_t)s->out,
					 .rows = s->h - top < TILE ? s->h - top : TILE,
					 .columns = s->w - left < TILE ? s->w - left : TILE};

		for (int j = 0; j < width; j += LANES) {
			p.y = run->y + at + j;
			p.residual = run->residual ? run->residual + at + j : NULL;
			output_vector(&p, m + (size_t)(t - first) * (size_t)width + j, c->m_spot,
				      run->bias ? load(run->bias + channel + j) : (vec){0}, run->floor,
				      run->ceiling);
		}
	}
}
