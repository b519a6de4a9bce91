/*
 * Serving, rule by rule (DESIGN section 2), on the fake clock with the null executor: what comes out, and what becomes of instances
 * and endpoints that go.
 */
#include "tests/support/serving.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void test_endpoint_runs(void **state)
{
	(void)state;
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	assert_null(fake_content(&w.host, "infer/app/error"));
	assert_string_equal(fake_content(&w.host, "infer/app/slices.csv"),
			    "slice,precision,accuracy,ms,ms_one,loaded\n"
			    "0.25,f32,50.0000,20.0000,20.0000,yes\n"
			    "1,f32,90.0000,100.0000,100.0000,yes\n");
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

/* What is not kept loaded stands in slices.csv and runs nothing, were it ever so good. */
static void test_idle_submodel(void **state)
{
	static const char model[] = "{\"classes\":10,\"submodels\":["
				    "{\"slice\":0.25,\"accuracy\":0.5,\"ms\":20},"
				    "{\"slice\":0.5,\"accuracy\":0.99,\"ms\":1,\"idle\":true},"
				    "{\"slice\":1,\"accuracy\":0.9,\"ms\":100}]}";

	(void)state;
	world_init(&w, model, SPEC);
	assert_non_null(strstr(fake_content(&w.host, "infer/app/slices.csv"),
			       "\n0.5,f32,99.0000,1.0000,1.0000,no\n"));
	world_put(&w, "free/1.png", "1");
	for (int i = 0; i < 9; i++) {
		char path[32];

		snprintf(path, sizeof(path), "due/%d.png", i);
		world_put(&w, path, "1");
		snprintf(path, sizeof(path), "late/%d.png", i);
		world_put(&w, path, "1");
	}
	world_deadline(&w, "late", "30ms");
	world_deadline(&w, "due", "400ms");
	assert_all_done();
	assert_true(world_number(&w, "out/free/1.png.json", "slice") == 1);
	assert_string_equal(world_status(&w, "due/0.png"), "ok");
	assert_string_equal(world_status(&w, "late/8.png"), "dropped");
	for (const char *p = fake_content(&w.host, "infer/app/schedule.csv"); p; p = strchr(p + 1, '\n')) {
		int fast, idle, wide;

		/* task,N,D_ms,n_0.25_f32,n_0.5_f32,n_1_f32 */
		if (sscanf(p, "\n%*[^,],%*[^,],%*[^,],%d,%d,%d", &fast, &idle, &wide) == 3)
			assert_int_equal(idle, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_endpoint_runs),    T(test_removed),
		T(test_queue_removed),    T(test_failed_instances),
		T(test_long_names),       T(test_publication_errors),
		T(test_explained),        T(test_endpoint_gone),
		T(test_stopped_endpoint), cmocka_unit_test_teardown(test_idle_submodel, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
