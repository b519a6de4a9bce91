/* Networks that the conformance tests build by hand, and sessions of them. */
#ifndef TESTS_CONFORM_NETS_H
#define TESTS_CONFORM_NETS_H

#include "tests/conform/conform.h"

#include "engine/backend.h"
#include "engine/session.h"

enum { GROUPS = 8, CLASSES = 5, BATCH = 4 };

#define TOLERANCE      1e-4f /* of a dozen layers in a row */
#define MEAN_TOLERANCE 1e-5f

static inline int conv(struct net *net, const char *name, int in, int channels, int kernel, int stride,
		       int groups)
{
	struct err err = ERR_INIT;
	int id = net_conv2d(net, name, in,
			    &(struct conv2d_attr){.channels = channels,
						  .groups = groups,
						  .kernel = kernel,
						  .stride = stride,
						  .pad = kernel / 2},
			    &err);

	if (id < 0)
		fail_msg("%s: %s", name, err.detail);
	return id;
}

/*
 * Two residual blocks, the second narrowing the plane with a projection that is normalised too. `groups`
 * slices of `width` channels in all.
 */
static inline int build_resnet(struct net *net, int width, int groups)
{
	int x, y, z;

	x = conv(net, "stem", 0, width, 3, 1, groups);
	x = net_relu(net, net_group_norm(net, "stem_norm", x, 0, NULL), NULL);
	y = conv(net, "a1", x, width, 3, 1, groups);
	y = net_relu(net, net_group_norm(net, "a1_norm", y, 0, NULL), NULL);
	y = net_group_norm(net, "a2_norm", conv(net, "a2", y, width, 3, 1, groups), 0, NULL);
	x = net_relu(net, net_add(net, y, x, NULL), NULL);
	y = conv(net, "b1", x, 2 * width, 3, 2, groups);
	y = net_relu(net, net_group_norm(net, "b1_norm", y, 0, NULL), NULL);
	y = net_group_norm(net, "b2_norm", conv(net, "b2", y, 2 * width, 3, 1, groups), 0, NULL);
	z = net_group_norm(net, "bp_norm", conv(net, "bp", x, 2 * width, 1, 2, groups), 0, NULL);
	x = net_relu(net, net_add(net, y, z, NULL), NULL);
	x = net_global_avg_pool(net, x, NULL);
	return net_linear(net, "fc", x, &(struct linear_attr){.features = CLASSES, .bias = true}, NULL);
}

/*
 * What the ResNet lacks: pools, depthwise, bias, pre-activation adds of which one addend is used again,
 * flatten.
 */
static inline int build_mixed(struct net *net, int width, int groups)
{
	int x, y;

	x = net_conv2d(net, "stem", 0,
		       &(struct conv2d_attr){
			       .channels = width, .groups = groups, .kernel = 3, .pad = 1, .bias = true},
		       NULL);
	x = net_max_pool(net, net_relu(net, x, NULL), &(struct pool_attr){.kernel = 3, .stride = 2, .pad = 1},
			 NULL);
	x = net_relu(net, x, NULL);
	y = net_conv2d(
		net, "depth", x,
		&(struct conv2d_attr){
			.channels = width, .groups = groups, .kernel = 3, .pad = 1, .conv_groups = width},
		NULL);
	y = net_group_norm(net, "norm", y, 0, NULL);
	x = net_add(net, x, y, NULL);
	y = net_add(net, y, x, NULL);
	x = net_add(net, net_add(net, x, x, NULL), y, NULL);
	x = net_avg_pool(net, x, &(struct pool_attr){.kernel = 2}, NULL);
	x = net_flatten(net, x, NULL);
	x = net_linear(net, "hidden", x,
		       &(struct linear_attr){.features = 2 * width, .groups = groups, .bias = true}, NULL);
	x = net_relu(net, x, NULL);
	return net_linear(net, "fc", x, &(struct linear_attr){.features = CLASSES, .bias = true}, NULL);
}

static inline int build_mlp(struct net *net, int width, int groups)
{
	int x = net_flatten(net, 0, NULL);

	x = net_linear(net, "h1", x, &(struct linear_attr){.features = width, .groups = groups, .bias = true},
		       NULL);
	x = net_group_norm(net, "h1_norm", x, 0, NULL);
	x = net_relu(net, x, NULL);
	x = net_linear(net, "h2", x, &(struct linear_attr){.features = width, .groups = groups, .bias = true},
		       NULL);
	x = net_relu(net, x, NULL);
	return net_linear(net, "fc", x, &(struct linear_attr){.features = CLASSES, .bias = true}, NULL);
}

