/*
 * A checkpoint is one safetensors file: weights ("w:NAME") and the optimizer's arrays ("m:", "v:", "a:"), with epoch, step and
 * "run" as metadata: what the run goes by, every knob by its name, the data's shape and how pixels are normalised.
 * Floats are kept bit for bit and everything else is a function of (seed, epoch, step), so a resumed run goes on exactly as one
 * that was not stopped, whatever the defaults have become.
 *
 *	{"version":1,"spec":{…},"data":{"channels":1,"height":28,"width":28,"classes":10,"images":54000},"mean":[…],"std":[…]}
 *
 * The first form has a hash in its place, "spec": of all knobs, with the defaults of the version that wrote it, and of the data's shape.
 */
#include "engine/safetensors.h"
#include "engine/spec.h"
#include "engine/train_private.h"

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION         1
#define KINDS           4
#define CHECKPOINT_NAME (PARAM_NAME_MAX + 8)

/* The array of a kind of parameter i; NULL when this run has none. */
static float *array_of(const struct train *t, int kind, int i)
{
	const struct param *p = &t->model->net->params.list[i];

	switch (kind) {
	case 0:
		return p->value;
	case 1:
		return p->statistic ? NULL : t->optim.momentum[i];
	case 2:
		return p->statistic || !t->optim.second ? NULL : t->optim.second[i];
	default:
		return t->optim.average ? t->optim.average[i] : NULL;
	}
}

static void name_of(char name[CHECKPOINT_NAME], const struct train *t, int kind, int i)
{
	snprintf(name, CHECKPOINT_NAME, "%c:%s", "wmva"[kind], t -> model -> net -> params.list[i].name);
}

/* The text of "run", to be freed with cJSON_free; NULL: no memory. */
static char *run_text(const struct train *t)
{
	const struct model_info *info = model_info(t->model);
	cJSON *root = cJSON_CreateObject(), *data;
	char *text = NULL;

	cJSON_AddNumberToObject(root, "version", VERSION);
	cJSON_AddItemToObject(root, "spec", train_spec_write(t->spec));
	data = cJSON_AddObjectToObject(root, "data");
	if (cJSON_AddNumberToObject(data, "channels", info->channels) &&
	    cJSON_AddNumberToObject(data, "height", info->height) &&
	    cJSON_AddNumberToObject(data, "width", info->width) &&
	    cJSON_AddNumberToObject(data, "classes", info->classes) &&
	    cJSON_AddNumberToObject(data, "images", (double)dataset_count(t->ds, DATASET_TRAIN)) &&
	    cJSON_AddItemToObject(root, "mean", cJSON_CreateFloatArray(info->mean, info->channels)) &&
	    cJSON_AddItemToObject(root, "std", cJSON_CreateFloatArray(info->std, info->channels)))
		text = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	return text;
}

int train_checkpoint_write(const struct train *t, struct buf *ret, struct err *err)
{
	int n = t->model->net->params.n, used = 0, r;
	struct safetensors_tensor *list = calloc((size_t)n * KINDS, sizeof(*list));
	char(*names)[CHECKPOINT_NAME] = calloc((size_t)n * KINDS, sizeof(*names));
	char epoch[24], step[24], elapsed[40], *run = run_text(t);
	const char *const metadata[] = {"epoch", epoch, "step", step, "elapsed", elapsed, "run", run};

	if (!list || !names || !run) {
		r = err_set(err, ERR_NO_MEMORY, "writing a checkpoint");
		goto out;
	}
	snprintf(epoch, sizeof(epoch), "%d", t->epoch);
	snprintf(step, sizeof(step), "%lld", (long long)t->optim.step);
	snprintf(elapsed, sizeof(elapsed), "%.3f", t->elapsed);
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < n; i++) {
			const struct param *p = &t->model->net->params.list[i];
			const float *data = array_of(t, kind, i);

			if (!data)
				continue;
			name_of(names[used], t, kind, i);
			list[used] = (struct safetensors_tensor){.name = names[used],
								 .rank = p->rank,
								 .data = data,
								 .bytes = p->size * sizeof(float)};
			for (int d = 0; d < p->rank; d++)
				list[used].dims[d] = p->dims[d];
			used++;
		}
	r = safetensors_write(ret, list, used, metadata, 4, err);
