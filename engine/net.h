/*
 * A network as it is described: nodes, attributes and full-width parameters. Nothing here knows a slice
 * rate's kernels, a batch or a device: a session (engine/session.h) works those out.
 *
 *	net_new(&net, 1, 28, 28);				// node 0 is the input, (C, H, W)
 *	conv = (struct conv2d_attr){ .channels = 32, .groups = 8, .kernel = 3, .pad = 1 };
 *	x = net_conv2d(net, "conv1", 0, &conv, &err);
 *	x = net_group_norm(net, "norm1", x, &err);
 *	x = net_relu(net, x, &err);
 *	x = net_global_avg_pool(net, x, &err);
 *	x = net_linear(net, "fc", x, &(struct linear_attr){ .features = 10, .bias = true }, &err);
 *	r = net_finish(net, x, &err);
 *	net_init(net, seed);
 *
 * A node function gives the new node's id (> 0) or a negative errno with the cause in err. A negative input
 * id is passed through, so that a chain of calls needs one check at its end. The net stays usable after an
 * error.
 *
 * Activations are (N, C, H, W) in meaning and N, H, W, C in memory, everywhere. `flatten` only renames: the
 * features of a (C, H, W) map count in PyTorch's order, c·H·W + h·W + w, in the weight of a following linear.
 *
 * Slicing (DESIGN section 5): `groups` of a conv2d or linear says into how many equal groups its outputs are
 * cut; 0: never sliced (the classifier). At rate r the first slice_extent() of them are used.
 */
#ifndef ENGINE_NET_H
#define ENGINE_NET_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum op {
#define OP(name, ...) OP_##name,
#include "engine/ops.def"
#undef OP
	OP_COUNT
};

enum op_params { OP_PARAMS_NONE, OP_PARAMS_WEIGHT_BIAS, OP_PARAMS_AFFINE, OP_PARAMS_BATCH };
enum op_slice { OP_SLICE_INPUT, OP_SLICE_OWN, OP_SLICE_SAME, OP_SLICE_JOIN };

struct op_info {
	const char *name;
	int inputs;
	enum op_params params;
	bool gradient;
	enum op_slice slice;
	float tolerance, mean_tolerance;
};
const struct op_info *op_info(enum op op);

/* How much of a dimension is used at a rate: the first round(rate·groups) of its groups, at least one;
 * all of it when groups is 0. */
int slice_extent(int size, int groups, float rate);

#define NET_NAME_MAX   64
#define PARAM_NAME_MAX (NET_NAME_MAX + 40)
#define PARAM_MAX_DIM  4
#define NET_MAX_RATES  8

/*
 * One learned array, full width, in PyTorch's order: conv2d (O, I/conv_groups, KH, KW), linear (O, I), bias
 * (O), scale and shift of a normalisation (C). A slice is the prefix slice_extent(dims[i], groups[i], rate)
 * of each dimension. name is PyTorch's too: "conv1.weight", "norm1.bias".
 *
 * Some belong to one slice rate only (batch_norm): then the dimensions are those of the slice. Full width has
 * PyTorch's names, "bn1.running_mean", and another rate its own: "bn1.slice-0.25.running_mean".
 */
struct param {
	char name[PARAM_NAME_MAX];
	int rank, dims[PARAM_MAX_DIM];
	int groups[PARAM_MAX_DIM]; /* of each dimension; 0: never sliced */
	size_t size;               /* elements */
	int64_t end;               /* of these and all before */
	float *value, *grad;       /* (dims); grad is NULL until params_need_grad, and of a statistic */
	bool borrowed;             /* value is another's, and not to be written to */
	float rate;                /* the one that it belongs to; 0: all */
	bool statistic;            /* not learned: a training session's forward moves it */
	bool decay;                /* weight decay applies: weights yes, biases and normalisation no */
	int fan_in;                /* of the He initialisation; 0: constant */
	float constant;
};

struct params {
	int n;
	struct param *list;
	uint64_t version;    /* see params_changed */
	uint64_t statistics; /* moves when a statistic does */
};

/* Whether a slice of that rate uses it. */
bool param_used(const struct param *p, float rate);

int params_need_grad(struct params *p);  /* allocates grad, zeroed; -ENOMEM */
void params_zero_grad(struct params *p); /* all of every grad */
/* Call it after writing to any value: sessions then pack their weights again at the next forward. */
void params_changed(struct params *p);
/* The parameter of that name, or NULL. */
struct param *params_find(struct params *p, const char *name);

struct conv2d_attr {
	int channels, groups;    /* outputs, and how they are sliced */
	int kernel, stride, pad; /* stride 0 means 1 */
	int kernel_w, pad_w;     /* where the width's differ from the height's; kernel_w 0: they don't */
	int conv_groups; /* 0 and 1: dense. Else input and output must be sliced alike, and a slice must hold
			  * whole convolution groups (depthwise does) */
	bool bias;
};

