/*
 * What the dispatcher makes of plans: the paper's Table 3 to the digit, a device that slows down, overload,
 * several tasks at once, slow publication, a worker that dies, a hundred thousand instances.
 */
#include "tests/support/fake_host.h"
#include "tests/support/table3.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SPEC "{\"model\":\"m\",\"batch\":32}"

static struct world w;

static int setup(void **state)
{
	(void)state;
	world_init(&w, TABLE3, SPEC);
	world_put(&w, "warm", "1"); /* the first publication is measured: it takes no time here */
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

/* A batch that is renamed into in/ with its deadline: submitted at once. */
static void submit(const char *name, int n, const char *deadline, const char *content)
{
	world_submit(&w, "app", name, n, deadline, content);
}

static double task_number(const char *name, const char *key)
{
	return world_task_number(&w, name, key);
}

/*
 * Each instance has one answer; one that says ok was visible in time, one that says late was not (or not
 * surely). Returns Σ of those that say so.
 */
static int count_status(const char *name, int n, const char *status, int64_t submitted_ms, double deadline_ms)
{
	int count = 0;

	for (int i = 0; i < n; i++) {
		char path[64], out[96];
		const char *is;

		snprintf(path, sizeof(path), "%s/%06d", name, i);
		snprintf(out, sizeof(out), "infer/app/out/%s.json", path);
		is = world_status(&w, path);
		assert_non_null(is);
		if (strcmp(is, "ok") == 0 && deadline_ms > 0)
			assert_true((double)(fake_visible_at(&w.host, out) - submitted_ms * NS_PER_MS) /
					    1e6 <=
				    deadline_ms);
		count += strcmp(is, status) == 0;
	}
	return count;
}

static void test_table3(void **state)
{
	static const struct {
		int n;
		double p_eff;
	} rows[] = {{6400, 77.43},  {8000, 74.42},  {9600, 72.41},
		    {12800, 68.68}, {14400, 66.85}, {18016, 58.99}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char name[16];
		int64_t start = world_ms(&w);

		snprintf(name, sizeof(name), "t%zu", i);
		submit(name, rows[i].n, "8s", "1");
		world_run(&w, 10000);
		assert_true(task_number(name, "instances") == rows[i].n);
		assert_true(fabs(task_number(name, "planned_effective_accuracy") - rows[i].p_eff) <= 0.01);
		/* Exact times: what comes out is what was planned. */
		assert_true(fabs(task_number(name, "effective_accuracy") -
				 task_number(name, "planned_effective_accuracy")) < 1e-3);
		assert_true(task_number(name, "late") == 0);
		assert_int_equal(count_status(name, rows[i].n, "dropped", start, 8000),
				 (int)task_number(name, "dropped"));
	}
	assert_non_null(strstr(fake_content(&w.host, "infer/app/schedule.csv"), "app-000002,6400,8000,"));
}

/* From 3 s on everything takes 1.5 times as long: narrower slices, nothing late that says ok. */
static void test_slow_down(void **state)
{
	int64_t start = world_ms(&w);
	double planned, real, wide;

	(void)state;
	submit("b", 6400, "8s", "1");
	world_run(&w, 3000);
	executor_null_set_factor(w.s->device[0].ex, 1.5);
	world_run(&w, 10000);
	planned = task_number("b", "planned_effective_accuracy");
	real = task_number("b", "effective_accuracy");
	assert_true(fabs(planned - 77.43) <= 0.01);
	/* What a planner that knew it would have got: 3 s at speed, 5 s at 2/3 of it: 72 to 75 %. */
	assert_true(real > 71 && real < 76);
	assert_true(task_number("b", "late") <= 64); /* at most what was at the executor at the end */
	assert_int_equal(count_status("b", 6400, "ok", start, 8000), (int)task_number("b", "ok"));
	/* Had the plan been followed, a third of the remaining 5 s of work would have been left over. */
	assert_true(task_number("b", "dropped") < 200);
	wide = task_number("b", "ok");
	assert_true(wide > 6100);
}

static void test_speed_up(void **state)
{
	(void)state;
	submit("b", 9600, "8s", "1");
	world_run(&w, 1000);
	executor_null_set_factor(w.s->device[0].ex, 0.6);
	world_run(&w, 10000);
	assert_true(task_number("b", "effective_accuracy") >
		    task_number("b", "planned_effective_accuracy") + 3);
	assert_true(task_number("b", "late") == 0 && task_number("b", "dropped") == 0);
}

static void test_overload(void **state)
{
	int64_t start = world_ms(&w);

	(void)state;
	submit("b", 3200, "400ms", "1");
	world_run(&w, 2000);
	/* 24 mini-batches on the fastest and one on the 70.94 % one: 399.04 ms. */
	assert_true(task_number("b", "ok") == 800);
	assert_true(task_number("b", "dropped") == 2400);
	assert_int_equal(count_status("b", 3200, "dropped", start, 400), 2400);
	assert_true(fabs(task_number("b", "effective_accuracy") - (24 * 65.12 + 70.94) / 100) < 1e-3);
	/* Nothing fits at all. */
	submit("c", 10, "10ms", "1");
	world_run(&w, 100);
	assert_true(task_number("c", "dropped") == 10);
	assert_non_null(strstr(world_text(&w, "out/c/000000.json", "error"), "not enough time"));
}

/* The earliest deadline first; the one without a deadline fills what is free. */
static void test_several(void **state)
{
	(void)state;
	submit("free", 640, NULL, "1");
	world_run(&w, 100);
	submit("late", 640, "20s", "1");
	submit("soon", 320, "400ms", "1");
	world_run(&w, 30000);
	assert_true(task_number("soon", "ok") == 320);
	assert_true(task_number("late", "ok") == 640);
	assert_true(task_number("free", "ok") == 640);
	assert_true(task_number("soon", "effective_accuracy") > 70);
	assert_true(fabs(task_number("late", "effective_accuracy") - 79.37) < 1e-3);
	assert_true(fabs(task_number("free", "effective_accuracy") - 79.37) < 1e-3);
	assert_true(fake_visible_at(&w.host, "infer/app/out/soon/task.json") <
		    fake_visible_at(&w.host, "infer/app/out/late/task.json"));
	assert_true(fake_visible_at(&w.host, "infer/app/out/late/task.json") <
		    fake_visible_at(&w.host, "infer/app/out/free/task.json"));
}

/* Two tasks that don't both fit at full accuracy share what there is, instead of the first taking it all. */
static void test_bottleneck(void **state)
{
	(void)state;
	submit("a", 3200, "4s", "1"); /* alone it would take all of its 4 s */
	submit("b", 3200, "4500ms", "1");
	world_run(&w, 10000);
	assert_true(task_number("a", "ok") + task_number("b", "ok") == 6400);
	assert_true(task_number("a", "effective_accuracy") > 68);
	assert_true(task_number("b", "effective_accuracy") > 68);
}

/* Single files with deadlines close to each other share mini-batches. */
static void test_shared_minibatches(void **state)
{
	static const char spec[] = "{\"model\":\"m\",\"batch\":32,\"settle\":0,\"deadline\":\"500ms\"}";
	int ok = 0;

	(void)state;
	sched_post_endpoint_spec(w.s, "app", spec, strlen(spec));
	world_run(&w, 10);
	for (int i = 0; i < 640; i++) { /* 640/s: 20 a mini-batch of the fastest and more */
		char path[32];

		snprintf(path, sizeof(path), "%04d.png", i);
		world_put(&w, path, "1");
		if (i % 2)
			world_run(&w, 3);
	}
	world_run(&w, 2000);
	for (int i = 0; i < 640; i++) {
		char path[32];

		snprintf(path, sizeof(path), "%04d.png", i);
		ok += strcmp(world_status(&w, path), "ok") == 0;
	}
	assert_int_equal(ok, 640);
}

/* Publication takes 2 ms each, 64 ms a mini-batch: longer than computing one. */
static void test_slow_publication(void **state)
{
	int64_t start;

	(void)state;
	w.host.publish_ns = 2 * NS_PER_MS;
	submit("warm2", 320, NULL, "1");
	world_run(&w, 3000);
	start = world_ms(&w);
	submit("b", 640, "1s", "1");
	world_run(&w, 5000);
	assert_int_equal(count_status("b", 640, "late", start, 1000), (int)task_number("b", "late"));
	/* 500 publications fit into a second. */
	assert_true(task_number("b", "ok") >= 416 && task_number("b", "ok") <= 500);
	assert_true(task_number("b", "effective_accuracy") >=
		    0.97 * task_number("b", "planned_effective_accuracy"));
	assert_true(task_number("b", "late") <= 32);
}

/* One publication hangs for seconds, in the middle of a mini-batch's: what comes afterwards isn't judged by that. */
static void test_stalled_publication(void **state)
{
	char name[16];
	int64_t start;

	(void)state;
	w.host.publish_ns = 150 * NS_PER_MS / 1000;
	submit("warm2", 320, NULL, "1");
	world_run(&w, 3000);
	w.host.slow_at = w.host.n_published + 10;
	w.host.slow_ns = 3000 * NS_PER_MS;
	submit("stalled", 64, "1s", "1");
	world_run(&w, 5000);
	assert_int_equal((int)task_number("stalled", "ok") + (int)task_number("stalled", "late") +
				 (int)task_number("stalled", "dropped"),
			 64);
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "b%d", i);
		start = world_ms(&w);
		submit(name, 64, "250ms", "1");
		world_run(&w, 1000);
		assert_int_equal(count_status(name, 64, "ok", start, 250), 64);
	}
}

