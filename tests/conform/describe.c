/*
 * Descriptions of networks and sessions that can't be, ops that a backend lacks, the slice rule, and losses
 * by hand and by central differences.
 */
#include "tests/conform/nets.h"

#include <errno.h>

static void test_unsupported(void **state)
{
	struct backend lacking = *backend_find("onednn");
	struct net *net = make(1, nets[1].width, GROUPS);
	struct err err = ERR_INIT;
	struct session *s = NULL;

	(void)state;
	lacking.name = "lacking";
	lacking.ops[OP_max_pool] = NULL;
	assert_int_equal(session_new_net(&s, net, NULL, NULL, &lacking,
					 &(struct session_options){.rate = 1, .batch = 2}, &err),
			 -EOPNOTSUPP);
	assert_null(s);
	assert_int_equal(err.code, ERR_UNSUPPORTED_OP);
	assert_non_null(strstr(err.detail, "max_pool"));
	assert_non_null(strstr(err.detail, "lacking"));
	assert_int_equal(
		session_new_net(&s, net, NULL, NULL, backend_find("ref"),
				&(struct session_options){.rate = 1, .batch = 1 << 28, .training = true},
				&err),
		-ENOMEM);
	assert_int_equal(err.code, ERR_NO_MEMORY);
	net_free(net);
}

/* Descriptions that can't be are refused with a reason, and the network can still be built. */
static void test_bad_descriptions(void **state)
{
	struct err err = ERR_INIT;
	struct net *net;
	int x, y;

	(void)state;
	assert_int_equal(net_new(&net, 0, 4, 4, &err), -EINVAL);
	assert_int_equal(net_new(&net, 1 << 14, 1 << 14, 1 << 14, &err), -EINVAL);
	assert_int_equal(net_new(&net, 1, 8, 8, &err), 0);
#define BAD_CONV(in, name, ...) \
	assert_int_equal(net_conv2d(net, name, in, &(struct conv2d_attr){__VA_ARGS__}, &err), -EINVAL)
	BAD_CONV(0, "", .channels = 8, .kernel = 3);
	BAD_CONV(7, "a", .channels = 8, .kernel = 3);
	BAD_CONV(0, "a", .channels = 0, .kernel = 3);
	BAD_CONV(0, "a", .channels = 1 << 30, .kernel = 3);
	BAD_CONV(0, "a", .channels = 12, .groups = 8, .kernel = 3);
	BAD_CONV(0, "a", .channels = 8, .kernel = 9);
	BAD_CONV(0, "a", .channels = 8, .kernel = 3, .pad = 3);
	BAD_CONV(0, "a", .channels = 8, .kernel = 3, .stride = -1);
	BAD_CONV(0, "a", .channels = 8, .kernel = 3, .conv_groups = 3);
	BAD_CONV(0, "a", .channels = 8, .groups = 8, .kernel = 3, .conv_groups = 8);
#undef BAD_CONV
	x = net_conv2d(net, "a", 0, &(struct conv2d_attr){.channels = 16, .groups = 8, .kernel = 3}, &err);
	assert_true(x > 0);
	assert_int_equal(net_linear(net, "a", x, &(struct linear_attr){.features = 4}, &err), -EINVAL);
	assert_non_null(strstr(err.detail, "\"a\""));
	assert_int_equal(net_add(net, x, 0, &err), -EINVAL);
	assert_int_equal(net_group_norm(net, "n", x, 4, &err), -EINVAL);
	assert_int_equal(net_relu(net, -ENOMEM, &err), -ENOMEM);
	assert_int_equal(net_concat(net, x, 0, &err), -EINVAL); /* another plane, and not sliced */
	assert_int_equal(net_concat(net, x, 99, &err), -EINVAL);
	assert_int_equal(net_concat(net, x, -ENOMEM, &err), -ENOMEM);
	assert_int_equal(net_add_scaled(net, x, x, NAN, &err), -EINVAL);
	assert_int_equal(net_dropout(net, x, 1, &err), -EINVAL);
	assert_int_equal(net_dropout(net, x, -0.1f, &err), -EINVAL);
	assert_int_equal(net_batch_norm(net, "a", x, 1e-5f, &err), -EINVAL);
	assert_int_equal(net_batch_norm(net, "bn", net_flatten(net, x, &err), 1e-5f, &err), -EINVAL);
	assert_int_equal(net_set_rates(net, (const float[]){0.5f, 0.25f, 1}, 3, &err), -EINVAL);
	assert_int_equal(net_set_rates(net, (const float[]){0.5f}, 1, &err), -EINVAL);
	assert_int_equal(net_conv2d(net, "wide", x,
				    &(struct conv2d_attr){.channels = 8, .kernel = 3, .kernel_w = 7}, &err),
			 -EINVAL); /* the plane is 6×6 */
	y = net_relu(net, x, &err);
	assert_true(y > x);
	assert_int_equal(net->params.n, 1); /* nothing stayed of what was refused */
	assert_int_equal(net_finish(net, x, &err), -EINVAL);
	y = net_linear(net, "sliced", x, &(struct linear_attr){.features = 8, .groups = 8}, &err);
	assert_int_equal(net_finish(net, y, &err), -EINVAL);
	y = net_linear(net, "huge", y, &(struct linear_attr){.features = 65536}, &err);
	assert_true(y > 0);
	assert_int_equal(net_linear(net, "huger", y, &(struct linear_attr){.features = 65536}, &err),
			 -EINVAL);
	assert_int_equal(net_finish(net, y, &err), 0);
	net_free(net);
}

