/* What is submitted when, and under which deadline (DESIGN section 2), on the fake clock. */
#include "tests/support/serving.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void test_loose_file(void **state)
{
	int64_t start = world_ms(&w);

	(void)state;
	world_put(&w, "x.png", "7");
	assert_null(fake_xattr(&w.host, "infer/app/in/x.png", "user.state"));
	world_run(&w, 49);
	assert_null(fake_xattr(&w.host, "infer/app/in/x.png", "user.state"));
	world_run(&w, 1);
	assert_string_equal(fake_xattr(&w.host, "infer/app/in/x.png", "user.state"), "running");
	world_run(&w, 100);
	assert_int_equal(visible_ms("x.png.json"), start + 150);
	assert_true(world_answered_once(&w, "x.png"));
	assert_string_equal(world_status(&w, "x.png"), "ok");
	/* Keys and values of the answer (DESIGN section 2). */
	assert_string_equal(world_text(&w, "out/x.png.json", "file"), "x.png");
	assert_string_equal(world_text(&w, "out/x.png.json", "task"), "app-000001");
	assert_string_equal(world_text(&w, "out/x.png.json", "model"), "m");
	assert_string_equal(world_text(&w, "out/x.png.json", "precision"), "f32");
	assert_string_equal(world_text(&w, "out/x.png.json", "label"), "5"); /* '7' is 55 */
	assert_true(world_number(&w, "out/x.png.json", "version") == 1);
	assert_true(world_number(&w, "out/x.png.json", "slice") == 1);
	assert_true(world_number(&w, "out/x.png.json", "queued_ms") == 0);
	assert_true(world_number(&w, "out/x.png.json", "compute_ms") == 100);
	assert_true(world_number(&w, "out/x.png.json", "finished_ms") == 100);
	assert_non_null(strstr(fake_content(&w.host, "infer/app/out/x.png.json"), "\"deadline_ms\":\tnull"));
	assert_non_null(strstr(fake_content(&w.host, "infer/app/out/x.png.json"), "\"error\":\tnull"));
	assert_string_equal(fake_xattr(&w.host, "infer/app/in/x.png", "user.result"),
			    "infer/app/out/x.png.json");
	assert_all_done();
	/* Loose files have no results.csv and task.json. */
	assert_null(fake_content(&w.host, "infer/app/out/task.json"));
}

static void test_loose_files_form_a_task(void **state)
{
	(void)state;
	world_put(&w, "a.png", "1");
	world_run(&w, 30);
	world_put(&w, "b.png", "2");
	world_run(&w, 19);
	world_put(&w, "c.png", "3");
	world_run(&w, 2);
	world_put(&w, "d.png", "4"); /* the window is over */
	assert_all_done();
	assert_string_equal(world_text(&w, "out/a.png.json", "task"), "app-000001");
	assert_string_equal(world_text(&w, "out/b.png.json", "task"), "app-000001");
	assert_string_equal(world_text(&w, "out/c.png.json", "task"), "app-000001");
	assert_string_equal(world_text(&w, "out/d.png.json", "task"), "app-000002");
}

static void test_settle_zero(void **state)
{
	static const char spec[] = "{\"model\":\"m\",\"batch\":4,\"settle\":0}";
	int64_t start;

	(void)state;
	sched_post_endpoint_spec(w.s, "app", spec, strlen(spec));
	world_run(&w, 1);
	start = world_ms(&w);
	world_put(&w, "a.png", "1");
	world_run(&w, 1000);
	assert_int_equal(visible_ms("a.png.json"), start + 100);
}

