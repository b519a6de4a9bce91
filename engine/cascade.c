/* Cascades measured: two passes over what sub-models said of the same instances, in the order of how certain the first one was. */
#include "engine/cascade.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

const float cascade_shares[CASCADE_POINTS] = {0.05f, 0.1f, 0.15f, 0.2f, 0.25f, 0.3f, 0.4f, 0.5f, 0.6f};

int cascade_answers_init(struct cascade_answers *a, size_t n)
{
	*a = (struct cascade_answers){.n = n};
	a->certain = calloc(n, sizeof(*a->certain));
	a->right = calloc(n, sizeof(*a->right));
	a->order = calloc(n, sizeof(*a->order));
	if (a->certain && a->right && a->order)
		return 0;
	cascade_answers_release(a);
	return -ENOMEM;
}

void cascade_answers_release(struct cascade_answers *a)
{
	free(a->certain);
	free(a->right);
	free(a->order);
	*a = (struct cascade_answers){0};
}

struct ranked {
	float certain;
	uint32_t index;
};

static int compare_ranked(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->certain != y->certain)
		return x->certain < y->certain ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

int cascade_sort(struct cascade_answers *a)
{
	struct ranked *list = calloc(a->n, sizeof(*list));

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < a->n; i++)
		list[i] = (struct ranked){a->certain[i], (uint32_t)i};
	qsort(list, a->n, sizeof(*list), compare_ranked);
	for (size_t i = 0; i < a->n; i++)
		a->order[i] = list[i].index;
	free(list);
	return 0;
}

/* How many of n are the share at a point. */
static size_t count_at(size_t n, int point)
{
	size_t count = (size_t)llround((double)cascade_shares[point] * (double)n);

	return count ? count : 1;
}

static size_t count_right(const struct cascade_answers *a, const uint32_t *order, size_t n)
{
	size_t right = 0;

	for (size_t i = 0; i < n; i++)
		right += a->right[order[i]];
	return right;
}

void cascade_measure_first(const struct cascade_answers *a, struct cascade_first *ret)
{
	for (int i = 0; i < CASCADE_POINTS; i++) {
		size_t k = count_at(a->n, i), others = a->n - k;

		ret->threshold[i] = a->certain[a->order[k - 1]];
		ret->sure[i] = (float)((double)count_right(a, a->order + k, others) / (double)others);
	}
}

void cascade_measure_then(const struct cascade_answers *first, const struct cascade_answers *then,
			  float ret[CASCADE_POINTS])
{
	for (int i = 0; i < CASCADE_POINTS; i++) {
		size_t k = count_at(first->n, i);
		size_t right = count_right(then, first->order, k) +
			       count_right(first, first->order + k, first->n - k);

		ret[i] = (float)((double)right / (double)first->n);
	}
}
