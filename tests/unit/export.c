/*
 * A slice as ONNX computes what the slice does: by the interpreter, which shares no code with sessions, and compiled again by the import.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/backend.h"
#include "engine/export.h"
#include "engine/import.h"
#include "engine/model_private.h"
#include "engine/onnx/onnx.h"
#include "engine/session.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 5, IMAGES = 2 };

/* A narrow conv with a depthwise one, grouped convolution, every pool, branches joined twice and added to, and normalised by groups:
 * where channels stand in another order than the file's, and where that has to be undone. */
#define BRANCHES                                                                                           \
	"{\"arch\":\"layers\",\"groups\":4,\"layers\":["                                                   \
	"{\"op\":\"conv2d\",\"channels\":16,\"name\":\"stem\",\"bias\":true},"                             \
	"{\"op\":\"relu\",\"name\":\"x\"},"                                                                \
	"{\"op\":\"conv2d\",\"channels\":8,\"kernel\":1,\"kernel_w\":5,\"pad\":0,\"pad_w\":2,\"name\":"    \
	"\"a\"},"                                                                                          \
	"{\"op\":\"max_pool\",\"in\":\"x\",\"kernel\":3,\"stride\":1,\"pad\":1,\"name\":\"b\"},"           \
	"{\"op\":\"concat\",\"in\":\"a\",\"with\":\"b\",\"name\":\"ab\"},"                                 \
	"{\"op\":\"batch_norm\"},{\"op\":\"relu6\",\"name\":\"left\"},"                                    \
	"{\"op\":\"conv2d\",\"channels\":24,\"kernel\":1,\"bias\":true,\"name\":\"up\"},"                  \
	"{\"op\":\"add\",\"in\":\"left\",\"with\":\"up\",\"scale\":0.25,\"name\":\"sum\"},"                \
	"{\"op\":\"conv2d\",\"channels\":24,\"kernel\":3,\"conv_groups\":24,\"bias\":true},"               \
	"{\"op\":\"avg_pool\",\"kernel\":2,\"name\":\"half\"},"                                            \
	"{\"op\":\"conv2d\",\"channels\":12,\"kernel\":1,\"name\":\"c\"},"                                 \
	"{\"op\":\"concat\",\"in\":\"half\",\"with\":\"c\"},"                                              \
	"{\"op\":\"avg_pool\",\"kernel\":3,\"stride\":1,\"pad\":1,\"exclude_pad\":true},"                  \
	"{\"op\":\"dropout\"},{\"op\":\"flatten\"},"                                                       \
	"{\"op\":\"linear\",\"features\":16},{\"op\":\"group_norm\"},{\"op\":\"relu\",\"name\":\"wide\"}," \
	"{\"op\":\"linear\",\"features\":8},{\"op\":\"batch_norm\"},"                                      \
	"{\"op\":\"linear\",\"features\":\"classes\"}]}"

/* The order of joined channels matters to what follows. */
#define RESTORED                                                                                  \
	"{\"arch\":\"layers\",\"groups\":4,\"layers\":["                                          \
	"{\"op\":\"conv2d\",\"channels\":8,\"name\":\"a\"},"                                      \
	"{\"op\":\"conv2d\",\"in\":\"input\",\"channels\":4,\"name\":\"b\"},"                     \
	"{\"op\":\"concat\",\"in\":\"a\",\"with\":\"b\",\"name\":\"ab\"},"                        \
	"{\"op\":\"group_norm\",\"name\":\"normal\"},"                                            \
	"{\"op\":\"conv2d\",\"channels\":8,\"conv_groups\":4,\"kernel\":3,\"name\":\"grouped\"}," \
	"{\"op\":\"concat\",\"in\":\"b\",\"with\":\"grouped\",\"name\":\"bg\"},"                  \
	"{\"op\":\"add\",\"in\":\"bg\",\"with\":\"normal\"},"                                     \
	"{\"op\":\"concat\",\"with\":\"b\"},{\"op\":\"relu\"},"                                   \
	"{\"op\":\"global_avg_pool\"},{\"op\":\"linear\",\"features\":8},"                        \
	"{\"op\":\"conv2d\",\"channels\":8,\"kernel\":1},"                                        \
	"{\"op\":\"linear\",\"features\":\"classes\"}]}"

