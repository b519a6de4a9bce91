/*
 * What a model knows of cascades (engine/cascade.h), in the endpoint's numbering. An idle sub-model begins none and ends none: it isn't
 * kept loaded. Nor do combinations of an ensemble, of which nothing is known.
 */
#include "sched/worker/infer_private.h"

#include <errno.h>
#include <stdlib.h>

/* What the lists of LOADED lie in. */
struct lists {
	struct wire_cascade_first firsts[MAX_SUBMODELS];
	struct wire_cascade_point points[MAX_SUBMODELS][CASCADE_POINTS];
	struct wire_cascade_pair pairs[MAX_SUBMODELS * (MAX_SUBMODELS - 1)];
	struct wire_cascade_share shares[MAX_SUBMODELS * (MAX_SUBMODELS - 1)][CASCADE_POINTS];
};

/* The model that could know of it; NULL: none. */
static const struct model *model_of(const struct infer_endpoint *e, const struct infer_submodel *s)
{
	return s->idle || s->n_parts > 1 ? NULL : e->members[s->parts[0].member].model;
}

static struct model_submodel in_model(const struct infer_endpoint *e, const struct infer_submodel *s)
{
	const struct infer_part *part = &e->members[s->parts[0].member].parts[s->parts[0].part];

	return (struct model_submodel){part->rate_index, part->precision};
}

static void add_first(struct lists *lists, struct wire_loaded *loaded, int i,
		      const struct cascade_first *first)
{
	uint32_t at = loaded->n_firsts++;

	for (int k = 0; k < CASCADE_POINTS; k++)
		lists->points[at][k] = (struct wire_cascade_point){first->threshold[k], first->sure[k]};
	lists->firsts[at] = (struct wire_cascade_first){
		.submodel = (uint32_t)i, .points = lists->points[at], .n_points = CASCADE_POINTS};
}

static void add_pair(struct lists *lists, struct wire_loaded *loaded, int i, int j, const float *accuracy)
{
	uint32_t at = loaded->n_pairs++;

	for (int k = 0; k < CASCADE_POINTS; k++)
		lists->shares[at][k].accuracy = accuracy[k];
	lists->pairs[at] = (struct wire_cascade_pair){.first = (uint32_t)i,
						      .then = (uint32_t)j,
						      .points = lists->shares[at],
						      .n_points = CASCADE_POINTS};
}

int infer_cascades_list(const struct infer_endpoint *e, struct wire_loaded *loaded, void **ret_memory)
{
	struct lists *lists = calloc(1, sizeof(*lists));

	/* 4 bytes for each number and count, and half of the message for the rest */
	_Static_assert(MAX_SUBMODELS * MAX_SUBMODELS * (CASCADE_POINTS + 3) * 4 * 2 < WIRE_MAX,
		       "they fit a message");
	if (!lists)
		return -ENOMEM;
	for (int i = 0; i < e->n_submodels; i++) {
		const struct infer_submodel *s = &e->submodels[i];
		const struct model *model = model_of(e, s);
		const struct cascade_first *first = model ? model_cascade_first(model, in_model(e, s)) : NULL;

		if (!first)
			continue;
		add_first(lists, loaded, i, first);
		for (int j = 0; j < e->n_submodels; j++) {
			const struct infer_submodel *other = &e->submodels[j];
			const float *then =
				model_of(e, other) == model
					? model_cascade_then(model, in_model(e, s), in_model(e, other))
					: NULL;

			if (then)
				add_pair(lists, loaded, i, j, then);
		}
	}
	loaded->firsts = lists->firsts;
	loaded->pairs = lists->pairs;
	*ret_memory = lists;
	return 0;
}
