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
#include "engine/onnx/to_net.h"

#include "engine/onnx/op.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH     INT64_MIN
#define MAX_KNOWN 8

struct mapped {
	int id;     /* of the network's node; -1: not mapped */
	int rank;   /* 4 or 2; grouped: before and after */
	int groups; /* grouped: how many; 0: it isn't */
	float eps;  /* grouped, and normalised: > 0 */
	bool raw;   /* the input as (N, H, W, C) */
	int n;      /* known: so many; -1: not known */
	int64_t v[MAX_KNOWN];
};

/* What a parameter of the network will be: from[…], or its own. */
struct fill {
	int param;
	bool transpose; /* of a weight (inputs, outputs) */
	const float *from;
	float *own;
};

struct builder {
	const struct onnx_graph *g;
	const struct onnx_image *image;
	struct net *net;
	struct mapped *values; /* (g->n_values) */
	bool *done;            /* (g->n_nodes): taken together with an earlier one */
	struct fill *fills;
	int n_fills;
	struct err *err;
};

static int no(struct builder *b, const struct onnx_node *n, const char *why)
{
	return err_set(b->err, ERR_UNSUPPORTED_OP, "%s '%.100s': %s", n->op->type, n->name, why);
}

/* --- what a node has --- */

static int64_t attr_i(const struct onnx_node *n, const char *name, int64_t otherwise)
{
	const struct onnx_attr *a = onnx_attr_find(n, name);

	return a && a->type == ONNX_ATTR_INT ? a->i : otherwise;
}

static float attr_f(const struct onnx_node *n, const char *name, float otherwise)
{
	const struct onnx_attr *a = onnx_attr_find(n, name);

	return a && a->type == ONNX_ATTR_FLOAT ? a->f : otherwise;
}

/* Element i of a list; `otherwise` without the list. */
static int64_t attr_at(const struct onnx_node *n, const char *name, size_t i, int64_t otherwise)
{
	const struct onnx_attr *a = onnx_attr_find(n, name);

	if (!a || a->type != ONNX_ATTR_INTS)
		return otherwise;
	return i < a->n ? a->ints[i] : INT64_MIN; /* too short: nothing that anybody takes */
}

static bool has_in(const struct onnx_node *n, int i)
{
	return i < n->n_in && n->in[i] >= 0;
}

static struct mapped *in(struct builder *b, const struct onnx_node *n, int i)
{
	static struct mapped none = {.id = -1, .n = -1};

	return has_in(n, i) ? &b->values[n->in[i]] : &none;
}

