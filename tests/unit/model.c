/* Models: architectures, files written and read, and specs that are wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/backend.h"
#include "engine/model_private.h"
#include "engine/safetensors.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct model_info info = {.channels = 1,
				       .height = 12,
				       .width = 10,
				       .classes = 3,
				       .mean = {0.3f},
				       .std = {0.4f},
				       .n_rates = 2,
				       .rates = {0.5f, 1}};

static const char *const nets[] = {
	"{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"groups\":4}",
	"{\"arch\":\"resnet\",\"depth\":14,\"width\":8,\"groups\":8,\"stem\":4}",
	"{\"arch\":\"mlp\",\"hidden\":[16,24],\"groups\":8}",
	"{\"arch\":\"layers\",\"groups\":4,\"layers\":["
	"{\"op\":\"conv2d\",\"channels\":8,\"name\":\"c\"},{\"op\":\"group_norm\"},{\"op\":\"relu\",\"name\":"
	"\"r\"},"
	"{\"op\":\"conv2d\",\"channels\":8,\"conv_groups\":8,\"kernel\":5},{\"op\":\"add\",\"with\":\"r\"},"
	"{\"op\":\"max_pool\"},{\"op\":\"avg_pool\",\"kernel\":3,\"stride\":2,\"pad\":1},{\"op\":\"flatten\"}"
	","
	"{\"op\":\"linear\",\"features\":20},{\"op\":\"relu\"},{\"op\":\"linear\",\"features\":\"classes\"}]"
	"}",
};

static void logits_of(struct model *model, float rate, float out[6])
{
	uint8_t pixels[2 * 12 * 10];
	struct session *s;

	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)(i * 37 % 251);
	assert_int_equal(session_new(&s, model, backend_find("ref"),
				     &(struct session_options){.rate = rate, .batch = 2}, NULL),
			 0);
	assert_int_equal(session_forward(s, pixels, 2, out), 0);
	session_free(s);
}

static void save_and_load(void **state)
{
	(void)state;
	for (size_t k = 0; k < sizeof(nets) / sizeof(nets[0]); k++) {
		struct buf b[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
		struct model *model, *back;
		struct err err = ERR_INIT;
		float a[6], z[6], other[6];
		char line[128];
		int r = model_new(&model, nets[k], &info, 5, &err);

		if (r < 0)
			fail_msg("%s: %s", nets[k], err.detail);
		assert_int_equal(model_set_label(model, 1, "Schuh \xff"), 0);
		assert_int_equal(model_set_label(model, 3, "x"), -EINVAL);
		model_set_accuracy(model, 0, 0.5f);
		model_set_accuracy(model, 1, 0.875f);
		assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], &err), 0);
		assert_string_equal(b[2].data, "0\nSchuh ?\n2\n");
		assert_int_equal(
			strncmp(b[3].data, "slice,precision,accuracy,params,flops\n0.5,f32,50.00,", 51), 0);
		snprintf(line, sizeof(line), "1,f32,87.50,%lld,%lld\n", (long long)model_params(model, 1),
			 (long long)model_flops(model, 1));
		assert_non_null(strstr(b[3].data, line));
		assert_true(model_params(model, 0.5f) < model_params(model, 1));
		assert_true(model_flops(model, 0.5f) < model_flops(model, 1));
		assert_int_equal(model_load(&back, b[0].data, b[0].len, b[1].data, b[1].len, &err), 0);
		assert_memory_equal(model_info(back), model_info(model), sizeof(struct model_info));
		for (float rate = 0.5f; rate <= 1; rate += 0.5f) {
			logits_of(model, rate, a);
			logits_of(back, rate, z);
			assert_memory_equal(a, z, sizeof(a));
			assert_true(isfinite(a[0]) && memcmp(a, a + 3, 3 * sizeof(float)) != 0);
		}
		model_free(back);
		/* Another seed, other weights. */
		assert_int_equal(model_new(&back, nets[k], &info, 6, &err), 0);
		logits_of(back, 1, other);
		assert_memory_not_equal(a, other, sizeof(a));
		model_free(back);
		model_free(model);
		for (int i = 0; i < 4; i++)
			buf_release(&b[i]);
	}
}

static void resnet_size(void **state)
{
	struct model_info i = info;
	struct model *model;

	(void)state;
	/* He et al. 2016, table 6: ResNet-20 has 0.27 M parameters on 3×32×32 (here with 1×1 projections). */
	i.channels = 3;
	i.height = i.width = 32;
	i.classes = 10;
	for (int c = 1; c < 3; c++)
		i.mean[c] = 0.3f, i.std[c] = 0.4f;
	assert_int_equal(model_new(&model, "{\"arch\":\"resnet\",\"depth\":20,\"width\":16}", &i, 1, NULL),
			 0);
	assert_int_equal(model_params(model, 1), 272474);
	assert_true(llabs(model_flops(model, 1) / 2 - 41000000) < 1000000); /* known: 41 M multiply-adds */
	model_free(model);
}

