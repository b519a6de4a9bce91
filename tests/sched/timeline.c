/* timeline.svg: what is drawn, where, and that it stays a small picture whatever there was and however it is named. */
#include "tests/support/serving.h"
#include "tests/support/xml.h"

#include <stdlib.h>
#include <string.h>

#define PICTURE "infer/app/timeline.svg"

static int count_of(const char *text, const char *part)
{
	int n = 0;

	for (; (text = strstr(text, part)); text += strlen(part))
		n++;
	return n;
}

static const char *picture(void)
{
	const char *text = fake_content(&w.host, PICTURE);

	assert_non_null(text);
	assert_null(xml_wrong(text));
	return text;
}

#define assert_drawn(part) assert_non_null(strstr(picture(), part))

/* A batch of n that is renamed into in/ with its deadline. */
static void submit(const char *name, int n, const char *deadline)
{
	world_submit(&w, "app", name, n, deadline, "1");
}

/* 200 ms of 800: the plot is 660 pixels wide, from 190 on. */
static void test_one_task(void **state)
{
	(void)state;
	assert_null(fake_content(&w.host, PICTURE));
	submit("b", 8, "800ms");
	world_run(&w, 3000);
	/* The worker's row, as high as it can be: two mini-batches of 82.5 pixels. */
	assert_drawn(
		"<path d=\"M190.0 36.0h82.5v36.0H190.0z\"><title>slice 1 f32, 4 instances: planned 100 ms, "
		"took 100 ms (computing 100 ms)</title></path>\n"
		"<path d=\"M272.5 36.0h82.5v36.0H272.5z\"><title>slice 1 f32, 4 instances");
	/* The task's: they are one run; its deadline is the end of the plot. */
	assert_drawn(
		"<title>task app-000001 of b: 8 instances, deadline after 800 ms, finished after 200 ms; "
		"effective accuracy: planned 90.00 %, real 90.00 %</title>");
	assert_drawn("<path d=\"M190.0 82.0h165.0v12.0H190.0z\" fill=\"#d55e00\"><title>2 mini-batches, "
		     "slice 1 f32, "
		     "8 instances: planned 200 ms, took 200 ms (computing 200 ms)</title>");
	assert_drawn("<path d=\"M850.0 79v18m-4 -18h8l-4 5z\" stroke=\"#cc0000\" fill=\"#cc0000\"/>");
	assert_drawn("fill=\"#000000\">8 ok</tspan></text>");
	assert_drawn(">0</text>");
	assert_drawn(">100 ms</text>");
	assert_drawn(">slice 0.25 f32</text>");
	assert_int_equal(count_of(picture(), "dropped"), 0);
}

/* What missed its deadline is seen: dropped, late, and where it was. */
static void test_misses(void **state)
{
	(void)state;
	submit("over", 40, "110ms"); /* 5 mini-batches of the fast slice */
	world_run(&w, 3000);
	assert_drawn("#cc0000\">20 dropped</tspan>");
	assert_drawn("<title>5 mini-batches, slice 0.25 f32, 20 instances: planned 100 ms, took 100 ms");
	executor_null_set_factor(w.s->device[0].ex, 10);
	submit("slow", 4, "150ms");
	world_run(&w, 3000);
	assert_drawn("#ee7700\">4 late</tspan>");
	assert_drawn("fill=\"#d55e00\" stroke=\"#cc0000\"><title>slice 1 f32, 4 instances: planned 100 ms, "
		     "took 1 s (");
	/* What lay between them is left out; each half has its own 0. */
	assert_drawn("left out</title>");
	assert_int_equal(count_of(picture(), ">0</text>"), 2);
	assert_int_equal(count_of(picture(), "m-4 -18h8l-4 5z"), 2);
}

/* A deadline that is far off is an arrow and does not make the rest small. */
static void test_far_deadline(void **state)
{
	(void)state;
	submit("far", 4, "2m");
	world_run(&w, 3000);
	assert_drawn("<path d=\"M190.0 82.0h660.0v12.0H190.0z\"");
	assert_drawn("<path d=\"M850.0 88h10m-4 -3l4 3l-4 3\"");
	assert_drawn("deadline after 2 min");
	submit("none", 4, NULL);
	world_run(&w, 3000);
	assert_drawn("of none: 4 instances, no deadline, finished after 100 ms");
}

