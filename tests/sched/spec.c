/* infer/APP/spec.json and ctl: what is understood, and what the write must be refused for. */
#include "sched/loop.h"
#include "sched/spec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_defaults(void **state)
{
	static const char minimal[] = "{\"model\":\"m\"}\n";
	static const char all[] = "{\"model\":\"m\",\"version\":\"3\",\"batch\":7,\"deadline\":\"800ms\","
				  "\"explain\":[\"gradcam\"],\"precision\":[\"bf16\",\"int8\"],\"settle\":"
				  "\"0\",\"settle_batch\":0.25,\"weight\":2.5,\"ahead\":false}";
	struct infer_spec spec;

	(void)state;
	assert_int_equal(infer_spec_parse(&spec, minimal, strlen(minimal), NULL), 0);
	assert_string_equal(spec.model, "m");
	assert_int_equal(spec.version, 0);
	assert_int_equal(spec.batch, 32);
	assert_false(spec.deadline.set);
	assert_false(spec.gradcam);
	assert_int_equal(spec.precisions, 0);
	assert_true(spec.weight == 1 && spec.ahead == -1);
	assert_int_equal(spec.settle_ns, -1);
	assert_int_equal(spec.settle_batch_ns, -1);
	assert_int_equal(infer_spec_parse(&spec, all, strlen(all), NULL), 0);
	assert_int_equal(spec.version, 3);
	assert_int_equal(spec.batch, 7);
	assert_true(spec.deadline.set && spec.deadline.ns == 800 * NS_PER_MS);
	assert_true(spec.gradcam);
	assert_int_equal(spec.precisions, 1 << PRECISION_BF16 | 1 << PRECISION_INT8);
	assert_true(spec.weight == 2.5 && spec.ahead == 0);
	assert_int_equal(spec.settle_ns, 0);
	assert_int_equal(spec.settle_batch_ns, 250 * NS_PER_MS);
}

static void test_models(void **state)
{
	static const char json[] = "{\"models\":[\"a\",{\"model\":\"b\",\"version\":3,\"weight\":2.5},"
				   "{\"model\":\"b\",\"version\":\"latest\"}],\"batch\":7}",
			  one[] = "{\"version\":5,\"model\":\"m\"}";
	struct infer_spec spec;

	(void)state;
	assert_int_equal(infer_spec_parse(&spec, json, strlen(json), NULL), 0);
	assert_string_equal(spec.model, "a+b+b");
	assert_int_equal(spec.n_members, 3);
	assert_string_equal(spec.members[0].model, "a");
	assert_true(spec.members[0].version == 0 && spec.members[0].weight == 1);
	assert_string_equal(spec.members[1].model, "b");
	assert_true(spec.members[1].version == 3 && spec.members[1].weight == 2.5);
	assert_true(spec.members[2].version == 0 && spec.members[2].weight == 1);
	assert_int_equal(spec.batch, 7);
	assert_int_equal(infer_spec_parse(&spec, one, strlen(one), NULL), 0);
	assert_string_equal(spec.model, "m");
	assert_int_equal(spec.n_members, 1);
	assert_string_equal(spec.members[0].model, "m");
	assert_int_equal(spec.members[0].version, 5);
}

/* Eight members of the longest names. */
static void test_long_models(void **state)
{
	char json[4096] = "{\"models\":[", name[256];
	struct infer_spec spec;

	(void)state;
	for (int i = 0; i < 8; i++) {
		memset(name, 'a' + i, 255);
		name[255] = '\0';
		snprintf(json + strlen(json), sizeof(json) - strlen(json), "%s\"%s\"", i ? "," : "", name);
	}
	strcat(json, "]}");
	assert_int_equal(infer_spec_parse(&spec, json, strlen(json), NULL), 0);
	assert_int_equal(spec.n_members, 8);
	assert_int_equal(strlen(spec.model), 8 * 255 + 7);
	assert_string_equal(spec.members[7].model, name);
}

