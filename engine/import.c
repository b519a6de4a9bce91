#include "engine/import.h"

#include "engine/base/json.h"
#include "engine/import_private.h"
#include "engine/spec.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIDE    4096
#define MAX_CLASSES 65536

enum import_format import_format(const char *file)
{
	static const struct {
		const char *end;
		enum import_format format;
	} formats[] = {{".onnx", IMPORT_ONNX}, {".safetensors", IMPORT_TENSORS}};
	size_t len = strlen(file);

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		size_t n = strlen(formats[i].end);

		if (len > n && strcmp(file + len - n, formats[i].end) == 0)
			return formats[i].format;
	}
	return IMPORT_NONE;
}

/* --- model.json --- */

/* A list of 1, 3 or 4 numbers; *n: how many, 0 when it isn't there. */
static int read_floats(const cJSON *object, const char *key, float *ret, int *n, struct err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, key), *item;

	*n = 0;
	if (!list)
		return 0;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) < 1 || cJSON_GetArraySize(list) > 4)
		return err_set(err, ERR_SPEC_VALUE, "\"%s\" must be a list of one number a channel", key);
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsNumber(item) || !isfinite((float)item->valuedouble))
			return err_set(err, ERR_SPEC_VALUE, "\"%s\" must be a list of numbers", key);
		ret[(*n)++] = (float)item->valuedouble;
	}
	return 0;
}

static int read_normalisation(struct import_spec *spec, const cJSON *object, struct err *err)
{
	int mean, std, r;

	if ((r = read_floats(object, "mean", spec->mean, &mean, err)) < 0 ||
	    (r = read_floats(object, "std", spec->std, &std, err)) < 0)
		return r;
	if (!mean && !std)
		return 0;
	if (mean != std)
		return err_set(err, ERR_SPEC_VALUE, "\"mean\" and \"std\" must have as many numbers");
	for (int i = 0; i < std; i++)
		if (!(spec->std[i] > 0))
			return err_set(err, ERR_SPEC_VALUE, "\"std\" must be more than 0");
	for (int i = mean; i < 4; i++) {
		spec->mean[i] = spec->mean[i - 1];
		spec->std[i] = spec->std[i - 1];
	}
	spec->normalised = true;
	return 0;
}

static int read_input(struct import_spec *spec, const cJSON *input, struct err *err)
{
	int *const to[3] = {&spec->channels, &spec->height, &spec->width};
	int r;

	if (!cJSON_IsArray(input)) {
		if (!cJSON_IsObject(input))
			return err_set(err, ERR_SPEC_VALUE, "\"input\" must be [channels, height, width]");
		if ((r = spec_int(input, "input", "channels", 1, 3, to[0], err)) < 0 ||
		    (r = spec_int(input, "input", "height", 1, MAX_SIDE, to[1], err)) < 0 ||
		    (r = spec_int(input, "input", "width", 1, MAX_SIDE, to[2], err)) < 0)
			return r;
		return read_normalisation(spec, input, err);
	}
	if (cJSON_GetArraySize(input) != 3)
		return err_set(err, ERR_SPEC_VALUE, "\"input\" must be [channels, height, width]");
	for (int i = 0; i < 3; i++) {
		const cJSON *item = cJSON_GetArrayItem(input, i);
		double v = cJSON_IsNumber(item) ? item->valuedouble : 0;

		if (!(v >= 1 && v <= (i ? MAX_SIDE : 3)) || v != floor(v))
			return err_set(err, ERR_SPEC_VALUE,
				       "\"input\" must be [channels (1 or 3), height, width (to %d)]",
				       MAX_SIDE);
		*to[i] = (int)v;
	}
	return 0;
}

static int read_spec(struct import_spec *spec, const struct import_source *from, struct err *err)
{
	static const char *const keys[] = {"input", "mean", "std",    "classes", "accuracy",
					   "net",   "task", "format", "slices",  NULL};
	const cJSON *input;
	int r;

	if (!from->json)
		return 0;
	spec->root = cJSON_ParseWithLength(from->json, from->json_len);
	if (!spec->root)
		return err_set(err, ERR_JSON_SYNTAX, "model.json");
	if ((r = spec_keys(spec->root, "", keys, err)) < 0 ||
	    (r = spec_int(spec->root, "", "classes", 1, MAX_CLASSES, &spec->classes, err)) < 0 ||
	    (r = spec_double(spec->root, "", "accuracy", 0, 1, &spec->accuracy, err)) < 0 ||
	    (r = read_normalisation(spec, spec->root, err)) < 0)
		return r;
	input = cJSON_GetObjectItemCaseSensitive(spec->root, "input");
	if (input)
		r = read_input(spec, input, err);
	spec->net = cJSON_GetObjectItemCaseSensitive(spec->root, "net");
	spec->slices = cJSON_GetObjectItemCaseSensitive(spec->root, "slices");
	return r;
}

int import_normalise(const struct import_spec *spec, struct model_info *info, struct err *err)
{
	static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};

	for (int c = 0; c < info->channels; c++) {
		info->mean[c] = spec->normalised ? spec->mean[c] : info->channels == 3 ? mean[c] : 0;
		info->std[c] = spec->normalised ? spec->std[c] : info->channels == 3 ? std[c] : 1;
	}
	return model_check_info(info, err);
}

/* --- labels.txt --- */

int import_labels(struct model *model, const struct import_source *from, struct err *err)
{
	int classes = model->info.classes, n = 0, r = 0;
	const char *line = from->labels, *end = line ? line + from->labels_len : NULL;

	for (; r == 0 && line < end; n++) {
		size_t len = strcspn(line, "\r\n"), more = len; /* the text ends in NUL */
		char *label = strndup(line, len);

		more += line[more] == '\r';
		more += line[more] == '\n';
		if (!label)
			r = err_set(err, ERR_NO_MEMORY, "labels");
		else if (strlen(label) != len || line + len > end)
			r = err_set(err, ERR_LABELS, "line %d is no text", n + 1);
		else if (n < classes && *label)
			r = model_set_label(model, n, label);
		free(label);
		line += more ? more : 1;
	}
	if (r == 0 && n && n != classes)
		r = err_set(err, ERR_LABELS, "it has %d lines, the model %d classes", n, classes);
	return r;
}

/* --- the whole --- */

void imported_release(struct imported *i)
{
	buf_release(&i->json);
	buf_release(&i->labels);
	buf_release(&i->slices);
	buf_release(&i->weights);
}

int model_import(struct imported *ret, const struct import_source *from, struct err *err)
{
	struct import_spec spec = {0};
	struct imported to = {0};
	int r = read_spec(&spec, from, err);

	if (r == 0 && import_format(from->file) == IMPORT_ONNX)
		r = import_onnx(&to, from, &spec, err);
	else if (r == 0)
		r = import_tensors(&to, from, &spec, err);
	cJSON_Delete(spec.root);
	if (r < 0)
		imported_release(&to);
	else
		*ret = to;
	return r;
}
