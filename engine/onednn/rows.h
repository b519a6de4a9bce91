/*
 * Private to engine/onednn: what the norms are made of. Few channels (slices of 4 to 32) are shorter than
 * vectors. So a plane of (h·w, c) is read as rows of `period` elements, a multiple of both c and 16 where that
 * is possible: sums are taken per column of such rows and folded to channels at the end, and per-channel
 * factors are repeated along a row. All loops then are long, branch-free and over columns.
 *
 * x, y, dy … are one instance's planes of `size` elements; a, b, c, mean and sums are rows (period).
 */
#ifndef ENGINE_ONEDNN_ROWS_H
#define ENGINE_ONEDNN_ROWS_H

#include "engine/onednn/onednn.h"

int rows_period(int channels);

/* One instance's plane in numbers of its type; at NULL: not there. */
struct plane {
	const void *at;
	enum precision type;
	float step; /* of int8 and uint8 */
};

/* The plane from element `from` of a value on; NULL stays NULL. */
static inline struct plane plane_at(const float *value, enum precision type, float step, size_t from)
{
	return (struct plane){value ? (const char *)value + from * precision_size(type) : NULL, type, step};
}

/* Forward. space: ROWS_SPACE rows, for planes that are not f32, which are widened row by row.
 * sum += x; sum += (x - mean)² */
enum { ROWS_SPACE = 3 };
void rows_sum(struct plane x, float *restrict sum, size_t size, size_t period, float *space);
void rows_square(struct plane x, const float *restrict mean, float *restrict sum, size_t size, size_t period,
		 float *space);
/* y = x·a + b (+ x2, may be not there), between floor and ceiling */
void rows_apply(struct plane x, struct plane x2, struct plane y, const float *restrict a,
		const float *restrict b, size_t size, size_t period, float floor, float ceiling,
		float *space);

/* Backward. */
/* dy is masked by 0 < y < ceiling in place (y NULL: it isn't); sums of dy and of dy·u, u = x·a + b */
void rows_gradient_sums(const float *restrict x, const float *restrict y, float *restrict dy,
			const float *restrict a, const float *restrict b, float *restrict sum,
			float *restrict sum_u, size_t size, size_t period, float ceiling);
/* dx = dy·a + x·b + c; dx may be dy */
void rows_gradient(const float *restrict x, const float *dy, float *dx, const float *restrict a,
		   const float *restrict b, const float *restrict c, size_t size, size_t period);

/* What the sums left in the columns of `size` channels from `first` on. */
double rows_fold(const float *columns, int period, int channels, int first, int size);
/* The first `channels` elements again and again along the row. */
void rows_repeat(float *row, int period, int channels);

#endif
