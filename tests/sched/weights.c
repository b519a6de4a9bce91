/*
 * Endpoints that share the device: in an overload of 60 s each has what its weight gives it, of unequal models and deadlines, too;
 * what was not wanted is not saved up; where all fits weights mean nothing; nobody starves.
 */
#include "tests/support/fake_host.h"

#include "sched/simulate/internal.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST 8 /* endpoints of a trace here */

/* Mini-batches of 2 that take 60 to 20 ms, and ten times that. 20 tasks of 10 a second are 2 s of work a second on the fastest. */
#define MODEL "\"profile\":{\"accuracy\":[90,80,70],\"time_ms\":[60,35,20]},"
#define SLOW  "\"profile\":{\"accuracy\":[90,80,70],\"time_ms\":[600,350,200]},"
#define TRACE                                                                                    \
	"{" MODEL "\"batch\":2,\"deadline\":\"1s\",\"instances\":10,\"policies\":[\"optimal\"]," \
	"\"arrivals\":{\"kind\":\"uniform\",\"rate\":20,\"duration\":\"60s\"},"

/* Each endpoint's part of the device until then; their outcomes go to ret (MOST) unless it is NULL. */
static void play(const char *json, double part[MOST], struct outcome *ret)
{
	struct outcome o[MOST] = {0};
	struct err err = ERR_INIT;
	struct sim_task *task;
	struct trace trace;
	double sum = 0;
	int n;

	if (trace_parse(&trace, json, strlen(json), &err) < 0)
		fail_msg("%s: %s", json, err.detail);
	assert_true(trace.n_endpoints <= MOST);
	n = trace_tasks(&trace, 0, &task);
	assert_true(n > 0);
	if (sim_run(&trace, trace.policy[0], task, n, o, &err) < 0)
		fail_msg("%s: %s", json, err.detail);
	for (int e = 0; e < trace.n_endpoints; e++) {
		assert_int_equal(o[e].ok + o[e].late + o[e].dropped, o[e].instances);
		sum += (double)o[e].device_ns;
	}
	for (int e = 0; e < trace.n_endpoints; e++)
		part[e] = (double)o[e].device_ns / sum;
	if (ret)
		memcpy(ret, o, sizeof(o));
	free(task);
	trace_release(&trace);
}

/* What the theorem allows them to differ, and as much again for what is at the executor. */
static void assert_by_weight(const char *json, double longest_a, double longest_b)
{
	double part[MOST], apart;
	struct outcome o[MOST];

	play(json, part, o);
	if (fabs(part[0] / part[1] - 3) > 0.05 * 3)
		fail_msg("%s: %.4f and %.4f", json, part[0], part[1]);
	apart = fabs((double)o[0].device_ns / 3 - (double)o[1].device_ns) / 1e9;
	if (apart > 2 * (longest_a / 3 + longest_b))
		fail_msg("%s: %.3f s apart", json, apart);
	/* The device did nothing else: it had work all the time, and what it does in time is not for nothing. */
	assert_true((double)(o[0].device_ns + o[1].device_ns) > 59.5e9);
	assert_true((double)o[0].ok > 0.97 * 10 * (double)o[0].device_ns / (longest_a / 3 * 5e9));
	assert_true(o[0].late == 0 && o[1].late == 0);
}

static void test_equal(void **state)
{
	(void)state;
	assert_by_weight(TRACE "\"endpoints\":[{\"name\":\"a\",\"weight\":3},{\"name\":\"b\"}]}", 0.06, 0.06);
}

static void test_unequal(void **state)
{
	(void)state;
	assert_by_weight(TRACE "\"endpoints\":[{\"name\":\"a\",\"weight\":3},"
			       "{\"name\":\"b\"," SLOW "\"deadline\":\"3s\"}]}",
			 0.06, 0.6);
	assert_by_weight(TRACE "\"endpoints\":[{\"name\":\"a\",\"weight\":3," SLOW "\"deadline\":\"3s\"},"
			       "{\"name\":\"b\"}]}",
			 0.6, 0.06);
}

/* Of times that nobody can foresee those count that they really were, or errors would add up to some 0.5 s. */
static void test_noise(void **state)
{
	double part[MOST], apart;
	struct outcome o[MOST];

	(void)state;
	play(TRACE "\"noise\":0.5,\"endpoints\":[{\"name\":\"a\",\"weight\":3},{\"name\":\"b\"}]}", part, o);
	apart = fabs((double)o[0].device_ns / 3 - (double)o[1].device_ns) / 1e9;
	if (apart > 0.16)
		fail_msg("%.3f s apart", apart);
}

