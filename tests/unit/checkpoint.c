/* A run goes on from its checkpoint as if it had not been stopped, by what it began with, or is told what forbids it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/safetensors.h"
#include "tests/support/training.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void repeats_and_resumes(void **state)
{
	static const char *const specs[] = {
		FOUR "\"epochs\":3,\"threads\":1}",
		FOUR "\"epochs\":3,\"threads\":1,\"optimizer\":\"adamw\",\"ema\":0.9}",
		/* wide enough for Winograd's filtering, by two threads */
		"{\"dataset\":\"d\",\"net\":{\"arch\":\"resnet\",\"depth\":8,\"width\":32,\"groups\":2},"
		"\"batch\":50,"
		"\"slices\":[0.5,1],\"epochs\":3,\"threads\":2}",
		/* a norm with statistics for each slice, and dropout */
		"{\"dataset\":\"d\",\"net\":{\"arch\":\"layers\",\"layers\":[{\"op\":\"conv2d\",\"channels\":"
		"8,\"stride\":2},"
		"{\"op\":\"batch_norm\"},{\"op\":\"relu\"},{\"op\":\"global_avg_pool\"},{\"op\":\"dropout\"},"
		"{\"op\":\"linear\",\"features\":\"classes\"}]},\"batch\":50,"
		"\"slices\":[0.5,1],\"epochs\":3,\"threads\":1,\"clip\":5,\"ema\":0.9}"};
	struct dataset *ds = blobs(400);

	(void)state;
	for (size_t k = 0; k < sizeof(specs) / sizeof(specs[0]); k++) {
		struct run whole = {0}, again = {0}, first = {.stop_after = 1}, rest = {0};

		assert_int_equal(train_once(ds, specs[k], &whole, NULL, NULL), 0);
		assert_int_equal(train_once(ds, specs[k], &again, NULL, NULL), 0);
		assert_int_equal(whole.weights.len, again.weights.len);
		assert_memory_equal(whole.weights.data, again.weights.data, whole.weights.len);
		assert_int_equal(train_once(ds, specs[k], &first, NULL, NULL), -ECANCELED);
		assert_int_equal(first.epochs, 1);
		assert_memory_not_equal(first.weights.data, whole.weights.data, whole.weights.len);
		assert_int_equal(train_once(ds, specs[k], &rest, &first.checkpoint, NULL), 0);
		assert_int_equal(rest.steps, 2 * 7); /* 360 training images, 50 a batch */
		assert_memory_equal(rest.weights.data, whole.weights.data, whole.weights.len);
		/* A finished run's checkpoint: nothing is left to do. */
		struct run done = {0};
		assert_int_equal(train_once(ds, specs[k], &done, &whole.checkpoint, NULL), 0);
		assert_int_equal(done.steps, 0);
		assert_memory_equal(done.weights.data, whole.weights.data, whole.weights.len);
		run_release(&whole), run_release(&again), run_release(&first), run_release(&rest);
		run_release(&done);
	}
	dataset_close(ds);
}

/* The model that it began with may be gone, and with it the network and how pixels are normalised. */
static void goes_on_without_what_it_began_with(void **state)
{
	static const char spec[] =
		"{\"dataset\":\"d\",\"init\":\"models/o/3\",\"slices\":[0.5,1],\"batch\":50,"
		"\"epochs\":2,\"threads\":1}";
	struct dataset *ds = blobs(400);
	struct buf b[4];
	struct run whole = {.init = b}, first = {.stop_after = 1, .init = b}, rest = {0};

	(void)state;
	model_free(other_model(b));
	assert_int_equal(train_once(ds, spec, &whole, NULL, NULL), 0);
	assert_int_equal(train_once(ds, spec, &first, NULL, NULL), -ECANCELED);
	assert_int_equal(train_once(ds, spec, &rest, &first.checkpoint, NULL), 0);
	assert_memory_equal(rest.weights.data, whole.weights.data, whole.weights.len);
	run_release(&whole), run_release(&first), run_release(&rest);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
	dataset_close(ds);
}