static const struct onnx_tensor *constant(struct builder *b, const struct onnx_node *n, int i)
{
	const struct onnx_maker *v;
	const struct onnx_attr *a;

	if (!has_in(n, i))
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

/* Floats of that many elements; NULL: it isn't. */
static const float *floats(struct builder *b, const struct onnx_node *n, int i, size_t count)
{
	const struct onnx_tensor *t = constant(b, n, i);

	return t && t->type == ONNX_FLOAT && t->count == count ? t->data : NULL;
}

/* A number from an input; false: it isn't a constant. */
static bool scalar(struct builder *b, const struct onnx_node *n, int i, float *ret)
{
	const float *f = floats(b, n, i, 1);

	if (f)
		*ret = *f;
	return f != NULL;
}

/* A short vector, from a constant or from what is known. */
static bool known(struct builder *b, const struct onnx_node *n, int i, int *ret_n, int64_t *v)
{
	const struct onnx_tensor *t = constant(b, n, i);
	const struct mapped *m = in(b, n, i);

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

/* Axes from input i or the attribute; none there: *ret_n is 0. */
static bool axes_of(struct builder *b, const struct onnx_node *n, int i, int rank, int *ret_n, int64_t *axes)
{
	const struct onnx_attr *a = onnx_attr_find(n, "axes");

	*ret_n = 0;
	if (a && a->type == ONNX_ATTR_INTS && a->n <= MAX_KNOWN) {
		*ret_n = (int)a->n;
		memcpy(axes, a->ints, a->n * sizeof(*axes));
	} else if (has_in(n, i) && !known(b, n, i, ret_n, axes)) {
		return false;
	}
	for (int k = 0; k < *ret_n; k++)
		axes[k] += axes[k] < 0 ? rank : 0;
	return true;
}

static struct node *node_of(struct builder *b, const struct mapped *x)
{
	return &b->net->nodes[x->id];
}

/* It is mapped and nothing else. */
static bool plain(const struct mapped *x, int rank)
{
	return x->id >= 0 && !x->groups && !x->raw && (!rank || x->rank == rank);
}

/* --- what it makes --- */

static int give(struct builder *b, const struct onnx_node *n, int id, int rank)
{
	if (id < 0)
		return id;
	if (n->out[0] >= 0)
		b->values[n->out[0]] = (struct mapped){.id = id, .rank = rank, .n = -1};
	return 0;
}

static int give_known(struct builder *b, const struct onnx_node *n, int count, const int64_t *v)
{
	struct mapped *m = &b->values[n->out[0]];

	*m = (struct mapped){.id = -1, .n = count};
	memcpy(m->v, v, (size_t)count * sizeof(*v));
	return 0;
}

static const char *name_of(struct builder *b, char *ret, size_t size)
{
	snprintf(ret, size, "node%d", b->net->n_nodes);
	return ret;
}

/* Room in fills was made for all. */
static void fill(struct builder *b, int param, const float *from)
{
	b->fills[b->n_fills++] = (struct fill){.param = param, .from = from};
}

static float *fill_own(struct builder *b, int param, const float *from, int n, float otherwise)
{
	float *own = malloc((size_t)n * sizeof(*own));

	if (!own)
		return NULL;
	for (int i = 0; i < n; i++)
		own[i] = from ? from[i] : otherwise;
	b->fills[b->n_fills++] = (struct fill){.param = param, .own = own};
	return own;
}

static struct fill *fill_of(struct builder *b, int param)
{
	for (int i = b->n_fills - 1; i >= 0; i--)
		if (b->fills[i].param == param)
			return &b->fills[i];
	return NULL;
}

/* --- convolution, linear --- */

/* Padding by auto_pad or pads, equal at both sides of the height and of the width. */
static bool pads_of(const struct onnx_node *n, const struct node *from, const int64_t *kernel, int64_t stride,
		    int *ret_h, int *ret_w)
{
	const struct onnx_attr *a = onnx_attr_find(n, "auto_pad");
	int side[2] = {from->height, from->width}, pad[2];

	for (int d = 0; d < 2; d++) {
		int64_t begin = attr_at(n, "pads", (size_t)d, 0), end = attr_at(n, "pads", (size_t)d + 2, 0);

		if (a && a->type == ONNX_ATTR_STRING && strcmp(a->s, "VALID") == 0) {
			begin = end = 0;
		} else if (a && a->type == ONNX_ATTR_STRING && strncmp(a->s, "SAME_", 5) == 0) {
			int64_t all = ((side[d] + stride - 1) / stride - 1) * stride + kernel[d] - side[d];

			all = all > 0 ? all : 0;
			begin = all / 2;
			end = all - begin;
		}
		if (begin != end || begin < 0 || begin > 4096)
			return false;
		pad[d] = (int)begin;
	}
	*ret_h = pad[0];
	*ret_w = pad[1];
	return true;
}

static int one_stride(const struct onnx_node *n)
{
	int64_t s = attr_at(n, "strides", 0, 1);

	return s == attr_at(n, "strides", 1, 1) && s >= 1 && s <= 4096 &&
			       attr_at(n, "dilations", 0, 1) == 1 && attr_at(n, "dilations", 1, 1) == 1
		       ? (int)s
		       : -1;
}

static int map_conv(struct builder *b, const struct onnx_node *n)
{
	const struct onnx_tensor *w = constant(b, n, 1);
	const struct mapped *x = in(b, n, 0);
	struct conv2d_attr attr = {.stride = one_stride(n), .bias = has_in(n, 2)};
	int64_t groups = attr_i(n, "group", 1);
	const float *bias = NULL;
	char name[32];
	int id, r;

	if (!plain(x, 4) || !w || w->type != ONNX_FLOAT || w->rank != 4 || !w->count)
		return no(b, n, "not a convolution of a plane by constant weights");
	if (attr.stride < 0 || !pads_of(n, node_of(b, x), w->dims + 2, attr.stride, &attr.pad, &attr.pad_w))
		return no(b, n, "its strides differ, or it is dilated, or padded on one side only");
	for (int d = 0; d < 4; d++)
		if (w->dims[d] > INT32_MAX / 2)
			return no(b, n, "its weights are too large");
	if (groups < 1 || groups > INT32_MAX || w->dims[1] * groups != node_of(b, x)->channels)
		return no(b, n, "its weights don't fit its input");
	if (attr.bias && !(bias = floats(b, n, 2, (size_t)w->dims[0])))
		return no(b, n, "its bias is computed");
	attr.channels = (int)w->dims[0];
	attr.kernel = (int)w->dims[2];
	attr.kernel_w = (int)w->dims[3];
	attr.conv_groups = (int)groups;
	id = net_conv2d(b->net, name_of(b, name, sizeof(name)), x->id, &attr, b->err);
	r = give(b, n, id, 4);
	if (r < 0)
		return r;
	fill(b, b->net->nodes[id].weight, w->data);
	if (bias)
		fill(b, b->net->nodes[id].bias, bias);
	return 0;
}

static int linear(struct builder *b, const struct onnx_node *n, const struct mapped *x, int features,
		  const float *weight, bool transpose, const float *bias)
{
	const struct linear_attr attr = {.features = features, .bias = bias != NULL};
	char name[32];
	int id = net_linear(b->net, name_of(b, name, sizeof(name)), x->id, &attr, b->err);
	int r = give(b, n, id, 2);

	if (r < 0)
		return r;
	fill(b, b->net->nodes[id].weight, weight);
	b->fills[b->n_fills - 1].transpose = transpose;
	if (bias)
		fill(b, b->net->nodes[id].bias, bias);
	return 0;
}

/* The rank 2 weight of a linear layer; *ret_out: its outputs. NULL: not one for x. */
static const float *linear_weight(struct builder *b, const struct onnx_node *n, const struct mapped *x,
				  bool by_rows, int *ret_out)
{
	const struct onnx_tensor *w = constant(b, n, 1);
	const struct node *from;
	int64_t inputs;

	if (!plain(x, 2) || !w || w->type != ONNX_FLOAT || w->rank != 2 || !w->count)
		return NULL;
	from = node_of(b, x);
	inputs = (int64_t)from->channels * from->height * from->width;
	if (w->dims[by_rows ? 1 : 0] != inputs || w->dims[by_rows ? 0 : 1] > INT32_MAX / 2)
		return NULL;
	*ret_out = (int)w->dims[by_rows ? 0 : 1];
	return w->data;
}

static int map_gemm(struct builder *b, const struct onnx_node *n)
{
	bool by_rows = attr_i(n, "transB", 0) != 0;
	const struct mapped *x = in(b, n, 0);
	const float *w, *bias = NULL;
	int out;

	w = linear_weight(b, n, x, by_rows, &out);
	if (!w || attr_i(n, "transA", 0) || attr_f(n, "alpha", 1) != 1 || attr_f(n, "beta", 1) != 1)
		return no(b, n, "not a linear layer");
	if (has_in(n, 2) && !(bias = floats(b, n, 2, (size_t)out)))
		return no(b, n, "its bias isn't one number an output");
	return linear(b, n, x, out, w, !by_rows, bias);
}

/* The Add of a constant vector, which alone reads what n makes; NULL: none. */
static const struct onnx_node *bias_after(struct builder *b, const struct onnx_node *n, int features,
					  const float **bias)
{
	if (n->out[0] < 0 || b->g->values[n->out[0]].uses != 1)
		return NULL;
	for (int i = 0; i < b->g->n_nodes; i++) {
		const struct onnx_node *add = &b->g->nodes[i];

		for (int k = 0; k < 2 && add->n_in == 2 && strcmp(add->op->type, "Add") == 0; k++)
			if (add->in[k] == n->out[0] && (*bias = floats(b, add, 1 - k, (size_t)features)) &&
			    constant(b, add, 1 - k)->rank <= 2)
				return add;
	}
	return NULL;
}

static int map_matmul(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	const struct onnx_node *add;
	const float *w, *bias = NULL;
	int out;

	w = linear_weight(b, n, x, false, &out);
	if (!w)
		return no(b, n, "not a linear layer");
	add = bias_after(b, n, out, &bias);
	if (!add)
		return linear(b, n, x, out, w, true, NULL);
	b->done[add - b->g->nodes] = true;
	return linear(b, add, x, out, w, true, bias);
}

/* --- norms, and what is one by channel --- */

static int batch_norm(struct builder *b, const struct onnx_node *n, const struct mapped *x, float eps,
		      const float *const from[4])
{
	static const float otherwise[4] = {1, 0, 0, 1};
	int channels = node_of(b, x)->channels;
	char name[32];
	int id = net_batch_norm(b->net, name_of(b, name, sizeof(name)), x->id, eps, b->err);
	int r = give(b, n, id, x->rank);

	for (int k = 0; r == 0 && k < 4; k++)
		if (!fill_own(b, b->net->nodes[id].weight + k, from[k], channels, otherwise[k]))
			r = err_set(b->err, ERR_NO_MEMORY, "a norm");
	return r;
}

static int map_batch_norm(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	const float *from[4];
	bool good = plain(x, 0);

	for (int k = 0; good && k < 4; k++)
		good = (from[k] = floats(b, n, k + 1, (size_t)node_of(b, x)->channels));
	if (!good || attr_i(n, "training_mode", 0) || attr_i(n, "spatial", 1) != 1 ||
	    (n->version < 7 && !attr_i(n, "is_test", 0)))
		return no(b, n, "not a normalisation by known statistics");
	return batch_norm(b, n, x, attr_f(n, "epsilon", 1e-5f), from);
}

static int group_norm(struct builder *b, const struct onnx_node *n, const struct mapped *x, int groups,
		      float eps, const float *scale, const float *shift)
{
	int channels = node_of(b, x)->channels;
	char name[32];
	int id = net_group_norm(b->net, name_of(b, name, sizeof(name)), x->id, groups, b->err);
	int r = give(b, n, id, x->rank);

	if (r < 0)
		return r;
	b->net->nodes[id].norm.eps = eps;
	if (!fill_own(b, b->net->nodes[id].weight, scale, channels, 1) ||
	    !fill_own(b, b->net->nodes[id].bias, shift, channels, 0))
		return err_set(b->err, ERR_NO_MEMORY, "a norm");
	return 0;
}

static bool all_are(const float *f, int n, float value)
{
	for (int i = 0; f && i < n; i++)
		if (f[i] != value)
			return false;
	return f != NULL;
}

/* Of a plane: each channel by itself. Of (N, G, …): the middle of PyTorch's way to write a group normalisation. */
static int map_instance_norm(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	float eps = attr_f(n, "epsilon", 1e-5f);
	struct mapped *to = &b->values[n->out[0]];

	if (x->id >= 0 && x->groups && !(x->eps > 0) && eps > 0 &&
	    all_are(floats(b, n, 1, (size_t)x->groups), x->groups, 1) &&
	    all_are(floats(b, n, 2, (size_t)x->groups), x->groups, 0)) {
		*to = *x;
		to->eps = eps;
		return 0;
	}
	if (plain(x, 4)) {
		size_t channels = (size_t)node_of(b, x)->channels;
		const float *scale = floats(b, n, 1, channels), *shift = floats(b, n, 2, channels);

		if (scale && shift)
			return group_norm(b, n, x, (int)channels, eps, scale, shift);
	}
	return no(b, n, "not a normalisation of a plane's channels or groups");
}

static int map_group_norm(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	int64_t groups = attr_i(n, "num_groups", 0);
	const float *scale, *shift;
	int channels;

	if (!plain(x, 4) || groups < 1 || groups > node_of(b, x)->channels)
		return no(b, n, "not a normalisation of a plane");
	channels = node_of(b, x)->channels;
	scale = floats(b, n, 1, (size_t)channels);
	shift = floats(b, n, 2, (size_t)channels);
	if (!scale || !shift || (n->version < 21 && groups != channels))
		return no(b, n, "its scale isn't one constant a channel");
	return group_norm(b, n, x, (int)groups, attr_f(n, "epsilon", 1e-5f), scale, shift);
}

/* The constant as one number for each channel of x. NULL: it is more than that. */
static const float *by_channel(const struct onnx_tensor *t, const struct mapped *x, int channels, float *one)
{
	bool fits = t && t->type == ONNX_FLOAT && t->rank <= x->rank;

	if (fits && t->count == 1) {
		for (int c = 0; c < channels; c++)
			one[c] = *(const float *)t->data;
		return one;
	}
	if (!fits || t->count != (size_t)channels)
		return NULL;
	/* (C, 1, 1) or (1, C, 1, 1) of rank 4; (C) or (1, C) of rank 2 */
	return t->rank >= x->rank - 1 && t->dims[t->rank - (x->rank - 1)] == channels ? t->data : NULL;
}

/* y = scale·x + shift, either NULL: none. */
static int affine(struct builder *b, const struct onnx_node *n, const struct mapped *x, int value,
		  const float *scale, const float *shift)
{
	struct node *node = node_of(b, x);
	const float *from[4] = {scale, shift, NULL, NULL};
	struct fill *weight, *bias;

	if ((node->op == OP_batch_norm || node->op == OP_group_norm) && b->g->values[value].uses == 1) {
		weight = fill_of(b, node->weight);
		bias = fill_of(b, node->bias);
		for (int c = 0; c < node->channels; c++) {
			float s = scale ? scale[c] : 1;

			weight->own[c] *= s;
			bias->own[c] = bias->own[c] * s + (shift ? shift[c] : 0);
		}
		return give(b, n, x->id, x->rank);
	}
	return batch_norm(b, n, x, 0, from);
}

enum arithmetic { ADDS, SUBTRACTS, MULTIPLIES, DIVIDES };

static int by_constant(struct builder *b, const struct onnx_node *n, enum arithmetic what)
{
	int k = plain(in(b, n, 0), 0) ? 0 : 1;
	const struct mapped *x = in(b, n, k);
	const struct onnx_tensor *t = constant(b, n, 1 - k);
	float *own = NULL;
	const float *f;
	int channels, r;

	if (!plain(x, 0) || (k == 1 && (what == SUBTRACTS || what == DIVIDES)))
		return no(b, n, "not of a plane and a constant");
	channels = node_of(b, x)->channels;
	own = calloc((size_t)channels, sizeof(*own));
	if (!own)
		return err_set(b->err, ERR_NO_MEMORY, "a node");
	f = by_channel(t, x, channels, own);
	if (!f) {
		r = no(b, n, "its constant isn't one number a channel");
	} else {
		for (int c = 0; c < channels; c++)
			own[c] = what == SUBTRACTS ? -f[c] : what == DIVIDES ? 1 / f[c] : f[c];
		r = affine(b, n, x, n->in[k], what >= MULTIPLIES ? own : NULL,
			   what < MULTIPLIES ? own : NULL);
	}
	free(own);
	return r;
}

static int map_add(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0), *y = in(b, n, 1);

	if (plain(x, 0) && plain(y, x->rank))
		return give(b, n, net_add(b->net, x->id, y->id, b->err), x->rank);
	return by_constant(b, n, ADDS);
}

static int map_sub(struct builder *b, const struct onnx_node *n)
{
	return by_constant(b, n, SUBTRACTS);
}

static int map_mul(struct builder *b, const struct onnx_node *n)
{
	return by_constant(b, n, MULTIPLIES);
}

static int map_div(struct builder *b, const struct onnx_node *n)
{
	return by_constant(b, n, DIVIDES);
}

/* --- activations --- */

static int map_relu(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);

	if (!plain(x, 0))
		return no(b, n, "not of a plane or of features");
	return give(b, n, net_relu(b->net, x->id, b->err), x->rank);
}

