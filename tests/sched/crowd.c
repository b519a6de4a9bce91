/* A thread that had less than a core goes to another one, and may still use all that it could before. */
#include "sched/worker/crowd.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

static void nap(int ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static void test_leaves(void **state)
{
	struct crowd crowd = CROWD_NONE;
	cpu_set_t before, after;
	int moved = 0;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	if (CPU_COUNT(&before) < 2)
		skip();
	for (int i = 0; i < 9 * 5;
	     i++) { /* one in nine; the kernel may take it back at once, but not each time */
		int core;

		crowd_begin(&crowd);
		nap(3); /* as when others have the core */
		core = sched_getcpu();
		crowd_end(&crowd);
		moved += i % 9 == 0 && sched_getcpu() != core;
	}
	assert_true(moved >= 3);
	assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
	assert_true(CPU_EQUAL(&before, &after));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_leaves)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
