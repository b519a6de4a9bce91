/* Convolutions and linear layers, activations, pools. */
#include "engine/onnx/to_net_private.h"

#include <float.h>
#include <string.h>

/* --- convolution, linear --- */

/* Padding by auto_pad or pads, equal at both sides of the height and of the width. */
static bool pads_of(const struct onnx_node *n, const struct node *from, const int64_t *kernel, int64_t stride,
		    int *ret_h, int *ret_w)
{
	const struct onnx_attr *a = onnx_attr_find(n, "auto_pad");
	int side[2] = {from->height, from->width}, pad[2];

	for (int d = 0; d < 2; d++) {
		int64_t begin = node_attr_at(n, "pads", (size_t)d, 0),
			end = node_attr_at(n, "pads", (size_t)d + 2, 0);

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
	int64_t s = node_attr_at(n, "strides", 0, 1);

	return s == node_attr_at(n, "strides", 1, 1) && s >= 1 && s <= 4096 &&
			       node_attr_at(n, "dilations", 0, 1) == 1 &&
			       node_attr_at(n, "dilations", 1, 1) == 1
		       ? (int)s
		       : -1;
}

int map_conv(struct to_net *b, const struct onnx_node *n)
{
	const struct onnx_tensor *w = to_net_constant(b, n, 1);
	const struct mapped *x = to_net_in(b, n, 0);
	struct conv2d_attr attr = {.stride = one_stride(n), .bias = node_has_in(n, 2)};
	int64_t groups = node_attr_i(n, "group", 1);
	const float *bias = NULL;
	char name[32];
	int id, r;

	if (!mapped_is_plain(x, 4) || !w || w->type != ONNX_FLOAT || w->rank != 4 || !w->count)
		return to_net_no(b, n, "not a convolution of a plane by constant weights");
	if (attr.stride < 0 ||
	    !pads_of(n, to_net_node(b, x), w->dims + 2, attr.stride, &attr.pad, &attr.pad_w))
		return to_net_no(b, n, "its strides differ, or it is dilated, or padded on one side only");
	for (int d = 0; d < 4; d++)
		if (w->dims[d] > INT32_MAX / 2)
			return to_net_no(b, n, "its weights are too large");
	if (groups < 1 || groups > INT32_MAX || w->dims[1] * groups != to_net_node(b, x)->channels)
		return to_net_no(b, n, "its weights don't fit its input");
	if (attr.bias && !(bias = to_net_floats(b, n, 2, (size_t)w->dims[0])))
		return to_net_no(b, n, "its bias is computed");
	attr.channels = (int)w->dims[0];
	attr.kernel = (int)w->dims[2];
	attr.kernel_w = (int)w->dims[3];
	attr.conv_groups = (int)groups;
	id = net_conv2d(b->net, to_net_name(b, name, sizeof(name)), x->id, &attr, b->err);
	r = to_net_give(b, n, id, 4);
	if (r < 0)
		return r;
	to_net_fill(b, b->net->nodes[id].weight, w->data);
	if (bias)
		to_net_fill(b, b->net->nodes[id].bias, bias);
	return 0;
}

static int linear(struct to_net *b, const struct onnx_node *n, const struct mapped *x, int features,
		  const float *weight, bool transpose, const float *bias)
{
	const struct linear_attr attr = {.features = features, .bias = bias != NULL};
	char name[32];
	int id = net_linear(b->net, to_net_name(b, name, sizeof(name)), x->id, &attr, b->err);
	int r = to_net_give(b, n, id, 2);

	if (r < 0)
		return r;
	to_net_fill(b, b->net->nodes[id].weight, weight);
	b->fills[b->n_fills - 1].transpose = transpose;
	if (bias)
		to_net_fill(b, b->net->nodes[id].bias, bias);
	return 0;
}

/* The rank 2 weight of a linear layer; *ret_out: its outputs. NULL: not one for x. */
static const float *linear_weight(struct to_net *b, const struct onnx_node *n, const struct mapped *x,
				  bool by_rows, int *ret_out)
{
	const struct onnx_tensor *w = to_net_constant(b, n, 1);
	const struct node *from;
	int64_t inputs;

	if (!mapped_is_plain(x, 2) || !w || w->type != ONNX_FLOAT || w->rank != 2 || !w->count)
		return NULL;
	from = to_net_node(b, x);
	inputs = (int64_t)from->channels * from->height * from->width;
	if (w->dims[by_rows ? 1 : 0] != inputs || w->dims[by_rows ? 0 : 1] > INT32_MAX / 2)
		return NULL;
	*ret_out = (int)w->dims[by_rows ? 0 : 1];
	return w->data;
}

int map_gemm(struct to_net *b, const struct onnx_node *n)
{
	bool by_rows = node_attr_i(n, "transB", 0) != 0;
	const struct mapped *x = to_net_in(b, n, 0);
	const float *w, *bias = NULL;
	int out;

	w = linear_weight(b, n, x, by_rows, &out);
	if (!w || node_attr_i(n, "transA", 0) || node_attr_f(n, "alpha", 1) != 1 ||
	    node_attr_f(n, "beta", 1) != 1)
		return to_net_no(b, n, "not a linear layer");
	if (node_has_in(n, 2) && !(bias = to_net_floats(b, n, 2, (size_t)out)))
		return to_net_no(b, n, "its bias isn't one number an output");
	return linear(b, n, x, out, w, !by_rows, bias);
}

/* The Add of a constant vector, which alone reads what n makes; NULL: none. */
static const struct onnx_node *bias_after(struct to_net *b, const struct onnx_node *n, int features,
					  const float **bias)
{
	if (n->out[0] < 0 || b->g->values[n->out[0]].uses != 1)
		return NULL;
	for (int i = 0; i < b->g->n_nodes; i++) {
		const struct onnx_node *add = &b->g->nodes[i];

		for (int k = 0; k < 2 && add->n_in == 2 && strcmp(add->op->type, "Add") == 0; k++)
			if (add->in[k] == n->out[0] &&
			    (*bias = to_net_floats(b, add, 1 - k, (size_t)features)) &&
			    to_net_constant(b, add, 1 - k)->rank <= 2)
				return add;
	}
	return NULL;
}

int map_matmul(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	const struct onnx_node *add;
	const float *w, *bias = NULL;
	int out;

	w = linear_weight(b, n, x, false, &out);
	if (!w)
		return to_net_no(b, n, "not a linear layer");
	add = bias_after(b, n, out, &bias);
	if (!add)
		return linear(b, n, x, out, w, true, NULL);
	b->done[add - b->g->nodes] = true;
	return linear(b, add, x, out, w, true, bias);
}

/* --- activations --- */

int map_relu(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);

	if (!mapped_is_plain(x, 0))
		return to_net_no(b, n, "not of a plane or of features");
	return to_net_give(b, n, net_relu(b->net, x->id, b->err), x->rank);
}