out:
	cJSON_free(run);
	free(list);
	free(names);
	return r;
}

/* A whole number from 0; -1: it is none. */
static int64_t count(const char *text)
{
	char *end;
	long long n;

	errno = 0;
	n = text && *text ? strtoll(text, &end, 10) : -1;
	return n < 0 || errno || *end ? -1 : n;
}

/* "mean" and "std": a number for each channel. */
static int read_floats(const cJSON *root, const char *key, int n, float least, float *ret, struct err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, key);

	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n)
		return err_set(err, ERR_SPEC_VALUE, "\"%s\" must be %d numbers", key, n);
	for (int i = 0; i < n; i++) {
		const cJSON *item = cJSON_GetArrayItem(list, i);

		if (!cJSON_IsNumber(item) || !isfinite((float)item->valuedouble) ||
		    (float)item->valuedouble < least)
			return err_set(err, ERR_SPEC_VALUE, "\"%s\" has what is no such number", key);
		ret[i] = (float)item->valuedouble;
	}
	return 0;
}

static int read_data(struct checkpoint *c, const cJSON *data, struct err *err)
{
	static const char *const keys[] = {"channels", "height", "width", "classes", "images", NULL};
	int images = 0, r;

	c->shape = (struct dataset_shape){0};
	if ((r = spec_keys(data, "data", keys, err)) < 0 ||
	    (r = spec_int(data, "data", "channels", 1, 4, &c->shape.channels, err)) < 0 ||
	    (r = spec_int(data, "data", "height", 1, INT_MAX, &c->shape.height, err)) < 0 ||
	    (r = spec_int(data, "data", "width", 1, INT_MAX, &c->shape.width, err)) < 0 ||
	    (r = spec_int(data, "data", "classes", 1, INT_MAX, &c->shape.classes, err)) < 0 ||
	    (r = spec_int(data, "data", "images", 1, INT_MAX, &images, err)) < 0)
		return r;
	c->images = (size_t)images;
	if (!c->shape.channels || !c->shape.height || !c->shape.width || !c->shape.classes || !images)
		return err_set(err, ERR_SPEC_MISSING, "of \"data\"");
	return 0;
}

static int read_run(struct checkpoint *c, const char *text, struct err *err)
{
	static const char *const keys[] = {"version", "spec", "data", "mean", "std", NULL};
	cJSON *root = cJSON_Parse(text);
	int version = 0, r;

	if (!root)
		return err_set(err, ERR_JSON_SYNTAX, "\"run\"");
	/* The version first: the rest may mean anything in another one. */
	r = spec_int(root, "run", "version", VERSION, VERSION, &version, err);
	if (r == 0 && version != VERSION)
		r = err_set(err, ERR_SPEC_MISSING, "\"version\"");
	if (r < 0 || (r = spec_keys(root, "run", keys, err)) < 0 ||
	    (r = read_data(c, cJSON_GetObjectItemCaseSensitive(root, "data"), err)) < 0 ||
	    (r = read_floats(root, "mean", c->shape.channels, -FLT_MAX, c->mean, err)) < 0 ||
	    (r = read_floats(root, "std", c->shape.channels, FLT_MIN, c->std, err)) < 0)
		goto out;
	r = train_spec_read(&c->spec, cJSON_GetObjectItemCaseSensitive(root, "spec"), err);
	if (r == 0 && !c->spec->net)
		r = err_set(err, ERR_SPEC_MISSING, "\"net\"");
out:
	cJSON_Delete(root);
	return r;
}

int checkpoint_open(struct checkpoint *ret, const void *data, size_t len, struct err *err)
{
	const char *elapsed, *run, *hash;
	struct checkpoint c = {0};
	struct err why = ERR_INIT;
	int64_t epoch;
	char *end;
	int r;

	r = safetensors_open(&c.tensors, data, len, &why);
	if (r < 0)
		goto out;
	run = safetensors_metadata(c.tensors, "run");
	hash = safetensors_metadata(c.tensors, "spec");
	elapsed = safetensors_metadata(c.tensors, "elapsed");
	epoch = count(safetensors_metadata(c.tensors, "epoch"));
	c.step = count(safetensors_metadata(c.tensors, "step"));
	if (!elapsed || (!run && !hash)) {
		r = err_set(&why, ERR_BAD_CHECKPOINT, "it is no checkpoint");
		goto out;
	}
	c.epoch = (int)epoch;
	c.elapsed = strtod(elapsed, &end);
	if (epoch < 0 || epoch > INT_MAX || c.step < 0 || end == elapsed || *end || !isfinite(c.elapsed) ||
	    c.elapsed < 0) {
		r = err_set(&why, ERR_BAD_CHECKPOINT, "its counts are wrong");
		goto out;
	}
	if (run)
		r = read_run(&c, run, &why);
	else
		c.hash = strtoull(hash, NULL, 16);
out:
	if (r < 0) {
		checkpoint_close(&c);
		return r == -ENOMEM ? err_set(err, ERR_NO_MEMORY, "reading a checkpoint")
				    : err_set(err, ERR_BAD_CHECKPOINT, "%s", why.detail);
	}
	*ret = c;
	return 0;
}

