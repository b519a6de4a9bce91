/*
 * Every op on every backend at every width with bf16 values: what it gives is what `ref` gives in f32 for the
 * same rounded inputs, but for its own rounding and that of its weights. And whole networks in bf16.
 */
#include "tests/conform/nets.h"
#include "tests/conform/shapes.h"

#include <errno.h>

/* One step of bf16 is 2^-8 of a number: rounding errs by half of it, and may go either way where two sums
 * differ a little. Weights and activations that are rounded each add errors of no common sign. */
#define STEP      0x1p-8f
#define MEAN_STEP 0x1p-9f

static struct guarded rounded(const struct guarded *from)
{
	struct guarded g = guarded_new((from->n + 1) / 2);

	bf16_round(from->data, (uint16_t *)(void *)g.data, from->n);
	return g;
}

static void widen(struct guarded *to, const struct guarded *from)
{
	bf16_widen((const uint16_t *)(void *)from->data, to->data, to->n);
}

/* x, x2 and y in the types of `types`, bit by bit; ref's own result is rounded as y is. */
static void check_types(const struct shape *s, float rate, const struct backend *backend, unsigned types,
			uint64_t salt)
{
	const struct op_info *info = op_info(s->op);
	struct op_desc d = desc_of(s, rate), typed;
	struct run a, b;
	struct guarded x, x2, y, expected;
	struct op_io io_a, io_b;
	char what[128];
	bool exact = info->tolerance == 0;

	uncut(s, &d);
	snprintf(what, sizeof(what), "%s %s %d×%d×%d→%d kernel %d rate %g types %u", backend->name,
		 info->name, d.in.c, d.in.h, d.in.w, d.out.c, d.kernel, (double)rate, types);
	d.training = d.need_dx = false;
	typed = d;
	typed.x_type = types & 1 ? PRECISION_BF16 : PRECISION_F32;
	typed.x2_type = types & 2 ? PRECISION_BF16 : PRECISION_F32;
	typed.y_type = types & 4 ? PRECISION_BF16 : PRECISION_F32;
	run_init(&a, s, &d, backend_find("ref"), conform_state(salt));
	run_init(&b, s, &typed, backend, conform_state(salt));
	x = rounded(&a.x);
	x2 = rounded(&a.x2);
	y = guarded_new((a.y.n + 1) / 2);
	expected = guarded_new((a.y.n + 1) / 2);
	if (typed.x_type)
		widen(&a.x, &x);
	if (typed.x2_type)
		widen(&a.x2, &x2);
	memcpy(b.x.data, a.x.data, a.x.n * sizeof(float));
	memcpy(b.x2.data, a.x2.data, a.x2.n * sizeof(float));
	io_a = io_of(&a);
	io_b = io_of(&b);
	if (typed.x_type)
		io_b.x = x.data;
	if (typed.x2_type && io_b.x2)
		io_b.x2 = x2.data;
	if (typed.y_type)
		io_b.y = y.data;
	for (int version = 1; version < 4; version++) {
		io_a.version = io_b.version = (uint64_t)version;
		if (version == 3) /* what was packed comes back */
			kernel_trim(b.kernel);
		assert_int_equal(kernel_forward(a.kernel, &io_a), 0);
		assert_int_equal(kernel_forward(b.kernel, &io_b), 0);
		if (typed.y_type) {
			bf16_round(a.y.data, (uint16_t *)(void *)expected.data, a.y.n);
			widen(&a.y, &expected);
			widen(&b.y, &y);
		}
		compare(what, b.y.data, a.y.data, a.y.n, exact ? 0 : info->tolerance + 2 * STEP,
			exact ? 0 : info->mean_tolerance + MEAN_STEP);
		for (size_t i = 0; i < a.weight.n; i++)
			a.weight.data[i] = b.weight.data[i] = a.weight.data[i] * 0.5f - 0.25f;
	}
	guarded_free(&x, what);
	guarded_free(&x2, what);
	guarded_free(&y, what);
	guarded_free(&expected, what);
	run_release(&a);
	run_release(&b);
}

