/*
 * Simonyan & Zisserman 2015, table 1: columns A, B and D. Names and the places of modules are torchvision's,
 * which counts convolutions, norms, ReLUs and pools in one list, "features".
 */
#include "engine/arch/blocks.h"
#include "engine/spec.h"

#include <stdio.h>

enum { N_STAGES = 5, PLANE = 7 };

static const struct {
	int depth, convs[N_STAGES];
} columns[] = {{11, {1, 1, 2, 2, 2}}, {13, {2, 2, 2, 2, 2}}, {16, {2, 2, 3, 3, 3}}};
enum { N_COLUMNS = sizeof(columns) / sizeof(columns[0]) };

struct vgg {
	struct blocks b;
	int width, hidden;
	const int *convs;
};

static int features(const struct vgg *v)
{
	struct net *net = v->b.net;
	int x = 0, place = 0;
	char name[32];

	for (int stage = 0; stage < N_STAGES; stage++) {
		for (int i = 0; i < v->convs[stage]; i++) {
			snprintf(name, sizeof(name), "features.%d", place++);
			x = blocks_conv(&v->b, name, x, v->width << (stage < 3 ? stage : 3), 3, 1);
			if (v->b.norm != BLOCK_NORM_NONE) {
				snprintf(name, sizeof(name), "features.%d", place++);
				x = blocks_norm(&v->b, name, x);
			}
			x = net_relu(net, x, v->b.err);
			place++;
		}
		place++;
		/* a small image has no more to halve */
		if (x >= 0 && net->nodes[x].height > 1 && net->nodes[x].width > 1)
			x = net_max_pool(net, x, &(struct pool_attr){.kernel = 2}, v->b.err);
	}
	return x;
}

/* Down to 7×7, which torchvision does by averages of unequal windows where the plane is no multiple of 7; here
 * the plane is then taken as it is, and so is a smaller one. */
static int to_plane(const struct vgg *v, int x)
{
	const struct node *node;

	if (x < 0)
		return x;
	node = &v->b.net->nodes[x];
	if (node->height != node->width || node->height <= PLANE || node->height % PLANE)
		return x;
	return net_avg_pool(v->b.net, x, &(struct pool_attr){.kernel = node->height / PLANE}, v->b.err);
}

int arch_vgg(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err)
{
	static const char *const keys[] = {"arch", "depth",  "width",   "groups", "norm",
					   "stem", "hidden", "dropout", NULL};
	int depth = 16, column = 0, x, r;
	double dropout = 0.5;
	enum block_stem stem;
	struct vgg v;

	if ((r = spec_keys(spec, "net", keys, err)) < 0 ||
	    (r = blocks_init(&v.b, net, spec, true, err)) < 0 ||
	    (r = blocks_stem(spec, info, &stem, err)) < 0 ||
	    (r = spec_double(spec, "net", "dropout", 0, 0.99, &dropout, err)) < 0 ||
	    (r = spec_int(spec, "net", "depth", 11, 16, &depth, err)) < 0)
		return r;
	v.b.bias = true; /* torchvision has both */
	v.width = 64;
	v.hidden = stem == BLOCK_STEM_IMAGENET ? 4096 : 512;
	if ((r = spec_int(spec, "net", "width", 1, 4096, &v.width, err)) < 0 ||
	    (r = spec_int(spec, "net", "hidden", 1, 65536, &v.hidden, err)) < 0)
		return r;
	while (column < N_COLUMNS && columns[column].depth != depth)
		column++;
	if (column == N_COLUMNS)
		return err_set(err, ERR_SPEC_VALUE, "\"net.depth\" must be 11, 13 or 16");
	if (v.width % v.b.groups || v.hidden % v.b.groups)
		return err_set(err, ERR_SPEC_VALUE,
			       "\"net.width\" and \"net.hidden\" must be multiples of \"net.groups\", %d",
			       v.b.groups);
	v.convs = columns[column].convs;
	x = net_flatten(net, to_plane(&v, features(&v)), err);
	for (int i = 0; i < 2; i++) {
		const struct linear_attr attr = {.features = v.hidden, .groups = v.b.groups, .bias = true};

		x = net_relu(net, net_linear(net, i ? "classifier.3" : "classifier.0", x, &attr, err), err);
		if (dropout > 0)
			x = net_dropout(net, x, (float)dropout, err);
	}
	return net_linear(net, "classifier.6", x,
			  &(struct linear_attr){.features = info->classes, .bias = true}, err);
}
