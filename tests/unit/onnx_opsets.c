/*
 * What operators mean from operator set 18 on, where that is something else than before: each in the version that changed it, and
 * refused in the one before. Expected numbers are worked out from the operators' documentation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/onnx/onnx.h"
#include "tests/support/onnx_wire.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };

/* Numbers between spaces. */
static size_t numbers(const char *text, double *ret)
{
	size_t n = 0;
	char *end;

	for (; *text; text = end) {
		assert_true(n < MOST);
		ret[n++] = strtod(text, &end);
		assert_true(end > text);
	}
	return n;
}

/* A constant of these dimensions ("": a scalar) and elements. */
static void put(struct buf *g, const char *name, enum onnx_type type, const char *dims, const char *elements)
{
	double d[MOST], v[MOST];
	size_t rank = numbers(dims, d), n = numbers(elements, v);
	struct buf t = BUF_INIT, raw = BUF_INIT;

	for (size_t i = 0; i < rank; i++)
		put_int(&t, TENSOR_DIMS, (uint64_t)d[i]);
	put_int(&t, TENSOR_TYPE, type);
	put_string(&t, TENSOR_NAME, name);
	for (size_t i = 0; i < n; i++) {
		const float f = (float)v[i];
		const int64_t whole =
			type == ONNX_FLOAT ? 0 : (int64_t)v[i]; /* little-endian: a part of it serves */

		buf_add(&raw, type == ONNX_FLOAT ? (const void *)&f : &whole,
			onnx_type_size((int)type) ? onnx_type_size((int)type) : 1);
	}
	put_bytes(&t, TENSOR_RAW, raw.len ? raw.data : "", raw.len);
	buf_release(&raw);
	put_message(g, GRAPH_INITIALIZER, &t);
}

/* The node runs on the graph's constants. r: of loading or running it. */
static int run(int version, struct buf *g, struct buf *attrs, const char *op, const char *ins,
	       const char *outs, struct onnx_tensor **out, struct err *err)
{
	struct onnx_model *model = NULL;
	size_t n = 1;
	struct buf m;
	int r;

	make_node(g, attrs, op, "it", ins, outs);
	make_output(g, "y");
	if (strstr(outs, " z")) {
		make_output(g, "z");
		n = 2;
	}
	m = make_model(g, version);
	r = onnx_load(&model, m.data, m.len, NULL, err);
	if (r == 0)
		r = onnx_run(model, NULL, 0, out, n, err);
	onnx_free(model);
	buf_release(&m);
	return r;
}

static double element(const struct onnx_tensor *t, size_t i)
{
	switch (t->type) {
	case ONNX_FLOAT:
		return ((const float *)t->data)[i];
	case ONNX_INT64:
		return (double)((const int64_t *)t->data)[i];
	case ONNX_INT32:
		return ((const int32_t *)t->data)[i];
	case ONNX_INT16:
		return ((const int16_t *)t->data)[i];
	case ONNX_INT8:
		return ((const int8_t *)t->data)[i];
	case ONNX_UINT8:
	case ONNX_BOOL:
		return ((const uint8_t *)t->data)[i];
	default:
		fail_msg("a %s", onnx_type_name((int)t->type));
		return 0;
	}
}

static void is(const struct onnx_tensor *t, const char *dims, const char *elements)
{
	double d[MOST], v[MOST];
	size_t rank = numbers(dims, d), n = numbers(elements, v);

	assert_int_equal(t->rank, rank);
	for (size_t i = 0; i < rank; i++)
		assert_int_equal(t->dims[i], d[i]);
	assert_int_equal(t->count, n);
	for (size_t i = 0; i < n; i++)
		if (isnan(v[i]) ? !isnan(element(t, i))
				: !(element(t, i) == v[i] ||
				    fabs(element(t, i) - v[i]) < 1e-5 * (1 + fabs(v[i]))))
			fail_msg("element %zu is %.9g, not %.9g", i, element(t, i), v[i]);
}

static void gives(int version, struct buf *g, struct buf *attrs, const char *op, const char *ins,
		  const char *dims, const char *elements)
{
	struct onnx_tensor *out = NULL;
	struct err err = ERR_INIT;

	if (run(version, g, attrs, op, ins, "y", &out, &err) < 0)
		fail_msg("%s: %s", op, err.detail);
	is(out, dims, elements);
	onnx_tensor_free(out);
}

