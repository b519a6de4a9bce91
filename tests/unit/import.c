/* Models of somebody else's: what becomes of an ONNX file and of safetensors under torchvision's names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/backend.h"
#include "engine/import.h"
#include "engine/model.h"
#include "engine/safetensors.h"
#include "tests/support/onnx_wire.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t *dims(int64_t a, int64_t b, int64_t c, int64_t d)
{
	static int64_t ret[4];

	ret[0] = a;
	ret[1] = b;
	ret[2] = c;
	ret[3] = d;
	return ret;
}

/* One of everything that has a counterpart in our networks; `last` is the op after the classifier, or NULL. */
static struct buf everything(int64_t batch, const char *last)
{
	struct buf g = BUF_INIT, a = BUF_INIT;
	int64_t pads[4] = {1, 1, 1, 1}, two[2] = {2, 2}, three[2] = {3, 3};

	make_input4(&g, "x", batch, 3, 16, 16);
	make_floats(&g, "w", 4, dims(8, 3, 3, 3), 0, 0.5f);
	make_floats(&g, "b", 1, dims(8, 0, 0, 0), 0, 0.5f);
	make_ints(&a, "pads", 4, pads);
	make_node(&g, &a, "Conv", "first", "x w b", "c1");
	make_floats(&g, "s", 1, dims(8, 0, 0, 0), 1, 0.3f);
	make_floats(&g, "t", 1, dims(8, 0, 0, 0), 0, 0.3f);
	make_floats(&g, "m", 1, dims(8, 0, 0, 0), 0, 0.3f);
	make_floats(&g, "v", 1, dims(8, 0, 0, 0), 1, 0.3f);
	make_node(&g, NULL, "BatchNormalization", "norm", "c1 s t m v", "n1");
	make_node(&g, NULL, "Relu", "relu", "n1", "r1");
	make_floats(&g, "depth", 4, dims(8, 1, 3, 3), 0, 0.5f);
	make_ints(&a, "pads", 4, pads);
	make_int(&a, "group", 8);
	make_node(&g, &a, "Conv", "depthwise", "r1 depth", "c2");
	make_floats(&g, "zero", 0, NULL, 0, 0);
	make_floats(&g, "six", 0, NULL, 6, 0);
	make_node(&g, NULL, "Clip", "relu6", "c2 zero six", "r2");
	make_node(&g, NULL, "Add", "sum", "r1 r2", "sum");
	/* as PyTorch writes a group normalisation */
	make_int64s(&g, "split", 3, (int64_t[]){0, 2, -1});
	make_floats(&g, "one2", 1, dims(2, 0, 0, 0), 1, 0);
	make_floats(&g, "zero2", 1, dims(2, 0, 0, 0), 0, 0);
	make_node(&g, NULL, "Reshape", "split", "sum split", "g1");
	make_node(&g, NULL, "InstanceNormalization", "groups", "g1 one2 zero2", "g2");
	make_node(&g, NULL, "Shape", "shape", "sum", "shape");
	make_node(&g, NULL, "Reshape", "back", "g2 shape", "g3");
	make_floats(&g, "gs", 3, dims(8, 1, 1, 0), 1, 0.4f);
	make_floats(&g, "ht", 3, dims(8, 1, 1, 0), 0, 0.4f);
	make_node(&g, NULL, "Mul", "scale", "g3 gs", "g4");
	make_node(&g, NULL, "Add", "shift", "g4 ht", "g5");
	make_ints(&a, "kernel_shape", 2, two);
	make_ints(&a, "strides", 2, two);
	make_node(&g, &a, "MaxPool", "max", "g5", "p1");
	make_ints(&a, "kernel_shape", 2, three);
	make_ints(&a, "pads", 4, pads);
	make_node(&g, &a, "AveragePool", "average", "p1", "p2");
	make_node(&g, NULL, "Sub", "difference", "p2 gs", "p3");
	make_int(&a, "axis", 1);
	make_node(&g, &a, "Concat", "both", "p1 p3 p2", "cat");
	make_floats(&g, "odd", 4, dims(4, 24, 1, 1), 0, 0.4f);
	make_node(&g, NULL, "Conv", "narrow", "cat odd", "c3");
	/* (N, 4, 8, 8) to (N, 256), the batch computed from the shape */
	make_node(&g, NULL, "Shape", "shape2", "c3", "shape2");
	make_int64s(&g, "first", 1, (int64_t[]){0});
	make_node(&g, NULL, "Gather", "batch", "shape2 first", "batch");
	make_int64s(&g, "rest", 1, (int64_t[]){-1});
	make_int(&a, "axis", 0);
	make_node(&g, &a, "Concat", "flat shape", "batch rest", "to");
	make_node(&g, NULL, "Reshape", "flatten", "c3 to", "f1");
	make_floats(&g, "hidden", 2, dims(256, 12, 0, 0), 0, 0.1f);
	make_floats(&g, "bias", 1, dims(12, 0, 0, 0), 0, 0.1f);
	make_node(&g, NULL, "MatMul", "hidden", "f1 hidden", "h1");
	make_node(&g, NULL, "Add", "bias", "h1 bias", "h2");
	make_node(&g, NULL, "Identity", "same", "h2", "h3");
	make_floats(&g, "fc", 2, dims(5, 12, 0, 0), 0, 0.5f);
	make_floats(&g, "z", 1, dims(5, 0, 0, 0), 0, 0.5f);
	make_int(&a, "transB", 1);
	make_node(&g, &a, "Gemm", "classifier", "h3 fc z", last ? "y1" : "y");
	if (last)
		make_node(&g, NULL, last, "last", "y1", "y");
	make_output(&g, "y");
	return make_model(&g, 17);
}

