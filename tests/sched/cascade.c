/* Cascades: which ones a plan may use, what is held and answered anew, and that nothing that is held is ever late or lost by it. */
#include "tests/support/fake_host.h"
#include "tests/support/simulated.h"

#include "sched/minibatch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/*
 * Of the small one's answers a fifth has a probability below 0.6: 20 % of them are right, 95 % of the others. The large one is right with
 * 85 % of that fifth, so both together with 0.8·0.95 + 0.2·0.85 = 93 %.
 */
#define MODEL                                                         \
	"{\"classes\":10,\"submodels\":["                             \
	"{\"slice\":1,\"accuracy\":0.95,\"ms\":20,\"one_ms\":2},"     \
	"{\"slice\":0.25,\"accuracy\":0.80,\"ms\":2,\"one_ms\":0.2,"  \
	"\"threshold\":[0.45,0.5,0.55,0.6,0.7,0.75,0.8,0.85,0.9],"    \
	"\"sure\":[0.83,0.87,0.91,0.95,0.955,0.96,0.965,0.97,0.975]," \
	"\"then\":[[0.84,0.87,0.9,0.93,0.933,0.936,0.94,0.943,0.945]]}]}"
#define SPEC "{\"model\":\"m\",\"batch\":10}"

enum { N = 1000, UNSURE = 200 };

static struct world w;

static void begin(const char *spec)
{
	world_init(&w, MODEL, spec);
	world_put(&w, "warm", "1"); /* the first publication is measured: it takes no time here */
	world_run(&w, 1000);
}

static int setup(void **state)
{
	(void)state;
	begin(SPEC);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(w.host.key_faults, 0);
	world_release(&w);
	return 0;
}

/* Every fifth is uncertain. */
static void submit(const char *deadline)
{
	char path[64];

	for (int i = 0; i < N; i++) {
		snprintf(path, sizeof(path), "infer/app/in/b/%06d", i);
		fake_put(&w.host, path, i % 5 ? "7 0.9" : "7 0.5");
	}
	if (deadline)
		fake_setxattr(&w.host, "infer/app/in/b", "user.deadline", deadline);
	sched_post_batch(w.s, "app", BATCH_RENAMED_IN, "b", fake_ino(&w.host, "infer/app/in/b"));
	world_run(&w, 0);
}

/* Each was answered once; how many of those with i % 5 == 0 (unsure) or not are the large one's. */
static int by_large(bool unsure)
{
	char path[64];
	int n = 0;

	for (int i = 0; i < N; i++) {
		snprintf(path, sizeof(path), "b/%06d", i);
		if (!world_answered_once(&w, path))
			fail_msg("%s: %s", path, world_status(&w, path));
		snprintf(path, sizeof(path), "out/b/%06d.json", i);
		n += (i % 5 == 0) == unsure && world_number(&w, path, "slice") == 1;
	}
	return n;
}

static double task_number(const char *key)
{
	return world_number(&w, "out/b/task.json", key);
}

/* 600 ms for a cascade of all; without it 27 of the mini-batches could be the large one's. */
static void test_gains(void **state)
{
	(void)state;
	submit("650ms");
	world_run(&w, 1000);
	assert_int_equal(task_number("ok"), N);
	assert_int_equal(by_large(true), UNSURE);
	assert_true(task_number("effective_accuracy") > 92.5 && task_number("effective_accuracy") < 94);
	assert_true(task_number("planned_effective_accuracy") > 92);
	assert_true(task_number("finished_ms") <= 650);
	world_release(&w);
	begin("{\"model\":\"m\",\"batch\":10,\"policy\":\"optimal\"}");
	submit("650ms");
	world_run(&w, 1000);
	assert_int_equal(task_number("ok"), N);
	assert_true(task_number("effective_accuracy") < 84);
}

/* With time for the large one alone, and without a deadline, nothing is held; where there is hardly any, nothing can run again. */
static void test_ends(void **state)
{
	(void)state;
	submit("3s");
	world_run(&w, 4000);
	assert_int_equal(by_large(true), UNSURE);
	assert_int_equal(by_large(false), N - UNSURE);
	assert_float_equal(task_number("effective_accuracy"), 95, 1e-3);
	world_release(&w);
	begin(SPEC);
	submit(NULL);
	world_run(&w, 4000);
	assert_int_equal(by_large(true) + by_large(false), N);
	world_release(&w);
	begin(SPEC);
	submit("210ms");
	world_run(&w, 1000);
	assert_int_equal(task_number("ok"), N);
	assert_true(by_large(true) + by_large(false) <= 10);
	assert_true(task_number("effective_accuracy") >= 79.9);
}

