/*
 * Serving, rule by rule (DESIGN section 2), on the fake clock with the null executor: what is submitted when,
 * under which deadline, and what comes out.
 */
#include "tests/support/fake_host.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* 100 ms on the accurate slice, 20 ms on the fast one, at any fill. */
#define MODEL                                                        \
	"{\"classes\":10,\"submodels\":["                            \
	"{\"slice\":0.25,\"accuracy\":0.5,\"ms\":20,\"one_ms\":20}," \
	"{\"slice\":1,\"accuracy\":0.9,\"ms\":100,\"one_ms\":100}]}"
#define SPEC "{\"model\":\"m\",\"batch\":4}"

static struct world w;

static int setup(void **state)
{
	(void)state;
	world_init(&w, MODEL, SPEC);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(w.host.key_faults, 0);
	world_release(&w);
	return 0;
}

/* Ends everything and looks at what must be so then. */
static void assert_all_done(void)
{
	world_run(&w, 20000);
	assert_int_equal(fake_count_keys(&w.host, "t/"), 0);
	assert_int_equal(fake_count_keys(&w.host, "p/"), 0);
	assert_int_equal(fake_count_keys(&w.host, "r/"), 0);
	assert_int_equal(fake_count_keys(&w.host, "x/"), 0);
}

static int64_t visible_ms(const char *path)
{
	char out[512];

	snprintf(out, sizeof(out), "infer/app/out/%s", path);
	return fake_visible_at(&w.host, out) / NS_PER_MS;
}

static void test_endpoint_runs(void **state)
{
	(void)state;
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	assert_null(fake_content(&w.host, "infer/app/error"));
	assert_string_equal(fake_content(&w.host, "infer/app/slices.csv"),
			    "slice,precision,accuracy,ms,ms_one\n0.25,f32,50.0000,20.0000,20.0000\n"
			    "1,f32,90.0000,100.0000,100.0000\n");
	sched_post_endpoint_ctl(w.s, "app", "stop");
	world_run(&w, 1);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "stopped\n");
	world_crash(&w);
	world_restart(&w);
	world_run(&w, 10);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "stopped\n");
	sched_post_endpoint_ctl(w.s, "app", "start");
	world_run(&w, 1);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	sched_post_endpoint_spec(w.s, "app", "{\"model\":\"none\"}", 16);
	world_run(&w, 1);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "failed\n");
	assert_non_null(strstr(fake_content(&w.host, "infer/app/error"), "no such model"));
	sched_post_endpoint_spec(w.s, "app", SPEC, strlen(SPEC));
	world_run(&w, 1);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	assert_null(fake_content(&w.host, "infer/app/error"));
}

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

/* A queue that is removed at once is answered bit by bit: 100,000 answers in memory would be some hundred MB. */
static void test_queue_removed(void **state)
{
	const int n = 3000;
	size_t most = 0;

	(void)state;
	for (int i = 0; i < n; i++) {
		char path[32];

		snprintf(path, sizeof(path), "b/%04d.png", i);
		world_put(&w, path, "1");
	}
	w.host.publish_ns = NS_PER_MS;
	world_deadline(&w, "b", "100s");
	world_run(&w, 1);
	sched_post_batch(w.s, "app", BATCH_REMOVED, "b", 0);
	for (int i = 0; i < 5000; i++) {
		world_run(&w, 1);
		if (w.s->outbox.outstanding > most)
			most = w.s->outbox.outstanding;
	}
	assert_true(most > 10 && most <= 128);
	assert_true(world_number(&w, "out/b/task.json", "instances") == n);
	assert_true(world_number(&w, "out/b/task.json", "dropped") > n - 100);
	assert_non_null(strstr(world_text(&w, "out/b/2999.png.json", "error"), "removed"));
	w.host.publish_ns = 0;
}