static const struct family {
	const char *net;
	int channels, side;
	bool compiles;
} families[] = {
	{"{\"arch\":\"vgg\",\"depth\":11,\"width\":16,\"hidden\":32}", 3, 32, true},
	{"{\"arch\":\"vgg\",\"depth\":11,\"width\":16,\"hidden\":32,\"norm\":\"batch\",\"stem\":"
	 "\"imagenet\"}",
	 3, 64, true},
	{"{\"arch\":\"vgg\",\"depth\":11,\"width\":8,\"hidden\":32,\"norm\":\"none\"}", 1, 32, true},
	{"{\"arch\":\"resnet\",\"depth\":8}", 1, 28, true},
	{"{\"arch\":\"resnet\",\"depth\":8,\"norm\":\"batch\"}", 3, 32, true},
	{"{\"arch\":\"resnet\",\"depth\":18,\"width\":16}", 3, 32, true},
	{"{\"arch\":\"resnet\",\"depth\":50,\"width\":8,\"norm\":\"batch\",\"stem\":\"imagenet\"}", 3, 32,
	 true},
	{"{\"arch\":\"mobilenet\",\"width\":0.25,\"stem\":\"imagenet\"}", 3, 32, true},
	{"{\"arch\":\"mobilenet\",\"width\":0.25,\"norm\":\"batch\"}", 3, 16, true},
	{"{\"arch\":\"inception-resnet-v2\",\"width\":0.125,\"depth\":1}", 3, 16, true},
	{"{\"arch\":\"inception-resnet-v2\",\"width\":0.125,\"depth\":1,\"norm\":\"batch\",\"stem\":"
	 "\"imagenet\"}",
	 3, 80, true},
	{"{\"arch\":\"mlp\",\"hidden\":[32,16]}", 1, 12, true},
	{BRANCHES, 3, 12, true},
	{RESTORED, 3, 8, false},
};
enum { FAMILIES = sizeof(families) / sizeof(families[0]) };

static struct model *make(const struct family *f)
{
	const struct model_info info = {.channels = f->channels,
					.height = f->side,
					.width = f->side,
					.classes = CLASSES,
					.mean = {0.45f, 0.4f, 0.5f},
					.std = {0.2f, 0.25f, 0.3f},
					.n_rates = 4,
					.rates = {0.25f, 0.5f, 0.75f, 1},
					.accuracy = {0.5f}};
	struct err err = ERR_INIT;
	struct model *model;
	uint32_t state = 1;

	if (model_new(&model, f->net, &info, 1, &err) < 0)
		fail_msg("%s: %s", f->net, err.detail);
	/* scales, shifts and statistics that differ from channel to channel */
	for (int i = 0; i < model->net->params.n; i++) {
		struct param *p = &model->net->params.list[i];

		for (size_t k = 0; p->rank == 1 && k < p->size; k++) {
			state = state * 1664525 + 1013904223;
			p->value[k] += 0.3f * ((float)(state >> 8) / (float)(1 << 23) - 1);
		}
	}
	params_changed(&model->net->params);
	assert_int_equal(model_set_label(model, 2, "cat"), 0);
	return model;
}

static void fill(uint8_t *pixels, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pixels[i] = (uint8_t)(i * UINT64_C(2654435761) >> 13);
}

static void of_session(struct model *model, float rate, const uint8_t *pixels, float *logits)
{
	struct err err = ERR_INIT;
	struct session *s;

	assert_int_equal(session_new(&s, model, backend_find("onednn"),
				     &(struct session_options){.rate = rate, .batch = IMAGES}, &err),
			 0);
	assert_int_equal(session_forward(s, pixels, IMAGES, logits), 0);
	session_free(s);
}

