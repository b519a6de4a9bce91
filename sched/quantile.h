/* Private to sched: what the last measurements hardly ever exceeded. */
#ifndef SCHED_QUANTILE_H
#define SCHED_QUANTILE_H

#define QUANTILE_MAX 128

/*
 * Keeps x in ring, which holds the last `size` (at most QUANTILE_MAX) of *n measurements, and returns the q-quantile
 * (0 ≤ q < 1) of those in it, x included.
 */
static inline double quantile_keep(float *ring, unsigned size, unsigned *n, double x, double q)
{
	float above[QUANTILE_MAX]; /* the largest, falling, the quantile last: few where q is high */
	unsigned filled, want, kept = 0;

	ring[(*n)++ % size] = (float)x;
	filled = *n < size ? *n : size;
	want = filled - (unsigned)(q * filled);
	for (unsigned i = 0; i < filled; i++) {
		unsigned at = kept;

		if (kept < want)
			kept++;
		else if (kept && ring[i] > above[kept - 1])
			at = kept - 1;
		else
			continue;
		for (; at > 0 && above[at - 1] < ring[i]; at--)
			above[at] = above[at - 1];
		above[at] = ring[i];
	}
	return kept ? (double)above[kept - 1] : x;
}

#endif
