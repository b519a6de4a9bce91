/* Several tasks planned together: against brute force, the LP against GLPK's, one task against the planner. */
#include "sched/plan/joint.h"

#include "tests/support/plans.h"

#include <errno.h>
#include <glpk.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_TASKS 200

static const struct joint_limits exact = {.gap = 0, .time_ns = INT64_C(20000000000)};
static const struct joint_limits lp_only = {.gap = 1};

static struct joint_task tasks[MAX_TASKS];
static struct plan_submodel submodels[MAX_TASKS][MAX_SUBMODELS];
static struct plan plans[MAX_TASKS];

/* --- what must hold for any plan, in exact arithmetic and from the headers alone --- */

static double weight_total(int n)
{
	double total = 0;

	for (int t = 0; t < n; t++)
		total += tasks[t].weight * (double)tasks[t].request.instances;
	return total;
}

static void check(int n, const struct joint_plan *joint)
{
	__int128 time = 0;
	double value = 0;

	for (int t = 0; t < n; t++) {
		const struct plan_request *r = &tasks[t].request;
		const struct plan *plan = &plans[t];
		int64_t k = r->instances % r->batch, served = 0;
		double task_value = 0;

		for (int i = 0; i < r->n_submodels; i++) {
			int64_t full = plan->n[i] - (plan->partial == i);

			assert_true(full >= 0 && full <= r->instances / r->batch);
			time += (__int128)full * r->submodels[i].time_ns;
			served += full * r->batch;
			task_value += (double)full * r->batch * r->submodels[i].accuracy;
		}
		assert_true(served <= r->instances - k);
		if (plan->partial >= 0) {
			assert_true(k > 0 && plan->partial < r->n_submodels);
			time += part_time(r, plan->partial, k);
			served += k;
			task_value += (double)k * r->submodels[plan->partial].accuracy;
		}
		assert_true(time <= (r->deadline_ns > 0 ? r->deadline_ns : 0) || !served);
		assert_int_equal(plan->dropped, r->instances - served);
		assert_true(fabs(plan->p_eff - task_value / (double)r->instances) < 1e-12);
		assert_true(plan->bound >= plan->p_eff && plan->bound <= 1 + 1e-9);
		value += tasks[t].weight * task_value;
	}
	assert_true(fabs(joint->value - value / weight_total(n)) < 1e-12);
	assert_true(joint->bound >= joint->value && joint->bound <= 1 + 1e-9);
	assert_true(joint->gap >= 0 && fabs(joint->bound * (1 - joint->gap) - joint->value) < 1e-12);
}

/* --- random tasks --- */

static int by_deadline(const void *a, const void *b)
{
	const struct joint_task *x = a, *y = b;

	return (x->request.deadline_ns > y->request.deadline_ns) -
	       (x->request.deadline_ns < y->request.deadline_ns);
}

struct shape {
	int tasks, submodels, batches; /* at most */
};

static double random_weight(int kind)
{
	switch (kind) {
	case 0:
		return 1;
	case 1:
		return (double)(1 + below(4));
	default:
		return exp(erand48(plans_seed) * 6 - 3);
	}
}

static int random_tasks(int kind, const struct shape *shape)
{
	int n = 1 + (int)below(shape->tasks);
	double work = 0;

	for (int t = 0; t < n; t++) {
		struct plan_request *r = &tasks[t].request;
		struct plan_submodel *m = submodels[t];

		tasks[t].weight = random_weight((int)below(3));
		*r = (struct plan_request){.n_submodels = 1 + (int)below(shape->submodels), .submodels = m};
		r->batch = 1 + (int)below(kind % 3 ? 64 : 3);
		r->instances = (1 + below(shape->batches)) * r->batch;
		if (kind % 2)
			r->instances -= below(r->batch);
		for (int i = 0; i < r->n_submodels; i++) {
			int64_t time = random_time(kind % 6);

			m[i] = (struct plan_submodel){random_accuracy((kind / 6) % 5), time,
						      below(3) ? 1 + below(time) : 0};
			/* As good as in proportion to time: hard. */
			if (kind % 7 == 0)
				m[i].accuracy = fmin(1, (double)time * 5e-9);
			if (i && below(10) == 0)
				m[i] = m[i - 1];
			work += (double)time * ((double)r->instances / r->batch) / r->n_submodels;
		}
	}
	for (int t = 0; t < n; t++) {
		tasks[t].request.deadline_ns = (int64_t)(1.2 * erand48(plans_seed) * work);
		if (below(20) == 0)
			tasks[t].request.deadline_ns = below(2) ? INT64_MAX : -5;
		if (t && below(8) == 0)
			tasks[t].request.deadline_ns = tasks[t - 1].request.deadline_ns;
	}
	qsort(tasks, (size_t)n, sizeof(*tasks), by_deadline);
	return n;
}

