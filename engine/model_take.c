/* Fine-tuning: what of one model's weights another can begin with. A model of full width can so become a sliceable one. */
#include "engine/model_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_NAMED 8 /* chosen: what a line of a log holds */

static bool fits(const struct param *to, const struct param *from)
{
	return from && to->rank == from->rank &&
	       memcmp(to->dims, from->dims, (size_t)to->rank * sizeof(*to->dims)) == 0;
}

/* What a set of a BatchNorm for a rate that the other model hasn't begins with: the prefix of the full width's. */
static const struct param *full_set(struct params *from, const struct param *to)
{
	const char *rate = strstr(to->name, ".slice-"), *kind = strrchr(to->name, '.');
	const struct param *full;
	char name[PARAM_NAME_MAX];

	if (to->rate == 0 || !rate)
		return NULL;
	snprintf(name, sizeof(name), "%.*s%s", (int)(rate - to->name), to->name, kind);
	full = params_find(from, name);
	return full && full->rank == 1 && full->dims[0] >= to->dims[0] ? full : NULL;
}

int model_take(struct model *to, const struct model *from, struct buf *ret_note, struct err *err)
{
	const struct node *head;
	struct params *params;
	int taken = 0, others = 0, new_head = 0;
	struct buf names = BUF_INIT;
	int r;

	if (!to->net || !from->net)
		return err_set(err, ERR_BAD_MODEL,
			       "an ONNX model that isn't compiled has no weights to begin with");
	head = &to->net->nodes[to->net->output];
	params = &to->net->params;

	for (int i = 0; i < params->n; i++) {
		struct param *p = &params->list[i];
		const struct param *source = params_find(&from->net->params, p->name);
		bool good = fits(p, source);

		if (!source) {
			source = full_set(&from->net->params, p);
			good = source != NULL;
		}
		if (good) {
			memcpy(p->value, source->value, p->size * sizeof(*p->value));
			taken++;
		} else if (i == head->weight || i == head->bias) {
			new_head++;
		} else if (others++ < MAX_NAMED) {
			buf_addf(&names, "%s %s", names.len ? "," : "", p->name);
		}
	}
	params_changed(params);
	if (taken == 0) {
		buf_release(&names);
		return err_set(err, ERR_BAD_MODEL, "nothing of the model to begin with fits this network");
	}
	buf_addf(ret_note, "%d of %d arrays are those of the model it begins with", taken, params->n);
	if (new_head)
		buf_addf(ret_note, "; the head is new: %d classes, %d there", to->info.classes,
			 from->info.classes);
	if (others)
		buf_addf(ret_note, "; new too:%s", names.data);
	if (others > MAX_NAMED)
		buf_addf(ret_note, " and %d more", others - MAX_NAMED);
	r = buf_status(&names);
	buf_release(&names);
	if (r == 0)
		r = buf_status(ret_note);
	return r < 0 ? err_set(err, ERR_NO_MEMORY, "a note") : 0;
}
