/*
 * Whole networks built by hand: a slice equals a network that was built narrow from the copied-out weights, gradients
 * included and bit-equal outside; part-filled batches; repeatability; backends against each other; Grad-CAM by hand; ops
 * that a backend lacks.
 */
#include "tests/conform/conform.h"

#include "engine/backend.h"
#include "engine/session.h"

#include <errno.h>

static const float rates[] = {0.25f, 0.5f, 0.75f, 1};
enum { N_RATES = 4, GROUPS = 8, CLASSES = 5, BATCH = 4 };

#define TOLERANCE      1e-4f /* of a dozen layers in a row */
#define MEAN_TOLERANCE 1e-5f

static int conv(struct net *net, const char *name, int in, int channels, int kernel, int stride, int groups)
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

/* Two residual blocks, the second narrowing the plane with a projection that is normalised too. `groups` slices of
 * `width` channels in all. */
static int build_resnet(struct net *net, int width, int groups)
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

/* What the ResNet lacks: pools, depthwise, bias, pre-activation adds of which one addend is used again, flatten. */
static int build_mixed(struct net *net, int width, int groups)
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

static int build_mlp(struct net *net, int width, int groups)
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

static struct net *make(size_t which, int width, int groups)
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

static struct session *start(struct net *net, const char *backend, float rate, bool training, bool gradcam)
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

/* Steps through the elements of a parameter's slice: index in the full array of element i of the narrow one. */
static size_t full_index(const struct param *full, const struct param *narrow, size_t i)
{
	size_t index = 0, stride = 1;

	for (int d = full->rank - 1; d >= 0; d--) {
		index += i % (size_t)narrow->dims[d] * stride;
		i /= (size_t)narrow->dims[d];
		stride *= (size_t)full->dims[d];
	}
	return index;
}

static struct guarded inputs(size_t which)
{
	uint64_t state = conform_state(77 + which);

	return guarded_random(
		(size_t)(BATCH * nets[which].channels * nets[which].height * nets[which].height), &state);
}

static void check_slice(size_t which, const char *backend, float rate)
{
	int groups = slice_extent(GROUPS, GROUPS, rate);
	struct net *full = make(which, nets[which].width, GROUPS);
	struct net *narrow = make(which, nets[which].width / GROUPS * groups, groups);
	struct guarded x = inputs(which), logits = guarded_new(BATCH * CLASSES),
		       expected = guarded_new(BATCH * CLASSES);
	float dlogits[BATCH * CLASSES];
	static const int labels[BATCH] = {0, 3, 1, 4};
	struct session *s = start(full, backend, rate, true, false),
		       *n = start(narrow, backend, 1, true, false);
	char what[128];

	snprintf(what, sizeof(what), "%s on %s at rate %g", nets[which].name, backend, (double)rate);
	assert_int_equal(net_params(full, rate), net_params(narrow, 1));
	assert_int_equal(net_flops(full, rate), net_flops(narrow, 1));
	for (int i = 0; i < full->params.n; i++) {
		struct param *f = &full->params.list[i], *p = &narrow->params.list[i];
		uint32_t pattern = 0x3f9dead1; /* 1.23… */

		for (size_t k = 0; k < p->size; k++)
			p->value[k] = f->value[full_index(f, p, k)];
		for (size_t k = 0; k < f->size; k++)
			memcpy(&f->grad[k], &pattern, sizeof(pattern));
	}
	params_changed(&narrow->params);
	assert_int_equal(session_forward_float(n, x.data, BATCH, expected.data), 0);
	assert_int_equal(session_forward_float(s, x.data, BATCH, logits.data), 0);
	compare(what, logits.data, expected.data, BATCH * CLASSES, TOLERANCE, MEAN_TOLERANCE);
	loss_cross_entropy(expected.data, labels, BATCH, CLASSES, 0, dlogits);
	assert_int_equal(session_backward(s, dlogits, BATCH), 0);
	assert_int_equal(session_backward(n, dlogits, BATCH), 0);
	for (int i = 0; i < full->params.n; i++) {
		struct param *f = &full->params.list[i], *p = &narrow->params.list[i];
		float *got = malloc(p->size * sizeof(float));
		size_t inside = 0, changed = 0;
		uint32_t pattern = 0x3f9dead1;
		float start_value;

		memcpy(&start_value, &pattern, sizeof(pattern));
		for (size_t k = 0; k < p->size; k++) {
			got[k] = f->grad[full_index(f, p, k)] - start_value;
			inside += memcmp(&f->grad[full_index(f, p, k)], &pattern, sizeof(pattern)) != 0;
		}
		for (size_t k = 0; k < f->size; k++)
			changed += memcmp(&f->grad[k], &pattern, sizeof(pattern)) != 0;
		if (changed != inside)
			fail_msg("%s: %s: %zu gradients outside of the slice changed", what, f->name,
				 changed - inside);
		/* adding to 1.23 costs bits below 1e-7 */
		for (size_t k = 0; k < p->size; k++)
			if (!(fabsf(got[k] - p->grad[k]) <= 3e-7f + 2e-4f * fabsf(p->grad[k])))
				fail_msg("%s: %s: gradient %zu is %g, narrow %g", what, f->name, k,
					 (double)got[k], (double)p->grad[k]);
		free(got);
	}
	session_free(s);
	session_free(n);
	net_free(full);
	net_free(narrow);
	guarded_free(&x, what);
	guarded_free(&logits, what);
	guarded_free(&expected, what);
}

