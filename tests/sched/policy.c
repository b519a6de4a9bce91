/* What each policy lets run, alone and at an endpoint that names it. */
#include "tests/support/fake_host.h"
#include "tests/support/table3.h"

#include "engine/base/rng.h"
#include "sched/policy/policy.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* DESIGN section 6, X-ray. */
static const struct plan_submodel table3[] = {{.accuracy = 0.7937, .time_ns = 45120000},
					      {.accuracy = 0.7188, .time_ns = 34560000},
					      {.accuracy = 0.7094, .time_ns = 22720000},
					      {.accuracy = 0.6512, .time_ns = 15680000}};

static struct plan_request request_of(int64_t instances)
{
	return (struct plan_request){.n_submodels = 4,
				     .submodels = table3,
				     .instances = instances,
				     .batch = 32,
				     .deadline_ns = 8 * NS_PER_S};
}

static void test_table(void **state)
{
	static const char *const names[] = {"cascade",   "optimal",  "algorithm2", "best-single",
					    "full-drop", "smallest", "oracle"};
	char json[128];

	(void)state;
	for (int i = 0; i < 7; i++) {
		struct infer_spec spec;
		struct err err = ERR_INIT;
		int r;

		assert_string_equal(policy_at(i)->name, names[i]);
		assert_ptr_equal(policy_find(names[i]), policy_at(i));
		snprintf(json, sizeof(json), "{\"model\":\"m\",\"policy\":\"%s\"}", names[i]);
		r = infer_spec_parse(&spec, json, strlen(json), &err);
		if (strcmp(names[i], "oracle") == 0) { /* nobody knows real times but a simulation */
			assert_int_equal(r, -EINVAL);
			assert_non_null(strstr(err.detail,
					       "cascade optimal algorithm2 best-single full-drop smallest"));
			assert_null(strstr(err.detail, "oracle"));
		} else {
			assert_int_equal(r, 0);
			assert_ptr_equal(spec.policy, policy_at(i));
		}
	}
	assert_null(policy_at(7));
	assert_null(policy_find("fastest"));
	snprintf(json, sizeof(json), "{\"model\":\"m\",\"policy\":3}");
	assert_int_equal(infer_spec_parse(&(struct infer_spec){0}, json, strlen(json), NULL), -EINVAL);
}

/* The one that `name` lets run; -1: several. */
static int only(const char *name, const struct plan_request *request, int begun)
{
	unsigned may = policy_find(name)->may(request, begun);

	assert_int_not_equal(may, 0);
	return may & (may - 1) ? -1 : __builtin_ctz(may);
}

static void test_singles(void **state)
{
	/* Of 8 s: 177, 231, 352 and 510 mini-batches. */
	static const struct {
		int64_t instances;
		int best;
	} cases[] = {{32, 0}, {177 * 32, 0}, {6400, 1}, {8000, 2}, {11000, 2}, {12800, 3}, {30000, 3}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct plan_request request = request_of(cases[i].instances);

		assert_int_equal(only("best-single", &request, -1), cases[i].best);
		for (int begun = 0; begun < 4; begun++)
			assert_int_equal(only("best-single", &request, begun), begun);
		assert_int_equal(only("full-drop", &request, -1), 0);
		assert_int_equal(only("smallest", &request, -1), 3);
		assert_int_equal(policy_optimal.may(&request, 2), 15);
		assert_int_equal(policy_algorithm2.may(&request, 2), 15);
	}
	struct plan_request late = request_of(6400);

	late.deadline_ns = -5;
	assert_int_equal(only("best-single", &late, -1), 3);
}

/* One that was in use and became idle (another model's hull) doesn't bind the task; idle ones are never let run. */
static void test_idle(void **state)
{
	struct plan_submodel m[4];
	struct plan_request request = request_of(32);

	(void)state;
	memcpy(m, table3, sizeof(m));
	m[0].accuracy = m[3].accuracy = 0;
	request.submodels = m;
	assert_int_equal(only("best-single", &request, 0), 1);
	assert_int_equal(only("full-drop", &request, -1), 1);
	assert_int_equal(only("smallest", &request, -1), 2);
	assert_int_equal(policy_optimal.may(&request, -1), 6);
	policy_narrow(&policy_smallest, &request, -1, m);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(m[i].time_ns, table3[2].time_ns);
		assert_true(m[i].accuracy == (i == 2 ? table3[2].accuracy : 0));
	}
	m[2].accuracy = 0; /* nothing is any good: all stay as they are */
	policy_narrow(&policy_full_drop, &request, -1, m);
	assert_int_equal(m[1].time_ns, table3[2].time_ns);
}

static int64_t time_of(const struct plan_request *r, const struct plan *plan)
{
	int64_t time = 0;

	for (int i = 0; i < r->n_submodels; i++)
		time += plan->n[i] * r->submodels[i].time_ns;
	return time;
}

static void test_algorithm2_ends(void **state)
{
	struct plan_request request = request_of(18016); /* 563 mini-batches: not even the fastest can */
	struct plan plan;

	(void)state;
	assert_int_equal(plan_by_algorithm2(&request, &plan), 0);
	assert_int_equal(plan.n[3], 563);
	assert_true(time_of(&request, &plan) > request.deadline_ns);
	assert_float_equal(plan.p_eff, 0.6512 * 510 / 563, 1e-9);
	assert_int_equal(plan.dropped, 53 * 32);
	request = request_of(5000); /* 156.25: the slowest can */
	assert_int_equal(plan_by_algorithm2(&request, &plan), 0);
	assert_int_equal(plan.n[0], 157);
	assert_int_equal(plan.partial, 0);
	assert_int_equal(plan.dropped, 0);
	assert_float_equal(plan.p_eff, 0.7937, 1e-9);
	request.instances = 0;
	assert_int_equal(plan_by_algorithm2(&request, &plan), -EINVAL);
	request = request_of(INT64_C(1000000000000));
	request.batch = 1;
	assert_int_equal(plan_by_algorithm2(&request, &plan), -EINVAL);
}

