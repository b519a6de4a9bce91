/* Weights that lie in a file beside a model: put into it, or refused where the model points anywhere but into that file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/onnx/external.h"
#include "engine/onnx/model.h"
#include "tests/support/onnx_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const float weights[4] = {1, 2, 3, 4};

static struct buf place(const char *location, const char *offset, const char *length)
{
	struct buf t = BUF_INIT;

	put_int(&t, TENSOR_DIMS, 2);
	put_int(&t, TENSOR_TYPE, ONNX_FLOAT);
	put_string(&t, TENSOR_NAME, "w");
	put_int(&t, TENSOR_LOCATION, 1);
	if (location)
		put_place(&t, "location", location);
	if (offset)
		put_place(&t, "offset", offset);
	if (length)
		put_place(&t, "length", length);
	return t;
}

/* y = w + v, v being a Constant of the node that makes it. t, v: emptied */
static struct buf sum_of(struct buf *t, struct buf *v)
{
	struct buf g = BUF_INIT, a = BUF_INIT, attr = BUF_INIT;

	put_message(&g, GRAPH_INITIALIZER, t);
	put_string(&attr, ATTR_NAME, "value");
	put_message(&attr, ATTR_T, v);
	put_int(&attr, ATTR_TYPE, 4);
	put_message(&a, NODE_ATTR, &attr);
	make_node(&g, &a, "Constant", "constant", "", "v");
	make_node(&g, NULL, "Add", "sum", "w v", "y");
	make_output(&g, "y");
	return make_model(&g, 18);
}

static int embed(struct buf *ret, struct buf *m, const struct onnx_limits *limits, struct err *err)
{
	return onnx_embed(ret, m->data, m->len, &(struct onnx_external){"m.data", weights, sizeof(weights)},
			  limits, err);
}

static void embeds(void **state)
{
	struct buf t = place("m.data", "8", "8"), v = place("m.data", NULL, NULL), m = sum_of(&t, &v),
		   to = BUF_INIT;
	struct onnx_tensor *out = NULL;
	struct onnx_model *model = NULL;
	struct err err = ERR_INIT;

	(void)state;
	if (embed(&to, &m, NULL, &err) < 0)
		fail_msg("%s", err.detail);
	if (onnx_load(&model, to.data, to.len, NULL, &err) < 0)
		fail_msg("%s", err.detail);
	assert_int_equal(onnx_run(model, NULL, 0, &out, 1, &err), 0);
	assert_int_equal(out->count, 2);
	assert_true(((float *)out->data)[0] == 3 + 1 && ((float *)out->data)[1] == 4 + 2);
	onnx_tensor_free(out);
	onnx_free(model);
	/* nothing lies elsewhere in what came out */
	m.len = 0;
	assert_int_equal(embed(&m, &to, NULL, &err), 0);
	assert_int_equal(m.len, 0);
	buf_release(&m);
	buf_release(&to);
}