static void test_slice_extent(void **state)
{
	(void)state;
	assert_int_equal(slice_extent(32, 8, 0.25f), 8);
	assert_int_equal(slice_extent(32, 8, 0.01f), 4);
	assert_int_equal(slice_extent(24, 8, 0.75f), 18);
	assert_int_equal(slice_extent(24, 3, 0.5f), 16); /* round(1.5) = 2 of 3 */
	assert_int_equal(slice_extent(10, 0, 0.25f), 10);
	assert_int_equal(slice_extent(32, 8, 1), 32);
}

static void test_losses(void **state)
{
	static const float logits[] = {1, 2, -1, 0.5f, 0, 3}, teacher[] = {0, 1, 2, 2, -1, 0};
	static const int labels[] = {1, 2};
	float d[6], softmax[6];

	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		float moved[6];

#define LOSS(x, grad)                                        \
	(kind == 2 ? loss_distill(x, teacher, 2, 3, 2, grad) \
		   : loss_cross_entropy(x, labels, 2, 3, kind ? 0.1f : 0, grad))
		LOSS(logits, d);
		for (int i = 0; i < 6; i++) {
			double up, down;

			memcpy(moved, logits, sizeof(moved));
			moved[i] += 0x1p-10f;
			up = LOSS(moved, NULL);
			moved[i] -= 0x1p-9f;
			down = LOSS(moved, NULL);
			assert_float_equal(d[i], (up - down) * 0x1p9, 1e-5);
		}
#undef LOSS
	}
	/* by hand: -log softmax(1,2,-1)[1] and of (0.5,0,3)[2] */
	assert_float_equal(loss_cross_entropy(logits, labels, 2, 3, 0, NULL), (0.349012 + 0.123873) / 2,
			   1e-5);
	memcpy(softmax, logits, sizeof(softmax));
	softmax_rows(softmax, 2, 3);
	assert_float_equal(softmax[1], 0.705385, 1e-5);
	assert_float_equal(softmax[3] + softmax[4] + softmax[5], 1, 1e-6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unsupported), cmocka_unit_test(test_bad_descriptions),
		cmocka_unit_test(test_slice_extent), cmocka_unit_test(test_losses)};

	conform_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
