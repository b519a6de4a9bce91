/*
 * Products of bytes by vpmaddubsw: 32 of uint8 and int8, neighbours added in 16 bits, then by vpmaddwd in 32. That is twice as many a cycle
 * as f32 has. What two products come to fits 16 bits for all inputs where the two weights' magnitudes are no more than 128 together;
 * bytes_pack.c sees to that.
 */
#if defined(__x86_64__)
#include "engine/onednn/bytes_private.h"

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline TARGET __attribute__((always_inline))

enum {
	LANES = 8,
	LINE = 16 /* quads in a line of the caches */
};

/* --- inputs --- */

INLINE void copy(uint8_t *to, const uint8_t *from, int n, bool negative)
{
	int i = 0;

	if (!negative) {
		memcpy(to, from, (size_t)n);
		return;
	}
	for (; i + 32 <= n; i += 32) {
		__m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(from + i));

		_mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_xor_si256(v, _mm256_set1_epi8(-128)));
	}
	for (; i < n; i++)
		to[i] = from[i] ^ 128;
}

/* One row of a window; x: of the instance. */
INLINE void segment(const struct bytes_cut *c, const uint8_t *x, int row, int column, bool negative,
		    uint8_t *to)
{
	int left = column < 0 ? -column : 0, nothing = negative ? 128 : 0;
	int right = column + c->columns > c->in.w ? c->in.w - column : c->columns;
	size_t channels = (size_t)c->in.c, pixel;

	if (row < 0 || row >= c->in.h || left >= right) {
		memset(to, nothing, (size_t)c->segment);
		return;
	}
	pixel = (size_t)row * (size_t)c->in.w + (size_t)(column + left);
	memset(to, nothing, (size_t)left * channels);
	copy(to + (size_t)left * channels, x + pixel * channels, (right - left) * c->in.c, negative);
	memset(to + (size_t)right * channels, nothing, (size_t)c->segment - (size_t)right * channels);
}

/* What an output pixel sees. */
struct window {
	const uint8_t *x; /* its instance */
	int row, column;  /* of the pixel */
	int top, left;    /* of the window, in the plane of inputs or outside */
};

INLINE struct window window_at(const struct bytes_cut *c, const uint8_t *x, int pixel)
{
	int plane = c->out.h * c->out.w, row = pixel % plane / c->out.w, column = pixel % c->out.w;
	size_t instance = (size_t)c->in.h * (size_t)c->in.w * (size_t)c->in.c;

	return (struct window){.x = x + (size_t)(pixel / plane) * instance,
			       .row = row,
			       .column = column,
			       .top = row * c->stride - c->pad,
			       .left = column * c->stride - c->pad_w};
}

INLINE void next_window(const struct bytes_cut *c, struct window *v)
{
	v->left += c->stride;
	if (++v->column < c->out.w)
		return;
	v->column = 0;
	v->left = -c->pad_w;
	v->top += c->stride;
	if (++v->row < c->out.h)
		return;
	v->row = 0;
	v->top = -c->pad;
	v->x += (size_t)c->in.h * (size_t)c->in.w * (size_t)c->in.c;
}

INLINE void gather_all(const struct bytes_cut *cut, const uint8_t *x, int first, int end, bool negative,
		       uint8_t *to)
{
	const struct bytes_cut c = *cut; /* which `to` can't alias */
	struct window v = window_at(&c, x, first);

	for (int p = first; p < end; p++, to += c.row, next_window(&c, &v))
		for (int i = 0; i < c.rows; i++)
			segment(&c, v.x, v.top + i, v.left, negative, to + i * c.segment);
}

static TARGET void gather(const struct bytes_cut *c, const uint8_t *x, int first, int end, uint8_t *to)
{
	if (c->negative)
		gather_all(c, x, first, end, true, to);
	else
		gather_all(c, x, first, end, false, to);
}

/* --- products --- */

/* 32 products of bytes, added by fours; the weights' pairs fit (see above) */
INLINE __m256i fours(__m256i x, __m256i weights)
{
	return _mm256_madd_epi16(_mm256_maddubs_epi16(x, weights), _mm256_set1_epi16(1));
}

INLINE __m256i four_of(const uint8_t *x)
{
	int32_t four;

	memcpy(&four, x, sizeof(four));
	return _mm256_set1_epi32(four);
}

INLINE __m256i load_sums(const int32_t *sum)
{
	return _mm256_loadu_si256((const __m256i *)(const void *)sum);
}

