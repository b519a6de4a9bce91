/* Models: architectures, files written and read, and specs that are wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/arch/arch.h"
#include "engine/backend.h"
#include "engine/model_private.h"
#include "engine/safetensors.h"
#include "engine/session.h"

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
	"{\"arch\":\"resnet\",\"depth\":18,\"width\":8}",
	"{\"arch\":\"resnet\",\"depth\":50,\"width\":4,\"groups\":4,\"stem\":\"imagenet\"}",
	"{\"arch\":\"vgg\",\"depth\":11,\"width\":8,\"groups\":4,\"hidden\":16}",
	"{\"arch\":\"vgg\",\"depth\":13,\"width\":4,\"groups\":4,\"hidden\":8,\"norm\":\"none\"}",
	"{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"groups\":4,\"norm\":\"batch\"}",
	"{\"arch\":\"mobilenet\",\"width\":0.25,\"norm\":\"batch\"}",
	"{\"arch\":\"inception-resnet-v2\",\"width\":0.12,\"depth\":1,\"groups\":4}",
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

/* ranges: what f32 sees goes there; NULL: it does not. */
static int run_in(struct model *model, float rate, enum precision precision, float *ranges, float out[6])
{
	uint8_t pixels[2 * 12 * 10];
	struct session *s;
	int r;

	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)(i * 37 % 251);
	r = session_new(&s, model, backend_find("ref"),
			&(struct session_options){.rate = rate, .batch = 2, .precision = precision}, NULL);
	if (r < 0)
		return r;
	if (ranges)
		assert_int_equal(session_observe(s, ranges), 0);
	assert_int_equal(session_forward(s, pixels, 2, out), 0);
	session_free(s);
	return 0;
}

static void logits_of(struct model *model, float rate, float out[6])
{
	assert_int_equal(run_in(model, rate, PRECISION_F32, NULL, out), 0);
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
		model_set_narrow_accuracy(model, PRECISION_BF16, 1, 0.75f, 0.625f);
		assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], &err), 0);
		assert_string_equal(b[2].data, "0\nSchuh ?\n2\n");
		assert_int_equal(
			strncmp(b[3].data, "slice,precision,accuracy,params,flops\n0.5,f32,50.00,", 51), 0);
		snprintf(line, sizeof(line), "1,f32,87.50,%lld,%lld\n", (long long)model_params(model, 1),
			 (long long)model_flops(model, 1));
		assert_non_null(strstr(b[3].data, line));
		assert_non_null(strstr(b[3].data, "\n1,bf16,75.00,"));
		assert_null(strstr(b[3].data, "0.5,bf16"));
		assert_true(model_params(model, 0.5f) < model_params(model, 1));
		assert_true(model_flops(model, 0.5f) < model_flops(model, 1));
		assert_int_equal(model_load(&back, b[0].data, b[0].len, b[1].data, b[1].len, &err), 0);
		assert_memory_equal(model_info(back), model_info(model), sizeof(struct model_info));
		{
			struct buf again[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};

			assert_int_equal(model_save(back, &again[0], &again[1], &again[2], &again[3], &err),
					 0);
			assert_string_equal(again[0].data, b[0].data);
			for (int i = 0; i < 4; i++)
				buf_release(&again[i]);
		}
		for (float rate = 0.5f; rate <= 1; rate += 0.5f) {
			logits_of(model, rate, a);
			logits_of(back, rate, z);
			assert_memory_equal(a, z, sizeof(a));
			if (!isfinite(a[0]) || memcmp(a, a + 3, 3 * sizeof(float)) == 0)
				fail_msg("%s gives %g and %g", nets[k], (double)a[0], (double)a[3]);
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

/* Loads what was saved with `find` in model.json being `put`. */
static struct model *changed(const struct buf b[4], const char *find, const char *put)
{
	struct model *back;
	struct buf json = BUF_INIT;
	const char *at = strstr(b[0].data, find);

	assert_non_null(at);
	buf_add(&json, b[0].data, (size_t)(at - b[0].data));
	buf_adds(&json, put);
	buf_adds(&json, at + strlen(find));
	assert_int_equal(model_load(&back, json.data, json.len, b[1].data, b[1].len, NULL), 0);
	buf_release(&json);
	return back;
}

/* What int8 needs to know is a model's, slice by slice; without it, or where a file says it wrong, there is no int8. */
static void ranges_saved(void **state)
{
	struct buf b[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	static const char *const wrong[] = {"\"ranges\":\t[\"x\", ", "\"ranges\":\t[-1, ",
					    "\"ranges\":\t[1e30, ",  "\"ranges\":\t[1, 1, ",
					    "\"ranges\":\t[[1], ",   "\"old\":\t[1, "};
	struct model *model, *back;
	float ranges[32] = {0}, f32[6], a[6], z[6];

	(void)state;
	assert_int_equal(model_new(&model, nets[9], &info, 5, NULL), 0);
	assert_in_range(model->net->n_nodes, 2, 32);
	assert_int_equal(run_in(model, 1, PRECISION_INT8, NULL, a), -EINVAL);
	assert_int_equal(run_in(model, 1, PRECISION_F32, ranges, f32), 0);
	ranges[0] = 2; /* a whole number in the file */
	assert_int_equal(model_set_ranges(model, 1, ranges), 0);
	model_set_narrow_accuracy(model, PRECISION_INT8, 1, 0.5f, 0.25f);
	assert_true(model_calibrated(model, 1) && !model_calibrated(model, 0));
	assert_int_equal(run_in(model, 0.5f, PRECISION_INT8, NULL, a), -EINVAL);
	assert_int_equal(run_in(model, 1, PRECISION_INT8, NULL, a), 0);
	for (int i = 0; i < 6; i++)
		assert_float_equal(a[i], f32[i], 0.1 * fabs((double)f32[0]) + 0.05);
	assert_memory_not_equal(a, f32, sizeof(a));
	assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], NULL), 0);
	assert_non_null(strstr(b[3].data, "\n1,int8,50.00,"));
	assert_null(strstr(b[3].data, "\n0.5,int8"));
	back = changed(b, "\"ranges\":\t[2, ", "\"ranges\":\t[2, ");
	assert_true(model_calibrated(back, 1) && !model_calibrated(back, 0));
	assert_int_equal(run_in(back, 1, PRECISION_INT8, NULL, z), 0);
	assert_memory_equal(a, z, sizeof(a));
	assert_true(back->narrow_test_accuracy[PRECISION_INT8][1] == 0.25f);
	model_free(back);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		back = changed(b, "\"ranges\":\t[2, ", wrong[i]);
		if (model_calibrated(back, 1))
			fail_msg("calibrated by %s", wrong[i]);
		model_free(back);
	}
	model_free(model);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
}