static int map_clip(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	float min = attr_f(n, "min", -FLT_MAX), max = attr_f(n, "max", FLT_MAX);

	if (!plain(x, 0) || (has_in(n, 1) && !scalar(b, n, 1, &min)) ||
	    (has_in(n, 2) && !scalar(b, n, 2, &max)) || min != 0 || (max != 6 && max < FLT_MAX))
		return no(b, n, "it isn't a ReLU or ReLU6");
	return give(b, n, max == 6 ? net_relu6(b->net, x->id, b->err) : net_relu(b->net, x->id, b->err),
		    x->rank);
}

/* What changes nothing when a model is used. */
static int map_same(struct builder *b, const struct onnx_node *n)
{
	if (n->n_out > 1 && n->out[1] >= 0 && b->g->values[n->out[1]].uses)
		return no(b, n, "its second output is used");
	if (has_in(n, 2)) /* Dropout's training mode */
		return no(b, n, "it may be training");
	b->values[n->out[0]] = *in(b, n, 0);
	return 0;
}

static int map_cast(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	int64_t to = attr_i(n, "to", 0), v[MAX_KNOWN];
	int count;

	if (plain(x, 0) && to == ONNX_FLOAT)
		return map_same(b, n);
	if ((to == ONNX_INT64 || to == ONNX_INT32) && known(b, n, 0, &count, v))
		return give_known(b, n, count, v);
	return no(b, n, "a conversion");
}