static void test_slice_is_narrow_net(void **state)
{
	(void)state;
	for (size_t which = 0; which < N_NETS; which++)
		for (int k = 0; k < N_RATES; k++)
			for (size_t b = 0; backend_at(b); b++)
				check_slice(which, backend_at(b)->name, rates[k]);
}

static void test_backends_agree(void **state)
{
	static const int labels[BATCH] = {1, 2, 0, 4};

	(void)state;
	for (size_t which = 0; which < N_NETS; which++)
		for (int k = 0; k < N_RATES; k++) {
			struct net *a = make(which, nets[which].width, GROUPS),
				   *b = make(which, nets[which].width, GROUPS);
			struct session *ref = start(a, "ref", rates[k], true, false);
			struct session *fast = start(b, "onednn", rates[k], true, false);
			struct guarded x = inputs(which);
			float expected[BATCH * CLASSES], logits[BATCH * CLASSES], dlogits[BATCH * CLASSES];

			session_forward_float(ref, x.data, BATCH, expected);
			session_forward_float(fast, x.data, BATCH, logits);
			compare(nets[which].name, logits, expected, BATCH * CLASSES, TOLERANCE,
				MEAN_TOLERANCE);
			loss_cross_entropy(expected, labels, BATCH, CLASSES, 0, dlogits);
			assert_int_equal(session_backward(ref, dlogits, BATCH), 0);
			assert_int_equal(session_backward(fast, dlogits, BATCH), 0);
			for (int i = 0; i < a->params.n; i++)
				compare(a->params.list[i].name, b->params.list[i].grad,
					a->params.list[i].grad, a->params.list[i].size, 5e-4f, 5e-5f);
			session_free(ref);
			session_free(fast);
			net_free(a);
			net_free(b);
			guarded_free(&x, "x");
		}
}

/* The loss of the whole net against central differences in every parameter: fusion and the meeting of gradients. */
static void test_numeric_gradients(void **state)
{
	static const int labels[BATCH] = {1, 2, 0, 4};

	(void)state;
	for (size_t which = 0; which < N_NETS; which++) {
		struct net *net = make(which, nets[which].width, GROUPS);
		struct session *s = start(net, "ref", 0.5f, true, false);
		struct guarded x = inputs(which);
		float logits[BATCH * CLASSES], dlogits[BATCH * CLASSES];
		int off = 0, tried = 0;

		session_forward_float(s, x.data, BATCH, logits);
		loss_cross_entropy(logits, labels, BATCH, CLASSES, 0.1f, dlogits);
		session_backward(s, dlogits, BATCH);
		for (int i = 0; i < net->params.n; i++) {
			struct param *p = &net->params.list[i];
			const float h = 0x1p-9f;
			double scale = 0;

			for (size_t k = 0; k < p->size; k++)
				scale = fmax(scale, fabs(p->grad[k]));
			assert_true(scale > 0);
			for (size_t k = 0; k < p->size; k += p->size / 3 + 1) {
				float old = p->value[k];
				double up, down;

				p->value[k] = old + h;
				session_forward_float(s, x.data, BATCH, logits);
				up = loss_cross_entropy(logits, labels, BATCH, CLASSES, 0.1f, NULL);
				p->value[k] = old - h;
				session_forward_float(s, x.data, BATCH, logits);
				down = loss_cross_entropy(logits, labels, BATCH, CLASSES, 0.1f, NULL);
				p->value[k] = old;
				tried++;
				off += !(fabs((up - down) / (2 * (double)h) - p->grad[k]) <=
					 0.02 * scale + 1e-5);
			}
		}
		/* a ReLU may change sides within the step, rarely */
		if (off > tried / 20)
			fail_msg("%s: %d of %d gradients differ from the difference quotient",
				 nets[which].name, off, tried);
		session_free(s);
		net_free(net);
		guarded_free(&x, "x");
	}
}

