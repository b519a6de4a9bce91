/* What model.json says of cascades comes back, and nothing else is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* A model with cascades from the half slice in f32 to the whole one, and from that in bf16 to it in f32. */
static struct model *with_cascades(struct cascade_first *ret_first, float ret_then[CASCADE_POINTS])
{
	const struct model_submodel half = {0, PRECISION_F32}, whole = {1, PRECISION_F32},
				    narrow = {1, PRECISION_BF16};
	const struct model_info info = {.channels = 1,
					.height = 4,
					.width = 4,
					.classes = 3,
					.std = {1},
					.n_rates = 2,
					.rates = {0.5f, 1}};
	struct model *model;

	assert_int_equal(model_new(&model, "{\"arch\":\"mlp\",\"hidden\":[16]}", &info, 5, NULL), 0);
	for (int i = 0; i < CASCADE_POINTS; i++) {
		ret_first->threshold[i] = 1 - ldexpf(1, -15 - i); /* as near to 1 as they are */
		ret_first->sure[i] = 0.9f + 0.01f * (float)i;
		ret_then[i] = 0.91f + 0.001f * (float)i;
	}
	ret_first->threshold[0] = 0.25f;
	ret_first->threshold[CASCADE_POINTS - 1] = 1;
	model_set_accuracy(model, 0, 0.75f);
	model_set_accuracy(model, 1, 0.875f);
	model_set_narrow_accuracy(model, PRECISION_BF16, 1, 0.75f, 0.625f);
	model_set_cascade_then(model, half, whole, ret_then); /* of no first: not kept */
	assert_null(model_cascade_first(model, half));
	assert_int_equal(model_set_cascade_first(model, half, ret_first), 0);
	assert_null(model_cascade_then(model, half, whole));
	model_set_cascade_then(model, half, whole, ret_then);
	assert_int_equal(model_set_cascade_first(model, narrow, ret_first), 0);
	model_set_cascade_then(model, narrow, whole, ret_then);
	return model;
}

static void cascades_saved(void **state)
{
	const struct model_submodel half = {0, PRECISION_F32}, whole = {1, PRECISION_F32},
				    narrow = {1, PRECISION_BF16}, other = {0, PRECISION_BF16};
	struct buf b[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT},
		   again[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	struct cascade_first first;
	float then[CASCADE_POINTS];
	struct model *model = with_cascades(&first, then), *back;

	(void)state;
	assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], NULL), 0);
	assert_int_equal(model_load(&back, b[0].data, b[0].len, b[1].data, b[1].len, NULL), 0);
	assert_int_equal(model_save(back, &again[0], &again[1], &again[2], &again[3], NULL), 0);
	assert_string_equal(again[0].data, b[0].data);
	for (int p = 0; p < 2; p++) {
		const struct model_submodel from = p ? narrow : half;

		/* thresholds bit by bit; accuracies as far as they go */
		assert_memory_equal(model_cascade_first(back, from)->threshold, first.threshold,
				    sizeof(first.threshold));
		for (int i = 0; i < CASCADE_POINTS; i++) {
			assert_float_equal(model_cascade_first(back, from)->sure[i], first.sure[i], 1e-5);
			assert_float_equal(model_cascade_then(back, from, whole)[i], then[i], 1e-5);
		}
	}
	assert_null(model_cascade_first(back, whole));
	assert_null(model_cascade_then(back, whole, half));
	assert_null(model_cascade_then(back, half, narrow));
	assert_null(model_cascade_first(back, other));
	model_free(back);
	model_free(model);
	for (int i = 0; i < 4; i++) {
		buf_release(&b[i]);
		buf_release(&again[i]);
	}
}

/* Loads what was saved with the first `find` in model.json being `put`. */
static int load_changed(struct model **ret, const struct buf b[4], const char *find, const char *put,
			struct err *err)
{
	struct buf json = BUF_INIT;
	const char *at = strstr(b[0].data, find);
	int r;

