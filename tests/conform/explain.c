/*
 * Grad-CAM and saliency: by hand, by central differences, and backends against each other.
 */
#include "tests/conform/nets.h"

#include <errno.h>

/*
 * x → 1×1 convolution with known weights → ReLU → global average → linear: the gradient of a logit on map k
 * is fc[class][k] / pixels everywhere, so the activation map is the ReLU of Σ fc[class][k]·map[k], scaled.
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

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradcam), cmocka_unit_test(test_saliency),
					   cmocka_unit_test(test_saliency_numeric),
					   cmocka_unit_test(test_gradcam_backends_agree)};

	conform_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
