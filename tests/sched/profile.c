/* The profile against a device that is programmed: the null executor's factor on the fake clock. */
#include "sched/profile.h"
#include "sched/quantile.h"
#include "sched/loop.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static const struct submodel models[] = {
	{.slice = 1, .accuracy = 0.8, .time_ns = 40000000, .time_one_ns = 10000000},
	{.slice = 0.5, .accuracy = 0.7, .time_ns = 20000000, .time_one_ns = 8000000},
};

static void test_init(void **state)
{
	struct profile p = {0}, before;
	struct submodel bad = models[0], odd = {.accuracy = 1, .time_ns = 0, .time_one_ns = 5};

	(void)state;
	assert_int_equal(profile_init(&p, 4, models, 2), 0);
	assert_int_equal(profile_generation(&p), 1);
	assert_int_equal(profile_submodels(&p)[0].time_ns, 40000000);
	assert_int_equal(profile_submodels(&p)[1].time_one_ns, 8000000);
	assert_true(profile_submodels(&p)[1].accuracy == 0.7);
	assert_int_equal(profile_expect_ns(&p, 0, 1), 10000000);
	assert_int_equal(profile_expect_ns(&p, 0, 2), 20000000);
	assert_int_equal(profile_expect_ns(&p, 0, 4), 40000000);

	before = p;
	assert_int_equal(profile_init(&p, 0, models, 2), -EINVAL);
	assert_int_equal(profile_init(&p, 4, models, 0), -EINVAL);
	assert_int_equal(profile_init(&p, 4, models, MAX_SUBMODELS + 1), -EINVAL);
	bad.accuracy = NAN;
	assert_int_equal(profile_init(&p, 4, &bad, 1), -EINVAL);
	bad = models[0];
	bad.time_ns = INT64_MAX;
	assert_int_equal(profile_init(&p, 4, &bad, 1), -EINVAL);
	assert_memory_equal(&p, &before, sizeof(p));

	assert_int_equal(profile_init(&p, 1, &odd, 1), 0);
	assert_int_equal(profile_generation(&p), 2);
	assert_int_equal(profile_submodels(&p)[0].time_ns, 1);
	assert_int_equal(profile_submodels(&p)[0].time_one_ns, 1);
	assert_int_equal(profile_expect_ns(&p, 0, 1), 1);
}

/* One that isn't kept loaded is never worth anything; its times are those of the slowest other. */
static void test_idle(void **state)
{
	struct submodel some[] = {models[0], models[1], models[1]};
	struct profile p = {0};

	(void)state;
	some[2].idle = true;
	some[2].accuracy = 0.9;
	assert_int_equal(profile_init(&p, 4, some, 3), 0);
	profile_measured(&p, 0, 4, 60000000);
	assert_true(profile_submodels(&p)[2].accuracy == 0);
	assert_true(profile_submodels(&p)[0].time_ns > 40000000);
	assert_int_equal(profile_submodels(&p)[2].time_ns, profile_submodels(&p)[0].time_ns);
	assert_int_equal(profile_expect_ns(&p, 2, 3), profile_expect_ns(&p, 0, 3));
	some[0].idle = some[1].idle = true;
	assert_int_equal(profile_init(&p, 4, some, 3), -EINVAL);
}

/* One step, by the formulas of the header. */
static void test_formula(void **state)
{
	struct profile p = {0};

	(void)state;
	profile_init(&p, 4, models, 2);
	profile_measured(&p, 0, 3, 36000000); /* expected 30 ms, ρ = 1.2, w = 2/3 */
	assert_int_equal(profile_expect_ns(&p, 0, 4), llround(40e6 * 1.02 * (1 + 0.05 * 0.2 * 2 / 3)));
	assert_int_equal(profile_expect_ns(&p, 0, 1), llround(10e6 * 1.02 * (1 + 0.05 * 0.2 / 3)));
	assert_int_equal(profile_expect_ns(&p, 1, 4), llround(20e6 * 1.02));
	assert_true(fabs(profile_spread(&p) - 0.02) < 1e-12);
}

static void test_steady(void **state)
{
	struct profile p = {0};

	(void)state;
	profile_init(&p, 4, models, 2);
	/* Noise of 5 % around the right time changes nothing that a plan sees. */
	for (int i = 0; i < 1000; i++)
		profile_measured(&p, i & 1, 4, (i & 2 ? 1.05 : 0.95) * models[i & 1].time_ns);
	assert_int_equal(profile_generation(&p), 1);
	assert_int_equal(profile_submodels(&p)[0].time_ns, 40000000);
	assert_true(profile_spread(&p) > 0.04 && profile_spread(&p) < 0.06);
	profile_measured(&p, 5, 4, 1);
	profile_measured(&p, -1, 4, 1);
	profile_measured(&p, 0, 0, 1);
	profile_measured(&p, 0, 5, 1);
	profile_measured(&p, 0, 4, 0);
	profile_measured(&p, 0, 4, -7);
	assert_true(fabs((double)profile_expect_ns(&p, 0, 4) / 40e6 - 1) < 0.02);
}