INLINE void store_sums(int32_t *sum, __m256i v)
{
	_mm256_storeu_si256((__m256i *)(void *)sum, v);
}

INLINE __m256i load_weights(const int8_t *w)
{
	return _mm256_loadu_si256((const __m256i *)(const void *)w);
}

/* sum (rows, BYTES_PANEL) = or += from (rows) · weights of n quads */
INLINE void product(int rows, int32_t *sum, const uint8_t *from, size_t row, const int8_t *weights, int n,
		    bool first)
{
	__m256i total[BYTES_TALL][2];

#pragma GCC unroll 5
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
		for (int j = 0; j < 2; j++)
			total[r][j] = first ? _mm256_setzero_si256()
					    : load_sums(sum + r * BYTES_PANEL + j * BYTES_HALF);
	for (int k = 0; k < n;) {
		int end = k + LINE < n ? k + LINE : n;

#pragma GCC unroll 5
		for (int r = 0; r < rows; r++)
			_mm_prefetch(from + (size_t)(rows + r) * row + BYTES_QUAD * k, _MM_HINT_T0);
		for (; k < end; k++) {
			const int8_t *w = weights + (size_t)k * BYTES_PANEL * BYTES_QUAD;
			__m256i left = load_weights(w), right = load_weights(w + BYTES_HALF * BYTES_QUAD);

#pragma GCC unroll 5
			for (int r = 0; r < rows; r++) {
				__m256i x = four_of(from + (size_t)r * row + BYTES_QUAD * k);

				total[r][0] = _mm256_add_epi32(total[r][0], fours(x, left));
				total[r][1] = _mm256_add_epi32(total[r][1], fours(x, right));
			}
		}
	}
#pragma GCC unroll 5
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
		for (int j = 0; j < 2; j++)
			store_sums(sum + r * BYTES_PANEL + j * BYTES_HALF, total[r][j]);
}

INLINE void products(int n, int32_t *sum, const uint8_t *from, size_t row, const int8_t *weights, int quads,
		     bool first)
{
	for (; n >= BYTES_TALL; n -= BYTES_TALL, sum += BYTES_TALL * BYTES_PANEL, from += BYTES_TALL * row)
		product(BYTES_TALL, sum, from, row, weights, quads, first);
	switch (n) {
	case 4:
		product(4, sum, from, row, weights, quads, first);
		break;
	case 3:
		product(3, sum, from, row, weights, quads, first);
		break;
	case 2:
		product(2, sum, from, row, weights, quads, first);
		break;
	case 1:
		product(1, sum, from, row, weights, quads, first);
	}
}

/* sum (rows), BYTES_PANEL apart, += */
INLINE void product_excess(int rows, int32_t *sum, const uint8_t *from, size_t row,
			   const struct bytes_excess *e)
{
	__m256i total[2 * BYTES_TALL];

#pragma GCC unroll 10
	for (int r = 0; r < rows; r++)
		total[r] = load_sums(sum + r * BYTES_PANEL);
	for (int k = 0; k < e->n; k++) {
		const uint8_t *x = from + BYTES_QUAD * e->quad[k];
		__m256i w = load_weights(e->at + (size_t)k * BYTES_HALF * BYTES_QUAD);

#pragma GCC unroll 10
		for (int r = 0; r < rows; r++)
			total[r] = _mm256_add_epi32(total[r], fours(four_of(x + (size_t)r * row), w));
	}
#pragma GCC unroll 10
	for (int r = 0; r < rows; r++)
		store_sums(sum + r * BYTES_PANEL, total[r]);
}

static TARGET __attribute__((noinline)) void products_excess(int n, int32_t *sum, const uint8_t *from,
							     size_t row, const struct bytes_excess *e)
{
	int r = 0;

	for (; r + 2 * BYTES_TALL <= n; r += 2 * BYTES_TALL)
		product_excess(2 * BYTES_TALL, sum + r * BYTES_PANEL, from + (size_t)r * row, row, e);
	for (; r + BYTES_TALL <= n; r += BYTES_TALL)
		product_excess(BYTES_TALL, sum + r * BYTES_PANEL, from + (size_t)r * row, row, e);
	for (; r < n; r++)
		product_excess(1, sum + r * BYTES_PANEL, from + (size_t)r * row, row, e);
}

