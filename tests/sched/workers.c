/*
 * Several workers on one queue: effective accuracy against the bound of what all of them can do, equal ones, unequal ones and ones that are slower
 * than they were measured; one that dies, one that can't load, ones that measured other sub-models; and what users see of them.
 */
#include "tests/support/fake_host.h"
#include "tests/support/simulated.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The paper's Table 3; a worker that died is there again after a second. */
#define PROFILE "\"profile\":{\"accuracy\":[79.37,71.88,70.94,65.12],\"time_ms\":[45.12,34.56,22.72,15.68]}"
#define MODEL                                                             \
	"{\"classes\":1,\"load_ms\":1000,\"submodels\":["                 \
	"{\"slice\":1,\"accuracy\":0.7937,\"ms\":45.12,\"one_ms\":4},"    \
	"{\"slice\":0.75,\"accuracy\":0.7188,\"ms\":34.56,\"one_ms\":3}," \
	"{\"slice\":0.5,\"accuracy\":0.7094,\"ms\":22.72,\"one_ms\":2},"  \
	"{\"slice\":0.25,\"accuracy\":0.6512,\"ms\":15.68,\"one_ms\":1.5}]}"
#define SPEC "{\"model\":\"m\",\"batch\":32,\"explain\":[\"gradcam\"]}"
/* The first task is there so that the publisher's time is known. */
#define WARM "\"tasks\":[{\"instances\":640,\"deadline\":\"8s\"},"
#define MOST 2 /* endpoints of a trace */

static struct world w;

/* --- on a trace --- */

static void play(const char *json, const char *policy, int run, struct outcome ret[MOST])
{
	simulated(json, policy, run, ret, MOST);
}

static double share_of_bound(const struct outcome *o)
{
	return o->gained / o->bound;
}

/* Loads from 0.2 to 3 times what all can do on the smallest slice. */
static void assert_near_bound(const char *workers, double capacity, double noise, double least, double late)
{
	static const double loads[] = {0.2, 0.4, 0.7, 1, 1.5, 3};
	struct outcome o[MOST];
	char json[512];

	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i += SIMULATED_EACH(3)) {
		snprintf(json, sizeof(json),
			 "{" PROFILE
			 ",\"deadline\":\"4s\",\"workers\":%s,\"noise\":%g,\"seed\":3,\"instances\":%d}",
			 workers, noise, (int)(loads[i] * capacity * 32 * 4 / 0.01568));
		play(json, "optimal", 0, o);
		if (share_of_bound(o) < least || (double)o->late > late * (double)o->instances)
			fail_msg("workers %s, load %g: %.4f of the bound, %d late", workers, loads[i],
				 share_of_bound(o), (int)o->late);
		/* The first plan says what comes of it. */
		if (noise == 0)
			assert_float_equal(o->planned / o->gained, 1, 0.006);
	}
}

static void test_equal(void **state)
{
	(void)state;
	assert_near_bound("2", 2, 0.05, 0.99, 0.001);
	assert_near_bound("2", 2, 0, 0.996, 0);
	assert_near_bound("4", 4, 0.05, 0.99, 0.001);
}

static void test_unequal(void **state)
{
	(void)state;
	assert_near_bound("[1,0.5]", 1.5, 0.05, 0.99, 0.001);
	assert_near_bound("[1,0.5]", 1.5, 0, 0.996, 0);
	assert_near_bound("[0.2,1,0.33]", 1.53, 0, 0.995, 0);
}

/* One is half as fast as it was measured, and nobody knows. */
static void test_slower_than_measured(void **state)
{
	(void)state;
	assert_near_bound("[1,1],\"real_workers\":[1,0.5]", 1.5, 0.05, 0.985, 0.006);
	assert_near_bound("[1,0.5],\"real_workers\":[1,1]", 2, 0.05, 0.975, 0.001);
}

/* Two mini-batches with time for one of the best: side by side; and a single one where it is done in time. */
static void test_few(void **state)
{
	struct outcome o[MOST];

	(void)state;
	play("{" PROFILE ",\"workers\":2," WARM "{\"at\":\"9s\",\"deadline\":\"50ms\",\"instances\":64}]}",
	     "optimal", 0, o);
	assert_float_equal(o->gained, (640 + 64) * 0.7937, 1e-6);
	play("{" PROFILE ",\"workers\":[0.5,1]," WARM
	     "{\"at\":\"9s\",\"deadline\":\"50ms\",\"instances\":32}]}",
	     "optimal", 0, o);
	assert_float_equal(o->gained, (640 + 32) * 0.7937, 1e-6);
	/* Without a hurry as soon as can be: 30 on the fast one, 10 on the slow one. */
	play("{" PROFILE ",\"deadline\":\"100s\",\"workers\":[1,0.3333],\"instances\":1280}", "optimal", 0,
	     o);
	assert_float_equal(o->gained, 1280 * 0.7937, 1e-6);
	assert_true(o->last_ns <= 31 * 45.2 * 1e6);
}

