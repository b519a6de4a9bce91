/*
 * What lies complete in a batch is computed before its submission: what comes of it then, when files change or go meanwhile, and that it
 * costs what was submitted nothing.
 */
#include "tests/support/serving.h"

#include "sched/executor.h"

#include <string.h>

#define AHEAD "{\"model\":\"m\",\"batch\":4,\"ahead\":true}"

static int setup_ahead(void **state)
{
	(void)state;
	world_init(&w, MODEL, AHEAD);
	return 0;
}

static void put(const char *batch, int first, int n)
{
	char path[64];

	for (int i = first; i < first + n; i++) {
		snprintf(path, sizeof(path), "%s/%d.png", batch, i);
		world_put(&w, path, "1");
	}
}

/* Instances that the worker computed. */
static int computed(void)
{
	const struct endpoint *ep = list_entry(table_find(&w.s->endpoints, "app"), struct endpoint, node);

	return (int)ep->on[0].instances;
}

static void assert_task(const char *batch, int ok, int dropped, double accuracy)
{
	assert_int_equal((int)world_task_number(&w, batch, "ok"), ok);
	assert_int_equal((int)world_task_number(&w, batch, "dropped"), dropped);
	assert_int_equal((int)world_task_number(&w, batch, "late"), 0);
	assert_float_equal(world_task_number(&w, batch, "effective_accuracy"), accuracy, 1e-4);
	assert_int_equal((int)(world_task_number(&w, batch, "instances")), ok + dropped);
}

/* All with 30 ms, when the fast slice does 4 in 20. */
static void test_computed_before(void **state)
{
	int64_t start;

	(void)state;
	put("b", 0, 8);
	world_run(&w, 210);
	assert_null(fake_xattr(&w.host, "infer/app/in/b/1.png", "user.state"));
	assert_int_equal(fake_times(&w.host, "infer/app/out/b/1.png.json"), 0);
	start = world_ms(&w);
	world_deadline(&w, "b", "30ms");
	assert_all_done();
	assert_task("b", 8, 0, 90);
	assert_true(world_task_number(&w, "b", "planned_effective_accuracy") == 90);
	assert_true(world_task_number(&w, "b", "admitted") == 8);
	assert_int_equal(visible_ms("b/7.png.json"), start);
	assert_true(world_number(&w, "out/b/7.png.json", "slice") == 1);
	assert_true(world_number(&w, "out/b/7.png.json", "compute_ms") == 100);
	assert_true(world_number(&w, "out/b/7.png.json", "queued_ms") == 0);
	assert_true(world_stat(&w, "ahead") == 8);
	assert_true(world_answered_once(&w, "b/0.png"));
}

/* Full mini-batches only, by one at the device; the rest is queued as ever. */
static void test_rest_is_queued(void **state)
{
	(void)state;
	put("b", 0, 10);
	world_run(&w, 150);
	world_deadline(&w, "b", "200ms"); /* the second one has 50 ms to go, and 2 more take 100 */
	assert_all_done();
	assert_task("b", 10, 0, 90);
	assert_true(world_stat(&w, "ahead") == 8);
	assert_int_equal((int)world_number(&w, "out/b/5.png.json", "queued_ms"), 0);
	assert_int_equal((int)world_number(&w, "out/b/9.png.json", "queued_ms"), 0);
	assert_int_equal((int)world_number(&w, "out/b/9.png.json", "finished_ms"), 150);
}

/* What was not begun is computed once, as a part of its task. */
static void test_submitted_before_its_turn(void **state)
{
	(void)state;
	put("b", 0, 16);
	world_run(&w, 10);
	world_deadline(&w, "b", "10s");
	world_run(&w, 2000);
	put("c", 0, 8);
	assert_all_done();
	assert_task("b", 16, 0, 90);
	assert_task("c", 8, 0, 90);
	assert_true(world_task_number(&w, "b", "instances") == 16);
	assert_true(world_answered_once(&w, "b/15.png"));
	assert_true(world_stat(&w, "ahead") == 12);
	/* Where a second one finds room beside the last that was submitted. */
	world_release(&w);
	world_init(&w,
		   "{\"classes\":10,\"submodels\":[{\"slice\":1,\"accuracy\":0.9,\"ms\":2,\"one_ms\":2}]}",
		   AHEAD);
	put("b", 0, 16);
	world_deadline(&w, "b", "10s");
	assert_all_done();
	assert_task("b", 16, 0, 90);
	assert_int_equal(computed(), 16);
}