static void wrong_specs(void **state)
{
	static const struct {
		const char *net, *says;
	} bad[] = {
		{"{\"arch\":\"vgg\"}", "resnet"},
		{"{\"arch\":\"resnet\",\"dept\":8}", "did you mean \"depth\""},
		{"{\"arch\":\"resnet\",\"depth\":9}", "6n+2"},
		{"{\"arch\":\"resnet\",\"depth\":\"8\"}", "whole number"},
		{"{\"arch\":\"resnet\",\"width\":12}", "multiple"},
		{"{\"arch\":\"mlp\",\"hidden\":[3]}", "multiple"},
		{"{\"arch\":\"mlp\",\"hidden\":8}", "array"},
		{"{\"arch\":\"layers\"}", "array"},
		{"{\"arch\":\"layers\",\"layers\":[{\"op\":\"conv3d\"}]}", "conv3d"},
		{"{\"arch\":\"layers\",\"layers\":[{\"op\":\"conv2d\"}]}", "channels"},
		{"{\"arch\":\"layers\",\"layers\":[{\"op\":\"relu\",\"in\":\"nothing\"}]}", "nothing"},
		{"{\"arch\":\"layers\",\"layers\":[{\"op\":\"relu\",\"size\":1}]}", "size"},
		{"{\"arch\":\"layers\",\"layers\":[{\"op\":\"flatten\"},{\"op\":\"linear\",\"features\":8}]}",
		 "8 numbers for 3"},
		{"{\"arch\":\"layers\",\"layers\":[{\"op\":\"conv2d\",\"channels\":65536,\"kernel\":31,"
		 "\"pad\":31},{\"op\":\"conv2d\",\"channels\":65536,\"kernel\":31}]}",
		 ""},
		{"[]", "object"},
		{"{", ""},
	};

	(void)state;
	for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
		struct err err = ERR_INIT;
		struct model *model;
		int r = model_new(&model, bad[k].net, &info, 1, &err);

		if (r != -EINVAL || !strstr(err.detail, bad[k].says))
			fail_msg("%s: %d %s", bad[k].net, r, err.detail);
	}
}

static void hostile_files(void **state)
{
	struct buf b[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT}, other = BUF_INIT, junk = BUF_INIT;
	struct model *model, *back;
	struct model_info wide = info;
	struct err err = ERR_INIT;
	float nan_ = NAN;

	(void)state;
	assert_int_equal(model_new(&model, nets[0], &info, 5, NULL), 0);
	assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], NULL), 0);
	model_free(model);
	for (size_t n = 0; n < b[0].len - 2; n++)
		assert_int_equal(model_load(&back, b[0].data, n, b[1].data, b[1].len, &err), -EBADMSG);
	for (size_t n = 0; n < b[1].len; n += 1 + n / 50)
		assert_int_equal(model_load(&back, b[0].data, b[0].len, b[1].data, n, &err), -EBADMSG);
	/* The same number of values in another shape. */
	char *shape = memmem(b[1].data, b[1].len, "[3,32]", 6);
	assert_non_null(shape);
	memcpy(shape, "[32,3]", 6);
	assert_int_equal(model_load(&back, b[0].data, b[0].len, b[1].data, b[1].len, &err), -EBADMSG);
	assert_non_null(strstr(err.detail, "shape"));
	memcpy(shape, "[3,32]", 6);
	/* Weights of a model with more classes, then a value that is no number. */
	wide.classes = 4;
	assert_int_equal(model_new(&model, nets[0], &wide, 5, NULL), 0);
	assert_int_equal(model_save(model, &junk, &other, &junk, &junk, NULL), 0);
	model_free(model);
	assert_int_equal(model_load(&back, b[0].data, b[0].len, other.data, other.len, &err), -EBADMSG);
	assert_non_null(strstr(err.detail, "shape"));
	memcpy(b[1].data + b[1].len - 4, &nan_, 4);
	assert_int_equal(model_load(&back, b[0].data, b[0].len, b[1].data, b[1].len, &err), -EBADMSG);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
	buf_release(&other);
	buf_release(&junk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(save_and_load),
		cmocka_unit_test(resnet_size),
		cmocka_unit_test(wrong_specs),
		cmocka_unit_test(hostile_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
