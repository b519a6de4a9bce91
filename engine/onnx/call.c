/* What operators' functions have in common. */
#include "engine/onnx/op.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct onnx_op ops[] = {
#define ONNX_OP(type, since, until, in_min, in_max, out_min, out_max, half, fn) \
	{#type, since, until, in_min, in_max, out_min, out_max, ONNX_##half, op_##fn},
#include "engine/onnx/ops.def"
#undef ONNX_OP
};

const struct onnx_op *onnx_op_find(const char *type, int64_t version, const struct onnx_op **other)
{
	*other = NULL;
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (strcmp(ops[i].type, type) != 0)
			continue;
		if (version >= ops[i].since && version <= (ops[i].until ? ops[i].until : ONNX_NEWEST))
			return &ops[i];
		*other = &ops[i];
	}
	return NULL;
}

static int note(struct onnx_call *c, enum err_code code, const char *fmt, va_list ap)
{
	char text[256];

	vsnprintf(text, sizeof(text), fmt, ap);
	return err_set(c->err, code, "%s (operator set %lld), node '%.80s': %s", c->node->op->type,
		       (long long)c->version, c->node->name, text);
}

int(call_fail)(struct onnx_call *c, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = note(c, ERR_ONNX_RUN, fmt, ap);
	va_end(ap);
	return r;
}

int(call_unsupported)(struct onnx_call *c, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = note(c, ERR_ONNX_UNSUPPORTED, fmt, ap);
	va_end(ap);
	return r;
}

int call_bad_type(struct onnx_call *c, int i)
{
	return call_unsupported(c, "input %d of type %s", i, onnx_type_name(c->in[i]->type));
}

const struct onnx_attr *onnx_attr_find(const struct onnx_node *node, const char *name)
{
	for (int i = 0; i < node->n_attrs; i++)
		if (strcmp(node->attrs[i].name, name) == 0)
			return &node->attrs[i];
	return NULL;
}

static const struct onnx_attr *typed(struct onnx_call *c, const char *name, enum onnx_attr_type type)
{
	const struct onnx_attr *a = onnx_attr_find(c->node, name);

	if (a && a->type != type) {
		c->misfit = a;
		return NULL;
	}
	return a;
}

int64_t attr_int(struct onnx_call *c, const char *name, int64_t otherwise)
{
	const struct onnx_attr *a = typed(c, name, ONNX_ATTR_INT);

	return a ? a->i : otherwise;
}

float attr_float(struct onnx_call *c, const char *name, float otherwise)
{
	const struct onnx_attr *a = typed(c, name, ONNX_ATTR_FLOAT);

	return a ? a->f : otherwise;
}

const char *attr_string(struct onnx_call *c, const char *name, const char *otherwise)
{
	const struct onnx_attr *a = typed(c, name, ONNX_ATTR_STRING);

	return a ? a->s : otherwise;
}

const int64_t *attr_ints(struct onnx_call *c, const char *name, size_t *n)
{
	const struct onnx_attr *a = typed(c, name, ONNX_ATTR_INTS);

	*n = a ? a->n : 0;
	return a ? a->ints : NULL;
}

const float *attr_floats(struct onnx_call *c, const char *name, size_t *n)
{
	const struct onnx_attr *a = typed(c, name, ONNX_ATTR_FLOATS);

	*n = a ? a->n : 0;
	return a ? a->floats : NULL;
}

const char *const *attr_strings(struct onnx_call *c, const char *name, size_t *n)
{
	const struct onnx_attr *a = typed(c, name, ONNX_ATTR_STRINGS);

	*n = a ? a->n : 0;
	return a ? a->strings : NULL;
}

struct onnx_tensor *attr_tensor(struct onnx_call *c, const char *name)
{
	const struct onnx_attr *a = typed(c, name, ONNX_ATTR_TENSOR);

	return a ? a->tensor : NULL;
}

const struct onnx_graph *attr_graph(struct onnx_call *c, const char *name)
{
	const struct onnx_attr *a = typed(c, name, ONNX_ATTR_GRAPH);

	return a ? a->graph : NULL;
}

void call_give(struct onnx_call *c, int i, struct onnx_tensor *t)
{
	onnx_tensor_free(c->out[i]);
	c->out[i] = t;
}

/* tensor_make, with the node's name in the cause. */
struct onnx_tensor *call_scratch(struct onnx_call *c, enum onnx_type type, int rank, const int64_t *dims)
{
	struct err err = ERR_INIT;
	struct onnx_tensor *t;

	if (tensor_make(&t, type, rank, dims, c->memory, &err) == 0)
		return t;
	err_set(c->err, err.code, "%s (operator set %lld), node '%.80s': %s", c->node->op->type,
		(long long)c->version, c->node->name, err.detail);
	return NULL;
}

int call_out(struct onnx_call *c, int i, enum onnx_type type, int rank, const int64_t *dims)
{
	struct onnx_tensor *t = call_scratch(c, type, rank, dims);

	if (!t)
		return call_error(c);
	call_give(c, i, t);
	return 0;
}

int call_axis(struct onnx_call *c, int64_t *axis, int rank)
{
	if (*axis < -rank || *axis >= rank)
		return call_fail(c, "axis %lld at rank %d", (long long)*axis, rank);
	if (*axis < 0)
		*axis += rank;
	return 0;
}