static void test_quiet_is_enough(void **state)
{
	(void)state;
	put("b", 0, 4);
	assert_all_done();
	assert_task("b", 4, 0, 90);
	assert_true(world_stat(&w, "ahead") == 4);
	assert_int_equal((int)world_number(&w, "out/b/3.png.json", "finished_ms"), 0);
}

/* As many as can be published in time, and what can't is not late. */
static void test_publishing_is_what_takes_time(void **state)
{
	(void)state;
	w.host.publish_ns = 10 * NS_PER_MS;
	put("a", 0, 400); /* so that it is known */
	world_deadline(&w, "a", "100s");
	world_run(&w, 20000);
	put("b", 0, 32);
	world_run(&w, 900);
	world_deadline(&w, "b", "200ms");
	assert_all_done();
	assert_in_range((int)world_task_number(&w, "b", "ok"), 16, 20);
	assert_true(world_task_number(&w, "b", "late") == 0);
	assert_true(world_task_number(&w, "b", "dropped") == 32 - world_task_number(&w, "b", "ok"));
}

static void test_written_anew(void **state)
{
	(void)state;
	put("b", 0, 8);
	world_run(&w, 150); /* the first four are done, the others run */
	world_put(&w, "b/1.png", "7");
	world_put(&w, "b/5.png", "7");
	world_open(&w, "b/6.png", "7");
	world_run(&w, 10);
	world_close(&w, "b/6.png");
	world_run(&w, 100);
	world_deadline(&w, "b", "10s");
	assert_all_done();
	assert_task("b", 8, 0, 90);
	assert_true(world_stat(&w, "ahead") == 5);
	assert_string_equal(world_text(&w, "out/b/1.png.json", "label"), "5"); /* '7' is 55 */
	assert_string_equal(world_text(&w, "out/b/5.png.json", "label"), "5");
	assert_string_equal(world_text(&w, "out/b/6.png.json", "label"), "5");
	assert_string_equal(world_text(&w, "out/b/0.png.json", "label"), "9");
	for (int i = 0; i < 8; i++) {
		char path[32];

		snprintf(path, sizeof(path), "b/%d.png", i);
		assert_true(world_answered_once(&w, path));
	}
}

static void test_removed(void **state)
{
	(void)state;
	put("b", 0, 8);
	world_run(&w, 150);
	world_remove(&w, "b/1.png");
	world_remove(&w, "b/5.png");
	put("c", 0, 4);
	sched_post_batch(w.s, "app", BATCH_REMOVED, "c", 0); /* all of it, before it was its turn */
	put("d", 0, 4);
	world_run(&w, 140);
	sched_post_batch(w.s, "app", BATCH_REMOVED, "d", 0); /* while it runs */
	world_deadline(&w, "b", "10ms");
	assert_all_done();
	assert_task("b", 6, 0, 90);
	assert_true(world_stat(&w, "ahead") == 6);
	assert_null(world_status(&w, "b/1.png"));
	assert_null(world_status(&w, "d/1.png"));
}

/* What is submitted waits for one mini-batch at most, and nothing is computed ahead as long as it waits. */
static void test_submitted_goes_first(void **state)
{
	int64_t start;

	(void)state;
	put("b", 0, 8);
	world_run(&w, 10);
	put("c", 0, 12);
	start = world_ms(&w);
	world_deadline(&w, "c", "500ms");
	world_run(&w, 399);
	assert_int_equal(visible_ms("c/11.png.json"), start + 390);
	assert_true(world_stat(&w, "ahead") == 0);
	world_run(&w, 91);
	world_deadline(&w, "b", "10ms");
	assert_all_done();
	assert_task("b", 8, 0, 90);
	assert_task("c", 12, 0, 90);
}

