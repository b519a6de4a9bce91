/*
 * Architectures: how the "net" object of a spec becomes a network. To add one: its own file here and a row
 * of the table in arch.c. Private to engine/.
 *
 * "groups": in how many groups channels are sliced (8); "norm": what follows each convolution, "group"
 * (GroupNorm in these groups) or "batch" (one BatchNorm for each slice rate); "stem": how the network begins,
 * as for small images ("cifar", the default up to 64 pixels a side) or large ones ("imagenet").
 *
 * {"arch":"resnet", "depth":20, "width":16, "groups":8, "norm":"group", "stem":0}
 *	He et al. 2016, section 4.2 (CIFAR): depth = 6n+2, three stages of n blocks with width, 2·width and
 *	4·width channels, strides 1, 2, 2; projections (1×1) where the shape changes. stem: how much the input
 *	is shrunk before the first stage by a 3×3 convolution, 1, 2 or 4; 0 chooses by the input's size.
 * {"arch":"resnet", "depth":18, "width":64, "groups":8, "norm":"group", "stem":"imagenet"}
 *	table 1 (ImageNet), torchvision's names: depth 18, 34 (basic blocks), 50, 101, 152 (bottlenecks). stem
 *	"cifar": a 3×3 convolution instead of 7×7 and a pool. "style":"cifar" makes a 50 or 152 of the first
 *	kind, "imagenet" is the default for these depths.
 * {"arch":"vgg", "depth":16, "width":64, "groups":8, "norm":"group", "stem":"imagenet", "hidden":4096,
 *  "dropout":0.5}
 *	Simonyan & Zisserman 2015, columns A, B, D (depth 11, 13, 16); norm may be "none". hidden: of the two
 *	layers before the classifier; 512 with stem "cifar".
 * {"arch":"mobilenet", "width":1, "groups":8, "norm":"group", "stem":"imagenet", "dropout":0.2}
 *	MobileNetV2 (Sandler et al. 2018). width: the published factor of all channels. stem "cifar": the first
 *	two strides are 1.
 * {"arch":"inception-resnet-v2", "width":1, "depth":10, "groups":8, "norm":"group", "stem":"imagenet", "dropout":0}
 *	Szegedy et al. 2017. width: a factor of all channels. depth: 10 blocks at 35², 20 at 17², 10 at 8², or
 *	as many in proportion. stem "cifar": padded and without strides.
 * {"arch":"mlp", "hidden":[256,256], "groups":8}
 * {"arch":"layers", "groups":8, "layers":[…]}
 *	A list of objects, each built on the one before it, or on the one that "in" names ("input" is the
 *	input). Keys: "op" and, by op (default):
 *	  conv2d	channels, kernel (3), stride (1), pad ((kernel-1)/2), kernel_w and pad_w (where the
 *			width's differ), conv_groups (1), bias (false), groups (as above; 0 = never sliced)
 *	  linear	features ("classes": the classifier, never sliced), bias (true), groups
 *	  group_norm	norm_groups (0: as the input is sliced)
 *	  max_pool, avg_pool	kernel (2), stride (kernel), pad (0); exclude_pad (false): of averages
 *	  batch_norm, relu, relu6, global_avg_pool, flatten
 *	  dropout	share (0.5)
 *	  add		with: the name of the other input; scale (1): of that one
 *	  concat	with
 *	Any may have a "name" (else its op and place: "conv2d3"). The last must give one number a class:
 *	{"op":"linear","features":"classes"}.
 */
#ifndef ENGINE_ARCH_ARCH_H
#define ENGINE_ARCH_ARCH_H

#include "engine/model.h"
#include "engine/net.h"

#include <cJSON.h>

struct arch {
	const char *name;
	/* Adds the nodes to a net that has only its input; gives the id of the logits or a negative errno. */
	int (*build)(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);
	/* Side of a square input that its default form takes, to check a spec before the data are known; 0: no
	 * telling. */
	int side;
};

const struct arch *arch_find(const char *name); /* NULL: there is none of that name */

/* A finished network from {"arch":…}; parameters are zero. */
int arch_build(struct net **ret, const cJSON *spec, const struct model_info *info, struct err *err);

int arch_resnet(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);
int arch_vgg(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);
int arch_mobilenet(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);
int arch_inception(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);
int arch_mlp(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);
int arch_layers(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);

#endif