/* The interpreter's; x is as the file's user gives it. */
static void of_file(const struct buf *file, const struct family *f, const uint8_t *pixels, float *logits)
{
	const int64_t dims[4] = {IMAGES, f->channels, f->side, f->side};
	size_t plane = (size_t)(f->side * f->side), channels = (size_t)f->channels;
	struct onnx_tensor *in, *out = NULL;
	struct err err = ERR_INIT;
	struct onnx_model *m;
	float *x;

	if (onnx_load(&m, file->data, file->len, NULL, &err) < 0)
		fail_msg("%s: %s", f->net, err.detail);
	assert_int_equal(onnx_inputs(m), 1);
	assert_int_equal(onnx_outputs(m), 1);
	assert_string_equal(onnx_input(m, 0)->name, "images");
	assert_string_equal(onnx_output(m, 0)->name, "logits");
	assert_int_equal(onnx_input(m, 0)->dims[0], -1);
	assert_int_equal(onnx_tensor_new(&in, ONNX_FLOAT, 4, dims, &err), 0);
	x = in->data;
	for (size_t i = 0; i < in->count; i++) {
		size_t n = i / (channels * plane), c = i / plane % channels, at = i % plane;

		x[i] = (float)pixels[(n * plane + at) * channels + c] / 255;
	}
	if (onnx_run(m, &in, 1, &out, 1, &err) < 0)
		fail_msg("%s: %s", f->net, err.detail);
	assert_int_equal(out->rank, 2);
	assert_int_equal(out->count, CLASSES * IMAGES);
	memcpy(logits, out->data, out->count * sizeof(float));
	onnx_tensor_free(in);
	onnx_tensor_free(out);
	onnx_free(m);
}

/* By the import of the file, which says itself that its mean and std are taken off within, and what its classes are. */
static void of_import(const struct buf *file, const struct family *f, bool compiles, const uint8_t *pixels,
		      float *logits)
{
	struct err err = ERR_INIT;
	struct imported to;
	struct model *model;

	if (model_import(&to,
			 &(struct import_source){.file = "slice.onnx", .data = file->data, .size = file->len},
			 &err) < 0)
		fail_msg("%s: %s", f->net, err.detail);
	if (compiles != !!strstr(to.json.data, "\"compiled\""))
		fail_msg("%s: %s", f->net, to.json.data);
	assert_string_equal(to.labels.data, "0\n1\ncat\n3\n4\n");
	assert_int_equal(model_load(&model, to.json.data, to.json.len, file->data, file->len, &err), 0);
	of_session(model, 1, pixels, logits);
	model_free(model);
	imported_release(&to);
}

static void close_to(const char *what, const struct family *f, float rate, const float *a, const float *b)
{
	float largest = 0, worst = 0;

	for (int i = 0; i < CLASSES * IMAGES; i++) {
		assert_true(isfinite(b[i]));
		largest = fmaxf(largest, fabsf(a[i]));
		worst = fmaxf(worst, fabsf(a[i] - b[i]));
	}
	if (!(worst <= 1e-4f * largest) || !(largest > 0))
		fail_msg("%s at %g, %s: %g of %g", f->net, (double)rate, what, (double)worst,
			 (double)largest);
}

static void computes_the_same(void **state)
{
	static uint8_t pixels[IMAGES * 3 * 96 * 96];

	(void)state;
	fill(pixels, sizeof(pixels));
	for (size_t i = 0; i < FAMILIES; i++) {
		struct model *model = make(&families[i]);
		size_t before = SIZE_MAX;

		for (int k = 3; k >= 0; k--) {
			float rate = model->info.rates[k], want[CLASSES * IMAGES], got[CLASSES * IMAGES];
			struct err err = ERR_INIT;
			struct buf file = BUF_INIT;

			of_session(model, rate, pixels, want);
			if (model_export_onnx(model, rate, &file, &err) < 0)
				fail_msg("%s at %g: %s", families[i].net, (double)rate, err.detail);
			assert_true(file.len < before); /* a slice's weights, not all */
			before = file.len;
			of_file(&file, &families[i], pixels, got);
			close_to("interpreted", &families[i], rate, want, got);
			/* one group of each input: their order is one */
			of_import(&file, &families[i], families[i].compiles || rate == 0.25f, pixels, got);
			close_to("imported", &families[i], rate, want, got);
			buf_release(&file);
		}
		model_free(model);
	}
}