/* Large weights are used where they lie, unless no float can be read there. */
static void weights_in_place(void **state)
{
	struct buf b[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	struct model *model, *back;
	struct err err = ERR_INIT;
	float a[6], z[6];
	char *moved;

	(void)state;
	assert_int_equal(model_new(&model, "{\"arch\":\"mlp\",\"hidden\":[256,256]}", &info, 5, &err), 0);
	assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], &err), 0);
	logits_of(model, 1, a);
	moved = malloc(b[1].len + 64);
	assert_non_null(moved);
	for (int odd = 0; odd < 2; odd++) {
		int borrowed = 0;

		memcpy(moved + odd, b[1].data, b[1].len);
		assert_int_equal(model_open(&back, b[0].data, b[0].len, moved + odd, b[1].len, &err), 0);
		for (int i = 0; i < back->net->params.n; i++) {
			const struct param *p = &back->net->params.list[i];
			bool inside = (char *)p->value >= moved && (char *)p->value < moved + b[1].len;

			assert_int_equal(inside, p->borrowed);
			borrowed += p->borrowed;
		}
		assert_int_equal(borrowed > 0, !odd);
		logits_of(back, 1, z);
		assert_memory_equal(a, z, sizeof(a));
		model_free(back);
	}
	/* what can't be is refused there, too */
	memset(moved + b[1].len - 64, 0xff, 64);
	assert_int_equal(model_open(&back, b[0].data, b[0].len, moved, b[1].len, &err), -EBADMSG);
	free(moved);
	model_free(model);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
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

/* Published sizes at 1,000 classes, of torchvision's and timm's models. Values are never touched: they are
 * address space only. */
