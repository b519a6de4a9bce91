/* What a task is told at its submission that can be kept: alone, behind others, in an overload, after its deadline was moved. */
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

#define SPEC "{\"model\":\"m\",\"batch\":32,\"policy\":\"optimal\"}"

static struct world w;

static int setup(void **state)
{
	(void)state;
	world_init(&w, TABLE3, SPEC);
	fake_mkdir(&w.host, "infer/other/in");
	sched_post_endpoint_spec(w.s, "other", SPEC, strlen(SPEC));
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

static const char *submit(const char *app, const char *name, int n, const char *deadline)
{
	static char path[64];

	world_submit(&w, app, name, n, deadline, "1");
	snprintf(path, sizeof(path), "infer/%s/in/%s", app, name);
	return path;
}

static int told(const char *path)
{
	const char *text = fake_xattr(&w.host, path, "user.admitted");

	return text ? atoi(text) : -1;
}

static int task_number(const char *name, const char *key)
{
	char path[64];

	snprintf(path, sizeof(path), "out/%s/task.json", name);
	return (int)world_number(&w, path, key);
}

static void test_alone(void **state)
{
	(void)state;
	/* 25 mini-batches, as dispatch.c's test_overload has it. */
	assert_int_equal(told(submit("app", "b", 3200, "400ms")), 800);
	world_run(&w, 1000);
	assert_int_equal(task_number("b", "admitted"), 800);
	assert_int_equal(task_number("b", "ok"), 800);
	assert_int_equal(told(submit("app", "c", 320, "400ms")), 320);
	world_run(&w, 1000);
	assert_int_equal(task_number("c", "admitted"), 320);
	assert_int_equal(told(submit("app", "d", 10, "10ms")), 0);
	world_run(&w, 1000);
	assert_int_equal(task_number("d", "admitted"), 0);
	assert_int_equal(told(submit("app", "e", 100, NULL)), 100);
	world_run(&w, 1000);
	assert_int_equal(task_number("e", "ok"), 100);
}

/* Of two seconds 1600 instances before it take half on the fastest; those that are due later don't count. */
static void test_behind(void **state)
{
	const char *later;
	int n;

	(void)state;
	submit("app", "a", 1600, "1s");
	submit("app", "z", 1600, "20s");
	later = submit("app", "b", 3200, "2s");
	n = told(later);
	/* 127 mini-batches in all: 77, of which what is at the executor already was not as fast. */
	assert_in_range(n, 70 * 32, 77 * 32);
	world_run(&w, 30000);
	assert_int_equal(task_number("a", "ok"), 1600);
	assert_int_equal(task_number("z", "ok"), 1600);
	assert_in_range(task_number("b", "ok"), n, n + 64);
}

/* Another endpoint wants as much: its half is kept for it, whichever is due first. */
static void test_overload(void **state)
{
	int n;

	(void)state;
	submit("other", "a", 12800, "2s");
	n = told(submit("app", "b", 12800, "2100ms"));
	assert_in_range(n, 63 * 32, 67 * 32);
	world_run(&w, 5000);
	assert_in_range(task_number("b", "ok"), n, n + 8 * 32); /* and 100 ms that it has alone */
	/* A little of another's is no more than that, on its largest. */
	submit("other", "c", 320, "2s");
	n = told(submit("app", "c", 12800, "2s"));
	assert_in_range(n, 96 * 32, 99 * 32);
	world_run(&w, 5000);
	assert_in_range(task_number("c", "ok"), n - 64, n + 64);
}

static void test_moved(void **state)
{
	(void)state;
	submit("app", "b", 3200, "400ms");
	world_run(&w, 200);
	world_deadline(&w, "b", "1200ms"); /* from its submission, too */
	world_run(&w, 1);
	assert_in_range(told("infer/app/in/b"), 72 * 32, 76 * 32);
	world_run(&w, 3000);
	assert_in_range(task_number("b", "ok"), task_number("b", "admitted") - 32,
			task_number("b", "admitted") + 32);
}

/* Where nothing is known nothing is said, nor of loose files. */
static void test_not_said(void **state)
{
	static const char stop[] = "stop", start[] = "start";

	(void)state;
	sched_post_endpoint_ctl(w.s, "app", stop);
	world_run(&w, 10);
	assert_int_equal(told(submit("app", "b", 10, "5s")), -1);
	sched_post_endpoint_ctl(w.s, "app", start);
	world_run(&w, 1000);
	assert_int_equal(task_number("b", "ok"), 10);
	assert_non_null(strstr(fake_content(&w.host, "infer/app/out/b/task.json"), "\"admitted\":\tnull"));
	world_put(&w, "x.png", "1");
	world_run(&w, 1000);
	assert_string_equal(world_status(&w, "x.png"), "ok");
	assert_int_equal(told("infer/app/in/x.png"), -1);
	assert_int_equal(told("infer/app/in"), -1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {T(test_alone), T(test_behind), T(test_overload), T(test_moved),
					   T(test_not_said)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