static void test_batch_is_quiet(void **state)
{
	int64_t start;

	(void)state;
	world_mkdir(&w, "b");
	world_put(&w, "b/1.png", "1");
	world_run(&w, 900);
	world_put(&w, "b/sub/2.png", "2");
	world_run(&w, 900);
	world_open(&w, "b/3.png", "3");
	world_run(&w, 5000); /* a file is open for writing: not quiet */
	assert_null(fake_xattr(&w.host, "infer/app/in/b/1.png", "user.state"));
	start = world_ms(&w);
	world_close(&w, "b/3.png");
	world_run(&w, 999);
	assert_null(fake_xattr(&w.host, "infer/app/in/b/1.png", "user.state"));
	world_run(&w, 2000);
	assert_int_equal(visible_ms("b/1.png.json"), start + 1100);
	assert_int_equal(visible_ms("b/task.json"), start + 1100);
	assert_true(world_number(&w, "out/b/task.json", "instances") == 3);
	assert_true(world_number(&w, "out/b/task.json", "ok") == 3);
	assert_true(world_number(&w, "out/b/task.json", "effective_accuracy") == 90);
	assert_non_null(strstr(fake_content(&w.host, "infer/app/out/b/results.csv"), "b/sub/2.png,ok,0,0."));
	assert_true(world_answered_once(&w, "b/1.png") && world_answered_once(&w, "b/sub/2.png") &&
		    world_answered_once(&w, "b/3.png"));
	assert_all_done();
}

static void test_deadline_submits(void **state)
{
	int64_t start;

	(void)state;
	world_mkdir(&w, "b");
	world_put(&w, "b/1.png", "1");
	start = world_ms(&w);
	world_deadline(&w, "b", "50ms");
	assert_string_equal(fake_xattr(&w.host, "infer/app/in/b/1.png", "user.state"), "running");
	world_run(&w, 3000);
	assert_int_equal(visible_ms("b/1.png.json"), start + 20);
	assert_true(world_number(&w, "out/b/1.png.json", "slice") == 0.25);
	assert_true(world_number(&w, "out/b/1.png.json", "deadline_ms") == 50);
	assert_true(world_number(&w, "out/b/task.json", "deadline_met") == 1);
	assert_all_done();
}

/* close(2) returns before RELEASE: the deadline may come while the last files still look open. */
static void test_deadline_waits_for_handles(void **state)
{
	int64_t start;

	(void)state;
	world_put(&w, "b/1.png", "1");
	world_open(&w, "b/2.png", "2");
	start = world_ms(&w);
	world_deadline(&w, "b", "500ms");
	world_run(&w, 5);
	world_close(&w, "b/2.png");
	world_run(&w, 3000);
	assert_string_equal(world_text(&w, "out/b/2.png.json", "task"), "app-000001");
	assert_int_equal(visible_ms("b/2.png.json"), start + 105);
	assert_true(world_number(&w, "out/b/2.png.json", "finished_ms") ==
		    105); /* counted from the deadline's setting */
	/* One that is really still written is not waited for: it makes a further task. */
	world_put(&w, "c/1.png", "1");
	world_open(&w, "c/2.png", "2");
	world_deadline(&w, "c", "500ms");
	world_run(&w, 60);
	assert_non_null(fake_xattr(&w.host, "infer/app/in/c/1.png", "user.state"));
	world_close(&w, "c/2.png");
	assert_all_done();
	assert_string_equal(world_text(&w, "out/c/2.png.json", "task"), "app-000003");
}

static void test_deadline_before_files(void **state)
{
	(void)state;
	world_mkdir(&w, "b");
	world_deadline(&w, "b", "150ms");
	world_put(&w, "b/1.png", "1");
	world_run(&w, 999);
	assert_null(fake_xattr(&w.host, "infer/app/in/b/1.png", "user.state"));
	world_run(&w, 1000);
	assert_true(world_number(&w, "out/b/1.png.json", "deadline_ms") == 150);
	assert_all_done();
}