/* One of them may be what kills it: they run again as what is submitted does. */
static void test_worker_dies(void **state)
{
	(void)state;
	put("b", 0, 8);
	world_run(&w, 50);
	executor_null_kill(w.s->device[0].ex);
	world_run(&w, 500);
	assert_true(world_stat(&w, "worker_deaths") == 1);
	world_deadline(&w, "b", "1s");
	assert_all_done();
	assert_task("b", 8, 0, 90);
	assert_true(world_stat(&w, "ahead") == 4);
}

static void test_another_model(void **state)
{
	static const char better[] =
		"{\"classes\":10,\"submodels\":[{\"slice\":1,\"accuracy\":0.95,\"ms\":50,\"one_ms\":50}]}";

	(void)state;
	put("b", 0, 8);
	world_run(&w, 150);
	fake_put(&w.host, "models/m/1/model.json", better);
	sched_post_endpoint_ctl(w.s, "app", "reload");
	world_run(&w, 10);
	world_deadline(&w, "b", "1s");
	assert_all_done();
	assert_task("b", 8, 0, 95);
	assert_int_equal((int)world_number(&w, "out/b/1.png.json", "compute_ms"), 50);
}

static void test_stopped_and_gone(void **state)
{
	(void)state;
	put("b", 0, 8);
	world_run(&w, 150);
	sched_post_endpoint_ctl(w.s, "app", "stop");
	world_run(&w, 200);
	sched_post_endpoint_ctl(w.s, "app", "start");
	world_run(&w, 250);
	world_deadline(&w, "b", "10ms");
	world_run(&w, 100);
	assert_task("b", 8, 0, 90);
	put("c", 0, 8);
	world_run(&w, 150);
	sched_post_endpoint_gone(w.s, "app");
	world_run(&w, 1000);
	assert_int_equal(w.s->dispatch.n_ahead, 0);
}

/* One sub-model for a task: the one that its plan begins with. */
static void test_best_single(void **state)
{
	static const char spec[] = "{\"model\":\"m\",\"batch\":4,\"ahead\":true,\"policy\":\"best-single\"}";

	(void)state;
	sched_post_endpoint_spec(w.s, "app", spec, strlen(spec));
	put("b", 0, 4);
	world_run(&w, 110);
	put("b", 4, 3);
	world_deadline(&w, "b", "50ms");
	assert_all_done();
	assert_task("b", 7, 0, (4 * 90 + 3 * 50) / 7.0);
}

/* Not where the spec says so, or the daemon and not the spec; nor of loose files. */
static void test_switched_off(void **state)
{
	static const char off[] = "{\"model\":\"m\",\"batch\":4,\"ahead\":false}",
			  unsaid[] = "{\"model\":\"m\",\"batch\":4}";

	(void)state;
	sched_post_endpoint_spec(w.s, "app", off, strlen(off));
	put("b", 0, 8);
	world_run(&w, 500);
	world_deadline(&w, "b", "1s");
	assert_all_done();
	assert_task("b", 8, 0, 90);
	sched_post_endpoint_spec(w.s, "app", unsaid, strlen(unsaid));
	put("c", 0, 8);
	assert_all_done();
	assert_true(world_stat(&w, "ahead") == 0);
	world_release(&w);
	world_init(&w, MODEL, "{\"model\":\"m\",\"batch\":4,\"settle\":\"500ms\"}");
	world_crash(&w);
	w.options.ahead = true;
	world_restart(&w);
	put("d", 0, 8);
	for (int i = 0; i < 4; i++) {
		char path[32];

		snprintf(path, sizeof(path), "%d.png", i);
		world_put(&w, path, "1");
	}
	assert_all_done();
	assert_true(world_stat(&w, "ahead") == 8);
}

int main(void)
{
#define A(name) cmocka_unit_test_setup_teardown(name, setup_ahead, teardown)
	const struct CMUnitTest tests[] = {
		A(test_computed_before),
		A(test_rest_is_queued),
		A(test_submitted_before_its_turn),
		A(test_quiet_is_enough),
		A(test_publishing_is_what_takes_time),
		A(test_written_anew),
		A(test_removed),
		A(test_submitted_goes_first),
		A(test_worker_dies),
		A(test_another_model),
		A(test_stopped_and_gone),
		A(test_switched_off),
		A(test_best_single),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