/* At the end of the graph it is left out: who reads the logits takes the softmax. */
static int map_softmax(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	int64_t axis = attr_i(n, "axis", n->version < 13 ? 1 : -1);

	if (!plain(x, 0) || n->out[0] != b->g->out[0] || b->g->values[n->out[0]].uses != 1 ||
	    (axis < 0 ? axis + x->rank : axis) != 1)
		return no(b, n, "a softmax that isn't the end, over the classes");
	return give(b, n, x->id, x->rank);
}

/* --- pools --- */

static int pool(struct builder *b, const struct onnx_node *n, bool average)
{
	const struct mapped *x = in(b, n, 0);
	struct pool_attr attr = {.stride = one_stride(n), .exclude_pad = !attr_i(n, "count_include_pad", 0)};
	int64_t kernel[2] = {attr_at(n, "kernel_shape", 0, 0), attr_at(n, "kernel_shape", 1, 0)};
	int pad_w;

	if (!plain(x, 4) || kernel[0] != kernel[1] || kernel[0] < 1 || kernel[0] > 4096 || attr.stride < 0 ||
	    (n->n_out > 1 && n->out[1] >= 0) ||
	    !pads_of(n, node_of(b, x), kernel, attr.stride, &attr.pad, &pad_w) || attr.pad != pad_w)
		return no(b, n, "its window isn't square, or it is dilated, or padded on one side only");
	attr.kernel = (int)kernel[0];
	if (attr_i(n, "ceil_mode", 0) &&
	    ((node_of(b, x)->height + 2 * attr.pad - attr.kernel) % attr.stride ||
	     (node_of(b, x)->width + 2 * attr.pad - attr.kernel) % attr.stride))
		return no(b, n, "its last windows are cut off");
	return give(b, n,
		    average ? net_avg_pool(b->net, x->id, &attr, b->err)
			    : net_max_pool(b->net, x->id, &attr, b->err),
		    4);
}

