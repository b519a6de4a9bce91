/*
 * Resizing, one axis after the other: each output row or column is a weighted sum of a run of inputs (its
 * taps), by a triangle whose half width is one pixel or, when shrinking, one output pixel: bilinear with
 * antialiasing, as Pillow's and torchvision's. An output row is first summed down the columns of its input
 * rows in floats, which are contiguous, then along the row in 16-bit integers, eight taps at a time.
 *
 * Between the two a value is kept in 1/64 and weights are 1/16384: their sum is exact (what rounding leaves of
 * one tap goes into the next), so a flat image stays flat, and no sum can overflow.
 */
#include "engine/image_private.h"

#include "engine/base/vectorised.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { WEIGHT_BITS = 14, WEIGHT_ONE = 1 << WEIGHT_BITS, TAPS_BLOCK = 8 };

struct taps {
	int *first, *count; /* (out) */
	int16_t *weight;    /* (out, most) */
	int most;           /* a multiple of TAPS_BLOCK; weights beyond count are 0 */
};

static void taps_release(struct taps *t)
{
	free(t->first);
	free(t->weight);
}

static double triangle(double away, double radius)
{
	double height = radius - fabs(away);

	return height > 0 ? height : 0;
}

/* `extent` is how much of the `in` pixels the output covers: the last of a subsampled plane may reach beyond
 * the picture. */
static int taps_init(struct taps *t, int in, double extent, int out)
{
	double scale = extent / out, radius = scale > 1 ? scale : 1;

	t->most = ((int)ceil(2 * radius) + 1 + TAPS_BLOCK - 1) / TAPS_BLOCK * TAPS_BLOCK;
	t->first = calloc((size_t)out * 2, sizeof(int));
	t->weight = calloc((size_t)out * (size_t)t->most, sizeof(*t->weight));
	if (!t->first || !t->weight)
		return -ENOMEM;
	t->count = t->first + out;
	for (int i = 0; i < out; i++) {
		int16_t *w = t->weight + (size_t)i * (size_t)t->most;
		double centre = (i + 0.5) * scale, sum = 0, so_far = 0, share;
		int first = (int)fmax(0, floor(centre - radius + 0.5)),
		    last = (int)fmin(in, floor(centre + radius + 0.5)), given = 0;

		if (first >= last) /* a plane that ends before its picture does */
			first = in - 1, last = in;
		for (int j = first; j < last; j++)
			sum += triangle(j + 0.5 - centre, radius);
		share = sum > 0 ? WEIGHT_ONE / sum : 0;
		for (int j = first; j < last; j++) {
			int upto;

			so_far += triangle(j + 0.5 - centre, radius);
			upto = sum > 0 ? (int)(so_far * share + 0.5) : WEIGHT_ONE;
			w[j - first] = (int16_t)(upto - given);
			given = upto;
		}
		t->first[i] = first;
		t->count[i] = last - first;
	}
	return 0;
}

struct resizer {
	struct taps across, down;
	size_t stride;
	int in_width, channels, width;
	float *sum;   /* (in_width · channels) */
	int16_t *row; /* (channels, row_size): the same in 1/64, by channel */
	size_t row_size;
};

void resizer_free(struct resizer *r)
{
	if (!r)
		return;
	taps_release(&r->across);
	taps_release(&r->down);
	free(r->sum);
	free(r->row);
	free(r);
}

int resizer_new(struct resizer **ret, const struct resizer_plane *from, int height, int width)
{
	struct resizer *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->stride = from->stride;
	r->in_width = from->width;
	r->channels = from->channels;
	r->width = width;
	if (taps_init(&r->across, from->width, from->extent_x, width) < 0 ||
	    taps_init(&r->down, from->height, from->extent_y, height) < 0)
		goto fail;
	r->row_size =
		(size_t)from->width + (size_t)r->across.most; /* weights of 0 read beyond the last pixel */
	r->sum = calloc((size_t)from->width * (size_t)from->channels, sizeof(*r->sum));
	r->row = calloc(r->row_size * (size_t)from->channels, sizeof(*r->row));
	if (!r->sum || !r->row)
		goto fail;
	*ret = r;
	return 0;
fail:
	resizer_free(r);
	return -ENOMEM;
}

VECTORISED static void weigh_row(float *restrict sum, const uint8_t *restrict in, float weight, size_t n,
				 bool add)
{
	if (add)
		for (size_t i = 0; i < n; i++)
			sum[i] += weight * (float)in[i];
	else
		for (size_t i = 0; i < n; i++)
			sum[i] = weight * (float)in[i];
}

VECTORISED static void to_fixed(int16_t *restrict row, const float *restrict sum, size_t n, int channels,
				size_t row_size)
{
	const float scale = 64.0f / WEIGHT_ONE;

	if (channels == 1)
		for (size_t i = 0; i < n; i++)
			row[i] = (int16_t)(sum[i] * scale + 0.5f);
	else
		for (int c = 0; c < channels; c++)
			for (size_t i = 0; i < n; i++)
				row[(size_t)c * row_size + i] =
					(int16_t)(sum[i * (size_t)channels + (size_t)c] * scale + 0.5f);
}

