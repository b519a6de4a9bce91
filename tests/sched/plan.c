/* Plans: the table of DESIGN section 6, and every method against brute force. */
#include "sched/plan/plan.h"

#include "tests/support/plans.h"

#include <errno.h>
#include <glpk.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct planner *planner;

static int setup(void **state)
{
	(void)state;
	return planner_new(&planner);
}

static int teardown(void **state)
{
	(void)state;
	planner_free(planner);
	return 0;
}

/* Of this thread: a busy machine does not fail a test. */
static double cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* --- what must hold for any plan, in exact arithmetic and from plan.h alone --- */

static void check(const struct plan_request *r, const struct plan *plan)
{
	int64_t k = r->instances % r->batch, served = 0;
	__int128 time = 0;
	double value = 0;

	for (int i = 0; i < r->n_submodels; i++) {
		int64_t full = plan->n[i] - (plan->partial == i);

		assert_true(full >= 0);
		time += (__int128)full * r->submodels[i].time_ns;
		served += full * r->batch;
		value += (double)full * r->batch * r->submodels[i].accuracy;
	}
	assert_true(served <= r->instances - k);
	if (plan->partial >= 0) {
		assert_true(k > 0 && plan->partial < r->n_submodels);
		time += part_time(r, plan->partial, k);
		served += k;
		value += (double)k * r->submodels[plan->partial].accuracy;
	}
	assert_true(time <= (r->deadline_ns > 0 ? r->deadline_ns : 0));
	assert_int_equal(plan->dropped, r->instances - served);
	assert_true(fabs(plan->p_eff - value / (double)r->instances) < 1e-12);
	assert_true(plan->bound >= plan->p_eff && plan->bound <= 1 + 1e-9);
}

/* --- the table --- */

static const struct plan_submodel xray[] = {{.accuracy = 0.7937, .time_ns = 45120000},
					    {.accuracy = 0.7188, .time_ns = 34560000},
					    {.accuracy = 0.7094, .time_ns = 22720000},
					    {.accuracy = 0.6512, .time_ns = 15680000}};

static const struct {
	int64_t instances;
	double p_eff;
} table[] = {{6400, 77.43}, {8000, 74.42}, {9600, 72.41}, {12800, 68.68}, {14400, 66.85}, {18016, 58.99}};

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct plan_request r = {.n_submodels = 4,
					 .submodels = xray,
					 .instances = table[i].instances,
					 .batch = 32,
					 .deadline_ns = INT64_C(8000000000)};
		struct plan plan;

		assert_int_equal(planner_plan(planner, &r, &plan), 0);
		check(&r, &plan);
		assert_true(fabs(100 * plan.p_eff - table[i].p_eff) <= 0.00501);
		if (plan_by_bnb(&r, &plan) == 0)
			assert_true(fabs(100 * plan.p_eff - table[i].p_eff) <= 0.00501);
	}
}

static void test_table_by_command(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char count[32], path[] = "/tmp/plan-test-XXXXXX", text[512], *key;
		char *argv[] = {"plan",
				"--accuracy",
				"79.37,71.88,70.94,65.12",
				"--time-ms",
				"45.12,34.56,22.72,15.68",
				"--batch",
				"32",
				"--count",
				count,
				"--deadline",
				"8s",
				NULL};
		int fd = mkstemp(path), saved, r;
		FILE *f;

		assert_true(fd >= 0);
		snprintf(count, sizeof(count), "%d", (int)table[i].instances);
		fflush(stdout);
		saved = dup(1);
		dup2(fd, 1);
		r = plan_main(11, argv);
		fflush(stdout);
		dup2(saved, 1);
		close(saved);
		f = fdopen(fd, "r");
		rewind(f);
		assert_non_null(fgets(text, sizeof(text), f));
		fclose(f);
		unlink(path);
		assert_int_equal(r, 0);
		key = strstr(text, "\"p_eff\":");
		assert_non_null(key);
		assert_true(fabs(atof(key + 8) - table[i].p_eff) <= 0.00501);
		assert_non_null(strstr(text, "\"n\":["));
		assert_non_null(strstr(text, "\"dropped\":"));
		assert_non_null(strstr(text, "\"method\":\""));
		assert_non_null(strstr(text, "\"solve_us\":"));
	}
}