static void test_worker_dies(void **state)
{
	(void)state;
	submit("b", 8, NULL);
	world_run(&w, 40);
	executor_null_kill(w.s->device[0].ex); /* one ran, one waited */
	world_run(&w, 3000);
	assert_int_equal(count_of(picture(), "4 instances: planned 100 ms, the worker died after 40 ms"), 2);
	assert_int_equal(count_of(picture(), "the worker died after"), 2);
	assert_drawn("8 ok</tspan>");
}

/* While it runs. */
static void test_unfinished(void **state)
{
	(void)state;
	submit("long", 400, "20s");
	world_run(&w, 2500);
	assert_drawn(">of 400 …</tspan></text>");
	assert_int_equal(count_of(picture(), "finished after"), 0);
	world_run(&w, 30000);
	assert_int_equal(count_of(picture(), "finished after"), 1);
}

static void test_names(void **state)
{
	char path[32];

	(void)state;
	for (int i = 0; i < 30; i++) {
		char name[256];

		memset(name, i % 2 ? '"' : '\x01', 255);
		name[0] = '0';
		name[1] = (char)('0' + i / 10);
		name[2] = (char)('0' + i % 10);
		name[3] = i % 2 ? '&' : '\xff';
		name[255] = '\0';
		submit(name, 8, "500ms");
		world_run(&w, 1000);
	}
	world_run(&w, 3000);
	assert_int_equal(count_of(picture(), "<title>task app-"), TIMELINE_TASKS);
	assert_drawn("<title>task app-000030 of 029&amp;&quot;&quot;");
	assert_drawn(">029&amp;&quot;&quot;&quot;&quot;&quot;&quot;&quot;&quot;&quot;&quot;&quot;&quot;&quot;"
		     "&quot;… #30<");
	assert_drawn("<title>task app-000007 of 006\xef\xbf\xbd\xef\xbf\xbd");
	assert_null(strstr(picture(), "task app-000006 "));
	for (int i = 0; i < 300; i++) { /* loose ones, several in a mini-batch */
		snprintf(path, sizeof(path), "%d.png", i);
		world_put(&w, path, "1");
		world_run(&w, i % 7 == 0 ? 60 : 0);
	}
	world_run(&w, 30000);
	assert_drawn(">loose files #");
	assert_int_equal(count_of(picture(), "<title>task app-"), TIMELINE_TASKS);
}

/* Submitted, by the clock of then, after it ran. */
static void test_clock_set_back(void **state)
{
	struct timeline *t = calloc(1, sizeof(*t));
	struct buf text = BUF_INIT;

	(void)state;
	assert_non_null(t);
	t->ep = endpoint_get(w.s, "app", false);
	t->n_tasks = t->n_runs = 1;
	t->tasks[0] = (struct timeline_task){.submitted = 9 * NS_PER_S,
					     .due = INT64_MAX,
					     .begun = NS_PER_S,
					     .ended = 2 * NS_PER_S,
					     .finished = 2 * NS_PER_S};
	t->runs[0] = (struct timeline_run){
		.started = NS_PER_S, .ended = 2 * NS_PER_S, .slice = 10000, .precision = "f32"};
	timeline_svg(t, 0, &text);
	assert_null(xml_wrong(text.data));
	assert_non_null(strstr(text.data, "<path d=\"M190.0 82.0h660.0v12.0H190.0z\""));
	buf_release(&text);
	free(t);
}

