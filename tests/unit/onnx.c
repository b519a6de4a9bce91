/*
 * ONNX models that are damaged or made to harm: refused with a cause that says where, and nothing taken for what
 * they claim. The models are built field by field, in protobuf's wire format.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/buf.h"
#include "engine/onnx/model.h"
#include "tests/support/onnx_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* inputs and outputs: one letter each; '-': left out */
static void put_node(struct buf *graph, const char *op, const char *name, const char *in, const char *out)
{
	struct buf n = BUF_INIT;

	for (; *in; in++)
		put_bytes(&n, NODE_IN, in, *in != '-');
	for (; *out; out++)
		put_bytes(&n, NODE_OUT, out, *out != '-');
	put_string(&n, NODE_OP, op);
	put_string(&n, NODE_NAME, name);
	put_message(graph, GRAPH_NODE, &n);
}

static struct buf model_of(struct buf *graph)
{
	struct buf m = BUF_INIT, set = BUF_INIT;

	put_int(&m, MODEL_IR, 8);
	put_message(&m, MODEL_GRAPH, graph);
	put_int(&set, OPSET_VERSION, 13);
	put_message(&m, MODEL_OPSET, &set);
	return m;
}

/* Loading it fails with that cause, and the detail has the words. */
static void refused(struct buf *graph, enum err_code code, const char *words)
{
	struct buf m = model_of(graph);
	struct onnx_model *model = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(onnx_load(&model, m.data, m.len, NULL, &err), -err_errno(code));
	assert_null(model);
	assert_int_equal(err.code, code);
	if (!strstr(err.detail, words))
		fail_msg("\"%s\" does not say \"%s\"", err.detail, words);
	buf_release(&m);
}

/* y = x + x, then relu */
static struct buf sample_graph(void)
{
	struct buf g = BUF_INIT;

	put_value(&g, GRAPH_INPUT, "x");
	put_value(&g, GRAPH_OUTPUT, "y");
	put_node(&g, "Relu", "second", "a", "y"); /* before what it needs */
	put_node(&g, "Add", "first", "xx", "a");
	return g;
}

static void runs(void **state)
{
	struct buf g = sample_graph(), m = model_of(&g);
	struct onnx_tensor *in, *out = NULL;
	struct onnx_model *model;
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(onnx_load(&model, m.data, m.len, NULL, &err), 0);
	buf_release(&m);
	assert_int_equal(onnx_inputs(model), 1);
	assert_string_equal(onnx_input(model, 0)->name, "x");
	assert_int_equal(onnx_input(model, 0)->rank, -1);
	assert_string_equal(model->graph->nodes[0].name, "first"); /* ordered */
	assert_int_equal(onnx_tensor_new(&in, ONNX_FLOAT, 1, (int64_t[]){2}, NULL), 0);
	((float *)in->data)[0] = 1.5f;
	((float *)in->data)[1] = -1;
	assert_int_equal(onnx_run(model, &in, 1, &out, 1, &err), 0);
	onnx_free(model);
	onnx_tensor_free(in);
	assert_int_equal(out->count, 2); /* outlives the model */
	assert_true(((float *)out->data)[0] == 3 && ((float *)out->data)[1] == 0);
	onnx_tensor_free(out);
}

static void cut_short(void **state)
{
	struct buf g = sample_graph(), m = model_of(&g);

	(void)state;
	for (size_t len = 0; len < m.len; len++) {
		struct onnx_model *model = NULL;
		struct err err = ERR_INIT;
		char *part = malloc(len + 1);
		int r;

		assert_non_null(part);
		memcpy(part, m.data, len);
		r = onnx_load(&model, part, len, NULL, &err);
		free(part);
		/* what is cut between two fields may say less, but holds together */
		if (r < 0)
			assert_int_not_equal(err.code, ERR_NONE);
		onnx_free(model);
		assert_true(r < 0 || len > 20);
	}
	buf_release(&m);
}