/* out is in 1/64 as well. Where every output has at most eight taps, four outputs at a time, which compilers do
 * not find by themselves; SSE2 is in every x86-64. */
static void weigh_across(int16_t *restrict out, const int16_t *restrict row, const struct taps *restrict t,
			 int n)
{
	int x = 0;

#ifdef __SSE2__
	for (; x + 4 <= n; x += 4) {
		__m128i sum[4], low, high;

		for (int i = 0; i < 4; i++)
			sum[i] = _mm_madd_epi16(
				_mm_loadu_si128((const __m128i *)(const void *)(row + t->first[x + i])),
				_mm_loadu_si128(
					(const __m128i *)(const void *)(t->weight + (x + i) * TAPS_BLOCK)));
		low = _mm_add_epi32(_mm_unpacklo_epi32(sum[0], sum[1]), _mm_unpackhi_epi32(sum[0], sum[1]));
		high = _mm_add_epi32(_mm_unpacklo_epi32(sum[2], sum[3]), _mm_unpackhi_epi32(sum[2], sum[3]));
		low = _mm_add_epi32(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high));
		low = _mm_srai_epi32(_mm_add_epi32(low, _mm_set1_epi32(WEIGHT_ONE / 2)), WEIGHT_BITS);
		_mm_storel_epi64((__m128i *)(void *)(out + x), _mm_packs_epi32(low, low));
	}
#endif
	for (; x < n; x++) {
		const int16_t *p = row + t->first[x], *w = t->weight + (size_t)x * TAPS_BLOCK;
		int32_t sum = WEIGHT_ONE / 2;

		for (int j = 0; j < TAPS_BLOCK; j++)
			sum += p[j] * w[j];
		out[x] = (int16_t)(sum >> WEIGHT_BITS);
	}
}

VECTORISED static void weigh_across_far(int16_t *restrict out, const int16_t *restrict row,
					const struct taps *restrict t, int n)
{
	for (int x = 0; x < n; x++) {
		const int16_t *p = row + t->first[x], *w = t->weight + (size_t)x * (size_t)t->most;
		int32_t sum = WEIGHT_ONE / 2;

		for (int j = 0; j < t->count[x]; j++)
			sum += p[j] * w[j];
		out[x] = (int16_t)(sum >> WEIGHT_BITS);
	}
}

void resizer_row(struct resizer *r, const uint8_t *pixels, int y, int16_t *out)
{
	const int16_t *w = r->down.weight + (size_t)y * (size_t)r->down.most;
	size_t n = (size_t)r->in_width;

	for (int j = 0; j < r->down.count[y]; j++)
		weigh_row(r->sum, pixels + (size_t)(r->down.first[y] + j) * r->stride, (float)w[j],
			  n * (size_t)r->channels, j > 0);
	to_fixed(r->row, r->sum, n, r->channels, r->row_size);
	for (int c = 0; c < r->channels; c++) {
		const int16_t *row = r->row + (size_t)c * r->row_size;
		int16_t *to = out + (size_t)c * (size_t)r->width;

		if (r->across.most == TAPS_BLOCK)
			weigh_across(to, row, &r->across, r->width);
		else
			weigh_across_far(to, row, &r->across, r->width);
	}
}

int image_resize(struct image *ret, const struct image *from, int height, int width)
{
	struct resizer_plane plane = {.stride = (size_t)from->width * (size_t)from->channels,
				      .height = from->height,
				      .width = from->width,
				      .channels = from->channels,
				      .extent_y = from->height,
				      .extent_x = from->width};
	struct resizer *resizer = NULL;
	struct image image = {0};
	int16_t *row = NULL;
	int r;

	if (height < 1 || width < 1 || from->channels < 1)
		return -EINVAL;
	r = image_alloc(&image, height, width, from->channels, NULL);
	if (r < 0)
		goto out;
	if (height == from->height && width == from->width) {
		memcpy(image.pixels, from->pixels, plane.stride * (size_t)height);
		goto done;
	}
	row = malloc((size_t)width * (size_t)from->channels * sizeof(*row));
	r = row ? resizer_new(&resizer, &plane, height, width) : -ENOMEM;
	if (r < 0)
		goto out;
	for (int y = 0; y < height; y++) {
		uint8_t *out = image.pixels + (size_t)y * (size_t)width * (size_t)from->channels;

		resizer_row(resizer, from->pixels, y, row);
		for (int c = 0; c < from->channels; c++)
			for (int x = 0; x < width; x++)
				out[x * from->channels + c] = (uint8_t)((row[c * width + x] + 32) >> 6);
	}
done:
	*ret = image;
	image = (struct image){0};
	r = 0;
out:
	resizer_free(resizer);
	free(row);
	image_release(&image);
	return r;
}
