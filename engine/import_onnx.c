/*
 * An ONNX file becomes a version. It is run here once by the interpreter, and where it can be compiled, by the compiled network too,
 * on the same noise: only if both agree is it used compiled. So what is served computes what the file says.
 */
#include "engine/import_private.h"

#include "engine/backend.h"
#include "engine/base/json.h"
#include "engine/export.h"
#include "engine/onnx/external.h"
#include "engine/session.h"
#include "engine/session_graph.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKEND  "onednn"
#define TOGETHER 2
/* Chosen: of logits relative to the largest, over hundreds of layers in another order of summation; what is computed wrongly is
 * off by far more. */
#define TOLERANCE 2e-3f

struct candidate {
	struct onnx_model *graph;
	struct onnx_image image;
	struct net *net;
	struct model_info info;
	char why[384]; /* it isn't compiled */
	float *x;      /* (TOGETHER, H, W, C), noise */
	float *logits; /* (TOGETHER, classes) of it */
};

static float noise(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

static int make_noise(struct candidate *c, struct err *err)
{
	size_t n = (size_t)c->image.height * (size_t)c->image.width * (size_t)c->image.channels * TOGETHER;
	uint32_t state = 1;

	c->x = calloc(n, sizeof(*c->x));
	if (!c->x)
		return err_set(err, ERR_NO_MEMORY, "an image to try it with");
	for (size_t i = 0; i < n; i++)
		c->x[i] = noise(&state);
	return 0;
}

static bool close_to(const float *a, const float *b, size_t n, float tolerance)
{
	float largest = 1e-6f, worst = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isfinite(a[i]) || !isfinite(b[i]))
			return false;
		largest = fmaxf(largest, fabsf(a[i]));
		worst = fmaxf(worst, fabsf(a[i] - b[i]));
	}
	return worst <= tolerance * largest;
}

/* The interpreter, first one image by itself, then two together: many exports take any batch and compute only one right. */
static int try_graph(struct candidate *c, struct err *err)
{
	struct onnx_image single = c->image;
	float *one_by_one = NULL, *together = NULL;
	int classes = 0, r;

	if (!single.batch)
		single.batch = 1;
	r = graph_run(c->graph, &single, c->x, TOGETHER, 0, &classes, &one_by_one, err);
	if (r < 0)
		return r;
	c->info.classes = classes;
	c->logits = one_by_one;
	if (c->image.batch)
		return 0;
	r = graph_run(c->graph, &c->image, c->x, TOGETHER, c->info.classes, NULL, &together, NULL);
	if (r == -ENOMEM)
		return err_set(err, ERR_NO_MEMORY, "two images at once");
	if (r < 0 || !close_to(c->logits, together, (size_t)c->info.classes * TOGETHER, TOLERANCE))
		c->image.batch = 1;
	free(together);
	return 0;
}

/* Whether the network gives the same; after softmax where the graph has one. */
static int try_net(struct candidate *c, bool *same, struct err *err)
{
	const struct session_options options = {.rate = 1, .batch = TOGETHER};
	size_t n = (size_t)c->info.classes * TOGETHER;
	const struct node *out = &c->net->nodes[c->net->output];
	struct session *s = NULL;
	float *logits, *want;
	int r;

	*same = false;
	if (out->channels != c->info.classes)
		return 0;
	logits = calloc(n, sizeof(*logits));
	want = calloc(n, sizeof(*want));
	r = logits && want ? session_new_net(&s, c->net, NULL, NULL, backend_find(BACKEND), &options, err)
			   : err_set(err, ERR_NO_MEMORY, "class scores");
	if (r == 0)
		r = session_forward_float(s, c->x, TOGETHER, logits);
	if (r == 0) {
		memcpy(want, c->logits, n * sizeof(*want));
		if (onnx_gives_probabilities(c->graph)) {
			softmax_rows(logits, TOGETHER, c->info.classes);
			softmax_rows(want, TOGETHER, c->info.classes);
		}
		*same = close_to(want, logits, n, TOLERANCE);
	}
	session_free(s);
	free(logits);
	free(want);
	return r;
}

static int compile_it(struct candidate *c, struct err *err)
{
	struct err why = ERR_INIT;
	bool same = false;
	int r = onnx_to_net(&c->net, c->graph, &c->image, &why);

	if (r == 0)
		r = try_net(c, &same, &why);
	if (r == -ENOMEM)
		return err_set(err, ERR_NO_MEMORY, "compiling it");
	if (r == 0 && same)
		return 0;
	snprintf(c->why, sizeof(c->why), "%s",
		 r < 0 ? why.detail : "the compiled network gives other numbers");
	net_free(c->net);
	c->net = NULL;
	return 0;
}