static void refused(int version, struct buf *g, struct buf *attrs, const char *op, const char *ins,
		    const char *words)
{
	struct onnx_tensor *out = NULL;
	struct err err = ERR_INIT;

	assert_true(run(version, g, attrs, op, ins, "y", &out, &err) < 0);
	if (!strstr(err.detail, words))
		fail_msg("%s: \"%s\" does not say \"%s\"", op, err.detail, words);
}

static void reductions(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	put(&g, "x", ONNX_FLOAT, "2 3", "1 2 3 4 5 6");
	put(&g, "axes", ONNX_INT64, "1", "-1");
	gives(18, &g, NULL, "ReduceMean", "x axes", "2 1", "2 5");
	put(&g, "x", ONNX_FLOAT, "2 3", "1 2 3 4 5 6");
	put(&g, "axes", ONNX_INT64, "1", "0");
	make_int(&a, "keepdims", 0);
	gives(18, &g, &a, "ReduceL2", "x axes", "3", "4.1231056 5.3851648 6.7082039");
	put(&g, "x", ONNX_FLOAT, "2 3", "1 2 3 4 5 6");
	put(&g, "axes", ONNX_INT64, "1", "0");
	refused(17, &g, NULL, "ReduceMean", "x axes", "2 inputs");
	put(&g, "x", ONNX_FLOAT, "2 3", "1 2 3 4 5 6");
	make_ints(&a, "axes", 1, (int64_t[]){0}); /* nothing any more: over all */
	gives(18, &g, &a, "ReduceMean", "x", "1 1", "3.5");
	put(&g, "x", ONNX_FLOAT, "3", "-1 2 3");
	make_int(&a, "noop_with_empty_axes", 1);
	gives(18, &g, &a, "ReduceSumSquare", "x", "3", "1 4 9");
	put(&g, "x", ONNX_FLOAT, "3", "-1 2 3");
	put(&g, "axes", ONNX_INT64, "0", "");
	make_int(&a, "noop_with_empty_axes", 1);
	gives(18, &g, &a, "ReduceMax", "x axes", "3", "-1 2 3");
	put(&g, "x", ONNX_FLOAT, "3", "-1 2 3");
	put(&g, "axes", ONNX_INT64, "0", "");
	gives(18, &g, NULL, "ReduceMax", "x axes", "1", "3");
	put(&g, "x", ONNX_FLOAT, "2 0", "");
	put(&g, "axes", ONNX_INT64, "1", "1");
	gives(20, &g, NULL, "ReduceMax", "x axes", "2 1", "-inf -inf");
	put(&g, "x", ONNX_INT8, "2 0", "");
	put(&g, "axes", ONNX_INT64, "1", "1");
	gives(20, &g, NULL, "ReduceMin", "x axes", "2 1", "127 127");
	put(&g, "x", ONNX_FLOAT, "2 0", "");
	put(&g, "axes", ONNX_INT64, "1", "1");
	refused(18, &g, NULL, "ReduceMax", "x axes", "of no elements");
	put(&g, "x", ONNX_BOOL, "2 2", "0 1 0 0");
	put(&g, "axes", ONNX_INT64, "1", "1");
	gives(20, &g, NULL, "ReduceMax", "x axes", "2 1", "1 0");
}