static void wrong_graphs(void **state)
{
	struct buf g = BUF_INIT;

	(void)state;
	put_node(&g, "Relu", "loop a", "b", "a");
	put_node(&g, "Relu", "loop b", "a", "b");
	refused(&g, ERR_BAD_ONNX, "depend on its outputs");
	put_node(&g, "Relu", "lonely", "q", "a");
	refused(&g, ERR_BAD_ONNX, "nothing makes its input 'q'");
	put_value(&g, GRAPH_INPUT, "x");
	put_node(&g, "Relu", "n", "x", "a");
	put_node(&g, "Relu", "n", "x", "a");
	refused(&g, ERR_BAD_ONNX, "two values are named 'a'");
	put_value(&g, GRAPH_INPUT, "x");
	put_node(&g, "Add", "half", "x", "a");
	refused(&g, ERR_BAD_ONNX, "Add (operator set 13), node 'half': 1 inputs");
	put_value(&g, GRAPH_INPUT, "x");
	put_node(&g, "Add", "half", "x-", "a");
	refused(&g, ERR_BAD_ONNX, "input 1 is left out");
	put_value(&g, GRAPH_OUTPUT, "y");
	refused(&g, ERR_BAD_ONNX, "nothing makes the output 'y'");
	put_value(&g, GRAPH_INPUT, "x");
	put_node(&g, "Frobnicate", "odd", "x", "a");
	refused(&g, ERR_ONNX_UNSUPPORTED, "Frobnicate (operator set 13), node 'odd'");
	put_value(&g, GRAPH_INPUT, "x");
	put_node(&g, "LayerNormalization", "early", "xx", "a");
	refused(&g, ERR_ONNX_UNSUPPORTED, "node 'early': not in this version");
}

/* A graph whose one initializer is this tensor. */
static struct buf tensor_graph(struct buf *tensor)
{
	struct buf g = BUF_INIT;

	put_string(tensor, TENSOR_NAME, "w");
	put_message(&g, GRAPH_INITIALIZER, tensor);
	return g;
}

static void wrong_tensors(void **state)
{
	static const int64_t shapes[][4] = {
		{-1, 1, 1, 1},
		{INT64_MAX, INT64_MAX, 2, 2},
		{INT64_C(1) << 32, INT64_C(1) << 32, 1, 1}, /* the product is 0 in 64 bits */
		{INT64_C(1) << 62, 1, 1, 1},
	};
	struct buf t = BUF_INIT, g;

	(void)state;
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		for (int d = 0; d < 4; d++)
			put_int(&t, TENSOR_DIMS, (uint64_t)shapes[i][d]);
		put_int(&t, TENSOR_TYPE, ONNX_FLOAT);
		g = tensor_graph(&t);
		refused(&g, ERR_BAD_ONNX, "'w' has an impossible shape");
	}
	put_int(&t, TENSOR_DIMS, INT64_C(10) << 30); /* 40 GB that aren't there */
	put_int(&t, TENSOR_TYPE, ONNX_FLOAT);
	put_bytes(&t, TENSOR_RAW, "1234", 4);
	g = tensor_graph(&t);
	refused(&g, ERR_BAD_ONNX, "and data for 1");
	for (int d = 0; d < 20; d++)
		put_int(&t, TENSOR_DIMS, 1);
	put_int(&t, TENSOR_TYPE, ONNX_FLOAT);
	g = tensor_graph(&t);
	refused(&g, ERR_ONNX_LIMIT, "rank 20");
	put_int(&t, TENSOR_TYPE, 99);
	g = tensor_graph(&t);
	refused(&g, ERR_ONNX_UNSUPPORTED, "type ?");
	put_int(&t, TENSOR_TYPE, ONNX_FLOAT);
	put_int(&t, TENSOR_LOCATION, 1);
	g = tensor_graph(&t);
	refused(&g, ERR_ONNX_EXTERNAL, "tensor 'w' lies in ''");
}

/* A graph in a node in a graph …: more would be the parser's stack. */
static void too_deep(void **state)
{
	enum { DEEP = 10000 };
	struct buf g = BUF_INIT;

	(void)state;
	put_string(&g, 2, "innermost");
	for (int i = 0; i < DEEP; i++) {
		struct buf attr = BUF_INIT, node = BUF_INIT;

		put_message(&attr, ATTR_GRAPH, &g);
		put_int(&attr, ATTR_TYPE, ONNX_ATTR_GRAPH);
		put_message(&node, NODE_ATTR, &attr);
		put_string(&node, NODE_OP, "If");
		put_message(&g, GRAPH_NODE, &node);
	}
	refused(&g, ERR_ONNX_LIMIT, "nested too deeply");
}

