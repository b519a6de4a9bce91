/*
 * Inception-ResNet-v2 (Szegedy et al. 2017, figures 3 to 6 and 15 to 18), as its published weights are: names,
 * channels and scales are timm's. Joined branches lie group by group (net_concat), so the columns of what follows
 * are in another order than there, and only there.
 */
#include "engine/arch/blocks.h"
#include "engine/spec.h"

#include <stdio.h>

struct inception {
	struct blocks b;
	double width;
};

/* One convolution of a branch; stride 2 ones have no padding. */
struct layer {
	int channels, kernel_h, kernel_w, stride;
};

/* What a channel count of the paper is here: a multiple of the groups. */
static int scaled(const struct inception *n, int channels)
{
	int groups = n->b.groups, used = (int)(channels * n->width / groups + 0.5) * groups;

	return used < groups ? groups : used;
}

/* Convolution, norm, ReLU: NAME.conv and NAME.bn. */
static int conv(const struct inception *n, const char *name, int in, struct layer l, bool pad)
{
	const struct conv2d_attr attr = {.channels = scaled(n, l.channels),
					 .groups = n->b.groups,
					 .kernel = l.kernel_h,
					 .kernel_w = l.kernel_w,
					 .stride = l.stride,
					 .pad = pad ? l.kernel_h / 2 : 0,
					 .pad_w = pad ? l.kernel_w / 2 : 0};
	char full[2 * NET_NAME_MAX];
	int x;

	snprintf(full, sizeof(full), "%s.conv", name);
	x = net_conv2d(n->b.net, full, in, &attr, n->b.err);
	snprintf(full, sizeof(full), "%s.bn", name);
	return net_relu(n->b.net, blocks_norm(&n->b, full, x), n->b.err);
}

/* PREFIX.branch<i>, of up to three convolutions, which are PREFIX.branch<i>.0 … where there are several;
 * `first` counts from there. Those of stride 2 aren't padded. */
static int branch(const struct inception *n, const char *prefix, int i, int in, const struct layer *layers,
		  int first)
{
	char name[NET_NAME_MAX];
	int x = in;

	for (int k = 0; k < 3 && layers[k].channels; k++) {
		if (layers[1].channels || first)
			snprintf(name, sizeof(name), "%s.branch%d.%d", prefix, i, first + k);
		else
			snprintf(name, sizeof(name), "%s.branch%d", prefix, i);
		x = conv(n, name, x, layers[k], layers[k].stride == 1);
	}
	return x;
}

static int join(const struct inception *n, const int *branches, int count)
{
	int x = branches[0];

	for (int i = 1; i < count; i++)
		x = net_concat(n->b.net, x, branches[i], n->b.err);
	return x;
}

static int shrink(const struct inception *n, int in)
{
	return net_max_pool(n->b.net, in, &(struct pool_attr){.kernel = 3, .stride = 2}, n->b.err);
}

/* x + scale · (1×1 of the joined branches, which has a bias and no norm), and a ReLU but for the last. */
static int residual(const struct inception *n, const char *prefix, int in, const int *branches, int count,
		    float scale, bool relu)
{
	struct net *net = n->b.net;
	char name[NET_NAME_MAX];
	int x = join(n, branches, count);
	struct conv2d_attr attr = {.groups = n->b.groups, .kernel = 1, .bias = true};

	if (x < 0)
		return x;
	attr.channels = net->nodes[in].channels;
	snprintf(name, sizeof(name), "%s.conv2d", prefix);
	x = net_add_scaled(net, in, net_conv2d(net, name, x, &attr, n->b.err), scale, n->b.err);
	return relu ? net_relu(net, x, n->b.err) : x;
}

static int stem(const struct inception *n, bool small)
{
	int first = small ? 1 : 2, x;

	x = conv(n, "conv2d_1a", 0, (struct layer){32, 3, 3, first}, small);
	x = conv(n, "conv2d_2a", x, (struct layer){32, 3, 3, 1}, small);
	x = conv(n, "conv2d_2b", x, (struct layer){64, 3, 3, 1}, true);
	x = small ? x : shrink(n, x);
	x = conv(n, "conv2d_3b", x, (struct layer){80, 1, 1, 1}, true);
	x = conv(n, "conv2d_4a", x, (struct layer){192, 3, 3, 1}, small);
	return small ? x : shrink(n, x);
}

static int mixed_5b(const struct inception *n, int x)
{
	static const struct layer layers[4][3] = {{{96, 1, 1, 1}},
						  {{48, 1, 1, 1}, {64, 5, 5, 1}},
						  {{64, 1, 1, 1}, {96, 3, 3, 1}, {96, 3, 3, 1}},
						  {{64, 1, 1, 1}}};
	const struct pool_attr pool = {.kernel = 3, .stride = 1, .pad = 1, .exclude_pad = true};
	int branches[4];

	for (int i = 0; i < 3; i++)
		branches[i] = branch(n, "mixed_5b", i, x, layers[i], 0);
	/* branch3.0 is the pool */
	branches[3] = branch(n, "mixed_5b", 3, net_avg_pool(n->b.net, x, &pool, n->b.err), layers[3], 1);
	return join(n, branches, 4);
}