/* --- brute force --- */

static double best;

static void enumerate(int n, int t, __int128 time, double value);

static void enumerate_task(int n, int t, int i, int64_t left, __int128 time, double value)
{
	const struct plan_request *r = &tasks[t].request;
	__int128 deadline = r->deadline_ns > 0 ? r->deadline_ns : 0;

	if (i == r->n_submodels) {
		enumerate(n, t + 1, time, value);
		return;
	}
	for (int64_t k = 0; k <= left; k++) {
		__int128 sum = time + (__int128)k * r->submodels[i].time_ns;

		if (k && sum > deadline)
			break;
		enumerate_task(n, t, i + 1, left - k, sum,
			       value + tasks[t].weight * (double)k * r->batch * r->submodels[i].accuracy);
	}
}

static void enumerate(int n, int t, __int128 time, double value)
{
	const struct plan_request *r = &tasks[t].request;
	int64_t rest;

	if (t == n) {
		best = fmax(best, value);
		return;
	}
	rest = r->instances % r->batch;
	enumerate_task(n, t, 0, r->instances / r->batch, time, value);
	for (int j = 0; rest && j < r->n_submodels; j++) {
		__int128 sum = time + part_time(r, j, rest);

		if (sum <= (r->deadline_ns > 0 ? r->deadline_ns : 0))
			enumerate_task(n, t, 0, r->instances / r->batch, sum,
				       value + tasks[t].weight * (double)rest * r->submodels[j].accuracy);
	}
}

static double brute_force(int n)
{
	best = 0;
	enumerate(n, 0, 0, 0);
	return best / weight_total(n);
}

static void test_brute_force(void **state)
{
	/* At most some 250,000 combinations. */
	static const struct shape shapes[] = {{1, 3, 12}, {2, 3, 5}, {3, 3, 2}, {3, 2, 3}};
	int cases = 8000, by[PLAN_METHODS] = {0};

	(void)state;
	for (int c = 0; c < cases; c++) {
		int n = random_tasks(c, &shapes[below(4)]);
		struct joint_plan joint;
		double optimum = brute_force(n);

		assert_int_equal(joint_plan(tasks, n, &exact, &joint, plans), 0);
		check(n, &joint);
		by[joint.method]++;
		if (fabs(joint.value - optimum) > (joint.method == PLAN_BNB ? 1e-8 : 1e-9) * optimum)
			fail_msg("case %d: %s %.12f, brute force %.12f", c, plan_method_name(joint.method),
				 joint.value, optimum);
		assert_true(joint.bound >= optimum * (1 - 1e-8));
		assert_true(joint.gap <= 1e-8);
		/* Without time to go on: what it claims holds all the same. */
		assert_int_equal(joint_plan(tasks, n, &lp_only, &joint, plans), 0);
		check(n, &joint);
		assert_true(joint.value <= optimum * (1 + 1e-9) && joint.bound >= optimum * (1 - 1e-12));
		assert_int_equal(joint_plan(tasks, n, &joint_default, &joint, plans), 0);
		check(n, &joint);
		assert_true(joint.value <= optimum * (1 + 1e-9) && joint.bound >= optimum * (1 - 1e-8));
	}
	print_message("%d cases: hull %d, dp %d, bnb %d\n", cases, by[PLAN_HULL], by[PLAN_DP], by[PLAN_BNB]);
	/* A step that never finds anything would pass all of the above. */
	assert_true(by[PLAN_HULL] > cases / 4 && by[PLAN_DP] > cases / 100);
}

