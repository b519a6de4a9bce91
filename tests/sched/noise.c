/*
 * Schedules on a device whose times vary, whole runs of `inferfs simulate`: of what was started, and of what was promised, no more than 0.1 %
 * is late, and that costs hardly any effective accuracy.
 */
#include "tests/support/simulated.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PROFILE                                                                                      \
	"\"profile\":{\"accuracy\":[79.37,71.88,70.94,65.12],\"time_ms\":[45.12,34.56,22.72,15.68]," \
	"\"one_ms\":[12,9,6,4]},\"batch\":8,\"seed\":5,\"publish_us\":20,"
#define CAPACITY (8 / 0.01568) /* instances a second */

static const double loads[] = {0.4, 0.8, 1.2, 3};
#define LOADS (sizeof(loads) / sizeof(loads[0]))

static struct outcome run(const char *json)
{
	struct outcome o;

	simulated(json, "optimal", 0, &o, 1);
	return o;
}

static double p_eff(const struct outcome *o)
{
	return o->gained / (double)o->instances;
}

static void add(struct outcome *to, const struct outcome *o)
{
	to->instances += o->instances;
	to->ok += o->ok;
	to->late += o->late;
	to->dropped += o->dropped;
	to->admitted += o->admitted;
	to->broken += o->broken;
}

/* At most that share of what was started is late, and of what was promised is not in time. */
static void assert_kept(const char *what, double noise, const struct outcome *o, double share)
{
	if ((double)o->late > share * (double)(o->ok + o->late) ||
	    (double)o->broken > share * (double)o->admitted)
		fail_msg("%s, noise %g: %lld late of %lld, %lld broken of %lld", what, noise,
			 (long long)o->late, (long long)(o->ok + o->late), (long long)o->broken,
			 (long long)o->admitted);
}

static struct outcome series(const char *kind, int instances, const char *deadline, double load, double noise,
			     double stalls, int seconds)
{
	char json[1024];

	snprintf(json, sizeof(json),
		 "{" PROFILE "\"deadline\":\"%s\",\"instances\":%d,\"noise\":%g,\"stalls\":%g,"
		 "\"arrivals\":{\"kind\":\"%s\",\"rate\":%.9g,\"duration\":%d,\"burst\":5}}",
		 deadline, instances, noise, stalls, kind, load * CAPACITY / instances, seconds);
	return run(json);
}

/* Batches that have a second each, as many as make every load: nearly as good as if times were exact. */
static void test_series(void **state)
{
	static const struct {
		const char *kind;
		int instances;
	} kinds[] = {{"uniform", 400}, {"poisson", 250}, {"bursty", 80}};
	static const struct {
		double noise, least;
	} noises[] = {{0.05, 0.99}, {0.2, 0.97}};

	(void)state;
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		double exact[LOADS];

		for (size_t i = 0; i < LOADS; i += SIMULATED_EACH(3)) {
			struct outcome o =
				series(kinds[k].kind, kinds[k].instances, "1s", loads[i], 0, 0, 15);

			assert_int_equal(o.late, 0);
			exact[i] = p_eff(&o);
		}
		for (size_t j = 0; j < sizeof(noises) / sizeof(noises[0]); j++) {
			struct outcome all = {0};

			for (size_t i = 0; i < LOADS; i += SIMULATED_EACH(3)) {
				struct outcome o = series(kinds[k].kind, kinds[k].instances, "1s", loads[i],
							  noises[j].noise, 0, 15);

				if (p_eff(&o) < noises[j].least * exact[i])
					fail_msg("%s, noise %g, load %g: %.4f of %.4f", kinds[k].kind,
						 noises[j].noise, loads[i], p_eff(&o), exact[i]);
				add(&all, &o);
			}
			assert_kept(kinds[k].kind, noises[j].noise, &all, 0.001);
		}
	}
}

