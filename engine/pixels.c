/*
 * What a network reads of pixels. Channels are 1, 3 or 4 and lie side by side: factors are repeated along a row of
 * elements that holds whole vectors and whole pixels, so that loops are long and branch-free.
 */
#include "engine/base/vectorised.h"
#include "engine/session.h"

enum {
	ROW = 192,
	ROWS = 64,
	FEW = 4
}; /* elements, a multiple of 16 and of 1 to FEW; of one thread's stretch */

VECTORISED static void scale_row(const uint8_t *restrict from, const float *restrict a,
				 const float *restrict b, float *restrict to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = (float)from[i] * a[i] + b[i];
}

static void some(const uint8_t *pixels, const float *a, const float *b, enum precision type, float step,
		 char *out, size_t begin, size_t end)
{
	for (size_t i = begin; i < end; i += ROW) {
		size_t n = end - i < ROW ? end - i : ROW;
		float row[ROW];

		char *to = out + i * precision_size(type);

		if (type == PRECISION_F32) {
			scale_row(pixels + i, a, b, (float *)(void *)to, n);
		} else {
			scale_row(pixels + i, a, b, row, n);
			numbers_round(row, to, type, step, n);
		}
	}
}

void pixels_normalise(const uint8_t *pixels, int n, int height, int width, int channels, const float *mean,
		      const float *std, enum precision type, float step, void *out)
{
	size_t size = (size_t)n * (size_t)height * (size_t)width * (size_t)channels;
	float a[ROW], b[ROW];

	for (size_t i = 0; channels > FEW && i < size; i++) {
		size_t c = i % (size_t)channels;
		float value = ((float)pixels[i] / 255 - mean[c]) / std[c];

		numbers_round(&value, (char *)out + i * precision_size(type), type, step, 1);
	}
	if (channels > FEW)
		return;
	for (int i = 0; i < ROW; i++) {
		a[i] = 1 / (255 * std[i % channels]);
		b[i] = -mean[i % channels] / std[i % channels];
	}
#pragma omp parallel for schedule(static) if (size > ROW * ROWS)
	for (size_t i = 0; i < size; i += ROW * ROWS)
		some(pixels, a, b, type, step, out, i, size - i < ROW * ROWS ? size : i + ROW * ROWS);
}