/* --- the LP as it is written in joint.h, by GLPK's simplex --- */

static double glpk_lp(int n)
{
	glp_prob *lp = glp_create_prob();
	glp_smcp simplex;
	double scale = 0, work = 0, value;

	for (int t = 0; t < n; t++)
		for (int i = 0; i < tasks[t].request.n_submodels; i++)
			scale = fmax(scale, (double)tasks[t].request.submodels[i].time_ns);
	glp_set_obj_dir(lp, GLP_MAX);
	glp_add_rows(lp, 3 * n);
	for (int t = 0; t < n; t++) {
		const struct plan_request *r = &tasks[t].request;
		int64_t deadline = r->deadline_ns > 0 ? r->deadline_ns : 0, k = r->instances % r->batch;

		work += ceil((double)r->instances / r->batch) * scale;
		glp_set_row_bnds(lp, t + 1, GLP_UP, 0, fmin((double)deadline, work) / scale);
		glp_set_row_bnds(lp, n + t + 1, GLP_UP, 0, (double)(r->instances / r->batch));
		glp_set_row_bnds(lp, 2 * n + t + 1, GLP_UP, 0, k ? 1 : 0);
		for (int i = 0; i < 2 * r->n_submodels; i++) {
			bool part = i >= r->n_submodels;
			const struct plan_submodel *m = &r->submodels[i % r->n_submodels];
			int64_t time = part ? part_time(r, i % r->n_submodels, k) : m->time_ns;
			int column, rows[MAX_TASKS + 2], entries = 1;
			double values[MAX_TASKS + 2];

			/* What does not fit alone is in no plan, and joint_plan leaves it out too. */
			if (time > deadline || (part && !k))
				continue;
			column = glp_add_cols(lp, 1);
			glp_set_col_bnds(lp, column, GLP_LO, 0, 0);
			glp_set_obj_coef(lp, column,
					 tasks[t].weight * (double)(part ? k : r->batch) * m->accuracy);
			rows[1] = part ? 2 * n + t + 1 : n + t + 1;
			values[1] = 1;
			for (int later = t; later < n; later++) {
				rows[++entries] = later + 1;
				values[entries] = (double)time / scale;
			}
			glp_set_mat_col(lp, column, entries, rows, values);
		}
	}
	glp_init_smcp(&simplex);
	simplex.msg_lev = GLP_MSG_OFF;
	simplex.tol_bnd = simplex.tol_dj = 1e-10;
	assert_int_equal(glp_simplex(lp, &simplex), 0);
	assert_int_equal(glp_get_status(lp), GLP_OPT);
	value = glp_get_obj_val(lp);
	glp_delete_prob(lp);
	return value / weight_total(n);
}

static void test_lp(void **state)
{
	static const struct shape shapes[] = {{3, 3, 4}, {10, 8, 50}, {40, 8, 300}};

	(void)state;
	for (int c = 0; c < 1500; c++) {
		/* Times of all magnitudes at once (kind 3) are beyond the simplex's tolerances. */
		int n = random_tasks(c % 6 == 3 ? c + 1 : c, &shapes[c % 3]);
		struct joint_plan joint;
		double lp = glpk_lp(n);

		assert_int_equal(joint_plan(tasks, n, &lp_only, &joint, plans), 0);
		if (fabs(joint.bound - lp) > 1e-9 * lp)
			fail_msg("case %d, %d tasks: bound %.15f, the simplex %.15f", c, n, joint.bound, lp);
	}
}

/* --- one task --- */

