/* The thread keeps off the cores that it is told, and may use all again when none is taken. */
#include "sched/apart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static cpu_set_t all;

/* What the thread may use now, and where it is. */
static void check(const cpu_set_t *expected)
{
	cpu_set_t now;

	assert_int_equal(sched_getaffinity(0, sizeof(now), &now), 0);
	assert_true(CPU_EQUAL(&now, expected));
	assert_true(CPU_ISSET(sched_getcpu(), &now));
}

static void test_apart(void **state)
{
	struct apart a = {0};
	cpu_set_t others;
	int first, list[CPU_SETSIZE], n = 0;

	(void)state;
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all))
			list[n++] = i + 1;
	if (n < 2)
		skip();
	first = list[0];
	others = all;
	CPU_CLR(first - 1, &others);
	apart_from(&a, &first, 1);
	check(&others);
	apart_from(&a, &first, 1);
	check(&others);
	apart_from(&a, (int[]){0, first, 0}, 3); /* of the others it is not known */
	check(&others);
	apart_from(&a, list, n); /* all are taken */
	check(&all);
	apart_from(&a, list, n - 1);
	CPU_ZERO(&others);
	CPU_SET(list[n - 1] - 1, &others);
	check(&others);
	apart_from(&a, NULL, 0);
	check(&all);
}

/* What a worker says isn't believed. */
static void test_hostile(void **state)
{
	struct apart a = {0};

	(void)state;
	apart_from(&a, (int[]){-1, CPU_SETSIZE + 1, __INT_MAX__, -__INT_MAX__ - 1}, 4);
	check(&all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_apart), cmocka_unit_test(test_hostile)};

	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
