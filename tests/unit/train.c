/* Training learns, from nothing or from another model, and says so when it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model_private.h"
#include "tests/support/training.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static void learns(void **state)
{
	static const char *const specs[] = {SPEC "\"epochs\":8}", BATCH "\"epochs\":8}",
					    SPEC
					    "\"epochs\":8,\"optimizer\":\"adamw\",\"ema\":0.99,\"clip\":5,"
					    "\"distill\":0.5,\"smoothing\":0.1,\"erase\":3}"};
	struct dataset *ds = blobs(1000);

	(void)state;
	for (int k = 0; k < 3; k++) {
		struct run run = {0};
		double accuracy[3];

		assert_int_equal(train_once(ds, specs[k], &run, NULL, accuracy), 0);
		assert_int_equal(run.epochs, 8);
		assert_int_equal(run.steps, 8 * 18); /* 900 training images, 50 a batch */
		for (int i = 0; i < 3; i++)
			if (accuracy[i] < 0.95)
				fail_msg("spec %d, slice %d: %.3f", k, i, accuracy[i]);
		run_release(&run);
	}
	dataset_close(ds);
}

/* Twice the default lr and the sum of four slices' gradients: without a bound on its norm the loss grows to infinity. */
static void learns_without_normalisation(void **state)
{
#define MLP "{\"dataset\":\"d\",\"net\":{\"arch\":\"mlp\"},\"batch\":32,\"lr\":0.2,\"epochs\":20"
	struct run bound = {0}, unbound = {0};
	struct dataset *ds = blobs(400);
	double accuracy[3];

	(void)state;
	assert_int_equal(train_once(ds, MLP "}", &bound, NULL, accuracy), 0);
	for (int i = 0; i < 3; i++)
		assert_true(accuracy[i] > 0.9);
	assert_int_equal(train_once(ds, MLP ",\"clip\":0}", &unbound, NULL, NULL), -EDOM);
	run_release(&bound);
	run_release(&unbound);
	dataset_close(ds);
#undef MLP
}

/* After an epoch the slices differ: what is right more often helps where another one is unsure. */
static void cascades(void **state)
{
	struct dataset *ds = blobs(1000);
	struct run run = {0};

	(void)state;
	assert_int_equal(dataset_count(ds, DATASET_VAL), N_VAL);
	assert_int_equal(train_once(ds, SPEC "\"epochs\":1}", &run, NULL, NULL), 0);
	print_message("the best cascade gains %.3f\n", run.cascade);
	assert_true(run.cascade > 0.02);
	run_release(&run);
	dataset_close(ds);
}

/* An evaluation gives signs of life, too, and can be stopped. */
static void stops_evaluating(void **state)
{
	struct dataset *ds = blobs(1000);
	struct run run = {0}, stopped = {.stop_evaluating = 2};

	(void)state;
	assert_int_equal(train_once(ds, SPEC "\"epochs\":1}", &run, NULL, NULL), 0);
	assert_true(run.evaluated >= 3 * 3); /* slices, after the epoch and of val and test at the end */
	assert_int_equal(train_once(ds, SPEC "\"epochs\":1}", &stopped, NULL, NULL), -ECANCELED);
	assert_int_equal(stopped.evaluated, 2);
	assert_int_equal(stopped.epochs, 0);
	run_release(&run);
	run_release(&stopped);
	dataset_close(ds);
}

/* Everything of the other model but its head, and its network where the spec has none. */
static void begins_with_another(void **state)
{
	static const struct {
		const char *spec;
		int r;
		const char *says;
	} cases[] = {
		{"{\"dataset\":\"d\",\"init\":\"models/o/3\",\"slices\":[0.5,1]}", 0,
		 "81 of 83 arrays are those of the model it begins with; the head is new: 2 classes, 5 "
		 "there"},
		{"{\"dataset\":\"d\",\"init\":\"o\",\"slices\":[0.25,1]}", 0, "81 of 83 arrays"},
		{"{\"dataset\":\"d\",\"init\":\"o/latest\",\"net\":{\"arch\":\"mlp\"}}", -EBADMSG, "fits"},
		{NULL, -ENOENT, "models/o"},
	};
	struct dataset *ds = blobs(1000);
	struct buf b[4];
	struct model *other = other_model(b);

	(void)state;
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		const char *json = cases[k].spec ? cases[k].spec : cases[0].spec;
		struct err err = ERR_INIT;
		struct train_spec *spec;
		struct train *t;
		struct run run = {0};
		int r;

		assert_int_equal(train_spec_parse(&spec, json, strlen(json), NULL), 0);
		if (cases[k].spec)
			assert_int_equal(
				train_spec_give_init(spec, b[0].data, b[0].len, b[1].data, b[1].len, NULL),
				0);
		r = train_new(&t, spec, ds, NULL, 0, &run_hooks, &run, &err);
		if (r != cases[k].r || !strstr(r < 0 ? err.detail : run.note, cases[k].says))
			fail_msg("%s: %d %s %s", json, r, err.detail, run.note);
		if (r == 0) {
			struct params *p = &train_model(t)->net->params;

			for (int i = 0; i < p->n; i++) {
				const struct param *from = params_find(&other->net->params, p->list[i].name);

				if (from && strncmp(p->list[i].name, "fc.", 3) != 0)
					assert_memory_equal(p->list[i].value, from->value,
							    from->size * sizeof(float));
			}
			assert_float_equal(model_info(train_model(t))->mean[0], 0.3, 1e-6);
			assert_int_equal(model_info(train_model(t))->classes, 2);
			train_free(t);
		}
		run_release(&run);
		train_spec_free(spec);
	}
	model_free(other);
	dataset_close(ds);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
}