static void test_outliers(void **state)
{
	struct profile p = {0};
	const int64_t *t = &profile_submodels(&p)[0].time_ns;

	(void)state;
	profile_init(&p, 4, models, 2);
	/* Two hours of sleep now and then. */
	for (int i = 0; i < 99; i++)
		profile_measured(&p, 0, 4, i % 3 == 2 ? 40000000 : INT64_C(7200000000000));
	assert_int_equal(*t, 40000000);
	/* High and low ones in turn prove nothing. */
	for (int i = 0; i < 99; i++)
		profile_measured(&p, 0, 4, i & 1 ? 400000000 : 4000000);
	assert_int_equal(*t, 40000000);
	profile_measured(&p, 0, 4, 40000000);
	/* Three in a row on one side are believed, by the mildest of them. */
	profile_measured(&p, 0, 4, 200000000);
	profile_measured(&p, 0, 4, 120000000);
	assert_int_equal(*t, 40000000);
	profile_measured(&p, 0, 4, 400000000);
	assert_int_equal(*t, 120000000);
	assert_int_equal(profile_submodels(&p)[1].time_ns, 60000000);
	for (int i = 0; i < 3; i++)
		profile_measured(&p, 1, 4, 20000000);
	assert_int_equal(*t, 40000000);
}

/* --- with the null executor --- */

static struct profile profile;
static struct loop *loop;
static struct executor *ex;
static int left, submodel, size;

static void next(void)
{
	static const struct instance_input in[4] = {{.data = "a", .len = 1}};

	assert_int_equal(ex->ops->run(ex, 1, 1, submodel, in, size), 0);
}

static void loaded(void *data, uint32_t endpoint, int r, const struct err *err, const struct submodel *m,
		   int n, const char *const *labels, int n_labels)
{
	(void)data, (void)endpoint, (void)err, (void)labels, (void)n_labels;
	assert_int_equal(r, 0);
	assert_int_equal(profile_init(&profile, 4, m, n), 0);
}

static void done(void *data, const struct batch_done *d)
{
	(void)data;
	profile_measured(&profile, submodel, d->n, d->compute_ns);
	if (--left)
		next();
}

static void run(int n, int with, int k)
{
	left = n;
	submodel = with;
	size = k;
	next();
	loop_fake_advance(loop, loop_now(loop) + 3600 * NS_PER_S);
	assert_int_equal(left, 0);
}

static double off(int i, int k, double factor)
{
	int64_t one = i ? 8000000 : 10000000, full = i ? 20000000 : 40000000;

	return fabs((double)profile_expect_ns(&profile, i, k) /
			    (((double)one + (double)(full - one) * (k - 1) / 3) * factor) -
		    1);
}

static void test_follows_device(void **state)
{
	static const char model[] = "{\"classes\":2,\"submodels\":[{\"slice\":1,\"accuracy\":0.8,\"ms\":40,"
				    "\"one_ms\":10},{\"slice\":1,\"accuracy\":0.7,\"ms\":20,\"one_ms\":8}]}";
	static const struct executor_events events = {loaded, done, NULL};
	uint64_t generation;
	int fd;

	(void)state;
	fd = memfd_create("model", 0);
	assert_int_equal(write(fd, model, strlen(model)), strlen(model));
	assert_int_equal(loop_new(&loop, true), 0);
	assert_int_equal(executor_null_new(&ex, loop, &events, NULL), 0);
	ex->ops->load(ex,
		      &(struct endpoint_load){.endpoint = 1, .batch = 4, .model_fd = fd, .labels_fd = -1});
	close(fd);
	loop_fake_advance(loop, 0);
	generation = profile_generation(&profile);
	run(50, 0, 4);
	assert_int_equal(profile_generation(&profile), generation);

	/* The device becomes slower: known after some twenty mini-batches, and most of it for the sub-model
	 * that did not run. */
	executor_null_set_factor(ex, 1.5);
	run(40, 0, 4);
	assert_true(off(0, 4, 1.5) < 0.005);
	assert_true(off(1, 4, 1.5) < 0.15);
	assert_true(profile_generation(&profile) > generation);
	assert_true(fabs((double)profile_submodels(&profile)[0].time_ns / 60e6 - 1) < 0.021);
	/* Single instances teach too. */
	run(40, 1, 1);
	assert_true(off(1, 1, 1.5) < 0.005);
	/* Much slower, then as at first. */
	executor_null_set_factor(ex, 10);
	run(4, 0, 4);
	assert_true(off(0, 4, 10) < 0.02);
	executor_null_set_factor(ex, 1);
	run(80, 0, 4);
	run(80, 1, 4);
	run(80, 0, 4);
	run(80, 0, 1);
	assert_true(off(0, 1, 1) < 0.005);
	assert_true(off(0, 4, 1) < 0.1);
	assert_true(off(1, 4, 1) < 0.1);
	assert_true(profile_submodels(&profile)[0].time_one_ns <= profile_submodels(&profile)[0].time_ns);
	ex->ops->free(ex);
	loop_free(loop);
}

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

/* What sorting says, as the ring fills and goes round, with equal ones among them. */
static void test_quantile(void **state)
{
	static const double quantiles[] = {0, 0.5, 0.9, 0.99};
	float ring[100] = {0}, sorted[100];

	(void)state;
	for (size_t k = 0; k < sizeof(quantiles) / sizeof(quantiles[0]); k++) {
		unsigned n = 0;

		for (int i = 0; i < 300; i++) {
			double got = quantile_keep(ring, 100, &n, (double)(i * 37 % 61), quantiles[k]);
			unsigned filled = n < 100 ? n : 100;

			memcpy(sorted, ring, sizeof(ring));
			qsort(sorted, filled, sizeof(float), by_size);
			assert_true(got == (double)sorted[(unsigned)(quantiles[k] * filled)]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quantile), cmocka_unit_test(test_init),
		cmocka_unit_test(test_formula),  cmocka_unit_test(test_steady),
		cmocka_unit_test(test_outliers), cmocka_unit_test(test_follows_device),
		cmocka_unit_test(test_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