/* Both rings full, nothing alike, all as long as it can be. */
static void test_bounded(void **state)
{
	struct timeline *t = calloc(1, sizeof(*t));
	struct buf text = BUF_INIT;

	(void)state;
	assert_non_null(t);
	t->ep = endpoint_get(w.s, "app", false);
	t->n_batches = 3 * TIMELINE_BATCHES;
	t->n_runs = 3 * TIMELINE_RUNS;
	t->n_tasks = 3 * TIMELINE_TASKS;
	for (int i = 0; i < TIMELINE_BATCHES; i++)
		t->batches[i] = (struct timeline_run){.started = 1 + (int64_t)i * 123456789,
						      .ended = (int64_t)i * 123456789 + 110000000,
						      .expected = 123456789,
						      .compute = 122222222,
						      .minibatches = 1,
						      .instances = 1024,
						      .slice = 3333 + i % 48,
						      .precision = "&&&&&&&",
						      .died = i % 3 == 0,
						      .late = i % 2};
	for (int i = 0; i < TIMELINE_RUNS; i++) {
		t->runs[i] = t->batches[i];
		t->runs[i].seq = 1000000 + i % TIMELINE_TASKS;
		t->runs[i].minibatches = 12345;
	}
	for (int i = 0; i < TIMELINE_TASKS; i++) {
		t->tasks[i] = (struct timeline_task){.seq = 1000000 + i,
						     .submitted = 1,
						     .due = INT64_C(70000000000) - i,
						     .begun = 1,
						     .ended = INT64_C(80000000000),
						     .finished = INT64_C(80000000000),
						     .total = 400000000,
						     .ok = 100000000,
						     .late = 100000000,
						     .dropped = 100000000,
						     .failed = 100000000};
		memset(t->tasks[i].name, '"', sizeof(t->tasks[i].name) - 1);
	}
	timeline_svg(t, INT64_C(1769000000000000000), &text);
	assert_int_equal(buf_status(&text), 0);
	assert_null(xml_wrong(text.data));
	assert_int_equal(count_of(text.data, "<title>slice "), TIMELINE_BATCHES);
	assert_int_equal(count_of(text.data, "<title>12345 mini-batches"), TIMELINE_RUNS);
	assert_true(text.len < 210000);
	buf_release(&text);
	free(t);
}

/* It goes on after a restart, a reload with other sub-models, a removal. */
static void test_reload(void **state)
{
	static const char other[] =
		"{\"classes\":10,\"submodels\":[{\"slice\":0.5,\"accuracy\":0.9,\"ms\":10}]}";

	(void)state;
	submit("a", 4, NULL);
	world_run(&w, 3000);
	fake_mkdir(&w.host, "models/m/2");
	fake_put(&w.host, "models/m/2/model.json", other);
	fake_put(&w.host, "models/m/2/weights.safetensors", "");
	sched_post_endpoint_ctl(w.s, "app", "reload");
	world_run(&w, 1000);
	submit("b", 4, NULL);
	world_run(&w, 3000);
	assert_drawn(">slice 0.5 ");
	assert_drawn(">slice 1 f32</text>");
	world_crash(&w);
	world_restart(&w);
	world_run(&w, 3000);
	assert_drawn("of b: 4 instances"); /* as it was */
	submit("c", 4, NULL);
	world_run(&w, 500);
	sched_post_endpoint_gone(w.s, "app"); /* with a picture to be drawn */
	world_run(&w, 3000);
}

static void test_xml_checker(void **state)
{
	static const char *const good[] = {"<a/>", "<a b=\"&lt;'\" c=\"\">\xc3\xa9 &amp; <d></d></a>\n"};
	static const char *const bad[] = {"",
					  "x",
					  "<a>",
					  "<a></b>",
					  "<a/><b/>",
					  "<a b=\"<\"/>",
					  "<a b=\"1\" b=\"2\"/>",
					  "<a b=1/>",
					  "<a b=\"1\"c=\"2\"/>",
					  "<a>&x;</a>",
					  "<a>&</a>",
					  "<a>\x01</a>",
					  "<a>\xff</a>",
					  "<a>\xef\xbf\xbf</a>",
					  "<a>]]></a>",
					  "<a>\"</a>x",
					  "<a></a"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_null(xml_wrong(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_non_null(xml_wrong(bad[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_one_task),     T(test_misses),
		T(test_far_deadline), T(test_worker_dies),
		T(test_unfinished),   T(test_names),
		T(test_bounded),      T(test_clock_set_back),
		T(test_reload),       cmocka_unit_test(test_xml_checker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