static void budget_ends(void **state)
{
	struct dataset *ds = blobs(1000);
	struct run run = {0};
	struct timespec a, b;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(train_once(ds, SPEC "\"budget\":\"1.5s\"}", &run, NULL, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true(run.epochs >= 1);
	assert_true(b.tv_sec - a.tv_sec >= 1 && b.tv_sec - a.tv_sec < 30);
	run_release(&run);
	dataset_close(ds);
}

static void diverges(void **state)
{
	struct dataset *ds = blobs(1000);
	struct run run = {0};

	(void)state;
	assert_int_equal(
		train_once(ds,
			   "{\"dataset\":\"d\",\"net\":{\"arch\":\"mlp\",\"hidden\":[16]},\"lr\":100,"
			   "\"weight_decay\":10,\"warmup\":0,\"epochs\":20}",
			   &run, NULL, NULL),
		-EDOM);
	run_release(&run);
	dataset_close(ds);
}

static void specs(void **state)
{
	static const struct {
		const char *json, *says;
	} bad[] = {
		{"", ""},
		{"{", ""},
		{"{}", "dataset"},
		{"{\"dataset\":7}", "text"},
		{"{\"dataset\":\"../x\"}", "name"},
		{"{\"dataset\":\"d\",\"epoch\":3}", "did you mean \"epochs\""},
		{"{\"dataset\":\"d\",\"epochs\":0}", "epochs"},
		{"{\"dataset\":\"d\",\"epochs\":1.5}", "epochs"},
		{"{\"dataset\":\"d\",\"lr\":\"0.1\"}", "lr"},
		{"{\"dataset\":\"d\",\"lr\":0.1,\"lr\":0.2}", "twice"},
		{"{\"dataset\":\"d\",\"flip\":1}", "flip"},
		{"{\"dataset\":\"d\",\"optimizer\":\"lion\"}", "adamw"},
		{"{\"dataset\":\"d\",\"slices\":[0.5]}", "end in 1"},
		{"{\"dataset\":\"d\",\"slices\":[0.5,0.25,1]}", "ascend"},
		{"{\"dataset\":\"d\",\"input\":\"2x3x4\"}", "input"},
		{"{\"dataset\":\"d\",\"input\":\"3x32x32 \"}", "input"},
		{"{\"dataset\":\"d\",\"budget\":\"8 parsecs\"}", "budget"},
		{"{\"dataset\":\"d\",\"budget\":-1}", "budget"},
		{"{\"dataset\":\"d\",\"init\":\"models/\"}", "init"},
		{"{\"dataset\":\"d\",\"init\":\"models/a/b/3\"}", "init"},
		{"{\"dataset\":\"d\",\"init\":\"models/a/0\"}", "init"},
		{"{\"dataset\":\"d\",\"init\":\"../a\"}", "init"},
		{"{\"dataset\":\"d\",\"net\":{\"arch\":\"resnet\",\"depth\":9}}", "6n+2"},
	};
	const char *good =
		"{\"dataset\":\"d\",\"model\":\"m\",\"budget\":\"2m\",\"input\":\"3x16x20\",\"lr\":0.25}";
	struct train_spec *spec, *again;
	struct buf a = BUF_INIT, b = BUF_INIT;
	int c, h, w;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = ERR_INIT;
		int r = train_spec_parse(&spec, bad[i].json, strlen(bad[i].json), &err);

		if (r != -EINVAL || !strstr(err.detail, bad[i].says))
			fail_msg("%s: %d %s", bad[i].json, r, err.detail);
	}
	assert_int_equal(train_spec_parse(&spec, good, strlen(good), NULL), 0);
	assert_string_equal(train_spec_dataset(spec), "d");
	assert_string_equal(train_spec_model(spec), "m");
	train_spec_input(spec, &c, &h, &w);
	assert_true(c == 3 && h == 16 && w == 20);
	/* What is written back is a spec that says the same. */
	assert_int_equal(train_spec_to_json(spec, &a), 0);
	assert_non_null(strstr(a.data, "\"budget\":\t120"));
	assert_int_equal(train_spec_parse(&again, a.data, a.len, NULL), 0);
	assert_int_equal(train_spec_to_json(again, &b), 0);
	assert_string_equal(a.data, b.data);
	train_spec_free(spec);
	train_spec_free(again);
	buf_release(&a);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(specs),
		cmocka_unit_test(learns),
		cmocka_unit_test(cascades),
		cmocka_unit_test(learns_without_normalisation),
		cmocka_unit_test(stops_evaluating),
		cmocka_unit_test(begins_with_another),
		cmocka_unit_test(budget_ends),
		cmocka_unit_test(diverges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
