/*
 * One pass over the nodes in their order. A value of the graph is one of
 *	mapped	a node of the network, seen with rank 4 or 2 (features of a plane, or flat)
 *	grouped	the same, reshaped to (N, G, …) on its way through a group normalisation
 *	known	a short vector of integers: what exporters compute from shapes. Its batch dimension is BATCH
 * or a constant. A node none of whose forms is known ends the pass: the interpreter runs the model then.
 *
 * What has no op of its own: y = scale·x + shift by channel is a batch_norm with mean 0 and variance 1, put into the norm before it
 * where that is one and nobody else looks at it.
 */
#include "engine/onnx/to_net_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int to_net_no(struct to_net *b, const struct onnx_node *n, const char *why)
{
	return err_set(b->err, ERR_UNSUPPORTED_OP, "%s '%.100s': %s", n->op->type, n->name, why);
}

/* --- what a node has --- */

int64_t node_attr_i(const struct onnx_node *n, const char *name, int64_t otherwise)
{
	const struct onnx_attr *a = onnx_attr_find(n, name);

	return a && a->type == ONNX_ATTR_INT ? a->i : otherwise;
}

float node_attr_f(const struct onnx_node *n, const char *name, float otherwise)
{
	const struct onnx_attr *a = onnx_attr_find(n, name);

	return a && a->type == ONNX_ATTR_FLOAT ? a->f : otherwise;
}

int64_t node_attr_at(const struct onnx_node *n, const char *name, size_t i, int64_t otherwise)
{
	const struct onnx_attr *a = onnx_attr_find(n, name);

	if (!a || a->type != ONNX_ATTR_INTS)
		return otherwise;
	return i < a->n ? a->ints[i] : INT64_MIN; /* too short: nothing that anybody takes */
}

bool node_has_in(const struct onnx_node *n, int i)
{
	return i < n->n_in && n->in[i] >= 0;
}

struct mapped *to_net_in(struct to_net *b, const struct onnx_node *n, int i)
{
	static struct mapped none = {.id = -1, .n = -1};

	return node_has_in(n, i) ? &b->values[n->in[i]] : &none;
}

const struct onnx_tensor *to_net_constant(struct to_net *b, const struct onnx_node *n, int i)
{
	const struct onnx_maker *v;
	const struct onnx_attr *a;

	if (!node_has_in(n, i))
		return NULL;
	v = &b->g->values[n->in[i]];
	/* exporters make one constant of equal ones, and the others that */
	while (v->node >= 0 && strcmp(b->g->nodes[v->node].op->type, "Identity") == 0)
		v = &b->g->values[b->g->nodes[v->node].in[0]];
	if (v->constant || v->node < 0)
		return v->constant;
	a = strcmp(b->g->nodes[v->node].op->type, "Constant") == 0
		    ? onnx_attr_find(&b->g->nodes[v->node], "value")
		    : NULL;
	return a && a->type == ONNX_ATTR_TENSOR ? a->tensor : NULL;
}

const float *to_net_floats(struct to_net *b, const struct onnx_node *n, int i, size_t count)
{
	const struct onnx_tensor *t = to_net_constant(b, n, i);

	return t && t->type == ONNX_FLOAT && t->count == count ? t->data : NULL;
}

bool to_net_scalar(struct to_net *b, const struct onnx_node *n, int i, float *ret)
{
	const float *f = to_net_floats(b, n, i, 1);

	if (f)
		*ret = *f;
	return f != NULL;
}

bool to_net_known(struct to_net *b, const struct onnx_node *n, int i, int *ret_n, int64_t *v)
{
	const struct onnx_tensor *t = to_net_constant(b, n, i);
	const struct mapped *m = to_net_in(b, n, i);

	if (t && t->rank <= 1 && t->count <= MAX_KNOWN && type_is_integer(t->type)) {
		*ret_n = (int)t->count;
		for (size_t k = 0; k < t->count; k++)
			v[k] = tensor_int(t, k);
		return true;
	}
	if (m->n < 0)
		return false;
	*ret_n = m->n;
	memcpy(v, m->v, sizeof(m->v));
	return true;
}

bool to_net_axes(struct to_net *b, const struct onnx_node *n, int i, int rank, int *ret_n, int64_t *axes)
{
	const struct onnx_attr *a = onnx_attr_find(n, "axes");

	*ret_n = 0;
	if (a && a->type == ONNX_ATTR_INTS && a->n <= MAX_KNOWN) {
		*ret_n = (int)a->n;
		memcpy(axes, a->ints, a->n * sizeof(*axes));
	} else if (node_has_in(n, i) && !to_net_known(b, n, i, ret_n, axes)) {
		return false;
	}
	for (int k = 0; k < *ret_n; k++)
		axes[k] += axes[k] < 0 ? rank : 0;
	return true;
}