int call_ints(struct onnx_call *c, int i, int64_t *ret, int room, int *n)
{
	const struct onnx_tensor *t = c->in[i];

	if (!type_is_integer(t->type))
		return call_fail(c, "input %d has to be integers, not %s", i, onnx_type_name(t->type));
	if (t->rank > 1 || t->count > (size_t)room)
		return call_fail(c, "input %d has to be a vector of at most %d", i, room);
	*n = (int)t->count;
	for (int j = 0; j < *n; j++)
		ret[j] = tensor_int(t, (size_t)j);
	return 0;
}

int call_axes(struct onnx_call *c, int i, const char *attr, int rank, bool *mask, int *n)
{
	int64_t axes[ONNX_MAX_RANK];
	const int64_t *given;
	size_t many;
	int r;

	memset(mask, 0, ONNX_MAX_RANK * sizeof(*mask));
	*n = 0;
	if (i >= 0 && call_in(c, i)) {
		r = call_ints(c, i, axes, ONNX_MAX_RANK, n);
		if (r < 0)
			return r;
	} else {
		given = attr ? attr_ints(c, attr, &many) : NULL;
		if (!given)
			return 0;
		if (many > ONNX_MAX_RANK)
			return call_fail(c, "%zu axes", many);
		*n = (int)many;
		memcpy(axes, given, many * sizeof(*axes));
	}
	for (int j = 0; j < *n; j++) {
		r = call_axis(c, &axes[j], rank);
		if (r < 0)
			return r;
		if (mask[axes[j]])
			return call_fail(c, "axis %lld is given twice", (long long)axes[j]);
		mask[axes[j]] = true;
	}
	return 0;
}

int call_broadcast(struct onnx_call *c, int *rank, int64_t *dims, const struct onnx_tensor *t)
{
	int64_t joined[ONNX_MAX_RANK];
	int most = *rank > t->rank ? *rank : t->rank;

	for (int d = 1; d <= most; d++) {
		int64_t a = d <= *rank ? dims[*rank - d] : 1, b = d <= t->rank ? t->dims[t->rank - d] : 1;

		if (a != b && a != 1 && b != 1) {
			char first[64], second[64];

			return call_fail(c, "shapes %s and %s don't broadcast",
					 dims_text(first, sizeof(first), *rank, dims),
					 dims_text(second, sizeof(second), t->rank, t->dims));
		}
		joined[most - d] = a == 1 ? b : a;
	}
	*rank = most;
	memcpy(dims, joined, (size_t)most * sizeof(*dims));
	return 0;
}

void walk_init(struct walk *w, int rank, const int64_t *dims)
{
	memset(w, 0, sizeof(*w));
	w->rank = rank ? rank : 1;
	w->dims[0] = 1;
	if (rank)
		memcpy(w->dims, dims, (size_t)rank * sizeof(*dims));
	w->row = dims_count(w->rank, w->dims) ? w->dims[w->rank - 1] : 0;
}

void walk_broadcast(struct walk *w, int k, int rank, const int64_t *dims)
{
	int64_t strides[ONNX_MAX_RANK];

	dims_strides(rank, dims, strides);
	for (int d = 1; d <= w->rank; d++)
		w->stride[k][w->rank - d] = d <= rank && dims[rank - d] != 1 ? strides[rank - d] : 0;
}

void walk_strides(struct walk *w, int k, const int64_t *strides)
{
	memcpy(w->stride[k], strides, (size_t)w->rank * sizeof(*strides));
}

void walk_join(struct walk *w)
{
	int last = 0;

	if (!w->row)
		return;
	for (int d = 1; d < w->rank; d++) {
		bool joins = true;

		if (w->dims[d] == 1)
			continue;
		for (int k = 0; k < WALK_MAX; k++)
			joins &= w->stride[k][last] == w->stride[k][d] * w->dims[d];
		if (!joins && w->dims[last] != 1)
			last++;
		w->dims[last] = joins ? w->dims[last] * w->dims[d] : w->dims[d];
		for (int k = 0; k < WALK_MAX; k++)
			w->stride[k][last] = w->stride[k][d];
	}
	w->rank = last + 1;
	w->row = w->dims[last];
}

bool walk_next(struct walk *w)
{
	if (!w->row)
		return false;
	for (int d = w->rank - 2; d >= 0; d--) {
		for (int k = 0; k < WALK_MAX; k++)
			w->at[k] += w->stride[k][d];
		if (++w->index[d] < w->dims[d])
			return true;
		w->index[d] = 0;
		for (int k = 0; k < WALK_MAX; k++)
			w->at[k] -= w->stride[k][d] * w->dims[d];
	}
	return false;
}

#define MOVE_CASE(T)                                                                                   \
	case sizeof(T):                                                                                \
		for (int64_t i = 0; i < w.row; i++)                                                    \
			((T *)to)[w.at[0] + i * step_to] = ((const T *)from)[w.at[1] + i * step_from]; \
		break;

void move_strided(void *to, const int64_t *to_strides, const void *from, const int64_t *from_strides,
		  int rank, const int64_t *dims, size_t size)
{
	static const int64_t scalar[1];
	struct walk w;

	walk_init(&w, rank, dims);
	walk_strides(&w, 0, rank ? to_strides : scalar);
	walk_strides(&w, 1, rank ? from_strides : scalar);
	walk_join(&w);
	do {
		const int64_t step_to = walk_step(&w, 0), step_from = walk_step(&w, 1);

		switch (size) {
			MOVE_CASE(uint8_t)
			MOVE_CASE(uint16_t)
			MOVE_CASE(uint32_t)
			MOVE_CASE(uint64_t)
		}
	} while (walk_next(&w));
}