static void test_one_task(void **state)
{
	static const struct shape shape = {1, 8, 200};
	static const struct joint_limits limits = {.gap = 0, .time_ns = 200000000};
	struct planner *planner;
	int cases = 1000, proved = 0;

	(void)state;
	assert_int_equal(planner_new(&planner), 0);
	for (int c = 0; c < cases; c++) {
		struct joint_plan joint;
		struct plan alone;

		/* Where accuracy is in proportion to time the planner need not find the optimum. */
		random_tasks(c % 7 ? c : c + 1, &shape);
		assert_int_equal(planner_plan(planner, &tasks[0].request, &alone), 0);
		assert_int_equal(joint_plan(tasks, 1, &limits, &joint, plans), 0);
		check(1, &joint);
		proved += joint.gap <= 1e-8;
		if (joint.value > alone.p_eff + 1e-8 || joint.bound < alone.p_eff - 1e-8 ||
		    (joint.gap <= 1e-8 && joint.value < alone.p_eff - 1e-8))
			fail_msg("case %d: %s %.12f, planner %s %.12f", c, plan_method_name(joint.method),
				 joint.value, plan_method_name(alone.method), alone.p_eff);
		assert_true(fabs(plans[0].p_eff - joint.value) < 1e-12);
	}
	planner_free(planner);
	print_message("%d cases, %d proved\n", cases, proved);
	assert_true(proved > cases * 98 / 100);
}

/* --- GLPK --- */

/* Accuracy in proportion to time and many mini-batches: labels do not prove anything. */
static int hard_tasks(int batches)
{
	double work = 0;

	for (int t = 0; t < 2; t++) {
		struct plan_request *r = &tasks[t].request;

		*r = (struct plan_request){.n_submodels = 3, .submodels = submodels[t], .batch = 1};
		r->instances = batches;
		tasks[t].weight = 1;
		for (int i = 0; i < 3; i++) {
			submodels[t][i] = (struct plan_submodel){.time_ns = 5000000 + below(95000000)};
			submodels[t][i].accuracy = 1e-8 * (double)submodels[t][i].time_ns;
			work += (double)submodels[t][i].time_ns / 3 * batches;
		}
		r->deadline_ns = (int64_t)((0.5 + 0.5 * erand48(plans_seed)) * work);
	}
	qsort(tasks, 2, sizeof(*tasks), by_deadline);
	return 2;
}

static void test_hard(void **state)
{
	(void)state;
	for (int c = 0; c < 30; c++) {
		int n = hard_tasks(13 + (int)below(3));
		struct joint_plan joint;
		double optimum = brute_force(n);

		assert_int_equal(joint_plan(tasks, n, &exact, &joint, plans), 0);
		check(n, &joint);
		if (fabs(joint.value - optimum) > 1e-8 || joint.gap > 1e-8)
			fail_msg("case %d: %s %.12f, gap %g, brute force %.12f", c,
				 plan_method_name(joint.method), joint.value, joint.gap, optimum);
	}
}

/* As in plan.c: GLPK out of memory would abort the process. */
static void test_glpk_failure(void **state)
{
	struct joint_plan joint;
	size_t used = 0;
	int n;

	(void)state;
	do { /* one that GLPK is needed for */
		n = hard_tasks(20);
		glp_mem_limit(1);
		for (used = 0; used < (1 << 20) - 8192;) {
			assert_non_null(glp_alloc(1, 4096));
			glp_mem_usage(NULL, NULL, &used, NULL);
		}
		assert_int_equal(joint_plan(tasks, n, &exact, &joint, plans), 0);
		check(n, &joint);
		glp_free_env();
	} while (joint.gap < 1e-8);
	assert_int_equal(joint_plan(tasks, n, &exact, &joint, plans), 0);
	check(n, &joint);
	assert_true(joint.gap < 1e-8);
}

/* --- at large --- */