static void test_removed(void **state)
{
	(void)state;
	for (int i = 0; i < 12; i++) {
		char path[32];

		snprintf(path, sizeof(path), "b/%02d.png", i);
		world_put(&w, path, "1");
	}
	world_remove(&w, "b/00.png"); /* before submission: as if it had never been there */
	world_deadline(&w, "b", "10s");
	world_run(&w, 10);
	world_remove(&w, "b/11.png"); /* queued */
	world_remove(&w, "b/01.png"); /* runs */
	assert_all_done();
	assert_null(world_status(&w, "b/00.png"));
	assert_string_equal(world_status(&w, "b/11.png"), "dropped");
	assert_non_null(strstr(world_text(&w, "out/b/11.png.json", "error"), "removed"));
	assert_non_null(strstr(fake_content(&w.host, "infer/app/out/b/11.png.json"), "\"slice\":\tnull"));
	assert_string_equal(world_status(&w, "b/01.png"), "ok");
	assert_true(world_number(&w, "out/b/task.json", "instances") == 11);
	assert_true(world_number(&w, "out/b/task.json", "dropped") == 1);
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

static void test_failed_instances(void **state)
{
	(void)state;
	world_put(&w, "b/bad.png", "bad");
	world_put(&w, "b/empty.png", "");
	world_put(&w, "b/good.png", "1");
	world_put(&w, "b/comma,\"quote\".png", "1");
	assert_all_done();
	assert_string_equal(world_status(&w, "b/bad.png"), "failed");
	assert_non_null(world_text(&w, "out/b/bad.png.json", "error"));
	assert_string_equal(world_status(&w, "b/empty.png"), "failed");
	assert_string_equal(world_status(&w, "b/good.png"), "ok");
	assert_non_null(strstr(fake_content(&w.host, "infer/app/out/b/results.csv"),
			       "\n\"b/comma,\"\"quote\"\".png\",ok,"));
	assert_true(world_number(&w, "out/b/task.json", "failed") == 2);
}

static void test_long_names(void **state)
{
	char name[256], path[300];

	(void)state;
	memset(name, 'x', 255);
	name[255] = '\0';
	snprintf(path, sizeof(path), "b/%s", name);
	world_put(&w, path, "1");
	assert_all_done();
	assert_true(world_number(&w, "out/b/task.json", "ok") == 1);
	snprintf(path, sizeof(path), "infer/app/in/b/%s", name);
	assert_string_equal(fake_xattr(&w.host, path, "user.state"), "ok");
	assert_non_null(fake_content(&w.host, fake_xattr(&w.host, path, "user.result")));
	assert_true(strlen(strrchr(fake_xattr(&w.host, path, "user.result"), '/')) <= 256);
}

static void test_publication_errors(void **state)
{
	(void)state;
	w.host.publish_error = -28; /* ENOSPC: tried again until it works */
	world_put(&w, "a.png", "1");
	world_run(&w, 2000);
	assert_null(world_status(&w, "a.png"));
	w.host.publish_error = 0;
	assert_all_done();
	assert_true(world_answered_once(&w, "a.png"));
	w.host.publish_error = -21; /* EISDIR: can't ever be there; the xattr is the answer */
	world_put(&w, "b.png", "1");
	world_run(&w, 2000);
	w.host.publish_error = 0;
	assert_string_equal(fake_xattr(&w.host, "infer/app/in/b.png", "user.state"), "ok");
	w.host.commit_error = -28; /* a submission that can't be recorded is made later */
	world_put(&w, "c.png", "1");
	world_run(&w, 2000);
	assert_null(fake_xattr(&w.host, "infer/app/in/c.png", "user.state"));
	w.host.commit_error = 0;
	assert_all_done();
	assert_true(world_answered_once(&w, "c.png"));
}

static void test_explained(void **state)
{
	static const char spec[] = "{\"model\":\"m\",\"batch\":4,\"explain\":[\"gradcam\"]}";
	int64_t done;

	(void)state;
	fake_put(&w.host, "infer/app/spec.json", spec);
	sched_post_endpoint_spec(w.s, "app", spec, strlen(spec));
	world_run(&w, 1);
	for (int i = 0; i < 8; i++) {
		char path[32];

		snprintf(path, sizeof(path), "b/%02d.png", i);
		world_put(&w, path, i == 3 ? "bad" : "1");
	}
	world_deadline(&w, "b", "5s");
	world_run(&w, 210);
	done = visible_ms("b/task.json");
	assert_true(done > 0); /* predictions are complete without their pictures */
	assert_null(fake_content(&w.host, "infer/app/out/b/00.png.gradcam.png"));
	assert_int_equal(fake_count_keys(&w.host, "x/"), 7);
	world_crash(&w);
	world_restart(&w);
	assert_all_done();
	for (int i = 0; i < 8; i++) {
		char path[64];

		snprintf(path, sizeof(path), "infer/app/out/b/%02d.png.gradcam.png", i);
		assert_int_equal(fake_times(&w.host, path), i != 3);
	}
	assert_true(world_stat(&w, "explained") == 7);
	assert_true(world_answered_once(&w, "b/00.png"));
}

static void test_endpoint_gone(void **state)
{
	(void)state;
	for (int i = 0; i < 12; i++) {
		char path[32];

		snprintf(path, sizeof(path), "b/%02d.png", i);
		world_put(&w, path, "1");
	}
	w.host.publish_ns = 20 * NS_PER_MS;
	world_deadline(&w, "b", "10s");
	world_run(&w, 130); /* one answer is visible, three are on their way, two mini-batches run */
	assert_non_null(fake_content(&w.host, "infer/app/out/b/00.png.json"));
	assert_null(fake_content(&w.host, "infer/app/out/b/01.png.json"));
	sched_post_endpoint_gone(w.s, "app");
	world_run(&w, 0);
	fake_host_refuse(&w.host, "infer/app"); /* as fs does when the directory is gone */
	fake_remove(&w.host, "infer/app");
	assert_all_done();
	assert_null(fake_content(&w.host, "infer/app/out/b/01.png.json"));
	w.host.publish_ns = 0;
	/* Made again: numbers go on. */
	fake_put(&w.host, "infer/app/spec.json", SPEC);
	sched_post_endpoint_spec(w.s, "app", SPEC, strlen(SPEC));
	world_run(&w, 1);
	world_crash(&w);
	world_restart(&w);
	world_put(&w, "x.png", "1");
	assert_all_done();
	assert_string_equal(world_text(&w, "out/x.png.json", "task"), "app-000002");
}

static void test_stopped_endpoint(void **state)
{
	(void)state;
	sched_post_endpoint_ctl(w.s, "app", "stop");
	world_put(&w, "b/1.png", "1");
	world_put(&w, "c/1.png", "1");
	world_deadline(&w, "b", "500ms");
	world_run(&w, 499);
	assert_null(world_status(&w, "b/1.png"));
	world_run(&w, 2000);
	assert_string_equal(world_status(&w, "b/1.png"), "dropped");
	assert_non_null(strstr(world_text(&w, "out/b/1.png.json", "error"), "stopped"));
	assert_null(world_status(&w, "c/1.png")); /* waits */
	sched_post_endpoint_ctl(w.s, "app", "start");
	assert_all_done();
	assert_string_equal(world_status(&w, "c/1.png"), "ok");
}

static bool ends_with(const char *text, const char *end)
{
	return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

/* How often `part` is in it. */
static int count_of(const char *text, const char *part)
{
	int n = 0;

	while ((text = strstr(text, part))) {
		text += strlen(part);
		n++;
	}
	return n;
}

/* As tail -f, each time it looks. */
static void follow(struct buf *ret, size_t *at)
{
	const char *text = fake_content(&w.host, "events");
	size_t len = text ? strlen(text) : 0;

	if (len < *at)
		*at = 0;
	if (text)
		buf_add(ret, text + *at, len - *at);
	*at = len;
}

/* The number in the last task's name: they count from 1. */
static int tasks_of(const char *text)
{
	int n = 0, no;

	for (; (text = strstr(text, "\"what\":\"app-")); text++)
		if (sscanf(text, "\"what\":\"app-%d", &no) == 1 && no > n)
			n = no;
	return n;
}

static void test_status_files(void **state)
{
	struct buf followed = BUF_INIT;
	size_t at = 0;

	(void)state;
	world_put(&w, "b/1.png", "1");
	world_deadline(&w, "b", "300ms");
	assert_all_done();
	assert_non_null(strstr(fake_content(&w.host, "status"), "infer/app running model=m/1 queued=0 ok=1"));
	assert_non_null(strstr(fake_content(&w.host, "metrics"),
			       "inferfs_answers_total{endpoint=\"app\",status=\"ok\"} 1\n"));
	assert_int_equal(count_of(fake_content(&w.host, "events"), "\"what\":\"app-000001\",\"count\":1}\n"),
			 3);
	assert_int_equal(count_of(fake_content(&w.host, "events"), "\"event\":\"submitted\""), 1);
	assert_int_equal(count_of(fake_content(&w.host, "events"), "\"event\":\"started\""), 1);
	assert_int_equal(count_of(fake_content(&w.host, "events"), "\"event\":\"finished\""), 1);
	assert_true(world_stat(&w, "ok") == 1);
	assert_true(world_stat(&w, "throughput") == 0); /* 20 s later */
	assert_true(world_stat(&w, "effective_accuracy") == 90);
	assert_non_null(strstr(fake_content(&w.host, "infer/app/schedule.csv"),
			       "task,N,D_ms,n_0.25_f32,n_1_f32,planned_p_eff,real_p_eff,method,solve_us,late,"
			       "dropped\napp-000001,1,300,0,1,90.0000,90.0000,"));
	world_crash(&w);
	world_restart(&w);
	world_run(&w, 500);
	assert_non_null(strstr(fake_content(&w.host, "events"), "\"what\":\"app-000001\",\"count\":1}\n"));
	assert_non_null(strstr(fake_content(&w.host, "infer/app/schedule.csv"), "\napp-000001,1,300,"));
	for (int i = 0; i < 12000; i++) {
		char path[32];

		snprintf(path, sizeof(path), "%d.png", i);
		world_put(&w, path, "1");
		if (i % 3 == 0)
			world_run(&w, 60);
		if (i % 45 == 0) /* 0.9 s */
			follow(&followed, &at);
	}
	/* It turned under load, too: lines had to wait for it. */
	assert_int_equal(strncmp(fake_content(&w.host, "events.old"), "{\"time\":", 8), 0);
	for (int i = 0; i < 100; i++) {
		world_run(&w, 1000);
		follow(&followed, &at);
	}
	assert_all_done();
	assert_int_equal(count_of(followed.data, "\"event\":\"finished\""), tasks_of(followed.data));
	assert_int_equal(count_of(followed.data, "\"event\":\"submitted\""), tasks_of(followed.data));
	buf_release(&followed);
	world_run(&w, 200000);
	/* Two turns of the file: what does not fit any more is gone, no line is cut. */
	assert_true(strlen(fake_content(&w.host, "events")) < 300000);
	assert_true(strlen(fake_content(&w.host, "events.old")) > 1 << 18);
	assert_true(strlen(fake_content(&w.host, "events.old")) < 3 << 18);
	assert_int_equal(strncmp(fake_content(&w.host, "events.old"), "{\"time\":", 8), 0);
	assert_true(ends_with(fake_content(&w.host, "events.old"), "}\n"));
	world_put(&w, "b/2.png", "1");
	world_deadline(&w, "b", "300ms");
	assert_all_done();
	assert_true(ends_with(fake_content(&w.host, "events"), "\"count\":1}\n"));
	assert_true(strlen(fake_content(&w.host, "infer/app/schedule.csv")) < 300000);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_endpoint_runs),
		T(test_loose_file),
		T(test_loose_files_form_a_task),
		T(test_settle_zero),
		T(test_batch_is_quiet),
		T(test_deadline_submits),
		T(test_deadline_waits_for_handles),
		T(test_deadline_before_files),
		T(test_renamed_in),
		T(test_precedence),
		T(test_absolute),
		T(test_loose_deadlines),
		T(test_file_deadline_moves),
		T(test_moved_deadline_replans),
		T(test_removed),
		T(test_queue_removed),
		T(test_further_task),
		T(test_failed_instances),
		T(test_long_names),
		T(test_publication_errors),
		T(test_explained),
		T(test_endpoint_gone),
		T(test_stopped_endpoint),
		T(test_status_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