/* Poisson arrivals of tasks of one mini-batch and less, at more than one worker can do. */
static void test_small_tasks(void **state)
{
	struct outcome o[MOST], one[MOST];

	(void)state;
	play("{" PROFILE ",\"deadline\":\"300ms\",\"workers\":2,\"instances\":20,"
	     "\"arrivals\":{\"kind\":\"poisson\",\"rate\":45,\"duration\":\"30s\"}}",
	     "optimal", 0, o);
	assert_true(o->gained > 0.74 * (double)o->instances);
	assert_true(o->late + o->dropped < o->instances / 500);
	play("{" PROFILE ",\"deadline\":\"300ms\",\"workers\":1,\"instances\":20,"
	     "\"arrivals\":{\"kind\":\"poisson\",\"rate\":45,\"duration\":\"30s\"}}",
	     "optimal", 0, one);
	assert_true(one->gained < 0.97 * o->gained);
}

static void test_weights(void **state)
{
	struct outcome o[MOST];
	double part;

	(void)state;
	play("{\"profile\":{\"accuracy\":[90,80,70],\"time_ms\":[60,35,20]},\"batch\":2,\"deadline\":\"1s\","
	     "\"workers\":2,"
	     "\"instances\":20,\"arrivals\":{\"kind\":\"uniform\",\"rate\":20,\"duration\":\"60s\"},"
	     "\"until\":\"60s\",\"endpoints\":[{\"name\":\"a\",\"weight\":3},{\"name\":\"b\",\"deadline\":"
	     "\"2s\"}]}",
	     "optimal", 0, o);
	part = (double)o[0].device_ns / (double)(o[0].device_ns + o[1].device_ns);
	assert_float_equal(part, 0.75, 0.0375);
	/* All of the time is used: 10 of each 20 instances on the fastest of both. */
	assert_float_equal((double)(o[0].device_ns + o[1].device_ns), 2 * 60e9, 2 * 60e9 * 0.02);
}

#define CASCADE                                                                                     \
	"{\"profile\":{\"accuracy\":[95,80],\"time_ms\":[20,2],\"one_ms\":[2,0.2],"                 \
	"\"sure\":[null,[83,87,91,95,95.5,96,96.5,97,97.5]],"                                       \
	"\"then\":[null,[[84,87,90,93,93.3,93.6,94,94.3,94.5],null]]},\"batch\":10,\"noise\":0.05," \
	"\"workers\":2,\"publish_us\":50," WARM "{\"at\":\"10s\",\"instances\":1000,\"deadline\":\"%s\"}]}"

/* As tests/sched/simulate.c has it of one worker in twice the time, and a reserve more: each worker has one before the deadline. */
static void test_cascade(void **state)
{
	static const struct {
		const char *deadline;
		double least, more; /* of 1; than `optimal` */
	} cases[] = {{"110ms", 0.79, -0.001},
		     {"210ms", 0.84, 0.02},
		     {"350ms", 0.92, 0.06},
		     {"1500ms", 0.949, -0.001}};
	struct outcome with[MOST], without[MOST];
	char json[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		double p, q;

		snprintf(json, sizeof(json), CASCADE, cases[i].deadline);
		play(json, "cascade", 0, with);
		play(json, "optimal", 0, without);
		p = (with->gained - 640 * 0.95) / 1000;
		q = (without->gained - 640 * 0.95) / 1000;
		if (p < cases[i].least || p - q < cases[i].more || with->late > 10)
			fail_msg("%s: %.4f, %.4f without, %d late", cases[i].deadline, p, q, (int)with->late);
	}
}

static void test_policies(void **state)
{
	static const char *const names[] = {"algorithm2", "best-single", "full-drop", "smallest", "oracle"};
	struct outcome o[MOST], best[MOST];

	(void)state;
	play("{" PROFILE ",\"deadline\":\"8s\",\"workers\":2,\"instances\":19200}", "optimal", 0, best);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		play("{" PROFILE ",\"deadline\":\"8s\",\"workers\":2,\"instances\":19200}", names[i], 0, o);
		assert_true(o->gained <= best->gained * 1.001);
		if (strcmp(names[i], "full-drop") != 0)
			assert_true(o->gained > 0.89 * best->gained);
		else /* 354 of 600 mini-batches */
			assert_float_equal(o->gained / 19200, 0.7937 * 354 / 600, 0.004);
	}
}

