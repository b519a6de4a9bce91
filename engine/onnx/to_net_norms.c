/* Norms, and what is one by channel. */
#include "engine/onnx/to_net_private.h"

#include <stdlib.h>

static int batch_norm(struct to_net *b, const struct onnx_node *n, const struct mapped *x, float eps,
		      const float *const from[4])
{
	static const float otherwise[4] = {1, 0, 0, 1};
	int channels = to_net_node(b, x)->channels;
	char name[32];
	int id = net_batch_norm(b->net, to_net_name(b, name, sizeof(name)), x->id, eps, b->err);
	int r = to_net_give(b, n, id, x->rank);

	for (int k = 0; r == 0 && k < 4; k++)
		if (!to_net_fill_own(b, b->net->nodes[id].weight + k, from[k], channels, otherwise[k]))
			r = err_set(b->err, ERR_NO_MEMORY, "a norm");
	return r;
}

int map_batch_norm(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	const float *from[4];
	bool good = mapped_is_plain(x, 0);

	for (int k = 0; good && k < 4; k++)
		good = (from[k] = to_net_floats(b, n, k + 1, (size_t)to_net_node(b, x)->channels));
	if (!good || node_attr_i(n, "training_mode", 0) || node_attr_i(n, "spatial", 1) != 1 ||
	    (n->version < 7 && !node_attr_i(n, "is_test", 0)))
		return to_net_no(b, n, "not a normalisation by known statistics");
	return batch_norm(b, n, x, node_attr_f(n, "epsilon", 1e-5f), from);
}

int to_net_group_norm(struct to_net *b, const struct onnx_node *n, const struct mapped *x, int groups,
		      float eps, const float *scale, const float *shift)
{
	int channels = to_net_node(b, x)->channels;
	char name[32];
	int id = net_group_norm(b->net, to_net_name(b, name, sizeof(name)), x->id, groups, b->err);
	int r = to_net_give(b, n, id, x->rank);

	if (r < 0)
		return r;
	b->net->nodes[id].norm.eps = eps;
	if (!to_net_fill_own(b, b->net->nodes[id].weight, scale, channels, 1) ||
	    !to_net_fill_own(b, b->net->nodes[id].bias, shift, channels, 0))
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
int map_instance_norm(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	float eps = node_attr_f(n, "epsilon", 1e-5f);
	struct mapped *to = &b->values[n->out[0]];

	if (x->id >= 0 && x->groups && !(x->eps > 0) && eps > 0 &&
	    all_are(to_net_floats(b, n, 1, (size_t)x->groups), x->groups, 1) &&
	    all_are(to_net_floats(b, n, 2, (size_t)x->groups), x->groups, 0)) {
		*to = *x;
		to->eps = eps;
		return 0;
	}
	if (mapped_is_plain(x, 4)) {
		size_t channels = (size_t)to_net_node(b, x)->channels;
		const float *scale = to_net_floats(b, n, 1, channels),
			    *shift = to_net_floats(b, n, 2, channels);

		if (scale && shift)
			return to_net_group_norm(b, n, x, (int)channels, eps, scale, shift);
	}
	return to_net_no(b, n, "not a normalisation of a plane's channels or groups");
}

/* Its scale and shift are one a group before version 21, one a channel from then on. */
int map_group_norm(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t groups = node_attr_i(n, "num_groups", 0);
	const float *scale, *shift;
	int channels, each, r;
	float *own;

	if (!mapped_is_plain(x, 4) || groups < 1 || groups > to_net_node(b, x)->channels)
		return to_net_no(b, n, "not a normalisation of a plane");
	channels = to_net_node(b, x)->channels;
	each = n->version < 21 ? channels / (int)groups : 1;
	scale = to_net_floats(b, n, 1, (size_t)(channels / each));
	shift = to_net_floats(b, n, 2, (size_t)(channels / each));
	if (!scale || !shift || channels % groups)
		return to_net_no(b, n, "its scale isn't one constant a channel or group");
	own = malloc(2 * (size_t)channels * sizeof(*own));
	if (!own)
		return err_set(b->err, ERR_NO_MEMORY, "a norm");
	for (int c = 0; c < channels; c++) {
		own[c] = scale[c / each];
		own[channels + c] = shift[c / each];
	}
	r = to_net_group_norm(b, n, x, (int)groups, node_attr_f(n, "epsilon", 1e-5f), own, own + channels);
	free(own);
	return r;
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
static int affine(struct to_net *b, const struct onnx_node *n, const struct mapped *x, int value,
		  const float *scale, const float *shift)
{
	struct node *node = to_net_node(b, x);
	const float *from[4] = {scale, shift, NULL, NULL};
	struct fill *weight, *bias;

	if ((node->op == OP_batch_norm || node->op == OP_group_norm) && b->g->values[value].uses == 1) {
		weight = to_net_fill_of(b, node->weight);
		bias = to_net_fill_of(b, node->bias);
		for (int c = 0; c < node->channels; c++) {
			float s = scale ? scale[c] : 1;

			weight->own[c] *= s;
			bias->own[c] = bias->own[c] * s + (shift ? shift[c] : 0);
		}
		return to_net_give(b, n, x->id, x->rank);
	}
	return batch_norm(b, n, x, 0, from);
}

enum arithmetic { ADDS, SUBTRACTS, MULTIPLIES, DIVIDES };

static int by_constant(struct to_net *b, const struct onnx_node *n, enum arithmetic what)
{
	int k = mapped_is_plain(to_net_in(b, n, 0), 0) ? 0 : 1;
	const struct mapped *x = to_net_in(b, n, k);
	const struct onnx_tensor *t = to_net_constant(b, n, 1 - k);
	float *own = NULL;
	const float *f;
	int channels, r;

	if (!mapped_is_plain(x, 0) || (k == 1 && (what == SUBTRACTS || what == DIVIDES)))
		return to_net_no(b, n, "not of a plane and a constant");
	channels = to_net_node(b, x)->channels;
	own = calloc((size_t)channels, sizeof(*own));
	if (!own)
		return err_set(b->err, ERR_NO_MEMORY, "a node");
	f = by_channel(t, x, channels, own);
	if (!f) {
		r = to_net_no(b, n, "its constant isn't one number a channel");
	} else {
		for (int c = 0; c < channels; c++)
			own[c] = what == SUBTRACTS ? -f[c] : what == DIVIDES ? 1 / f[c] : f[c];
		r = affine(b, n, x, n->in[k], what >= MULTIPLIES ? own : NULL,
			   what < MULTIPLIES ? own : NULL);
	}
	free(own);
	return r;
}

int map_add(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0), *y = to_net_in(b, n, 1);

	if (mapped_is_plain(x, 0) && mapped_is_plain(y, x->rank))
		return to_net_give(b, n, net_add(b->net, x->id, y->id, b->err), x->rank);
	return by_constant(b, n, ADDS);
}

int map_sub(struct to_net *b, const struct onnx_node *n)
{
	return by_constant(b, n, SUBTRACTS);
}

int map_mul(struct to_net *b, const struct onnx_node *n)
{
	return by_constant(b, n, MULTIPLIES);
}

int map_div(struct to_net *b, const struct onnx_node *n)
{
	return by_constant(b, n, DIVIDES);
}
