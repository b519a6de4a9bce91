/*
 * A checkpoint is one safetensors file: weights ("w:NAME") and the optimizer's arrays ("m:", "v:", "a:"),
 * with epoch, step and the spec's hash as metadata. Floats are kept bit for bit and everything else is a
 * function of (seed, epoch, step), so a resumed run goes on exactly as one that was not stopped.
 */
#include "engine/safetensors.h"
#include "engine/train_private.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int train_checkpoint_write(const struct train *t, struct buf *ret, struct err *err)
{
	int n = t->model->net->params.n, used = 0, r;
	struct safetensors_tensor *list = calloc((size_t)n * KINDS, sizeof(*list));
	char(*names)[CHECKPOINT_NAME] = calloc((size_t)n * KINDS, sizeof(*names));
	char epoch[24], step[24], elapsed[40], hash[24];
	const char *const metadata[] = {"epoch", epoch, "step", step, "elapsed", elapsed, "spec", hash};

	if (!list || !names) {
		r = err_set(err, ERR_NO_MEMORY, "writing a checkpoint");
		goto out;
	}
	snprintf(epoch, sizeof(epoch), "%d", t->epoch);
	snprintf(step, sizeof(step), "%lld", (long long)t->optim.step);
	snprintf(elapsed, sizeof(elapsed), "%.3f", t->elapsed);
	snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)t->hash);
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
	free(list);
	free(names);
	return r;
}

int train_checkpoint_read(struct train *t, const void *data, size_t len, struct err *err)
{
	int n = t->model->net->params.n, r;
	const char *epoch, *step, *elapsed, *hash;
	struct safetensors *st = NULL;
	struct err why = ERR_INIT;
	size_t expected = 0;
	char name[CHECKPOINT_NAME];

	r = safetensors_open(&st, data, len, &why);
	if (r < 0)
		return r == -ENOMEM ? err_set(err, ERR_NO_MEMORY, "reading a checkpoint")
				    : err_set(err, ERR_BAD_CHECKPOINT, "%s", why.detail);
	epoch = safetensors_metadata(st, "epoch");
	step = safetensors_metadata(st, "step");
	elapsed = safetensors_metadata(st, "elapsed");
	hash = safetensors_metadata(st, "spec");
	if (!epoch || !step || !elapsed || !hash) {
		r = err_set(err, ERR_BAD_CHECKPOINT, "it is no checkpoint");
		goto out;
	}
	if (strtoull(hash, NULL, 16) != t->hash) {
		r = err_set(err, ERR_BAD_CHECKPOINT, "it was made with another spec or data set");
		goto out;
	}
	/* Everything is checked before anything is taken. */
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < n; i++) {
			const struct safetensors_tensor *tensor;

			if (!array_of(t, kind, i))
				continue;
			name_of(name, t, kind, i);
			tensor = safetensors_find(st, name);
			if (!tensor || tensor->bytes != t->model->net->params.list[i].size * sizeof(float)) {
				r = err_set(err, ERR_BAD_CHECKPOINT, "%s does not fit", name);
				goto out;
			}
			for (size_t j = 0; j < tensor->bytes / sizeof(float); j++) {
				float v;

				memcpy(&v, (const char *)tensor->data + j * sizeof(v), sizeof(v));
				if (!isfinite(v)) {
					r = err_set(err, ERR_BAD_CHECKPOINT, "%s is not finite", name);
					goto out;
				}
			}
			expected++;
		}
	if (expected != safetensors_count(st) || atoi(epoch) < 0 || atoll(step) < 0 ||
	    !(atof(elapsed) >= 0)) {
		r = err_set(err, ERR_BAD_CHECKPOINT, "its counts are wrong");
		goto out;
	}
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < n; i++) {
			const struct safetensors_tensor *tensor;

			if (!array_of(t, kind, i))
				continue;
			name_of(name, t, kind, i);
			tensor = safetensors_find(st, name);
			memcpy(array_of(t, kind, i), tensor->data, tensor->bytes);
		}
	t->epoch = atoi(epoch);
	t->optim.step = atoll(step);
	t->elapsed = atof(elapsed);
	params_changed(&t->model->net->params);
	r = 0;
out:
	safetensors_close(st);
	return r;
}
