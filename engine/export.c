#include "engine/export.h"

#include "engine/model_private.h"
#include "engine/onnx/from_net.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rates are written with six digits in names and tables. */
static const float *find_rate(const struct model_info *info, float rate, int *ret_index)
{
	for (int i = 0; i < info->n_rates; i++)
		if (fabsf(info->rates[i] - rate) < 1e-6f) {
			*ret_index = i;
			return &info->rates[i];
		}
	return NULL;
}

/* NULL without memory. */
static char *json_list(cJSON *list)
{
	char *text = cJSON_PrintUnformatted(list);

	cJSON_Delete(list);
	return text;
}

static char *labels_json(const struct model *model)
{
	cJSON *list = cJSON_CreateArray();

	for (int i = 0; i < model->info.classes; i++)
		if (!cJSON_AddItemToArray(list, cJSON_CreateString(model_label(model, i)))) {
			cJSON_Delete(list);
			return NULL;
		}
	return json_list(list);
}

static void add_metadata(struct writer *w, const struct model *model, int rate)
{
	const struct model_info *info = &model->info;
	const struct {
		const char *key;
		char *value;
	} lists[] = {
		{"labels", labels_json(model)},
		{"mean", json_list(cJSON_CreateFloatArray(info->mean, info->channels))},
		{"std", json_list(cJSON_CreateFloatArray(info->std, info->channels))},
	};

	writer_metadata(w, "task", "image-classification");
	writer_metadata(w, "input", EXPORT_INPUT);
	writer_metadata(w, "slice", writer_text(w, "%g", (double)info->rates[rate]));
	if (info->accuracy[rate] > 0)
		writer_metadata(w, "accuracy", writer_text(w, "%.4f", (double)info->accuracy[rate]));
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		writer_metadata(w, lists[i].key, lists[i].value);
		cJSON_free(lists[i].value);
	}
}

int model_export_onnx(const struct model *model, float rate, struct buf *ret, struct err *err)
{
	const struct model_info *info = &model->info;
	struct writer *w;
	int index, r;

	if (!find_rate(info, rate, &index))
		return err_set(err, ERR_NO_SLICE, "%g", (double)rate);
	if (!model->net)
		return err_set(err, ERR_NO_NETWORK, "its own file is what there is");
	r = writer_new(&w);
	if (r < 0)
		return err_set(err, ERR_NO_MEMORY, "an ONNX model");
	r = onnx_from_net(w, model->net, info->rates[index], info->mean, info->std, err);
	if (r == 0) {
		add_metadata(w, model, index);
		r = writer_pack(w, "inferfs", "", ret, err);
	}
	writer_free(w);
	return r;
}

/* Asked before the weights are read. */
static int check_rate(const cJSON *root, float rate, struct err *err)
{
	float tested[MODEL_MAX_RATES] = {0};
	struct model_info info = {0};
	int index;

	if (model_read_info(root, &info, tested, NULL) == 0 && !find_rate(&info, rate, &index))
		return err_set(err, ERR_NO_SLICE, "%g", (double)rate);
	return 0; /* or the load says what is wrong */
}

int model_export(const struct export_source *from, float rate, struct buf *ret, struct err *err)
{
	cJSON *root = cJSON_ParseWithLength(from->json, from->json_len);
	struct model *model = NULL;
	int r = check_rate(root, rate, err);

	if (r == 0 && model_is_onnx(root)) {
		/* its labels and normalisation are in other files, as they were */
		buf_add(ret, from->weights, from->weights_len);
		if (buf_status(ret) < 0)
			r = err_set(err, ERR_NO_MEMORY, "an ONNX model");
	} else if (r == 0) {
		r = model_load(&model, from->json, from->json_len, from->weights, from->weights_len, err);
		if (r == 0 && model_set_labels(model, from->labels, from->labels_len) < 0)
			r = err_set(err, ERR_NO_MEMORY, "labels");
		if (r == 0)
			r = model_export_onnx(model, rate, ret, err);
	}
	model_free(model);
	cJSON_Delete(root);
	return r;
}