/* What a ceiling leaves is what it would have cut, cut: those of the shapes are bf16 numbers, so rounding comes to the same. */
static void check_ceiling(const struct shape *s, const struct backend *backend, uint64_t state)
{
	struct op_desc d = desc_of(s, 1), above;
	struct run cut, whole;
	struct op_io io_cut, io_whole;

	d.training = d.need_dx = false;
	d.y_type = PRECISION_BF16;
	above = d;
	above.ceiling = 0;
	run_init(&cut, s, &d, backend, state);
	run_init(&whole, s, &above, backend, state);
	io_cut = io_of(&cut);
	io_whole = io_of(&whole);
	assert_int_equal(kernel_forward(cut.kernel, &io_cut), 0);
	assert_int_equal(kernel_forward(whole.kernel, &io_whole), 0);
	for (size_t i = 0; i < (size_t)d.n * size_of(&d.out); i++) {
		float y = bf16_to_f32(io_bf16(io_cut.y)[i]), uncut_y = bf16_to_f32(io_bf16(io_whole.y)[i]);

		if (y != fminf(uncut_y, d.ceiling))
			fail_msg("%s %s: element %zu is %g, %g without the ceiling", backend->name,
				 op_info(s->op)->name, i, (double)y, (double)uncut_y);
	}
	run_release(&cut);
	run_release(&whole);
}

static void test_ceilings(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++)
		for (size_t b = 0; shapes[i].relu && shapes[i].more.ceiling > 0 && backend_at(b); b++)
			check_ceiling(&shapes[i], backend_at(b), conform_state(i));
}

static void test_ops(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++)
		for (int k = 0; k < N_RATES; k++)
			for (size_t b = 0; backend_at(b); b++)
				check_types(&shapes[i], rates[k], backend_at(b), 7, i * 16 + (size_t)k);
}

/* What lies where f32 begins or ends has several types. */
static void test_mixed_types(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++)
		for (unsigned types = shapes[i].more.eval ? 7 : 1; types < 7; types++)
			for (size_t b = 0; backend_at(b); b++)
				check_types(&shapes[i], 0.75f, backend_at(b), types, i * 16 + types);
}

/* An op that is trained has no bf16 form. */
static void test_no_training(void **state)
{
	struct op_desc d = desc_of(&shapes[0], 1);
	struct kernel *k;
	struct err err = ERR_INIT;
	struct net *net = make(0, nets[0].width, GROUPS);
	struct session_options options = {
		.rate = 1, .batch = BATCH, .training = true, .precision = PRECISION_BF16};
	struct session *s;

	(void)state;
	d.x_type = d.y_type = PRECISION_BF16;
	assert_true(d.training);
	for (size_t b = 0; backend_at(b); b++) {
		assert_int_equal(kernel_create(&k, backend_at(b), &d, NULL, &err), -EOPNOTSUPP);
		assert_int_equal(session_new_net(&s, net, NULL, NULL, backend_at(b), &options, &err),
				 -EINVAL);
	}
	net_free(net);
}

static void test_numbers(void **state)
{
	static const struct {
		float f;
		uint16_t bits;
	} cases[] = {
		{0, 0},
		{-0.0f, 0x8000},
		{1, 0x3f80},
		{-2.5f, 0xc020},
		{0x1.01p0f, 0x3f80}, /* ties to even */
		{0x1.03p0f, 0x3f82},
		{0x1.010002p0f, 0x3f81},
		{0x1p-140f, 0},    /* below half of the smallest subnormal */
		{3.4e38f, 0x7f80}, /* rounds to infinity */
		{INFINITY, 0x7f80},
		{-INFINITY, 0xff80},
	};
	float back;
	uint16_t bits;
	float nan = NAN;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(f32_to_bf16(cases[i].f), cases[i].bits);
		bf16_round(&cases[i].f, &bits, 1);
		assert_int_equal(bits, cases[i].bits);
	}
	for (size_t n = 1; n < 100; n++) { /* vectors and what is left over */
		uint64_t random = conform_state(n);
		struct guarded from = guarded_random(n, &random), to = guarded_new((n + 1) / 2);

		bf16_round(from.data, (uint16_t *)(void *)to.data, n);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(((uint16_t *)(void *)to.data)[i], f32_to_bf16(from.data[i]));
		guarded_free(&from, "from");
		guarded_free(&to, "to");
	}
	bf16_round(&nan, &bits, 1);
	bf16_widen(&bits, &back, 1);
	assert_true(isnan(back));
	for (uint32_t i = 0; i < 0x10000; i++)
		if (!isnan(bf16_to_f32((uint16_t)i)))
			assert_int_equal(f32_to_bf16(bf16_to_f32((uint16_t)i)), i);
}

static struct session *start_bf16(struct net *net, size_t backend, float rate, bool gradcam)
{
	struct err err = ERR_INIT;
	struct session_options options = {
		.rate = rate, .batch = BATCH, .gradcam = gradcam, .precision = PRECISION_BF16};
	struct session *s;

