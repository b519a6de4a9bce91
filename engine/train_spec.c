/* spec.json of a training job: one table of knobs gives keys, defaults, ranges and the text written back. */
#include "engine/arch/arch.h"
#include "engine/base/json.h"
#include "engine/spec.h"
#include "engine/train_private.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SPEC ((size_t)1 << 20)

enum knob_type { KNOB_INT, KNOB_DOUBLE };

/* Checkpoints hold every knob by its key. One that is new is missing in those of earlier versions, which go on with its
 * default: that has to mean what they did. */
static const struct knob {
	const char *key;
	enum knob_type type;
	size_t offset;
	double value, min, max; /* default, range */
} knobs[] = {
#define I         KNOB_INT
#define D         KNOB_DOUBLE
#define AT(field) offsetof(struct train_spec, field)
	{"epochs", I, AT(epochs), 30, 1, 100000},
	{"batch", I, AT(batch), 128, 1, 65536},
	{"lr", D, AT(lr), 0.1, 1e-8, 100},
	{"momentum", D, AT(momentum), 0.9, 0, 0.9999}, /* AdamW: beta1; beta2 is 0.999 */
	{"weight_decay", D, AT(weight_decay), 5e-4, 0, 10},
	{"warmup", D, AT(warmup), 1, 0, 100000}, /* epochs; with a budget the first 5 % of it */
	{"smoothing", D, AT(smoothing), 0, 0, 0.9},
	{"random", I, AT(random), 2, 0, MODEL_MAX_RATES}, /* slices between, each step */
	{"distill", D, AT(distill), 0, 0, 1},             /* soft against hard labels, for narrow slices */
	{"temperature", D, AT(temperature), 1, 0.1, 100},
	{"shift", I, AT(shift), -1, -1, 64}, /* pixels each way; -1: side/14 */
	{"erase", I, AT(erase), 0, 0, 256},  /* side of a square set to the mean; half of the images */
	{"clip", D, AT(clip), -1, -1, 1e6}, /* of the gradient's norm; 0: none; -1: 1 without normalisation */
	{"ema", D, AT(ema), 0, 0, 0.99999}, /* decay of the averaged weights; 0: none */
	{"seed", D, AT(seed), 1, 0, 9007199254740992.0},
	{"threads", I, AT(threads), 0, 0, 1024}, /* 0: all */
#undef I
#undef D
#undef AT
};
#define N_KNOBS (sizeof(knobs) / sizeof(knobs[0]))

const char *const train_spec_keys[] = {
	/* read by hand */
	"dataset", "model", "init", "net", "input", "budget", "optimizer", "slices", "flip",
	/* the table's, in its order */
	"epochs", "batch", "lr", "momentum", "weight_decay", "warmup", "smoothing", "random", "distill",
	"temperature", "shift", "erase", "clip", "ema", "seed", "threads", NULL};

static int read_input(struct train_spec *spec, const char *text, struct err *err)
{
	int n = -1;

	if (!text)
		return 0;
	if (sscanf(text, "%4dx%4dx%4d%n", &spec->channels, &spec->height, &spec->width, &n) != 3 ||
	    text[n > 0 ? n : 0] || (spec->channels != 1 && spec->channels != 3) || spec->height < 1 ||
	    spec->height > 1024 || spec->width < 1 || spec->width > 1024)
		return err_set(err, ERR_SPEC_VALUE,
			       "\"input\" must be like \"3x32x32\": 1 or 3 channels, height, width");
	return 0;
}