static void refuses(void **state)
{
	static const struct {
		const char *location, *offset, *length;
		enum err_code code;
		const char *words;
	} cases[] = {
		{"other.data", NULL, NULL, ERR_ONNX_EXTERNAL, "'w' lies in 'other.data'; read is 'm.data'"},
		{"../m.data", NULL, NULL, ERR_ONNX_EXTERNAL, "'../m.data'"},
		{"./m.data", NULL, NULL, ERR_ONNX_EXTERNAL, "'./m.data'"},
		{"/etc/passwd", NULL, NULL, ERR_ONNX_EXTERNAL, "'/etc/passwd'"},
		{"", NULL, NULL, ERR_ONNX_EXTERNAL, "''"},
		{NULL, NULL, NULL, ERR_ONNX_EXTERNAL, "''"},
		{"m.data", "9", NULL, ERR_BAD_ONNX, "'w' of 8 bytes isn't in 'm.data', which has 16"},
		{"m.data", "17", NULL, ERR_BAD_ONNX, "isn't in"},
		{"m.data", "-8", NULL, ERR_BAD_ONNX, "isn't in"},
		{"m.data", "18446744073709551615", NULL, ERR_BAD_ONNX, "isn't in"},
		{"m.data", "0x8", NULL, ERR_BAD_ONNX, "isn't in"},
		{"m.data", "", NULL, ERR_BAD_ONNX, "isn't in"},
		{"m.data", "0", "16", ERR_BAD_ONNX, "isn't in"},
		{"m.data", "0", "4", ERR_BAD_ONNX, "isn't in"},
		{"m.data", "0", " 8", ERR_BAD_ONNX, "isn't in"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int within = 0; within < 2; within++) { /* an initializer, and an attribute */
			struct buf bad = place(cases[i].location, cases[i].offset, cases[i].length);
			struct buf good = place("m.data", NULL, NULL), to = BUF_INIT;
			struct buf m = within ? sum_of(&good, &bad) : sum_of(&bad, &good);
			struct err err = ERR_INIT;

			assert_int_equal(embed(&to, &m, NULL, &err), -err_errno(cases[i].code));
			if (err.code != cases[i].code || !strstr(err.detail, cases[i].words))
				fail_msg("%zu: \"%s\" does not say \"%s\"", i, err.detail, cases[i].words);
			assert_int_equal(to.len, 0);
			buf_release(&m);
		}
}

static void refuses_tensors(void **state)
{
	struct buf t = place("m.data", NULL, NULL), v = place("m.data", NULL, NULL), m, to = BUF_INIT;
	struct err err = ERR_INIT;

	(void)state;
	put_bytes(&t, TENSOR_RAW, weights, 8);
	m = sum_of(&t, &v);
	assert_int_equal(embed(&to, &m, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.detail, "data here and elsewhere"));
	buf_release(&m);
	/* shapes that can't be, and one that is more than there is */
	for (int i = 0; i < 3; i++) {
		t = place("m.data", NULL, NULL);
		v = place("m.data", NULL, NULL);
		put_int(&t, TENSOR_DIMS, i == 0 ? (uint64_t)-2 : i == 1 ? UINT64_C(1) << 61 : 1000);
		m = sum_of(&t, &v);
		assert_int_equal(embed(&to, &m, NULL, &err), -EBADMSG);
		buf_release(&m);
	}
}

/* The same bytes again and again: a small model and a small file would be a large one. */
static void amplified(void **state)
{
	struct onnx_limits limits = onnx_limits_default;
	struct buf g = BUF_INIT, m, to = BUF_INIT;
	float *data = calloc(16384, sizeof(*data));
	struct onnx_external from = {"m.data", data, 16384 * sizeof(*data)};
	struct err err = ERR_INIT;

	(void)state;
	assert_non_null(data);
	for (int i = 0; i < 100; i++) {
		struct buf t = BUF_INIT;

		put_int(&t, TENSOR_DIMS, 16384);
		put_int(&t, TENSOR_TYPE, ONNX_FLOAT);
		put_int(&t, TENSOR_LOCATION, 1);
		put_place(&t, "location", "m.data");
		put_message(&g, GRAPH_INITIALIZER, &t);
	}
	m = make_model(&g, 18);
	limits.file = 1 << 20;
	assert_int_equal(onnx_embed(&to, m.data, m.len, &from, &limits, &err), -EFBIG);
	assert_non_null(strstr(err.detail, "weights have more than 1048576 bytes"));
	assert_int_equal(to.len, 0);
	limits.file = 100 * from.size + m.len + 1;
	assert_int_equal(onnx_embed(&to, m.data, m.len, &from, &limits, &err), 0);
	assert_true(to.len > 100 * from.size);
	buf_release(&to);
	buf_release(&m);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(embeds),
		cmocka_unit_test(refuses),
		cmocka_unit_test(refuses_tensors),
		cmocka_unit_test(amplified),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