static void pads(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	put(&g, "x", ONNX_FLOAT, "2 2", "1 2 3 4");
	put(&g, "p", ONNX_INT64, "2", "1 0");
	put(&g, "axes", ONNX_INT64, "1", "-1");
	gives(18, &g, NULL, "Pad", "x p  axes", "2 3", "0 1 2 0 3 4");
	put(&g, "x", ONNX_FLOAT, "2 2", "1 2 3 4");
	put(&g, "p", ONNX_INT64, "4", "0 1 1 0");
	put(&g, "axes", ONNX_INT64, "2", "1 0");
	put(&g, "v", ONNX_FLOAT, "", "9");
	gives(18, &g, NULL, "Pad", "x p v axes", "3 3", "9 9 9 1 2 9 3 4 9");
	put(&g, "x", ONNX_FLOAT, "3", "1 2 3");
	put(&g, "p", ONNX_INT64, "2", "4 5");
	make_text(&a, "mode", "wrap");
	gives(19, &g, &a, "Pad", "x p", "12", "3 1 2 3 1 2 3 1 2 3 1 2");
	put(&g, "x", ONNX_FLOAT, "3", "1 2 3");
	put(&g, "p", ONNX_INT64, "2", "4 5");
	make_text(&a, "mode", "wrap");
	refused(18, &g, &a, "Pad", "x p", "Pad (operator set 18), node 'it': mode wrap");
	put(&g, "x", ONNX_FLOAT, "2 2", "1 2 3 4");
	put(&g, "p", ONNX_INT64, "4", "0 1 1 0");
	put(&g, "axes", ONNX_INT64, "2", "1 -1");
	refused(18, &g, NULL, "Pad", "x p  axes", "given twice");
	put(&g, "x", ONNX_FLOAT, "2 4", "1 2 3 4 5 6 7 8");
	put(&g, "shape", ONNX_INT64, "2", "3 1");
	gives(18, &g, NULL, "CenterCropPad", "x shape", "3 1", "2 6 0");
}

static void splits(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;
	struct onnx_tensor *out[2] = {0};
	struct err err = ERR_INIT;

	(void)state;
	put(&g, "x", ONNX_FLOAT, "5", "1 2 3 4 5");
	make_int(&a, "num_outputs", 2);
	assert_int_equal(run(18, &g, &a, "Split", "x", "y z", out, &err), 0);
	is(out[0], "3", "1 2 3");
	is(out[1], "2", "4 5");
	onnx_tensor_free(out[0]);
	onnx_tensor_free(out[1]);
	put(&g, "x", ONNX_FLOAT, "5", "1 2 3 4 5");
	assert_true(run(17, &g, NULL, "Split", "x", "y z", out, &err) < 0);
	put(&g, "x", ONNX_FLOAT, "5", "1 2 3 4 5");
	make_int(&a, "num_outputs", 3);
	assert_true(run(18, &g, &a, "Split", "x", "y z", out, &err) < 0);
	assert_non_null(strstr(err.detail, "num_outputs of 3, for 2 outputs"));
}

static void resizes(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	put(&g, "x", ONNX_FLOAT, "1 2 2", "1 2 3 4");
	put(&g, "scales", ONNX_FLOAT, "1", "2");
	make_ints(&a, "axes", 1, (int64_t[]){-1});
	gives(18, &g, &a, "Resize", "x  scales", "1 2 4", "1 1 2 2 3 3 4 4");
	put(&g, "x", ONNX_FLOAT, "2 4", "1 2 3 4 5 6 7 8");
	put(&g, "sizes", ONNX_INT64, "2", "4 4");
	make_text(&a, "keep_aspect_ratio_policy", "not_larger");
	gives(18, &g, &a, "Resize", "x   sizes", "2 4", "1 2 3 4 5 6 7 8");
	put(&g, "x", ONNX_FLOAT, "1 2", "1 2");
	put(&g, "sizes", ONNX_INT64, "2", "2 2");
	make_text(&a, "keep_aspect_ratio_policy", "not_smaller");
	gives(18, &g, &a, "Resize", "x   sizes", "2 4", "1 1 2 2 1 1 2 2");
	/* a triangle over 4 neighbours, of which the first is the edge again: (1·1 + 3·1 + 3·2 + 1·3) / 8 */
	put(&g, "x", ONNX_FLOAT, "4", "1 2 3 4");
	put(&g, "scales", ONNX_FLOAT, "1", "0.5");
	make_text(&a, "mode", "linear");
	make_int(&a, "antialias", 1);
	gives(18, &g, &a, "Resize", "x  scales", "2", "1.625 3.375");
	put(&g, "x", ONNX_FLOAT, "4", "1 2 3 4");
	put(&g, "scales", ONNX_FLOAT, "1", "0.5");
	make_text(&a, "mode", "linear");
	gives(18, &g, &a, "Resize", "x  scales", "2", "1.5 3.5");
	/* 4 · 0.6 = 2.4 become 2: half of the 0.4 is left out at each end */
	put(&g, "x", ONNX_FLOAT, "4", "1 2 3 4");
	put(&g, "scales", ONNX_FLOAT, "1", "0.6");
	make_text(&a, "mode", "linear");
	make_text(&a, "coordinate_transformation_mode", "half_pixel_symmetric");
	gives(19, &g, &a, "Resize", "x  scales", "2", "1.6666667 3.3333333");
	put(&g, "x", ONNX_FLOAT, "4", "1 2 3 4");
	put(&g, "scales", ONNX_FLOAT, "1", "0.6");
	make_text(&a, "coordinate_transformation_mode", "half_pixel_symmetric");
	refused(18, &g, &a, "Resize", "x  scales", "half_pixel_symmetric");
}