static void has(const struct buf *b, const char *text)
{
	if (!memmem(b->data, b->len, text, strlen(text)))
		fail_msg("no '%s'", text);
}

static void takes_files(void **state)
{
	struct buf json = BUF_INIT, weights = BUF_INIT, labels = BUF_INIT, slices = BUF_INIT, file = BUF_INIT,
		   again = BUF_INIT;
	struct model *model = make(&families[4]);
	struct err err = ERR_INIT;
	struct export_source from;

	(void)state;
	assert_int_equal(model_set_label(model, 1, "a \"dog\""), 0);
	assert_int_equal(model_save(model, &json, &weights, &labels, &slices, &err), 0);
	from = (struct export_source){.json = json.data,
				      .json_len = json.len,
				      .weights = weights.data,
				      .weights_len = weights.len,
				      .labels = labels.data,
				      .labels_len = labels.len};
	assert_int_equal(model_export(&from, 0.25f, &file, &err), 0);
	assert_int_equal(model_export_onnx(model, 0.25f, &again, &err), 0);
	assert_int_equal(file.len, again.len);
	assert_memory_equal(file.data, again.data, file.len);
	has(&file, "[\"0\",\"a \\\"dog\\\"\",\"cat\",\"3\",\"4\"]");
	has(&file, "0.5000");
	has(&file, "conv1.weight");
	assert_null(memmem(file.data, file.len, "slice-", 6)); /* the slice's own set has PyTorch's names */

	buf_clear(&file);
	assert_int_equal(model_export(&from, 0.6f, &file, &err), -ENOENT);
	assert_int_equal(err.code, ERR_NO_SLICE);
	assert_string_equal(err.detail, "0.6");
	assert_int_equal(model_export(&from, NAN, &file, &err), -ENOENT);
	assert_int_equal(file.len, 0);
	from.weights_len /= 2;
	assert_int_equal(model_export(&from, 0.25f, &file, &err), -EBADMSG);
	from.json_len /= 2;
	assert_int_equal(model_export(&from, 0.25f, &file, &err), -EBADMSG);
	assert_int_equal(file.len, 0);
	buf_release(&json);
	buf_release(&weights);
	buf_release(&labels);
	buf_release(&slices);
	buf_release(&file);
	buf_release(&again);
	model_free(model);
}

/* What came as ONNX is its own export. */
static void gives_back(void **state)
{
	struct buf file = BUF_INIT, back = BUF_INIT;
	struct model *model = make(&families[11]);
	struct err err = ERR_INIT;
	struct imported to;
	struct export_source from;

	(void)state;
	assert_int_equal(model_export_onnx(model, 0.5f, &file, &err), 0);
	assert_int_equal(
		model_import(&to,
			     &(struct import_source){.file = "a.onnx", .data = file.data, .size = file.len},
			     &err),
		0);
	from = (struct export_source){
		.json = to.json.data, .json_len = to.json.len, .weights = file.data, .weights_len = file.len};
	assert_int_equal(model_export(&from, 0.5f, &back, &err), -ENOENT);
	assert_int_equal(model_export(&from, 1, &back, &err), 0);
	assert_int_equal(back.len, file.len);
	assert_memory_equal(back.data, file.data, file.len);
	imported_release(&to);
	buf_release(&file);
	buf_release(&back);
	model_free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(computes_the_same),
		cmocka_unit_test(takes_files),
		cmocka_unit_test(gives_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
