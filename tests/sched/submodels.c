/* Which sub-models an inference worker keeps: those that some plan could use (sched/worker/infer_submodels.c), and what they take
 * (infer_measure.c). */
#include "sched/worker/infer_private.h"

#include "engine/backend.h"
#include "sched/plan/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS(t) (int64_t)((t)*1e6)

/* One letter each: k kept, i idle. */
static void check(const char *expected, struct infer_submodel *list)
{
	int n = (int)strlen(expected);

	infer_submodels_choose(list, n);
	for (int i = 0; i < n; i++)
		if (list[i].idle != (expected[i] == 'i'))
			fail_msg("sub-model %d of %s is %s", i, expected, list[i].idle ? "idle" : "kept");
}

static struct infer_submodel of(double accuracy, double ms, double one_ms)
{
	return (struct infer_submodel){
		.accuracy = (float)accuracy, .time_ns = MS(ms), .time_one_ns = MS(one_ms)};
}

static void test_hull(void **state)
{
	/* of the paper's Table 3 the second lies on the line between its neighbours, within a tenth */
	struct infer_submodel paper[] = {of(0.7937, 45.12, 45.12), of(0.7188, 34.56, 34.56),
					 of(0.7094, 22.72, 22.72), of(0.6512, 15.68, 15.68)};
	struct infer_submodel far[] = {of(0.8, 40, 40), of(0.7, 35, 35), of(0.72, 20, 20)};
	struct infer_submodel origin[] = {of(0.8, 40, 40),
					  of(0.3, 20, 20)}; /* half the time, less than half as good */
	struct infer_submodel slower[] = {of(0.8, 40, 40), of(0.8, 50, 50), of(0.8, 42, 42)};

	(void)state;
	check("kikk", paper);
	check("kik", far);
	check("ki", origin);
	check("kik", slower); /* 5 % may be another result next time */
}

static void test_precisions(void **state)
{
	/* slices of 0.25 to 1, f32 and bf16 of each: nearly as good in half of the time */
	struct infer_submodel list[] = {of(0.85, 4, 1),     of(0.8505, 2.5, 0.9), of(0.90, 10, 2),
					of(0.8995, 5, 1.5), of(0.92, 30, 5),      of(0.9198, 14, 3)};
	/* as long as it is clearly better */
	struct infer_submodel worse[] = {of(0.92, 30, 5), of(0.91, 14, 3)};

	(void)state;
	check("ikikik", list);
	check("kk", worse);
}

/* One that is the better one with a single instance stays; and nothing goes as long as nothing is known. */
static void test_either_time(void **state)
{
	struct infer_submodel list[] = {of(0.9, 10, 5), of(0.9, 12, 2)},
			      unknown[] = {of(0, 10, 5), of(0, 20, 9)};

	(void)state;
	check("kk", list);
	check("kk", unknown);
}

/* The precisions that are listed of the full width, a bit each. */
static unsigned listed(struct model *model, unsigned precisions)
{
	struct infer_endpoint e = {.n_members = 1, .members = {{.model = model}}};
	struct err err = ERR_INIT;
	unsigned list = 0;

	infer_submodels_list(&e, precisions, &err);
	for (int i = 0; i < e.n_submodels; i++) {
		const struct infer_part *part = infer_part(&e, e.submodels[i].parts[0]);

		assert_int_equal(e.submodels[i].n_parts, 1);
		assert_true(model_info(model)->rates[part->rate_index] == part->rate);
		list |= part->rate == 1 ? 1u << part->precision : 0;
	}
	return list;
}