/* The paper's task, alone: against the LP's bound. */
static void test_once(void **state)
{
	static const struct {
		double noise, least;
	} noises[] = {{0.05, 0.99}, {0.2, 0.98}};
	char json[1024];

	(void)state;
	for (size_t j = 0; j < sizeof(noises) / sizeof(noises[0]); j++) {
		struct outcome all = {0};

		for (size_t i = 0; i < LOADS; i += SIMULATED_EACH(3)) {
			struct outcome o;

			snprintf(json, sizeof(json),
				 "{" PROFILE "\"deadline\":\"8s\",\"instances\":%d,\"noise\":%g,"
				 "\"arrivals\":{\"kind\":\"uniform\",\"rate\":0.1,\"duration\":20}}",
				 (int)(8 * loads[i] * CAPACITY), noises[j].noise);
			o = run(json);
			if (o.gained < noises[j].least * o.bound)
				fail_msg("noise %g, load %g: %.4f of the bound", noises[j].noise, loads[i],
					 o.gained / o.bound);
			add(&all, &o);
		}
		/* The first task is promised with nothing known of how times vary. */
		all.broken = 0;
		assert_kept("once", noises[j].noise, &all, 0.001);
	}
}

/* The profile was measured while the machine was busy, or is busy now: each sub-model takes so many times what it says. */
static void test_wrong_times(void **state)
{
	static const double factors[] = {0.6, 0.8, 1.25, 1.6};
	static const char *const deadlines[] = {"2200ms", "3s", "6s"};
	char json[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); i++)
		for (size_t j = 0; j < sizeof(deadlines) / sizeof(deadlines[0]); j += SIMULATED_EACH(3)) {
			struct outcome o;

			snprintf(json, sizeof(json),
				 "{\"profile\":{\"accuracy\":[92.95,92.3,88.57],\"time_ms\":[51,13.5,3.8],"
				 "\"one_ms\":[1.3,0.5,0.15],\"real_ms\":[%g,%g,%g]},\"batch\":32,\"seed\":5,"
				 "\"deadline\":\"%s\",\"noise\":0.1,\"tasks\":[{\"instances\":10000}]}",
				 51 * factors[i], 13.5 * factors[i], 3.8 * factors[i], deadlines[j]);
			o = run(json);
			if (o.gained < 0.9975 * o.bound)
				fail_msg("%g times as long, %s: %.4f of the bound", factors[i], deadlines[j],
					 o.gained / o.bound);
			assert_int_equal(o.late, 0);
		}
}

/* Single files at half of what goes, 100 ms each: all of them in time, nearly. */
static void test_single(void **state)
{
	static const struct {
		double noise, most;
	} noises[] = {{0, 0}, {0.05, 0.001}, {0.2, 0.002}};

	(void)state;
	for (size_t j = 0; j < sizeof(noises) / sizeof(noises[0]); j++) {
		struct outcome o = series("poisson", 1, "100ms", 0.5, noises[j].noise, 0, 60);

		if ((double)(o.late + o.dropped) > noises[j].most * (double)o.instances)
			fail_msg("noise %g: %lld late, %lld dropped of %lld", noises[j].noise,
				 (long long)o.late, (long long)o.dropped, (long long)o.instances);
		assert_true((double)o.late <= 0.001 * (double)(o.ok + o.late));
	}
}

/* Exact times, and more than can be answered: the answers of what is dropped don't delay those of what was computed. */
static void test_drops(void **state)
{
	struct outcome o = run("{\"profile\":{\"accuracy\":[79.37,71.88,70.94,65.12],"
			       "\"time_ms\":[45.12,34.56,22.72,15.68],\"one_ms\":[4,3,2,1.5]},"
			       "\"publish_us\":20,\"deadline\":\"1s\",\"instances\":320,\"arrivals\":{"
			       "\"kind\":\"bursty\",\"rate\":6.4,\"duration\":40,\"burst\":5}}");

	(void)state;
	assert_true(o.dropped > 10000);
	assert_int_equal(o.late, 0);
}

/* Twice a minute the machine stalls for 150 ms. */
static void test_stalls(void **state)
{
	static const double some[] = {0.5, 1.5};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct outcome without = series("uniform", 400, "2s", some[i], 0.05, 0, 120),
			       with = series("uniform", 400, "2s", some[i], 0.05, 1.0 / 30, 120);

		if (p_eff(&with) < 0.99 * p_eff(&without))
			fail_msg("load %g: %.4f of %.4f", some[i], p_eff(&with), p_eff(&without));
		if ((double)with.late > 0.001 * (double)(with.ok + with.late))
			fail_msg("load %g: %lld late of %lld", some[i], (long long)with.late,
				 (long long)(with.ok + with.late));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_series),      cmocka_unit_test(test_once),
					   cmocka_unit_test(test_wrong_times), cmocka_unit_test(test_single),
					   cmocka_unit_test(test_stalls),      cmocka_unit_test(test_drops)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
