/* What is measured of cascades equals a plain count: each instance by itself, without an order. */
#include "engine/cascade.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/base/rng.h"

#define MOST 400

static const double shares[CASCADE_POINTS] = {0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6};

/* How many instances are less certain than i, or as certain and before it. */
static size_t rank_of(const struct cascade_answers *a, size_t i)
{
	size_t rank = 0;

	for (size_t j = 0; j < a->n; j++)
		rank += a->certain[j] < a->certain[i] || (a->certain[j] == a->certain[i] && j < i);
	return rank;
}

/* The two sub-models' figures by the definitions in engine/cascade.h. */
static void check(struct cascade_answers *a, const struct cascade_answers *b)
{
	struct cascade_first first;
	float then[CASCADE_POINTS];

	assert_int_equal(cascade_sort(a), 0);
	cascade_measure_first(a, &first);
	cascade_measure_then(a, b, then);
	for (int p = 0; p < CASCADE_POINTS; p++) {
		size_t again = (size_t)floor(shares[p] * (double)a->n + 0.5 + 1e-6), right = 0, both = 0;
		float most = 0;

		for (size_t i = 0; i < a->n; i++) {
			if (rank_of(a, i) < again) {
				both += b->right[i];
				most = a->certain[i] > most ? a->certain[i] : most;
			} else {
				right += a->right[i];
			}
		}
		assert_true(first.threshold[p] == most);
		assert_true(first.sure[p] == (float)((double)right / (double)(a->n - again)));
		assert_true(then[p] == (float)((double)(right + both) / (double)a->n));
	}
}

/* certain: of so many different values; right: in per cent. */
static void fill(struct cascade_answers *a, struct rng *rng, int values, int right)
{
	for (size_t i = 0; i < a->n; i++) {
		a->certain[i] = (float)(1 + rng_below(rng, (uint32_t)values)) / (float)values;
		a->right[i] = (int)rng_below(rng, 100) < right;
	}
}

static void random_answers(void **state)
{
	static const int values[] = {1, 2, 7, 1000000}; /* the first: all are as certain as each other */
	static const int right[] = {0, 60, 100};
	struct rng rng = rng_init(1, 1);

	(void)state;
	for (int round = 0; round < 12 * 5; round++) {
		/* 100: just enough; most others have shares that are no whole numbers */
		size_t n = round % 5 ? CASCADE_LEAST + rng_below(&rng, MOST - CASCADE_LEAST) : CASCADE_LEAST;
		struct cascade_answers a, b;

		assert_int_equal(cascade_answers_init(&a, n), 0);
		assert_int_equal(cascade_answers_init(&b, n), 0);
		fill(&a, &rng, values[round % 4], right[round % 3]);
		fill(&b, &rng, values[round % 4], 80);
		check(&a, &b);
		cascade_answers_release(&a);
		cascade_answers_release(&b);
	}
}

/* Where certainty says who is wrong, another one that is right there is as good as right everywhere. */
static void perfect_order(void **state)
{
	struct cascade_answers a, b;
	struct cascade_first first;
	float then[CASCADE_POINTS];

	(void)state;
	assert_int_equal(cascade_answers_init(&a, 1000), 0);
	assert_int_equal(cascade_answers_init(&b, 1000), 0);
	for (size_t i = 0; i < 1000; i++) {
		a.certain[i] = (float)(i + 1) / 1000;
		a.right[i] = i >= 300;
		b.right[i] = i < 300;
	}
	assert_int_equal(cascade_sort(&a), 0);
	cascade_measure_first(&a, &first);
	cascade_measure_then(&a, &b, then);
	assert_true(first.threshold[1] == 0.1f);
	assert_float_equal(first.sure[1], 700.0 / 900, 1e-6);
	assert_float_equal(then[1], 0.8, 1e-6);
	assert_true(first.sure[5] == 1 && then[5] == 1); /* 0.3 */
	assert_float_equal(then[7], 0.8, 1e-6);          /* 0.5: those of 300 to 499 are wrong now */
	cascade_answers_release(&a);
	cascade_answers_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_answers),
		cmocka_unit_test(perfect_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