/* Every instance at a time: 20 tasks, due together. */
static void test_loose(void **state)
{
	char path[32];
	int large = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), "%d", i);
		world_open(&w, path, i % 5 ? "7 0.9" : "7 0.5");
		world_deadline(&w, path, "16ms"); /* not even one mini-batch of the large one in time */
		world_close(&w, path);
	}
	world_run(&w, 1000);
	for (int i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), "%d", i);
		assert_true(world_answered_once(&w, path));
		assert_string_equal(world_status(&w, path), "ok");
		snprintf(path, sizeof(path), "out/%d.json", i);
		large += world_number(&w, path, "slice") == 1;
	}
	assert_in_range(large, 1, 4);
}

/* Runs until something is held and nothing waits for its first run. */
static void until_held(void)
{
	for (int i = 0; i < 1000 && (!w.s->dispatch.n_held || w.s->dispatch.n_queued); i++)
		world_run(&w, 1);
	assert_true(w.s->dispatch.n_held > 0 && !w.s->dispatch.n_queued);
}

/* The device becomes a hundred times slower before anything could run again: what is held is answered, in time. */
static void test_slower(void **state)
{
	(void)state;
	w.host.publish_ns = 100 * 1000;
	submit("650ms");
	until_held();
	world_run(&w, 45); /* what ran for the first time has ended */
	executor_null_set_factor(w.s->device[0].ex, 100);
	world_run(&w, 10000);
	assert_int_equal(task_number("ok"), N);
	assert_true(by_large(true) < UNSURE);
	assert_true(task_number("effective_accuracy") > 79.9);
}

/* What ran for the first time when its deadline passed is answered at once, and nothing waits behind it. */
static void test_overdue(void **state)
{
	(void)state;
	w.host.publish_ns = NS_PER_MS; /* dropping takes until after that */
	executor_null_set_factor(w.s->device[0].ex, 400);
	submit("650ms");
	world_run(&w, 10000);
	assert_int_equal(task_number("late") + task_number("dropped"), N);
	by_large(true);
	assert_int_equal(w.s->dispatch.n_held, 0);
	executor_null_set_factor(w.s->device[0].ex, 1);
	world_put(&w, "next", "1");
	world_run(&w, 1000);
	assert_string_equal(world_status(&w, "next"), "ok");
}

/* Publications take their time: held answers are handed over early enough for the last one. */
static void test_slow_publication(void **state)
{
	(void)state;
	w.host.publish_ns = 300 * 1000;
	world_put(&w, "warm2", "1");
	world_run(&w, 1000);
	submit("650ms");
	world_run(&w, 2000);
	assert_int_equal(task_number("late"), 0);
	assert_int_equal(task_number("ok"), N);
	by_large(true);
}

static void test_worker_dies(void **state)
{
	(void)state;
	submit("650ms");
	until_held();
	world_run(&w, 25); /* one runs again */
	executor_null_kill(w.s->device[0].ex);
	world_run(&w, 3000);
	assert_int_equal(task_number("ok"), N);
	assert_in_range(by_large(true), 1, UNSURE - 1);
	assert_int_equal(w.s->dispatch.n_held, 0);
}

static void test_reload(void **state)
{
	(void)state;
	submit("650ms");
	until_held();
	sched_post_endpoint_ctl(w.s, "app", "reload");
	world_run(&w, 0);
	assert_int_equal(w.s->dispatch.n_held, 0);
	world_run(&w, 3000);
	assert_int_equal(task_number("ok"), N);
	by_large(true);
}

/* Files that go, or are written anew, while their answer is held: it is given; the new content is another instance. */
static void test_files_change(void **state)
{
	(void)state;
	submit("650ms");
	until_held();
	world_remove(&w, "b/000000");
	world_open(&w, "b/000995", "8 0.9");
	world_run(&w, 2000);
	assert_string_equal(world_status(&w, "b/000000"), "ok");
	assert_string_equal(world_status(&w, "b/000995"), "ok");
	assert_int_equal(fake_times(&w.host, "infer/app/out/b/000995.json"), 1);
	assert_string_equal(world_text(&w, "out/b/000995.json", "label"), "5"); /* '7' % 10 */
	world_close(&w, "b/000995");
	world_run(&w, 3000);
	assert_int_equal(fake_times(&w.host, "infer/app/out/b/000995.json"), 2);
	assert_string_equal(world_text(&w, "out/b/000995.json", "label"), "6");
}

/* Sooner, later, never, and of one file: what is held is answered by then, or has the time. */
static void test_deadline_moves(void **state)
{
	static const struct {
		const char *deadline;
		int least, most; /* of the large one's */
	} cases[] = {{"260ms", 0, 40}, {"2s", UNSURE, UNSURE}, {NULL, 0, 40}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (i) {
			world_release(&w);
			begin(SPEC);
		}
		submit("650ms");
		until_held();
		if (i == 1) { /* one file alone: it has its answer at once */
			world_deadline(&w, "b/000500", "3s");
			world_run(&w, 1);
			assert_string_equal(world_status(&w, "b/000500"), "ok");
			assert_true(world_number(&w, "out/b/000500.json", "slice") == 0.25);
		}
		world_deadline(&w, "b", cases[i].deadline);
		world_run(&w, 4000);
		assert_int_equal(task_number("ok"), N);
		assert_in_range(by_large(true), cases[i].least - (i == 1), cases[i].most);
	}
}