static void too_much(void **state)
{
	struct onnx_limits limits = onnx_limits_default;
	struct buf g = sample_graph(), m = model_of(&g);
	struct onnx_tensor *in, *out = NULL;
	struct onnx_model *model = NULL;
	struct err err = ERR_INIT;

	(void)state;
	limits.file = m.len - 1;
	assert_int_equal(onnx_load(&model, m.data, m.len, &limits, &err), -EFBIG);
	limits = onnx_limits_default;
	limits.nodes = 1;
	assert_int_equal(onnx_load(&model, m.data, m.len, &limits, &err), -EFBIG);
	limits = onnx_limits_default;
	limits.memory = 500; /* the structures take more */
	assert_int_equal(onnx_load(&model, m.data, m.len, &limits, &err), -EFBIG);
	assert_null(model);
	limits = onnx_limits_default;
	limits.steps = 1;
	assert_int_equal(onnx_load(&model, m.data, m.len, &limits, &err), 0);
	assert_int_equal(onnx_tensor_new(&in, ONNX_FLOAT, 1, (int64_t[]){2}, NULL), 0);
	assert_int_equal(onnx_run(model, &in, 1, &out, 1, &err), -EDOM);
	assert_non_null(strstr(err.detail, "more than 1 nodes run"));
	assert_null(out);
	onnx_free(model);
	limits = onnx_limits_default;
	limits.tensor = 4;
	assert_int_equal(onnx_load(&model, m.data, m.len, &limits, &err), 0);
	assert_int_equal(onnx_run(model, &in, 1, &out, 1, &err), -EFBIG);
	assert_non_null(strstr(err.detail, "Add (operator set 13), node 'first'"));
	onnx_free(model);
	onnx_tensor_free(in);
	buf_release(&m);
}

/* Millions of empty messages: two bytes each in the file, hundreds in memory. */
static void amplified(void **state)
{
	struct onnx_limits limits = onnx_limits_default;
	struct buf g = BUF_INIT, m;
	struct onnx_model *model = NULL;
	struct err err = ERR_INIT;

	(void)state;
	for (int i = 0; i < 200000; i++)
		put_bytes(&g, GRAPH_INITIALIZER, "", 0);
	m = model_of(&g);
	limits.memory = 8 << 20;
	assert_int_equal(onnx_load(&model, m.data, m.len, &limits, &err), -EFBIG);
	assert_int_equal(err.code, ERR_ONNX_LIMIT);
	buf_release(&m);
}

static void wrong_inputs(void **state)
{
	struct buf g = sample_graph(), m = model_of(&g);
	struct onnx_tensor *in[2], *out = NULL;
	struct onnx_model *model;
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(onnx_load(&model, m.data, m.len, NULL, &err), 0);
	assert_int_equal(onnx_tensor_new(&in[0], ONNX_BOOL, 0, NULL, NULL), 0);
	in[1] = in[0];
	assert_int_equal(onnx_run(model, in, 2, &out, 1, &err), -EINVAL);
	assert_int_equal(onnx_run(model, in, 1, &out, 1, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.detail, "Add (operator set 13), node 'first': input 0 of type bool"));
	assert_null(out);
	onnx_tensor_free(in[0]);
	assert_int_equal(onnx_tensor_new(&in[0], ONNX_STRING, 0, NULL, &err), -EOPNOTSUPP);
	assert_int_equal(onnx_tensor_new(&in[0], ONNX_FLOAT, 9, (int64_t[9]){0}, &err), -EFBIG);
	assert_int_equal(onnx_tensor_new(&in[0], ONNX_FLOAT, 1, (int64_t[]){-1}, &err), -EINVAL);
	onnx_free(model);
	buf_release(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs),         cmocka_unit_test(cut_short),
		cmocka_unit_test(wrong_graphs), cmocka_unit_test(wrong_tensors),
		cmocka_unit_test(too_deep),     cmocka_unit_test(too_much),
		cmocka_unit_test(amplified),    cmocka_unit_test(wrong_inputs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