/* --- in a world --- */

static int setup(void **state)
{
	(void)state;
	world_init_workers(&w, MODEL, SPEC, 2);
	world_run(&w, 1500);
	world_put(&w, "warm", "0"); /* the first publication is measured: it takes no time here */
	world_run(&w, 1000);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(w.host.key_faults, 0);
	world_release(&w);
	return 0;
}

static void submit(const char *name, int n, const char *deadline)
{
	world_submit(&w, "app", name, n, deadline, "0");
}

static double task_number(const char *name, const char *key)
{
	return world_task_number(&w, name, key);
}

static void assert_answered_once(const char *name, int n)
{
	char path[64];

	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%06d", name, i);
		if (!world_answered_once(&w, path))
			fail_msg("%s", path);
	}
}

static struct endpoint *app(void)
{
	return endpoint_get(w.s, "app", false);
}

/* Twice as many of Table 3's rows in the same time, planned and real. */
static void test_table3(void **state)
{
	static const struct {
		int n;
		double p_eff;
	} rows[] = {{12800, 77.43}, {19200, 72.41}, {28800, 66.85}, {36032, 58.99}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char name[16];

		snprintf(name, sizeof(name), "t%zu", i);
		submit(name, rows[i].n, "8s");
		world_run(&w, 60000);
		assert_float_equal(task_number(name, "planned_effective_accuracy"), rows[i].p_eff, 0.02);
		assert_float_equal(task_number(name, "effective_accuracy"), rows[i].p_eff, 0.2);
		assert_float_equal(task_number(name, "admitted"), task_number(name, "ok"), 0.01 * rows[i].n);
		assert_true(task_number(name, "late") == 0);
	}
}

/* One dies after 3 s and is away for one: 15 s of work in place of 16, nothing lost, nothing twice. */
static void test_death(void **state)
{
	const int n = 16000;
	double planned, real;

	(void)state;
	submit("b", n, "8s");
	world_run(&w, 3000);
	executor_null_kill(w.s->device[1].ex);
	world_run(&w, 500);
	assert_false(app()->on[1].ready);
	assert_true(app()->ready && app()->on[0].ready);
	assert_int_equal(w.s->device[1].n_out, 0);
	world_run(&w, 1000);
	assert_true(app()->on[1].ready && w.s->device[1].n_out == PIPELINE);
	world_run(&w, 30000);
	planned = task_number("b", "planned_effective_accuracy");
	real = task_number("b", "effective_accuracy");
	assert_float_equal(planned, 74.42, 0.05); /* as 8,000 of one worker */
	assert_true(real < planned - 0.2 && real > planned - 2);
	assert_true(task_number("b", "ok") == n);
	assert_answered_once("b", n);
	assert_true(world_stat(&w, "worker_deaths") == 1);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	assert_non_null(strstr(fake_content(&w.host, "events"), "\"worker 2\""));
}

/* Both die, again and again. */
static void test_deaths(void **state)
{
	(void)state;
	submit("b", 3200, "20s");
	for (int i = 0; i < 6; i++) {
		world_run(&w, 800);
		executor_null_kill(w.s->device[i % 2].ex);
	}
	world_run(&w, 30000);
	assert_true(task_number("b", "ok") == 3200);
	assert_answered_once("b", 3200);
}

/* What is as long as everything else on the other worker: it waits for nobody, its mini-batches go to the other one. */
static void test_hangs(void **state)
{
	(void)state;
	executor_null_set_factor(w.s->device[1].ex, 1000); /* 45 s a mini-batch */
	submit("b", 3200, "4s");
	world_run(&w, 5000);
	assert_true(isnan(task_number("b", "ok")));
	world_run(&w, 200000);
	assert_in_range((int)task_number("b", "ok"), 3200 - PIPELINE * 32, 3200);
	assert_answered_once("b", 3200);
}