static void test_endpoint_goes(void **state)
{
	(void)state;
	submit("650ms");
	until_held();
	sched_post_endpoint_gone(w.s, "app");
	world_run(&w, 1000);
	assert_int_equal(w.s->dispatch.n_held, 0);
}

/* Pictures of both sub-models wait, mixed: the worker is asked for those of one, then for those of the other. */
static void test_pictures(void **state)
{
	int changes = 0, last = -1, most[2] = {0};
	char path[64];

	(void)state;
	world_release(&w);
	begin("{\"model\":\"m\",\"batch\":10,\"explain\":[\"gradcam\"]}");
	submit("650ms");
	world_run(&w, 660);
	assert_true(w.s->dispatch.pictures.next != w.s->dispatch.pictures.prev); /* many */
	world_remove(&w, "b/000003");
	for (int i = 0; i < 30000 && !list_empty(&w.s->dispatch.pictures); i++) {
		world_run(&w, 1);
		changes += w.s->device[0].pictured_submodel != last;
		last = w.s->device[0].pictured_submodel;
		if (w.s->device[0].n_out && w.s->device[0].out[0]->explains &&
		    w.s->device[0].out[0]->n > most[last])
			most[last] = w.s->device[0].out[0]->n;
	}
	assert_int_equal(most[0], 2); /* 2 ms each, and 5 ms are the limit */
	assert_int_equal(most[1], 8);
	world_run(&w, 1000);
	for (int i = 0; i < N; i++) {
		snprintf(path, sizeof(path), "infer/app/out/b/%06d.gradcam.png", i);
		assert_true((i == 3) == !fake_content(&w.host, path));
	}
	assert_in_range(changes, 2, 3);
}

/* kill -9 while answers are held: they are computed again, and given once. */
static void test_crash(void **state)
{
	(void)state;
	submit("3000s"); /* it is over soon all the same */
	world_deadline(&w, "b", "650ms");
	until_held();
	world_crash(&w);
	world_restart(&w);
	world_deadline(&w, "b", "5s");
	world_run(&w, 6000);
	assert_int_equal(task_number("ok"), N);
	by_large(true);
}

/*
 * Three sub-models, as measured of a ResNet with slices 0.125, 0.5 and 1, and cascades from each to each larger one. Scores of what is
 * submitted are spread evenly, so that of any first one the share q has a score below q.
 */
#define THREE                                                                                 \
	"{\"classes\":10,\"submodels\":["                                                     \
	"{\"slice\":1,\"accuracy\":0.9295,\"ms\":51,\"one_ms\":1.3},"                         \
	"{\"slice\":0.5,\"accuracy\":0.923,\"ms\":13.5,\"one_ms\":0.5,"                       \
	"\"threshold\":[0.05,0.1,0.15,0.2,0.25,0.3,0.4,0.5,0.6],"                             \
	"\"sure\":[0.94544,0.96204,0.97549,0.98292,0.98889,0.99262,0.99722,0.99867,0.99917]," \
	"\"then\":[[0.92667,0.92767,0.92883,0.929,0.929,0.9295,0.9295,0.9295,0.9295]]},"      \
	"{\"slice\":0.125,\"accuracy\":0.88567,\"ms\":3.8,\"one_ms\":0.15,"                   \
	"\"threshold\":[0.05,0.1,0.15,0.2,0.25,0.3,0.4,0.5,0.6],"                             \
	"\"sure\":[0.91018,0.92889,0.94941,0.965,0.97467,0.98381,0.99333,0.997,0.99875],"     \
	"\"then\":[[0.899,0.90933,0.918,0.9235,0.92583,0.92817,0.92933,0.9295,0.9295],"       \
	"[0.89833,0.90667,0.91483,0.91983,0.92133,0.92283,0.9235,0.923,0.923]]}]}"

static void submit_spread(const char *batch, const char *deadline)
{
	char path[64], text[32];

	for (int i = 0; i < 3200; i++) {
		snprintf(path, sizeof(path), "infer/app/in/%s/%06d", batch, i);
		snprintf(text, sizeof(text), "7 %.4f", (double)(i * 1399 % 3200) / 3200);
		fake_put(&w.host, path, text);
	}
	snprintf(path, sizeof(path), "infer/app/in/%s", batch);
	fake_setxattr(&w.host, path, "user.deadline", deadline);
	sched_post_batch(w.s, "app", BATCH_RENAMED_IN, batch, fake_ino(&w.host, path));
	world_run(&w, 0);
}

