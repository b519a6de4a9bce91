/* What users read of the models behind an endpoint: which ones answer, and of an ensemble what each sub-model is made of. */
#include "sched/internal.h"

#include "engine/base/json.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void endpoint_add_model(const struct endpoint *ep, struct cJSON *json)
{
	char versions[ENSEMBLE_MEMBERS * 12] = "";
	size_t len = 0;

	cJSON_AddStringToObject(json, "model", ep->model[0] ? ep->model : ep->spec.model);
	for (int i = 0; i < ep->n_members; i++)
		len += (size_t)snprintf(versions + len, sizeof(versions) - len, "%s%d", i ? "+" : "",
					ep->versions[i]);
	if (ep->n_members > 1)
		cJSON_AddStringToObject(json, "version", versions);
	else
		json_add_decimal(json, "version", ep->versions[0], 0);
}

void endpoint_print_model(const struct endpoint *ep, struct buf *ret)
{
	if (!ep->spec.n_members)
		buf_adds(ret, "-/0");
	for (int i = 0; i < ep->spec.n_members; i++)
		buf_addf(ret, "%s%s/%d", i ? "+" : "", ep->spec.members[i].model,
			 i < ep->n_members ? ep->versions[i] : 0);
}

/* One of several of that name. */
static bool is_twice(const struct endpoint *ep, int member)
{
	for (int i = 0; i < ep->spec.n_members; i++)
		if (i != member && strcmp(ep->spec.members[i].model, ep->spec.members[member].model) == 0)
			return true;
	return false;
}

/* "a:0.25+b:1:bf16", where a model is there twice "a/3:0.25+a/4:0.25". */
static void print_parts(const struct endpoint *ep, const struct submodel *m, struct buf *ret)
{
	for (int i = 0; i < m->n_parts; i++) {
		const struct submodel_part *p = &m->parts[i];

		buf_addf(ret, "%s%s", i ? "+" : "", ep->spec.members[p->member].model);
		if (is_twice(ep, p->member))
			buf_addf(ret, "/%d", ep->versions[p->member]);
		buf_addf(ret, ":%g", round((double)p->slice * 1e4) / 1e4);
		if (strcmp(p->precision, precision_name(PRECISION_F32)) != 0)
			buf_addf(ret, ":%s", p->precision);
	}
}

/* The one there is, or a copy that lives as long as the endpoint. NULL: no memory. */
static const char *name_of(struct endpoint *ep, const char *text)
{
	char **names;

	for (int i = 0; i < ep->n_names; i++)
		if (strcmp(ep->names[i], text) == 0)
			return ep->names[i];
	names = reallocarray(ep->names, (size_t)ep->n_names + 1, sizeof(*names));
	if (!names)
		return NULL;
	ep->names = names;
	names[ep->n_names] = strdup(text);
	return names[ep->n_names] ? names[ep->n_names++] : NULL;
}

int endpoint_name_submodels(struct endpoint *ep)
{
	int r = 0;

	for (int i = 0; r == 0 && i < ep->n_submodels; i++) {
		struct submodel *m = &ep->submodels[i];
		struct buf text = BUF_INIT;

		if (!m->n_parts)
			continue;
		print_parts(ep, m, &text);
		m->members = text.data && buf_status(&text) == 0 ? name_of(ep, text.data) : NULL;
		r = m->members ? 0 : -ENOMEM;
		buf_release(&text);
	}
	return r;
}
