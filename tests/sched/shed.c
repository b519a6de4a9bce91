/*
 * Small tasks that come faster than they can be done: as many are in time as the device does in full mini-batches, and nobody is given up for
 * that without need.
 */
#include "tests/support/simulated.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

/* Eight take 16 ms, one takes 9. */
#define PROFILE "\"profile\":{\"accuracy\":[80],\"time_ms\":[16],\"one_ms\":[9]},\"batch\":8"
#define EACH_NS 2e6

static struct outcome run(const char *json)
{
	struct outcome o;

	simulated(json, "optimal", 0, &o, 1);
	return o;
}

/*
 * From 3 s on: two mini-batches, 32 ms, which are at the device, and behind them one instance with so many ms, and n more that come a ms later.
 * What was before is there so that the publisher's time is known.
 */
static struct outcome behind_two(int first_ms, int n, int ms)
{
	char json[1024];

	snprintf(json, sizeof(json),
		 "{" PROFILE ",\"publish_us\":0,\"tasks\":["
		 "{\"instances\":640,\"deadline\":\"2s\"},"
		 "{\"at\":\"3s\",\"deadline\":\"40ms\",\"instances\":16},"
		 "{\"at\":\"3001ms\",\"deadline\":\"%dms\",\"instances\":1},"
		 "{\"at\":\"3002ms\",\"deadline\":\"%dms\",\"instances\":%d}]}",
		 first_ms - 1, ms - 2, n);
	return run(json);
}

static void test_given_up_where_it_costs_more(void **state)
{
	(void)state;
	/* By 41, and eight more by 57. */
	assert_int_equal(behind_two(43, 8, 60).dropped, 0);
	/* With it one and six, 41 and 55; without it eight, 48. */
	assert_int_equal(behind_two(43, 8, 55).dropped, 1);
	/* With it 17, by 73, and without it 16, by 64. */
	assert_int_equal(behind_two(43, 16, 76).dropped, 0);
	assert_int_equal(behind_two(43, 16, 67).dropped, 1);
	/* It is one of a mini-batch that is not full in any case. */
	assert_int_equal(behind_two(50, 3, 52).dropped, 0);
}

/* One that is in time alone, but not with a whole mini-batch's answers to be published, stays first. */
static void test_all_fits(void **state)
{
	(void)state;
	for (int ms = 48; ms < 64; ms++) {
		char json[512];

		snprintf(json, sizeof(json),
			 "{" PROFILE ",\"publish_us\":1000,\"tasks\":["
			 "{\"instances\":640,\"deadline\":\"4s\"},"
			 "{\"at\":\"5s\",\"deadline\":\"80ms\",\"instances\":16},"
			 "{\"at\":\"5001ms\",\"deadline\":\"%dms\",\"instances\":1},"
			 "{\"at\":\"5001ms\",\"deadline\":\"500ms\",\"instances\":1}]}",
			 ms);
		if (run(json).dropped)
			fail_msg("dropped with %d ms", ms);
	}
}

/* Single files with 100 ms each, at more than goes. */
static void test_overload(void **state)
{
	static const struct {
		const char *kind;
		double load, least;
	} cases[] = {{"poisson", 1, 0.97}, {"poisson", 1.1, 0.98}, {"poisson", 2, 0.98},
		     {"poisson", 5, 0.98}, {"uniform", 1.1, 0.99}, {"uniform", 3, 0.98},
		     {"bursty", 1.5, 0.9}, {"bursty", 4, 0.98}};
	static const double noises[] = {0, 0.05};

	(void)state;
	for (size_t j = 0; j < sizeof(noises) / sizeof(noises[0]); j++)
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i += SIMULATED_EACH(3)) {
			char json[512];
			struct outcome o;

			snprintf(json, sizeof(json),
				 "{" PROFILE ",\"publish_us\":20,\"seed\":3,\"noise\":%g,\"instances\":1,"
				 "\"deadline\":\"100ms\",\"arrivals\":{\"kind\":\"%s\",\"rate\":%g,"
				 "\"duration\":\"6s\",\"burst\":20}}",
				 noises[j], cases[i].kind, cases[i].load * 1e9 / EACH_NS);
			o = run(json);
			if ((double)o.ok < cases[i].least * 6e9 / EACH_NS)
				fail_msg("%s, load %g, noise %g: %lld in time of %g", cases[i].kind,
					 cases[i].load, noises[j], (long long)o.ok, 6e9 / EACH_NS);
			if ((double)o.late > 0.001 * (double)(o.ok + o.late))
				fail_msg("%s, load %g, noise %g: %lld late of %lld", cases[i].kind,
					 cases[i].load, noises[j], (long long)o.late,
					 (long long)(o.ok + o.late));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_given_up_where_it_costs_more),
					   cmocka_unit_test(test_all_fits), cmocka_unit_test(test_overload)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