static void test_renamed_in(void **state)
{
	(void)state;
	fake_put(&w.host, "infer/app/in/b/1.png", "1");
	fake_put(&w.host, "infer/app/in/b/sub/2.png", "2");
	fake_put(&w.host, "infer/app/in/b/.hidden", "2");
	fake_put(&w.host, "infer/app/in/b/x.part", "2");
	fake_setxattr(&w.host, "infer/app/in/b", "user.deadline", "300ms");
	sched_post_batch(w.s, "app", BATCH_RENAMED_IN, "b", fake_ino(&w.host, "infer/app/in/b"));
	world_run(&w, 0);
	assert_string_equal(fake_xattr(&w.host, "infer/app/in/b/sub/2.png", "user.state"), "running");
	assert_all_done();
	assert_true(world_number(&w, "out/b/task.json", "instances") == 2);
	assert_true(world_number(&w, "out/b/task.json", "deadline_ms") == 300);
	assert_null(world_status(&w, "b/.hidden"));
	assert_null(world_status(&w, "b/x.part"));
}

/* What is still open in it is answered when it is closed, and once. */
static void test_renamed_in_open(void **state)
{
	(void)state;
	fake_put(&w.host, "infer/app/in/b/1.png", "1");
	fake_put(&w.host, "infer/app/in/b/open.png", "2");
	sched_post_instance(w.s, "app", INSTANCE_WRITING, "b/open.png",
			    fake_ino(&w.host, "infer/app/in/b/open.png"));
	sched_post_batch(w.s, "app", BATCH_RENAMED_IN, "b", fake_ino(&w.host, "infer/app/in/b"));
	world_run(&w, 2000);
	assert_true(world_answered_once(&w, "b/1.png"));
	assert_null(world_status(&w, "b/open.png"));
	world_close(&w, "b/open.png");
	assert_all_done();
	assert_true(world_answered_once(&w, "b/open.png"));
	assert_true(world_number(&w, "out/b/task.json", "instances") == 1); /* of a further task */
}

static void test_precedence(void **state)
{
	static const char spec[] = "{\"model\":\"m\",\"batch\":4,\"deadline\":\"4s\"}";

	(void)state;
	sched_post_endpoint_spec(w.s, "app", spec, strlen(spec));
	world_run(&w, 1);
	world_put(&w, "spec.png", "1");
	world_run(&w, 100);
	world_deadline(&w, "", "3s");
	world_put(&w, "in.png", "1");
	world_put(&w, "b/file.png", "1");
	world_deadline(&w, "b/file.png", "1s");
	world_put(&w, "b/batch.png", "1");
	world_deadline(&w, "b", "2s");
	world_put(&w, "c/in.png", "1");
	assert_all_done();
	assert_true(world_number(&w, "out/spec.png.json", "deadline_ms") == 4000);
	assert_true(world_number(&w, "out/in.png.json", "deadline_ms") == 3000);
	assert_true(world_number(&w, "out/c/in.png.json", "deadline_ms") == 3000);
	assert_true(world_number(&w, "out/b/batch.png.json", "deadline_ms") == 2000);
	assert_true(world_number(&w, "out/b/file.png.json", "deadline_ms") == 1000);
	/* Two tasks, one directory: one task.json for both, when both are complete. */
	assert_true(world_number(&w, "out/b/task.json", "instances") == 2);
	assert_int_equal(fake_times(&w.host, "infer/app/out/b/task.json"), 1);
}

static void test_absolute(void **state)
{
	char text[64];
	int64_t wall = loop_wall(w.loop);

	(void)state;
	snprintf(text, sizeof(text), "@%.3f", (double)wall / 1e9 + 0.4);
	world_put(&w, "b/1.png", "1");
	world_run(&w, 100);
	world_deadline(&w, "b", text);
	assert_all_done();
	assert_true(fabs(world_number(&w, "out/b/1.png.json", "deadline_ms") - 300) < 1);
	assert_string_equal(world_status(&w, "b/1.png"), "ok");
	snprintf(text, sizeof(text), "@%.3f", (double)wall / 1e9);
	world_put(&w, "c/1.png", "1");
	world_deadline(&w, "c", text); /* past */
	assert_all_done();
	assert_string_equal(world_status(&w, "c/1.png"), "dropped");
}