/* BatchNorm wherever it can stand: folded, with a residual, after an addition, after the plane is gone; and an
 * inverted residual with ReLU6. */
static inline int build_batch(struct net *net, int width, int groups)
{
	int x, y;

	x = net_batch_norm(net, "stem_bn", conv(net, "stem", 0, width, 3, 1, groups), 1e-5f, NULL);
	x = net_relu6(net, x, NULL);
	y = net_batch_norm(net, "a1_bn", conv(net, "a1", x, 2 * width, 1, 1, groups), 1e-5f, NULL);
	y = net_relu6(net, y, NULL);
	y = net_conv2d(net, "a2", y,
		       &(struct conv2d_attr){.channels = 2 * width,
					     .groups = groups,
					     .kernel = 3,
					     .pad = 1,
					     .conv_groups = 2 * width},
		       NULL);
	y = net_relu6(net, net_batch_norm(net, "a2_bn", y, 1e-3f, NULL), NULL);
	y = net_batch_norm(net, "a3_bn", conv(net, "a3", y, width, 1, 1, groups), 1e-5f, NULL);
	x = net_relu(net, net_add(net, y, x, NULL), NULL);
	x = net_relu(net, net_batch_norm(net, "b_bn", x, 1e-5f, NULL), NULL);
	y = conv(net, "c", x, width, 3, 1, groups); /* used twice: its norm can't be folded */
	x = net_add(net, net_batch_norm(net, "c_bn", y, 1e-5f, NULL), y, NULL);
	x = net_flatten(net, net_global_avg_pool(net, x, NULL), NULL);
	x = net_dropout(net, x, 0.25f, NULL);
	x = net_linear(net, "hidden", x, &(struct linear_attr){.features = width, .groups = groups}, NULL);
	x = net_relu6(net, net_batch_norm(net, "hidden_bn", x, 1e-5f, NULL), NULL);
	return net_linear(net, "fc", x, &(struct linear_attr){.features = CLASSES, .bias = true}, NULL);
}

/* Branches that are joined, 1×7 and 7×1, and additions that scale, of which both, one or none of the addends is
 * used again. */
static inline int build_branches(struct net *net, int width, int groups)
{
	struct conv2d_attr flat = {
		.channels = width, .groups = groups, .kernel = 1, .kernel_w = 7, .pad_w = 3};
	int x, a, b, c;

	x = net_relu(net,
		     net_batch_norm(net, "stem_bn", conv(net, "stem", 0, width, 3, 1, groups), 1e-3f, NULL),
		     NULL);
	a = conv(net, "a", x, 2 * width, 1, 1, groups);
	b = net_relu(net, net_batch_norm(net, "b1_bn", net_conv2d(net, "b1", x, &flat, NULL), 1e-3f, NULL),
		     NULL);
	flat = (struct conv2d_attr){
		.channels = width, .groups = groups, .kernel = 7, .kernel_w = 1, .pad = 3, .bias = true};
	b = net_conv2d(net, "b2", b, &flat, NULL);
	c = net_avg_pool(net, x, &(struct pool_attr){.kernel = 3, .stride = 1, .pad = 1, .exclude_pad = true},
			 NULL);
	a = net_concat(net, net_concat(net, a, b, NULL), c, NULL);
	a = net_relu(net, net_group_norm(net, "join_norm", a, 0, NULL), NULL);
	a = conv(net, "up", a, width, 1, 1, groups);
	x = net_relu(net, net_add_scaled(net, x, a, 0.25f, NULL), NULL);
	a = net_group_norm(net, "n1", conv(net, "d", x, width, 1, 1, groups), 0, NULL);
	x = net_add_scaled(net, x, a, -0.5f, NULL);
	x = net_add_scaled(net, x, x, 0.125f, NULL);
	x = net_global_avg_pool(net, net_concat(net, x, a, NULL), NULL);
	return net_linear(net, "fc", x, &(struct linear_attr){.features = CLASSES, .bias = true}, NULL);
}

/* Convolutions that an addition follows: with and without a norm, both addends such, the other addend the
 * convolution's own input, used again later, or dying there; and one after the feature map. */
