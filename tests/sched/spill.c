/* Instances that wait on disk: nearly all, the bound being small. */
#include "tests/support/serving.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BOUND 100
#define MANY  600 /* two records of STORE_TOGETHER, and some more */
/* Beyond the bound: a record that is gathered or was read, and what runs. */
#define MOST (BOUND + STORE_TOGETHER + 16)

static int64_t most;

static int setup_bound(void **state)
{
	setup(state);
	w.options.queue = BOUND;
	most = MOST;
	world_crash(&w);
	world_restart(&w);
	world_run(&w, 1);
	return 0;
}

#define B(name) cmocka_unit_test_setup_teardown(name, setup_bound, teardown)

static const char *name_of(const char *dir, int i)
{
	static char path[2][64];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s%s%04d.png", dir, *dir ? "/" : "", i);
	return path[turn];
}

/* Copied, but the batch is not submitted yet. */
static void copy(const char *dir, int n)
{
	if (*dir)
		world_mkdir(&w, dir);
	for (int i = 0; i < n; i++) {
		world_put(&w, name_of(dir, i), "3");
		assert_in_range(w.s->in_memory, 0, most);
	}
}

/* Looks at the memory at each step. */
static void run_bounded(int64_t ms)
{
	for (int64_t i = 0; i < ms; i += 50) {
		world_run(&w, 50);
		assert_in_range(w.s->in_memory, 0, most);
	}
}

static int64_t answered_ms(const char *dir, int i)
{
	char path[96];

	snprintf(path, sizeof(path), "%s.json", name_of(dir, i));
	return visible_ms(path);
}

static int count_status(const char *dir, int n, const char *status)
{
	int count = 0;

	for (int i = 0; i < n; i++) {
		const char *got = world_status(&w, name_of(dir, i));

		assert_true(world_answered_once(&w, name_of(dir, i)));
		count += strcmp(got, status) == 0;
	}
	return count;
}

static const char *state_of(const char *path)
{
	char whole[128];

	snprintf(whole, sizeof(whole), "infer/app/in/%s", path);
	return fake_xattr(&w.host, whole, "user.state");
}

static struct endpoint *app(void)
{
	return endpoint_get(w.s, "app", false);
}

static void assert_nothing_waits(void)
{
	assert_all_done();
	assert_int_equal(w.s->in_memory, 0);
	assert_int_equal(w.s->in_memory_bytes, 0);
	assert_int_equal(app()->spill.count, 0);
	assert_int_equal(w.s->dispatch.n_queued, 0);
}

static void run_in_order(bool crash)
{
	world_run(&w, 1100); /* quiet */
	assert_in_range(app()->spill.count, MANY - MOST, MANY);
	for (int i = 0; i < MANY; i++)
		assert_non_null(state_of(name_of("b", i)));
	assert_string_equal(state_of(name_of("b", MANY - 1)), "queued");
	assert_in_range(endpoint_waiting(app()), MANY - 8, MANY); /* at most two mini-batches ran */
	if (crash) {
		world_crash(&w);
		world_restart(&w);
	}
	run_bounded(20000);
	assert_int_equal(count_status("b", MANY, "ok"), MANY);
	for (int i = 1; i < MANY; i++)
		assert_in_range(answered_ms("b", i) - answered_ms("b", i - 1), 0, 200);
	assert_int_equal((int)world_number(&w, "out/b/task.json", "instances"), MANY);
	assert_nothing_waits();
}

static void test_order(void **state)
{
	(void)state;
	copy("b", MANY);
	run_in_order(false);
}

static void test_order_after_crash(void **state)
{
	(void)state;
	copy("b", MANY);
	run_in_order(true);
}

/* All of it goes to disk when it is submitted. */
static void test_order_at_once(void **state)
{
	(void)state;
	most = MANY;
	w.s->options.queue = 0;
	copy("b", MANY);
	assert_int_equal(app()->spill.count, 0);
	most = MOST;
	w.s->options.queue = BOUND;
	run_in_order(false);
}