/* Every knob, and of all that have one none at its default. */
#define EVERY(epochs)                                                                                       \
	"{\"dataset\":\"d\",\"net\":{\"arch\":\"mlp\",\"hidden\":[16]},\"epochs\":" #epochs                 \
	",\"batch\":40,\"lr\":0.01,\"momentum\":0.8,\"weight_decay\":0.001,\"warmup\":0.5,\"smoothing\":0." \
	"1,"                                                                                                \
	"\"random\":1,\"distill\":0.3,\"temperature\":2,\"shift\":1,\"erase\":3,\"clip\":5,\"ema\":0.9,"    \
	"\"seed\":3,\"threads\":1,\"optimizer\":\"adamw\",\"slices\":[0.25,0.5,0.75,0.875,1],\"flip\":true}"

/* A run that goes on by another version: none of its defaults counts, and what it says is what the run began with. */
static void goes_on_as_it_began(void **state)
{
	static const struct {
		const char *began, *goes_on, *note;
	} cases[] = {
		{EVERY(3), "{\"dataset\":\"d\"}", "lr 0.01 (today 0.1)"},
		{EVERY(3), "{\"dataset\":\"d\",\"lr\":0.01,\"shift\":-1}", "clip 5 (today 1)"},
		{EVERY(3), EVERY(3), ""},
		/* what the data and the network decided */
		{SPEC "\"epochs\":3,\"threads\":1}",
		 "{\"dataset\":\"d\",\"clip\":-1,\"threads\":1,\"epochs\":3}",
		 "slices [0.25,0.5,1] (today [0.25,0.5,0.75,1])"},
	};
	struct dataset *ds = blobs(400);

	(void)state;
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		struct run whole = {0}, first = {.stop_after = 1}, rest = {0};

		assert_int_equal(train_once(ds, cases[k].began, &whole, NULL, NULL), 0);
		assert_string_equal(whole.note, "");
		assert_null(strstr(whole.knobs.data, "-1"));
		assert_int_equal(train_once(ds, cases[k].began, &first, NULL, NULL), -ECANCELED);
		if (train_once(ds, cases[k].goes_on, &rest, &first.checkpoint, NULL) < 0)
			fail_msg("%zu: %s", k, rest.error);
		assert_int_equal(rest.steps, whole.steps - first.steps);
		assert_int_equal(rest.weights.len, whole.weights.len);
		assert_memory_equal(rest.weights.data, whole.weights.data, whole.weights.len);
		assert_string_equal(rest.knobs.data, whole.knobs.data);
		if (!strstr(rest.note, cases[k].note) || !*cases[k].note != !*rest.note)
			fail_msg("%zu: %s", k, rest.note);
		run_release(&whole), run_release(&first), run_release(&rest);
	}
	dataset_close(ds);
}