static void pools(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	put(&g, "x", ONNX_FLOAT, "1 1 5", "1 2 3 4 5");
	make_ints(&a, "kernel_shape", 1, (int64_t[]){2});
	make_ints(&a, "dilations", 1, (int64_t[]){2});
	gives(19, &g, &a, "AveragePool", "x", "1 1 3", "2 3 4");
	put(&g, "x", ONNX_FLOAT, "1 1 5", "3 0 4 0 5");
	make_ints(&a, "kernel_shape", 1, (int64_t[]){2});
	make_ints(&a, "dilations", 1, (int64_t[]){2});
	gives(18, &g, &a, "LpPool", "x", "1 1 3", "5 0 6.4031242");
	put(&g, "x", ONNX_FLOAT, "1 1 4", "3 4 6 8");
	make_ints(&a, "kernel_shape", 1, (int64_t[]){3});
	make_ints(&a, "strides", 1, (int64_t[]){2});
	make_int(&a, "ceil_mode", 1);
	gives(18, &g, &a, "LpPool", "x", "1 1 2", "7.8102497 10");
	/* windows that overlap by one */
	put(&g, "x", ONNX_FLOAT, "1 2 2", "1 2 3 4");
	put(&g, "image", ONNX_INT64, "1", "3");
	put(&g, "block", ONNX_INT64, "1", "2");
	gives(18, &g, NULL, "Col2Im", "x image block", "1 1 3", "1 5 4");
	put(&g, "x", ONNX_FLOAT, "1 2 3", "1 2 3 4 5 6");
	put(&g, "image", ONNX_INT64, "1", "3");
	put(&g, "block", ONNX_INT64, "1", "2");
	refused(18, &g, NULL, "Col2Im", "x image block", "2 by 3 for 2 windows of 2");
}

static void norms(void **state)
{
	static const char x[] = "0 2 4 6 1 1 3 3", scales[] = "1 2 3 4";
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	for (int version = 18; version <= 21; version += 3) {
		put(&g, "x", ONNX_FLOAT, "1 4 2", x);
		put(&g, "s", ONNX_FLOAT, version < 21 ? "2" : "4", version < 21 ? "1 2" : scales);
		put(&g, "b", ONNX_FLOAT, version < 21 ? "2" : "4", version < 21 ? "0 1" : "0 1 2 3");
		make_int(&a, "num_groups", 2);
		gives(version, &g, &a, "GroupNormalization", "x s b", "1 4 2",
		      version < 21
			      ? "-1.3416385 -0.4472128 0.4472128 1.3416385 -0.99999 -0.99999 2.99999 2.99999"
			      : "-1.3416385 -0.4472128 1.8944257 3.6832769 -0.999985 -0.999985 6.99998 "
				"6.99998");
	}
	put(&g, "x", ONNX_FLOAT, "1 4 2", x);
	put(&g, "s", ONNX_FLOAT, "2", "1 2");
	put(&g, "b", ONNX_FLOAT, "2", "0 1");
	make_int(&a, "num_groups", 2);
	refused(21, &g, &a, "GroupNormalization", "x s b", "2 elements for 4");
	put(&g, "x", ONNX_FLOAT, "2 2", "3 4 0 0");
	put(&g, "s", ONNX_FLOAT, "2", "1 10");
	make_float(&a, "epsilon", 12.5f); /* (9 + 16) / 2 more is 25 */
	gives(23, &g, &a, "RMSNormalization", "x s", "2 2", "0.6 8 0 0");
}

