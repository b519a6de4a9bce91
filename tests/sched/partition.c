/*
 * A task's mini-batches divided among workers, against brute force over every partition with an optimal local plan each: equal workers,
 * ones of other speeds or of other times altogether, ones that are free at different times.
 */
#include "sched/plan/partition.h"

#include "engine/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CASES 3000
#define MOST  24 /* mini-batches; of equal workers half as many */
#define BATCH 8

static struct planner *planner;

struct task {
	struct plan_submodel m[3][MAX_SUBMODELS];
	struct partition_worker w[3];
	int n, count;
};

static double between(struct rng *rng, double low, double high)
{
	return low + (high - low) * (double)rng_float(rng);
}

enum kind { EQUAL, SPEEDS, SHAPES }; /* each worker's times: the same, in another unit, of their own */

static void make(struct task *task, struct rng *rng, enum kind kind, bool same_time)
{
	int k = 1 + (int)between(rng, 0, 5);
	double time;

	task->n = 2 + (int)between(rng, 0, 2);
	task->count = 1 + (int)between(rng, 0, kind == EQUAL ? MOST / 2 : MOST);
	time = between(rng, 0.2, 6) * task->count / task->n;

	for (int w = 0; w < task->n; w++) {
		double speed = kind == SPEEDS ? between(rng, 0.2, 1) : 1;

		for (int i = 0; i < k; i++) {
			double t = kind == SHAPES || !w ? between(rng, 0.3, 3) * 1e6
							: (double)task->m[0][i].time_ns;

			task->m[w][i] =
				w ? task->m[0][i] : (struct plan_submodel){.accuracy = between(rng, 0.2, 1)};
			task->m[w][i].time_ns = (int64_t)(kind == SPEEDS && w ? t / speed : t);
		}
		task->w[w] = (struct partition_worker){
			.submodels = task->m[w],
			.n = k,
			.time_ns = (int64_t)((same_time ? time : time * between(rng, 0.5, 1)) * 1e6)};
	}
}

static double local(const struct partition_worker *w, int64_t count)
{
	struct plan plan;

	if (!count)
		return 0;
	assert_int_equal(planner_plan(planner,
				      &(struct plan_request){.n_submodels = w->n,
							     .submodels = w->submodels,
							     .instances = count * BATCH,
							     .batch = BATCH,
							     .deadline_ns = w->time_ns},
				      &plan),
			 0);
	return plan.p_eff * (double)count;
}

static double brute(const struct task *task)
{
	double value[3][MOST + 1] = {{0}}, best = 0;

	for (int w = 0; w < task->n; w++)
		for (int i = 0; i <= task->count; i++)
			value[w][i] = local(&task->w[w], i);
	for (int a = 0; a <= task->count; a++)
		for (int b = 0; a + b <= task->count; b++)
			best = fmax(best, value[0][a] + value[1][b] + value[2][task->count - a - b]);
	return best;
}

/* Σ p of local plans of the shares. */
static double of_shares(const struct task *task)
{
	int64_t share[3] = {0}, sum = 0;
	double value = 0;

	partition(planner, planner_plan, task->w, task->n, task->count, BATCH, share);
	for (int w = 0; w < task->n; w++) {
		assert_in_range(share[w], 0, task->count);
		value += local(&task->w[w], share[w]);
		sum += share[w];
	}
	assert_true(sum <= task->count);
	return value;
}

/* How far from the best, of 1: at most `worst`, and in the mean. */
static void assert_gap(enum kind kind, bool same_time, double worst, double mean)
{
	struct rng rng = rng_init(7, (uint64_t)kind * 2 + same_time);
	double most = 0, sum = 0;

	for (int i = 0; i < CASES; i++) {
		struct task task;
		double best, gap;

		make(&task, &rng, kind, same_time);
		best = brute(&task);
		gap = best > 0 ? 1 - of_shares(&task) / best : 0;
		assert_true(gap > -1e-9);
		assert_true(partition_bound(task.w, task.n, task.count) >= best - 1e-6);
		most = fmax(most, gap);
		sum += gap / CASES;
	}
	print_message("worst gap %.6f, mean %.7f\n", most, sum);
	assert_true(most <= worst && sum <= mean);
}

static void test_equal(void **state)
{
	(void)state;
	assert_gap(EQUAL, true, 1e-9, 1e-9);
}

static void test_unequal(void **state)
{
	(void)state;
	assert_gap(EQUAL, false, 0.01, 1e-5); /* free at different times */
	assert_gap(SPEEDS, true, 0.01, 1e-5);
	assert_gap(SPEEDS, false, 0.01, 1e-5);
	assert_gap(SHAPES, true, 0.03, 1e-5);
	assert_gap(SHAPES, false, 0.03, 1e-5);
}

/* Beyond what is looked at one by one; 1,000 on two workers, one half as fast: 2 to 1, and within a mini-batch a worker of the bound. */
static void test_many(void **state)
{
	struct plan_submodel m[2][2] = {{{0.9, 10000, 0}, {0.6, 2000, 0}}, {{0.9, 20000, 0}, {0.6, 4000, 0}}};
	struct partition_worker w[2] = {{m[0], 2, 4000000}, {m[1], 2, 4000000}};
	int64_t share[2];

	(void)state;
	partition(planner, planner_plan, w, 2, 1000, BATCH, share);
	assert_int_equal(share[0] + share[1], 1000);
	assert_in_range(share[0], 666, 667);
	assert_true(local(&w[0], share[0]) + local(&w[1], share[1]) > partition_bound(w, 2, 1000) - 2);
	/* There is time for the best of all: both are done at the same time. The slow one is free later. */
	w[0].time_ns = 20000000;
	w[1].time_ns = 18000000;
	partition(planner, planner_plan, w, 2, 1000, BATCH, share);
	assert_in_range(share[0], 732, 734); /* x·10,000 = 2,000,000 + (1000 - x)·20,000 */
	assert_int_equal(share[0] + share[1], 1000);
	assert_float_equal(partition_bound(w, 2, 1000), 900, 1e-6);
	/* Nor on the fastest: each what it can. */
	w[0].time_ns = w[1].time_ns = 400000;
	partition(planner, planner_plan, w, 2, 1000, BATCH, share);
	assert_int_equal(share[0], 1000);
	assert_int_equal(share[1], 1000);
	assert_float_equal(partition_bound(w, 2, 1000), 0.6 * 300, 1e-6);
	/* One that is dead. */
	w[0].time_ns = 20000000;
	w[1].time_ns = 0;
	partition(planner, planner_plan, w, 2, 1000, BATCH, share);
	assert_int_equal(share[0], 1000);
	assert_int_equal(share[1], 0);
}

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

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal), cmocka_unit_test(test_unequal),
					   cmocka_unit_test(test_many)};

	return cmocka_run_group_tests(tests, setup, teardown);
}