/* "models/NAME/3", "NAME/latest", "NAME" */
static int read_init(struct train_spec *spec, const char *text, struct err *err)
{
	const char *name = text && strncmp(text, "models/", 7) == 0 ? text + 7 : text, *version;
	char *end = NULL;

	if (!text)
		return 0;
	version = strchr(name, '/');
	if (version && strcmp(version, "/latest") != 0) {
		long number = isdigit((unsigned char)version[1]) ? strtol(version + 1, &end, 10) : 0;

		if (number < 1 || number > 999999999 || *end)
			goto wrong;
		spec->init_version = (int)number;
	}
	if (*name == '.' || *name == '/' || !*name)
		goto wrong;
	spec->init = strndup(name, version ? (size_t)(version - name) : strlen(name));
	return spec->init ? 0 : err_set(err, ERR_NO_MEMORY, "reading a spec");
wrong:
	return err_set(err, ERR_SPEC_VALUE,
		       "\"init\" must be like \"models/NAME/3\" or \"models/NAME/latest\"");
}

/* "8m", "90s", "1.5h" or a number of seconds. */
static int read_budget(struct train_spec *spec, const cJSON *item, struct err *err)
{
	const char *text = cJSON_GetStringValue(item);
	char *end;

	if (!item)
		return 0;
	if (cJSON_IsNumber(item)) {
		spec->budget = item->valuedouble;
	} else if (text && isdigit((unsigned char)*text)) {
		spec->budget = strtod(text, &end);
		if (strcmp(end, "m") == 0)
			spec->budget *= 60;
		else if (strcmp(end, "h") == 0)
			spec->budget *= 3600;
		else if (*end && strcmp(end, "s") != 0)
			spec->budget = 0;
	}
	if (!(spec->budget > 0 && spec->budget <= 30.0 * 86400))
		return err_set(err, ERR_SPEC_VALUE,
			       "\"budget\" must be a time like \"90s\", \"8m\" or \"1h\"");
	return 0;
}

static int read_slices(struct train_spec *spec, const cJSON *item, struct err *err)
{
	int n = cJSON_GetArraySize(item);

	if (!item)
		return 0;
	if (!cJSON_IsArray(item) || n < 1 || n > MODEL_MAX_RATES)
		goto wrong;
	for (int i = 0; i < n; i++) {
		const cJSON *rate = cJSON_GetArrayItem(item, i);

		if (!cJSON_IsNumber(rate) || !(rate->valuedouble > 0 && rate->valuedouble <= 1))
			goto wrong;
		spec->rates[i] = (float)rate->valuedouble;
		if (i && !(spec->rates[i] > spec->rates[i - 1]))
			goto wrong;
	}
	spec->n_rates = n;
	if (spec->rates[n - 1] == 1)
		return 0;
wrong:
	return err_set(err, ERR_SPEC_VALUE, "\"slices\" must be 1 to %d rates that ascend and end in 1",
		       MODEL_MAX_RATES);
}

static uint32_t named_keys(const cJSON *root)
{
	uint32_t named = 0;

	for (int i = 0; train_spec_keys[i]; i++) {
		const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, train_spec_keys[i]);

		if (item && !(cJSON_IsNumber(item) && item->valuedouble < 0))
			named |= UINT32_C(1) << i;
	}
	return named;
}

/* What can be said of the net before the data are known. */
static int check_net(const struct train_spec *spec, const cJSON *net, struct err *err)
{
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(net, "arch"));
	const struct arch *arch = cJSON_IsObject(net) && name ? arch_find(name) : NULL;
	int side = arch ? arch->side : 32;
	const struct model_info info = {.channels = spec->channels ? spec->channels : 1,
					.height = spec->height ? spec->height : side,
					.width = spec->width ? spec->width : side,
					.classes = 10};
	struct net *made;
	int r;

	/* A list of layers may need any input. */
	if (arch && !side && !spec->height)
		return 0;
	r = arch_build(&made, net, &info, err);
	if (r == 0)
		net_free(made);
	return r;
}