/* A worker that can't have the model leaves it to the other one. */
static void test_not_loaded(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	err_set(&err, ERR_NO_MEMORY, "weights");
	executor_null_kill(w.s->device[1].ex);
	world_run(&w, 1);
	endpoint_loaded(&w.s->device[1], app()->number, -ENOMEM, &err, NULL, 0, NULL, 0);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	submit("b", 320, "400ms");
	world_run(&w, 900);
	assert_true(task_number("b", "ok") == 320);
	assert_int_equal(app()->on[1].minibatches, 0);
	/* Where none has it, it is failed. */
	executor_null_kill(w.s->device[0].ex);
	executor_null_kill(w.s->device[1].ex);
	world_run(&w, 1);
	endpoint_loaded(&w.s->device[1], app()->number, -ENOMEM, &err, NULL, 0, NULL, 0);
	world_run(&w, 10);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "failed\n");
}

/* Sub-models are known by what they are, not by their numbers; what a worker hasn't it does not run. */
static void test_other_submodels(void **state)
{
	const struct submodel other[] = {
		{.slice = 0.25f, .precision = "f32", .accuracy = 0.6512, .time_ns = 1, .time_one_ns = 1},
		{.slice = 0.5f, .precision = "int8", .accuracy = 0.7, .time_ns = 2, .time_one_ns = 1},
		{.slice = 1, .precision = "f32", .accuracy = 0.7937, .time_ns = 3, .time_one_ns = 1},
	};
	const struct served *on = &app()->on[1];

	(void)state;
	executor_null_kill(w.s->device[1].ex);
	world_run(&w, 1);
	endpoint_loaded(&w.s->device[1], app()->number, 0, NULL, other, 3, (const char *const[]){"0"}, 1);
	assert_true(on->ready);
	assert_int_equal(app()->n_submodels, 4);
	assert_int_equal(on->number[0], 2);
	assert_int_equal(on->number[1], -1);
	assert_int_equal(on->number[2], -1);
	assert_int_equal(on->number[3], 0);
	assert_int_equal(profile_submodels(&on->profile)[0].time_ns, 3);
	assert_true(profile_submodels(&on->profile)[1].accuracy == 0);
	assert_int_equal(profile_submodels(&on->profile)[3].time_ns, 1);
}

static void test_pictures(void **state)
{
	char path[64];

	(void)state;
	submit("b", 200, NULL);
	world_run(&w, 60000);
	for (int i = 0; i < 200; i++) {
		snprintf(path, sizeof(path), "infer/app/out/b/%06d.gradcam.png", i);
		assert_non_null(fake_content(&w.host, path));
	}
	assert_true(w.s->device[0].pictured >= 0 && w.s->device[1].pictured >= 0);
}

/* Reload and restart in mid-work. */
static void test_reload(void **state)
{
	(void)state;
	submit("b", 3200, "20s");
	world_run(&w, 500);
	sched_post_endpoint_ctl(w.s, "app", "reload");
	world_run(&w, 2000);
	assert_true(app()->on[0].ready && app()->on[1].ready);
	world_crash(&w);
	world_restart(&w);
	world_run(&w, 30000);
	assert_true(task_number("b", "ok") == 3200);
}

static void test_seen(void **state)
{
	const char *text;
	int64_t minibatches;

	(void)state;
	submit("b", 6400, "4s");
	world_run(&w, 12000);
	minibatches = (int64_t)(app()->on[0].minibatches + app()->on[1].minibatches);
	assert_int_equal(minibatches, 201); /* and the warm one */
	assert_in_range((int)app()->on[0].minibatches, 95, 106);
	text = fake_content(&w.host, "infer/app/timeline.svg");
	assert_non_null(strstr(text, ">worker 1<"));
	assert_non_null(strstr(text, ">worker 2<"));
	assert_null(strstr(text, ">worker 3<"));
	text = fake_content(&w.host, "metrics");
	assert_non_null(strstr(text, "inferfs_worker_ready{endpoint=\"app\",worker=\"1\"} 1\n"
				     "inferfs_worker_ready{endpoint=\"app\",worker=\"2\"} 1\n"));
	assert_non_null(strstr(text, "inferfs_worker_minibatches_total{endpoint=\"app\",worker=\"2\"} "));
	assert_non_null(strstr(fake_content(&w.host, "infer/app/stats.json"),
			       "\"workers\":\t[{\n\t\t\t\"ready\":\ttrue"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_unequal),
		cmocka_unit_test(test_slower_than_measured),
		cmocka_unit_test(test_few),
		cmocka_unit_test(test_small_tasks),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_cascade),
		cmocka_unit_test(test_policies),
		T(test_table3),
		T(test_death),
		T(test_deaths),
		T(test_hangs),
		T(test_not_loaded),
		T(test_other_submodels),
		T(test_pictures),
		T(test_reload),
		T(test_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