static void by_element(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	put(&g, "x", ONNX_FLOAT, "3", "-2 0 3");
	gives(18, &g, NULL, "Mish", "x", "3", "-0.25250148 0 2.98653500");
	put(&g, "x", ONNX_FLOAT, "3", "-2 0 3");
	gives(20, &g, NULL, "Gelu", "x", "3", "-0.04550026 0 2.99595031");
	put(&g, "x", ONNX_FLOAT, "3", "-2 0 3");
	make_text(&a, "approximate", "tanh");
	gives(20, &g, &a, "Gelu", "x", "3", "-0.04540231 0 2.99636264");
	put(&g, "x", ONNX_FLOAT, "3", "-2 0 3");
	make_float(&a, "alpha", 2);
	gives(24, &g, &a, "Swish", "x", "3", "-0.03597242 0 2.99258213");
	put(&g, "x", ONNX_INT8, "2", "5 -1");
	gives(18, &g, NULL, "BitwiseNot", "x", "2", "-6 0");
	put(&g, "x", ONNX_INT32, "2", "12 -1");
	put(&g, "w", ONNX_INT32, "1", "10");
	gives(18, &g, NULL, "BitwiseAnd", "x w", "2", "8 10");
	put(&g, "x", ONNX_INT32, "2", "12 -1");
	put(&g, "w", ONNX_INT32, "1", "10");
	gives(18, &g, NULL, "BitwiseOr", "x w", "2", "14 -1");
	put(&g, "x", ONNX_INT32, "2", "12 -1");
	put(&g, "w", ONNX_INT32, "1", "10");
	gives(18, &g, NULL, "BitwiseXor", "x w", "2", "6 -11");
	put(&g, "x", ONNX_INT8, "4", "-7 -7 7 -7");
	put(&g, "w", ONNX_INT8, "4", "1 9 -1 0");
	make_text(&a, "direction", "RIGHT");
	gives(28, &g, &a, "BitShift", "x w", "4", "-4 -1 0 -7");
	put(&g, "x", ONNX_INT8, "1", "-7");
	put(&g, "w", ONNX_INT8, "1", "1");
	make_text(&a, "direction", "RIGHT");
	refused(18, &g, &a, "BitShift", "x w", "type int8");
	put(&g, "x", ONNX_FLOAT, "4", "-3 3 5 inf");
	put(&g, "w", ONNX_FLOAT, "4", "2 inf -inf 2");
	gives(28, &g, NULL, "Mod", "x w", "4", "1 3 -inf nan");
}

static void scatters(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	for (int largest = 0; largest < 2; largest++) {
		put(&g, "x", ONNX_FLOAT, "3", "1 5 3");
		put(&g, "i", ONNX_INT64, "3", "0 1 1");
		put(&g, "u", ONNX_FLOAT, "3", "4 2 6");
		make_text(&a, "reduction", largest ? "max" : "min");
		gives(18, &g, &a, "ScatterElements", "x i u", "3", largest ? "4 6 3" : "1 2 3");
		put(&g, "x", ONNX_INT32, "3", "1 5 3");
		put(&g, "i", ONNX_INT64, "2 1", "0 1");
		put(&g, "u", ONNX_INT32, "2", "-4 8");
		make_text(&a, "reduction", largest ? "max" : "min");
		gives(18, &g, &a, "ScatterND", "x i u", "3", largest ? "1 8 3" : "-4 5 3");
	}
	put(&g, "x", ONNX_FLOAT, "3", "1 5 3");
	put(&g, "i", ONNX_INT64, "1", "0");
	put(&g, "u", ONNX_FLOAT, "1", "4");
	make_text(&a, "reduction", "max");
	refused(17, &g, &a, "ScatterElements", "x i u", "reduction max");
}

