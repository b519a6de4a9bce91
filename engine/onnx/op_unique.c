/* Unique: elements, or slices along an axis, each once. */
#include "engine/onnx/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct items {
	const struct onnx_tensor *t;
	int64_t n, outer, inner; /* item i: outer × inner elements, at o · n · inner + i · inner + j */
};

/* Where an item is, and where the first that equals it. */
struct item {
	int64_t at, first;
};

static int compare_items(const struct items *s, int64_t a, int64_t b)
{
	const bool whole = type_is_integer(s->t->type);

	for (int64_t o = 0; o < s->outer; o++)
		for (int64_t j = 0; j < s->inner; j++) {
			size_t i = (size_t)((o * s->n + a) * s->inner + j),
			       k = (size_t)((o * s->n + b) * s->inner + j);

			if (whole && s->t->type != ONNX_UINT64) {
				if (tensor_int(s->t, i) != tensor_int(s->t, k))
					return tensor_int(s->t, i) < tensor_int(s->t, k) ? -1 : 1;
			} else if (whole) {
				uint64_t x = (uint64_t)tensor_int(s->t, i), y = (uint64_t)tensor_int(s->t, k);

				if (x != y)
					return x < y ? -1 : 1;
			} else {
				double x = tensor_real(s->t, i), y = tensor_real(s->t, k);

				if (isnan(x) != isnan(y))
					return isnan(x) ? 1 : -1;
				if (x != y && !isnan(x))
					return x < y ? -1 : 1;
			}
		}
	return 0;
}

static int in_order(const void *pa, const void *pb, void *items)
{
	const struct item *a = pa, *b = pb;
	int order = compare_items(items, a->at, b->at);

	return order ? order : (a->at > b->at) - (a->at < b->at);
}

static int first_first(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;

	if (a->first != b->first)
		return a->first < b->first ? -1 : 1;
	return (a->at > b->at) - (a->at < b->at);
}

/* Outputs: the items, where each first is, which of them each of the input's is, how many there are of each. */
int op_unique(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	const bool flat = !onnx_attr_find(c->node, "axis"), sorted = attr_int(c, "sorted", 1);
	struct items s = {in, (int64_t)in->count, 1, 1};
	int64_t axis = attr_int(c, "axis", 0), dims[ONNX_MAX_RANK], found = 0, k = -1;
	size_t size = onnx_type_size(in->type), bytes;
	struct item *list;
	int r = 0;

	if (!flat) {
		r = call_axis(c, &axis, in->rank);
		if (r < 0)
			return r;
		s.n = in->dims[axis];
		for (int d = 0; d < in->rank; d++) {
			s.outer *= d < axis ? in->dims[d] : 1;
			s.inner *= d > axis ? in->dims[d] : 1;
		}
	}
	list = malloc((size_t)(s.n + 1) * sizeof(*list));
	if (!list)
		return err_set(c->err, ERR_NO_MEMORY, "Unique");
	for (int64_t i = 0; i < s.n; i++)
		list[i] = (struct item){i, i};
	qsort_r(list, (size_t)s.n, sizeof(*list), in_order, &s);
	for (int64_t i = 0; i < s.n; i++) {
		bool again = i > 0 && compare_items(&s, list[i - 1].at, list[i].at) == 0;

		list[i].first = again ? list[i - 1].first : list[i].at;
		found += !again;
	}
	if (!sorted)
		qsort(list, (size_t)s.n, sizeof(*list), first_first);
	memcpy(dims, in->dims, sizeof(dims));
	dims[flat ? 0 : axis] = found;
	r = call_out(c, 0, in->type, flat ? 1 : in->rank, dims);
	for (int i = 1; r == 0 && i < 4; i++)
		r = call_out(c, i, ONNX_INT64, 1, i == 2 ? &s.n : &found);
	if (r < 0)
		goto out;
	bytes = (size_t)s.inner * size;
	for (int64_t i = 0; i < s.n; i++) {
		if (list[i].at == list[i].first) { /* the first of a run of equals */
			((int64_t *)c->out[1]->data)[++k] = list[i].at;
			((int64_t *)c->out[3]->data)[k] = 0;
			for (int64_t o = 0; bytes && o < s.outer; o++)
				memcpy((char *)c->out[0]->data + (size_t)(o * found + k) * bytes,
				       (const char *)in->data + (size_t)(o * s.n + list[i].at) * bytes,
				       bytes);
		}
		((int64_t *)c->out[2]->data)[list[i].at] = k;
		((int64_t *)c->out[3]->data)[k]++;
	}
out:
	free(list);
	return r;
}
