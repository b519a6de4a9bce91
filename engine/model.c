/*
 * Models as files and back. model.json (model_json.c) says what the network is and how its input is
 * normalised; the weights lie beside it under PyTorch's names. Both are checked against each other: a file of
 * another model is refused, not half-loaded.
 */
#include "engine/arch/arch.h"
#include "engine/base/utf8.h"
#include "engine/model_private.h"
#include "engine/safetensors.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int model_check_info(const struct model_info *info, struct err *err)
{
	if ((info->channels != 1 && info->channels != 3) || info->height < 1 ||
	    info->height > MODEL_MAX_SIDE || info->width < 1 || info->width > MODEL_MAX_SIDE)
		return err_set(err, ERR_SPEC_VALUE, "an input of %dx%dx%d", info->channels, info->height,
			       info->width);
	if (info->classes < 1 || info->classes > MODEL_MAX_CLASSES)
		return err_set(err, ERR_SPEC_VALUE, "%d classes", info->classes);
	if (info->n_rates < 1 || info->n_rates > MODEL_MAX_RATES || info->rates[info->n_rates - 1] != 1)
		return err_set(err, ERR_SPEC_VALUE, "slice rates must be 1 to %d and end in 1",
			       MODEL_MAX_RATES);
	for (int i = 0; i < info->n_rates; i++)
		if (!(info->rates[i] > 0) || (i && !(info->rates[i] > info->rates[i - 1])))
			return err_set(err, ERR_SPEC_VALUE, "slice rates must ascend from above 0 to 1");
	for (int c = 0; c < info->channels; c++)
		if (!isfinite(info->mean[c]) || !(info->std[c] > 0) || !isfinite(info->std[c]))
			return err_set(err, ERR_SPEC_VALUE, "the normalisation of channel %d", c);
	return 0;
}

int model_build(struct model **ret, const cJSON *net, const struct model_info *info, struct err *err)
{
	struct model *model;
	int r = model_check_info(info, err);

	if (r < 0)
		return r;
	model = calloc(1, sizeof(*model));
	if (!model)
		return err_set(err, ERR_NO_MEMORY, "a model");
	model->info = *info;
	model->net_json = cJSON_PrintUnformatted(net);
	model->labels = calloc(info->classes, sizeof(*model->labels));
	r = arch_build(&model->net, net, info, err);
	if (r == 0 && (!model->net_json || !model->labels))
		r = err_set(err, ERR_NO_MEMORY, "a model");
	if (r < 0) {
		model_free(model);
		return r;
	}
	*ret = model;
	return 0;
}

int model_new(struct model **ret, const char *net_json, const struct model_info *info, uint64_t seed,
	      struct err *err)
{
	cJSON *net = cJSON_Parse(net_json);
	struct model *model;
	int r;

	if (!net)
		return err_set(err, ERR_JSON_SYNTAX, "\"net\"");
	r = model_build(&model, net, info, err);
	cJSON_Delete(net);
	if (r < 0)
		return r;
	net_init(model->net, seed);
	params_changed(&model->net->params);
	*ret = model;
	return 0;
}

void model_free(struct model *model)
{
	if (!model)
		return;
	net_free(model->net);
	onnx_free(model->graph);
	cJSON_free(model->net_json);
	for (int i = 0; i < MODEL_MAX_RATES; i++) {
		free(model->ranges[i]);
		for (int p = 0; p < N_PRECISIONS; p++)
			free(model->cascades[p][i]);
	}
	for (int i = 0; model->labels && i < model->info.classes; i++)
		free(model->labels[i]);
	free(model->labels);
	free(model);
}

/* Of what no network can have: values that are no numbers, and variances below 0. */
bool model_bad_value(const struct param *p, size_t j)
{
	return !isfinite(p->value[j]) || (p->statistic && p->constant > 0 && p->value[j] < 0);
}

/* What is read all the time, biases and the like, is copied: only large arrays are worth a borrowing. */
#define LEAST_BORROWED ((size_t)64 << 10)

static void take_tensor(struct param *p, const struct safetensors_tensor *t, bool borrow)
{
	if (!borrow || t->bytes < LEAST_BORROWED || (uintptr_t)t->data % sizeof(float)) {
		memcpy(p->value, t->data, t->bytes);
		return;
	}
	free(p->value);
	p->value = (float *)(uintptr_t)t->data;
	p->borrowed = true;
}