static TARGET void multiply(const struct bytes_cut *c, const int8_t *weights,
			    const struct bytes_excess excess[2], int n, const uint8_t *from, int32_t *sum)
{
	size_t row = (size_t)c->row;

	for (int k = 0; k < c->depth; k += BYTES_DEPTH) {
		int depth = c->depth - k < BYTES_DEPTH ? c->depth - k : BYTES_DEPTH;

		products(n, sum, from + k, row, weights + (size_t)k * BYTES_PANEL, depth / BYTES_QUAD,
			 k == 0);
	}
	for (int half = 0; half < 2; half++)
		if (excess[half].n)
			products_excess(n, sum + half * BYTES_HALF, from, row, &excess[half]);
}

/* --- depthwise --- */

/* 16 channels, of which `width` are there. */
INLINE __m256i channels_at(const uint8_t *x, int width, bool negative)
{
	uint8_t some[BYTES_PANEL] = {0};
	__m128i v;

	if (width < BYTES_PANEL) {
		memcpy(some, x, (size_t)width);
		x = some;
	}
	v = _mm_loadu_si128((const __m128i *)(const void *)x);
	return negative ? _mm256_cvtepi8_epi16(v) : _mm256_cvtepu8_epi16(v);
}

/* Of a window that reaches beyond the plane. */
INLINE __m256i tap_at(const struct bytes_cut *c, const struct window *v, int t, int channel, int width,
		      bool negative)
{
	int row = v->top + t / c->columns, column = v->left + t % c->columns;
	size_t pixel = (size_t)row * (size_t)c->in.w + (size_t)column;

	if (row < 0 || row >= c->in.h || column < 0 || column >= c->in.w)
		return _mm256_setzero_si256();
	return channels_at(v->x + pixel * (size_t)c->in.c + channel, width, negative);
}

/* Two taps at a time: neighbours of 16 bits are the same channel's. */
INLINE void add_taps(__m256i sums[2], __m256i a, __m256i b, const int16_t *weights)
{
	const __m256i *w = (const __m256i *)(const void *)weights;
	__m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), _mm256_loadu_si256(w));
	__m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), _mm256_loadu_si256(w + 1));

	sums[0] = _mm256_add_epi32(sums[0], low);
	sums[1] = _mm256_add_epi32(sums[1], high);
}

INLINE void depthwise_all(const struct bytes_cut *cut, const uint8_t *x, int first, int n, int channel,
			  const int16_t *weights, int32_t *sum, int taps, int width, bool negative)
{
	const struct bytes_cut c = *cut; /* which `sum` can't alias */
	struct window v = window_at(&c, x, first);
	const __m256i zero = _mm256_setzero_si256();
	size_t offset[BYTES_TAPS];

	for (int t = 0; t < taps; t++)
		offset[t] = ((size_t)(t / c.columns) * (size_t)c.in.w + (size_t)(t % c.columns)) *
				    (size_t)c.in.c +
			    (size_t)channel;
	for (int r = 0; r < n; r++, sum += BYTES_PANEL, next_window(&c, &v)) {
		__m256i sums[2] = {zero, zero};

		if (v.top >= 0 && v.left >= 0 && v.top + c.rows <= c.in.h && v.left + c.columns <= c.in.w) {
			const uint8_t *from =
				v.x + ((size_t)v.top * (size_t)c.in.w + (size_t)v.left) * (size_t)c.in.c;

#pragma GCC unroll 5
			for (int t = 0; t < taps; t += 2)
				add_taps(sums, channels_at(from + offset[t], width, negative),
					 t + 1 < taps ? channels_at(from + offset[t + 1], width, negative)
						      : zero,
					 weights + t * BYTES_PANEL);
		} else {
			for (int t = 0; t < taps; t += 2)
				add_taps(sums, tap_at(&c, &v, t, channel, width, negative),
					 t + 1 < taps ? tap_at(&c, &v, t + 1, channel, width, negative)
						      : zero,
					 weights + t * BYTES_PANEL);
		}
		store_sums(sum, _mm256_permute2x128_si256(sums[0], sums[1], 0x20));
		store_sums(sum + BYTES_HALF, _mm256_permute2x128_si256(sums[0], sums[1], 0x31));
	}
}

static TARGET void depthwise(const struct bytes_cut *c, const uint8_t *x, int first, int n, int channel,
			     const int16_t *weights, int32_t *sum)
{
	int width = c->in.c - channel, taps = c->rows * c->columns;

	if (width < BYTES_PANEL)
		depthwise_all(c, x, first, n, channel, weights, sum, taps, width, c->negative);
	else if (taps == 9 && !c->negative)
		depthwise_all(c, x, first, n, channel, weights, sum, 9, BYTES_PANEL, false);
	else
		depthwise_all(c, x, first, n, channel, weights, sum, taps, BYTES_PANEL, c->negative);
}

