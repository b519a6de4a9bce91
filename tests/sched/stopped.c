/* Tasks of an endpoint that is stopped wait, and cost those of another one nothing. */
#include "tests/support/serving.h"

#include <string.h>

/* A directory in in/ of the endpoint, renamed into it with its deadline (NULL: none): submitted at once. */
static void batch(const char *app, const char *name, int n, const char *deadline)
{
	char path[96];

	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "infer/%s/in/%s/%d", app, name, i);
		fake_put(&w.host, path, "1");
	}
	snprintf(path, sizeof(path), "infer/%s/in/%s", app, name);
	if (deadline)
		fake_setxattr(&w.host, path, "user.deadline", deadline);
	sched_post_batch(w.s, app, BATCH_RENAMED_IN, name, fake_ino(&w.host, path));
	world_run(&w, 0);
}

/* infer/other, stopped. */
static void make_other(void)
{
	fake_mkdir(&w.host, "infer/other/in");
	fake_put(&w.host, "infer/other/spec.json", SPEC);
	sched_post_endpoint_spec(w.s, "other", SPEC, strlen(SPEC));
	world_run(&w, 100);
	sched_post_endpoint_ctl(w.s, "other", "stop");
	world_run(&w, 100);
	assert_string_equal(fake_content(&w.host, "infer/other/state"), "stopped\n");
}

static bool answered(const char *app, const char *path, const char *status)
{
	char out[96], want[32];
	const char *text;

	snprintf(out, sizeof(out), "infer/%s/out/%s.json", app, path);
	snprintf(want, sizeof(want), "\"status\":\t\"%s\"", status);
	text = fake_content(&w.host, out);
	return text && strstr(text, want) && fake_times(&w.host, out) == 1;
}

/* Two tasks that share a mini-batch still do with any number of tasks between them that can't run. */
static void test_between(void **state)
{
	char name[16], deadline[32];

	(void)state;
	make_other();
	batch("app", "busy", 8, "100s"); /* what comes now waits and is chosen together */
	batch("app", "a", 1, "200s");
	for (int i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "b%d", i);
		snprintf(deadline, sizeof(deadline), "%dms", 200001 + i);
		batch("other", name, 1, deadline);
	}
	batch("app", "c", 1, "201s");
	world_run(&w, 100000);
	assert_true(answered("app", "a/0", "ok"));
	assert_true(visible_ms("a/0.json") > 0);
	assert_int_equal(visible_ms("a/0.json"), visible_ms("c/0.json"));
	assert_false(fake_ino(&w.host, "infer/other/out/b0/0.json"));
}

/* They are dropped when their time is over, those without a deadline wait; all else runs when it is started. */
static void test_started_again(void **state)
{
	(void)state;
	make_other();
	batch("other", "early", 3, "2s");
	batch("other", "free", 3, NULL);
	batch("other", "late", 3, "9s");
	world_run(&w, 1900);
	assert_false(fake_ino(&w.host, "infer/other/out/early/0.json"));
	world_run(&w, 200);
	for (int i = 0; i < 3; i++) {
		char path[32];

		snprintf(path, sizeof(path), "early/%d", i);
		assert_true(answered("other", path, "dropped"));
	}
	assert_non_null(strstr(fake_content(&w.host, "infer/other/out/early/0.json"), "stopped"));
	world_run(&w, 3000);
	assert_false(fake_ino(&w.host, "infer/other/out/free/0.json"));
	assert_false(fake_ino(&w.host, "infer/other/out/late/0.json"));
	sched_post_endpoint_ctl(w.s, "other", "start");
	world_run(&w, 2000);
	for (int i = 0; i < 3; i++) {
		char path[32];

		snprintf(path, sizeof(path), "free/%d", i);
		assert_true(answered("other", path, "ok"));
		snprintf(path, sizeof(path), "late/%d", i);
		assert_true(answered("other", path, "ok"));
	}
	assert_all_done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_between),
		T(test_started_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
