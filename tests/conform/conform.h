/* Shared by the conformance tests: seeded numbers, buffers with sentinels around them, comparison by
 * ops.def's tolerances. */
#ifndef TESTS_CONFORM_H
#define TESTS_CONFORM_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = 64 }; /* floats before and after */
#define SENTINEL 0x7fc0dead

static uint64_t conform_seed = 1; /* CONFORM_SEED replays another run */

static inline void conform_init(void)
{
	const char *seed = getenv("CONFORM_SEED");

	if (seed)
		conform_seed = strtoull(seed, NULL, 10);
	print_message("CONFORM_SEED=%llu\n", (unsigned long long)conform_seed);
}

/* xorshift64*: uniform in -1 … 1 */
static inline float conform_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (float)((double)((*state * UINT64_C(0x2545f4914f6cdd1d)) >> 11) * 0x1p-52 - 1);
}

static inline uint64_t conform_state(uint64_t salt)
{
	return (conform_seed * UINT64_C(0x9e3779b97f4a7c15)) ^ (salt * UINT64_C(0xd1342543de82ef95)) ^
	       88172645463325252u;
}

struct guarded {
	float *base, *data;
	size_t n;
};

static inline struct guarded guarded_new(size_t n)
{
	struct guarded g = {.n = n,
			    .base = aligned_alloc(64, (n + 2 * GUARD + 15) / 16 * 16 * sizeof(float))};
	uint32_t sentinel = SENTINEL;

	assert_non_null(g.base);
	g.data = g.base + GUARD;
	for (size_t i = 0; i < n + 2 * GUARD; i++)
		memcpy(g.base + i, &sentinel, sizeof(sentinel));
	return g;
}

static inline struct guarded guarded_random(size_t n, uint64_t *state)
{
	struct guarded g = guarded_new(n);

	for (size_t i = 0; i < n; i++)
		g.data[i] = conform_random(state);
	return g;
}

static inline struct guarded guarded_copy(const struct guarded *from)
{
	struct guarded g = guarded_new(from->n);

	memcpy(g.data, from->data, from->n * sizeof(float));
	return g;
}

/* Checks the sentinels and frees. */
static inline void guarded_free(struct guarded *g, const char *what)
{
	uint32_t sentinel = SENTINEL;

	for (int i = 0; g->base && i < GUARD; i++)
		if (memcmp(g->base + i, &sentinel, 4) || memcmp(g->data + g->n + i, &sentinel, 4))
			fail_msg("%s: written outside of the buffer, %d elements away", what, i);
	free(g->base);
	g->base = NULL;
}

/* max|a - ref| and mean|a - ref| relative to max|ref|. */
static inline void compare(const char *what, const float *a, const float *ref, size_t n, float tolerance,
			   float mean_tolerance)
{
	double worst = 0, sum = 0, scale = 0;
	size_t where = 0;

	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)a[i] - ref[i]);

		if (!(d <= worst)) {
			worst = d;
			where = i;
		}
		sum += d;
		scale = fmax(scale, fabs(ref[i]));
	}
	if (!(worst <= tolerance * scale) || !(sum / (double)n <= mean_tolerance * scale))
		fail_msg("%s: element %zu is %g, should be %g (largest %g); mean difference %g; "
			 "CONFORM_SEED=%llu",
			 what, where, (double)a[where], (double)ref[where], scale, sum / (double)n,
			 (unsigned long long)conform_seed);
}

#endif