	if (!at)
		fail_msg("no %s in %s", find, b[0].data);
	buf_add(&json, b[0].data, (size_t)(at - b[0].data));
	buf_adds(&json, put);
	buf_adds(&json, at + strlen(find));
	r = model_load(ret, json.data, json.len, b[1].data, b[1].len, err);
	buf_release(&json);
	return r;
}

#define RATE_1 "\"rate\":\t1,\n\t\t\t\t\t\t\"precision\":\t\"f32\""

/* The first such text in model.json is the half slice's. What it doesn't know of isn't measured; what can't be is refused. */
static void hostile_cascades(void **state)
{
	static const struct {
		const char *find, *put;
		int r;
	} cases[] = {
		{"\"cascade\"", "\"Cascade\"", 0},
		{RATE_1, "\"rate\":1,\"precision\":\"fp8\"", 0},
		{RATE_1, "\"rate\":0.75,\"precision\":\"f32\"", 0},
		{RATE_1, "\"rate\":\"1\",\"precision\":\"f32\"", 0},
		{RATE_1, "\"precision\":1", 0},
		{"\"then\":\t[", "\"after\":[", 0},
		{"\"then\":\t[", "\"then\":[7,[],{},", 0},
		{"\"cascade\"", "\"cascade\":7,\"old\"", -EBADMSG},
		{"\"cascade\"", "\"cascade\":{},\"old\"", -EBADMSG},
		{"\"threshold\":\t[0.25", "\"threshold\":[\"0.25\"", -EBADMSG},
		{"\"threshold\":\t[0.25", "\"threshold\":[-0.1", -EBADMSG},
		{"\"threshold\":\t[0.25", "\"threshold\":[1e300", -EBADMSG},
		{"\"threshold\":\t[0.25", "\"threshold\":[1e999", -EBADMSG},
		{"\"threshold\":\t[0.25", "\"threshold\":[1", -EBADMSG}, /* larger than the next */
		{"\"threshold\":\t[0.25", "\"threshold\":[0.1,0.25", -EBADMSG},
		{"\"threshold\":\t[0.25, ", "\"threshold\":[", -EBADMSG},
		{"\"threshold\":\t[0.25", "\"threshold\":1,\"old\":[0.25", -EBADMSG},
		{"\"sure\":\t[0.9", "\"sure\":[1.0001", -EBADMSG},
		{"\"sure\":\t[0.9", "\"sure\":[null", -EBADMSG},
		{"\"sure\"", "\"certain\"", -EBADMSG},
		{"\"accuracy\":\t[0.91", "\"accuracy\":[1.1", -EBADMSG},
		{"\"accuracy\":\t[0.91, ", "\"accuracy\":[", -EBADMSG},
		{"\"accuracy\":\t[0.91", "\"accuracy\":[0.9,0.91", -EBADMSG},
		{"\"accuracy\":\t[0.91", "\"accuracy\":1,\"old\":[0.91", -EBADMSG},
		/* after itself */
		{RATE_1, "\"rate\":0.5,\"precision\":\"f32\"", -EBADMSG},
	};
	const struct model_submodel half = {0, PRECISION_F32}, whole = {1, PRECISION_F32};
	struct buf b[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	struct cascade_first first;
	float then[CASCADE_POINTS];
	struct model *model = with_cascades(&first, then), *back;

	(void)state;
	assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = ERR_INIT;
		int r = load_changed(&back, b, cases[i].find, cases[i].put, &err);

		if (r != cases[i].r)
			fail_msg("%s: %d %s", cases[i].put, r, err.detail);
		if (r < 0) {
			assert_non_null(strstr(err.detail, "\"cascade\" of slice 0.5 in f32"));
			continue;
		}
		if (i == 0)
			assert_null(model_cascade_first(back, half));
		else
			assert_int_equal(model_cascade_then(back, half, whole) != NULL,
					 strstr(cases[i].put, "[7,") != NULL);
		model_free(back);
	}
	model_free(model);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cascades_saved),
		cmocka_unit_test(hostile_cascades),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
