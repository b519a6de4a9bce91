/* status, metrics, events, schedule.csv and stats.json of an endpoint that serves. */
#include "tests/support/serving.h"

#include <string.h>

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
			       "dropped,failed,finished_ms,planned_0.25_f32,planned_1_f32\n"
			       "app-000001,1,300,0,1,90.0000,90.0000,"));
	assert_non_null(strstr(fake_content(&w.host, "infer/app/schedule.csv"), ",0,0,0,100.000,0,1\n"));
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

/* Three wide mini-batches were to take 300 ms; two take a second each, and there is no time for the last one. */
static void test_planned_and_real(void **state)
{
	const char *schedule;

	(void)state;
	for (int i = 0; i < 12; i++) {
		char path[16];

		snprintf(path, sizeof(path), "b/%d", i);
		world_put(&w, path, "1");
	}
	executor_null_set_factor(w.s->device[0].ex, 10);
	world_deadline(&w, "b", "800ms");
	assert_all_done();
	schedule = fake_content(&w.host, "infer/app/schedule.csv");
	assert_non_null(strstr(schedule, "\napp-000001,12,800,0,2,90.0000,0.0000,"));
	assert_true(ends_with(schedule, ",8,4,0,2000.000,0,3\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_status_files),
		T(test_planned_and_real),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