/* cp --preserve=xattr sets it before the close; rsync after the close, before the rename. */
static void test_loose_deadlines(void **state)
{
	(void)state;
	world_open(&w, "cp.png", "1");
	world_deadline(&w, "cp.png", "700ms");
	world_close(&w, "cp.png");
	world_put(&w, "after.png", "1");
	world_run(&w, 20);
	world_deadline(&w, "after.png", "800ms");
	fake_put(&w.host, "infer/app/in/rsync.png",
		 "1"); /* renamed here; the xattr came to the hidden name */
	fake_setxattr(&w.host, "infer/app/in/rsync.png", "user.deadline", "900ms");
	world_close(&w, "rsync.png");
	assert_all_done();
	assert_true(world_number(&w, "out/cp.png.json", "deadline_ms") == 700);
	assert_true(world_number(&w, "out/after.png.json", "deadline_ms") == 800);
	assert_true(world_number(&w, "out/rsync.png.json", "deadline_ms") == 900);
	assert_string_equal(world_status(&w, "rsync.png"), "ok");
}

/* After submission the deadline of one file moves: it gets a task of its own. */
static void test_file_deadline_moves(void **state)
{
	char path[32];

	(void)state;
	for (int i = 0; i < 40; i++) {
		snprintf(path, sizeof(path), "b/%02d.png", i);
		world_put(&w, path, "1");
	}
	world_deadline(&w, "b", "9s");
	world_run(&w, 100);
	world_deadline(&w, "b/39.png", "400ms");
	assert_all_done();
	assert_true(world_number(&w, "out/b/39.png.json", "deadline_ms") == 400);
	assert_string_equal(world_status(&w, "b/39.png"), "ok");
	assert_true(visible_ms("b/39.png.json") < visible_ms("b/38.png.json"));
	assert_true(world_number(&w, "out/b/task.json", "instances") == 40);
	assert_true(world_number(&w, "out/b/task.json", "ok") == 40);
}

static void test_moved_deadline_replans(void **state)
{
	char path[32];

	(void)state;
	for (int i = 0; i < 40; i++) { /* 10 mini-batches: 1 s on the accurate slice */
		snprintf(path, sizeof(path), "b/%02d.png", i);
		world_put(&w, path, "1");
	}
	world_deadline(&w, "b", "60s");
	world_run(&w, 250);               /* two done, two at the executor */
	world_deadline(&w, "b", "600ms"); /* from submission: 200 ms after those four for six mini-batches */
	assert_all_done();
	assert_true(world_number(&w, "out/b/task.json", "deadline_ms") == 600);
	assert_true(world_number(&w, "out/b/task.json", "ok") == 40);
	/* 4 and at most one more accurate one, the rest fast: 40·(5·0.9 + 5·0.5)/10. */
	assert_true(world_number(&w, "out/b/task.json", "effective_accuracy") == 70);
	/* Removed again: no deadline, so the accurate slice for what is left. */
	for (int i = 0; i < 40; i++) {
		snprintf(path, sizeof(path), "c/%02d.png", i);
		world_put(&w, path, "1");
	}
	world_deadline(&w, "c", "220ms"); /* all fast */
	world_run(&w, 30);
	world_deadline(&w, "c", NULL);
	assert_all_done();
	assert_true(world_number(&w, "out/c/task.json", "ok") == 40);
	assert_true(world_number(&w, "out/c/task.json", "effective_accuracy") == 90 - 40 * 0.3);
}