int train_spec_read(struct train_spec **ret, const cJSON *root, struct err *err)
{
	const char *dataset = NULL, *model = NULL, *input = NULL, *init = NULL, *optimizer = "sgd";
	cJSON *default_net = cJSON_Parse(
		"{\"arch\":\"resnet\",\"depth\":20,\"width\":16,\"groups\":8,\"norm\":\"batch\"}");
	const cJSON *net;
	struct train_spec *spec = calloc(1, sizeof(*spec));
	bool flip;
	int r;

	if (!spec || !default_net) {
		r = err_set(err, ERR_NO_MEMORY, "reading a spec");
		goto out;
	}
	*spec = (struct train_spec){.n_rates = 4, .rates = {0.25f, 0.5f, 0.75f, 1}, .flip = -1};
	r = spec_keys(root, "", train_spec_keys, err);
	spec->named = named_keys(root);
	for (size_t i = 0; i < N_KNOBS && r == 0; i++) {
		const struct knob *k = &knobs[i];
		void *field = (char *)spec + k->offset;

		if (k->type == KNOB_INT) {
			*(int *)field = (int)k->value;
			r = spec_int(root, "", k->key, (int64_t)k->min, (int64_t)k->max, field, err);
		} else {
			*(double *)field = k->value;
			r = spec_double(root, "", k->key, k->min, k->max, field, err);
		}
	}
	if (r < 0 || (r = spec_string(root, "", "dataset", &dataset, err)) < 0 ||
	    (r = spec_string(root, "", "model", &model, err)) < 0 ||
	    (r = spec_string(root, "", "init", &init, err)) < 0 || (r = read_init(spec, init, err)) < 0 ||
	    (r = spec_string(root, "", "input", &input, err)) < 0 ||
	    (r = spec_string(root, "", "optimizer", &optimizer, err)) < 0 ||
	    (r = read_input(spec, input, err)) < 0 ||
	    (r = read_budget(spec, cJSON_GetObjectItemCaseSensitive(root, "budget"), err)) < 0 ||
	    (r = read_slices(spec, cJSON_GetObjectItemCaseSensitive(root, "slices"), err)) < 0)
		goto out;
	if (!dataset) {
		r = err_set(err, ERR_SPEC_MISSING, "\"dataset\"");
		goto out;
	}
	if (strchr(dataset, '/') || (model && strchr(model, '/')) || (model && *model == '.')) {
		r = err_set(err, ERR_SPEC_VALUE, "\"%s\" must be a name without \"/\"",
			    strchr(dataset, '/') ? "dataset" : "model");
		goto out;
	}
	if (cJSON_HasObjectItem(root, "flip")) {
		if ((r = spec_bool(root, "", "flip", &flip, err)) < 0)
			goto out;
		spec->flip = flip;
	}
	spec->optimizer = strcmp(optimizer, "adamw") == 0 ? OPTIM_ADAMW : OPTIM_SGD;
	if (spec->optimizer == OPTIM_SGD && strcmp(optimizer, "sgd") != 0) {
		r = err_set(err, ERR_SPEC_VALUE, "\"optimizer\" must be sgd or adamw");
		goto out;
	}
	/* AdamW's steps are about lr itself, whatever the gradient. */
	if (spec->optimizer == OPTIM_ADAMW && !cJSON_HasObjectItem(root, "lr"))
		spec->lr = 0.002;
	if (spec->optimizer == OPTIM_ADAMW && !cJSON_HasObjectItem(root, "weight_decay"))
		spec->weight_decay = 0.05;
	net = cJSON_GetObjectItemCaseSensitive(root, "net");
	if (!net && !init)
		net = default_net;
	if (net && (r = check_net(spec, net, err)) < 0)
		goto out;
	spec->net = net ? cJSON_PrintUnformatted(net) : NULL;
	spec->dataset = strdup(dataset);
	spec->model = model ? strdup(model) : NULL;
	if ((net && !spec->net) || !spec->dataset || (model && !spec->model)) {
		r = err_set(err, ERR_NO_MEMORY, "reading a spec");
		goto out;
	}
	*ret = spec;
	spec = NULL;
out:
	train_spec_free(spec);
	cJSON_Delete(default_net);
	return r;
}