static inline int build_residual(struct net *net, int width, int groups)
{
	int x, y, z;

	x = net_relu(net,
		     net_batch_norm(net, "stem_bn", conv(net, "stem", 0, width, 3, 1, groups), 1e-5f, NULL),
		     NULL);
	x = net_add(net, conv(net, "a", x, width, 3, 1, groups), x, NULL);
	y = net_relu(net, conv(net, "b1", x, width, 3, 1, groups), NULL);
	y = net_batch_norm(net, "b2_bn", conv(net, "b2", y, width, 1, 1, groups), 1e-5f, NULL);
	x = net_relu6(net, net_add(net, x, y, NULL), NULL);
	y = net_batch_norm(net, "c1_bn", conv(net, "c1", x, 2 * width, 3, 2, groups), 1e-5f, NULL);
	z = net_batch_norm(net, "c2_bn", conv(net, "c2", x, 2 * width, 1, 2, groups), 1e-5f, NULL);
	x = net_relu(net, net_add(net, y, z, NULL), NULL);
	y = net_relu(net, conv(net, "d1", x, 2 * width, 1, 1, groups), NULL);
	y = net_relu(net, net_add(net, conv(net, "d2", y, 2 * width, 1, 1, groups), x, NULL), NULL);
	x = net_add(net, x, y, NULL);
	x = net_global_avg_pool(net, x, NULL);
	x = net_add(net, x, conv(net, "e", x, 2 * width, 1, 1, groups), NULL);
	return net_linear(net, "fc", x, &(struct linear_attr){.features = CLASSES, .bias = true}, NULL);
}

static const struct {
	const char *name;
	int (*build)(struct net *net, int width, int groups);
	int width, channels, height, steps, cam_steps; /* steps after fusion, also with Grad-CAM */
} nets[] = {
	{"resnet", build_resnet, 16, 3, 10, 6 * 2 + 2, 6 * 2 + 2},
	{"mixed", build_mixed, 32, 1, 12, 12, 12},
	{"mlp", build_mlp, 64, 1, 6, 4, 4},
	{"batch", build_batch, 16, 3, 8, 11, 11},
	{"branches", build_branches, 16, 3, 8, 17, 17},
	{"residual", build_residual, 16, 3, 8, 12, 13},
};
enum { N_NETS = sizeof(nets) / sizeof(nets[0]) };

static inline struct net *make(size_t which, int width, int groups)
{
	struct err err = ERR_INIT;
	struct net *net;
	int r = net_new(&net, nets[which].channels, nets[which].height, nets[which].height, &err);

	assert_int_equal(r, 0);
	if (groups == GROUPS)
		assert_int_equal(net_set_rates(net, (const float[]){0.25f, 0.5f, 0.75f, 1}, 4, &err), 0);
	r = net_finish(net, nets[which].build(net, width, groups), &err);
	if (r < 0)
		fail_msg("%s: %s", nets[which].name, err.detail);
	net_init(net, conform_seed);
	/* scales, shifts and biases that differ from channel to channel */
	for (int i = 0; i < net->params.n; i++)
		if (net->params.list[i].rank == 1) {
			uint64_t state = conform_state((uint64_t)i);

			for (size_t k = 0; k < net->params.list[i].size; k++)
				net->params.list[i].value[k] += 0.3f * conform_random(&state);
		}
	assert_int_equal(params_need_grad(&net->params), 0);
	return net;
}

/* The parameters that a slice has; a network that was built narrow has as many. */
static inline int used_params(struct net *net, float rate, struct param **list)
{
	int n = 0;

	for (int i = 0; i < net->params.n; i++)
		if (param_used(&net->params.list[i], rate))
			list[n++] = &net->params.list[i];
	return n;
}

static inline struct session *start(struct net *net, const char *backend, float rate, bool training,
				    bool gradcam)
{
	struct err err = ERR_INIT;
	struct session *s;
	int r = session_new_net(
		&s, net, NULL, NULL, backend_find(backend),
		&(struct session_options){
			.rate = rate, .batch = BATCH, .training = training, .gradcam = gradcam},
		&err);

	if (r < 0)
		fail_msg("%s: %s %s", backend, err_sentence(err.code), err.detail);
	return s;
}

static inline struct guarded inputs(size_t which)
{
	uint64_t state = conform_state(77 + which);

	return guarded_random(
		(size_t)(BATCH * nets[which].channels * nets[which].height * nets[which].height), &state);
}

#endif
