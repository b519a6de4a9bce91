/*
 * Several models behind one endpoint. Their classes are the same ones, told by their labels, in whatever order; their inputs may
 * differ. Each part (slice × precision of one member) is a sub-model of the endpoint, and so are the combinations that engine/ensemble.h
 * chooses by what the members said of the validation images that all share. Without such images there are no combinations: what they
 * would be worth to a plan is not known.
 */
#include "sched/worker/infer_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- classes --- */

struct named {
	char *name; /* owned */
	int class;
};

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : x->class - y->class;
}

static void free_names(struct named *list, int classes)
{
	for (int c = 0; list && c < classes; c++)
		free(list[c].name);
	free(list);
}

/* By name, and classes of the same name by number. NULL: no memory. */
static struct named *sorted_names(const struct model *model, int classes)
{
	struct named *list = calloc((size_t)classes, sizeof(*list));

	for (int c = 0; list && c < classes; c++) {
		list[c] = (struct named){strdup(model_label(model, c)), c};
		if (!list[c].name) {
			free_names(list, classes);
			return NULL;
		}
	}
	if (list)
		qsort(list, (size_t)classes, sizeof(*list), by_name);
	return list;
}

static int map_labels(struct infer_endpoint *e, struct infer_member *m, const struct named *first,
		      struct err *err)
{
	struct named *own = sorted_names(m->model, e->classes);
	bool same = true;
	int r = 0;

	m->labels = calloc((size_t)e->classes, sizeof(*m->labels));
	if (!own || !m->labels) {
		r = -ENOMEM;
		goto out;
	}
	for (int c = 0; c < e->classes; c++) {
		if (strcmp(own[c].name, first[c].name) != 0) {
			const bool less = strcmp(own[c].name, first[c].name) < 0;

			r = err_set(err, ERR_BAD_MODEL, "%s has a class \"%.80s\", %s has none of that name",
				    less ? m->name : e->members[0].name, less ? own[c].name : first[c].name,
				    less ? e->members[0].name : m->name);
			goto out;
		}
		m->labels[own[c].class] = first[c].class;
		same &= own[c].class == first[c].class;
	}
	if (same) {
		free(m->labels);
		m->labels = NULL;
	}
out:
	free_names(own, e->classes);
	return r;
}

int infer_ensemble_labels(struct infer_endpoint *e, struct err *err)
{
	struct named *first;
	int r = 0;

	if (e->n_members == 1)
		return 0;
	first = sorted_names(e->members[0].model, e->classes);
	if (!first)
		return -ENOMEM;
	for (int i = 1; r == 0 && i < e->n_members; i++) {
		struct infer_member *m = &e->members[i];
		int classes = model_info(m->model)->classes;

		if (classes != e->classes)
			r = err_set(err, ERR_BAD_MODEL, "%s has %d classes, %s has %d", m->name, classes,
				    e->members[0].name, e->classes);
		else
			r = map_labels(e, m, first, err);
	}
	free_names(first, e->classes);
	return r;
}

/* --- sub-models --- */

/* What one multiplication costs in other numbers than f32; chosen, for the choice of combinations only. */
static const double costs[N_PRECISIONS] = {
	[PRECISION_F32] = 1, [PRECISION_BF16] = 0.6, [PRECISION_INT8] = 0.4};

static void describe(const struct infer_endpoint *e, const struct infer_member *m, const int *identity,
		     struct ensemble_member *ret)
{
	_Static_assert(ENSEMBLE_PARTS == MAX_SUBMODELS, "as many as a member has");

	*ret = (struct ensemble_member){
		.weight = m->weight, .labels = m->labels ? m->labels : identity, .n_parts = m->n_parts};
	if (m->validation.n && m->validation.classes == e->classes)
		ret->validation = &m->validation;
	for (int i = 0; i < m->n_parts; i++) {
		const struct infer_part *part = &m->parts[i];
		double flops = (double)model_flops(m->model, part->rate) * costs[part->precision];

		ret->parts[i] = (struct ensemble_part){
			.validation = ret->validation
					      ? validation_find(ret->validation, part->rate, part->precision)
					      : -1,
			.accuracy = (double)part->accuracy,
			.cost = flops > 0 ? flops : 1,
		};
	}
}

static void take(struct infer_endpoint *e, const struct combination *c)
{
	struct infer_submodel *s = &e->submodels[e->n_submodels++];

	*s = (struct infer_submodel){.accuracy = (float)c->accuracy};
	for (int m = 0; m < e->n_members; m++)
		if (c->part[m] >= 0)
			s->parts[s->n_parts++] = (struct infer_place){m, c->part[m]};
}

/* Why there are no combinations. */
static void explain_none(struct infer_endpoint *e, const struct ensemble_member *members)
{
	for (int m = 0; m < e->n_members; m++)
		if (!members[m].validation) {
			snprintf(
				e->note, sizeof(e->note),
				"combinations are not measured and not used: %s has no usable validation.bin",
				e->members[m].name);
			return;
		}
	snprintf(e->note, sizeof(e->note),
		 "combinations are not measured and not used: the models share fewer than %d validation "
		 "images",
		 VALIDATION_LEAST);
}

int infer_ensemble_list(struct infer_endpoint *e, struct err *err)
{
	struct ensemble_member members[ENSEMBLE_MEMBERS];
	struct combination list[MAX_SUBMODELS];
	int *identity = calloc((size_t)e->classes, sizeof(*identity)), n = -ENOMEM, r;
	struct ensemble ensemble;

	if (!identity)
		return -ENOMEM;
	for (int c = 0; c < e->classes; c++)
		identity[c] = c;
	for (int m = 0; m < e->n_members; m++)
		describe(e, &e->members[m], identity, &members[m]);
	r = ensemble_init(&ensemble, members, e->n_members, e->classes);
	if (r == -ERANGE)
		explain_none(e, members);
	if (r != -ENOMEM)
		n = ensemble_choose(&ensemble, list, MAX_SUBMODELS);
	for (int i = 0; i < n; i++)
		take(e, &list[i]);
	if (r != -ENOMEM)
		ensemble_release(&ensemble);
	for (int m = 0; m < e->n_members; m++) {
		free(e->members[m].notes);
		e->members[m].notes = NULL;
		e->members[m].validation = (struct validation){0};
	}
	free(identity);
	if (n < 0)
		return err_set(err, ERR_NO_MEMORY, "combining models");
	return 0;
}
