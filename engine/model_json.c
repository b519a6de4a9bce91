/* model.json's text: what it says of a model, read and written. */
#include "engine/base/json.h"
#include "engine/model_private.h"
#include "engine/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int floats(const cJSON *array, int n, float *ret)
{
	if (!cJSON_IsArray(array) || cJSON_GetArraySize(array) != n)
		return -EINVAL;
	for (int i = 0; i < n; i++) {
		const cJSON *item = cJSON_GetArrayItem(array, i);

		if (!cJSON_IsNumber(item))
			return -EINVAL;
		ret[i] = (float)item->valuedouble;
	}
	return 0;
}

static float accuracy_of(const cJSON *slice, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(slice, key);

	return cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble <= 1
		       ? (float)item->valuedouble
		       : 0;
}

static const cJSON *narrow_of(const cJSON *slice, enum precision precision)
{
	return cJSON_GetObjectItemCaseSensitive(slice, precision_name(precision));
}

int model_read_info(const cJSON *root, struct model_info *info, float *test_accuracy, struct err *err)
{
	const cJSON *input = cJSON_GetObjectItemCaseSensitive(root, "input"),
		    *slices = cJSON_GetObjectItemCaseSensitive(root, "slices"), *slice;

	if (spec_int(input, "input", "channels", 1, 3, &info->channels, err) < 0 ||
	    spec_int(input, "input", "height", 1, MODEL_MAX_SIDE, &info->height, err) < 0 ||
	    spec_int(input, "input", "width", 1, MODEL_MAX_SIDE, &info->width, err) < 0 ||
	    spec_int(root, "", "classes", 1, MODEL_MAX_CLASSES, &info->classes, err) < 0)
		return -EINVAL;
	if (!info->channels || !info->classes ||
	    floats(cJSON_GetObjectItemCaseSensitive(input, "mean"), info->channels, info->mean) < 0 ||
	    floats(cJSON_GetObjectItemCaseSensitive(input, "std"), info->channels, info->std) < 0)
		return err_set(err, ERR_SPEC_MISSING, "\"input\" or \"classes\"");
	cJSON_ArrayForEach(slice, slices)
	{
		const cJSON *rate = cJSON_GetObjectItemCaseSensitive(slice, "rate");

		if (info->n_rates == MODEL_MAX_RATES || !cJSON_IsNumber(rate))
			return err_set(err, ERR_SPEC_VALUE, "\"slices\"");
		info->rates[info->n_rates] = (float)rate->valuedouble;
		info->accuracy[info->n_rates] = accuracy_of(slice, "accuracy");
		for (int p = PRECISION_F32 + 1; p < N_PRECISIONS; p++)
			info->narrow_accuracy[p][info->n_rates] =
				accuracy_of(narrow_of(slice, (enum precision)p), "accuracy");
		test_accuracy[info->n_rates++] = accuracy_of(slice, "test_accuracy");
	}
	return 0;
}

void model_from_format_1(const cJSON *root)
{
	const char *format = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "format"));
	cJSON *net = cJSON_GetObjectItemCaseSensitive(root, "net");
	const char *arch = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(net, "arch"));

	if ((!format || strcmp(format, "inferfs-model-1") == 0) && cJSON_IsObject(net) &&
	    (!arch || strcmp(arch, "resnet") == 0) && !cJSON_HasObjectItem(net, "style"))
		cJSON_AddStringToObject(net, "style", "cifar");
}

/* Of one slice; what is not one finite number for each node is as if it weren't there. */
static int read_ranges(struct model *model, const cJSON *array, int rate_index)
{
	int n = model->net->n_nodes, r;
	float *ranges = calloc((size_t)n, sizeof(*ranges));
	const cJSON *item;
	int i = 0;

	if (!ranges)
		return -ENOMEM;
	cJSON_ArrayForEach(item, array)
	{
		if (i == n || !cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < 1e30))
			break;
		ranges[i++] = (float)item->valuedouble;
	}
	r = i == n && !item ? model_set_ranges(model, rate_index, ranges) : 0;
	free(ranges);
	return r;
}

int model_read_narrow(struct model *model, const cJSON *root)
{
	const cJSON *slices = cJSON_GetObjectItemCaseSensitive(root, "slices");
	int r = 0;

	for (int i = 0; i < model->info.n_rates && r == 0; i++) {
		const cJSON *slice = cJSON_GetArrayItem(slices, i);
		const cJSON *ranges =
			cJSON_GetObjectItemCaseSensitive(narrow_of(slice, PRECISION_INT8), "ranges");

		for (int p = PRECISION_F32 + 1; p < N_PRECISIONS; p++)
			model->narrow_test_accuracy[p][i] =
				accuracy_of(narrow_of(slice, (enum precision)p), "test_accuracy");
		if (cJSON_IsArray(ranges))
			r = read_ranges(model, ranges, i);
	}
	return r;
}

/* What is known of a slice in another precision than f32. */
static void add_narrow(cJSON *slice, const struct model *model, enum precision precision, int i)
{
	float accuracy = model->info.narrow_accuracy[precision][i];
	const float *ranges = precision == PRECISION_INT8 ? model->ranges[i] : NULL;
	cJSON *narrow;

	if (accuracy <= 0 && !ranges)
		return;
	narrow = cJSON_AddObjectToObject(slice, precision_name(precision));
	cJSON_AddNumberToObject(narrow, "accuracy", accuracy);
	if (model->narrow_test_accuracy[precision][i] > 0)
		cJSON_AddNumberToObject(narrow, "test_accuracy", model->narrow_test_accuracy[precision][i]);
	if (ranges)
		cJSON_AddItemToObject(narrow, "ranges", cJSON_CreateFloatArray(ranges, model->net->n_nodes));
	model_write_cascade(model, (struct model_submodel){i, precision}, narrow);
}

int model_write_json(const struct model *model, struct buf *ret)
{
	const struct model_info *info = &model->info;
	cJSON *root = cJSON_CreateObject(), *input, *slices;

	cJSON_AddStringToObject(root, "format", "inferfs-model-2");
	cJSON_AddStringToObject(root, "task", "image-classification");
	cJSON_AddItemToObject(root, "net", cJSON_Parse(model->net_json));
	input = cJSON_AddObjectToObject(root, "input");
	cJSON_AddNumberToObject(input, "channels", info->channels);
	cJSON_AddNumberToObject(input, "height", info->height);
	cJSON_AddNumberToObject(input, "width", info->width);
	cJSON_AddItemToObject(input, "mean", cJSON_CreateFloatArray(info->mean, info->channels));
	cJSON_AddItemToObject(input, "std", cJSON_CreateFloatArray(info->std, info->channels));
	cJSON_AddNumberToObject(root, "classes", info->classes);
	slices = cJSON_AddArrayToObject(root, "slices");
	for (int i = 0; i < info->n_rates; i++) {
		cJSON *slice = cJSON_CreateObject();

		cJSON_AddNumberToObject(slice, "rate", info->rates[i]);
		cJSON_AddNumberToObject(slice, "accuracy", info->accuracy[i]);
		if (model->test_accuracy[i] > 0)
			cJSON_AddNumberToObject(slice, "test_accuracy", model->test_accuracy[i]);
		model_write_cascade(model, (struct model_submodel){i, PRECISION_F32}, slice);
		for (int p = PRECISION_F32 + 1; p < N_PRECISIONS; p++)
			add_narrow(slice, model, (enum precision)p, i);
		cJSON_AddItemToArray(slices, slice);
	}
	json_print(ret, root);
	cJSON_Delete(root);
	return buf_status(ret);
}
