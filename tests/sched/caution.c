/* What is learnt of misses: step by step, and in the long run whatever the times are like. */
#include "sched/caution.h"
#include "sched/profile.h"

#include "engine/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_steps(void **state)
{
	struct caution c;

	(void)state;
	caution_init(&c);
	assert_true(caution_deviations(&c) == 4 && caution_unpromised(&c) == 0);
	/* Before a mini-batch is known each answer counts as one. */
	caution_answered(&c, true);
	assert_float_equal(caution_deviations(&c), 4 + 0.25 * 0.9995, 1e-12);
	caution_answered(&c, false);
	assert_float_equal(caution_deviations(&c), 4 + 0.25 * 0.999, 1e-12);
	/* A late mini-batch counts the same, whatever its size. */
	caution_init(&c);
	caution_ran(&c, 10);
	caution_ran(&c, 30); /* 11 */
	for (int i = 0; i < 11; i++)
		caution_answered(&c, true);
	assert_float_equal(caution_deviations(&c), 4 + 0.25 * 0.9995, 1e-12);
	for (int i = 0; i < 11 * 1999; i++)
		caution_answered(&c, false);
	assert_float_equal(caution_deviations(&c), 4, 1e-9);
	/* The ends of the range. */
	for (int i = 0; i < 10000; i++)
		caution_answered(&c, true);
	assert_true(caution_deviations(&c) == 8);
	for (int i = 0; i < 1000000; i++)
		caution_answered(&c, false);
	assert_true(caution_deviations(&c) == 2);
}

static void test_promises(void **state)
{
	struct caution c;

	(void)state;
	caution_init(&c);
	caution_ended(&c, 0, 0);
	caution_ended(&c, -1, 0);
	caution_ended(&c, 100, 0);
	assert_true(caution_unpromised(&c) == 0);
	caution_ended(&c, 100, 50);
	assert_float_equal(caution_unpromised(&c), 0.1 * (0.5 - 0.0005), 1e-12);
	caution_ended(&c, 100, 0);
	assert_float_equal(caution_unpromised(&c), 0.1 * (0.5 - 0.001), 1e-12);
	for (int i = 0; i < 10; i++)
		caution_ended(&c, 7, 7);
	assert_true(caution_unpromised(&c) == 0.5);
	assert_true(caution_deviations(&c) == 4);
}

static void test_doubt(void **state)
{
	struct doubt exact = {.z = 8}, d = {.z = 2, .deviation = 0.1, .squares = 3e6 * 3e6};

	(void)state;
	assert_int_equal(doubt_before(&exact), 0);
	assert_int_equal(doubt_own(&exact, 1000000000), 0);
	assert_int_equal(doubt_sum(&exact, 1e9, 1e6), 0);
	assert_int_equal(doubt_before(&d), 6000000);
	assert_int_equal(doubt_own(&d, 40000000), 4000000);   /* √(3² + 4²) - 3 ms, twice */
	assert_int_equal(doubt_sum(&d, 900e6, 1e6), 6000000); /* 900 of 1 ms: √900 · 0.1 ms, twice */
}

/* The share late of `n` mini-batches of 8 instances that take 1 + s·g, with so much kept free for them. g: normal; or heavy: of them one in
 * 50 ten times as far off, which no normal distribution of that mean deviation would have. */
static double learn(struct caution *c, int n, double deviation, bool heavy, uint64_t seed)
{
	struct rng rng = rng_init(seed, 0);
	int late = 0;

	for (int i = 0; i < n; i++) {
		double radius = sqrt(-2 * log(1 - (double)rng_float(&rng))),
		       g = radius * cos(2 * M_PI * (double)rng_float(&rng));
		bool is_late;

		if (heavy && rng_below(&rng, 50) == 0)
			g *= 10;
		is_late = deviation * g > caution_deviations(c) * deviation * 0.798;
		caution_ran(c, 8);
		for (int k = 0; k < 8; k++)
			caution_answered(c, is_late);
		late += is_late;
	}
	return (double)late / n;
}