/* int8 is offered where it was measured, is faster, and loses no more than 0.3 points; alone it runs anyway. */
static void test_int8_list(void **state)
{
	const unsigned f32 = 1u << PRECISION_F32, int8 = 1u << PRECISION_INT8;
	const struct model_info info = {.channels = 1,
					.height = 4,
					.width = 4,
					.classes = 3,
					.std = {1},
					.n_rates = 2,
					.rates = {0.5f, 1}};
	float ranges[32] = {1};
	struct model *model;
	bool gains;

	(void)state;
	assert_int_equal(model_new(&model, "{\"arch\":\"mlp\",\"hidden\":[16]}", &info, 1, NULL), 0);
	gains = model_gains(model, backend_find(INFER_BACKEND), PRECISION_INT8);
	model_set_accuracy(model, 1, 0.9f);
	assert_int_equal(listed(model, 0), f32);
	assert_int_equal(listed(model, f32 | int8), f32); /* it isn't calibrated */
	assert_int_equal(listed(model, int8), int8);      /* and will say so */
	assert_int_equal(model_set_ranges(model, 1, ranges), 0);
	for (int lost = 0; lost <= 5; lost++) { /* tenths of a point */
		unsigned both = gains && lost <= 3 ? f32 | int8 : f32;

		model_set_narrow_accuracy(model, PRECISION_INT8, 1, 0.9f - 0.00099f * (float)lost, 0);
		assert_int_equal(listed(model, 0), both);
		assert_int_equal(listed(model, f32 | int8), both);
		assert_int_equal(listed(model, f32), f32);
		assert_int_equal(listed(model, int8), int8);
	}
	model_free(model);
}

static double best_plan(struct planner *pl, const struct infer_submodel *list, int n, bool all,
			int64_t deadline)
{
	struct plan_submodel some[MAX_SUBMODELS];
	struct plan_request request = {
		.submodels = some, .instances = 400, .batch = 1, .deadline_ns = deadline};
	struct plan plan;

	for (int i = 0; i < n; i++)
		if (all || !list[i].idle)
			some[request.n_submodels++] = (struct plan_submodel){
				.accuracy = (double)list[i].accuracy, .time_ns = list[i].time_ns};
	assert_int_equal(planner_plan(pl, &request, &plan), 0);
	return plan.p_eff;
}

/* What is left plans as well as all of them, but for the tenth of a point that counts as nothing, drift and rounding. */
static void test_plans(void **state)
{
	struct planner *pl;
	unsigned seed = 1;
	int gone = 0;

	(void)state;
	assert_int_equal(planner_new(&pl), 0);
	for (int round = 0; round < 50; round++) {
		struct infer_submodel list[8];

		for (int i = 0; i < 8; i++) {
			double t = 1 + (double)(rand_r(&seed) % 1000) / 50;

			list[i] = of(0.5 + (double)(rand_r(&seed) % 400) / 1000, t, t);
		}
		infer_submodels_choose(list, 8);
		for (int i = 0; i < 8; i++)
			gone += list[i].idle;
		for (int k = 1; k < 6; k++) {
			double all = best_plan(pl, list, 8, true, MS(1500.0 * k));

			assert_true(best_plan(pl, list, 8, false, MS(1500.0 * k)) > all - 0.004);
		}
	}
	assert_true(gone > 100);
	planner_free(pl);
}

/* Runs of both in turn, `speed` times as long as they are from the k-th on. */
static int64_t paired(double first_ms, double own_ms, double speed, int k)
{
	int64_t first[INFER_PAIRS], own[INFER_PAIRS];

	for (int i = 0; i < INFER_PAIRS; i++) {
		double at = i < k ? 1 : speed, ms = own_ms;

		if (i == 3)
			ms *= 4; /* somebody else had the core */
		first[i] = MS(at * first_ms);
		own[i] = MS(at * ms);
	}
	return infer_paired_ns(first, own, INFER_PAIRS, MS(first_ms));
}

/* A machine that runs at one speed while one is measured and at another meanwhile for the next: what is faster stays so. */
static void test_two_speeds(void **state)
{
	struct infer_submodel list[] = {of(0.9, 4, 4), of(0.91, 0, 0), of(0.92, 0, 0)};

	(void)state;
	for (int k = 0; k <= INFER_PAIRS; k++) {
		list[1].time_ns = list[1].time_one_ns = paired(4, 6, 1 / 1.6, k);
		list[2].time_ns = list[2].time_one_ns = paired(4, 10, 1.6, INFER_PAIRS - k);
		assert_in_range(list[1].time_ns, MS(5.99), MS(6.01));
		assert_in_range(list[2].time_ns, MS(9.99), MS(10.01));
		check("kkk", list);
	}
	assert_int_equal(infer_paired_ns(&(int64_t){0}, &(int64_t){5}, 1, 3),
			 15); /* too short to be measured */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hull),        cmocka_unit_test(test_precisions),
		cmocka_unit_test(test_either_time), cmocka_unit_test(test_int8_list),
		cmocka_unit_test(test_plans),       cmocka_unit_test(test_two_speeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
