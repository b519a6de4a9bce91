#include "engine/train_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VALUE 60 /* chosen: of a value in a line for people */

int train_spec_copy(struct train_spec **ret, const struct train_spec *spec, struct err *err)
{
	struct train_spec *copy = malloc(sizeof(*copy));

	if (!copy)
		return err_set(err, ERR_NO_MEMORY, "training");
	*copy = *spec;
	copy->init_model = NULL;
	copy->dataset = strdup(spec->dataset);
	copy->model = spec->model ? strdup(spec->model) : NULL;
	copy->init = spec->init ? strdup(spec->init) : NULL;
	copy->net = spec->net ? strdup(spec->net) : NULL;
	if (!copy->dataset || (spec->model && !copy->model) || (spec->init && !copy->init) ||
	    (spec->net && !copy->net)) {
		train_spec_free(copy);
		return err_set(err, ERR_NO_MEMORY, "training");
	}
	*ret = copy;
	return 0;
}

/* Mirroring makes other classes of letters and digits, which are what classes of one or two characters
 * mostly are. */
static bool flip_is_sensible(const struct dataset *ds)
{
	for (int i = 0; i < dataset_shape(ds).classes; i++)
		if (strlen(dataset_class(ds, i)) > 2)
			return true;
	return false;
}

/*
 * The gradients of all slices are summed, and without normalisation nothing keeps such a step small: an MLP's loss then
 * grows without bound. With it clipping costs accuracy (measured both: tests/bench/RESULTS.md).
 */
static double sensible_clip(const struct net *net)
{
	for (int i = 0; i < net->n_nodes; i++) {
		enum op_params params = op_info(net->nodes[i].op)->params;

		if (params == OP_PARAMS_AFFINE || params == OP_PARAMS_BATCH)
			return 0;
	}
	return 1;
}

void train_spec_settle(struct train_spec *spec, const struct dataset *ds, const struct net *net)
{
	struct dataset_shape shape = dataset_shape(ds);

	if (spec->shift < 0)
		spec->shift = (shape.height < shape.width ? shape.height : shape.width) / 14;
	if (spec->flip < 0)
		spec->flip = flip_is_sensible(ds);
	if (spec->clip < 0)
		spec->clip = sensible_clip(net);
}

/* A value as people read it. */
static void value_text(char text[MAX_VALUE], const cJSON *item)
{
	char *all = item ? cJSON_PrintUnformatted(item) : NULL;

	snprintf(text, MAX_VALUE, "%s", all ? all : "none");
	cJSON_free(all);
}

/* Two specs, key by key. */
struct comparison {
	cJSON *a, *b;
	char a_text[MAX_VALUE], b_text[MAX_VALUE]; /* of the last that differ() found */
};

static int comparison_init(struct comparison *c, const struct train_spec *a, const struct train_spec *b)
{
	*c = (struct comparison){.a = train_spec_write(a), .b = train_spec_write(b)};
	return c->a && c->b ? 0 : -ENOMEM;
}

static void comparison_release(struct comparison *c)
{
	cJSON_Delete(c->a);
	cJSON_Delete(c->b);
}

static bool differ(struct comparison *c, const char *key)
{
	const cJSON *a = cJSON_GetObjectItemCaseSensitive(c->a, key),
		    *b = cJSON_GetObjectItemCaseSensitive(c->b, key);

	if ((!a && !b) || cJSON_Compare(a, b, true))
		return false;
	value_text(c->a_text, a);
	value_text(c->b_text, b);
	return true;
}

int train_spec_agrees(const struct train_spec *spec, const struct train_spec *saved, struct err *err)
{
	struct comparison c;
	int r = comparison_init(&c, spec, saved);

	if (r < 0)
		err_set(err, ERR_NO_MEMORY, "comparing specs");
	for (int i = 0; r == 0 && train_spec_keys[i]; i++)
		if ((spec->named & UINT32_C(1) << i) && differ(&c, train_spec_keys[i]))
			r = err_set(err, ERR_BAD_CHECKPOINT,
				    "\"%s\" is %s in spec.json and was %s when the training began",
				    train_spec_keys[i], c.a_text, c.b_text);
	comparison_release(&c);
	return r;
}

int train_spec_differences(const struct train_spec *spec, const struct train_spec *run, struct buf *ret)
{
	const char *before = "it goes on with the values that it began with, not with today's defaults: ";
	struct comparison c;
	int r = comparison_init(&c, spec, run);

	for (int i = 0; r == 0 && train_spec_keys[i]; i++)
		if (!(spec->named & UINT32_C(1) << i) && cJSON_HasObjectItem(c.a, train_spec_keys[i]) &&
		    differ(&c, train_spec_keys[i])) {
			buf_addf(ret, "%s%s %s (today %s)", before, train_spec_keys[i], c.b_text, c.a_text);
			before = ", ";
		}
	comparison_release(&c);
	return r < 0 ? r : buf_status(ret);
}