static int import(struct imported *to, const char *file, const struct buf *m, const char *json,
		  const char *labels, struct err *err)
{
	return model_import(to,
			    &(struct import_source){.file = file,
						    .data = m->data,
						    .size = m->len,
						    .json = json,
						    .json_len = json ? strlen(json) : 0,
						    .labels = labels,
						    .labels_len = labels ? strlen(labels) : 0},
			    err);
}

static void says(const struct buf *text, const char *words)
{
	if (!strstr(text->data, words))
		fail_msg("no '%s' in\n%s", words, text->data);
}

/* Class scores of two images of noise. */
static void scores(const struct imported *to, const struct buf *m, float *ret)
{
	static uint8_t pixels[2 * 16 * 16 * 3];
	struct model *model;
	struct session *s;
	struct err err = ERR_INIT;

	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)(i * UINT64_C(2654435761) >> 13);
	assert_int_equal(model_load(&model, to->json.data, to->json.len, m->data, m->len, &err), 0);
	assert_int_equal(session_new(&s, model, backend_find("onednn"),
				     &(struct session_options){.rate = 1, .batch = 2}, &err),
			 0);
	assert_int_equal(session_forward(s, pixels, 2, ret), 0);
	softmax_rows(ret, 2, 5);
	session_free(s);
	model_free(model);
}

static void compiles(void **state)
{
	struct buf m = everything(-1, NULL), odd, fixed = everything(1, "Softmax");
	struct imported to, by, one;
	float compiled[10], interpreted[10], single[10];
	struct err err = ERR_INIT;
	char *at;

	(void)state;
	assert_int_equal(import(&to, "a.onnx", &m, NULL, "a\nb\r\nc\nd\ne", &err), 0);
	says(&to.json, "\"runs\":\t\"compiled\"");
	says(&to.json, "0.485");
	assert_string_equal(to.labels.data, "a\nb\nc\nd\ne\n");
	assert_null(to.weights.data);
	scores(&to, &m, compiled);

	/* the same by the interpreter, which its user's file can't ask for */
	at = strstr(to.json.data, "\"compiled\"");
	odd = BUF_INIT;
	buf_add(&odd, to.json.data, (size_t)(at - to.json.data));
	buf_adds(&odd, "\"interpreted\"");
	buf_adds(&odd, at + strlen("\"compiled\""));
	by = (struct imported){.json = odd};
	scores(&by, &m, interpreted);

	assert_int_equal(import(&one, "b.onnx", &fixed, NULL, NULL, &err), 0);
	says(&one.json, "\"runs\":\t\"compiled\"");
	scores(&one, &fixed, single);
	for (int i = 0; i < 10; i++) {
		assert_true(fabsf(compiled[i] - interpreted[i]) < 1e-5f);
		assert_true(fabsf(compiled[i] - single[i]) < 1e-5f);
	}
	assert_true(fabsf(compiled[0] - compiled[5]) > 1e-6f);
	imported_release(&to);
	imported_release(&by);
	imported_release(&one);
	buf_release(&m);
	buf_release(&fixed);
}