static void test_large(void **state)
{
	static const struct shape shapes[] = {
		{64, 8, 100}, {64, 24, 2}, {JOINT_TASKS, 8, 8}, {MAX_TASKS, 4, 20}};
	static const struct joint_limits patient = {.gap = 0.005, .time_ns = INT64_C(20000000000)};

	(void)state;
	for (int c = 0; c < 400; c++) {
		int n = random_tasks(c, &shapes[c % 4]);
		struct joint_plan joint, quick;

		assert_int_equal(joint_plan(tasks, n, &lp_only, &quick, plans), 0);
		check(n, &quick);
		assert_int_equal(joint_plan(tasks, n, &patient, &joint, plans), 0);
		check(n, &joint);
		assert_true(joint.value >= quick.value && joint.bound <= quick.bound);
		if (n <= JOINT_TASKS && joint.gap > 0.005 * (1 + 1e-9))
			fail_msg("case %d: %d tasks, gap %g", c, n, joint.gap);
	}
}

/* --- ends --- */

static void two_tasks(void)
{
	for (int t = 0; t < 2; t++) {
		submodels[t][0] = (struct plan_submodel){0.9, 10, 0};
		submodels[t][1] = (struct plan_submodel){0.5, 4, 0};
		tasks[t] = (struct joint_task){
			{.n_submodels = 2, .submodels = submodels[t], .instances = 4, .batch = 1}, 1};
		tasks[t].request.deadline_ns = 40 * (t + 1);
	}
}

static void test_weights(void **state)
{
	struct joint_plan joint;

	(void)state;
	two_tasks();
	assert_int_equal(joint_plan(tasks, 2, &exact, &joint, plans), 0);
	check(2, &joint);
	assert_true(joint.value == 0.9 && joint.gap == 0);
	assert_true(plans[0].n[0] == 4 && plans[1].n[0] == 4);

	/* 56 ns for both: who is worth more is answered by the larger one. */
	for (int heavy = 0; heavy < 2; heavy++) {
		two_tasks();
		tasks[0].request.deadline_ns = tasks[1].request.deadline_ns = 56;
		tasks[heavy].weight = 3;
		assert_int_equal(joint_plan(tasks, 2, &exact, &joint, plans), 0);
		check(2, &joint);
		assert_int_equal(plans[heavy].n[0], 4);
		assert_int_equal(plans[1 - heavy].n[1], 4);
		assert_true(fabs(joint.value - (3 * 4 * 0.9 + 4 * 0.5) / 16) < 1e-12);
		/* The unit of weights does not matter. */
		tasks[0].weight *= 1e-9;
		tasks[1].weight *= 1e-9;
		assert_int_equal(joint_plan(tasks, 2, &exact, &joint, plans), 0);
		check(2, &joint);
		assert_int_equal(plans[heavy].n[0], 4);
		assert_true(fabs(joint.value - (3 * 4 * 0.9 + 4 * 0.5) / 16) < 1e-12);
	}
	/* A task that is in a hurry takes no more than what leaves the later ones their best. */
	two_tasks();
	tasks[1].request.deadline_ns = 56;
	tasks[1].weight = 3;
	assert_int_equal(joint_plan(tasks, 2, &exact, &joint, plans), 0);
	check(2, &joint);
	assert_true(plans[0].n[1] == 4 && plans[1].n[0] == 4);
	/* What is worth nothing is an answer all the same. */
	two_tasks();
	submodels[0][0] = (struct plan_submodel){0, 6, 0};
	submodels[0][1] = (struct plan_submodel){0, 8, 0};
	tasks[1].request.deadline_ns = 60;
	assert_int_equal(joint_plan(tasks, 2, &exact, &joint, plans), 0);
	check(2, &joint);
	assert_true(plans[0].n[0] == 3 && plans[0].dropped == 1 && plans[1].n[0] == 4);
}

