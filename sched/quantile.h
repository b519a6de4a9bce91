/* Private to sched: what the last measurements hardly ever exceeded. */
#ifndef SCHED_QUANTILE_H
#define SCHED_QUANTILE_H

#include <stdlib.h>
#include <string.h>

#define QUANTILE_MAX 128

static inline int quantile_by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

/*
 * Keeps x in ring, which holds the last `size` (at most QUANTILE_MAX) of *n measurements, and returns the q-quantile
 * (0 ≤ q < 1) of those in it, x included.
 */
static inline double quantile_keep(float *ring, unsigned size, unsigned *n, double x, double q)
{
	float sorted[QUANTILE_MAX];
	unsigned filled;

	ring[(*n)++ % size] = (float)x;
	filled = *n < size ? *n : size;
	memcpy(sorted, ring, filled * sizeof(float));
	qsort(sorted, filled, sizeof(float), quantile_by_size);
	return sorted[(unsigned)(q * filled)];
}

#endif