/* As PyTorch 2.9 and later write it by default, its batch any: a ReduceMean of given axes, a shape that may have zeros in it. Its
 * norm's scale is one a group before version 21. */
static struct buf newer(int version)
{
	const int64_t scales = version < 21 ? 2 : 8;
	struct buf g = BUF_INIT, a = BUF_INIT;

	make_input4(&g, "x", -1, 3, 16, 16);
	make_floats(&g, "w", 4, dims(8, 3, 3, 3), 0, 0.5f);
	make_node(&g, NULL, "Conv", "first", "x w", "c1");
	make_floats(&g, "s", 1, dims(scales, 0, 0, 0), 1, 0.3f);
	make_floats(&g, "t", 1, dims(scales, 0, 0, 0), 0, 0.3f);
	make_int(&a, "num_groups", 2);
	make_node(&g, &a, "GroupNormalization", "norm", "c1 s t", "n1");
	make_floats(&g, "zero", 0, NULL, 0, 0);
	make_floats(&g, "six", 0, NULL, 6, 0);
	make_node(&g, NULL, "Clip", "relu6", "n1 zero six", "r1");
	make_int64s(&g, "plane", 2, (int64_t[]){2, -1});
	make_int(&a, "keepdims", 1);
	make_int(&a, "noop_with_empty_axes", 0);
	make_node(&g, &a, "ReduceMean", "pool", "r1 plane", "p1");
	make_int(&a, "start", 0);
	make_int(&a, "end", 1);
	make_node(&g, &a, "Shape", "batch", "p1", "batch");
	make_int64s(&g, "rest", 1, (int64_t[]){8});
	make_int(&a, "axis", 0);
	make_node(&g, &a, "Concat", "flat shape", "batch rest", "to");
	make_int(&a, "allowzero", 1);
	make_node(&g, &a, "Reshape", "view", "p1 to", "f1");
	make_floats(&g, "fc", 2, dims(5, 8, 0, 0), 0, 0.5f);
	make_floats(&g, "z", 1, dims(5, 0, 0, 0), 0, 0.5f);
	make_int(&a, "transB", 1);
	make_node(&g, &a, "Gemm", "classifier", "f1 fc z", "y");
	make_output(&g, "y");
	return make_model(&g, version);
}

/* Import compares the network with the interpreter, so that "compiled" says that both agree. */
static void compiles_newer(void **state)
{
	(void)state;
	for (int version = 18; version <= 24; version += 3) {
		struct buf m = newer(version);
		struct err err = ERR_INIT;
		struct imported to;

		if (import(&to, "a.onnx", &m, NULL, NULL, &err) < 0)
			fail_msg("%d: %s", version, err.detail);
		says(&to.json, "\"runs\":\t\"compiled\"");
		imported_release(&to);
		buf_release(&m);
	}
}

/* Its weights in a file beside it: a version is one file, whole. */
static void takes_two_files(void **state)
{
	const float w[5 * 3] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	struct import_source from = {.file = "a.onnx", .beside = "a.onnx.data", .beside_data = w};
	struct buf g = BUF_INIT, a = BUF_INIT, t = BUF_INIT, m;
	struct err err = ERR_INIT;
	struct imported to = {0};
	struct model *model;

	(void)state;
	make_input4(&g, "x", -1, 3, 16, 16);
	make_node(&g, NULL, "GlobalAveragePool", "pool", "x", "p");
	make_node(&g, NULL, "Flatten", "flat", "p", "f");
	put_int(&t, TENSOR_DIMS, 5);
	put_int(&t, TENSOR_DIMS, 3);
	put_int(&t, TENSOR_TYPE, 1);
	put_string(&t, TENSOR_NAME, "w");
	put_place(&t, "location", "a.onnx.data");
	put_int(&t, TENSOR_LOCATION, 1);
	put_message(&g, GRAPH_INITIALIZER, &t);
	make_int(&a, "transB", 1);
	make_node(&g, &a, "Gemm", "classifier", "f w", "y");
	make_output(&g, "y");
	m = make_model(&g, 20);
	from.data = m.data;
	from.size = m.len;
	from.beside_size = sizeof(w);
	if (model_import(&to, &from, &err) < 0)
		fail_msg("%s", err.detail);
	says(&to.json, "\"runs\":\t\"compiled\"");
	assert_true(to.weights.len > sizeof(w));
	assert_int_equal(model_load(&model, to.json.data, to.json.len, to.weights.data, to.weights.len, &err),
			 0);
	model_free(model);
	imported_release(&to);
	from.beside_size--;
	assert_int_equal(model_import(&to, &from, &err), -EBADMSG);
	from.beside = NULL;
	assert_int_equal(model_import(&to, &from, &err), -EOPNOTSUPP);
	assert_int_equal(err.code, ERR_ONNX_EXTERNAL);
	buf_release(&m);
}

