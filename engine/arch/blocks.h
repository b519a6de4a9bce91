/*
 * What families of convolutional networks share: the knobs "groups" and "norm", and a convolution with what
 * follows it. Private to engine/arch.
 */
#ifndef ENGINE_ARCH_BLOCKS_H
#define ENGINE_ARCH_BLOCKS_H

#include "engine/arch/arch.h"

enum block_norm { BLOCK_NORM_GROUP, BLOCK_NORM_BATCH, BLOCK_NORM_NONE };

struct blocks {
	struct net *net;
	struct err *err;
	int groups; /* in which each layer's channels are sliced */
	enum block_norm norm;
	float eps; /* of BatchNorm; 1e-5 */
	bool bias; /* of convolutions, beside the norm's; where no norm follows there always is one */
};

/* Reads "groups" (8) and "norm" ("group"; "none" only where may_lack) of a spec. */
int blocks_init(struct blocks *b, struct net *net, const cJSON *spec, bool may_lack, struct err *err);

/* A convolution that keeps the plane (pad kernel/2) but for its stride. */
int blocks_conv(const struct blocks *b, const char *name, int in, int channels, int kernel, int stride);
/* The norm that the spec asks for; its input itself when that is "none". */
int blocks_norm(const struct blocks *b, const char *name, int in);
/* Both; names from prefix and the two suffixes: "layer1.0." "conv1" "bn1". */
int blocks_conv_norm(const struct blocks *b, const char *prefix, const char *conv, const char *norm, int in,
		     int channels, int kernel, int stride);

/* "stem": "cifar" (images of up to 64 pixels a side) or "imagenet", by default as the input is. */
enum block_stem { BLOCK_STEM_CIFAR, BLOCK_STEM_IMAGENET };
int blocks_stem(const cJSON *spec, const struct model_info *info, enum block_stem *ret, struct err *err);

/* The side of the input: the longer one. */
static inline int blocks_side(const struct model_info *info)
{
	return info->height > info->width ? info->height : info->width;
}

#endif