/* The earliest deadline would take all. */
static void test_deadlines(void **state)
{
	(void)state;
	assert_by_weight(TRACE "\"endpoints\":[{\"name\":\"a\",\"weight\":3,\"deadline\":\"10s\"},"
			       "{\"name\":\"b\",\"deadline\":\"300ms\"}]}",
			 0.06, 0.06);
	assert_by_weight(TRACE "\"endpoints\":[{\"name\":\"a\",\"weight\":3,\"deadline\":\"300ms\"},"
			       "{\"name\":\"b\",\"deadline\":\"10s\"}]}",
			 0.06, 0.06);
}

static void test_no_deadlines(void **state)
{
	double part[MOST];

	(void)state;
	play(TRACE "\"until\":\"60s\",\"endpoints\":["
		   "{\"name\":\"a\",\"weight\":3,\"tasks\":[{\"instances\":2000,\"deadline\":null}]},"
		   "{\"name\":\"b\"," SLOW "\"tasks\":[{\"instances\":100,\"deadline\":null}]}]}",
	     part, NULL);
	assert_float_equal(part[0], 0.75, 0.01);
}

/* From 20 s on there is a third one, which asked for nothing before; and one that was alone owes nothing. */
static void test_idle_saves_nothing(void **state)
{
	static const char contended[] = TRACE "\"until\":\"%s\",\"endpoints\":[{\"name\":\"a\"},{\"name\":"
					      "\"b\"},{\"name\":\"c\",\"tasks\":["
					      "{\"at\":\"20s\",\"instances\":200,\"deadline\":\"4s\"}]}]}",
			  alone[] = TRACE
			  "\"until\":\"%s\",\"endpoints\":[{\"name\":\"a\"},{\"name\":\"b\",\"tasks\":["
			  "{\"at\":\"20s\",\"instances\":400,\"deadline\":\"4s\"}]}]}";
	double part[MOST];
	struct outcome before[MOST], after[MOST];
	char json[1024];

	(void)state;
	snprintf(json, sizeof(json), contended, "20s");
	play(json, part, before);
	assert_float_equal(part[0], 0.5, 0.01);
	snprintf(json, sizeof(json), contended, "23s");
	play(json, part, after);
	for (int e = 0; e < 3; e++)
		assert_float_equal((double)(after[e].device_ns - before[e].device_ns) / 1e9, 1, 0.13);
	snprintf(json, sizeof(json), alone, "20s");
	play(json, part, before);
	assert_float_equal(part[0], 1, 0);
	snprintf(json, sizeof(json), alone, "23s");
	play(json, part, after);
	for (int e = 0; e < 2; e++)
		assert_float_equal((double)(after[e].device_ns - before[e].device_ns) / 1e9, 1.5, 0.13);
}

/* It asks for less than its part, and has all of it in time, on larger sub-models; the rest is the others'. */
static void test_within_its_part(void **state)
{
	double part[MOST];
	struct outcome o[MOST];

	(void)state;
	play(TRACE
	     "\"endpoints\":[{\"name\":\"a\",\"deadline\":\"10s\"},{\"name\":\"b\",\"deadline\":\"300ms\"},"
	     "{\"name\":\"c\",\"deadline\":\"2s\",\"arrivals\":{\"kind\":\"uniform\",\"rate\":1,\"duration\":"
	     "\"60s\"}}]}",
	     part, o);
	assert_int_equal(o[2].ok, o[2].instances); /* 0.1 of the device at least, where it may have a third */
	assert_true(o[2].gained / (double)o[2].instances > 0.85);
	assert_float_equal(part[0], part[1], 0.01);
}

/* All fits, at the fastest: weights count for nothing, and the earliest deadline is first. */
static void test_no_overload(void **state)
{
#define LITTLE "\"arrivals\":{\"kind\":\"uniform\",\"rate\":4.5,\"duration\":\"60s\"},"
	double part[MOST];
	struct outcome o[MOST];

	(void)state;
	play(TRACE "\"endpoints\":[{\"name\":\"a\"," LITTLE "\"weight\":0.01,\"deadline\":\"250ms\"},"
		   "{\"name\":\"b\"," LITTLE "\"weight\":1000,\"deadline\":\"10s\"}]}",
	     part, o);
	assert_int_equal(o[0].ok, o[0].instances);
	assert_int_equal(o[1].ok, o[1].instances);
}