static int map_max_pool(struct builder *b, const struct onnx_node *n)
{
	return pool(b, n, false);
}

static int map_average_pool(struct builder *b, const struct onnx_node *n)
{
	return pool(b, n, true);
}

static int map_global_pool(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);

	if (!plain(x, 4))
		return no(b, n, "not of a plane");
	return give(b, n, net_global_avg_pool(b->net, x->id, b->err), 4);
}

static int map_reduce_mean(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	int64_t axes[MAX_KNOWN];
	int count;

	if (!plain(x, 4) || !axes_of(b, n, 1, 4, &count, axes) || count != 2 || axes[0] + axes[1] != 5 ||
	    (axes[0] != 2 && axes[0] != 3))
		return no(b, n, "not the mean of a plane");
	return give(b, n, net_global_avg_pool(b->net, x->id, b->err), attr_i(n, "keepdims", 1) ? 4 : 2);
}

/* --- shapes --- */

/* Rank 4 to rank 2 */
static int flatten(struct builder *b, const struct onnx_node *n, const struct mapped *x)
{
	const struct node *node = node_of(b, x);

	if (x->rank == 2 || node->flat || node->height * node->width == 1)
		return give(b, n, x->id, 2);
	return give(b, n, net_flatten(b->net, x->id, b->err), 2);
}

