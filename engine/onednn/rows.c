#include "engine/onednn/rows.h"

#include <string.h>

static int gcd(int a, int b)
{
	return b ? gcd(b, a % b) : a;
}

int rows_period(int channels)
{
	int pixels = 16 / gcd(channels, 16);

	return channels * pixels * ((63 + channels * pixels) / (channels * pixels));
}

/* Elements i … i+n of a plane as f32. Inlined into the bodies, so compiled for their instruction sets. */
static inline const float *row_of(const struct plane *p, size_t i, size_t n, float *restrict space)
{
	const uint16_t *from = p->at;

	if (p->type == PRECISION_F32)
		return (const float *)p->at + i;
	if (p->type == PRECISION_BF16)
		for (size_t j = 0; j < n; j++)
			space[j] = bf16_to_f32(from[i + j]);
	else
		numbers_widen((const char *)p->at + i, p->type, p->step, space, n);
	return space;
}

VECTORISED void rows_sum(struct plane x, float *restrict sum, size_t size, size_t period, float *space)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;
		const float *restrict row = row_of(&x, i, n, space);

		for (size_t j = 0; j < n; j++)
			sum[j] += row[j];
	}
}

VECTORISED void rows_square(struct plane x, const float *restrict mean, float *restrict sum, size_t size,
			    size_t period, float *space)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;
		const float *restrict row = row_of(&x, i, n, space);

		for (size_t j = 0; j < n; j++) {
			float d = row[j] - mean[j];

			sum[j] += d * d;
		}
	}
}

VECTORISED void rows_apply(struct plane x, struct plane x2, struct plane y, const float *restrict a,
			   const float *restrict b, size_t size, size_t period, float floor, float ceiling,
			   float *space)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;
		const float *restrict row = row_of(&x, i, n, space);
		bool round = y.type != PRECISION_F32;
		float *restrict to = round ? space + 2 * period : (float *)(uintptr_t)y.at + i;

		if (x2.at) {
			const float *restrict row2 = row_of(&x2, i, n, space + period);

			for (size_t j = 0; j < n; j++) {
				float v = row[j] * a[j] + b[j] + row2[j];

				v = v > floor ? v : floor;
				to[j] = v < ceiling ? v : ceiling;
			}
		} else {
			for (size_t j = 0; j < n; j++) {
				float v = row[j] * a[j] + b[j];

				v = v > floor ? v : floor;
				to[j] = v < ceiling ? v : ceiling;
			}
		}
		if (round)
			numbers_round(to, (char *)(uintptr_t)y.at + i * precision_size(y.type), y.type,
				      y.step, n);
	}
}

VECTORISED void rows_gradient_sums(const float *restrict x, const float *restrict y, float *restrict dy,
				   const float *restrict a, const float *restrict b, float *restrict sum,
				   float *restrict sum_u, size_t size, size_t period, float ceiling)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;

		if (y)
			for (size_t j = 0; j < n; j++)
				dy[i + j] = y[i + j] > 0 && y[i + j] < ceiling ? dy[i + j] : 0;
		for (size_t j = 0; j < n; j++) {
			sum[j] += dy[i + j];
			sum_u[j] += dy[i + j] * (x[i + j] * a[j] + b[j]);
		}
	}
}

VECTORISED void rows_gradient(const float *restrict x, const float *dy, float *dx, const float *restrict a,
			      const float *restrict b, const float *restrict c, size_t size, size_t period)
{
	for (size_t i = 0; i < size; i += period) {
		size_t n = size - i < period ? size - i : period;

#pragma omp simd
		for (size_t j = 0; j < n; j++)
			dx[i + j] = dy[i + j] * a[j] + x[i + j] * b[j] + c[j];
	}
}

double rows_fold(const float *columns, int period, int channels, int first, int size)
{
	double sum = 0;

	for (int p = 0; p < period; p += channels)
		for (int c = first; c < first + size; c++)
			sum += columns[p + c];
	return sum;
}

void rows_repeat(float *row, int period, int channels)
{
	for (int p = channels; p < period; p += channels)
		memcpy(row + p, row, (size_t)channels * sizeof(float));
}
