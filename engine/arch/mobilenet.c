/*
 * MobileNetV2 (Sandler et al. 2018, table 2): inverted residuals, which widen by 1×1, look around by a depthwise
 * 3×3 and narrow again without a ReLU. Names are torchvision's.
 */
#include "engine/arch/blocks.h"
#include "engine/spec.h"

#include <stdio.h>

static const struct {
	int expand, channels, blocks, stride;
} stages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
	      {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
enum { N_STAGES = sizeof(stages) / sizeof(stages[0]), FIRST = 32, LAST = 1280 };

struct mobilenet {
	struct blocks b;
	double width;
};

/* A multiple of the groups, and of 8 as published, that is at least 0.9 times what the factor gives. */
static int scaled(const struct mobilenet *m, int channels)
{
	int unit = m->b.groups % 8 == 0 ? m->b.groups : 8 * m->b.groups, used;
	double wanted = channels * m->width;

	if (8 % m->b.groups == 0)
		unit = 8;
	used = (int)(wanted + unit / 2.0) / unit * unit;
	used = used < unit ? unit : used;
	return used < 0.9 * wanted ? used + unit : used;
}

/* Convolution, norm and, with `relu`, ReLU6; conv_groups: 1 or, depthwise, as many as channels. */
static int layer(const struct mobilenet *m, const char *conv, const char *norm, int in, int channels,
		 int kernel, int stride, bool depthwise, bool relu)
{
	const struct conv2d_attr attr = {.channels = channels,
					 .groups = m->b.groups,
					 .kernel = kernel,
					 .stride = stride,
					 .pad = kernel / 2,
					 .conv_groups = depthwise ? channels : 1};
	int x = blocks_norm(&m->b, norm, net_conv2d(m->b.net, conv, in, &attr, m->b.err));

	return relu ? net_relu6(m->b.net, x, m->b.err) : x;
}

static int block(const struct mobilenet *m, int place, int in, int expand, int channels, int stride)
{
	int from, x = in, i = 0;
	char conv[48], norm[48];

	if (in < 0)
		return in;
	from = m->b.net->nodes[in].channels;
	if (expand > 1) {
		snprintf(conv, sizeof(conv), "features.%d.conv.%d.0", place, i);
		snprintf(norm, sizeof(norm), "features.%d.conv.%d.1", place, i++);
		x = layer(m, conv, norm, x, from * expand, 1, 1, false, true);
	}
	snprintf(conv, sizeof(conv), "features.%d.conv.%d.0", place, i);
	snprintf(norm, sizeof(norm), "features.%d.conv.%d.1", place, i++);
	x = layer(m, conv, norm, x, from * expand, 3, stride, true, true);
	snprintf(conv, sizeof(conv), "features.%d.conv.%d", place, i);
	snprintf(norm, sizeof(norm), "features.%d.conv.%d", place, i + 1);
	x = layer(m, conv, norm, x, channels, 1, 1, false, false);
	return stride == 1 && from == channels ? net_add(m->b.net, x, in, m->b.err) : x;
}

int arch_mobilenet(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err)
{
	static const char *const keys[] = {"arch", "width", "groups", "norm", "stem", "dropout", NULL};
	struct mobilenet m = {.width = 1};
	double dropout = 0.2;
	enum block_stem stem;
	int x, r, place = 1, last;
	char conv[32], norm[32];

	if ((r = spec_keys(spec, "net", keys, err)) < 0 ||
	    (r = blocks_init(&m.b, net, spec, false, err)) < 0 ||
	    (r = blocks_stem(spec, info, &stem, err)) < 0 ||
	    (r = spec_double(spec, "net", "width", 0.01, 16, &m.width, err)) < 0 ||
	    (r = spec_double(spec, "net", "dropout", 0, 0.99, &dropout, err)) < 0)
		return r;
	x = layer(&m, "features.0.0", "features.0.1", 0, scaled(&m, FIRST), 3,
		  stem == BLOCK_STEM_IMAGENET ? 2 : 1, false, true);
	for (int s = 0; s < N_STAGES; s++)
		for (int i = 0; i < stages[s].blocks; i++) {
			/* a small image isn't halved at the second stage either */
			bool halve = i == 0 && (s > 1 || stem == BLOCK_STEM_IMAGENET);

			x = block(&m, place++, x, stages[s].expand, scaled(&m, stages[s].channels),
				  halve ? stages[s].stride : 1);
		}
	last = scaled(&m, LAST);
	last = m.width < 1 ? LAST / m.b.groups * m.b.groups : last; /* published: it does not shrink */
	snprintf(conv, sizeof(conv), "features.%d.0", place);
	snprintf(norm, sizeof(norm), "features.%d.1", place);
	x = net_global_avg_pool(net, layer(&m, conv, norm, x, last, 1, 1, false, true), err);
	if (dropout > 0)
		x = net_dropout(net, x, (float)dropout, err);
	return net_linear(net, "classifier.1", x,
			  &(struct linear_attr){.features = info->classes, .bias = true}, err);
}