static int block35(const struct inception *n, const char *name, int x)
{
	static const struct layer layers[3][3] = {{{32, 1, 1, 1}},
						  {{32, 1, 1, 1}, {32, 3, 3, 1}},
						  {{32, 1, 1, 1}, {48, 3, 3, 1}, {64, 3, 3, 1}}};
	int branches[3];

	for (int i = 0; i < 3; i++)
		branches[i] = branch(n, name, i, x, layers[i], 0);
	return residual(n, name, x, branches, 3, 0.17f, true);
}

static int mixed_6a(const struct inception *n, int x)
{
	static const struct layer layers[2][3] = {{{384, 3, 3, 2}},
						  {{256, 1, 1, 1}, {256, 3, 3, 1}, {384, 3, 3, 2}}};
	int branches[3] = {branch(n, "mixed_6a", 0, x, layers[0], 0),
			   branch(n, "mixed_6a", 1, x, layers[1], 0), shrink(n, x)};

	return join(n, branches, 3);
}

static int block17(const struct inception *n, const char *name, int x)
{
	static const struct layer layers[2][3] = {{{192, 1, 1, 1}},
						  {{128, 1, 1, 1}, {160, 1, 7, 1}, {192, 7, 1, 1}}};
	int branches[2] = {branch(n, name, 0, x, layers[0], 0), branch(n, name, 1, x, layers[1], 0)};

	return residual(n, name, x, branches, 2, 0.1f, true);
}

static int mixed_7a(const struct inception *n, int x)
{
	static const struct layer layers[3][3] = {{{256, 1, 1, 1}, {384, 3, 3, 2}},
						  {{256, 1, 1, 1}, {288, 3, 3, 2}},
						  {{256, 1, 1, 1}, {288, 3, 3, 1}, {320, 3, 3, 2}}};
	int branches[4];

	for (int i = 0; i < 3; i++)
		branches[i] = branch(n, "mixed_7a", i, x, layers[i], 0);
	branches[3] = shrink(n, x);
	return join(n, branches, 4);
}

static int block8(const struct inception *n, const char *name, int x, bool last)
{
	static const struct layer layers[2][3] = {{{192, 1, 1, 1}},
						  {{192, 1, 1, 1}, {224, 1, 3, 1}, {256, 3, 1, 1}}};
	int branches[2] = {branch(n, name, 0, x, layers[0], 0), branch(n, name, 1, x, layers[1], 0)};

	return residual(n, name, x, branches, 2, last ? 1 : 0.2f, !last);
}

static int repeat(const struct inception *n, const char *list, int count,
		  int (*block)(const struct inception *n, const char *name, int x), int x)
{
	char name[32];

	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s.%d", list, i);
		x = block(n, name, x);
	}
	return x;
}

static int block8_inner(const struct inception *n, const char *name, int x)
{
	return block8(n, name, x, false);
}

int arch_inception(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err)
{
	static const char *const keys[] = {"arch", "width", "depth",   "groups",
					   "norm", "stem",  "dropout", NULL};
	struct inception n = {.width = 1};
	enum block_stem kind;
	double dropout = 0;
	int x, r, depth = 10; /* of the longest: 10, 20 and 9 blocks */

	if ((r = spec_keys(spec, "net", keys, err)) < 0 ||
	    (r = blocks_init(&n.b, net, spec, false, err)) < 0 ||
	    (r = blocks_stem(spec, info, &kind, err)) < 0 ||
	    (r = spec_int(spec, "net", "depth", 1, 100, &depth, err)) < 0 ||
	    (r = spec_double(spec, "net", "width", 0.01, 16, &n.width, err)) < 0 ||
	    (r = spec_double(spec, "net", "dropout", 0, 0.99, &dropout, err)) < 0)
		return r;
	n.b.eps = 1e-3f;
	x = mixed_5b(&n, stem(&n, kind == BLOCK_STEM_CIFAR));
	x = mixed_6a(&n, repeat(&n, "repeat", depth, block35, x));
	x = mixed_7a(&n, repeat(&n, "repeat_1", 2 * depth, block17, x));
	x = repeat(&n, "repeat_2", depth - 1, block8_inner, x);
	x = conv(&n, "conv2d_7b", block8(&n, "block8", x, true), (struct layer){1536, 1, 1, 1}, true);
	x = net_global_avg_pool(net, x, err);
	if (dropout > 0)
		x = net_dropout(net, x, (float)dropout, err);
	return net_linear(net, "classif", x, &(struct linear_attr){.features = info->classes, .bias = true},
			  err);
}