static void test_part_filled_batch(void **state)
{
	(void)state;
	for (size_t which = 0; which < N_NETS; which++) {
		struct net *net = make(which, nets[which].width, GROUPS);
		struct session *s = start(net, "onednn", 0.5f, false, false);
		struct guarded x = inputs(which);
		float all[BATCH * CLASSES], some[BATCH * CLASSES];

		assert_int_equal(session_forward_float(s, x.data, BATCH, all), 0);
		for (int n = 1; n <= BATCH; n++) {
			assert_int_equal(session_forward_float(s, x.data, n, some), 0);
			compare(nets[which].name, some, all, (size_t)(n * CLASSES), TOLERANCE,
				MEAN_TOLERANCE);
		}
		assert_int_equal(session_forward_float(s, x.data, 0, some), -EINVAL);
		assert_int_equal(session_forward_float(s, x.data, BATCH + 1, some), -EINVAL);
		session_free(s);
		net_free(net);
		guarded_free(&x, "x");
	}
}

static void test_weights_renewed(void **state)
{
	struct net *net = make(0, nets[0].width, GROUPS);
	struct session *s = start(net, "onednn", 0.75f, false, false);
	struct guarded x = inputs(0);
	float before[CLASSES], after[CLASSES], again[CLASSES];
	struct param *fc = params_find(&net->params, "fc.weight"),
		     *stem = params_find(&net->params, "stem.weight");

	(void)state;
	session_forward_float(s, x.data, 1, before);
	for (size_t i = 0; i < fc->size; i++)
		fc->value[i] *= 2;
	for (size_t i = 0; i < stem->size; i++)
		stem->value[i] = -stem->value[i];
	params_changed(&net->params);
	session_forward_float(s, x.data, 1, after);
	assert_memory_not_equal(before, after, sizeof(after));
	session_trim(s);
	session_forward_float(s, x.data, 1, again);
	assert_memory_equal(again, after, sizeof(after));
	session_free(s);
	net_free(net);
	guarded_free(&x, "x");
}

/* The same seed and thread count give the same bits; sessions that share the workspace do not disturb each other. */
static void test_repeatable(void **state)
{
	static const int labels[BATCH] = {1, 2, 0, 4};
	struct guarded x = inputs(0);
	struct net *a = make(0, nets[0].width, GROUPS), *b = make(0, nets[0].width, GROUPS);
	struct net *both[] = {a, b};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct session *wide = start(both[i], "onednn", 1, true, false);
		struct session *small = start(both[i], "onednn", 0.25f, true, false);
		float logits[BATCH * CLASSES], dlogits[BATCH * CLASSES];

		for (int step = 0; step < 3; step++) {
			session_forward_float(wide, x.data, BATCH, logits);
			loss_cross_entropy(logits, labels, BATCH, CLASSES, 0, dlogits);
			assert_int_equal(session_backward(wide, dlogits, BATCH), 0);
			assert_int_equal(session_backward(wide, dlogits, BATCH), -EINVAL);
			session_forward_float(wide, x.data, BATCH, logits);
			session_forward_float(small, x.data, BATCH, logits);
			assert_int_equal(session_backward(wide, dlogits, BATCH), -EINVAL);
			loss_cross_entropy(logits, labels, BATCH, CLASSES, 0, dlogits);
			assert_int_equal(session_backward(small, dlogits, BATCH), 0);
		}
		session_free(wide);
		session_free(small);
	}
	for (int i = 0; i < a->params.n; i++)
		assert_memory_equal(a->params.list[i].grad, b->params.list[i].grad,
				    a->params.list[i].size * sizeof(float));
	net_free(a);
	net_free(b);
	guarded_free(&x, "x");
}