static void test_learns(void **state)
{
	struct caution c;
	double share;

	(void)state;
	/* The normal distribution's 99.95 % quantile is 3.29 σ, 4.12 mean deviations. */
	caution_init(&c);
	share = learn(&c, 100000, 0.05, false, 1);
	assert_true(share > 0.0003 && share < 0.0007);
	assert_true(caution_deviations(&c) > 3.3 && caution_deviations(&c) < 5);
	/* Where tails are heavy, so that none of the range is enough, it stays at the end. */
	caution_init(&c);
	share = learn(&c, 100000, 0.05, true, 2);
	assert_true(caution_deviations(&c) > 7.5);
	/* And finds back: 0.25·0.0005 a mini-batch. */
	learn(&c, 40000, 0.05, false, 3);
	assert_true(caution_deviations(&c) > 3.3 && caution_deviations(&c) < 5);
}

/* Late at the worst moments: whenever z is below 6. No share of misses is more than caution.h allows. */
static void test_bound(void **state)
{
	struct caution c;
	int late = 0, n = 20000;

	(void)state;
	caution_init(&c);
	for (int i = 0; i < n; i++) {
		bool is_late = caution_deviations(&c) < 6;

		caution_ran(&c, 1);
		caution_answered(&c, is_late);
		late += is_late;
	}
	assert_true(fabs((double)late / n - 0.0005) <= (6 + 0.25) / (0.25 * n));
	assert_true(late > 0);
}

/* The deviation is of usual times; a stall isn't one, and many times that are off in the same way are no deviation in the end. */
static void test_deviation(void **state)
{
	static const struct submodel m = {.slice = 1, .accuracy = 0.8, .time_ns = 40000000};
	struct profile p = {0}, fresh = {0};

	(void)state;
	assert_int_equal(profile_init(&p, 4, &m, 1), 0);
	assert_true(profile_deviation(&p) == 0);
	for (int i = 0; i < 100; i++)
		profile_measured(&p, 0, 4, 40000000);
	assert_true(profile_deviation(&p) == 0);
	profile_measured(&p, 0, 4, 190000000); /* 150 ms */
	profile_measured(&p, 0, 4, 1000);
	assert_true(profile_deviation(&p) == 0);
	assert_true(profile_careful(&p) == 1);

	p = fresh;
	assert_int_equal(profile_init(&p, 4, &m, 1), 0);
	profile_measured(&p, 0, 4, 44000000);
	/* Of what is known from one much may be missing. The worker's death makes no other machine of it. */
	assert_float_equal(profile_deviation(&p), 0.1 * (1 + 2), 1e-9);
	assert_int_equal(profile_init(&p, 4, &m, 1), 0);
	assert_float_equal(profile_deviation(&p), 0.1 * (1 + 2), 1e-9);
	for (int i = 0; i < 1000; i++)
		profile_measured(&p, 0, 4,
				 (int64_t)((i & 1 ? 1.1 : 0.9) * (double)profile_expect_ns(&p, 0, 4)));
	assert_float_equal(profile_deviation(&p), 0.1 * (1 + 2.0 / 63), 0.001);
	/* What single ones are off doesn't make many of them slower. */
	assert_true(profile_careful(&p) < 1.03);
	for (int i = 0; i < 200; i++)
		profile_measured(&p, 0, 4, 60000000);
	assert_true(profile_deviation(&p) < 0.02);
	/* A device that is slower at times is: promises are made of that. */
	for (int i = 0; i < 30; i++)
		profile_measured(&p, 0, 4, 48000000);
	assert_true(profile_careful(&p) > 1.1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps), cmocka_unit_test(test_promises),
		cmocka_unit_test(test_doubt), cmocka_unit_test(test_learns),
		cmocka_unit_test(test_bound), cmocka_unit_test(test_deviation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