static void test_command_errors(void **state)
{
	static char *cases[][12] = {
		{"plan"},
		{"plan", "--accuracy", "1,2", "--time-ms", "1", "--count", "5"},
		{"plan", "--accuracy", "101", "--time-ms", "1", "--count", "5"},
		{"plan", "--accuracy", "nan", "--time-ms", "1", "--count", "5"},
		{"plan", "--accuracy", "-1", "--time-ms", "1", "--count", "5"},
		{"plan", "--accuracy", "1,", "--time-ms", "1,2", "--count", "5"},
		{"plan", "--accuracy", "1", "--time-ms", "0", "--count", "5"},
		{"plan", "--accuracy", "1", "--time-ms", "inf", "--count", "5"},
		{"plan", "--accuracy", "1", "--time-ms", "1", "--count", "0"},
		{"plan", "--accuracy", "1", "--time-ms", "1", "--count", "2.5"},
		{"plan", "--accuracy", "1", "--time-ms", "1", "--count", "1000000001"},
		{"plan", "--accuracy", "1", "--time-ms", "1", "--count", "5", "--batch", "0"},
		{"plan", "--accuracy", "1", "--time-ms", "1", "--count", "5", "--deadline", "0"},
		{"plan", "--accuracy", "1", "--time-ms", "1", "--count", "5", "--deadline", "@5"},
		{"plan", "--accuracy", "1", "--time-ms", "1", "--count", "5", "more"},
		{"plan", "--accuracy", "1", "--time-ms", "1", "--count", "5", "--what"},
		{"plan", "--accuracy", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", "--time-ms", "1", "--count", "5"},
	};
	int saved = dup(2);

	(void)state;
	assert_non_null(freopen("/dev/null", "w", stderr));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int argc = 0;

		while (argc < 12 && cases[i][argc])
			argc++;
		assert_int_equal(plan_main(argc, cases[i]), 2);
	}
	fflush(stderr);
	dup2(saved, 2);
	close(saved);
}

/* --- brute force --- */

static double best;

static void enumerate(const struct plan_request *r, int i, int64_t left, __int128 time, double value)
{
	if (value > best)
		best = value;
	if (i == r->n_submodels)
		return;
	for (int64_t n = 0; n <= left && (__int128)n * r->submodels[i].time_ns <= time; n++)
		enumerate(r, i + 1, left - n, time - (__int128)n * r->submodels[i].time_ns,
			  value + (double)n * r->batch * r->submodels[i].accuracy);
}

static double brute_force(const struct plan_request *r)
{
	int64_t full = r->instances / r->batch, k = r->instances % r->batch;
	__int128 deadline = r->deadline_ns > 0 ? r->deadline_ns : 0;

	best = 0;
	enumerate(r, 0, full, deadline, 0);
	for (int j = 0; k && j < r->n_submodels; j++) {
		int64_t t = part_time(r, j, k);

		if (t <= deadline)
			enumerate(r, 0, full, deadline - t, (double)k * r->submodels[j].accuracy);
	}
	return best / (double)r->instances;
}

static void random_request(struct plan_request *r, struct plan_submodel *m, int kind)
{
	int64_t time = 0, longest = 0, n_mb;

	r->submodels = m;
	r->n_submodels = 1 + (int)below(5);
	/* 5 sub-models at 25 mini-batches are 140,000 combinations: seldom. */
	n_mb = 1 + below(r->n_submodels < 4 || kind % 29 == 0 ? 25 : r->n_submodels == 4 ? 14 : 9);
	r->batch = 1 + (int)below(kind % 3 ? 64 : 3);
	r->instances = n_mb * r->batch;
	if (kind % 2)
		r->instances -= below(r->batch);
	for (int i = 0; i < r->n_submodels; i++) {
		int64_t t = random_time(kind % 6), one = below(3) ? 1 + below(t) : 0;

		m[i] = (struct plan_submodel){random_accuracy((kind / 6) % 5), t, one};
		if (i && below(10) == 0)
			m[i] = m[i - 1]; /* ties */
		if (i && below(10) == 0)
			m[i].time_ns = m[i - 1].time_ns;
		if (kind % 37 == 0)
			m[i].time_one_ns = 2 * m[i].time_ns; /* odd, but allowed */
		time += m[i].time_ns;
		longest = m[i].time_ns > longest ? m[i].time_ns : longest;
	}
	switch ((kind / 30) % 8) {
	case 0:
		r->deadline_ns = 0;
		break;
	case 1:
		r->deadline_ns = below(longest + 1);
		break;
	case 2:
		r->deadline_ns = INT64_MAX - below(2);
		break;
	case 3: /* to the nanosecond for some mix */
		r->deadline_ns = 0;
		for (int64_t i = 0; i < n_mb; i++)
			r->deadline_ns += m[below(r->n_submodels)].time_ns;
		break;
	default:
		r->deadline_ns =
			(int64_t)(erand48(plans_seed) * 1.2 * (double)(n_mb * (time / r->n_submodels) + 1));
	}
}