static int read_weights(struct model *model, const void *weights, size_t len, bool borrow, struct err *err)
{
	struct params *params = &model->net->params;
	struct safetensors *st;
	int r = safetensors_open(&st, weights, len, err);

	if (r < 0)
		return r;
	if (safetensors_count(st) != (size_t)params->n)
		r = err_set(err, ERR_BAD_MODEL, "%zu tensors, the network has %d", safetensors_count(st),
			    params->n);
	for (int i = 0; i < params->n && r == 0; i++) {
		struct param *p = &params->list[i];
		const struct safetensors_tensor *t = safetensors_find(st, p->name);
		bool same = t && t->type == SAFETENSORS_F32 && t->rank == p->rank &&
			    t->bytes == p->size * sizeof(float);

		for (int d = 0; same && d < p->rank; d++)
			same = t->dims[d] == p->dims[d];
		if (!same) {
			r = err_set(err, ERR_BAD_MODEL, "tensor %s %s", p->name,
				    t ? "has another shape or type" : "is missing");
			break;
		}
		take_tensor(p, t, borrow);
		for (size_t j = 0; j < p->size; j++)
			if (model_bad_value(p, j)) {
				r = err_set(err, ERR_BAD_MODEL, "tensor %s holds a value that can't be: %g",
					    p->name, (double)p->value[j]);
				break;
			}
	}
	params_changed(params);
	safetensors_close(st);
	return r;
}

static int load(struct model **ret, const char *json, size_t json_len, const void *weights,
		size_t weights_len, bool borrow, struct err *err)
{
	cJSON *root = cJSON_ParseWithLength(json, json_len);
	struct model_info info = {0};
	struct model *model = NULL;
	float test_accuracy[MODEL_MAX_RATES] = {0};
	struct err why = ERR_INIT;
	char text[512];
	int r;

	if (!cJSON_IsObject(root)) {
		r = err_set(err, ERR_BAD_MODEL, "model.json is not a JSON object");
		goto out;
	}
	if (model_is_onnx(root)) {
		r = model_load_onnx(ret, root, weights, weights_len, err);
		goto out;
	}
	model_from_format_1(root);
	r = model_read_info(root, &info, test_accuracy, &why);
	if (r == 0)
		r = model_build(&model, cJSON_GetObjectItemCaseSensitive(root, "net"), &info, &why);
	if (r < 0 && r != -ENOMEM) {
		r = err_set(err, ERR_BAD_MODEL, "model.json: %s", err_format(&why, text, sizeof(text)));
		goto out;
	}
	if (r != 0) {
		err_set(err, ERR_NO_MEMORY, "loading a model");
		goto out;
	}
	memcpy(model->test_accuracy, test_accuracy, sizeof(test_accuracy));
	r = model_read_narrow(model, root);
	if (r < 0)
		err_set(err, ERR_NO_MEMORY, "loading a model");
	if (r == 0)
		r = model_read_cascades(model, root, err);
	if (r == 0)
		r = read_weights(model, weights, weights_len, borrow, err);
	if (r < 0)
		goto out;
	*ret = model;
	model = NULL;
out:
	model_free(model);
	cJSON_Delete(root);
	return r;
}

int model_load(struct model **ret, const char *json, size_t json_len, const void *weights, size_t weights_len,
	       struct err *err)
{
	return load(ret, json, json_len, weights, weights_len, false, err);
}

int model_open(struct model **ret, const char *json, size_t json_len, const void *weights, size_t weights_len,
	       struct err *err)
{
	return load(ret, json, json_len, weights, weights_len, true, err);
}

const struct model_info *model_info(const struct model *model)
{
	return &model->info;
}

void model_set_accuracy(struct model *model, int rate_index, float accuracy)
{
	model->info.accuracy[rate_index] = accuracy;
}

void model_set_test_accuracy(struct model *model, int rate_index, float accuracy)
{
	model->test_accuracy[rate_index] = accuracy;
}

void model_set_narrow_accuracy(struct model *model, enum precision precision, int rate_index, float accuracy,
			       float test_accuracy)
{
	model->info.narrow_accuracy[precision][rate_index] = accuracy;
	model->narrow_test_accuracy[precision][rate_index] = test_accuracy;
}

int model_set_ranges(struct model *model, int rate_index, const float *ranges)
{
	size_t size = (size_t)model->net->n_nodes * sizeof(*ranges);
	float *copy = malloc(size);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, ranges, size);
	free(model->ranges[rate_index]);
	model->ranges[rate_index] = copy;
	return 0;
}

bool model_calibrated(const struct model *model, int rate_index)
{
	return model->ranges[rate_index] != NULL;
}