/* Between, and of full mini-batches, it is Eq. 2's optimum. */
static void test_algorithm2_between(void **state)
{
	struct rng rng = rng_init(5, 0);
	struct planner *planner;
	int between = 0;

	(void)state;
	assert_int_equal(planner_new(&planner), 0);
	for (int k = 0; k < 500; k++) {
		struct plan_submodel m[5];
		struct plan_request request = {.submodels = m, .batch = 8};
		struct plan mine, best;
		int64_t count = 1 + (int64_t)rng_below(&rng, 40);

		request.n_submodels = 1 + (int)rng_below(&rng, 5);
		request.instances = 8 * count;
		request.deadline_ns = 1000 + (int64_t)rng_below(&rng, 1000 * (uint64_t)count);
		for (int i = 0; i < request.n_submodels; i++) { /* slower ones are mostly better */
			int64_t time = 100 + (int64_t)rng_below(&rng, 900);

			m[i] = (struct plan_submodel){.accuracy = 0.0005 * (double)time +
								  0.01 * (double)(1 + rng_below(&rng, 20)),
						      .time_ns = time};
		}
		assert_int_equal(plan_by_algorithm2(&request, &mine), 0);
		assert_int_equal(planner_plan(planner, &request, &best), 0);
		assert_true(mine.p_eff <= best.p_eff + 1e-9);
		if (time_of(&request, &mine) > request.deadline_ns || mine.n[0] == count ||
		    request.n_submodels == 1)
			continue;
		int used = 0;

		for (int i = 0; i < request.n_submodels; i++)
			used += mine.n[i] > 0;
		if (used < 2)
			continue; /* all with the slowest, which need not be the best */
		between++;
		assert_float_equal(mine.p_eff, best.p_eff, 1e-7);
	}
	assert_true(between > 100);
	planner_free(planner);
}

/* 100 mini-batches of an endpoint with that policy; the mini-batches that ran, by sub-model, into ran (4). */
static double play(const char *policy, const char *deadline, int ran[4], int *ret_late)
{
	struct world w;
	char spec[128], path[64], key[16];
	double accuracy;
	const char *text;

	snprintf(spec, sizeof(spec), "{\"model\":\"m\",\"policy\":\"%s\"}", policy);
	world_init(&w, TABLE3, spec);
	for (int i = 0; i < 3200; i++) {
		snprintf(path, sizeof(path), "infer/app/in/b/%06d", i);
		fake_put(&w.host, path, "7");
	}
	fake_setxattr(&w.host, "infer/app/in/b", "user.deadline", deadline);
	sched_post_batch(w.s, "app", BATCH_RENAMED_IN, "b", fake_ino(&w.host, "infer/app/in/b"));
	world_run(&w, 5000);
	accuracy = world_number(&w, "out/b/task.json", "effective_accuracy");
	*ret_late = (int)world_number(&w, "out/b/task.json", "late");
	text = fake_content(&w.host, "infer/app/out/b/task.json");
	assert_non_null(text);
	for (int i = 0; i < 4; i++) {
		snprintf(key, sizeof(key), "\"real\":");
		text = strstr(text, key);
		assert_non_null(text);
		text += strlen(key);
		ran[i] = (int)strtol(text, NULL, 10);
	}
	for (int i = 0; i < 3200; i++) {
		snprintf(path, sizeof(path), "b/%06d", i);
		assert_true(world_answered_once(&w, path));
	}
	world_release(&w);
	return accuracy;
}

static void test_endpoint(void **state)
{
	int ran[4], late;

	(void)state;
	assert_true(play("full-drop", "3s", ran, &late) > 0.7937 * 100 * 0.63 && ran[0] <= 67);
	assert_true(ran[0] >= 64 && ran[1] + ran[2] + ran[3] == 0);
	assert_float_equal(play("smallest", "3s", ran, &late), 65.12, 1e-3);
	assert_int_equal(ran[3], 100);
	/* 131 fit; of the next larger one only 86. */
	assert_float_equal(play("best-single", "3s", ran, &late), 70.94, 1e-3);
	assert_int_equal(ran[2], 100);
	assert_true(play("algorithm2", "3s", ran, &late) > 73);
	assert_int_equal(ran[0] + ran[1] + ran[2] + ran[3], 100);
	assert_true(play("optimal", "3s", ran, &late) > 73);
	/* Not even the smallest is in time: 63 fit, and only the paper's own begins what will be late. */
	assert_true(play("algorithm2", "1s", ran, &late) > 0.6512 * 62 && late == 32);
	assert_true(play("optimal", "1s", ran, &late) > 0.6512 * 62 && late == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_table),
					   cmocka_unit_test(test_singles),
					   cmocka_unit_test(test_idle),
					   cmocka_unit_test(test_algorithm2_ends),
					   cmocka_unit_test(test_algorithm2_between),
					   cmocka_unit_test(test_endpoint)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