void checkpoint_close(struct checkpoint *c)
{
	safetensors_close(c->tensors);
	train_spec_free(c->spec);
	*c = (struct checkpoint){0};
}

/* The hash of the first form. */
static int hash_spec(const struct train_spec *spec, struct dataset_shape shape, size_t images, uint64_t *ret)
{
	struct buf text = BUF_INIT;
	int r = train_spec_to_json(spec, &text);

	buf_addf(&text, "%d %d %d %d %zu", shape.channels, shape.height, shape.width, shape.classes, images);
	if (r == 0)
		r = buf_status(&text);
	if (r == 0)
		*ret = rng_hash(0, text.data, text.len);
	buf_release(&text);
	return r;
}

int checkpoint_fits(const struct checkpoint *c, const struct train_spec *spec, const struct dataset *ds,
		    struct err *err)
{
	struct dataset_shape now = dataset_shape(ds);
	size_t images = dataset_count(ds, DATASET_TRAIN);
	uint64_t hash = 0;

	if (c->spec) {
		if (now.channels != c->shape.channels || now.height != c->shape.height ||
		    now.width != c->shape.width || now.classes != c->shape.classes || images != c->images)
			return err_set(
				err, ERR_BAD_CHECKPOINT,
				"the data set is %zu images of %dx%dx%d for training, in %d classes, and "
				"was %zu of %dx%dx%d in %d when the training began",
				images, now.channels, now.height, now.width, now.classes, c->images,
				c->shape.channels, c->shape.height, c->shape.width, c->shape.classes);
		return train_spec_agrees(spec, c->spec, err);
	}
	if (hash_spec(spec, now, images, &hash) < 0)
		return err_set(err, ERR_NO_MEMORY, "reading a checkpoint");
	if (hash != c->hash)
		return err_set(err, ERR_BAD_CHECKPOINT, "it was made with another spec or data set");
	return 0;
}

int checkpoint_take(const struct checkpoint *c, struct train *t, struct err *err)
{
	int n = t->model->net->params.n;
	size_t expected = 0;
	char name[CHECKPOINT_NAME];

	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < n; i++) {
			const struct safetensors_tensor *tensor;

			if (!array_of(t, kind, i))
				continue;
			name_of(name, t, kind, i);
			tensor = safetensors_find(c->tensors, name);
			if (!tensor || tensor->type != SAFETENSORS_F32 ||
			    tensor->bytes != t->model->net->params.list[i].size * sizeof(float))
				return err_set(err, ERR_BAD_CHECKPOINT, "%s does not fit", name);
			for (size_t j = 0; j < tensor->bytes / sizeof(float); j++) {
				float v;

				memcpy(&v, (const char *)tensor->data + j * sizeof(v), sizeof(v));
				if (!isfinite(v))
					return err_set(err, ERR_BAD_CHECKPOINT, "%s is not finite", name);
			}
			expected++;
		}
	if (expected != safetensors_count(c->tensors))
		return err_set(err, ERR_BAD_CHECKPOINT, "it has arrays of another network");
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < n; i++) {
			const struct safetensors_tensor *tensor;

			if (!array_of(t, kind, i))
				continue;
			name_of(name, t, kind, i);
			tensor = safetensors_find(c->tensors, name);
			memcpy(array_of(t, kind, i), tensor->data, tensor->bytes);
		}
	t->epoch = c->epoch;
	t->optim.step = c->step;
	t->elapsed = c->elapsed;
	params_changed(&t->model->net->params);
	return 0;
}