/* --- results --- */

INLINE __m256 load_numbers(const void *from, size_t at, enum precision type)
{
	const char *bytes = from;
	__m128i v;

	if (type == PRECISION_F32)
		return _mm256_loadu_ps((const float *)from + at);
	v = _mm_loadl_epi64((const __m128i *)(const void *)(bytes + at));
	return _mm256_cvtepi32_ps(type == PRECISION_INT8 ? _mm256_cvtepi8_epi32(v) : _mm256_cvtepu8_epi32(v));
}

/* To the nearest, ties to even. */
INLINE void store_numbers(void *to, size_t at, enum precision type, __m256 v)
{
	char *bytes = to;
	__m256i whole;
	__m128i words;

	if (type == PRECISION_F32) {
		_mm256_storeu_ps((float *)to + at, v);
		return;
	}
	whole = _mm256_cvtps_epi32(v);
	words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
	_mm_storel_epi64((__m128i *)(void *)(bytes + at), type == PRECISION_INT8
								  ? _mm_packs_epi16(words, words)
								  : _mm_packus_epi16(words, words));
}

/* Of LANES outputs. */
struct outputs {
	__m256i offset;
	__m256 factor, shift;
};

INLINE struct outputs outputs_at(const struct bytes_finish *f, int channel)
{
	return (struct outputs){.offset = load_sums(f->offset + channel),
				.factor = _mm256_loadu_ps(f->factor + channel),
				.shift = _mm256_loadu_ps(f->shift + channel)};
}

/* NaN of f32 stays. */
INLINE __m256 finished(const struct bytes_finish *f, const struct outputs *of, const int32_t *sum,
		       __m256 residual)
{
	__m256 v = _mm256_cvtepi32_ps(_mm256_sub_epi32(load_sums(sum), of->offset));

	v = _mm256_fmadd_ps(v, of->factor, of->shift);
	v = _mm256_fmadd_ps(residual, _mm256_set1_ps(f->residual_factor), v);
	return _mm256_min_ps(_mm256_set1_ps(f->high), _mm256_max_ps(_mm256_set1_ps(f->low), v));
}

/* LANES outputs of n pixels, `row` apart in y and BYTES_PANEL in sum. */
INLINE void finish_lanes(const struct bytes_finish *f, const struct outputs *of, const int32_t *sum,
			 size_t at, size_t row, int n)
{
	for (int r = 0; r < n; r++, sum += BYTES_PANEL, at += row)
		store_numbers(f->y, at, f->y_type,
			      finished(f, of, sum,
				       f->residual ? load_numbers(f->residual, at, f->residual_type)
						   : _mm256_setzero_ps()));
}

/* The same of the last outputs, fewer than a vector. */
static TARGET void finish_some(const struct bytes_finish *f, const struct outputs *of, const int32_t *sum,
			       size_t at, size_t row, int n, int outputs)
{
	size_t of_residual = precision_size(f->residual_type), of_y = precision_size(f->y_type);

	for (int r = 0; r < n; r++, sum += BYTES_PANEL, at += row) {
		float residual[LANES] = {0}, y[LANES];
		struct bytes_finish one = *f;

		if (f->residual)
			memcpy(residual, (const char *)f->residual + at * of_residual,
			       (size_t)outputs * of_residual);
		one.residual = f->residual ? residual : NULL;
		one.y = y;
		finish_lanes(&one, of, sum, 0, 0, 1);
		memcpy((char *)f->y + at * of_y, y, (size_t)outputs * of_y);
	}
}

static TARGET void finish(const struct bytes_cut *c, const struct bytes_finish *finish, const int32_t *sum,
			  int first, int n, int channel)
{
	const struct bytes_finish f = *finish; /* which y can't alias */
	size_t row = (size_t)c->out.c, at = (size_t)first * row + (size_t)channel;

	for (int j = 0; j < BYTES_PANEL && channel + j < c->out.c; j += LANES) {
		struct outputs of = outputs_at(&f, channel + j);
		int left = c->out.c - channel - j;

		if (left >= LANES)
			finish_lanes(&f, &of, sum + j, at + (size_t)j, row, n);
		else
			finish_some(&f, &of, sum + j, at + (size_t)j, row, n, left);
	}
}

const struct bytes_loops bytes_avx2 = {
	.gather = gather, .multiply = multiply, .depthwise = depthwise, .finish = finish};
#endif