static void test_brute_force(void **state)
{
	static const struct {
		int (*solve)(const struct plan_request *request, struct plan *ret);
		double tolerance;
	} methods[] = {{plan_by_hull, 1e-9}, {plan_by_bnb, 1e-8}, {plan_by_dp, 1e-9}};
	int claimed[3] = {0}, cases = 6000, by[PLAN_METHODS] = {0};

	(void)state;
	for (int c = 0; c < cases; c++) {
		struct plan_submodel m[MAX_SUBMODELS];
		struct plan_request r;
		struct plan plan, cached;
		double exact;

		random_request(&r, m, c);
		exact = brute_force(&r);
		assert_int_equal(planner_plan(planner, &r, &plan), 0);
		check(&r, &plan);
		by[plan.method]++;
		if (fabs(plan.p_eff - exact) > (plan.method == PLAN_BNB ? 1e-8 : 1e-9))
			fail_msg("case %d: planner (%s) %.12f, brute force %.12f", c,
				 plan_method_name(plan.method), plan.p_eff, exact);
		assert_true(plan.bound >= exact - 1e-9);
		assert_int_equal(planner_plan(planner, &r, &cached), 0);
		assert_int_equal(cached.method, PLAN_CACHE);
		assert_memory_equal(cached.n, plan.n, sizeof(plan.n));
		assert_true(cached.p_eff == plan.p_eff && cached.partial == plan.partial &&
			    cached.dropped == plan.dropped);
		for (int i = 0; i < 3; i++) {
			struct plan one, before;
			int res;

			memset(&one, 7, sizeof(one));
			before = one;
			res = methods[i].solve(&r, &one);
			if (res < 0) {
				assert_int_equal(res, -EAGAIN);
				assert_memory_equal(&one, &before, sizeof(one));
				continue;
			}
			claimed[i]++;
			check(&r, &one);
			if (fabs(one.p_eff - exact) > methods[i].tolerance)
				fail_msg("case %d: method %d %.12f, brute force %.12f", c, i, one.p_eff,
					 exact);
		}
	}
	print_message("%d cases; planner: hull %d bnb %d dp %d; alone claimed: hull %d bnb %d dp %d\n", cases,
		      by[PLAN_HULL], by[PLAN_BNB], by[PLAN_DP], claimed[0], claimed[1], claimed[2]);
	/* A method that never claims would pass all of the above. */
	assert_true(claimed[0] > cases * 8 / 10);
	assert_true(claimed[1] > cases * 8 / 10);
	assert_true(claimed[2] > cases / 3);
}

/* --- at large: no brute force, but methods agree and nothing overflows --- */

static void test_large(void **state)
{
	int agreed = 0;

	(void)state;
	for (int c = 0; c < 600; c++) {
		struct plan_submodel m[MAX_SUBMODELS];
		struct plan_request r = {.submodels = m};
		struct plan plan, bnb;
		double sum = 0, before;

		r.n_submodels = 1 + (int)below(MAX_SUBMODELS);
		r.batch = 1 + (int)below(200);
		r.instances = 1 + (int64_t)exp(erand48(plans_seed) * log(1e9));
		for (int i = 0; i < r.n_submodels; i++) {
			m[i] = (struct plan_submodel){random_accuracy((c / 4) % 5), random_time(c % 4), 0};
			sum += (double)m[i].time_ns / r.n_submodels;
		}
		r.deadline_ns =
			(int64_t)fmin(9e18, erand48(plans_seed) * sum * (double)r.instances / r.batch + 1);
		before = cpu_seconds();
		assert_int_equal(planner_plan(planner, &r, &plan), 0);
		assert_true(cpu_seconds() - before < 2);
		check(&r, &plan);
		if (plan_by_bnb(&r, &bnb) == 0) {
			check(&r, &bnb);
			assert_true(bnb.p_eff <= plan.p_eff + 1e-8);
			agreed += fabs(bnb.p_eff - plan.p_eff) < 1e-8;
		}
		assert_true(plan.bound - plan.p_eff <= 1.0 * r.batch / (double)r.instances + 1e-9);
	}
	assert_true(agreed > 300);
}

/*
 * Accuracy in proportion to time: every mix that uses the time up is as good, and the one that uses most of
 * it is hard to find. The hull gives up on some; the planner is never worse than any method, and in time.
 */