static void published_sizes(void **state)
{
	static const struct {
		const char *net;
		int side;
		int64_t params;
	} known[] = {
		{"{\"arch\":\"vgg\",\"depth\":16,\"norm\":\"none\"}", 224, 138357544},
		{"{\"arch\":\"vgg\",\"depth\":13,\"norm\":\"none\"}", 224, 133047848},
		{"{\"arch\":\"vgg\",\"depth\":11,\"norm\":\"none\"}", 224, 132863336},
		{"{\"arch\":\"vgg\",\"depth\":16}", 224, 138365992}, /* vgg16_bn */
		{"{\"arch\":\"vgg\",\"depth\":11}", 224, 132868840}, /* vgg11_bn */
		{"{\"arch\":\"resnet\",\"depth\":18}", 224, 11689512},
		{"{\"arch\":\"resnet\",\"depth\":34}", 224, 21797672},
		{"{\"arch\":\"resnet\",\"depth\":50}", 224, 25557032},
		{"{\"arch\":\"resnet\",\"depth\":101}", 224, 44549160},
		{"{\"arch\":\"resnet\",\"depth\":152}", 224, 60192808},
		{"{\"arch\":\"mobilenet\"}", 224, 3504872},
		{"{\"arch\":\"mobilenet\",\"width\":0.5}", 224, 1968680},
		{"{\"arch\":\"inception-resnet-v2\"}", 299, 55843464},
	};

	(void)state;
	for (size_t k = 0; k < 2 * (sizeof(known) / sizeof(known[0])); k++) {
		const struct model_info i = {.channels = 3,
					     .height = known[k / 2].side,
					     .width = known[k / 2].side,
					     .classes = 1000,
					     .n_rates = 2,
					     .rates = {0.5f, 1}};
		cJSON *spec = cJSON_Parse(known[k / 2].net);
		struct err err = ERR_INIT;
		struct net *net;

		/* a scale and a shift for each channel, whatever the norm */
		if (k % 2 && !cJSON_HasObjectItem(spec, "norm"))
			cJSON_AddStringToObject(spec, "norm", "batch");
		if (arch_build(&net, spec, &i, &err) < 0)
			fail_msg("%s: %s", known[k / 2].net, err.detail);
		if (net_params(net, 1) != known[k / 2].params)
			fail_msg("%s has %lld parameters, not %lld", known[k / 2].net,
				 (long long)net_params(net, 1), (long long)known[k / 2].params);
		/* a half-wide slice has about a quarter */
		assert_in_range(net_params(net, 0.5f) * 100 / known[k / 2].params, 23, 46);
		net_free(net);
		cJSON_Delete(spec);
	}
}

/* Names that the state dicts of torchvision have, with their shapes. */
static void torchvision_names(void **state)
{
	static const struct {
		const char *net, *name;
		int rank, dims[4];
	} known[] = {
		{"{\"arch\":\"resnet\",\"depth\":50}", "conv1.weight", 4, {64, 3, 7, 7}},
		{"{\"arch\":\"resnet\",\"depth\":50}", "layer1.0.downsample.0.weight", 4, {256, 64, 1, 1}},
		{"{\"arch\":\"resnet\",\"depth\":50}", "layer3.5.conv2.weight", 4, {256, 256, 3, 3}},
		{"{\"arch\":\"resnet\",\"depth\":50}", "layer4.2.bn3.bias", 1, {2048}},
		{"{\"arch\":\"resnet\",\"depth\":18}", "layer2.0.bn1.weight", 1, {128}},
		{"{\"arch\":\"resnet\",\"depth\":18}", "fc.weight", 2, {1000, 512}},
		{"{\"arch\":\"vgg\",\"depth\":16,\"norm\":\"none\"}", "features.28.bias", 1, {512}},
		{"{\"arch\":\"vgg\",\"depth\":16}", "features.41.weight", 1, {512}},
		{"{\"arch\":\"vgg\",\"depth\":11}", "classifier.0.weight", 2, {4096, 25088}},
		{"{\"arch\":\"resnet\",\"depth\":18,\"norm\":\"batch\"}", "bn1.running_var", 1, {64}},
		{"{\"arch\":\"mobilenet\"}", "features.1.conv.0.0.weight", 4, {32, 1, 3, 3}},
		{"{\"arch\":\"mobilenet\"}", "features.2.conv.1.1.bias", 1, {96}},
		{"{\"arch\":\"mobilenet\"}", "features.17.conv.3.weight", 1, {320}},
		{"{\"arch\":\"mobilenet\"}", "classifier.1.weight", 2, {1000, 1280}},
		{"{\"arch\":\"inception-resnet-v2\"}", "mixed_5b.branch3.1.conv.weight", 4, {64, 192, 1, 1}},
		{"{\"arch\":\"inception-resnet-v2\"}",
		 "repeat_1.19.branch1.1.conv.weight",
		 4,
		 {160, 128, 1, 7}},
	};

	(void)state;
	for (size_t k = 0; k < sizeof(known) / sizeof(known[0]); k++) {
		int side = strstr(known[k].net, "inception") ? 299 : 224;
		const struct model_info i = {.channels = 3, .height = side, .width = side, .classes = 1000};
		cJSON *spec = cJSON_Parse(known[k].net);
		const struct param *p;
		struct net *net;

		assert_int_equal(arch_build(&net, spec, &i, NULL), 0);
		p = params_find(&net->params, known[k].name);
		if (!p || p->rank != known[k].rank ||
		    memcmp(p->dims, known[k].dims, (size_t)p->rank * sizeof(int)) != 0)
			fail_msg("%s has no such %s", known[k].net, known[k].name);
		net_free(net);
		cJSON_Delete(spec);
	}
}

