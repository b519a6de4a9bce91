/*
 * Resizing, one axis after the other: each output row or column is a weighted sum of a run of inputs (its
 * taps). Shrinking weighs each input by how much of it the output covers; enlarging interpolates between the
 * two nearest centres. Rows are narrowed as they are needed and the last two are kept, so beside the result
 * only a few rows are held.
 */
#include "engine/image_private.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct taps {
	int *first, *count; /* (out) */
	float *weight;      /* (out, most) */
	int most;
};

static void taps_release(struct taps *t)
{
	free(t->first);
	free(t->count);
	free(t->weight);
}

static int taps_init(struct taps *t, int in, int out)
{
	double scale = (double)in / out;

	t->most = out < in ? (int)ceil(scale) + 1 : 2;
	t->first = calloc(out, sizeof(int));
	t->count = calloc(out, sizeof(int));
	t->weight = calloc((size_t)out * t->most, sizeof(float));
	if (!t->first || !t->count || !t->weight)
		return -ENOMEM;
	for (int i = 0; i < out; i++) {
		float *w = t->weight + (size_t)i * t->most;

		if (out < in) {
			double from = i * scale, to = (i + 1) * scale;
			int first = (int)floor(from), last = (int)ceil(to - 1e-9);

			if (last > in)
				last = in;
			t->first[i] = first;
			for (int j = first; j < last && t->count[i] < t->most; j++)
				w[t->count[i]++] = (float)((fmin(to, j + 1) - fmax(from, j)) / scale);
		} else {
			double centre = (i + 0.5) * scale - 0.5;
			int first = (int)floor(centre);

			if (first < 0 || first >= in - 1) {
				t->first[i] = first < 0 ? 0 : in - 1;
				t->count[i] = 1;
				w[0] = 1;
			} else {
				t->first[i] = first;
				t->count[i] = 2;
				w[1] = (float)(centre - first);
				w[0] = 1 - w[1];
			}
		}
	}
	return 0;
}

static void narrow_row(float *out, const uint8_t *in, const struct taps *t, int width, int channels)
{
	for (int x = 0; x < width; x++) {
		const float *w = t->weight + (size_t)x * t->most;
		const uint8_t *p = in + (size_t)t->first[x] * channels;

		for (int c = 0; c < channels; c++) {
			float sum = 0;

			for (int j = 0; j < t->count[x]; j++)
				sum += w[j] * p[j * channels + c];
			out[x * channels + c] = sum;
		}
	}
}

int image_resize(struct image *ret, const struct image *from, int height, int width)
{
	size_t row = (size_t)width * from->channels, row_in = (size_t)from->width * from->channels;
	struct taps tx = {0}, ty = {0};
	struct image image = {0};
	float *rows = NULL, *sum = NULL;
	int kept[2] = {-1, -1}, r;

	if (height < 1 || width < 1 || from->channels < 1)
		return -EINVAL;
	r = image_alloc(&image, height, width, from->channels, NULL);
	if (r < 0)
		goto out;
	if (height == from->height && width == from->width) {
		memcpy(image.pixels, from->pixels, row * height);
		goto done;
	}
	rows = malloc(2 * row * sizeof(float));
	sum = malloc(row * sizeof(float));
	if (!rows || !sum || taps_init(&tx, from->width, width) < 0 ||
	    taps_init(&ty, from->height, height) < 0) {
		r = -ENOMEM;
		goto out;
	}
	for (int y = 0; y < height; y++) {
		const float *w = ty.weight + (size_t)y * ty.most;

		memset(sum, 0, row * sizeof(float));
		for (int j = 0; j < ty.count[y]; j++) {
			int in = ty.first[y] + j;
			float *narrow = rows + (in & 1) * row;

			if (kept[in & 1] != in) {
				narrow_row(narrow, from->pixels + in * row_in, &tx, width, from->channels);
				kept[in & 1] = in;
			}
			for (size_t x = 0; x < row; x++)
				sum[x] += w[j] * narrow[x];
		}
		for (size_t x = 0; x < row; x++)
			image.pixels[y * row + x] = (uint8_t)(sum[x] < 0     ? 0
							      : sum[x] > 255 ? 255
									     : sum[x] + 0.5f);
	}
done:
	*ret = image;
	image = (struct image){0};
	r = 0;
out:
	taps_release(&tx);
	taps_release(&ty);
	free(rows);
	free(sum);
	image_release(&image);
	return r;
}
