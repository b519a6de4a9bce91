/* The thread keeps off the cores that it is told, and may use all again when none is taken. */
#include "tests/support/serving.h"

#include "sched/apart.h"
#include "sched/minibatch.h"

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

/* After an answer, as long as the device that gave it has more to do. */
static void test_answers(void **state)
{
	struct batch_done done = {.compute_ns = 1, .picture_fd = -1};
	cpu_set_t others = all;
	struct device *device = &w.s->device[0];
	char path[32];

	(void)state;
	if (CPU_COUNT(&all) < 2)
		skip();
	for (int i = 0; i < 8; i++) {
		snprintf(path, sizeof(path), "b/%d.png", i);
		world_put(&w, path, "1");
	}
	world_deadline(&w, "b", "10s");
	world_run(&w, 10);
	assert_int_equal(device->n_out, 2);
	for (done.core = 1; !CPU_ISSET(done.core - 1, &all);)
		done.core++;
	CPU_CLR(done.core - 1, &others);
	done.batch = device->out[0]->id;
	dispatch_done(device, &done);
	check(&others);
	done.batch = device->out[0]->id;
	dispatch_done(device, &done);
	check(&all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_apart), cmocka_unit_test(test_hostile),
					   T(test_answers)};

	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