static int map_flatten(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	int64_t axis = attr_i(n, "axis", 1);

	if (!plain(x, 0) || (axis < 0 ? axis + x->rank : axis) != 1)
		return no(b, n, "it flattens the batch, too");
	return flatten(b, n, x);
}

static bool is_batch(const struct builder *b, int64_t v)
{
	return v == BATCH || v == 0 || (b->image->batch && v == b->image->batch);
}

static int map_reshape(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	int64_t v[MAX_KNOWN], size;
	const struct node *node;
	int count;

	if (x->id < 0 || x->raw || attr_i(n, "allowzero", 0) || !known(b, n, 1, &count, v))
		return no(b, n, "not to a constant shape");
	node = node_of(b, x);
	size = (int64_t)node->channels * node->height * node->width;
	if (x->groups) { /* back from a group normalisation */
		const bool same = count == x->rank && is_batch(b, v[0]) &&
				  (v[1] == node->channels || (count == 2 && v[1] == -1)) &&
				  (count == 2 || ((v[2] == node->height || v[2] == -1) &&
						  (v[3] == node->width || v[3] == -1)));

		if (!same || !(x->eps > 0))
			return no(b, n, "not what a group normalisation ends with");
		return group_norm(b, n, x, x->groups, x->eps, NULL, NULL);
	}
	if (count == 2 &&
	    ((is_batch(b, v[0]) && (v[1] == -1 || v[1] == size)) || (v[0] == -1 && v[1] == size)))
		return flatten(b, n, x);
	/* flattened planes are grouped by pixels of channels, which no norm of ours does */
	if (count == 3 && (x->rank == 4 || node->height * node->width == 1) && is_batch(b, v[0]) &&
	    v[1] > 0 && v[1] <= node->channels && node->channels % v[1] == 0 &&
	    (v[2] == -1 || v[2] == size / v[1])) {
		b->values[n->out[0]] =
			(struct mapped){.id = x->id, .rank = x->rank, .groups = (int)v[1], .n = -1};
		return 0;
	}
	if (count == 4 && node->height * node->width == 1 && !node->flat &&
	    (is_batch(b, v[0]) || v[0] == -1) && v[1] == size && v[2] == 1 && v[3] == 1)
		return give(b, n, x->id, 4);
	return no(b, n, "to a shape that isn't one of features");
}