/* What has no deadline has a tenth of its weight beside those that have: in an overload, and where they would use all there is. */
static void test_free_does_not_starve(void **state)
{
	static const char trace[] = TRACE
		"\"endpoints\":[{\"name\":\"a\",\"arrivals\":{\"kind\":\"uniform\",\"rate\":%g,\"duration\":"
		"\"60s\"}},{\"name\":\"b\",\"weight\":%d,\"tasks\":[{\"instances\":800,\"deadline\":null}]}]"
		"}";
	double part[MOST];
	struct outcome o[MOST];
	char json[1024];

	(void)state;
	for (int weight = 1; weight <= 5; weight += 4) {
		snprintf(json, sizeof(json), trace, 20.0, weight);
		play(json, part, o);
		assert_float_equal(part[1], 0.1 * weight / (1 + 0.1 * weight), 0.01);
		/* Half of what the fastest can: alone 80 % of accuracy and more. */
		snprintf(json, sizeof(json), trace, 5.0, weight);
		play(json, part, o);
		assert_float_equal(part[1], 0.1 * weight / (1 + 0.1 * weight), 0.02);
		assert_int_equal(o[0].ok, o[0].instances);
		assert_true(o[0].gained / (double)o[0].instances > 0.7);
	}
}

/* While all fits, its mini-batches are no longer than what the deadlines leave: one instance, or both, of 600 ms. */
static void test_free_costs_no_deadline(void **state)
{
	double part[MOST];
	struct outcome o[MOST];

	(void)state;
	play("{" MODEL "\"batch\":2,\"until\":\"60s\",\"policies\":[\"optimal\"],\"endpoints\":["
	     "{\"name\":\"a\",\"instances\":80,\"deadline\":\"1500ms\","
	     "\"arrivals\":{\"kind\":\"uniform\",\"rate\":1,\"duration\":\"61s\"}},"
	     "{\"name\":\"b\",\"profile\":{\"accuracy\":[90],\"time_ms\":[600],\"one_ms\":[60]},"
	     "\"tasks\":[{\"instances\":400}]}]}",
	     part, o);
	assert_int_equal(o[0].ok, o[0].instances);
	assert_float_equal(part[1], 0.1 / 1.1, 0.02);
}

/* --- the weight of a running endpoint --- */

#define OTHER "{\"model\":\"m\",\"batch\":2}"
#define SPEC  "{\"model\":\"m\",\"batch\":2,\"weight\":%s}"

static struct world w;

static void submit(const char *app, const char *name, int n, const char *deadline)
{
	world_submit(&w, app, name, n, deadline, "7");
}

static double device_s(const char *app)
{
	const struct endpoint *ep = endpoint_get(w.s, app, false);
	double sum = 0;

	for (int i = 0; i < ep->stats.n_shares; i++)
		sum += (double)ep->stats.share[i].compute_ns / 1e9;
	return sum;
}

static void spec(const char *weight)
{
	char text[96];

	snprintf(text, sizeof(text), SPEC, weight);
	sched_post_endpoint_spec(w.s, "app", text, strlen(text));
	world_run(&w, 0);
}

/* The part that app has of the next 10 s. */
static double part_of_app(void)
{
	double app = device_s("app"), other = device_s("other");

	world_run(&w, 10000);
	app = device_s("app") - app;
	other = device_s("other") - other;
	assert_float_equal(app + other, 10, 0.1);
	return app / (app + other);
}

static void test_changed(void **state)
{
	static const char model[] = "{\"classes\":10,\"submodels\":[{\"slice\":1,\"accuracy\":0.9,\"ms\":60},"
				    "{\"slice\":0.5,\"accuracy\":0.7,\"ms\":20}]}";
	uint64_t generation;

	(void)state;
	world_init(&w, model, OTHER);
	fake_mkdir(&w.host, "infer/other/in");
	sched_post_endpoint_spec(w.s, "other", OTHER, strlen(OTHER));
	world_run(&w, 1000);
	spec("3");
	generation = profile_generation(&endpoint_get(w.s, "app", false)->on[0].profile);
	submit("app", "b", 6000, "50s"); /* 60 s on the fastest */
	submit("other", "b", 6000, "55s");
	assert_float_equal(part_of_app(), 0.75, 0.01);
	spec("1");
	assert_float_equal(part_of_app(), 0.5, 0.01);
	spec("0.25");
	assert_float_equal(part_of_app(), 0.2, 0.01);
	spec("3");
	assert_float_equal(part_of_app(), 0.75, 0.01);
	/* Not loaded anew meanwhile. */
	assert_int_equal(profile_generation(&endpoint_get(w.s, "app", false)->on[0].profile), generation);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	world_run(&w, 30000);
	world_release(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_unequal),
		cmocka_unit_test(test_deadlines),
		cmocka_unit_test(test_no_deadlines),
		cmocka_unit_test(test_idle_saves_nothing),
		cmocka_unit_test(test_within_its_part),
		cmocka_unit_test(test_no_overload),
		cmocka_unit_test(test_free_does_not_starve),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_free_costs_no_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