static void test_further_task(void **state)
{
	const char *csv;

	(void)state;
	world_mkdir(&w, "b");
	world_put(&w, "b/1.png", "1");
	world_put(&w, "b/2.png", "1");
	world_deadline(&w, "b", "5s");
	world_run(&w, 5000);
	assert_true(world_number(&w, "out/b/task.json", "instances") == 2);
	world_put(&w, "b/3.png", "1");
	world_put(&w, "b/2.png", "bad"); /* written anew: answered anew */
	world_run(&w, 1001);
	assert_null(fake_content(&w.host, "infer/app/out/b/task.json")); /* not complete any more */
	assert_all_done();
	assert_string_equal(world_text(&w, "out/b/task.json", "task"), "app-000002");
	csv = fake_content(&w.host, "infer/app/out/b/results.csv");
	assert_non_null(strstr(csv, "\nb/1.png,ok,"));
	assert_non_null(strstr(csv, "\nb/2.png,failed,"));
	assert_null(strstr(csv, "\nb/2.png,ok,"));
	assert_non_null(strstr(csv, "\nb/3.png,ok,"));
	/* The directory is made anew: the old table and task.json go. */
	fake_remove(&w.host, "infer/app/in/b");
	sched_post_batch(w.s, "app", BATCH_REMOVED, "b", 0);
	world_mkdir(&w, "b");
	world_put(&w, "b/9.png", "1");
	assert_all_done();
	csv = fake_content(&w.host, "infer/app/out/b/results.csv");
	assert_null(strstr(csv, "b/1.png"));
	assert_non_null(strstr(csv, "\nb/9.png,ok,"));
}

/* Files that keep coming into a directory whose deadline is set. */
static void test_growing(void **state)
{
	char path[64], text[64], first[64];
	int tasks = 0;

	(void)state;
	/* An absolute one isn't waited over, and few tasks are made of it; who is still written is not waited for. */
	world_mkdir(&w, "b");
	snprintf(text, sizeof(text), "@%.3f", (double)loop_wall(w.loop) / 1e9 + 2);
	world_deadline(&w, "b", text);
	world_open(&w, "b/slow.png", "1");
	for (int i = 0; i < 18; i++) {
		snprintf(path, sizeof(path), "b/%02d.png", i);
		world_put(&w, path, "1");
		if (i == 9) /* half of two seconds */
			assert_null(fake_xattr(&w.host, "infer/app/in/b/00.png", "user.state"));
		world_run(&w, 100);
	}
	assert_string_equal(world_status(&w, "b/00.png"), "ok");
	world_run(&w, 200);
	for (int i = 0; i < 18; i++) {
		snprintf(path, sizeof(path), "b/%02d.png", i);
		assert_string_equal(world_status(&w, path), "ok");
		snprintf(path, sizeof(path), "out/b/%02d.png.json", i);
		tasks = atoi(world_text(&w, path, "task") + 4);
	}
	assert_in_range(tasks, 2, 5);
	world_close(&w, "b/slow.png");
	assert_all_done();
	assert_string_equal(world_status(&w, "b/slow.png"), "dropped");
	/* Others count from the submission of what they are of: a further task while the first one runs. */
	for (int i = 0; i < 120; i++) {
		snprintf(path, sizeof(path), "c/%03d.png", i);
		world_put(&w, path, "1");
	}
	world_deadline(&w, "c", "3200ms");
	for (int i = 120; i < 140; i++) {
		snprintf(path, sizeof(path), "c/%03d.png", i);
		world_put(&w, path, "1");
		world_run(&w, 40);
	}
	assert_all_done();
	assert_true(world_number(&w, "out/c/task.json", "ok") == 140);
	assert_true(world_number(&w, "out/c/task.json", "effective_accuracy") == 90);
	assert_true(world_number(&w, "out/c/139.png.json", "deadline_ms") == 3200);
	snprintf(first, sizeof(first), "%s", world_text(&w, "out/c/000.png.json", "task"));
	assert_string_not_equal(world_text(&w, "out/c/139.png.json", "task"), first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_loose_file),
		T(test_loose_files_form_a_task),
		T(test_settle_zero),
		T(test_batch_is_quiet),
		T(test_deadline_submits),
		T(test_deadline_waits_for_handles),
		T(test_deadline_before_files),
		T(test_renamed_in),
		T(test_renamed_in_open),
		T(test_precedence),
		T(test_absolute),
		T(test_loose_deadlines),
		T(test_file_deadline_moves),
		T(test_moved_deadline_replans),
		T(test_further_task),
		T(test_growing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