static void test_ends(void **state)
{
	struct joint_plan joint;

	(void)state;
	/* 2^60 ns each, to the last nanosecond. */
	two_tasks();
	for (int t = 0; t < 2; t++) {
		submodels[t][0] = (struct plan_submodel){0.9, INT64_C(1) << 60, INT64_C(1) << 60};
		submodels[t][1] = (struct plan_submodel){0.5, 1, 1};
		tasks[t].request.instances = INT64_C(1000000000000);
		tasks[t].request.deadline_ns = INT64_MAX;
	}
	assert_int_equal(joint_plan(tasks, 2, &joint_default, &joint, plans), 0);
	check(2, &joint);
	assert_int_equal(plans[0].n[0] + plans[1].n[0], 7);
	assert_int_equal(plans[0].dropped + plans[1].dropped, 0);
	submodels[0][1].time_ns = submodels[1][1].time_ns = (INT64_C(1) << 60) - 1;
	assert_int_equal(joint_plan(tasks, 2, &joint_default, &joint, plans), 0);
	check(2, &joint);

	/* All too late, and one of two. */
	two_tasks();
	tasks[0].request.deadline_ns = INT64_MIN;
	assert_int_equal(joint_plan(tasks, 2, &exact, &joint, plans), 0);
	check(2, &joint);
	assert_true(plans[0].dropped == 4 && plans[1].n[0] == 4);
	tasks[1].request.deadline_ns = 0;
	assert_int_equal(joint_plan(tasks, 2, &exact, &joint, plans), 0);
	check(2, &joint);
	assert_true(joint.value == 0 && joint.bound == 0 && joint.gap == 0);
	assert_true(plans[0].dropped == 4 && plans[1].dropped == 4);
}

static void refused(int n, const struct joint_limits *limits)
{
	struct joint_plan joint, before;
	struct plan plan;

	memset(plans, 7, sizeof(plans));
	memset(&plan, 7, sizeof(plan));
	memset(&joint, 7, sizeof(joint));
	before = joint;
	assert_int_equal(joint_plan(tasks, n, limits, &joint, plans), -EINVAL);
	assert_memory_equal(&joint, &before, sizeof(joint));
	for (int t = 0; t < 2; t++)
		assert_memory_equal(&plans[t], &plan, sizeof(plan));
}

#define REFUSED(change)                     \
	do {                                \
		two_tasks();                \
		change;                     \
		refused(2, &joint_default); \
	} while (0)

static void test_hostile(void **state)
{
	static const struct joint_limits wrong[] = {{-0.1, 1}, {1.1, 1}, {NAN, 1}, {0, -1}};

	(void)state;
	two_tasks();
	refused(0, &joint_default);
	refused(-1, &joint_default);
	for (int i = 0; i < 4; i++)
		refused(2, &wrong[i]);
	REFUSED(tasks[0].request.deadline_ns = 81);
	REFUSED(tasks[1].request.deadline_ns = INT64_MIN);
	REFUSED(tasks[1].weight = 0);
	REFUSED(tasks[1].weight = -1);
	REFUSED(tasks[1].weight = NAN);
	REFUSED(tasks[1].weight = INFINITY);
	REFUSED(tasks[1].request.instances = 0);
	REFUSED(tasks[1].request.instances = -4);
	REFUSED(tasks[1].request.instances = INT64_MAX);
	REFUSED(tasks[1].request.batch = 0);
	REFUSED(tasks[1].request.batch = -1);
	REFUSED(tasks[1].request.n_submodels = 0);
	REFUSED(tasks[1].request.n_submodels = MAX_SUBMODELS + 1);
	REFUSED(submodels[1][1].time_ns = 0);
	REFUSED(submodels[1][1].time_ns = -4);
	REFUSED(submodels[1][1].time_ns = (INT64_C(1) << 60) + 1);
	REFUSED(submodels[1][1].time_one_ns = -1);
	REFUSED(submodels[1][1].time_one_ns = INT64_MAX);
	REFUSED(submodels[1][1].accuracy = 1.1);
	REFUSED(submodels[1][1].accuracy = NAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_brute_force),  cmocka_unit_test(test_lp),
		cmocka_unit_test(test_one_task),     cmocka_unit_test(test_hard),
		cmocka_unit_test(test_glpk_failure), cmocka_unit_test(test_large),
		cmocka_unit_test(test_weights),      cmocka_unit_test(test_ends),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