int train_spec_parse(struct train_spec **ret, const char *json, size_t len, struct err *err)
{
	const char *end = NULL;
	cJSON *root = len <= MAX_SPEC ? cJSON_ParseWithLengthOpts(json, len, &end, 0) : NULL;
	int r;

	if (!root)
		return err_set(err, ERR_JSON_SYNTAX, "near byte %zu",
			       end && end >= json && (size_t)(end - json) <= len ? (size_t)(end - json) : 0);
	while (end < json + len && strchr(" \t\r\n", *end) && *end)
		end++;
	if (end < json + len)
		r = err_set(err, ERR_JSON_SYNTAX, "something follows at byte %zu", (size_t)(end - json));
	else
		r = train_spec_read(ret, root, err);
	cJSON_Delete(root);
	return r;
}

void train_spec_free(struct train_spec *spec)
{
	if (!spec)
		return;
	free(spec->dataset);
	free(spec->model);
	cJSON_free(spec->net);
	free(spec->init);
	model_free(spec->init_model);
	free(spec);
}

const char *train_spec_init(const struct train_spec *spec, int *ret_version)
{
	*ret_version = spec->init_version;
	return spec->init;
}

int train_spec_give_init(struct train_spec *spec, const char *json, size_t json_len, const void *weights,
			 size_t weights_len, struct err *err)
{
	struct model *model;
	char *net = NULL;
	int r = model_load(&model, json, json_len, weights, weights_len, err);

	if (r < 0)
		return r;
	if (!spec->net && !(net = strdup(model->net_json))) {
		model_free(model);
		return err_set(err, ERR_NO_MEMORY, "a model to begin with");
	}
	model_free(spec->init_model);
	spec->init_model = model;
	spec->net = spec->net ? spec->net : net;
	return 0;
}

void train_spec_drop_init(struct train_spec *spec)
{
	model_free(spec->init_model);
	spec->init_model = NULL;
}

const char *train_spec_dataset(const struct train_spec *spec)
{
	return spec->dataset;
}

const char *train_spec_model(const struct train_spec *spec)
{
	return spec->model;
}

void train_spec_input(const struct train_spec *spec, int *c, int *h, int *w)
{
	*c = spec->channels;
	*h = spec->height;
	*w = spec->width;
}

cJSON *train_spec_write(const struct train_spec *spec)
{
	cJSON *root = cJSON_CreateObject();
	char text[64], init[320];

	cJSON_AddStringToObject(root, "dataset", spec->dataset);
	if (spec->model)
		cJSON_AddStringToObject(root, "model", spec->model);
	if (spec->init && spec->init_version)
		snprintf(init, sizeof(init), "models/%s/%d", spec->init, spec->init_version);
	else if (spec->init)
		snprintf(init, sizeof(init), "models/%s/latest", spec->init);
	if (spec->init)
		cJSON_AddStringToObject(root, "init", init);
	if (spec->net)
		cJSON_AddItemToObject(root, "net", cJSON_Parse(spec->net));
	if (spec->height) {
		snprintf(text, sizeof(text), "%dx%dx%d", spec->channels, spec->height, spec->width);
		cJSON_AddStringToObject(root, "input", text);
	}
	if (spec->budget > 0)
		cJSON_AddNumberToObject(root, "budget", spec->budget);
	cJSON_AddStringToObject(root, "optimizer", spec->optimizer == OPTIM_ADAMW ? "adamw" : "sgd");
	cJSON_AddItemToObject(root, "slices", cJSON_CreateFloatArray(spec->rates, spec->n_rates));
	if (spec->flip >= 0)
		cJSON_AddBoolToObject(root, "flip", spec->flip);
	for (size_t i = 0; i < N_KNOBS; i++) {
		const char *field = (const char *)spec + knobs[i].offset;

		cJSON_AddNumberToObject(root, knobs[i].key,
					knobs[i].type == KNOB_INT ? *(const int *)field
								  : *(const double *)field);
	}
	return root;
}

int train_spec_to_json(const struct train_spec *spec, struct buf *ret)
{
	cJSON *root = train_spec_write(spec);

	json_print(ret, root);
	cJSON_Delete(root);
	return buf_status(ret);
}