const float *model_ranges(const struct model *model, float rate)
{
	for (int i = 0; i < model->info.n_rates; i++)
		if (model->info.rates[i] == rate)
			return model->ranges[i];
	return NULL;
}

int model_set_label(struct model *model, int class, const char *label)
{
	char *copy;

	if (class < 0 || class >= model->info.classes)
		return -EINVAL;
	copy = strdup(label);
	if (!copy)
		return -ENOMEM;
	utf8_clean(copy);
	free(model->labels[class]);
	model->labels[class] = copy;
	return 0;
}

int model_set_labels(struct model *model, const char *text, size_t len)
{
	const char *end = text + len;
	int r = 0;

	for (int i = 0; r == 0 && i < model->info.classes && len && text < end; i++) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		char *line = strndup(text, (size_t)((newline ? newline : end) - text));

		if (!line)
			return -ENOMEM;
		if (*line)
			r = model_set_label(model, i, line);
		free(line);
		text = newline ? newline + 1 : end;
	}
	return r;
}

const char *model_label(const struct model *model, int class)
{
	static _Thread_local char number[16];

	if (class >= 0 && class < model->info.classes && model->labels[class])
		return model->labels[class];
	snprintf(number, sizeof(number), "%d", class);
	return number;
}

int64_t model_params(const struct model *model, float rate)
{
	return model->net ? net_params(model->net, rate) : model->graph_params;
}

int64_t model_flops(const struct model *model, float rate)
{
	return model->net ? net_flops(model->net, rate) : 0;
}

static int write_weights(const struct model *model, struct buf *ret, struct err *err)
{
	static const char *const metadata[] = {"format", "pt"};
	const struct params *params = &model->net->params;
	struct safetensors_tensor *list = calloc(params->n + 1, sizeof(*list));
	int r;

	if (!list)
		return -ENOMEM;
	for (int i = 0; i < params->n; i++) {
		const struct param *p = &params->list[i];

		list[i] = (struct safetensors_tensor){
			.name = p->name, .rank = p->rank, .data = p->value, .bytes = p->size * sizeof(float)};
		for (int d = 0; d < p->rank; d++)
			list[i].dims[d] = p->dims[d];
	}
	r = safetensors_write(ret, list, params->n, metadata, 1, err);
	free(list);
	return r;
}

void model_write_labels(const struct model *model, struct buf *ret)
{
	for (int i = 0; i < model->info.classes; i++)
		buf_addf(ret, "%s\n", model_label(model, i));
}

static void write_slice(const struct model *model, struct buf *ret, int i, enum precision precision,
			bool tested)
{
	const struct model_info *info = &model->info;
	bool f32 = precision == PRECISION_F32;

	buf_addf(ret, "%g,%s,%.2f,%lld,%lld", info->rates[i], precision_name(precision),
		 100.0 * (f32 ? info->accuracy[i] : info->narrow_accuracy[precision][i]),
		 (long long)model_params(model, info->rates[i]),
		 (long long)model_flops(model, info->rates[i]));
	if (tested)
		buf_addf(ret, ",%.2f",
			 100.0 * (f32 ? model->test_accuracy[i] : model->narrow_test_accuracy[precision][i]));
	buf_adds(ret, "\n");
}

void model_write_slices(const struct model *model, struct buf *ret_slices)
{
	const struct model_info *info = &model->info;
	bool tested = false;

	for (int i = 0; i < info->n_rates; i++)
		tested |= model->test_accuracy[i] > 0;
	buf_addf(ret_slices, "slice,precision,accuracy,params,flops%s\n", tested ? ",test_accuracy" : "");
	for (int i = 0; i < info->n_rates; i++) {
		write_slice(model, ret_slices, i, PRECISION_F32, tested);
		for (int p = PRECISION_F32 + 1; p < N_PRECISIONS; p++)
			if (info->narrow_accuracy[p][i] > 0)
				write_slice(model, ret_slices, i, (enum precision)p, tested);
	}
}

int model_save(const struct model *model, struct buf *ret_json, struct buf *ret_weights,
	       struct buf *ret_labels, struct buf *ret_slices, struct err *err)
{
	int r;

	model_write_labels(model, ret_labels);
	model_write_slices(model, ret_slices);
	if ((r = model_write_json(model, ret_json)) < 0 || (r = write_weights(model, ret_weights, err)) < 0 ||
	    (r = buf_status(ret_labels)) < 0 || (r = buf_status(ret_slices)) < 0)
		err_set(err, ERR_NO_MEMORY, "writing a model");
	return r;
}