/* A ResNet of depth 50 that was saved before there was ImageNet's shape. */
static void old_format(void **state)
{
	static const char *const spec = "{\"arch\":\"resnet\",\"depth\":50,\"width\":8}";
	struct buf b[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	struct model *model, *back;
	struct err err = ERR_INIT;
	char styled[128], *old;
	cJSON *root;

	(void)state;
	snprintf(styled, sizeof(styled), "%.*s,\"style\":\"cifar\"}", (int)strlen(spec) - 1, spec);
	assert_int_equal(model_new(&model, styled, &info, 5, NULL), 0);
	assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], NULL), 0);
	root = cJSON_ParseWithLength(b[0].data, b[0].len);
	cJSON_ReplaceItemInObject(root, "net", cJSON_Parse(spec));
	cJSON_ReplaceItemInObject(root, "format", cJSON_CreateString("inferfs-model-1"));
	old = cJSON_PrintUnformatted(root);
	if (model_load(&back, old, strlen(old), b[1].data, b[1].len, &err) < 0)
		fail_msg("%s", err.detail);
	assert_int_equal(model_params(back, 1), model_params(model, 1));
	model_free(back);
	/* the same words in the new format mean ImageNet's */
	free(old);
	cJSON_ReplaceItemInObject(root, "format", cJSON_CreateString("inferfs-model-2"));
	old = cJSON_PrintUnformatted(root);
	assert_int_equal(model_load(&back, old, strlen(old), b[1].data, b[1].len, &err), -EBADMSG);
	free(old);
	cJSON_Delete(root);
	model_free(model);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
}

static void wrong_specs(void **state)
{
	static const struct {
		const char *net, *says;
	} bad[] = {
		{"{\"arch\":\"lenet\"}", "resnet, vgg, mobilenet, inception-resnet-v2, mlp or layers"},
		{"{\"arch\":\"mobilenet\",\"depth\":3}", "depth"},
		{"{\"arch\":\"inception-resnet-v2\",\"stem\":\"imagenet\"}", "fit"},
		{"{\"arch\":\"vgg\",\"depth\":12}", "11, 13 or 16"},
		{"{\"arch\":\"vgg\",\"norm\":\"layer\"}", "group, batch or none"},
		{"{\"arch\":\"resnet\",\"norm\":\"none\"}", "group or batch"},
		{"{\"arch\":\"resnet\",\"depth\":18,\"stem\":\"large\"}", "cifar or imagenet"},
		{"{\"arch\":\"resnet\",\"depth\":18,\"style\":\"cifar\"}", "6n+2"},
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

/* A variance below 0 would make every answer no number. */
static void hostile_variance(void **state)
{
	struct buf b[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	struct model *model, *back;
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(
		model_new(&model, "{\"arch\":\"resnet\",\"depth\":8,\"norm\":\"batch\"}", &info, 5, NULL), 0);
	for (int good = 0; good < 2; good++) {
		params_find(&model->net->params, "norm1.slice-0.5.running_var")->value[3] = good ? 0 : -1;
		params_find(&model->net->params, "norm1.slice-0.5.running_mean")->value[3] = -1;
		for (int i = 0; i < 4; i++)
			buf_clear(&b[i]);
		assert_int_equal(model_save(model, &b[0], &b[1], &b[2], &b[3], NULL), 0);
		assert_int_equal(model_load(&back, b[0].data, b[0].len, b[1].data, b[1].len, &err),
				 good ? 0 : -EBADMSG);
	}
	assert_non_null(strstr(err.detail, "norm1.slice-0.5.running_var"));
	model_free(back);
	model_free(model);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(save_and_load),    cmocka_unit_test(ranges_saved),
		cmocka_unit_test(weights_in_place), cmocka_unit_test(resnet_size),
		cmocka_unit_test(published_sizes),  cmocka_unit_test(torchvision_names),
		cmocka_unit_test(old_format),       cmocka_unit_test(wrong_specs),
		cmocka_unit_test(hostile_files),    cmocka_unit_test(hostile_variance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
