/* An endpoint of several models, as users read it; the models themselves are the null executor's. */
#include "tests/support/serving.h"
#include "tests/support/xml.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PAIR "{\"models\":[\"m\",{\"model\":\"n\",\"weight\":2}],\"batch\":4}"

/* Each alone, 20 and 40 ms; together 60 ms, at widths of 0.25 and 1. */
static const char pair[] = "{\"classes\":10,\"submodels\":["
			   "{\"slice\":0.25,\"accuracy\":0.5,\"ms\":20,\"parts\":[[0,0.25]]},"
			   "{\"slice\":1,\"accuracy\":0.7,\"ms\":40,\"parts\":[[1,1]]},"
			   "{\"slice\":1,\"accuracy\":0.9,\"ms\":60,\"parts\":[[0,0.25],[1,1]]}]}";

static void put_model(const char *name, int version, const char *json)
{
	char path[64];

	snprintf(path, sizeof(path), "models/%s/%d", name, version);
	fake_mkdir(&w.host, path);
	snprintf(path, sizeof(path), "models/%s/%d/model.json", name, version);
	fake_put(&w.host, path, json);
	snprintf(path, sizeof(path), "models/%s/%d/weights.safetensors", name, version);
	fake_put(&w.host, path, "");
}

static void spec(const char *json)
{
	fake_put(&w.host, "infer/app/spec.json", json);
	sched_post_endpoint_spec(w.s, "app", json, strlen(json));
	world_run(&w, 500);
}

static void begin(const char *json)
{
	put_model("m", 1, pair);
	put_model("n", 7, pair);
	spec(json);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
}

#define assert_in(file, part)                                                       \
	do {                                                                        \
		if (!strstr(fake_content(&w.host, file), part))                     \
			fail_msg("no %s in %s", part, fake_content(&w.host, file)); \
	} while (0)

static void test_names(void **state)
{
	const char *text;

	(void)state;
	begin(PAIR);
	assert_string_equal(fake_content(&w.host, "infer/app/slices.csv"),
			    "slice,precision,accuracy,ms,ms_one,loaded\n"
			    "m:0.25,f32,50.0000,20.0000,20.0000,yes\n"
			    "n:1,f32,70.0000,40.0000,40.0000,yes\n"
			    "m:0.25+n:1,f32,90.0000,60.0000,60.0000,yes\n");
	/* time for the combination, then for one alone */
	world_put(&w, "b/1.png", "1");
	world_deadline(&w, "b", "1s");
	world_run(&w, 1000);
	world_put(&w, "c/1.png", "1");
	world_deadline(&w, "c", "45ms");
	world_run(&w, 2000);
	assert_string_equal(world_status(&w, "b/1.png"), "ok");
	assert_string_equal(world_status(&w, "c/1.png"), "ok");
	assert_string_equal(world_text(&w, "out/b/1.png.json", "members"), "m:0.25+n:1");
	assert_string_equal(world_text(&w, "out/b/1.png.json", "model"), "m+n");
	assert_string_equal(world_text(&w, "out/b/1.png.json", "version"), "1+7");
	assert_in("infer/app/out/b/1.png.json", "\"slice\":\tnull");
	assert_string_equal(world_text(&w, "out/c/1.png.json", "members"), "n:1");
	assert_true(world_number(&w, "out/c/1.png.json", "slice") == 1);
	assert_in("infer/app/out/b/results.csv", "b/1.png,ok,9,0.9,m:0.25+n:1,f32,");
	assert_in("infer/app/out/b/task.json", "\"members\":\t\"m:0.25+n:1\"");
	assert_string_equal(world_text(&w, "out/b/task.json", "version"), "1+7");
	assert_in("infer/app/schedule.csv", "task,N,D_ms,n_m:0.25,n_n:1,n_m:0.25+n:1,planned_p_eff,");
	text = fake_content(&w.host, "infer/app/timeline.svg");
	assert_non_null(text);
	assert_null(xml_wrong(text));
	assert_in("infer/app/timeline.svg", "<title>m:0.25+n:1, 1 instance: planned 60 ms");
	assert_in("infer/app/timeline.svg", ">n:1</text>");
	assert_in("infer/app/timeline.svg", ">m:0.25+n:1</text>");
	assert_in("infer/app/stats.json", "\"members\":\t\"m:0.25+n:1\"");
	assert_in("status", "infer/app running model=m/1+n/7 queued=0 ok=2");
	assert_in("metrics",
		  "inferfs_minibatches_total{endpoint=\"app\",slice=\"m:0.25+n:1\",precision=\"f32\"} 1\n");
	/* both members run as wide, but the one is another sub-model than the other */
	assert_in("metrics",
		  "inferfs_minibatches_total{endpoint=\"app\",slice=\"n:1\",precision=\"f32\"} 1\n");
	assert_all_done();
}

/* Two versions of one model are told apart. */
static void test_versions(void **state)
{
	(void)state;
	put_model("m", 2, pair);
	begin("{\"models\":[{\"model\":\"m\",\"version\":1},\"m\"]}");
	assert_in("infer/app/slices.csv", "m/1:0.25+m/2:1,f32,");
	assert_in("status", "model=m/1+m/2 ");
}

/* What can't be found is said of the one that it is of; with a version of it the endpoint starts. */
static void test_missing(void **state)
{
	(void)state;
	spec(PAIR);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "failed\n");
	assert_in("infer/app/error", "models/n has no version");
	fake_mkdir(&w.host, "models/n/1");
	sched_post_endpoint_ctl(w.s, "app", "start");
	world_run(&w, 10);
	assert_in("infer/app/error", "models/n/1/model.json");
	begin(PAIR);
}

/* Another weight, member or order is another ensemble; a spec that says the same isn't loaded anew. */
static void test_spec_changes(void **state)
{
	static const char only[] = "{\"model\":\"n\",\"batch\":4}",
			  *const changes[] = {
				  "{\"models\":[\"m\",\"n\"],\"batch\":4}",
				  "{\"models\":[\"n\",\"m\"],\"batch\":4}",
				  "{\"models\":[{\"model\":\"n\",\"version\":7},\"m\"],\"batch\":4}",
			  };
	int loads;

	(void)state;
	begin(PAIR);
	loads = (int)w.s->by_number[0]->stats.n_shares;
	assert_int_equal(loads, 2 + 3); /* of the model alone that was there before, and of the ensemble */
	fake_remove(&w.host, "models/m/1/model.json"); /* loading would fail */
	spec("{\"models\":[{\"model\":\"m\",\"weight\":1},{\"model\":\"n\",\"weight\":2}],\"batch\":4,"
	     "\"deadline\":\"3s\"}");
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		fake_put(&w.host, "models/m/1/model.json", pair);
		spec(PAIR);
		assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
		fake_remove(&w.host, "models/m/1/model.json");
		spec(changes[i]);
		assert_string_equal(fake_content(&w.host, "infer/app/state"), "failed\n");
	}
	put_model("n", 8, MODEL);
	spec(only);
	assert_string_equal(fake_content(&w.host, "infer/app/state"), "running\n");
	world_put(&w, "b/1.png", "1");
	world_deadline(&w, "b", "1s");
	world_run(&w, 2000);
	assert_true(world_number(&w, "out/b/1.png.json", "version") == 8);
	assert_true(world_number(&w, "out/b/1.png.json", "slice") == 1);
	assert_null(strstr(fake_content(&w.host, "infer/app/out/b/1.png.json"), "members"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_names), T(test_versions), T(test_missing),
					   T(test_spec_changes)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