struct node *to_net_node(struct to_net *b, const struct mapped *x)
{
	return &b->net->nodes[x->id];
}

bool mapped_is_plain(const struct mapped *x, int rank)
{
	return x->id >= 0 && !x->groups && !x->raw && (!rank || x->rank == rank);
}

/* --- what it makes --- */

int to_net_give(struct to_net *b, const struct onnx_node *n, int id, int rank)
{
	if (id < 0)
		return id;
	if (n->out[0] >= 0)
		b->values[n->out[0]] = (struct mapped){.id = id, .rank = rank, .n = -1};
	return 0;
}

int to_net_give_known(struct to_net *b, const struct onnx_node *n, int count, const int64_t *v)
{
	struct mapped *m = &b->values[n->out[0]];

	*m = (struct mapped){.id = -1, .n = count};
	memcpy(m->v, v, (size_t)count * sizeof(*v));
	return 0;
}

const char *to_net_name(struct to_net *b, char *ret, size_t size)
{
	snprintf(ret, size, "node%d", b->net->n_nodes);
	return ret;
}

void to_net_fill(struct to_net *b, int param, const float *from)
{
	b->fills[b->n_fills++] = (struct fill){.param = param, .from = from};
}

float *to_net_fill_own(struct to_net *b, int param, const float *from, int n, float otherwise)
{
	float *own = malloc((size_t)n * sizeof(*own));

	if (!own)
		return NULL;
	for (int i = 0; i < n; i++)
		own[i] = from ? from[i] : otherwise;
	b->fills[b->n_fills++] = (struct fill){.param = param, .own = own};
	return own;
}

struct fill *to_net_fill_of(struct to_net *b, int param)
{
	for (int i = b->n_fills - 1; i >= 0; i--)
		if (b->fills[i].param == param)
			return &b->fills[i];
	return NULL;
}

/* --- the pass --- */

static const struct {
	const char *type;
	int (*map)(struct to_net *b, const struct onnx_node *n);
} maps[] = {
	{"Add", map_add},
	{"AveragePool", map_average_pool},
	{"BatchNormalization", map_batch_norm},
	{"Cast", map_cast},
	{"Clip", map_clip},
	{"Concat", map_concat},
	{"Constant", map_constant},
	{"Conv", map_conv},
	{"Div", map_div},
	{"Dropout", map_same},
	{"Flatten", map_flatten},
	{"Gather", map_gather},
	{"Gemm", map_gemm},
	{"GlobalAveragePool", map_global_pool},
	{"GroupNormalization", map_group_norm},
	{"Identity", map_same},
	{"InstanceNormalization", map_instance_norm},
	{"LogSoftmax", map_softmax},
	{"MatMul", map_matmul},
	{"MaxPool", map_max_pool},
	{"Mul", map_mul},
	{"ReduceMean", map_reduce_mean},
	{"Relu", map_relu},
	{"Reshape", map_reshape},
	{"Shape", map_shape},
	{"Slice", map_slice},
	{"Softmax", map_softmax},
	{"Squeeze", map_squeeze},
	{"Sub", map_sub},
	{"Transpose", map_transpose},
	{"Unsqueeze", map_unsqueeze},
};

static int map_node(struct to_net *b, const struct onnx_node *n)
{
	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
		if (strcmp(maps[i].type, n->op->type) == 0)
			return n->n_out < 1 || n->out[0] < 0 ? 0 : maps[i].map(b, n);
	return to_net_no(b, n, "the engine has no such layer");
}

static void take_weights(struct to_net *b)
{
	for (int i = 0; i < b->n_fills; i++) {
		const struct fill *f = &b->fills[i];
		struct param *p = &b->net->params.list[f->param];
		size_t rows = (size_t)p->dims[0], columns = p->size / (rows ? rows : 1);

		if (f->transpose) {
			for (size_t o = 0; o < rows; o++)
				for (size_t k = 0; k < columns; k++)
					p->value[o * columns + k] = f->from[k * rows + o];
		} else {
			memcpy(p->value, f->own ? f->own : f->from, p->size * sizeof(*p->value));
		}
	}
	params_changed(&b->net->params);
}