	if (session_new_net(&s, net, NULL, NULL, backend_at(backend), &options, &err) < 0)
		fail_msg("%s: %s %s", backend_at(backend)->name, err_sentence(err.code), err.detail);
	return s;
}

/* A whole network gives about what it gives in f32, in full and in part-filled batches, and takes less memory. */
static void test_nets(void **state)
{
	(void)state;
	for (size_t which = 0; which < N_NETS; which++)
		for (int k = 0; k < N_RATES; k++)
			for (size_t b = 0; backend_at(b); b++) {
				struct net *net = make(which, nets[which].width, GROUPS);
				struct session *plain = start(net, "ref", rates[k], false, false);
				struct session *s = start_bf16(net, b, rates[k], false);
				struct guarded x = inputs(which);
				float expected[BATCH * CLASSES], logits[BATCH * CLASSES];

				session_forward_float(plain, x.data, BATCH, expected);
				for (int n = BATCH; n > 0; n--) {
					assert_int_equal(session_forward_float(s, x.data, n, logits), 0);
					compare(nets[which].name, logits, expected, (size_t)(n * CLASSES),
						8 * STEP, 8 * STEP);
				}
				assert_true(session_stats(s).activations <
					    session_stats(plain).activations * 3 / 4);
				session_free(plain);
				session_free(s);
				net_free(net);
				guarded_free(&x, "x");
			}
}

/* Pixels are normalised as in f32, then rounded. */
static void test_pixels(void **state)
{
	static const float mean[] = {0.5f, 0.25f, 0.75f, 0.1f, 0.2f}, std[] = {0.25f, 0.5f, 1, 2, 3};
	static uint8_t pixels[5 * 3000];
	static float out[5 * 3000];
	static uint16_t out16[5 * 3000];

	(void)state;
	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)(i * 2654435761u >> 13);
	for (int channels = 1; channels <= 5; channels++) {
		int size = 3000 * channels;

		pixels_normalise(pixels, 2, 50, 30, channels, mean, std, PRECISION_F32, 0, out);
		pixels_normalise(pixels, 2, 50, 30, channels, mean, std, PRECISION_BF16, 0, out16);
		for (int i = 0; i < size; i++) {
			int c = i % channels;

			assert_float_equal(out[i], ((float)pixels[i] / 255 - mean[c]) / std[c], 1e-6);
			assert_int_equal(out16[i], f32_to_bf16(out[i]));
		}
	}
}

/* Grad-CAM works as in f32, on values that are kept in f32. */
static void test_gradcam(void **state)
{
	static const int labels[BATCH] = {0, 1, 2, 3};

	(void)state;
	for (size_t which = 0; which < N_NETS; which++)
		for (size_t b = 0; backend_at(b); b++) {
			struct net *net = make(which, nets[which].width, GROUPS);
			struct session *plain = start(net, "ref", 0.5f, false, true);
			struct session *s = start_bf16(net, b, 0.5f, true);
			struct guarded x = inputs(which), heat[2];
			float expected[BATCH * CLASSES], logits[BATCH * CLASSES];
			int h, w;

			session_gradcam_shape(s, &h, &w);
			for (int i = 0; i < 2; i++)
				heat[i] = guarded_new((size_t)(BATCH * h * w));
			assert_int_equal(session_forward_float(plain, x.data, BATCH, expected), 0);
			assert_int_equal(session_gradcam(plain, labels, BATCH, heat[0].data), 0);
			assert_int_equal(session_forward_float(s, x.data, BATCH, logits), 0);
			assert_int_equal(session_gradcam(s, labels, BATCH, heat[1].data), 0);
			compare(nets[which].name, logits, expected, BATCH * CLASSES, 8 * STEP, 8 * STEP);
			compare(nets[which].name, heat[1].data, heat[0].data, heat[0].n, 0.1f, 0.02f);
			for (int i = 0; i < 2; i++)
				guarded_free(&heat[i], "heat");
			session_free(plain);
			session_free(s);
			net_free(net);
			guarded_free(&x, "x");
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),     cmocka_unit_test(test_ops),
		cmocka_unit_test(test_ceilings),    cmocka_unit_test(test_mixed_types),
		cmocka_unit_test(test_no_training), cmocka_unit_test(test_nets),
		cmocka_unit_test(test_pixels),      cmocka_unit_test(test_gradcam)};

	conform_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