static int map_squeeze(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	int64_t axes[MAX_KNOWN], v[MAX_KNOWN];
	int count;

	if (known(b, n, 0, &count, v))
		return give_known(b, n, count, v); /* a vector of one, and a number: the same here */
	if (!plain(x, 4) || node_of(b, x)->height * node_of(b, x)->width != 1 ||
	    !axes_of(b, n, 1, 4, &count, axes) || count != 2 || axes[0] + axes[1] != 5)
		return no(b, n, "not of a plane of one pixel");
	return give(b, n, x->id, 2);
}

static int map_unsqueeze(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	int64_t axes[MAX_KNOWN], v[MAX_KNOWN];
	int count;

	if (known(b, n, 0, &count, v))
		return give_known(b, n, count, v);
	if (!plain(x, 2) || node_of(b, x)->flat || node_of(b, x)->height * node_of(b, x)->width != 1 ||
	    !axes_of(b, n, 1, 4, &count, axes) || count != 2 || axes[0] + axes[1] != 5)
		return no(b, n, "not to a plane of one pixel");
	return give(b, n, x->id, 4);
}

/* Only of the input itself, which then is in the order that ONNX wants; ours is (N, H, W, C) anyway. */
static int map_transpose(struct builder *b, const struct onnx_node *n)
{
	static const int64_t want[4] = {0, 3, 1, 2};
	const struct mapped *x = in(b, n, 0);
	bool good = x->id == 0 && x->raw;

	for (size_t i = 0; i < 4; i++)
		good &= attr_at(n, "perm", i, -1) == want[i];
	return good ? give(b, n, 0, 4) : no(b, n, "an order of dimensions");
}

static int map_shape(struct builder *b, const struct onnx_node *n)
{
	const struct mapped *x = in(b, n, 0);
	const struct node *node;
	int64_t v[4] = {BATCH};

	if (!plain(x, 0) || onnx_attr_find(n, "start") || onnx_attr_find(n, "end"))
		return no(b, n, "not of a plane or of features");
	node = node_of(b, x);
	v[1] = x->rank == 4 ? node->channels : (int64_t)node->channels * node->height * node->width;
	v[2] = node->height;
	v[3] = node->width;
	return give_known(b, n, x->rank, v);
}

