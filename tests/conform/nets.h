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

static const struct {
	const char *name;
	int (*build)(struct net *net, int width, int groups);
	int width, channels, height, steps; /* steps after fusion */
} nets[] = {
	{"resnet", build_resnet, 16, 3, 10, 6 * 2 + 2},
	{"mixed", build_mixed, 32, 1, 12, 12},
	{"mlp", build_mlp, 64, 1, 6, 4},
};
enum { N_NETS = sizeof(nets) / sizeof(nets[0]) };

static inline struct net *make(size_t which, int width, int groups)
{
	struct err err = ERR_INIT;
	struct net *net;
	int r = net_new(&net, nets[which].channels, nets[which].height, nets[which].height, &err);

	assert_int_equal(r, 0);
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
