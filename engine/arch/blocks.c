#include "engine/arch/blocks.h"

#include "engine/spec.h"

#include <stdio.h>
#include <string.h>

#define SMALL_SIDE 64 /* chosen: CIFAR has 32, Tiny ImageNet 64 */

int blocks_init(struct blocks *b, struct net *net, const cJSON *spec, bool may_lack, struct err *err)
{
	static const char *const names[] = {
		[BLOCK_NORM_GROUP] = "group", [BLOCK_NORM_BATCH] = "batch", [BLOCK_NORM_NONE] = "none"};
	const char *norm = "group";
	int r;

	*b = (struct blocks){.net = net, .err = err, .groups = 8, .eps = 1e-5f};
	if ((r = spec_int(spec, "net", "groups", 1, 256, &b->groups, err)) < 0 ||
	    (r = spec_string(spec, "net", "norm", &norm, err)) < 0)
		return r;
	while (b->norm < BLOCK_NORM_NONE && strcmp(names[b->norm], norm) != 0)
		b->norm++;
	if (strcmp(names[b->norm], norm) != 0 || (b->norm == BLOCK_NORM_NONE && !may_lack))
		return err_set(err, ERR_SPEC_VALUE, "\"net.norm\" must be group%s, not \"%.60s\"",
			       may_lack ? ", batch or none" : " or batch", norm);
	return 0;
}

int blocks_conv(const struct blocks *b, const char *name, int in, int channels, int kernel, int stride)
{
	const struct conv2d_attr attr = {.channels = channels,
					 .groups = b->groups,
					 .kernel = kernel,
					 .stride = stride,
					 .pad = kernel / 2,
					 .bias = b->bias || b->norm == BLOCK_NORM_NONE};

	return net_conv2d(b->net, name, in, &attr, b->err);
}

int blocks_norm(const struct blocks *b, const char *name, int in)
{
	switch (b->norm) {
	case BLOCK_NORM_GROUP:
		return net_group_norm(b->net, name, in, 0, b->err);
	case BLOCK_NORM_BATCH:
		return net_batch_norm(b->net, name, in, b->eps, b->err);
	default:
		return in;
	}
}

int blocks_conv_norm(const struct blocks *b, const char *prefix, const char *conv, const char *norm, int in,
		     int channels, int kernel, int stride)
{
	char name[2 * NET_NAME_MAX];
	int x;

	snprintf(name, sizeof(name), "%s%s", prefix, conv);
	x = blocks_conv(b, name, in, channels, kernel, stride);
	snprintf(name, sizeof(name), "%s%s", prefix, norm);
	return blocks_norm(b, name, x);
}

int blocks_stem(const cJSON *spec, const struct model_info *info, enum block_stem *ret, struct err *err)
{
	const char *stem = blocks_side(info) <= SMALL_SIDE ? "cifar" : "imagenet";
	int r = spec_string(spec, "net", "stem", &stem, err);

	if (r < 0)
		return r;
	*ret = strcmp(stem, "cifar") == 0 ? BLOCK_STEM_CIFAR : BLOCK_STEM_IMAGENET;
	if (*ret == BLOCK_STEM_IMAGENET && strcmp(stem, "imagenet") != 0)
		return err_set(err, ERR_SPEC_VALUE, "\"net.stem\" must be cifar or imagenet, not \"%.60s\"",
			       stem);
	return 0;
}