static int map_gather(struct builder *b, const struct onnx_node *n)
{
	int64_t v[MAX_KNOWN], at[MAX_KNOWN], out[MAX_KNOWN];
	int count, n_at;

	if (attr_i(n, "axis", 0) || !known(b, n, 0, &count, v) || !known(b, n, 1, &n_at, at))
		return no(b, n, "not of a shape");
	for (int i = 0; i < n_at; i++) {
		at[i] += at[i] < 0 && at[i] >= -count ? count : 0;
		if (at[i] < 0 || at[i] >= count)
			return no(b, n, "beyond the shape");
		out[i] = v[at[i]];
	}
	return give_known(b, n, n_at, out);
}

static int map_slice(struct builder *b, const struct onnx_node *n)
{
	int64_t v[MAX_KNOWN], from[MAX_KNOWN], to[MAX_KNOWN], step[MAX_KNOWN] = {1};
	int count, n_from, n_to, n_step = 1;

	if (!known(b, n, 0, &count, v) || !known(b, n, 1, &n_from, from) || !known(b, n, 2, &n_to, to) ||
	    (has_in(n, 4) && !known(b, n, 4, &n_step, step)) || n_from != 1 || n_to != 1 || n_step != 1 ||
	    step[0] != 1)
		return no(b, n, "not of a shape");
	from[0] += from[0] < 0 ? count : 0;
	to[0] += to[0] < 0 ? count : 0;
	to[0] = to[0] > count ? count : to[0];
	if (from[0] < 0 || from[0] > to[0])
		return no(b, n, "beyond the shape");
	return give_known(b, n, (int)(to[0] - from[0]), v + from[0]);
}

static int map_concat(struct builder *b, const struct onnx_node *n)
{
	int64_t v[MAX_KNOWN], axis = attr_i(n, "axis", 1);
	const struct mapped *x = in(b, n, 0);
	int64_t part[MAX_KNOWN];
	int count = 0, id, k;

	if (plain(x, 4)) {
		id = x->id;
		if ((axis < 0 ? axis + 4 : axis) != 1)
			return no(b, n, "not of channels");
		for (int i = 1; i < n->n_in; i++) {
			const struct mapped *y = in(b, n, i);

			if (!plain(y, 4))
				return no(b, n, "not of planes");
			id = net_concat(b->net, id, y->id, b->err);
		}
		return give(b, n, id, 4);
	}
	for (int i = 0; i < n->n_in; i++) {
		if (!known(b, n, i, &k, part) || count + k > MAX_KNOWN)
			return no(b, n, "not of planes or of a shape");
		memcpy(v + count, part, (size_t)k * sizeof(*v));
		count += k;
	}
	return give_known(b, n, count, v);
}

/* Who reads it finds it by constant(); a value that it says otherwise is nobody's here. */
static int map_constant(struct builder *b, const struct onnx_node *n)
{
	const struct onnx_attr *a = onnx_attr_find(n, "value_ints");

	if (a && a->type == ONNX_ATTR_INTS && a->n <= MAX_KNOWN)
		return give_known(b, n, (int)a->n, a->ints);
	a = onnx_attr_find(n, "value_int");
	return a && a->type == ONNX_ATTR_INT ? give_known(b, n, 1, &a->i) : 0;
}

/* --- the pass --- */

static const struct {
	const char *type;
	int (*map)(struct builder *b, const struct onnx_node *n);
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

static int map_node(struct builder *b, const struct onnx_node *n)
{
	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
		if (strcmp(maps[i].type, n->op->type) == 0)
			return n->n_out < 1 || n->out[0] < 0 ? 0 : maps[i].map(b, n);
	return no(b, n, "the engine has no such layer");
}

static void take_weights(struct builder *b)
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
	struct builder b = {.g = m->graph, .image = image, .err = err};
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
	if (r == 0 && (!plain(&b.values[m->graph->out[0]], 0) || b.values[m->graph->out[0]].id == 0))
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