static void test_hard(void **state)
{
	int gave_up = 0, by[PLAN_METHODS] = {0};

	(void)state;
	for (int c = 0; c < 150; c++) {
		struct plan_submodel m[MAX_SUBMODELS];
		struct plan_request r = {.submodels = m, .n_submodels = 4 + c % 13, .batch = 32};
		struct plan plan, one;
		int64_t times = 0;
		double before;

		r.instances = 1 + (int64_t)exp(erand48(plans_seed) * log(1e5));
		for (int i = 0; i < r.n_submodels; i++) {
			m[i].time_ns = c & 1 ? 100000000 + below(100) : 5000000 + below(95000000);
			m[i].time_one_ns = c & 2 ? 0 : m[i].time_ns / 5;
			m[i].accuracy = 5e-9 * (double)m[i].time_ns;
			times += m[i].time_ns;
		}
		r.deadline_ns = (int64_t)(erand48(plans_seed) * (double)times / r.n_submodels *
					  (double)(r.instances / 32 + 1));
		before = cpu_seconds();
		assert_int_equal(planner_plan(planner, &r, &plan), 0);
		assert_true(cpu_seconds() - before < 2);
		check(&r, &plan);
		by[plan.method]++;
		if (plan_by_hull(&r, &one) < 0)
			gave_up++;
		else
			assert_true(one.p_eff <= plan.p_eff + 1e-9 && one.p_eff >= plan.p_eff - 1e-9);
		if (plan_by_bnb(&r, &one) == 0)
			assert_true(one.p_eff <= plan.p_eff + 1e-8);
		if (plan_by_dp(&r, &one) == 0)
			assert_true(one.p_eff <= plan.p_eff + 1e-8);
	}
	print_message("the hull gave up %d times; planner: hull %d bnb %d dp %d\n", gave_up, by[PLAN_HULL],
		      by[PLAN_BNB], by[PLAN_DP]);
	assert_true(gave_up > 0);
	assert_true(by[PLAN_BNB] + by[PLAN_DP] > 0);
}

static void test_ends(void **state)
{
	struct plan_submodel m[] = {{0.9, INT64_C(1) << 60, INT64_C(1) << 60}, {0.5, 1, 1}};
	struct plan_request r = {.n_submodels = 2,
				 .submodels = m,
				 .instances = INT64_C(1000000000000),
				 .batch = 1,
				 .deadline_ns = INT64_MAX};
	struct plan plan, before;

	(void)state;
	/* 7 times 2^60 fit in 2^63 - 1. */
	assert_int_equal(planner_plan(planner, &r, &plan), 0);
	check(&r, &plan);
	assert_int_equal(plan.n[0], 7);
	assert_int_equal(plan.n[1], INT64_C(1000000000000) - 7);
	assert_int_equal(plan.dropped, 0);

	/* No deadline: all on the most accurate, the odd one too. */
	r = (struct plan_request){
		.n_submodels = 4, .submodels = xray, .instances = 33, .batch = 32, .deadline_ns = INT64_MAX};
	assert_int_equal(planner_plan(planner, &r, &plan), 0);
	assert_int_equal(plan.n[0], 2);
	assert_int_equal(plan.partial, 0);
	assert_true(plan.p_eff == 0.7937 && plan.method == PLAN_HULL);

	/* An accuracy of 0 is still an answer. */
	m[0] = (struct plan_submodel){0, 3, 0};
	m[1] = (struct plan_submodel){0.5, 100, 0};
	r = (struct plan_request){
		.n_submodels = 2, .submodels = m, .instances = 21, .batch = 2, .deadline_ns = 320};
	assert_int_equal(planner_plan(planner, &r, &plan), 0);
	check(&r, &plan);
	assert_int_equal(plan.n[0], 6);
	assert_int_equal(plan.n[1], 3);
	assert_int_equal(plan.dropped, 3);
	m[0] = (struct plan_submodel){0.9, INT64_C(1) << 60, 0};

	r = (struct plan_request){.n_submodels = 4, .submodels = xray, .instances = 33, .batch = 32};
	r.deadline_ns = INT64_MIN;
	assert_int_equal(planner_plan(planner, &r, &plan), 0);
	assert_int_equal(plan.dropped, 33);
	assert_int_equal(plan.partial, -1);
	assert_true(plan.p_eff == 0);

	memset(&plan, 7, sizeof(plan));
	before = plan;
	r.instances = 0;
	assert_int_equal(planner_plan(planner, &r, &plan), -EINVAL);
	r.instances = 5;
	r.batch = 0;
	assert_int_equal(planner_plan(planner, &r, &plan), -EINVAL);
	r.batch = 1;
	r.n_submodels = 0;
	assert_int_equal(planner_plan(planner, &r, &plan), -EINVAL);
	r.n_submodels = MAX_SUBMODELS + 1;
	assert_int_equal(planner_plan(planner, &r, &plan), -EINVAL);
	r = (struct plan_request){.n_submodels = 1, .submodels = m, .instances = 5, .batch = 1};
	m[0].accuracy = NAN;
	assert_int_equal(planner_plan(planner, &r, &plan), -EINVAL);
	m[0] = (struct plan_submodel){0.5, 0, 0};
	assert_int_equal(planner_plan(planner, &r, &plan), -EINVAL);
	assert_memory_equal(&plan, &before, sizeof(plan));
}