/* It hung, whatever it was for, for so long that all seemed hopeless, and went on: dropped answers tell that it does. */
static void test_publication_recovers(void **state)
{
	char name[16];

	(void)state;
	w.host.publish_ns = 20 * NS_PER_MS;
	submit("slow", 640, NULL, "1");
	world_run(&w, 20000);
	w.host.publish_ns = 150 * NS_PER_MS / 1000;
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "b%d", i);
		submit(name, 64, "250ms", "1");
		world_run(&w, 1000);
	}
	assert_int_equal(count_status(name, 64, "ok", world_ms(&w) - 1000, 250), 64);
}

/* What was computed too late says so at once, and is published once. */
static void test_late(void **state)
{
	char out[64];

	(void)state;
	executor_null_set_factor(w.s->device[0].ex, 10);
	submit("b", 32, "100ms", "1");
	world_run(&w, 3000);
	assert_true(task_number("b", "late") == 32);
	assert_true(task_number("b", "deadline_met") == 0);
	assert_true(task_number("b", "effective_accuracy") == 0);
	for (int i = 0; i < 32; i++) {
		snprintf(out, sizeof(out), "b/%06d", i);
		assert_true(world_answered_once(&w, out));
		assert_string_equal(world_status(&w, out), "late");
	}
}

/* One publication hangs over the deadline: what said ok is renewed as late; those that wait behind it are never seen as ok. */
static void test_renewed(void **state)
{
	int64_t start = world_ms(&w);
	char out[64];

	(void)state;
	w.host.slow_at = w.host.n_published + 10;
	w.host.slow_ns = 500 * NS_PER_MS;
	submit("b", 32, "100ms", "1");
	world_run(&w, 3000);
	assert_true(task_number("b", "ok") == 10);
	assert_true(task_number("b", "late") == 22);
	for (int i = 0; i < 32; i++) {
		snprintf(out, sizeof(out), "b/%06d", i);
		assert_string_equal(world_status(&w, out), i < 10 ? "ok" : "late");
		snprintf(out, sizeof(out), "infer/app/in/b/%06d", i);
		assert_string_equal(fake_xattr(&w.host, out, "user.state"), i < 10 ? "ok" : "late");
		snprintf(out, sizeof(out), "infer/app/out/b/%06d.json", i);
		assert_int_equal(fake_times(&w.host, out), i == 10 ? 2 : 1);
	}
	assert_non_null(strstr(fake_content(&w.host, "infer/app/out/b/results.csv"), "b/000031,late,"));
	assert_null(strstr(fake_content(&w.host, "infer/app/out/b/results.csv"), "b/000031,ok,"));
	assert_int_equal(fake_count_keys(&w.host, "r/"), 0);
	(void)start;
}