int map_clip(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	float min = node_attr_f(n, "min", -FLT_MAX), max = node_attr_f(n, "max", FLT_MAX);

	if (!mapped_is_plain(x, 0) || (node_has_in(n, 1) && !to_net_scalar(b, n, 1, &min)) ||
	    (node_has_in(n, 2) && !to_net_scalar(b, n, 2, &max)) || min != 0 || (max != 6 && max < FLT_MAX))
		return to_net_no(b, n, "it isn't a ReLU or ReLU6");
	return to_net_give(
		b, n, max == 6 ? net_relu6(b->net, x->id, b->err) : net_relu(b->net, x->id, b->err), x->rank);
}

/* What changes nothing when a model is used. */
int map_same(struct to_net *b, const struct onnx_node *n)
{
	if (n->n_out > 1 && n->out[1] >= 0 && b->g->values[n->out[1]].uses)
		return to_net_no(b, n, "its second output is used");
	if (node_has_in(n, 2)) /* Dropout's training mode */
		return to_net_no(b, n, "it may be training");
	b->values[n->out[0]] = *to_net_in(b, n, 0);
	return 0;
}

int map_cast(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t to = node_attr_i(n, "to", 0), v[MAX_KNOWN];
	int count;

	if (mapped_is_plain(x, 0) && to == ONNX_FLOAT)
		return map_same(b, n);
	if ((to == ONNX_INT64 || to == ONNX_INT32) && to_net_known(b, n, 0, &count, v))
		return to_net_give_known(b, n, count, v);
	return to_net_no(b, n, "a conversion");
}

/* At the end of the graph it is left out: who reads the logits takes the softmax. */
int map_softmax(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t axis = node_attr_i(n, "axis", n->version < 13 ? 1 : -1);

	if (!mapped_is_plain(x, 0) || n->out[0] != b->g->out[0] || b->g->values[n->out[0]].uses != 1 ||
	    (axis < 0 ? axis + x->rank : axis) != 1)
		return to_net_no(b, n, "a softmax that isn't the end, over the classes");
	return to_net_give(b, n, x->id, x->rank);
}

/* --- pools --- */

static int pool(struct to_net *b, const struct onnx_node *n, bool average)
{
	const struct mapped *x = to_net_in(b, n, 0);
	struct pool_attr attr = {.stride = one_stride(n),
				 .exclude_pad = !node_attr_i(n, "count_include_pad", 0)};
	int64_t kernel[2] = {node_attr_at(n, "kernel_shape", 0, 0), node_attr_at(n, "kernel_shape", 1, 0)};
	int pad_w;

	if (!mapped_is_plain(x, 4) || kernel[0] != kernel[1] || kernel[0] < 1 || kernel[0] > 4096 ||
	    attr.stride < 0 || (n->n_out > 1 && n->out[1] >= 0) ||
	    !pads_of(n, to_net_node(b, x), kernel, attr.stride, &attr.pad, &pad_w) || attr.pad != pad_w)
		return to_net_no(b, n,
				 "its window isn't square, or it is dilated, or padded on one side only");
	attr.kernel = (int)kernel[0];
	if (node_attr_i(n, "ceil_mode", 0) &&
	    ((to_net_node(b, x)->height + 2 * attr.pad - attr.kernel) % attr.stride ||
	     (to_net_node(b, x)->width + 2 * attr.pad - attr.kernel) % attr.stride))
		return to_net_no(b, n, "its last windows are cut off");
	return to_net_give(b, n,
			   average ? net_avg_pool(b->net, x->id, &attr, b->err)
				   : net_max_pool(b->net, x->id, &attr, b->err),
			   4);
}

int map_max_pool(struct to_net *b, const struct onnx_node *n)
{
	return pool(b, n, false);
}

int map_average_pool(struct to_net *b, const struct onnx_node *n)
{
	return pool(b, n, true);
}

int map_global_pool(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);

	if (!mapped_is_plain(x, 4))
		return to_net_no(b, n, "not of a plane");
	return to_net_give(b, n, net_global_avg_pool(b->net, x->id, b->err), 4);
}

int map_reduce_mean(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t axes[MAX_KNOWN];
	int count;

	if (!mapped_is_plain(x, 4) || !to_net_axes(b, n, 1, 4, &count, axes) || count != 2 ||
	    axes[0] + axes[1] != 5 || (axes[0] != 2 && axes[0] != 3))
		return to_net_no(b, n, "not the mean of a plane");
	return to_net_give(b, n, net_global_avg_pool(b->net, x->id, b->err),
			   node_attr_i(n, "keepdims", 1) ? 4 : 2);
}