/* What isn't in our networks the interpreter runs, also where a model takes one image at a time. */
static void interprets(void **state)
{
	struct buf m = everything(-1, "Sigmoid"), fixed = everything(1, "Sigmoid");
	struct imported to, one;
	float many[10], single[10];
	struct err err = ERR_INIT;
	struct model *model;
	struct session *s;

	(void)state;
	assert_int_equal(import(&to, "a.onnx", &m, "{\"mean\":[0,0,0],\"std\":[1,1,1]}", NULL, &err), 0);
	says(&to.json, "\"runs\":\t\"interpreted\"");
	says(&to.json, "Sigmoid 'last'");
	says(&to.json, "\"batch\":\t0");
	says(&to.labels, "0\n1\n2\n3\n4\n");
	scores(&to, &m, many);
	assert_int_equal(import(&one, "a.onnx", &fixed, "{\"mean\":[0,0,0],\"std\":[1,1,1]}", NULL, &err), 0);
	says(&one.json, "\"batch\":\t1");
	scores(&one, &fixed, single);
	for (int i = 0; i < 10; i++)
		assert_true(fabsf(many[i] - single[i]) < 1e-6f);
	assert_int_equal(model_load(&model, to.json.data, to.json.len, m.data, m.len, &err), 0);
	assert_false(model_explains(model));
	assert_int_equal(session_new(&s, model, backend_find("onednn"),
				     &(struct session_options){.rate = 1, .batch = 2, .gradcam = true}, &err),
			 -EOPNOTSUPP);
	assert_int_equal(err.code, ERR_NO_GRADCAM);
	model_free(model);
	imported_release(&to);
	imported_release(&one);
	buf_release(&m);
	buf_release(&fixed);
}