/* The plan is of all that wait. */
static void test_plan_counts_all(void **state)
{
	(void)state;
	copy("b", MANY);
	world_deadline(&w, "b", "8s");
	run_bounded(9000);
	assert_int_equal(count_status("b", MANY, "ok"), MANY);
	/* 150 mini-batches: n · 20 + (150 - n) · 100 ≤ 8000, so the fast one for 88 at least, and the publisher needs its time. */
	assert_in_range((int)(10 * world_number(&w, "out/b/task.json", "effective_accuracy")), 630, 666);
	assert_nothing_waits();
}

static void test_draft(void **state)
{
	(void)state;
	copy("b", MANY);
	assert_int_equal(fake_count_keys(&w.host, "p/"), 2);
	assert_int_equal(fake_count_keys(&w.host, "t/"), 0);
	assert_int_equal(app()->spill.count, 2 * STORE_TOGETHER);
	assert_string_equal(state_of(name_of("b", 0)), "queued");
	world_remove(&w, name_of("b", 1)); /* it was not submitted: no answer */
	world_put(&w, name_of("b", 2), "7");
	world_deadline(&w, name_of("b", 3), "300ms");
	world_deadline(&w, "b", "60s");
	run_bounded(500);
	world_crash(&w); /* those three are in the draft's records, and not of its task */
	world_restart(&w);
	run_bounded(60000);
	assert_null(world_status(&w, name_of("b", 1)));
	assert_string_equal(world_text(&w, "out/b/0002.png.json", "label"), "5"); /* '7' % 10 */
	assert_int_equal((int)world_number(&w, "out/b/0003.png.json", "deadline_ms"), 300);
	assert_int_equal((int)world_number(&w, "out/b/task.json", "instances"), MANY - 1);
	for (int i = 0; i < MANY; i++)
		assert_true(i == 1 || world_answered_once(&w, name_of("b", i)));
	assert_nothing_waits();
}

static void test_draft_is_removed(void **state)
{
	(void)state;
	copy("b", MANY);
	fake_move(&w.host, "infer/app/in/b", "infer/app/elsewhere");
	sched_post_batch(w.s, "app", BATCH_REMOVED, "b", 0);
	run_bounded(2000);
	assert_nothing_waits();
	assert_null(world_status(&w, name_of("b", 0)));
	copy("b", 10);
	run_bounded(3000);
	assert_int_equal(count_status("b", 10, "ok"), 10);
	assert_nothing_waits();
}

static void test_draft_and_crash(void **state)
{
	(void)state;
	copy("b", MANY);
	world_remove(&w, name_of("b", 1));
	world_crash(&w);
	world_restart(&w);
	run_bounded(25000);
	assert_int_equal(fake_times(&w.host, "infer/app/out/b/0001.png.json"), 0);
	for (int i = 0; i < MANY; i++)
		assert_true(i == 1 || world_answered_once(&w, name_of("b", i)));
	assert_int_equal((int)world_number(&w, "out/b/task.json", "instances"), MANY - 1);
	assert_nothing_waits();
}

/* The disk is full while they are gathered: they stay in memory and are submitted when there is room. */
static void test_draft_can_not_be_recorded(void **state)
{
	(void)state;
	world_mkdir(&w, "b");
	w.host.commit_error = -ENOSPC;
	for (int i = 0; i < 2 * STORE_TOGETHER; i++)
		world_put(&w, name_of("b", i), "3");
	assert_int_equal(app()->spill.count, 0);
	world_run(&w, 1500);
	w.host.commit_error = 0;
	world_run(&w, 30000);
	assert_int_equal(count_status("b", 2 * STORE_TOGETHER, "ok"), 2 * STORE_TOGETHER);
	assert_nothing_waits();
}

static void test_submission_can_not_be_recorded(void **state)
{
	(void)state;
	copy("b", MANY);
	w.host.commit_error = -ENOSPC;
	world_run(&w, 2500);
	assert_non_null(batch_named(app(), "b", false)->draft);
	assert_true(list_empty(&batch_named(app(), "b", false)->tasks));
	w.host.commit_error = 0;
	run_bounded(30000);
	assert_int_equal(count_status("b", MANY, "ok"), MANY);
	assert_nothing_waits();
}

