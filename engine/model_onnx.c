/*
 * A version whose weights are an ONNX file. model.json says how it runs ("runs": "compiled" or "interpreted", as the import found out),
 * so that a load needn't try.
 */
#include "engine/model_private.h"

#include "engine/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool model_is_onnx(const cJSON *root)
{
	const char *format = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "format"));

	return format && strcmp(format, MODEL_ONNX_FORMAT) == 0;
}

bool model_explains(const struct model *model)
{
	return model->net != NULL;
}

static int64_t count_constants(const struct onnx_graph *g)
{
	int64_t n = 0;

	for (int i = 0; i < g->n_values; i++)
		if (g->values[i].constant && g->values[i].constant->type == ONNX_FLOAT)
			n += (int64_t)g->values[i].constant->count;
	return n;
}

int model_new_onnx(struct model **ret, const struct model_info *info, struct onnx_model *graph,
		   const struct onnx_image *image, struct net *net, struct err *err)
{
	struct model *model = calloc(1, sizeof(*model));

	if (!model) {
		net_free(net);
		onnx_free(graph);
		return err_set(err, ERR_NO_MEMORY, "a model");
	}
	model->info = *info;
	model->image = *image;
	model->graph = graph;
	model->net = net;
	if (net) {
		onnx_free(graph);
		model->graph = NULL;
	} else if (graph) {
		model->graph_params = count_constants(graph->graph);
	}
	model->labels = calloc((size_t)info->classes, sizeof(*model->labels));
	if (!model->labels) {
		model_free(model);
		return err_set(err, ERR_NO_MEMORY, "a model");
	}
	*ret = model;
	return 0;
}

/* "runs" and "batch" */
static int read_how(const cJSON *root, bool *compiled, int *batch, struct err *err)
{
	const char *runs = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "runs"));

	*compiled = runs && strcmp(runs, "compiled") == 0;
	if (!*compiled && (!runs || strcmp(runs, "interpreted") != 0))
		return err_set(err, ERR_SPEC_VALUE, "\"runs\" must be compiled or interpreted");
	return spec_int(root, "", "batch", 0, 4096, batch, err);
}

int model_load_onnx(struct model **ret, const cJSON *root, const void *onnx, size_t len, struct err *err)
{
	struct onnx_model *graph = NULL;
	struct net *net = NULL;
	struct model_info info = {0};
	struct onnx_image image;
	float tested[MODEL_MAX_RATES];
	struct err why = ERR_INIT;
	bool compiled = false;
	char text[512];
	int batch = 0, r;

	r = model_read_info(root, &info, tested, &why);
	if (r == 0)
		r = model_check_info(&info, &why);
	if (r == 0 && info.n_rates != 1)
		r = err_set(&why, ERR_SPEC_VALUE, "an ONNX model has one slice");
	if (r == 0)
		r = read_how(root, &compiled, &batch, &why);
	if (r == 0)
		r = onnx_load(&graph, onnx, len, NULL, &why);
	image = (struct onnx_image){.channels = info.channels, .height = info.height, .width = info.width};
	if (r == 0)
		r = onnx_image(&image, graph, &why);
	if (batch)
		image.batch = batch;
	if (r == 0 && compiled)
		r = onnx_to_net(&net, graph, &image, &why);
	if (r < 0) {
		if (r != -ENOMEM)
			r = err_set(err, ERR_BAD_MODEL, "model.onnx: %s",
				    err_format(&why, text, sizeof(text)));
		else
			err_set(err, ERR_NO_MEMORY, "loading a model");
		onnx_free(graph);
		return r;
	}
	return model_new_onnx(ret, &info, graph, &image, net, err);
}