static void quantised(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	/* one scale for two neighbours of a row; the last is alone */
	put(&g, "x", ONNX_FLOAT, "2 3", "1 2 3 4 5 600");
	put(&g, "s", ONNX_FLOAT, "2 2", "1 2 0.5 4");
	put(&g, "z", ONNX_INT8, "2 2", "0 1 2 3");
	make_int(&a, "block_size", 2);
	gives(21, &g, &a, "QuantizeLinear", "x s z", "2 3", "1 2 3 10 12 127");
	put(&g, "x", ONNX_INT8, "2 3", "1 2 3 10 12 127");
	put(&g, "s", ONNX_FLOAT, "2 2", "1 2 0.5 4");
	put(&g, "z", ONNX_INT8, "2 2", "0 1 2 3");
	make_int(&a, "block_size", 2);
	gives(21, &g, &a, "DequantizeLinear", "x s z", "2 3", "1 2 4 4 5 496");
	put(&g, "x", ONNX_FLOAT, "2", "1000 -40000");
	put(&g, "s", ONNX_FLOAT, "", "1");
	make_int(&a, "output_dtype", ONNX_INT16);
	gives(21, &g, &a, "QuantizeLinear", "x s", "2", "1000 -32768");
	put(&g, "x", ONNX_FLOAT, "1", "1");
	put(&g, "s", ONNX_FLOAT, "", "1");
	make_int(&a, "output_dtype", ONNX_INT4);
	refused(21, &g, &a, "QuantizeLinear", "x s",
		"QuantizeLinear (operator set 21), node 'it': to type int4");
	put(&g, "x", ONNX_FLOAT, "1", "1");
	make_int(&a, "to", ONNX_FLOAT8E4M3FN);
	refused(19, &g, &a, "Cast", "x", "Cast (operator set 19), node 'it': to type float8e4m3fn");
	put(&g, "x", ONNX_UINT4, "1", "1");
	refused(21, &g, NULL, "Identity", "x", "tensors of type uint4 ('x')");
}

static void others(void **state)
{
	struct buf g = BUF_INIT, a = BUF_INIT;

	(void)state;
	put(&g, "x", ONNX_FLOAT, "1 2 2 1", "1 2 3 5"); /* along the last but one, if nothing is said */
	gives(20, &g, NULL, "DFT", "x", "1 2 2 2", "3 0 -1 0 8 0 -2 0");
	put(&g, "x", ONNX_FLOAT, "2 2 1", "1 2 3 5");
	put(&g, "axis", ONNX_INT64, "", "0");
	gives(20, &g, NULL, "DFT", "x  axis", "2 2 2", "4 0 7 0 -2 0 -3 0");
	put(&g, "x", ONNX_FLOAT, "1 1 1 2", "2 4");
	put(&g, "grid", ONNX_FLOAT, "1 1 1 2", "0 0");
	make_text(&a, "mode", "cubic");
	make_int(&a, "align_corners", 1);
	gives(20, &g, &a, "GridSample", "x grid", "1 1 1 1", "3.5625"); /* 2 · 0.59375 + 4 · 0.59375 */
	put(&g, "x", ONNX_FLOAT, "1 1 1 2", "2 4");
	put(&g, "grid", ONNX_FLOAT, "1 1 1 2", "0 0");
	make_text(&a, "mode", "bicubic");
	refused(20, &g, &a, "GridSample", "x grid", "mode bicubic");
	put(&g, "x", ONNX_FLOAT, "1 2 2 2", "1 2 3 4 5 6 7 8");
	make_int(&a, "blocksize", 2);
	gives(27, &g, &a, "SpaceToDepth", "x", "1 8 1 1", "1 5 2 6 3 7 4 8");
	put(&g, "x", ONNX_FLOAT, "1 2 2 2", "1 2 3 4 5 6 7 8");
	make_int(&a, "blocksize", 2);
	make_text(&a, "mode", "CRD");
	gives(28, &g, &a, "SpaceToDepth", "x", "1 8 1 1", "1 2 3 4 5 6 7 8");
	put(&g, "x", ONNX_FLOAT, "1", "1");
	refused(1000, &g, NULL, "Identity", "x", "operator set 1000; at most");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reductions), cmocka_unit_test(pads),     cmocka_unit_test(splits),
		cmocka_unit_test(resizes),    cmocka_unit_test(pools),    cmocka_unit_test(norms),
		cmocka_unit_test(by_element), cmocka_unit_test(scatters), cmocka_unit_test(quantised),
		cmocka_unit_test(others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
