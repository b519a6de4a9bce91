/*
 * Building a network. Every node is checked when it is made, at full width; since a slice takes whole groups
 * of every layer, what fits at full width fits at every rate (check_conv holds the one case that would not).
 */
#include "engine/net.h"

#include "engine/workspace.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Limits on what a file may ask for; chosen, far above any use. */
#define MAX_NODES      4096
#define MAX_CHANNELS   65536
#define MAX_ACTIVATION (1 << 26) /* elements of one instance's tensor */
#define MAX_PARAMS     (1 << 28) /* elements of all parameters */

static const struct op_info ops[OP_COUNT] = {
#define NONE        OP_PARAMS_NONE
#define WEIGHT_BIAS OP_PARAMS_WEIGHT_BIAS
#define AFFINE      OP_PARAMS_AFFINE
#define BATCH       OP_PARAMS_BATCH
#define OP(name, inputs, params, gradient, slice, tolerance, mean_tolerance) \
	{#name, inputs, params, gradient, OP_SLICE_##slice, tolerance, mean_tolerance},
#include "engine/ops.def"
#undef OP
#undef NONE
#undef WEIGHT_BIAS
#undef AFFINE
#undef BATCH
};

const struct op_info *op_info(enum op op)
{
	return &ops[op];
}

/* A zeroed node at the end of the list, not counted yet; sets *ret. */
static int new_node(struct net *net, enum op op, int in, struct node **ret, struct err *err)
{
	struct node *nodes;

	*ret = NULL;
	if (in < 0)
		return in;
	if (in >= net->n_nodes || net->output)
		return err_set(err, ERR_SPEC_VALUE, "%s: there is no node %d to build on", ops[op].name, in);
	if (net->n_nodes >= MAX_NODES)
		return err_set(err, ERR_SPEC_VALUE, "more than %d layers", MAX_NODES);
	nodes = realloc(net->nodes, (size_t)(net->n_nodes + 1) * sizeof(*nodes));
	if (!nodes)
		return err_set(err, ERR_NO_MEMORY, "a network of %d nodes", net->n_nodes);
	net->nodes = nodes;
	*ret = &nodes[net->n_nodes];
	**ret = (struct node){.op = op, .in = {in, -1}, .weight = -1, .bias = -1};
	return 0;
}

/* Takes the input's shape; most ops change one thing of it. */
static void shape_as(struct node *node, const struct node *from)
{
	node->channels = from->channels;
	node->height = from->height;
	node->width = from->width;
	node->groups = from->groups;
	node->flat = from->flat;
}

static int check_name(const struct net *net, const char *name, struct err *err)
{
	if (!*name || strlen(name) >= NET_NAME_MAX)
		return err_set(err, ERR_SPEC_VALUE, "a layer's name must have 1 to %d bytes",
			       NET_NAME_MAX - 1);
	for (int i = 0; i < net->n_nodes; i++)
		if (strcmp(net->nodes[i].name, name) == 0)
			return err_set(err, ERR_SPEC_VALUE, "two layers are named \"%s\"", name);
	return 0;
}

static int check_groups(const char *name, int channels, int groups, struct err *err)
{
	if (channels < 1 || channels > MAX_CHANNELS)
		return err_set(err, ERR_SPEC_VALUE, "%s: %d outputs (1 to %d)", name, channels, MAX_CHANNELS);
	if (groups < 0 || (groups > 0 && channels % groups != 0))
		return err_set(err, ERR_SPEC_VALUE, "%s: %d outputs do not divide into %d groups", name,
			       channels, groups);
	return 0;
}

static int check_size(const struct node *node, struct err *err)
{
	if ((int64_t)node->channels * node->height * node->width > MAX_ACTIVATION)
		return err_set(err, ERR_SPEC_VALUE, "%s of %d×%d×%d is too large", ops[node->op].name,
			       node->channels, node->height, node->width);
	return 0;
}

static int plane_after(int size, int kernel, int stride, int pad)
{
	return (size + 2 * pad - kernel) / stride + 1;
}

/* size: the input's, in the direction at hand. */
static int check_window(const struct node *in, const char *what, int size, int kernel, int stride, int pad,
			struct err *err)
{
	if (in->flat)
		return err_set(err, ERR_SPEC_VALUE, "%s: its input was flattened", what);
	if (kernel < 1 || stride < 1 || pad < 0 || pad >= kernel || kernel > 1024 || stride > 1024 ||
	    kernel > size + 2 * pad)
		return err_set(err, ERR_SPEC_VALUE,
			       "%s: kernel %d, stride %d, padding %d do not fit on %d×%d", what, kernel,
			       stride, pad, in->height, in->width);
	return 0;
}

static int add_param(struct net *net, const char *name, const char *suffix, const struct param *like,
		     struct err *err)
{
	struct params *p = &net->params;
	int64_t size = 1, before = p->n ? p->list[p->n - 1].end : 0;
	struct param *list = realloc(p->list, (size_t)(p->n + 1) * sizeof(*list));

	if (!list)
		return err_set(err, ERR_NO_MEMORY, "the parameters of %s", name);
	p->list = list;
	for (int i = 0; i < like->rank; i++) {
		size *= like->dims[i];
		if (before + size > MAX_PARAMS)
			return err_set(err, ERR_SPEC_VALUE, "%s: more than %d parameters", name, MAX_PARAMS);
	}
	list[p->n] = *like;
	list[p->n].size = (size_t)size;
	list[p->n].end = before + size;
	memcpy(list[p->n].name, name, strlen(name) + 1);
	strcat(list[p->n].name, suffix);
	return p->n++;
}

/* The weight (and the bias) of a node that has its shape, and its name; then counts the node. */
static int finish_node(struct net *net, struct node *node, const char *name, const struct param *weight,
		       const struct param *bias, struct err *err)
{
	int n_params = net->params.n, r;

	if (node->op != OP_input) {
		r = check_size(node, err);
		if (r < 0)
			return r;
	}
	if (weight) {
		r = node->weight = add_param(net, name, ".weight", weight, err);
		if (r >= 0 && bias)
			r = node->bias = add_param(net, name, ".bias", bias, err);
		if (r < 0) {
			net->params.n = n_params;
			return r;
		}
		memcpy(node->name, name, strlen(name) + 1);
	}
	return net->n_nodes++;
}

int net_new(struct net **ret, int channels, int height, int width, struct err *err)
{
	struct net *net;
	struct node *node;
	int r;

	if (channels < 1 || channels > MAX_CHANNELS || height < 1 || width < 1 || height > 16384 ||
	    width > 16384 || (int64_t)channels * height * width > MAX_ACTIVATION)
		return err_set(err, ERR_SPEC_VALUE, "an input of %d×%d×%d", channels, height, width);
	net = calloc(1, sizeof(*net));
	if (!net)
		return err_set(err, ERR_NO_MEMORY, "a network");
	net->params.version = 1;
	net->n_rates = 1;
	net->rates[0] = 1;
	net->nodes = calloc(1, sizeof(*net->nodes));
	r = net->nodes ? workspace_new(&net->workspace) : -ENOMEM;
	if (r < 0) {
		net_free(net);
		return err_set(err, ERR_NO_MEMORY, "a network");
	}
	node = net->nodes;
	*node = (struct node){.op = OP_input,
			      .in = {-1, -1},
			      .channels = channels,
			      .height = height,
			      .width = width,
			      .weight = -1,
			      .bias = -1};
	net->n_nodes = 1;
	*ret = net;
	return 0;
}

void net_free(struct net *net)
{
	if (!net)
		return;
	for (int i = 0; i < net->params.n; i++) {
		if (!net->params.list[i].borrowed)
			free(net->params.list[i].value);
		free(net->params.list[i].grad);
	}
	free(net->params.list);
	free(net->nodes);
	workspace_free(net->workspace);
	free(net);
}

/* A slice of a grouped convolution must hold whole convolution groups, of inputs and outputs. */
static int check_conv_groups(const char *name, const struct node *in, const struct conv2d_attr *attr,
			     struct err *err)
{
	int cg = attr->conv_groups;

	if (cg == 1)
		return 0;
	if (cg < 1 || in->channels % cg || attr->channels % cg || in->groups != attr->groups ||
	    (attr->groups > 0 && cg % attr->groups))
		return err_set(
			err, ERR_SPEC_VALUE,
			"%s: %d convolution groups do not divide %d inputs in %d and %d outputs in %d groups",
			name, cg, in->channels, in->groups, attr->channels, attr->groups);
	return 0;
}

int net_conv2d(struct net *net, const char *name, int in, const struct conv2d_attr *attr, struct err *err)
{
	struct conv2d_attr a = *attr;
	const struct node *from;
	struct param weight, bias;
	struct node *node;
	int r = new_node(net, OP_conv2d, in, &node, err);

	if (r < 0)
		return r;
	from = &net->nodes[in];
	a.stride = a.stride ? a.stride : 1;
	a.conv_groups = a.conv_groups ? a.conv_groups : 1;
	a.pad_w = a.kernel_w ? a.pad_w : a.pad;
	a.kernel_w = a.kernel_w ? a.kernel_w : a.kernel;
	if ((r = check_name(net, name, err)) < 0 ||
	    (r = check_window(from, name, from->height, a.kernel, a.stride, a.pad, err)) < 0 ||
	    (r = check_window(from, name, from->width, a.kernel_w, a.stride, a.pad_w, err)) < 0 ||
	    (r = check_groups(name, a.channels, a.groups, err)) < 0 ||
	    (r = check_conv_groups(name, from, &a, err)) < 0)
		return r;
	node->channels = a.channels;
	node->groups = a.groups;
	node->height = plane_after(from->height, a.kernel, a.stride, a.pad);
	node->width = plane_after(from->width, a.kernel_w, a.stride, a.pad_w);
	node->conv = a;
	weight = (struct param){
		.rank = 4,
		.dims = {a.channels, from->channels / a.conv_groups, a.kernel, a.kernel_w},
		.groups = {a.groups, a.conv_groups == 1 ? from->groups : 0, 0, 0},
		.decay = true,
	};
	weight.fan_in = weight.dims[1] * a.kernel * a.kernel_w;
	bias = (struct param){.rank = 1, .dims = {a.channels}, .groups = {a.groups}};
	return finish_node(net, node, name, &weight, a.bias ? &bias : NULL, err);
}

int net_linear(struct net *net, const char *name, int in, const struct linear_attr *attr, struct err *err)
{
	const struct node *from;
	struct param weight, bias;
	struct node *node;
	int r = new_node(net, OP_linear, in, &node, err);

	if (r < 0)
		return r;
	from = &net->nodes[in];
	if ((r = check_name(net, name, err)) < 0 ||
	    (r = check_groups(name, attr->features, attr->groups, err)) < 0)
		return r;
	node->channels = attr->features;
	node->groups = attr->groups;
	node->height = node->width = 1;
	node->linear = *attr;
	weight = (struct param){
		.rank = 2,
		.dims = {attr->features, from->channels * from->height * from->width},
		.groups = {attr->groups, from->groups},
		.decay = true,
	};
	weight.fan_in = weight.dims[1];
	bias = (struct param){.rank = 1, .dims = {attr->features}, .groups = {attr->groups}};
	return finish_node(net, node, name, &weight, attr->bias ? &bias : NULL, err);
}

int net_group_norm(struct net *net, const char *name, int in, int norm_groups, struct err *err)
{
	const struct node *from;
	struct param scale, shift;
	struct node *node;
	int r = new_node(net, OP_group_norm, in, &node, err);

	if (r < 0)
		return r;
	from = &net->nodes[in];
	r = check_name(net, name, err);
	if (r < 0)
		return r;
	if (from->flat && from->height * from->width > 1)
		return err_set(err, ERR_SPEC_VALUE, "%s: its input was flattened", name);
	if (norm_groups == 0)
		norm_groups = from->groups ? from->groups : 1;
	if (norm_groups < 1 || from->channels % norm_groups ||
	    (from->groups > 0 && norm_groups % from->groups))
		return err_set(err, ERR_SPEC_VALUE,
			       "%s: %d channels, sliced in %d groups, can't be normalised in %d", name,
			       from->channels, from->groups, norm_groups);
	shape_as(node, from);
	node->norm.groups = norm_groups;
	node->norm.eps = 1e-5f;
	scale = (struct param){.rank = 1, .dims = {from->channels}, .groups = {from->groups}, .constant = 1};
	shift = scale;
	shift.constant = 0;
	return finish_node(net, node, name, &scale, &shift, err);
}

int net_set_rates(struct net *net, const float *rates, int n, struct err *err)
{
	bool bad = n < 1 || n > NET_MAX_RATES || rates[n - 1] != 1;

	for (int i = 0; i < n && !bad; i++)
		bad = !(rates[i] > 0) || (i && !(rates[i] > rates[i - 1]));
	if (bad)
		return err_set(err, ERR_SPEC_VALUE, "slice rates must be 1 to %d, ascend and end in 1",
			       NET_MAX_RATES);
	memcpy(net->rates, rates, (size_t)n * sizeof(*rates));
	net->n_rates = n;
	return 0;
}

int net_batch_norm(struct net *net, const char *name, int in, float eps, struct err *err)
{
	static const struct {
		const char *suffix;
		bool statistic;
		float constant;
	} kinds[] = {{".weight", false, 1},
		     {".bias", false, 0},
		     {".running_mean", true, 0},
		     {".running_var", true, 1}};
	int n_params = net->params.n;
	const struct node *from;
	struct node *node;
	int r = new_node(net, OP_batch_norm, in, &node, err);

	if (r < 0)
		return r;
	from = &net->nodes[in];
	r = check_name(net, name, err);
	if (r < 0)
		return r;
	if (from->flat && from->height * from->width > 1)
		return err_set(err, ERR_SPEC_VALUE, "%s: its input was flattened", name);
	shape_as(node, from);
	node->norm.eps = eps;
	/* from full width down */
	for (int i = net->n_rates - 1; i >= 0 && r >= 0; i--)
		for (int k = 0; k < 4 && r >= 0; k++) {
			struct param p = {.rank = 1,
					  .dims = {slice_extent(from->channels, from->groups, net->rates[i])},
					  .rate = net->rates[i],
					  .statistic = kinds[k].statistic,
					  .constant = kinds[k].constant};
			char suffix[PARAM_NAME_MAX - NET_NAME_MAX];

			snprintf(suffix, sizeof(suffix), "%s", kinds[k].suffix);
			if (i < net->n_rates - 1)
				snprintf(suffix, sizeof(suffix), ".slice-%g%s", (double)net->rates[i],
					 kinds[k].suffix);
			r = add_param(net, name, suffix, &p, err);
		}
	if (r < 0) {
		net->params.n = n_params;
		return r;
	}
	node->weight = n_params;
	node->bias = n_params + 1;
	memcpy(node->name, name, strlen(name) + 1);
	return net->n_nodes++;
}

int net_batch_norm_set(const struct net *net, const struct node *node, float rate)
{
	for (int i = 0; i < net->n_rates; i++)
		if (net->rates[i] == rate)
			return node->weight + 4 * (net->n_rates - 1 - i);
	return -EINVAL;
}

/* An op without attributes that keeps its input's shape. */
static int add_same(struct net *net, enum op op, int in, struct err *err)
{
	struct node *node;
	int r = new_node(net, op, in, &node, err);

	if (r < 0)
		return r;
	shape_as(node, &net->nodes[in]);
	return finish_node(net, node, NULL, NULL, NULL, err);
}

int net_relu(struct net *net, int in, struct err *err)
{
	return add_same(net, OP_relu, in, err);
}

int net_relu6(struct net *net, int in, struct err *err)
{
	return add_same(net, OP_relu6, in, err);
}

int net_dropout(struct net *net, int in, float share, struct err *err)
{
	int id = add_same(net, OP_dropout, in, err);

	if (id < 0)
		return id;
	if (!(share >= 0 && share < 1)) {
		net->n_nodes--;
		return err_set(err, ERR_SPEC_VALUE, "dropout of %g (from 0 to below 1)", (double)share);
	}
	net->nodes[id].dropout.share = share;
	return id;
}

/* new_node of an op with two inputs. */
static int new_node2(struct net *net, enum op op, int a, int b, struct node **ret, struct err *err)
{
	int r = b < 0 ? b : new_node(net, op, a, ret, err);

	if (r == 0 && b >= net->n_nodes)
		r = err_set(err, ERR_SPEC_VALUE, "%s: there is no node %d to build on", op_info(op)->name, b);
	if (r == 0)
		(*ret)->in[1] = b;
	return r;
}

int net_concat(struct net *net, int a, int b, struct err *err)
{
	const struct node *x, *y;
	struct node *node;
	int r;

	r = new_node2(net, OP_concat, a, b, &node, err);
	if (r < 0)
		return r;
	x = &net->nodes[a];
	y = &net->nodes[b];
	if (x->height != y->height || x->width != y->width || x->groups != y->groups || x->flat || y->flat)
		return err_set(err, ERR_SPEC_VALUE, "concat: %d×%d×%d in %d groups and %d×%d×%d in %d groups",
			       x->channels, x->height, x->width, x->groups, y->channels, y->height, y->width,
			       y->groups);
	shape_as(node, x);
	node->channels += y->channels;
	if (node->channels > MAX_CHANNELS)
		return err_set(err, ERR_SPEC_VALUE, "concat: %d channels (1 to %d)", node->channels,
			       MAX_CHANNELS);
	return finish_node(net, node, NULL, NULL, NULL, err);
}

int net_add(struct net *net, int a, int b, struct err *err)
{
	return net_add_scaled(net, a, b, 1, err);
}

int net_add_scaled(struct net *net, int a, int b, float scale, struct err *err)
{
	const struct node *x, *y;
	struct node *node;
	int r;

	r = new_node2(net, OP_add, a, b, &node, err);
	if (r < 0)
		return r;
	x = &net->nodes[a];
	y = &net->nodes[b];
	if (x->channels != y->channels || x->height != y->height || x->width != y->width ||
	    x->groups != y->groups || x->flat != y->flat)
		return err_set(err, ERR_SPEC_VALUE, "add: %d×%d×%d in %d groups and %d×%d×%d in %d groups",
			       x->channels, x->height, x->width, x->groups, y->channels, y->height, y->width,
			       y->groups);
	if (!isfinite(scale))
		return err_set(err, ERR_SPEC_VALUE, "add: a scale that is no number");
	shape_as(node, x);
	node->add.scale = scale;
	return finish_node(net, node, NULL, NULL, NULL, err);
}

static int add_pool(struct net *net, enum op op, int in, const struct pool_attr *attr, struct err *err)
{
	struct pool_attr a = *attr;
	const struct node *from;
	struct node *node;
	int r = new_node(net, op, in, &node, err);

	if (r < 0)
		return r;
	from = &net->nodes[in];
	a.stride = a.stride ? a.stride : a.kernel;
	if ((r = check_window(from, ops[op].name, from->height, a.kernel, a.stride, a.pad, err)) < 0 ||
	    (r = check_window(from, ops[op].name, from->width, a.kernel, a.stride, a.pad, err)) < 0)
		return r;
	if (a.pad > a.kernel / 2)
		return err_set(err, ERR_SPEC_VALUE, "%s: padding %d is more than half of kernel %d",
			       ops[op].name, a.pad, a.kernel);
	shape_as(node, from);
	node->height = plane_after(from->height, a.kernel, a.stride, a.pad);
	node->width = plane_after(from->width, a.kernel, a.stride, a.pad);
	node->pool = a;
	return finish_node(net, node, NULL, NULL, NULL, err);
}

int net_max_pool(struct net *net, int in, const struct pool_attr *attr, struct err *err)
{
	return add_pool(net, OP_max_pool, in, attr, err);
}

int net_avg_pool(struct net *net, int in, const struct pool_attr *attr, struct err *err)
{
	return add_pool(net, OP_avg_pool, in, attr, err);
}

int net_global_avg_pool(struct net *net, int in, struct err *err)
{
	struct node *node;
	int r = new_node(net, OP_global_avg_pool, in, &node, err);

	if (r < 0)
		return r;
	if (net->nodes[in].flat)
		return err_set(err, ERR_SPEC_VALUE, "global_avg_pool: its input was flattened");
	shape_as(node, &net->nodes[in]);
	node->height = node->width = 1;
	return finish_node(net, node, NULL, NULL, NULL, err);
}

int net_flatten(struct net *net, int in, struct err *err)
{
	struct node *node;
	int r = new_node(net, OP_flatten, in, &node, err);

	if (r < 0)
		return r;
	shape_as(node, &net->nodes[in]);
	node->flat = true;
	return finish_node(net, node, NULL, NULL, NULL, err);
}

int net_finish(struct net *net, int output, struct err *err)
{
	const struct node *out;

	if (output < 0)
		return output;
	if (output == 0 || output >= net->n_nodes || net->output)
		return err_set(err, ERR_SPEC_VALUE, "the network has no layer");
	out = &net->nodes[output];
	if (out->height * out->width != 1 || out->groups)
		return err_set(err, ERR_SPEC_VALUE,
			       "the last layer (%s) must give one number a class and must not be sliced",
			       ops[out->op].name);
	for (int i = 0; i < net->params.n; i++) {
		struct param *p = &net->params.list[i];

		p->value = p->value ? p->value : calloc(p->size, sizeof(float));
		if (!p->value)
			return err_set(err, ERR_NO_MEMORY, "the weights of %s", p->name);
	}
	net->feature = output;
	while (net->feature && (net->nodes[net->feature].flat ||
				net->nodes[net->feature].height * net->nodes[net->feature].width == 1))
		net->feature = net->nodes[net->feature].in[0];
	net->output = output;
	return 0;
}

int64_t net_params(const struct net *net, float rate)
{
	int64_t total = 0;

	for (int i = 0; i < net->params.n; i++) {
		const struct param *p = &net->params.list[i];
		int64_t size = 1;

		if (p->statistic || !param_used(p, rate))
			continue;
		for (int d = 0; d < p->rank; d++)
			size *= slice_extent(p->dims[d], p->groups[d], rate);
		total += size;
	}
	return total;
}

int64_t net_flops(const struct net *net, float rate)
{
	int64_t total = 0;

	for (int i = 0; i < net->n_nodes; i++) {
		const struct node *node = &net->nodes[i];
		const struct param *p;
		int64_t size = 1;

		if (node->op != OP_conv2d && node->op != OP_linear)
			continue;
		p = &net->params.list[node->weight];
		for (int d = 0; d < p->rank; d++)
			size *= slice_extent(p->dims[d], p->groups[d], rate);
		total += 2 * size * node->height * node->width;
	}
	return total;
}