/* What spec.json names is what the run began with, or it is refused and told. */
static void names_what_differs(void **state)
{
	static const struct {
		const char *spec, *says;
	} cases[] = {
		{"\"epochs\":4", "\"epochs\" is 4 in spec.json and was 2 when the training began"},
		{"\"batch\":50", "\"batch\" is 50 in spec.json and was 40"},
		{"\"lr\":0.1", "\"lr\" is 0.1 in spec.json and was 0.01"},
		{"\"momentum\":0.9", "\"momentum\" is 0.9 "},
		{"\"weight_decay\":0", "\"weight_decay\" is 0 in spec.json and was 0.001"},
		{"\"warmup\":1", "\"warmup\" is 1 "},
		{"\"smoothing\":0", "\"smoothing\" is 0 "},
		{"\"random\":2", "\"random\" is 2 "},
		{"\"distill\":0", "\"distill\" is 0 "},
		{"\"temperature\":1", "\"temperature\" is 1 "},
		{"\"shift\":0", "\"shift\" is 0 "},
		{"\"erase\":0", "\"erase\" is 0 "},
		{"\"clip\":0", "\"clip\" is 0 in spec.json and was 5"},
		{"\"ema\":0", "\"ema\" is 0 "},
		{"\"seed\":1", "\"seed\" is 1 "},
		{"\"threads\":0", "\"threads\" is 0 "},
		{"\"optimizer\":\"sgd\"", "\"optimizer\" is \"sgd\" in spec.json and was \"adamw\""},
		{"\"slices\":[1]", "\"slices\" is [1] in spec.json and was [0.25,0.5,0.75,0.875,1]"},
		{"\"flip\":false", "\"flip\" is false in spec.json and was true"},
		{"\"budget\":\"2m\"", "\"budget\" is 120 in spec.json and was none"},
		{"\"model\":\"m\"", "\"model\" is \"m\" in spec.json and was none"},
		{"\"input\":\"1x12x12\"", "\"input\" is \"1x12x12\" in spec.json and was none"},
		{"\"net\":{\"arch\":\"mlp\",\"hidden\":[32]}",
		 "\"net\" is {\"arch\":\"mlp\",\"hidden\":[32]} "},
	};
	struct dataset *ds = blobs(400), *more = blobs(1000);
	struct run run = {.stop_after = 1}, none = {0};
	char spec[200];

	(void)state;
	assert_int_equal(train_once(ds, EVERY(2), &run, NULL, NULL), -ECANCELED);
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		snprintf(spec, sizeof(spec), "{\"dataset\":\"d\",%s}", cases[k].spec);
		assert_int_equal(train_once(ds, spec, &none, &run.checkpoint, NULL), -EBADMSG);
		if (!strstr(none.error, cases[k].says))
			fail_msg("%s: %s", spec, none.error);
	}
	assert_int_equal(train_once(ds, "{\"dataset\":\"e\"}", &none, &run.checkpoint, NULL), -EBADMSG);
	assert_non_null(strstr(none.error, "\"dataset\" is \"e\" in spec.json and was \"d\""));
	assert_int_equal(train_once(more, EVERY(2), &none, &run.checkpoint, NULL), -EBADMSG);
	assert_string_equal(none.error,
			    "the data set is 900 images of 1x12x12 for training, in 2 classes, and was "
			    "360 of 1x12x12 in 2 when the training began");
	assert_int_equal(none.steps, 0);
	run_release(&run);
	run_release(&none);
	dataset_close(ds);
	dataset_close(more);
}

/* The same checkpoint with this metadata in place of "run". */
static struct buf with_metadata(const struct buf *from, const char *key, const char *value)
{
	struct buf ret = BUF_INIT;
	struct safetensors *st;
	struct safetensors_tensor *list;

	assert_int_equal(safetensors_open(&st, from->data, from->len, NULL), 0);
	list = calloc(safetensors_count(st), sizeof(*list));
	for (size_t i = 0; i < safetensors_count(st); i++)
		list[i] = *safetensors_at(st, i);
	const char *const metadata[] = {
		"epoch",   safetensors_metadata(st, "epoch"),   "step", safetensors_metadata(st, "step"),
		"elapsed", safetensors_metadata(st, "elapsed"), key,    value};
	assert_int_equal(safetensors_write(&ret, list, safetensors_count(st), metadata, 4, NULL), 0);
	free(list);
	safetensors_close(st);
	return ret;
}

/* The first form of a checkpoint has a hash of the whole spec; this is what the version that wrote it made of these. */
static void goes_on_from_the_first_form(void **state)
{
	static const char spec[] = SPEC "\"epochs\":2}";
	struct run whole = {0}, first = {.stop_after = 1}, rest = {0};
	struct dataset *ds = blobs(400);
	struct buf old;

	(void)state;
	assert_int_equal(train_once(ds, spec, &whole, NULL, NULL), 0);
	assert_int_equal(train_once(ds, spec, &first, NULL, NULL), -ECANCELED);
	old = with_metadata(&first.checkpoint, "spec", "56cb25550abafa7e");
	assert_int_equal(train_once(ds, spec, &rest, &old, NULL), 0);
	assert_int_equal(rest.steps, 7);
	assert_memory_equal(rest.weights.data, whole.weights.data, whole.weights.len);
	assert_int_equal(train_once(ds, SPEC "\"epochs\":3}", &rest, &old, NULL), -EBADMSG);
	assert_string_equal(rest.error, "it was made with another spec or data set");
	buf_release(&old);
	run_release(&whole), run_release(&first), run_release(&rest);
	dataset_close(ds);
}