/*
 * GLPK out of memory would abort the process: instead nothing is claimed, and the next time it works again.
 */
static void test_glpk_failure(void **state)
{
	struct plan_request r = {.n_submodels = 4,
				 .submodels = xray,
				 .instances = 6400,
				 .batch = 32,
				 .deadline_ns = INT64_C(8000000000)};
	struct plan plan, before;
	size_t used = 0;

	(void)state;
	assert_int_equal(plan_by_bnb(&r, &plan), 0);
	glp_mem_limit(1);
	while (used < (1 << 20) - 8192) {
		assert_non_null(glp_alloc(1, 4096));
		glp_mem_usage(NULL, NULL, &used, NULL);
	}
	memset(&plan, 7, sizeof(plan));
	before = plan;
	assert_int_equal(plan_by_bnb(&r, &plan), -EAGAIN);
	assert_memory_equal(&plan, &before, sizeof(plan));
	assert_int_equal(plan_by_bnb(&r, &plan), 0);
	check(&r, &plan);
}

/* More requests than the cache holds: the old ones are gone, the new ones there, nothing is mixed up. */
static void test_cache(void **state)
{
	struct plan_request r = {.n_submodels = 4, .submodels = xray, .batch = 32};
	struct plan_submodel m[4];
	struct plan plan;
	int hits = 0;

	(void)state;
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 3000; i++) {
			r.instances = 100 + i;
			r.deadline_ns = (i % 50) * INT64_C(10000000);
			assert_int_equal(planner_plan(planner, &r, &plan), 0);
			check(&r, &plan);
			assert_int_not_equal(plan.method, PLAN_CACHE);
			/* The first one stays, since it is used all the time. */
			r.instances = 99;
			r.deadline_ns = 77000000;
			assert_int_equal(planner_plan(planner, &r, &plan), 0);
			check(&r, &plan);
			hits += plan.method == PLAN_CACHE;
		}
	assert_int_equal(hits, 5999);
	/* Everything counts, within a bucket too. */
	for (int i = 0; i < 6000; i++) {
		r.instances = 320 + i % 2;
		r.batch = 32 + i / 2 % 2;
		r.deadline_ns = 20000000 + i / 4 * INT64_C(100000);
		assert_int_equal(planner_plan(planner, &r, &plan), 0);
		check(&r, &plan);
		assert_int_not_equal(plan.method, PLAN_CACHE);
	}
	r.deadline_ns++;
	assert_int_equal(planner_plan(planner, &r, &plan), 0);
	assert_int_not_equal(plan.method, PLAN_CACHE);
	r.batch++;
	assert_int_equal(planner_plan(planner, &r, &plan), 0);
	assert_int_not_equal(plan.method, PLAN_CACHE);
	memcpy(m, xray, sizeof(m));
	r.submodels = m;
	for (int i = 0; i < 3; i++) {
		*(i == 0 ? &m[3].time_ns : i == 1 ? &m[3].time_one_ns : &m[0].time_ns) += 1;
		assert_int_equal(planner_plan(planner, &r, &plan), 0);
		assert_int_not_equal(plan.method, PLAN_CACHE);
	}
	m[2].accuracy += 1e-4;
	assert_int_equal(planner_plan(planner, &r, &plan), 0);
	assert_int_not_equal(plan.method, PLAN_CACHE);
	assert_int_equal(planner_plan(planner, &r, &plan), 0);
	assert_int_equal(plan.method, PLAN_CACHE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_table, setup, teardown),
		cmocka_unit_test(test_table_by_command),
		cmocka_unit_test(test_command_errors),
		cmocka_unit_test_setup_teardown(test_brute_force, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large, setup, teardown),
		cmocka_unit_test(test_glpk_failure),
		cmocka_unit_test_setup_teardown(test_hard, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cache, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
