/*
 * The daemon dies after each k-th thing that it does to its host, and comes again: every instance that was
 * there is answered exactly once, and no record is left.
 */
#include "tests/support/fake_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL                                                        \
	"{\"classes\":10,\"submodels\":["                            \
	"{\"slice\":0.25,\"accuracy\":0.5,\"ms\":20,\"one_ms\":10}," \
	"{\"slice\":1,\"accuracy\":0.9,\"ms\":100,\"one_ms\":50}]}"
#define SPEC  "{\"model\":\"m\",\"batch\":4,\"explain\":[\"gradcam\"]}"
#define AHEAD "{\"model\":\"m\",\"batch\":4,\"explain\":[\"gradcam\"],\"ahead\":true}"

/* What a user does, step by step; the daemon may be dead meanwhile and hear nothing of it. */
static void act(struct world *w, int step)
{
	char path[32];

	switch (step) {
	case 0:
		for (int i = 0; i < 10; i++) {
			snprintf(path, sizeof(path), "b/%d.png", i);
			world_put(w, path, i == 2 ? "bad" : "1");
		}
		break;
	case 1:
		world_deadline(w, "b", "1s");
		break;
	case 2:
		world_put(w, "loose.png", "1");
		world_put(w, "own.png", "1");
		world_deadline(w, "own.png", "700ms");
		break;
	case 3:
		world_put(w, "b/10.png", "1");
		break;
	case 4:
		world_remove(w, "b/9.png");
		break;
	case 5:
		world_deadline(w, "b", "900ms");
		break;
	case 6:
		world_deadline(w, "b/8.png", "800ms");
		break;
	}
}
#define STEPS 7

static const char *const instances[] = {"b/0.png", "b/1.png", "b/2.png", "b/3.png",  "b/4.png",   "b/5.png",
					"b/6.png", "b/7.png", "b/8.png", "b/10.png", "loose.png", "own.png"};

static void come_again(struct world *w, int again)
{
	world_crash(w);
	w->host.calls_left = again;
	world_restart(w);
	if (w->host.dead) { /* it died while it recovered */
		world_crash(w);
		world_restart(w);
	}
}

/* Dies at the k-th call, and once more at the `again`-th call of the next life (-1: not), with so long until the first batch is submitted.
 * True if it died. */
static bool live_through(const char *spec, int wait_ms, int k, int again)
{
	struct world w;
	bool died = false;

	world_init(&w, MODEL, spec);
	w.host.publish_ns = 3 * NS_PER_MS;
	w.host.calls_left = k;
	for (int step = 0; step < STEPS; step++) {
		act(&w, step);
		for (int i = 0; i < (step ? 30 : wait_ms) / 5; i++) {
			world_run(&w, 5);
			if (w.host.dead) {
				died = true;
				come_again(&w, again);
				again = -1;
			}
		}
	}
	for (int i = 0; i < 1000; i++) {
		world_run(&w, 10);
		if (w.host.dead) {
			died = true;
			come_again(&w, again);
			again = -1;
		}
	}
	for (size_t i = 0; i < sizeof(instances) / sizeof(instances[0]); i++)
		if (!world_answered_once(&w, instances[i]))
			fail_msg("crash at %d: %s: %s, answered %d times", k, instances[i],
				 world_status(&w, instances[i]) ? world_status(&w, instances[i])
								: "no answer",
				 -1);
	/* Removed while it was queued, or before anybody knew of it. */
	assert_true(!world_status(&w, "b/9.png") || world_answered_once(&w, "b/9.png"));
	assert_string_equal(world_status(&w, "b/2.png"), "failed");
	assert_non_null(fake_content(&w.host, "infer/app/out/b/task.json"));
	for (size_t i = 0; i < 10; i++) {
		char row[64];
		const char *csv = fake_content(&w.host, "infer/app/out/b/results.csv"), *found;

		snprintf(row, sizeof(row), "\n%s,", instances[i]);
		found = csv ? strstr(csv, row) : NULL;
		if (!found || strstr(found + 1, row))
			fail_msg("crash at %d: %s is in results.csv %s", k, instances[i],
				 found ? "twice" : "not");
	}
	for (size_t i = 0; i < sizeof(instances) / sizeof(instances[0]); i++) {
		char path[64];
		const char *status = world_status(&w, instances[i]);

		snprintf(path, sizeof(path), "infer/app/out/%s.gradcam.png", instances[i]);
		if (strcmp(status, "ok") == 0 && fake_times(&w.host, path) != 1)
			fail_msg("crash at %d: %s appeared %d times", k, path, fake_times(&w.host, path));
	}
	assert_int_equal(fake_count_keys(&w.host, ""), 1); /* the number */
	assert_int_equal(w.host.key_faults, 0);
	world_release(&w);
	return died;
}

static void test_dies_at_each_call(void **state)
{
	int k = 1;

	(void)state;
	while (live_through(SPEC, 30, k, -1))
		k++;
	assert_in_range(k, 60, 1000);
}

/* The same with some of it computed before it is submitted, and some that runs then. */
static void test_dies_with_what_was_computed_ahead(void **state)
{
	int k = 1;

	(void)state;
	while (live_through(AHEAD, 150, k, -1))
		k++;
	assert_in_range(k, 60, 1000);
}

static void test_dies_twice(void **state)
{
	(void)state;
	for (int k = 1; k < 90; k += 3)
		for (int again = 1; again < 60; again += 7)
			live_through(SPEC, 30, k, again);
}

/*
 * What the records say when they are damaged or of nobody is removed or left alone, and nothing falls over.
 */
static void test_strange_keys(void **state)
{
	static const struct {
		const char *key, *value;
		size_t left;
	} keys[] = {
		{"t/app/0000000101", "", 0},
		{"t/app/0000000102", "1 x", 0},
		{"t/app/0000000103", "1 5 9 9 9 9 b", 0},
		{"p/app/0000000104/0000000000", "77 b/x.png", 0}, /* of no task */
		{"r/app/0000000105/0000000000", "0.5 ok\nrow\n", 0},
		{"x/app/0000000106/0000000000", "5 1 1", 0},
		{"x/app/0000000107/0000000000", "5 900 -3 0.5 b/x.png", 0},
		{"t/gone/0000000101", "1 5 0 0 0 0 b", 0},
		{"t/", "", 1},
		{"t/app", "", 1},
		{"t//1", "", 1},
		{"t/app/x", "", 1},
		{"job/x", "", 1},
	};
	struct world w;

	(void)state;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct host_op op = {.type = HOST_PUT,
				     .key = keys[i].key,
				     .key_len = strlen(keys[i].key),
				     .value = keys[i].value,
				     .value_len = strlen(keys[i].value)};
		size_t before;

		world_init(&w, MODEL, SPEC);
		world_crash(&w);
		before = fake_count_keys(&w.host, "");
		fake_host_ops.commit(&w.host, &op, 1);
		world_restart(&w);
		world_run(&w, 5000);
		if (strncmp(keys[i].key, "job/", 4) != 0)
			assert_int_equal(fake_count_keys(&w.host, "") - before, keys[i].left);
		world_put(&w, "a.png", "1");
		world_run(&w, 1000);
		assert_true(world_answered_once(&w, "a.png"));
		assert_int_equal(w.host.key_faults, 0);
		world_release(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dies_at_each_call),
		cmocka_unit_test(test_dies_with_what_was_computed_ahead),
		cmocka_unit_test(test_dies_twice),
		cmocka_unit_test(test_strange_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