static void test_refused(void **state)
{
	static const struct {
		const char *json;
		int r;
		enum err_code code;
	} cases[] = {
		{"", -EAGAIN, ERR_JSON_SYNTAX},
		{" \n", -EAGAIN, ERR_JSON_SYNTAX},
		{"{", -EAGAIN, ERR_JSON_SYNTAX},
		{"{\"model\":\"m", -EAGAIN, ERR_JSON_SYNTAX},
		{"{\"model\":\"m\\\"}", -EAGAIN, ERR_JSON_SYNTAX},
		{"{\"model\":\"m\",\"explain\":[", -EAGAIN, ERR_JSON_SYNTAX},
		{"{\"model\":m}", -EINVAL, ERR_JSON_SYNTAX},
		{"{\"model\":\"m\"}}", -EINVAL, ERR_JSON_SYNTAX},
		{"{\"model\":\"m\"} x", -EINVAL, ERR_JSON_SYNTAX},
		{"[]", -EINVAL, ERR_SPEC_VALUE},
		{"17", -EINVAL, ERR_SPEC_VALUE},
		{"null", -EINVAL, ERR_SPEC_VALUE},
		{"{}", -EINVAL, ERR_SPEC_MISSING},
		{"{\"batch\":3}", -EINVAL, ERR_SPEC_MISSING},
		{"{\"model\":\"\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":7}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"../jobs\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"a/b\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"..\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"modle\":1}", -EINVAL, ERR_SPEC_KEY},
		{"{\"model\":\"m\",\"model\":\"n\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"Batch\":1}", -EINVAL, ERR_SPEC_KEY},
		{"{\"model\":\"m\",\"batch\":0}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"batch\":1.5}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"batch\":1025}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"batch\":1e99}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"batch\":\"32\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"version\":0}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"version\":-1}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"version\":\"newest\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"version\":\"\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"version\":99999999999}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"deadline\":\"soon\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"deadline\":0}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"deadline\":-5}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"deadline\":[]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"explain\":\"gradcam\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"ahead\":\"no\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"explain\":[\"lime\"]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"explain\":[1]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"settle\":\"@1769000000\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"settle\":\"90m\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"precision\":\"f32\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"precision\":[]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"precision\":[\"f16\"]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"precision\":{\"a\":1}}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"settle\":true}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"weight\":0}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"weight\":0.009}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"weight\":-1}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"weight\":1000.1}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"weight\":1e999}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"weight\":\"3\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"weight\":null}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"m\",\"weight\":[3]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\"]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":\"a\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":{\"a\":1,\"b\":1}}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}", -EINVAL,
		 ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",\"b\"],\"model\":\"a\"}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"model\":\"a\",\"models\":[\"a\",\"b\"]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",\"b\"],\"version\":1}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",\"a\"]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",\"../b\"]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",7]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",{\"version\":1}]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",{\"model\":\"b\",\"wieght\":1}]}", -EINVAL, ERR_SPEC_KEY},
		{"{\"models\":[\"a\",{\"model\":\"b\",\"weight\":0}]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",{\"model\":\"b\",\"weight\":-1}]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",{\"model\":\"b\",\"weight\":1e99}]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",{\"model\":\"b\",\"weight\":\"2\"}]}", -EINVAL, ERR_SPEC_VALUE},
		{"{\"models\":[\"a\",{\"model\":\"b\",\"version\":0}]}", -EINVAL, ERR_SPEC_VALUE},
	};
	char deep[5000], *huge;
	struct infer_spec spec = {.batch = 99};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = ERR_INIT;
		size_t len = strlen(cases[i].json);
		char *exact = malloc(len + 1); /* no byte behind it, for the address sanitizer */
		int r;

		memcpy(exact, cases[i].json, len);
		exact = realloc(exact, len ? len : 1);
		r = infer_spec_parse(&spec, exact, len, &err);
		free(exact);
		if (r != cases[i].r || err.code != cases[i].code)
			fail_msg("%s: %d %s", cases[i].json, r, err_name(err.code));
		assert_true(*err.detail);
	}
	assert_int_equal(infer_spec_parse(&spec, "{\"model\":\"m\0\"}", 14, NULL), -EINVAL);
	memset(deep, '[', sizeof(deep));
	assert_true(infer_spec_parse(&spec, deep, sizeof(deep), NULL) < 0);
	huge = malloc(SPEC_MAX_LEN + 1);
	memset(huge, ' ', SPEC_MAX_LEN + 1);
	assert_int_equal(infer_spec_parse(&spec, huge, SPEC_MAX_LEN + 1, NULL), -EINVAL);
	free(huge);
	assert_int_equal(spec.batch, 99); /* untouched */
}

static void test_words(void **state)
{
	static const char *const wrong[] = {"",          "\n",    "Start",       "start ",
					    "start\n\n", "pause", "stop reload", "reloadx"};
	enum infer_word word = INFER_START;

	(void)state;
	assert_int_equal(infer_word_parse(&word, "stop\n", 5, NULL), 0);
	assert_int_equal(word, INFER_STOP);
	assert_int_equal(infer_word_parse(&word, "reload", 6, NULL), 0);
	assert_int_equal(word, INFER_RELOAD);
	assert_int_equal(infer_word_parse(&word, "start", 5, NULL), 0);
	assert_int_equal(word, INFER_START);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(infer_word_parse(&word, wrong[i], strlen(wrong[i]), NULL), -EINVAL);
	assert_int_equal(infer_word_parse(&word, "start\0", 6, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),    cmocka_unit_test(test_models),
		cmocka_unit_test(test_long_models), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
