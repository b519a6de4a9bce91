/*
 * Architectures: how the "net" object of a spec becomes a network. To add one: its own file here and a row
 * of the table in arch.c. Private to engine/.
 *
 * {"arch":"resnet", "depth":20, "width":16, "groups":8, "stem":0}
 *	He et al. 2016, section 4.2 (CIFAR): depth = 6n+2, three stages of n blocks with width, 2·width and
 *	4·width channels, strides 1, 2, 2; GroupNorm; projections (1×1) where the shape changes. stem: how
 *	much the input is shrunk before the first stage, 1, 2 or 4; 0 chooses by the input's size.
 * {"arch":"mlp", "hidden":[256,256], "groups":8}
 * {"arch":"layers", "groups":8, "layers":[…]}
 *	A list of objects, each built on the one before it, or on the one that "in" names ("input" is the
 *	input). Keys: "op" and, by op (default):
 *	  conv2d	channels, kernel (3), stride (1), pad ((kernel-1)/2), conv_groups (1), bias (false),
 *			groups (as above; 0 = never sliced)
 *	  linear	features ("classes": the classifier, never sliced), bias (true), groups
 *	  group_norm	norm_groups (0: as the input is sliced)
 *	  max_pool, avg_pool	kernel (2), stride (kernel), pad (0)
 *	  relu, global_avg_pool, flatten
 *	  add		with: the name of the other input
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
};

/* A finished network from {"arch":…}; parameters are zero. */
int arch_build(struct net **ret, const cJSON *spec, const struct model_info *info, struct err *err);

int arch_resnet(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);
int arch_mlp(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);
int arch_layers(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err);

#endif