static void test_fusion(void **state)
{
	(void)state;
	for (size_t which = 0; which < N_NETS; which++) {
		struct net *net = make(which, nets[which].width, GROUPS);
		struct session *s = start(net, "ref", 1, false, false);

		assert_int_equal(session_stats(s).steps, nets[which].steps);
		session_free(s);
		net_free(net);
	}
}

/*
 * x → 1×1 convolution with known weights → ReLU → global average → linear: the gradient of a logit on map k is fc[class][k] /
 * pixels everywhere, so the activation map is the ReLU of Σ fc[class][k]·map[k], scaled.
 */
static void test_gradcam(void **state)
{
	enum { SIDE = 4, MAPS = 3, PIXELS = SIDE * SIDE };
	static const float stem[MAPS] = {1, -2, 0.5f}, fc[2][MAPS] = {{1, -0.5f, 0}, {-1, 2, 3}};
	struct guarded x, heat;
	uint64_t random = conform_state(5);

	(void)state;
	x = guarded_random(2 * PIXELS, &random);
	for (size_t b = 0; backend_at(b); b++) {
		struct net *net;
		struct session *s;
		struct param *w;
		float logits[2 * 2];
		static const int labels[] = {1, 0};
		int h, width, id;

		assert_int_equal(net_new(&net, 1, SIDE, SIDE, NULL), 0);
		id = net_relu(net, conv(net, "stem", 0, MAPS, 1, 1, 0), NULL);
		id = net_global_avg_pool(net, id, NULL);
		id = net_linear(net, "fc", id, &(struct linear_attr){.features = 2}, NULL);
		assert_int_equal(net_finish(net, id, NULL), 0);
		w = params_find(&net->params, "stem.weight");
		memcpy(w->value, stem, sizeof(stem));
		w = params_find(&net->params, "fc.weight");
		memcpy(w->value, fc, sizeof(fc));
		params_changed(&net->params);
		s = start(net, backend_at(b)->name, 1, false, true);
		session_gradcam_shape(s, &h, &width);
		assert_int_equal(h, SIDE);
		assert_int_equal(width, SIDE);
		heat = guarded_new(2 * PIXELS);
		assert_int_equal(session_gradcam(s, labels, 2, heat.data), -EINVAL);
		assert_int_equal(session_forward_float(s, x.data, 2, logits), 0);
		assert_int_equal(session_gradcam(s, (const int[]){0, 2}, 2, heat.data), -EINVAL);
		for (int round = 0; round < 2; round++) /* it can be asked again */
			assert_int_equal(session_gradcam(s, labels, 2, heat.data), 0);
		for (int n = 0; n < 2; n++) {
			float expected[PIXELS], max = 0;

			for (int i = 0; i < PIXELS; i++) {
				expected[i] = 0;
				for (int k = 0; k < MAPS; k++)
					expected[i] +=
						fc[labels[n]][k] * fmaxf(0, stem[k] * x.data[n * PIXELS + i]);
				expected[i] = fmaxf(0, expected[i]);
				max = fmaxf(max, expected[i]);
			}
			for (int i = 0; i < PIXELS; i++)
				assert_float_equal(heat.data[n * PIXELS + i], expected[i] / max, 1e-5);
		}
		guarded_free(&heat, "heat");
		session_free(s);
		net_free(net);
	}
	guarded_free(&x, "x");
}

/* An mlp has no feature map: the saliency of the input, here of logit = Σ w·x, is |w| scaled. */
static void test_saliency(void **state)
{
	static const float weight[2][4] = {{1, -4, 2, 0}, {0, 0, 0, 0}};
	struct net *net;
	struct session *s;
	struct err err = ERR_INIT;
	float logits[4], heat[8];
	int id, h, w;

	(void)state;
	assert_int_equal(net_new(&net, 1, 2, 2, &err), 0);
	id = net_linear(net, "fc", 0, &(struct linear_attr){.features = 2}, &err);
	assert_int_equal(net_finish(net, id, &err), 0);
	memcpy(net->params.list[0].value, weight, sizeof(weight));
	params_changed(&net->params);
	s = start(net, "onednn", 1, false, true);
	session_gradcam_shape(s, &h, &w);
	assert_int_equal(h * w, 4);
	session_forward(s, (const uint8_t[]){1, 2, 3, 4, 5, 6, 7, 8}, 2, logits);
	assert_float_equal(logits[0], (1 - 4 * 2 + 2 * 3) / 255.0, 1e-6);
	assert_int_equal(session_gradcam(s, (const int[]){0, 1}, 2, heat), 0);
	for (int i = 0; i < 4; i++) {
		assert_float_equal(heat[i], fabsf(weight[0][i]) / 4, 1e-6);
		assert_float_equal(heat[4 + i], 0, 0);
	}
	session_free(s);
	net_free(net);
}