struct linear_attr {
	int features, groups;
	bool bias;
};

struct pool_attr {
	/* stride 0: as kernel; padding counts as zeros in an average, as in PyTorch, but with exclude_pad */
	int kernel, stride, pad;
	bool exclude_pad;
};

struct node {
	enum op op;
	char name[NET_NAME_MAX];     /* "" for ops without parameters */
	int in[2];                   /* node ids; -1: none */
	int channels, height, width; /* of the output, full width */
	int groups;                  /* how its channels are sliced */
	bool flat;                   /* after flatten */
	union {
		struct conv2d_attr conv;
		struct linear_attr linear;
		struct pool_attr pool;
		struct {
			int groups; /* of the statistics; equal to the input's slice groups */
			float eps;
		} norm;
		struct {
			float scale; /* of the second addend */
		} add;
		struct {
			float share; /* of the elements that become 0 */
		} dropout;
	};
	/* indices in params.list; -1: none. batch_norm: of the full width's set, see net_batch_norm_set */
	int weight, bias;
};

struct net {
	int n_nodes;
	struct node *nodes; /* in order: inputs come before */
	int output;         /* node id; 0 until net_finish */
	int feature; /* the last feature map before the network loses its plane, for Grad-CAM; 0: the input */
	int n_rates; /* those that batch_norm has sets for, ascending to 1 */
	float rates[NET_MAX_RATES];
	struct params params;
	struct workspace *workspace; /* private to sessions: memory that those of this net share */
};

int net_new(struct net **ret, int channels, int height, int width, struct err *err);
void net_free(struct net *net);
/* Before the first batch_norm; ascending, the last is 1. Without it there is a set for full width only. */
int net_set_rates(struct net *net, const float *rates, int n, struct err *err);

int net_conv2d(struct net *net, const char *name, int in, const struct conv2d_attr *attr, struct err *err);
int net_linear(struct net *net, const char *name, int in, const struct linear_attr *attr, struct err *err);
/* In as many groups as its input is sliced into (norm_groups 0), or in norm_groups of them, a multiple of
 * these. An input that isn't sliced: 0 means 1 group. eps 1e-5. */
int net_group_norm(struct net *net, const char *name, int in, int norm_groups, struct err *err);
/*
 * Batch normalisation (Ioffe & Szegedy 2015) with a set of scale, shift, running mean and variance for each of
 * the net's rates (Yu et al. 2019, "slimmable networks"). A training session normalises by the batch's own
 * statistics and moves the running ones by a tenth, PyTorch's way; another uses the running ones.
 */
int net_batch_norm(struct net *net, const char *name, int in, float eps, struct err *err);
/* Index of the set for a rate: scale, shift, running mean and variance, in this order. -EINVAL: no such. */
int net_batch_norm_set(const struct net *net, const struct node *node, float rate);
int net_relu(struct net *net, int in, struct err *err);
int net_relu6(struct net *net, int in, struct err *err); /* min(max(x, 0), 6) */
int net_add(struct net *net, int a, int b, struct err *err);
int net_add_scaled(struct net *net, int a, int b, float scale, struct err *err); /* a + scale·b */
/*
 * Channels of a and of b. Where they are sliced, in the same number of groups, the result's groups are each one
 * of a and then one of b, so that a prefix of it is what prefixes of a and b give: what follows needs no rule of
 * its own. PyTorch's order it is where they are not sliced.
 */
int net_concat(struct net *net, int a, int b, struct err *err);
/* In training a share of the elements becomes 0 and the others grow by 1/(1-share) (Srivastava et al. 2014). */
int net_dropout(struct net *net, int in, float share, struct err *err);
int net_max_pool(struct net *net, int in, const struct pool_attr *attr, struct err *err);
int net_avg_pool(struct net *net, int in, const struct pool_attr *attr, struct err *err);
int net_global_avg_pool(struct net *net, int in, struct err *err);
int net_flatten(struct net *net, int in, struct err *err);
/* Names the logits: a node of 1×1 plane whose channels are not sliced. Allocates the parameters' values. */
int net_finish(struct net *net, int output, struct err *err);

/* He et al. 2015, eq. 10: weights normal with variance 2/fan_in, biases 0, scales 1. Seeded, independent of
 * the machine. */
void net_init(struct net *net, uint64_t seed);

int64_t net_params(const struct net *net, float rate); /* elements used */
int64_t net_flops(const struct net *net, float rate); /* conv2d and linear, 2 × multiply-adds, one instance */

#endif