static void test_worker_dies(void **state)
{
	int64_t start = world_ms(&w);

	(void)state;
	submit("b", 3200, "8s", "1");
	for (int i = 0; i < 5; i++) {
		world_run(&w, 333);
		executor_null_kill(w.s->device[0].ex);
	}
	world_run(&w, 10000);
	assert_int_equal(count_status("b", 3200, "ok", start, 8000), 3200);
	assert_true(world_answered_once(&w, "b/000000") && world_answered_once(&w, "b/003199"));
	assert_true(world_stat(&w, "worker_deaths") == 5);
}

/* An instance that kills its worker each time: found by halves and failed, the others answered. */
static void test_poison(void **state)
{
	int deaths = 0;

	(void)state;
	submit("b", 64, NULL, "1");
	fake_put(&w.host, "infer/app/in/b/000020", "poison");
	for (int i = 0; i < 200 && isnan(task_number("b", "ok")); i++) {
		bool runs = dispatch_runs(w.s, "b/000020"); /* in the one that runs */

		if (runs) {
			executor_null_kill(w.s->device[0].ex);
			deaths++;
		}
		world_run(&w, 20);
	}
	world_run(&w, 1000);
	assert_true(task_number("b", "failed") == 1);
	assert_true(task_number("b", "ok") == 63);
	assert_string_equal(world_status(&w, "b/000020"), "failed");
	assert_non_null(strstr(world_text(&w, "out/b/000020.json", "error"), "worker"));
	assert_true(deaths >= 3 && deaths <= 8); /* 3 and log2(32) */
}

static void test_many(void **state)
{
	(void)state;
	submit("b", 100000, "30s", "1");
	world_run(&w, 2000);
	world_crash(&w);
	world_restart(&w);
	world_run(&w, 100000);
	assert_true(task_number("b", "instances") == 100000);
	assert_true(task_number("b", "ok") + task_number("b", "dropped") == 100000);
	assert_true(task_number("b", "ok") > 50000);
	assert_int_equal(fake_count_keys(&w.host, ""), 1); /* the number */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_table3),
		T(test_slow_down),
		T(test_speed_up),
		T(test_overload),
		T(test_several),
		T(test_bottleneck),
		T(test_shared_minibatches),
		T(test_slow_publication),
		T(test_stalled_publication),
		T(test_publication_recovers),
		T(test_late),
		T(test_renewed),
		T(test_worker_dies),
		T(test_poison),
		T(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