static void test_removed(void **state)
{
	(void)state;
	copy("b", MANY);
	world_run(&w, 1100);
	world_remove(&w, name_of("b", MANY - 1));
	world_remove(&w, name_of("b", 300));
	world_run(&w, 200); /* answered at once, though its turn would come much later */
	assert_string_equal(world_status(&w, name_of("b", MANY - 1)), "dropped");
	assert_non_null(strstr(world_text(&w, "out/b/0300.png.json", "error"), "removed"));
	world_put(&w, name_of("b", 300), "8"); /* another one under the same name */
	run_bounded(30000);
	assert_string_equal(world_text(&w, "out/b/0300.png.json", "label"), "6");
	assert_int_equal(fake_times(&w.host, "infer/app/out/b/0300.png.json"), 2);
	for (int i = 0; i < MANY; i++)
		assert_true(i == 300 || world_answered_once(&w, name_of("b", i)));
	assert_nothing_waits();
}

static void test_directory_moved_away(void **state)
{
	(void)state;
	copy("b", MANY);
	copy("c", 300);
	world_run(&w, 1100);
	fake_move(&w.host, "infer/app/in/b", "infer/app/elsewhere");
	sched_post_batch(w.s, "app", BATCH_REMOVED, "b", 0);
	world_run(&w, 30000);
	assert_string_equal(world_status(&w, name_of("b", MANY - 1)), "dropped");
	assert_int_equal(count_status("c", 300, "ok"), 300);
	assert_nothing_waits();
}

static void test_rewritten(void **state)
{
	(void)state;
	copy("b", MANY);
	world_run(&w, 1100);
	world_put(&w, name_of("b", 590), "5"); /* also another inode */
	run_bounded(30000);
	assert_string_equal(world_text(&w, "out/b/0590.png.json", "label"), "3");
	assert_int_equal(count_status("b", MANY, "ok"), MANY);
	assert_int_equal((int)world_number(&w, "out/b/task.json", "instances"), MANY);
	assert_nothing_waits();
}

/* What can't be in time is dropped, bit by bit. */
static void test_deadline_passes(void **state)
{
	(void)state;
	copy("b", MANY);
	world_deadline(&w, "b", "1s");
	run_bounded(3000);
	assert_in_range(count_status("b", MANY, "ok"), 150, 200); /* 50 mini-batches of 20 ms */
	assert_int_equal(count_status("b", MANY, "ok") + count_status("b", MANY, "dropped"), MANY);
	assert_nothing_waits();
}

static void test_deadline_passes_while_stopped(void **state)
{
	(void)state;
	sched_post_endpoint_ctl(w.s, "app", "stop");
	copy("b", MANY);
	world_deadline(&w, "b", "1s");
	run_bounded(20000);
	assert_int_equal(count_status("b", MANY, "dropped"), MANY);
	assert_nothing_waits();
}

static void test_moved_deadline(void **state)
{
	(void)state;
	copy("b", MANY);
	world_deadline(&w, "b", "60s");
	world_run(&w, 100);
	world_deadline(&w, name_of("b", 580), "500ms"); /* of one that waits on disk */
	world_run(&w, 500);
	assert_string_equal(world_status(&w, name_of("b", 580)), "ok");
	world_crash(&w);
	world_restart(&w);
	world_deadline(&w, "b", "6s"); /* of all of them: counted from submission */
	run_bounded(8000);
	assert_int_equal(count_status("b", MANY, "ok"), MANY);
	for (int i = 0; i < MANY; i++)
		assert_in_range(answered_ms("b", i), 1, 6010);
	assert_nothing_waits();
}

/* Tasks that are due sooner are read first. */
static void test_several(void **state)
{
	(void)state;
	copy("slow", MANY);
	world_run(&w, 1100);
	most = MOST + STORE_TOGETHER; /* a page of one that has begun, and what is gathered of another */
	copy("soon", 300);
	world_deadline(&w, "soon", "4s");
	copy("", 300);
	run_bounded(4200);
	assert_int_equal(count_status("soon", 300, "ok"), 300);
	run_bounded(40000);
	assert_int_equal(count_status("slow", MANY, "ok"), MANY);
	assert_int_equal(count_status("", 300, "ok"), 300);
	assert_nothing_waits();
}

