#include "engine/arch/arch.h"
#include "engine/spec.h"

#include <stdio.h>

struct resnet {
	struct net *net;
	int groups;
	struct err *err;
};

/* 3×3 or 1×1 convolution and its norm. */
static int conv_norm(const struct resnet *rn, const char *conv, const char *norm, int in, int channels,
		     int kernel, int stride)
{
	const struct conv2d_attr attr = {.channels = channels,
					 .groups = rn->groups,
					 .kernel = kernel,
					 .stride = stride,
					 .pad = kernel / 2};

	return net_group_norm(rn->net, norm, net_conv2d(rn->net, conv, in, &attr, rn->err), 0, rn->err);
}

static int block(const struct resnet *rn, int stage, int i, int in, int channels, int stride)
{
	char conv[48], norm[48];
	int x, shortcut = in;

	snprintf(conv, sizeof(conv), "layer%d.%d.conv1", stage, i);
	snprintf(norm, sizeof(norm), "layer%d.%d.norm1", stage, i);
	x = net_relu(rn->net, conv_norm(rn, conv, norm, in, channels, 3, stride), rn->err);
	if (in >= 0 && (stride != 1 || rn->net->nodes[in].channels != channels)) {
		snprintf(conv, sizeof(conv), "layer%d.%d.downsample.0", stage, i);
		snprintf(norm, sizeof(norm), "layer%d.%d.downsample.1", stage, i);
		shortcut = conv_norm(rn, conv, norm, in, channels, 1, stride);
	}
	snprintf(conv, sizeof(conv), "layer%d.%d.conv2", stage, i);
	snprintf(norm, sizeof(norm), "layer%d.%d.norm2", stage, i);
	x = conv_norm(rn, conv, norm, x, channels, 3, 1);
	return net_relu(rn->net, net_add(rn->net, x, shortcut, rn->err), rn->err);
}

int arch_resnet(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err)
{
	static const char *const keys[] = {"arch", "depth", "width", "groups", "stem", NULL};
	int depth = 20, width = 16, groups = 8, stem = 0, side, x, r;
	struct resnet rn = {.net = net, .err = err};

	if ((r = spec_keys(spec, "net", keys, err)) < 0 ||
	    (r = spec_int(spec, "net", "depth", 8, 302, &depth, err)) < 0 ||
	    (r = spec_int(spec, "net", "width", 1, 4096, &width, err)) < 0 ||
	    (r = spec_int(spec, "net", "groups", 1, 256, &groups, err)) < 0 ||
	    (r = spec_int(spec, "net", "stem", 0, 4, &stem, err)) < 0)
		return r;
	if ((depth - 2) % 6)
		return err_set(err, ERR_SPEC_VALUE, "\"net.depth\" must be 6n+2: 8, 14, 20, 26, 32 …");
	if (width % groups)
		return err_set(err, ERR_SPEC_VALUE, "\"net.width\" must be a multiple of \"net.groups\", %d",
			       groups);
	if (stem == 3)
		return err_set(err, ERR_SPEC_VALUE, "\"net.stem\" must be 0, 1, 2 or 4");
	side = info->height > info->width ? info->height : info->width;
	if (!stem)
		stem = side <= 40 ? 1 : side <= 80 ? 2 : 4;
	rn.groups = groups;
	x = net_relu(net, conv_norm(&rn, "conv1", "norm1", 0, width, 3, stem > 1 ? 2 : 1), err);
	if (stem == 4)
		x = net_max_pool(net, x, &(struct pool_attr){.kernel = 3, .stride = 2, .pad = 1}, err);
	for (int stage = 0; stage < 3; stage++)
		for (int i = 0; i < (depth - 2) / 6; i++)
			x = block(&rn, stage + 1, i, x, width << stage, stage && i == 0 ? 2 : 1);
	x = net_global_avg_pool(net, x, err);
	return net_linear(net, "fc", x, &(struct linear_attr){.features = info->classes, .bias = true}, err);
}