int onnx_to_net(struct net **ret, const struct onnx_model *m, const struct onnx_image *image, struct err *err)
{
	struct to_net b = {.g = m->graph, .image = image, .err = err};
	int r = net_new(&b.net, image->channels, image->height, image->width, err);

	if (r < 0)
		return r;
	b.values = calloc((size_t)m->graph->n_values + 1, sizeof(*b.values));
	b.done = calloc((size_t)m->graph->n_nodes + 1, sizeof(*b.done));
	b.fills = calloc((size_t)m->graph->n_nodes * 4 + 1, sizeof(*b.fills));
	if (!b.values || !b.done || !b.fills) {
		r = err_set(err, ERR_NO_MEMORY, "a network");
		goto out;
	}
	for (int i = 0; i < m->graph->n_values; i++)
		b.values[i] = (struct mapped){.id = -1, .n = -1};
	b.values[m->graph->in[0]] = (struct mapped){.id = 0, .rank = 4, .raw = image->nhwc, .n = -1};
	for (int i = 0; r == 0 && i < m->graph->n_nodes; i++)
		if (!b.done[i])
			r = map_node(&b, &m->graph->nodes[i]);
	if (r == 0 &&
	    (!mapped_is_plain(&b.values[m->graph->out[0]], 0) || b.values[m->graph->out[0]].id == 0))
		r = err_set(err, ERR_UNSUPPORTED_OP, "the output isn't what a layer makes");
	if (r == 0)
		r = net_finish(b.net, b.values[m->graph->out[0]].id, err);
	if (r == 0) {
		take_weights(&b);
		*ret = b.net;
		b.net = NULL;
	}
out:
	for (int i = 0; b.fills && i < b.n_fills; i++)
		free(b.fills[i].own);
	free(b.fills);
	free(b.done);
	free(b.values);
	net_free(b.net);
	if (r < 0 && r != -ENOMEM) /* what the network doesn't take, the interpreter may */
		r = -EOPNOTSUPP;
	return r;
}

/* --- inputs and outputs --- */

bool onnx_gives_probabilities(const struct onnx_model *m)
{
	const struct onnx_maker *v = &m->graph->values[m->graph->out[0]];

	return v->node >= 0 && strcmp(m->graph->nodes[v->node].op->type, "Softmax") == 0;
}

static bool colours(int64_t d)
{
	return d == 1 || d == 3;
}

int onnx_image(struct onnx_image *ret, const struct onnx_model *m, struct err *err)
{
	struct onnx_image image = *ret;
	const struct onnx_value *v;
	const int64_t *d;
	char dims[128];

	if (onnx_inputs(m) != 1)
		return err_set(err, ERR_NO_IMAGES, "it has %zu inputs; images are one", onnx_inputs(m));
	v = onnx_input(m, 0);
	d = v->dims;
	dims_text(dims, sizeof(dims), v->rank > 0 ? v->rank : 0, v->dims);
	if (v->type != ONNX_FLOAT || v->rank != 4)
		return err_set(err, ERR_NO_IMAGES, "its input '%.60s' is %s %s", v->name,
			       onnx_type_name(v->type), dims);
	image.nhwc = !colours(d[1]) && (colours(d[3]) || d[1] > 0);
	if (!colours(d[1]) && !colours(d[3]) && d[1] > 0 && d[3] > 0)
		return err_set(err, ERR_NO_IMAGES, "its input '%.60s' is %s: neither 1 nor 3 channels",
			       v->name, dims);
	const int64_t at[3] = {d[image.nhwc ? 3 : 1], d[image.nhwc ? 1 : 2], d[image.nhwc ? 2 : 3]};
	int *to[3] = {&image.channels, &image.height, &image.width};
	for (int i = 0; i < 3; i++) {
		if (at[i] > 0 && *to[i] && at[i] != *to[i])
			return err_set(err, ERR_SPEC_VALUE, "\"input\": %dx%dx%d, but the model's is %s",
				       ret->channels, ret->height, ret->width, dims);
		if (at[i] > 0)
			*to[i] = at[i] <= INT32_MAX ? (int)at[i] : INT32_MAX;
	}
	if (!image.channels || !image.height || !image.width)
		return err_set(err, ERR_NO_IMAGES,
			       "its input '%.60s' is %s: say its size in model.json, {\"input\":[3,224,224]}",
			       v->name, dims);
	if (d[0] == 0 || d[0] > 4096)
		return err_set(err, ERR_NO_IMAGES, "its input '%.60s' is %s", v->name, dims);
	image.batch = d[0] > 0 ? (int)d[0] : 0;
	*ret = image;
	return 0;
}
