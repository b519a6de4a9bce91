/*
 * Residual networks in their two published shapes: of CIFAR (three stages of basic blocks, He et al. 2016,
 * section 4.2) and of ImageNet (four stages, table 1). Names are torchvision's; in the CIFAR shape norms are
 * called norm1 instead of bn1, as saved models have them.
 */
#include "engine/arch/blocks.h"
#include "engine/spec.h"

#include <stdio.h>
#include <string.h>

struct resnet {
	struct blocks b;
	const char *norm; /* what norms are called: "norm" or "bn" */
	bool bottleneck;
};

static const struct {
	int depth;
	bool bottleneck;
	int blocks[4];
} imagenet[] = {
	{18, false, {2, 2, 2, 2}},  {34, false, {3, 4, 6, 3}},  {50, true, {3, 4, 6, 3}},
	{101, true, {3, 4, 23, 3}}, {152, true, {3, 8, 36, 3}},
};
enum { N_IMAGENET = sizeof(imagenet) / sizeof(imagenet[0]) };

/* conv<i> and its norm of the block at prefix. */
static int conv_norm(const struct resnet *rn, const char *prefix, int i, int in, int channels, int kernel,
		     int stride)
{
	char conv[16], norm[16];

	snprintf(conv, sizeof(conv), "conv%d", i);
	snprintf(norm, sizeof(norm), "%s%d", rn->norm, i);
	return blocks_conv_norm(&rn->b, prefix, conv, norm, in, channels, kernel, stride);
}

/* width: of the 3×3 convolutions. The stride is at the first of them (torchvision's "v1.5"). */
static int block(const struct resnet *rn, int stage, int i, int in, int width, int stride)
{
	int out = rn->bottleneck ? 4 * width : width, n = 0, x = in, shortcut = in;
	struct net *net = rn->b.net;
	char prefix[32];

	snprintf(prefix, sizeof(prefix), "layer%d.%d.", stage, i);
	if (rn->bottleneck)
		x = net_relu(net, conv_norm(rn, prefix, ++n, x, width, 1, 1), rn->b.err);
	x = net_relu(net, conv_norm(rn, prefix, ++n, x, width, 3, stride), rn->b.err);
	if (in >= 0 && (stride != 1 || net->nodes[in].channels != out))
		shortcut =
			blocks_conv_norm(&rn->b, prefix, "downsample.0", "downsample.1", in, out, 1, stride);
	x = conv_norm(rn, prefix, ++n, x, out, rn->bottleneck ? 1 : 3, 1);
	return net_relu(net, net_add(net, x, shortcut, rn->b.err), rn->b.err);
}

/* 3×3 with a stride of up to 2 and, for the rest of `shrink`, a pool; or ImageNet's 7×7 and pool (0). */
static int stem(const struct resnet *rn, int width, int shrink)
{
	int x = conv_norm(rn, "", 1, 0, width, shrink ? 3 : 7, shrink == 1 ? 1 : 2);

	x = net_relu(rn->b.net, x, rn->b.err);
	if (shrink == 1 || shrink == 2)
		return x;
	return net_max_pool(rn->b.net, x, &(struct pool_attr){.kernel = 3, .stride = 2, .pad = 1}, rn->b.err);
}

/* "stem": a shape's name, or how much 3×3 convolutions shrink the input: 1, 2, 4, or 0: by its size. */
static int read_stem(const cJSON *spec, const struct model_info *info, bool small, int *ret, struct err *err)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(spec, "stem");
	int side = blocks_side(info), shrink = 0, r;
	enum block_stem name;

	if (cJSON_IsString(item) || (!item && !small)) {
		r = blocks_stem(spec, info, &name, err);
		*ret = name == BLOCK_STEM_CIFAR;
		return r;
	}
	r = spec_int(spec, "net", "stem", 0, 4, &shrink, err);
	if (r < 0)
		return r;
	if (shrink == 3)
		return err_set(err, ERR_SPEC_VALUE, "\"net.stem\" must be cifar, imagenet, 0, 1, 2 or 4");
	*ret = shrink ? shrink : side <= 40 ? 1 : side <= 80 ? 2 : 4;
	return 0;
}

int arch_resnet(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err)
{
	static const char *const keys[] = {"arch", "depth", "width", "groups", "stem", "norm", "style", NULL};
	int depth = 20, width, shrink = 0, n_stages, x, r, known = 0;
	const char *style;
	struct resnet rn;
	bool small;

	if ((r = spec_keys(spec, "net", keys, err)) < 0 ||
	    (r = spec_int(spec, "net", "depth", 8, 302, &depth, err)) < 0 ||
	    (r = blocks_init(&rn.b, net, spec, false, err)) < 0)
		return r;
	while (known < N_IMAGENET && imagenet[known].depth != depth)
		known++;
	style = known < N_IMAGENET ? "imagenet" : "cifar";
	if ((r = spec_string(spec, "net", "style", &style, err)) < 0)
		return r;
	small = strcmp(style, "cifar") == 0;
	if (!small && strcmp(style, "imagenet") != 0)
		return err_set(err, ERR_SPEC_VALUE, "\"net.style\" must be cifar or imagenet");
	if (small ? (depth - 2) % 6 : known == N_IMAGENET)
		return err_set(err, ERR_SPEC_VALUE,
			       "\"net.depth\" must be 6n+2 (8, 14, 20, 26, 32 …), or 18, 34, 50, 101 or 152");
	width = small ? 16 : 64;
	if ((r = spec_int(spec, "net", "width", 1, 4096, &width, err)) < 0 ||
	    (r = read_stem(spec, info, small, &shrink, err)) < 0)
		return r;
	if (width % rn.b.groups)
		return err_set(err, ERR_SPEC_VALUE, "\"net.width\" must be a multiple of \"net.groups\", %d",
			       rn.b.groups);
	rn.norm = small ? "norm" : "bn";
	rn.bottleneck = !small && imagenet[known].bottleneck;
	n_stages = small ? 3 : 4;
	x = stem(&rn, width, shrink);
	for (int stage = 0; stage < n_stages; stage++) {
		int n = small ? (depth - 2) / 6 : imagenet[known].blocks[stage];

		for (int i = 0; i < n; i++)
			x = block(&rn, stage + 1, i, x, width << stage, stage && i == 0 ? 2 : 1);
	}
	x = net_global_avg_pool(net, x, err);
	return net_linear(net, "fc", x, &(struct linear_attr){.features = info->classes, .bias = true}, err);
}