static void write_json(struct buf *ret, const struct candidate *c, const struct model *model,
		       const char *file)
{
	cJSON *root = cJSON_CreateObject(), *input, *slice;
	const struct model_info *info = &c->info;

	cJSON_AddStringToObject(root, "format", MODEL_ONNX_FORMAT);
	cJSON_AddStringToObject(root, "task", "image-classification");
	cJSON_AddStringToObject(root, "from", file);
	cJSON_AddStringToObject(root, "runs", model->net ? "compiled" : "interpreted");
	if (!model->net) {
		cJSON_AddStringToObject(root, "because", c->why);
		cJSON_AddNumberToObject(root, "batch", c->image.batch);
	}
	input = cJSON_AddObjectToObject(root, "input");
	cJSON_AddNumberToObject(input, "channels", info->channels);
	cJSON_AddNumberToObject(input, "height", info->height);
	cJSON_AddNumberToObject(input, "width", info->width);
	cJSON_AddStringToObject(input, "layout", c->image.nhwc ? "NHWC" : "NCHW");
	cJSON_AddItemToObject(input, "mean", cJSON_CreateFloatArray(info->mean, info->channels));
	cJSON_AddItemToObject(input, "std", cJSON_CreateFloatArray(info->std, info->channels));
	cJSON_AddNumberToObject(root, "classes", info->classes);
	slice = cJSON_CreateObject();
	cJSON_AddNumberToObject(slice, "rate", 1);
	cJSON_AddNumberToObject(slice, "accuracy", info->accuracy[0]);
	cJSON_AddItemToArray(cJSON_AddArrayToObject(root, "slices"), slice);
	json_print(ret, root);
	cJSON_Delete(root);
}

/* What an export of ours says of itself, where its user doesn't: the graph normalises, and the classes have names. */
static void believe_export(const struct onnx_model *m, struct import_spec *spec)
{
	const char *input = onnx_metadata(m, "input");

	if (spec->normalised || !input || strcmp(input, EXPORT_INPUT) != 0)
		return;
	spec->normalised = true;
	for (size_t c = 0; c < sizeof(spec->mean) / sizeof(spec->mean[0]); c++) {
		spec->mean[c] = 0;
		spec->std[c] = 1;
	}
}

static int take_labels(struct model *model, const cJSON *list)
{
	const cJSON *item;
	int i = 0, r = 0;

	if (cJSON_GetArraySize(list) != model->info.classes)
		return 0;
	cJSON_ArrayForEach(item, list)
	{
		const char *label = cJSON_GetStringValue(item);

		if (r == 0 && label && *label)
			r = model_set_label(model, i, label);
		i++;
	}
	return r;
}

int import_onnx(struct imported *ret, const struct import_source *from, const struct import_spec *spec,
		struct err *err)
{
	struct candidate c = {
		.image = {.channels = spec->channels, .height = spec->height, .width = spec->width}};
	struct import_spec said = *spec;
	struct onnx_external beside = {from->beside, from->beside_data, from->beside_size};
	struct model *model = NULL;
	cJSON *labels = NULL;
	int r;

	if (spec->net)
		return err_set(err, ERR_SPEC_VALUE, "\"net\": an ONNX file says it by itself");
	r = beside.name ? onnx_embed(&ret->weights, from->data, from->size, &beside, NULL, err) : 0;
	if (r == 0 && ret->weights.len)
		r = onnx_load(&c.graph, ret->weights.data, ret->weights.len, NULL, err);
	else if (r == 0)
		r = onnx_load(&c.graph, from->data, from->size, NULL, err);
	if (r == 0)
		r = onnx_image(&c.image, c.graph, err);
	if (r < 0)
		goto out;
	c.info = (struct model_info){.channels = c.image.channels,
				     .height = c.image.height,
				     .width = c.image.width,
				     .classes = 1, /* to be found out */
				     .n_rates = 1,
				     .rates = {1},
				     .accuracy = {(float)spec->accuracy}};
	believe_export(c.graph, &said);
	if (onnx_metadata(c.graph, "labels"))
		labels = cJSON_Parse(onnx_metadata(c.graph, "labels"));
	if ((r = import_normalise(&said, &c.info, err)) < 0 || (r = make_noise(&c, err)) < 0 ||
	    (r = try_graph(&c, err)) < 0)
		goto out;
	if (spec->classes && spec->classes != c.info.classes) {
		r = err_set(err, ERR_SPEC_VALUE, "\"classes\": %d, but the model gives %d", spec->classes,
			    c.info.classes);
		goto out;
	}
	r = compile_it(&c, err);
	if (r < 0)
		goto out;
	r = model_new_onnx(&model, &c.info, c.graph, &c.image, c.net, err);
	c.graph = NULL;
	c.net = NULL;
	if (r == 0 && take_labels(model, labels) < 0)
		r = err_set(err, ERR_NO_MEMORY, "labels");
	if (r == 0)
		r = import_labels(model, from, err);
	if (r < 0)
		goto out;
	write_json(&ret->json, &c, model, from->file);
	model_write_labels(model, &ret->labels);
	model_write_slices(model, &ret->slices);
	if (buf_status(&ret->json) < 0 || buf_status(&ret->labels) < 0 || buf_status(&ret->slices) < 0)
		r = err_set(err, ERR_NO_MEMORY, "writing a model");
out:
	cJSON_Delete(labels);
	model_free(model);
	net_free(c.net);
	onnx_free(c.graph);
	free(c.x);
	free(c.logits);
	return r;
}