static void checkpoint_hostile(void **state)
{
#define RUN(version, spec, data, mean, std) \
	"{\"version\":" version ",\"spec\":{" spec "},\"data\":{" data "},\"mean\":" mean ",\"std\":" std "}"
#define S "\"dataset\":\"d\",\"net\":{\"arch\":\"mlp\"}"
#define D "\"channels\":1,\"height\":12,\"width\":12,\"classes\":2,\"images\":360"
	static const struct {
		const char *run, *says;
	} cases[] = {
		{"", "run"},
		{"{", "run"},
		{"[]", "version"},
		{"{}", "version"},
		{RUN("2", S, D, "[0]", "[1]"), "\"run.version\" must be"},
		{RUN("1", S, D, "[0]", "[1]"), "does not fit"}, /* another network */
		{RUN("1", S ",\"wings\":2", D, "[0]", "[1]"), "\"wings\""},
		{RUN("1", S ",\"lr\":1e9", D, "[0]", "[1]"), "\"lr\" must be"},
		{RUN("1", "\"net\":{\"arch\":\"mlp\"}", D, "[0]", "[1]"), "\"dataset\""},
		{RUN("1", "\"dataset\":\"d\",\"init\":\"models/m\"", D, "[0]", "[1]"), "\"net\""},
		{RUN("1", S, "\"channels\":1", "[0]", "[1]"), "of \"data\""},
		{RUN("1", S, D ",\"depth\":1", "[0]", "[1]"), "\"data.depth\""},
		{RUN("1", S, "\"channels\":5", "[0]", "[1]"), "\"data.channels\" must be"},
		{RUN("1", S, D, "[0,0]", "[1]"), "\"mean\" must be 1 numbers"},
		{RUN("1", S, D, "[1e39]", "[1]"), "\"mean\" has"},
		{RUN("1", S, D, "[0]", "[0]"), "\"std\" has"},
		{RUN("1", S, D, "[0]", "7"), "\"std\" must be"},
		{RUN("1", S, D, "[0]", "[1],\"more\":1"), "\"run.more\""},
		{"{\"version\":1,\"spec\":[],\"data\":{" D "},\"mean\":[0],\"std\":[1]}", "the spec must be"},
		{"{\"version\":1,\"mean\":[0],\"std\":[1]}", "data must be"},
	};
	struct dataset *ds = blobs(400);
	struct run run = {.stop_after = 1}, none = {0};
	struct buf cut = BUF_INIT;

	(void)state;
	assert_int_equal(train_once(ds, SPEC "\"epochs\":2}", &run, NULL, NULL), -ECANCELED);
	for (size_t n = 0; n < run.checkpoint.len; n += run.checkpoint.len / 20) {
		buf_clear(&cut);
		buf_add(&cut, run.checkpoint.data, n);
		if (!n)
			buf_adds(&cut, "\0");
		cut.len = n;
		if (n)
			assert_int_equal(train_once(ds, SPEC "\"epochs\":2}", &none, &cut, NULL), -EBADMSG);
	}
	buf_release(&cut);
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		cut = with_metadata(&run.checkpoint, "run", cases[k].run);
		assert_int_equal(train_once(ds, "{\"dataset\":\"d\"}", &none, &cut, NULL), -EBADMSG);
		if (!strstr(none.error, cases[k].says))
			fail_msg("%s: %s", cases[k].run, none.error);
		buf_release(&cut);
	}
	assert_int_equal(none.steps, 0);
	run_release(&run);
	dataset_close(ds);
#undef RUN
#undef S
#undef D
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(repeats_and_resumes),
		cmocka_unit_test(goes_on_without_what_it_began_with),
		cmocka_unit_test(goes_on_as_it_began),
		cmocka_unit_test(names_what_differs),
		cmocka_unit_test(goes_on_from_the_first_form),
		cmocka_unit_test(checkpoint_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