static void refuses(void **state)
{
	static const struct {
		const char *last, *json, *labels;
		enum err_code code;
		const char *words;
	} cases[] = {
		{"Bernoulli", NULL, NULL, ERR_ONNX_UNSUPPORTED, "Bernoulli"},
		{NULL, "{\"classes\":7}", NULL, ERR_SPEC_VALUE, "the model gives 5"},
		{NULL, "{\"input\":[3,32,32]}", NULL, ERR_SPEC_VALUE, "3x32x32"},
		{NULL, "{\"means\":[1]}", NULL, ERR_SPEC_KEY, "mean"},
		{NULL, "{\"std\":[0],\"mean\":[0]}", NULL, ERR_SPEC_VALUE, "std"},
		{NULL, "[", NULL, ERR_JSON_SYNTAX, "model.json"},
		{NULL, NULL, "a\nb\n", ERR_LABELS, "2 lines, the model 5"},
		{"ArgMax", NULL, NULL, ERR_NO_IMAGES, "int64"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf m = everything(-1, cases[i].last);
		struct err err = ERR_INIT;
		struct imported to;

		assert_true(import(&to, "a.onnx", &m, cases[i].json, cases[i].labels, &err) < 0);
		if (err.code != cases[i].code || !strstr(err.detail, cases[i].words))
			fail_msg("%zu: %s, not %s: %s", i, err_name(err.code), err_name(cases[i].code),
				 err.detail);
		buf_release(&m);
	}
}

/* --- safetensors --- */

#define TENSORS "{\"net\":{\"arch\":\"resnet\",\"depth\":18,\"width\":8},\"input\":[3,32,32],\"classes\":5}"

/* A ResNet-18 of few channels, as PyTorch saves it; the name `without` is another there. */
static struct buf tensors(const char *without)
{
	static const struct model_info info = {.channels = 3,
					       .height = 32,
					       .width = 32,
					       .classes = 5,
					       .std = {1, 1, 1},
					       .n_rates = 1,
					       .rates = {1}};
	struct buf json = BUF_INIT, weights = BUF_INIT, labels = BUF_INIT, slices = BUF_INIT, ret = BUF_INIT;
	struct err err = ERR_INIT;
	struct safetensors *st;
	struct model *model;
	char *at;

	assert_int_equal(model_new(&model,
				   "{\"arch\":\"resnet\",\"depth\":18,\"width\":8,\"norm\":\"batch\","
				   "\"stem\":\"imagenet\"}",
				   &info, 1, &err),
			 0);
	assert_int_equal(model_save(model, &json, &weights, &labels, &slices, &err), 0);
	model_free(model);
	assert_int_equal(safetensors_open(&st, weights.data, weights.len, &err), 0);
	safetensors_close(st);
	/* a name of the same length is another tensor */
	if (without) {
		at = memmem(weights.data, weights.len, without, strlen(without));
		assert_non_null(at);
		at[0] = 'X';
	}
	buf_add(&ret, weights.data, weights.len);
	buf_release(&json);
	buf_release(&weights);
	buf_release(&labels);
	buf_release(&slices);
	return ret;
}

static void takes_tensors(void **state)
{
	struct buf m = tensors(NULL), less = tensors("layer1.0.conv1.weight");
	struct err err = ERR_INIT;
	struct imported to;
	struct model *model;

	(void)state;
	assert_int_equal(import(&to, "w.safetensors", &m, TENSORS, NULL, &err), 0);
	says(&to.json, "\"norm\":\t\"batch\"");
	says(&to.json, "\"stem\":\t\"imagenet\"");
	assert_int_equal(model_load(&model, to.json.data, to.json.len, to.weights.data, to.weights.len, &err),
			 0);
	model_free(model);
	imported_release(&to);

	assert_int_equal(import(&to, "w.safetensors", &less, TENSORS, NULL, &err), -EBADMSG);
	assert_string_equal(err.detail, "missing: layer1.0.conv1.weight; not known: Xayer1.0.conv1.weight");
	assert_int_equal(import(&to, "w.safetensors", &m, NULL, NULL, &err), -EINVAL);
	assert_int_equal(err.code, ERR_IMPORT);
	assert_int_equal(
		import(&to, "w.safetensors", &m,
		       "{\"net\":{\"arch\":\"resnet\",\"depth\":34,\"width\":8},\"input\":[3,32,32]}", NULL,
		       &err),
		-EBADMSG);
	if (!strstr(err.detail, "more"))
		fail_msg("%s", err.detail);
	buf_release(&m);
	buf_release(&less);
}

/* 16-bit floats are numbers like others. */
static void reads_halves(void **state)
{
	static const char header[] = "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
				     "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[4,8]},"
				     "\"c\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[8,16]}}";
	static const uint16_t halves[8] = {0x3c00, 0xc100, 0x3f80, 0xc020};
	uint64_t len = sizeof(header) - 1;
	struct buf b = BUF_INIT;
	struct safetensors *st;
	float f[2];

	(void)state;
	buf_add(&b, &len, sizeof(len));
	buf_add(&b, header, sizeof(header) - 1);
	buf_add(&b, halves, sizeof(halves));
	assert_int_equal(safetensors_open(&st, b.data, b.len, NULL), 0);
	assert_int_equal(safetensors_floats(safetensors_find(st, "a"), f), 0);
	assert_true(f[0] == 1 && f[1] == -2.5f);
	assert_int_equal(safetensors_floats(safetensors_find(st, "b"), f), 0);
	assert_true(f[0] == 1 && f[1] == -2.5f);
	assert_int_equal(safetensors_floats(safetensors_find(st, "c"), f), -EINVAL);
	safetensors_close(st);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(compiles),        cmocka_unit_test(compiles_newer),
		cmocka_unit_test(takes_two_files), cmocka_unit_test(interprets),
		cmocka_unit_test(refuses),         cmocka_unit_test(takes_tensors),
		cmocka_unit_test(reads_halves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
