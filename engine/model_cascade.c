/*
 * What a model knows of cascades, and how model.json says it, in the object of each sub-model that they begin with (f32's is the slice's):
 *
 *	"cascade":{"threshold":[…],"sure":[…],"then":[{"rate":0.5,"precision":"bf16","accuracy":[…]},…]}
 *
 * with CASCADE_POINTS numbers each. A sub-model that the model hasn't is passed over; numbers that can't be are not: the scheduler
 * would believe them.
 */
#include "engine/base/json.h"
#include "engine/model_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define THRESHOLD_DECIMALS 9 /* most are near 1, where one float differs from the next by 6e-8 */
#define ACCURACY_DECIMALS  5 /* one in 100,000 */

static struct model_cascade *cascade_of(const struct model *model, struct model_submodel first)
{
	return model->cascades[first.precision][first.rate_index];
}

const struct cascade_first *model_cascade_first(const struct model *model, struct model_submodel first)
{
	const struct model_cascade *c = cascade_of(model, first);

	return c ? &c->first : NULL;
}

const float *model_cascade_then(const struct model *model, struct model_submodel first,
				struct model_submodel then)
{
	const struct model_cascade *c = cascade_of(model, first);
	const float *accuracy = c ? c->then[then.precision][then.rate_index] : NULL;

	for (int i = 0; accuracy && i < CASCADE_POINTS; i++)
		if (accuracy[i] > 0)
			return accuracy;
	return NULL;
}

int model_set_cascade_first(struct model *model, struct model_submodel of, const struct cascade_first *first)
{
	struct model_cascade **c = &model->cascades[of.precision][of.rate_index];

	if (!*c)
		*c = calloc(1, sizeof(**c));
	if (!*c)
		return -ENOMEM;
	(*c)->first = *first;
	return 0;
}

void model_set_cascade_then(struct model *model, struct model_submodel first, struct model_submodel then,
			    const float accuracy[CASCADE_POINTS])
{
	struct model_cascade *c = cascade_of(model, first);

	if (c)
		memcpy(c->then[then.precision][then.rate_index], accuracy, sizeof(c->then[0][0]));
}

/* --- model.json --- */

void model_write_cascade(const struct model *model, struct model_submodel first, cJSON *object)
{
	const struct model_cascade *c = cascade_of(model, first);
	cJSON *cascade, *list;

	if (!c)
		return;
	cascade = cJSON_AddObjectToObject(object, "cascade");
	json_add_decimals(cascade, "threshold", c->first.threshold, CASCADE_POINTS, THRESHOLD_DECIMALS);
	json_add_decimals(cascade, "sure", c->first.sure, CASCADE_POINTS, ACCURACY_DECIMALS);
	list = cJSON_AddArrayToObject(cascade, "then");
	for (int i = 0; i < model->info.n_rates; i++)
		for (int p = 0; p < N_PRECISIONS; p++) {
			const float *accuracy = model_cascade_then(
				model, first, (struct model_submodel){i, (enum precision)p});
			cJSON *then = accuracy ? cJSON_CreateObject() : NULL;

			if (!then)
				continue;
			cJSON_AddNumberToObject(then, "rate", (double)model->info.rates[i]);
			cJSON_AddStringToObject(then, "precision", precision_name((enum precision)p));
			json_add_decimals(then, "accuracy", accuracy, CASCADE_POINTS, ACCURACY_DECIMALS);
			cJSON_AddItemToArray(list, then);
		}
}

/* CASCADE_POINTS numbers from 0 to 1. */
static bool read_points(const cJSON *object, const char *key, float ret[CASCADE_POINTS])
{
	const cJSON *array = cJSON_GetObjectItemCaseSensitive(object, key), *item;
	int n = 0;

	if (!cJSON_IsArray(array))
		return false;
	cJSON_ArrayForEach(item, array)
	{
		if (n == CASCADE_POINTS || !cJSON_IsNumber(item) ||
		    !(item->valuedouble >= 0 && item->valuedouble <= 1))
			return false;
		ret[n++] = (float)item->valuedouble;
	}
	return n == CASCADE_POINTS;
}

/* The sub-model that a member of "then" names; false: the model hasn't it. */
static bool find_submodel(const struct model *model, const cJSON *then, struct model_submodel *ret)
{
	const cJSON *rate = cJSON_GetObjectItemCaseSensitive(then, "rate");
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(then, "precision"));
	int precision = name ? precision_find(name) : -1;

	for (int i = 0; cJSON_IsNumber(rate) && precision >= 0 && i < model->info.n_rates; i++)
		if (model->info.rates[i] == (float)rate->valuedouble) {
			*ret = (struct model_submodel){i, (enum precision)precision};
			return true;
		}
	return false;
}

static int read_then(struct model *model, struct model_submodel first, const cJSON *list)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		float accuracy[CASCADE_POINTS];
		struct model_submodel then;

		if (!find_submodel(model, item, &then))
			continue;
		if (!read_points(item, "accuracy", accuracy) ||
		    (then.rate_index == first.rate_index && then.precision == first.precision))
			return -EINVAL;
		model_set_cascade_then(model, first, then, accuracy);
	}
	return 0;
}

/* -EINVAL: what it says can't be. */
static int read_cascade(struct model *model, struct model_submodel of, const cJSON *cascade)
{
	struct cascade_first first;
	int r;

	if (!read_points(cascade, "threshold", first.threshold) || !read_points(cascade, "sure", first.sure))
		return -EINVAL;
	for (int i = 1; i < CASCADE_POINTS; i++)
		if (first.threshold[i] < first.threshold[i - 1])
			return -EINVAL;
	r = model_set_cascade_first(model, of, &first);
	return r < 0 ? r : read_then(model, of, cJSON_GetObjectItemCaseSensitive(cascade, "then"));
}

int model_read_cascades(struct model *model, const cJSON *root, struct err *err)
{
	const cJSON *slices = cJSON_GetObjectItemCaseSensitive(root, "slices");
	int r = 0;

	for (int i = 0; i < model->info.n_rates; i++)
		for (int p = 0; p < N_PRECISIONS && r == 0; p++) {
			const cJSON *object = cJSON_GetArrayItem(slices, i), *cascade;

			if (p != PRECISION_F32)
				object = cJSON_GetObjectItemCaseSensitive(object,
									  precision_name((enum precision)p));
			cascade = cJSON_GetObjectItemCaseSensitive(object, "cascade");
			if (cascade)
				r = read_cascade(model, (struct model_submodel){i, (enum precision)p},
						 cascade);
			if (r == -EINVAL)
				r = err_set(err, ERR_BAD_MODEL,
					    "model.json: \"cascade\" of slice %g in %s holds what can't be",
					    (double)model->info.rates[i], precision_name((enum precision)p));
			else if (r < 0)
				err_set(err, ERR_NO_MEMORY, "loading a model");
		}
	return r;
}