/* The saliency of a deeper mlp against central differences of the logit in every pixel. */
static void test_saliency_numeric(void **state)
{
	enum { PIXELS = 36 };
	struct guarded x = inputs(2);

	(void)state;
	for (size_t b = 0; backend_at(b); b++) {
		struct net *net = make(2, nets[2].width, GROUPS);
		struct session *s = start(net, backend_at(b)->name, 0.75f, false, true);
		float logits[BATCH * CLASSES], heat[BATCH * PIXELS], slope[PIXELS], max = 0;
		static const int labels[BATCH] = {3, 1, 2, 0};

		assert_int_equal(session_forward_float(s, x.data, BATCH, logits), 0);
		for (int round = 0; round < 2; round++)
			assert_int_equal(session_gradcam(s, labels, BATCH, heat), 0);
		for (int i = 0; i < PIXELS; i++) {
			float old = x.data[i];
			const float h = 0x1p-8f;

			x.data[i] = old + h;
			session_forward_float(s, x.data, 1, logits);
			slope[i] = logits[labels[0]];
			x.data[i] = old - h;
			session_forward_float(s, x.data, 1, logits);
			slope[i] = fabsf(slope[i] - logits[labels[0]]);
			x.data[i] = old;
			max = fmaxf(max, slope[i]);
		}
		for (int i = 0; i < PIXELS; i++)
			assert_float_equal(heat[i], slope[i] / max, 0.05);
		session_free(s);
		net_free(net);
	}
	guarded_free(&x, "x");
}

static void test_gradcam_backends_agree(void **state)
{
	static const int labels[BATCH] = {0, 1, 2, 3};

	(void)state;
	for (size_t which = 0; which < N_NETS; which++) {
		struct net *net = make(which, nets[which].width, GROUPS);
		struct guarded x = inputs(which), heat[2];
		float logits[BATCH * CLASSES];
		int h, w;

		for (size_t b = 0; b < 2; b++) {
			struct session *s = start(net, backend_at(b)->name, 0.5f, false, true);

			session_gradcam_shape(s, &h, &w);
			heat[b] = guarded_new((size_t)(3 * h * w));
			assert_int_equal(session_forward_float(s, x.data, 3, logits), 0);
			for (int round = 0; round < 2; round++)
				assert_int_equal(session_gradcam(s, labels, 3, heat[b].data), 0);
			session_free(s);
		}
		compare(nets[which].name, heat[0].data, heat[1].data, heat[0].n, TOLERANCE, MEAN_TOLERANCE);
		for (size_t b = 0; b < 2; b++)
			guarded_free(&heat[b], "heat");
		net_free(net);
		guarded_free(&x, "x");
	}
}

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
	assert_int_equal(session_new_net(&s, net, NULL, NULL, backend_find("ref"),
					 &(struct session_options){.rate = 1, .batch = 1 << 28}, &err),
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
		cmocka_unit_test(test_slice_extent),
		cmocka_unit_test(test_losses),
		cmocka_unit_test(test_bad_descriptions),
		cmocka_unit_test(test_fusion),
		cmocka_unit_test(test_slice_is_narrow_net),
		cmocka_unit_test(test_backends_agree),
		cmocka_unit_test(test_numeric_gradients),
		cmocka_unit_test(test_part_filled_batch),
		cmocka_unit_test(test_weights_renewed),
		cmocka_unit_test(test_repeatable),
		cmocka_unit_test(test_gradcam),
		cmocka_unit_test(test_saliency),
		cmocka_unit_test(test_saliency_numeric),
		cmocka_unit_test(test_gradcam_backends_agree),
		cmocka_unit_test(test_unsupported),
	};

	conform_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