static void test_crashes(void **state)
{
	(void)state;
	copy("b", MANY);
	copy("", 300);
	world_deadline(&w, "b", "60s");
	for (int i = 0; i < 12; i++) {
		world_run(&w, 37 + 311 * (i % 4));
		world_crash(&w);
		world_restart(&w);
		assert_in_range(w.s->in_memory, 0, most);
		assert_int_equal(app()->spill.count + app()->instances.count, endpoint_waiting(app()));
	}
	run_bounded(60000);
	assert_int_equal(count_status("b", MANY, "ok"), MANY);
	assert_int_equal(count_status("", 300, "ok"), 300);
	assert_nothing_waits();
}

static void test_endpoint_goes(void **state)
{
	(void)state;
	copy("b", MANY);
	copy("c", MANY);
	world_deadline(&w, "b", "60s");
	fake_remove(&w.host, "infer/app");
	sched_post_endpoint_gone(w.s, "app");
	world_run(&w, 1000);
	assert_int_equal(w.s->in_memory, 0);
	assert_int_equal(w.s->in_memory_bytes, 0);
	assert_int_equal(w.s->dispatch.n_queued, 0);
	assert_int_equal(fake_count_keys(&w.host, "p/"), 0);
}

static int count_rows(const char *text, const char *status)
{
	int n = 0;

	for (const char *line = text; *line; line = strchr(line, '\n') + 1)
		n += strstr(line, status) && strstr(line, status) < strchr(line, '\n');
	return n;
}

/* Rows that are not kept in memory, and records that go bit by bit. */
static void test_long_results(void **state)
{
	char name[230];
	int n = 0;

	(void)state;
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	world_mkdir(&w, "b");
	for (; n < 40 * STORE_TOGETHER; n++) {
		char path[300];

		snprintf(path, sizeof(path), "b/%s%05d", name, n);
		world_put(&w, path, n == 7 ? "bad" : "3");
	}
	world_deadline(&w, "b", "51s"); /* time for nearly all, on the fast slice */
	world_run(&w, 20000);
	world_crash(&w);
	world_restart(&w);
	world_deadline(&w, "b", "50s");
	for (int i = 0; i < 2000 && !fake_content(&w.host, "infer/app/out/b/task.json"); i++)
		world_run(&w, 20);
	assert_non_null(fake_content(&w.host, "infer/app/out/b/task.json"));
	assert_int_equal(fake_count_keys(&w.host, "t/"), 0);
	assert_in_range(fake_count_keys(&w.host, "r/"), 1, n);
	assert_int_equal(
		count_rows(fake_content(&w.host, "infer/app/out/b/results.csv"), ",ok,") +
			count_rows(fake_content(&w.host, "infer/app/out/b/results.csv"), ",dropped,"),
		n - 1);
	assert_int_equal(count_rows(fake_content(&w.host, "infer/app/out/b/results.csv"), ",failed,"), 1);
	world_crash(&w); /* what is left of them goes at the next start */
	world_restart(&w);
	assert_int_equal(fake_count_keys(&w.host, "r/"), 0);
	assert_nothing_waits();
}

/* Also names count: a bound of bytes. */
static void test_bytes(void **state)
{
	(void)state;
	w.options.queue = 0;
	w.options.queue_bytes = 50 * (int64_t)(sizeof(struct instance) + 11);
	world_crash(&w);
	world_restart(&w);
	world_run(&w, 1);
	copy("b", MANY);
	world_run(&w, 1100);
	assert_in_range(w.s->in_memory_bytes, 0, (50 + STORE_TOGETHER) * (sizeof(struct instance) + 11));
	run_bounded(30000);
	assert_int_equal(count_status("b", MANY, "ok"), MANY);
	assert_nothing_waits();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		B(test_order),
		B(test_order_after_crash),
		B(test_order_at_once),
		B(test_plan_counts_all),
		B(test_draft),
		B(test_draft_is_removed),
		B(test_draft_and_crash),
		B(test_draft_can_not_be_recorded),
		B(test_submission_can_not_be_recorded),
		B(test_removed),
		B(test_directory_moved_away),
		B(test_rewritten),
		B(test_deadline_passes),
		B(test_deadline_passes_while_stopped),
		B(test_moved_deadline),
		B(test_several),
		B(test_crashes),
		B(test_endpoint_goes),
		B(test_long_results),
		B(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
