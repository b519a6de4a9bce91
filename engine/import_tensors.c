/*
 * Weights of a network that we know: torchvision's names of ResNet, VGG and MobileNetV2 are ours (engine/arch), so what is left to do is
 * to find out what the tensors tell about "net", and to take them one by one. The version has them in f32.
 */
#include "engine/import_private.h"

#include "engine/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMED 4 /* chosen: what a line holds */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

static bool has_statistics(const struct safetensors *st)
{
	for (size_t i = 0; i < safetensors_count(st); i++)
		if (ends_with(safetensors_at(st, i)->name, ".running_mean"))
			return true;
	return false;
}

/* The classifier's bias: as many classes. 0: not there. */
static int classes_of(const struct safetensors *st)
{
	static const char *const names[] = {"fc.bias", "classifier.6.bias", "classifier.1.bias"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct safetensors_tensor *t = safetensors_find(st, names[i]);

		if (t && t->rank == 1 && t->dims[0] > 0 && t->dims[0] <= 65536)
			return (int)t->dims[0];
	}
	return 0;
}

static void add_default(cJSON *net, const char *key, const char *value)
{
	if (!cJSON_HasObjectItem(net, key))
		cJSON_AddStringToObject(net, key, value);
}

/* "net" with what the tensors say where it says nothing. */
static cJSON *complete(const cJSON *given, const struct safetensors *st)
{
	const struct safetensors_tensor *stem = safetensors_find(st, "conv1.weight");
	cJSON *net = cJSON_Duplicate(given, true);
	const char *arch = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(net, "arch"));

	if (!net || !arch)
		return net;
	if (strcmp(arch, "vgg") == 0)
		add_default(net, "norm", has_statistics(st) ? "batch" : "none");
	else if (strcmp(arch, "resnet") == 0 || strcmp(arch, "mobilenet") == 0)
		add_default(net, "norm", has_statistics(st) ? "batch" : "group");
	if (strcmp(arch, "resnet") == 0 && stem && stem->rank == 4 && stem->dims[3] == 7)
		add_default(net, "stem", "imagenet");
	return net;
}

static int read_rates(const struct import_spec *spec, struct model_info *info, struct err *err)
{
	const cJSON *slice;

	if (!spec->slices) {
		info->rates[info->n_rates++] = 1;
		info->accuracy[0] = (float)spec->accuracy;
		return 0;
	}
	cJSON_ArrayForEach(slice, spec->slices)
	{
		const cJSON *rate = cJSON_GetObjectItemCaseSensitive(slice, "rate"),
			    *accuracy = cJSON_GetObjectItemCaseSensitive(slice, "accuracy");
		double a = cJSON_IsNumber(accuracy) ? accuracy->valuedouble : 0;

		if (info->n_rates == MODEL_MAX_RATES || !cJSON_IsNumber(rate))
			return err_set(err, ERR_SPEC_VALUE, "\"slices\"");
		info->accuracy[info->n_rates] = a >= 0 && a <= 1 ? (float)a : 0;
		info->rates[info->n_rates++] = (float)rate->valuedouble;
	}
	return 0;
}

/* --- the tensors --- */

static bool fits(const struct param *p, const struct safetensors_tensor *t)
{
	bool same = t->type != SAFETENSORS_OTHER && t->rank == p->rank;

	for (int d = 0; same && d < p->rank; d++)
		same = t->dims[d] == p->dims[d];
	return same;
}

/* A list in words: "missing a, b and 3 more". */
struct names {
	const char *what;
	char text[280];
	int n;
};

static void add_name(struct names *names, const char *name)
{
	size_t len = strlen(names->text);

	if (names->n++ < MAX_NAMED)
		snprintf(names->text + len, sizeof(names->text) - len, "%s %.60s", len ? "," : "", name);
}

static int complain(const struct names *names, int n, struct err *err)
{
	char text[384] = "";

	for (int i = 0; i < n; i++) {
		size_t len = strlen(text);

		if (!names[i].n)
			continue;
		snprintf(text + len, sizeof(text) - len, "%s%s%s", len ? "; " : "", names[i].what,
			 names[i].text);
		len = strlen(text);
		if (names[i].n > MAX_NAMED)
			snprintf(text + len, sizeof(text) - len, " and %d more", names[i].n - MAX_NAMED);
	}
	return *text ? err_set(err, ERR_TENSOR_NAMES, "%s", text) : 0;
}

static int take(struct model *model, const struct safetensors *st, struct err *err)
{
	struct names names[] = {
		{.what = "missing:"}, {.what = "of another shape or type:"}, {.what = "not known:"}};
	struct params *params = &model->net->params;

	for (int i = 0; i < params->n; i++) {
		struct param *p = &params->list[i];
		const struct safetensors_tensor *t = safetensors_find(st, p->name);

		if (!t)
			add_name(&names[0], p->name);
		else if (!fits(p, t))
			add_name(&names[1], p->name);
		else
			safetensors_floats(t, p->value);
	}
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const char *name = safetensors_at(st, i)->name;

		/* PyTorch counts batches for a momentum that nobody uses here */
		if (!ends_with(name, ".num_batches_tracked") && !params_find(params, name))
			add_name(&names[2], name);
	}
	params_changed(params);
	for (int i = 0; i < params->n; i++)
		for (size_t j = 0; j < params->list[i].size; j++)
			if (model_bad_value(&params->list[i], j))
				return err_set(err, ERR_TENSOR_NAMES, "%s holds a value that can't be: %g",
					       params->list[i].name, (double)params->list[i].value[j]);
	return complain(names, 3, err);
}

int import_tensors(struct imported *ret, const struct import_source *from, const struct import_spec *spec,
		   struct err *err)
{
	struct model_info info = {.channels = spec->channels ? spec->channels : 3,
				  .height = spec->height ? spec->height : 224,
				  .width = spec->width ? spec->width : 224,
				  .classes = spec->classes};
	struct safetensors *st = NULL;
	struct model *model = NULL;
	cJSON *net = NULL;
	int r;

	if (!spec->net)
		return err_set(err, ERR_IMPORT,
			       "%.100s needs a model.json beside it with \"net\", "
			       "{\"net\":{\"arch\":\"resnet\",\"depth\":50}}",
			       from->file);
	r = safetensors_open(&st, from->data, from->size, err);
	if (r < 0)
		return r;
	net = complete(spec->net, st);
	if (!net) {
		r = err_set(err, ERR_NO_MEMORY, "a model");
		goto out;
	}
	if (!info.classes)
		info.classes = classes_of(st);
	if (!info.classes) {
		r = err_set(err, ERR_SPEC_MISSING, "\"classes\" in model.json");
		goto out;
	}
	if ((r = read_rates(spec, &info, err)) < 0 || (r = import_normalise(spec, &info, err)) < 0 ||
	    (r = model_build(&model, net, &info, err)) < 0 || (r = take(model, st, err)) < 0 ||
	    (r = import_labels(model, from, err)) < 0)
		goto out;
	r = model_save(model, &ret->json, &ret->weights, &ret->labels, &ret->slices, err);
out:
	model_free(model);
	cJSON_Delete(net);
	safetensors_close(st);
	return r;
}