/*
 * Cascades of several kinds beside each other, from hardly any time to time for all: what is gained is what was planned, and with a device that
 * turns out a third as fast after half of the time, when not all that is held can run as it was to, no less than without cascades.
 */
static void test_kinds(void **state)
{
	static const int ms[] = {400, 450, 600, 800, 1000, 1300, 1600, 2000, 2600, 3300, 4200, 5000};
	char deadline[32];

	(void)state;
	for (size_t i = 0; i < sizeof(ms) / sizeof(ms[0]); i += SIMULATED_EACH(3)) {
		double got[2][2]; /* slower, cascade */

		for (int k = 0; k < 4; k++) {
			bool slower = k & 2, cascades = k & 1;

			world_release(&w);
			world_init(&w, THREE,
				   cascades ? "{\"model\":\"m\",\"batch\":32}"
					    : "{\"model\":\"m\",\"batch\":32,\"policy\":\"optimal\"}");
			world_put(&w, "warm", "1");
			world_run(&w, 1000);
			snprintf(deadline, sizeof(deadline), "%dms", ms[i]);
			submit_spread("b", deadline);
			world_run(&w, ms[i] / 2);
			if (slower)
				executor_null_set_factor(w.s->device[0].ex, 3);
			world_run(&w, ms[i]);
			assert_int_equal(w.s->dispatch.n_held, 0);
			assert_true(task_number("late") <=
				    (slower ? 32 : 0)); /* what ran when it became slower */
			assert_true(slower || task_number("ok") == 3200);
			got[slower][cascades] = task_number("effective_accuracy");
			if (!slower && got[0][cascades] < task_number("planned_effective_accuracy") - 0.15)
				fail_msg("%d ms, cascades %d: %.2f rather than %.2f", ms[i], cascades,
					 got[0][cascades], task_number("planned_effective_accuracy"));
		}
		for (int slower = 0; slower < 2; slower++)
			if (got[slower][1] < got[slower][0] - 0.1)
				fail_msg("%d ms, slower %d: %.2f, without cascades %.2f", ms[i], slower,
					 got[slower][1], got[slower][0]);
		if (ms[i] >= 600 && ms[i] <= 800)
			assert_true(got[0][1] > got[0][0] + 1 && got[1][1] > got[1][0] + 0.5);
	}
}

static void test_family(void **state)
{
	static struct endpoint ep = {.n_submodels = 3};
	struct plan_family f = {.n = 3,
				.m = {{.accuracy = 0.95, .time_ns = 2000, .time_one_ns = 200},
				      {.accuracy = 0.8, .time_ns = 200, .time_one_ns = 20},
				      {.accuracy = 0, .time_ns = 2000, .time_one_ns = 200}}};
	static const float first[CASCADE_POINTS] = {0.84f,  0.87f, 0.9f,   0.93f, 0.925f,
						    0.936f, 0.94f, 0.943f, 0.945f};
	int fourth = -1;

	(void)state;
	memcpy(ep.submodels[1].then[0], first, sizeof(first));
	/* As if idle ones were better: they are not to be used. */
	for (int k = 0; k < CASCADE_POINTS; k++)
		ep.submodels[1].then[2][k] = ep.submodels[2].then[0][k] = 0.99f;
	cascade_family(&ep, &f, 450, 70);
	assert_true(f.n > 4 && f.n <= 3 + CASCADE_POINTS);
	for (int i = 0; i < f.n; i++) {
		if (i < 3) {
			assert_true(f.of[i].first == i && f.of[i].then < 0);
			continue;
		}
		assert_true(f.of[i].first == 1 && f.of[i].then == 0);
		assert_int_not_equal(f.of[i].point, 4); /* slower and worse than the one before */
		assert_float_equal(f.m[i].accuracy, first[f.of[i].point], 1e-6);
		assert_true(i == 3 || f.m[i].time_ns > f.m[i - 1].time_ns);
		if (f.of[i].point == 3)
			fourth = i;
	}
	assert_true(fourth >= 0);
	assert_int_equal(f.m[fourth].time_ns, 200 + 400); /* a fifth of them */
	assert_int_equal(f.m[fourth].time_one_ns, 70);    /* to be published; computed in 60 */
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_family),
					   WORLD(test_gains),
					   WORLD(test_kinds),
					   WORLD(test_ends),
					   WORLD(test_loose),
					   WORLD(test_slower),
					   WORLD(test_overdue),
					   WORLD(test_slow_publication),
					   WORLD(test_worker_dies),
					   WORLD(test_reload),
					   WORLD(test_pictures),
					   WORLD(test_files_change),
					   WORLD(test_deadline_moves),
					   WORLD(test_endpoint_goes),
					   WORLD(test_crash)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
