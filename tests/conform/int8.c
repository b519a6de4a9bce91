/*
 * Every op on every backend at every width with values in steps: what it gives is what `ref` gives in f32 for the same values and the
 * same weights in steps, rounded to a step. And whole networks.
 */
#include "tests/conform/nets.h"
#include "tests/conform/shapes.h"

#include "engine/compile.h"
#include "engine/widened.h"

#include <dnnl.h>
#include <errno.h>

/* A result is the nearest step, but where f32 sums that differ in their last bits lie on two sides of the middle. */
#define HALF 0.501f

static const enum precision types_of[] = {PRECISION_F32, PRECISION_INT8, PRECISION_UINT8};
enum { N_TYPES = sizeof(types_of) / sizeof(types_of[0]) };

struct types {
	enum precision x, x2, y;
};

static float lowest(enum precision type, float step)
{
	return type == PRECISION_F32 ? -INFINITY : type == PRECISION_INT8 ? -128 * step : 0;
}

static float highest(enum precision type, float step)
{
	return type == PRECISION_F32 ? INFINITY : (type == PRECISION_INT8 ? 127 : 255) * step;
}

/* Numbers of that type, and `from` becomes what they are. */
static struct guarded stored(struct guarded *from, enum precision type, float step)
{
	struct guarded g = guarded_new(type == PRECISION_F32 ? from->n : (from->n + 3) / 4);

	for (size_t i = 0; i < from->n && type == PRECISION_UINT8; i++)
		from->data[i] = fabsf(from->data[i]);
	numbers_round(from->data, g.data, type, step, from->n);
	numbers_widen(g.data, type, step, from->data, from->n);
	return g;
}

/* What int8 makes of the slice's weights, in f32: of each output 127 steps are the largest, its norm's factor included. */
static void weights_in_steps(const struct run *r, const struct op_desc *d, float *to)
{
	int64_t row = d->op == OP_linear ? (int64_t)size_of(&d->in)
					 : (int64_t)d->in.c / d->groups * d->kernel * d->kernel_w;

	int8_t *steps = malloc((size_t)row);

	memcpy(to, r->weight.data, r->weight.n * sizeof(*to));
	for (int o = 0; o < d->out.c; o++) {
		float factor =
			d->norm ? (float)(r->scale.data[o] / sqrt((double)r->variance.data[o] + d->eps)) : 1;
		float *of = to + o * d->weight_ld, largest = 0, step;

		for (int64_t i = 0; i < row; i++)
			largest = fmaxf(largest, fabsf(of[i]));
		step = precision_step(PRECISION_INT8, fabsf(factor) * largest) / factor;
		numbers_round(of, steps, PRECISION_INT8, step, (size_t)row);
		numbers_widen(steps, PRECISION_INT8, step, of, (size_t)row);
	}
	free(steps);
}

static float largest_of(const struct guarded *g)
{
	float largest = 0;

	for (size_t i = 0; i < g->n; i++)
		largest = fmaxf(largest, fabsf(g->data[i]));
	return largest;
}

/* y, in numbers of its type, against what it should be before the ceiling and before it was rounded. */
static void check_result(const char *what, const struct op_desc *d, const void *y,
			 const struct guarded *expected)
{
	const struct op_info *info = op_info(d->op);
	float off = info->tolerance * largest_of(expected), step = 0;
	struct guarded got = guarded_new(expected->n);

	numbers_widen(y, d->y_type, d->y_step, got.data, got.n);
	if (precision_steps(d->y_type))
		step = HALF * d->y_step;
	for (size_t i = 0; i < got.n; i++) {
		float cut = d->relu || d->op == OP_relu6 ? fminf(expected->data[i], op_ceiling(d))
							 : expected->data[i];
		float in = fminf(fmaxf(cut, lowest(d->y_type, d->y_step)), highest(d->y_type, d->y_step));

		if (!(fabsf(got.data[i] - in) <= step + off))
			fail_msg("%s: element %zu is %g, should be %g; a step is %g; CONFORM_SEED=%llu", what,
				 i, (double)got.data[i], (double)cut, (double)d->y_step,
				 (unsigned long long)conform_seed);
	}
	guarded_free(&got, what);
}

/* A residual may lie where the result goes. */
static void check_in_place(const char *what, struct run *b, const struct op_io *io, const void *y)
{
	struct guarded same = guarded_new((b->y.n + 3) / 4);
	struct op_io in_place = *io;

	memcpy(same.data, io->x2, b->y.n);
	in_place.x2 = in_place.y = same.data;
	assert_int_equal(kernel_forward(b->kernel, &in_place), 0);
	if (memcmp(same.data, y, b->y.n) != 0)
		fail_msg("%s: another result in place", what);
	guarded_free(&same, what);
}

static void check_types(const struct shape *s, float rate, const struct backend *backend, struct types t,
			uint64_t salt)
{
	struct op_desc d = desc_of(s, rate), typed;
	struct run a, b;
	struct guarded x, x2, y, weight;
	struct op_io io_a, io_b;
	char what[160];

	d.training = d.need_dx = false;
	typed = d;
	d.ceiling = 0;
	typed.x_type = t.x;
	typed.x2_type = t.x2;
	typed.y_type = t.y;
	typed.x_step = typed.x2_step = typed.y_step = 1; /* while ref finds out what they are */
	snprintf(what, sizeof(what), "%s %s %d×%d×%d→%d kernel %d rate %g, %s %s to %s", backend->name,
		 op_info(s->op)->name, d.in.c, d.in.h, d.in.w, d.out.c, d.kernel, (double)rate,
		 precision_name(t.x), precision_name(t.x2), precision_name(t.y));
	run_init(&a, s, &d, backend_find("ref"), conform_state(salt));
	typed.x_step = precision_step(t.x, 0.9f); /* some are beyond it */
	typed.x2_step = precision_step(t.x2, 1.1f);
	x = stored(&a.x, t.x, typed.x_step);
	x2 = stored(&a.x2, t.x2, typed.x2_step);
	io_a = io_of(&a);
	assert_int_equal(kernel_forward(a.kernel, &io_a), 0);
	typed.y_step = precision_step(t.y, 0.95f * fmaxf(largest_of(&a.y), 1e-3f));
	if (salt % 2 && t.x == t.y && (s->op == OP_max_pool || (s->op == OP_concat && t.x2 == t.y)))
		typed.y_step = typed.x_step; /* nothing to round */
	if (s->op == OP_concat && typed.y_step == typed.x_step) {
		guarded_free(&x2, what);
		typed.x2_step = typed.x_step;
		x2 = stored(&a.x2, t.x2, typed.x2_step);
	}
	run_init(&b, s, &typed, backend, conform_state(salt));
	y = guarded_new(b.y.n);
	io_b = io_of(&b);
	io_b.x = x.data;
	io_b.x2 = io_b.x2 ? x2.data : NULL;
	io_b.y = y.data;
	weight = guarded_copy(&a.weight);
	if (op_info(s->op)->params == OP_PARAMS_WEIGHT_BIAS)
		io_a.weight = weight.data;
	for (int version = 1; version < 4; version++) {
		io_a.version = io_b.version = (uint64_t)version;
		memcpy(weight.data, b.weight.data, weight.n * sizeof(float));
		if (io_a.weight == weight.data && precision_steps(t.x) && !widened_is(b.kernel) &&
		    backend != backend_find("ref"))
			weights_in_steps(&b, &d, weight.data);
		assert_int_equal(kernel_forward(a.kernel, &io_a), 0);
		assert_int_equal(kernel_forward(b.kernel, &io_b), 0);
		if (version == 3) { /* what was packed comes back */
			kernel_trim(b.kernel);
			assert_int_equal(kernel_forward(b.kernel, &io_b), 0);
		}
		check_result(what, &typed, y.data, &a.y);
		if (typed.residual && typed.op == OP_conv2d && precision_steps(t.x2) && precision_steps(t.y))
			check_in_place(what, &b, &io_b, y.data);
		for (size_t i = 0; i < b.weight.n; i++)
			a.weight.data[i] = b.weight.data[i] = b.weight.data[i] * 0.5f - 0.25f;
	}
	guarded_free(&x, what);
	guarded_free(&x2, what);
	guarded_free(&y, what);
	guarded_free(&weight, what);
	run_release(&a);
	run_release(&b);
}

static void test_ops(void **state)
{
	static const struct types usual[] = {{PRECISION_INT8, PRECISION_INT8, PRECISION_INT8},
					     {PRECISION_UINT8, PRECISION_UINT8, PRECISION_UINT8},
					     {PRECISION_UINT8, PRECISION_INT8, PRECISION_UINT8},
					     {PRECISION_UINT8, PRECISION_UINT8, PRECISION_F32}};

	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++)
		for (int k = 0; k < N_RATES; k++)
			for (size_t b = 0; backend_at(b); b++)
				check_types(&shapes[i], rates[k], backend_at(b), usual[(i + (size_t)k) % 4],
					    i * 16 + (size_t)k);
}

/* Each combination with a third of the shapes. */
static void test_mixed_types(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++)
		for (unsigned x = 0; x < N_TYPES; x++)
			for (unsigned x2 = 0; x2 < N_TYPES; x2++) {
				unsigned y = (unsigned)(x + x2 + i) % N_TYPES;
				struct types types = {types_of[x], types_of[x2], types_of[y]};
				bool second = shapes[i].residual || op_info(shapes[i].op)->inputs == 2;

				for (size_t b = 0; backend_at(b) && (second || x2 == 0); b++)
					check_types(&shapes[i], 0.75f, backend_at(b), types,
						    i * 32 + x * 4 + x2);
			}
}

/* bf16 beside int8 is nobody's form, and runs. */
static void test_no_bf16(void **state)
{
	const struct types types = {PRECISION_BF16, PRECISION_BF16, PRECISION_INT8};
	struct op_desc d = desc_of(&shapes[0], 1);
	struct kernel *k;
	struct err err = ERR_INIT;

	(void)state;
	d.training = d.need_dx = false;
	d.x_type = types.x;
	d.y_type = types.y;
	d.y_step = 1;
	for (size_t b = 0; backend_at(b); b++) {
		assert_int_equal(kernel_create(&k, backend_at(b), &d, NULL, &err), 0);
		assert_true(widened_is(k));
		kernel_destroy(k);
	}
}

/* Whether the onednn backend multiplies bytes as bytes. */
static bool has_form(const struct op_desc *of, enum precision x, enum precision y)
{
	struct op_desc d = *of;
	struct kernel *k;
	bool is;

	d.x_type = x;
	d.y_type = y;
	d.x_step = d.y_step = 1;
	assert_int_equal(kernel_create(&k, backend_find("onednn"), &d, NULL, NULL), 0);
	is = !widened_is(k);
	kernel_destroy(k);
	return is;
}

/* With AVX2 alone there are forms for them, though oneDNN has none. */
static void test_forms(void **state)
{
	static const struct op_desc conv = {.op = OP_conv2d,
					    .n = 2,
					    .in = {18, 9, 7},
					    .out = {20, 9, 7},
					    .kernel = 3,
					    .kernel_w = 3,
					    .stride = 1,
					    .pad = 1,
					    .pad_w = 1,
					    .groups = 1,
					    .weight_ld = 9 * 18};
	struct op_desc depthwise = conv;
	static const struct op_desc linear = {
		.op = OP_linear, .n = 2, .in = {18, 3, 2}, .out = {20, 1, 1}, .weight_ld = 6 * 18};

	(void)state;
	if (dnnl_get_effective_cpu_isa() != dnnl_cpu_isa_avx2)
		skip(); /* another CPU: conform-int8-avx2 is one */
	depthwise.out.c = depthwise.groups = depthwise.in.c;
	depthwise.weight_ld = 9;
	for (enum precision x = PRECISION_INT8; x <= PRECISION_UINT8; x++)
		for (unsigned y = 0; y < N_TYPES; y++) {
			assert_true(has_form(&conv, x, types_of[y]));
			assert_true(has_form(&depthwise, x, types_of[y]));
			assert_true(has_form(&linear, x, types_of[y]));
		}
}

static void test_numbers(void **state)
{
	static const float from[] = {0,     0.24f, 0.26f, -0.26f, 0.25f, 0.75f, 63.4f,
				     63.6f, 200,   -64,   -70,    128,   NAN};
	static const int8_t whole[] = {0, 0, 1, -1, 0, 2, 127, 127, 127, -128, -128, 127, -128};
	static const uint8_t positive[] = {0, 0, 1, 0, 0, 2, 127, 127, 255, 0, 0, 255, 0};
	enum { N = sizeof(from) / sizeof(from[0]) };
	int8_t to[N];
	uint8_t to_positive[N];
	float back[256];
	uint8_t all[256], again[256];

	(void)state;
	numbers_round(from, to, PRECISION_INT8, 0.5f, N);
	numbers_round(from, to_positive, PRECISION_UINT8, 0.5f, N);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(to[i], whole[i]);
		assert_int_equal(to_positive[i], positive[i]);
	}
	for (int i = 0; i < 256; i++)
		all[i] = (uint8_t)i;
	for (int p = PRECISION_INT8; p <= PRECISION_UINT8; p++) {
		numbers_widen(all, (enum precision)p, 0.3f, back, 256);
		for (int i = 0; i < 256; i++) {
			int number = p == PRECISION_INT8 && i > 127 ? i - 256 : i;

			assert_float_equal(back[i], (double)number * 0.3, 1e-4);
		}
		numbers_round(back, again, (enum precision)p, 0.3f, 256);
		assert_memory_equal(again, all, 256);
	}
	assert_true(numbers_largest((const float[]){1, -3, 2}, 3) == 3);
	assert_true(numbers_largest(NULL, 0) == 0);
}

/* Of an f32 session, as its forward on x saw them. */
static float *ranges_of(struct net *net, float rate, const struct guarded *x, float *logits)
{
	float *ranges = calloc((size_t)net->n_nodes, sizeof(*ranges));
	struct session *s = start(net, "onednn", rate, false, false);

	assert_int_equal(session_observe(s, ranges), 0);
	assert_int_equal(session_forward_float(s, x->data, BATCH, logits), 0);
	assert_int_equal(session_observe(s, NULL), 0);
	session_free(s);
	return ranges;
}

static struct session *start_int8(struct net *net, size_t backend, float rate, bool gradcam,
				  const float *ranges)
{
	struct err err = ERR_INIT;
	struct session_options options = {.rate = rate,
					  .batch = BATCH,
					  .gradcam = gradcam,
					  .precision = PRECISION_INT8,
					  .ranges = ranges};
	struct session *s;

	if (session_new_net(&s, net, NULL, NULL, backend_at(backend), &options, &err) < 0)
		fail_msg("%s: %s %s", backend_at(backend)->name, err_sentence(err.code), err.detail);
	return s;
}

/* A step is 2^-7 of a tensor's largest number: 17 layers, the most that one of the networks has, add an error of half of one in what they
 * read and of another half in their weights, at the worst all of the same sign. */
#define NET_TOLERANCE (17 * 0x1p-7f)

/* A whole network, each at half of the widths, gives about what it gives in f32, in full and in part-filled batches, and takes less
 * memory. */
static void test_nets(void **state)
{
	(void)state;
	for (size_t which = 0; which < N_NETS; which++)
		for (int k = (int)which % 2; k < N_RATES; k += 2)
			for (size_t b = 0; backend_at(b); b++) {
				struct net *net = make(which, nets[which].width, GROUPS);
				struct guarded x = inputs(which);
				float expected[BATCH * CLASSES], logits[BATCH * CLASSES];
				float *ranges = ranges_of(net, rates[k], &x, expected);
				struct session *plain = start(net, "ref", rates[k], false, false);
				struct session *s = start_int8(net, b, rates[k], false, ranges);

				for (int n = BATCH; n > 0; n--) {
					assert_int_equal(session_forward_float(s, x.data, n, logits), 0);
					compare(nets[which].name, logits, expected, (size_t)(n * CLASSES),
						NET_TOLERANCE, NET_TOLERANCE);
				}
				assert_true(session_stats(s).activations <
					    session_stats(plain).activations * 3 / 4);
				session_free(plain);
				session_free(s);
				net_free(net);
				free(ranges);
				guarded_free(&x, "x");
			}
}

/* Without ranges, or where none is known, as a file may say. */
static void test_ranges(void **state)
{
	struct err err = ERR_INIT;
	struct session_options options = {.rate = 1, .batch = BATCH, .precision = PRECISION_INT8};
	static const float bad[] = {0, -1, NAN, INFINITY, 1e-30f, 1e25f};
	struct net *net = make(0, nets[0].width, GROUPS);
	struct guarded x = inputs(0);
	float expected[BATCH * CLASSES], logits[BATCH * CLASSES];
	float *ranges = ranges_of(net, 1, &x, expected);
	struct session *s = NULL;

	(void)state;
	assert_int_equal(session_new_net(&s, net, NULL, NULL, backend_at(0), &options, &err), -EINVAL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (int n = 0; n < net->n_nodes; n++)
			ranges[n] = bad[i];
		s = start_int8(net, 0, 1, false, ranges);
		assert_int_equal(session_observe(s, ranges), -EINVAL);
		assert_int_equal(session_forward_float(s, x.data, BATCH, logits), 0);
		compare("without ranges", logits, expected, BATCH * CLASSES, TOLERANCE, MEAN_TOLERANCE);
		session_free(s);
	}
	free(ranges);
	net_free(net);
	guarded_free(&x, "x");
}

/* What only moves numbers has the steps of what it reads, so that bytes are moved; what was never negative has no sign. */
static void test_steps(void **state)
{
	int moved = 0, positive = 0;

	(void)state;
	for (size_t which = 0; which < N_NETS; which++) {
		struct net *net = make(which, nets[which].width, GROUPS);
		float *ranges = calloc((size_t)net->n_nodes, sizeof(*ranges));
		struct compile_options options = {.rate = 1,
						  .batch = BATCH,
						  .precision = PRECISION_INT8,
						  .ranges = ranges,
						  .backend = backend_at(0)};
		struct compiled c;

		for (int i = 0; i < net->n_nodes; i++)
			ranges[i] = (float)(i + 1);
		assert_int_equal(compile(&c, net, &options), 0);
		for (int i = 0; i < c.n_steps; i++) {
			const struct op_desc *d = &c.steps[i].desc;

			assert_true(!d->relu || d->y_type != PRECISION_INT8);
			positive += d->y_type == PRECISION_UINT8;
			if ((d->op != OP_max_pool && d->op != OP_concat) || !precision_steps(d->y_type) ||
			    !precision_steps(d->x_type))
				continue;
			assert_true(d->x_type == d->y_type && d->x_step == d->y_step);
			moved++;
		}
		assert_int_equal(c.values[c.output].type, PRECISION_F32);
		compiled_release(&c);
		free(ranges);
		net_free(net);
	}
	assert_true(moved >= 3 && positive >= 10);
}

/* Pixels are normalised as in f32, then rounded. */
static void test_pixels(void **state)
{
	static const float mean[] = {0.5f, 0.25f, 0.75f, 0.1f, 0.2f}, std[] = {0.25f, 0.5f, 1, 2, 3};
	static uint8_t pixels[5 * 3000];
	static float out[5 * 3000];
	static int8_t steps[5 * 3000], expected[5 * 3000];

	(void)state;
	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)(i * 2654435761u >> 13);
	for (int channels = 1; channels <= 5; channels++) {
		size_t size = 3000 * (size_t)channels;

		pixels_normalise(pixels, 2, 50, 30, channels, mean, std, PRECISION_F32, 0, out);
		pixels_normalise(pixels, 2, 50, 30, channels, mean, std, PRECISION_INT8, 0.02f, steps);
		numbers_round(out, expected, PRECISION_INT8, 0.02f, size);
		assert_memory_equal(steps, expected, size);
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
			struct guarded x = inputs(which), heat[2];
			float expected[BATCH * CLASSES], logits[BATCH * CLASSES];
			float *ranges = ranges_of(net, 0.5f, &x, expected);
			struct session *plain = start(net, "ref", 0.5f, false, true);
			struct session *s = start_int8(net, b, 0.5f, true, ranges);
			int h, w;

			session_gradcam_shape(s, &h, &w);
			for (int i = 0; i < 2; i++)
				heat[i] = guarded_new((size_t)(BATCH * h * w));
			assert_int_equal(session_forward_float(plain, x.data, BATCH, expected), 0);
			assert_int_equal(session_gradcam(plain, labels, BATCH, heat[0].data), 0);
			assert_int_equal(session_forward_float(s, x.data, BATCH, logits), 0);
			assert_int_equal(session_gradcam(s, labels, BATCH, heat[1].data), 0);
			compare(nets[which].name, logits, expected, BATCH * CLASSES, NET_TOLERANCE,
				NET_TOLERANCE);
			compare(nets[which].name, heat[1].data, heat[0].data, heat[0].n, 0.4f, 0.08f);
			for (int i = 0; i < 2; i++)
				guarded_free(&heat[i], "heat");
			session_free(plain);
			session_free(s);
			net_free(net);
			free(ranges);
			guarded_free(&x, "x");
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),     cmocka_unit_test(test_ops),
		cmocka_unit_test(test_mixed_types), cmocka_unit_test(test_no_bf16),
		cmocka_unit_test(test_forms),       cmocka_unit_test(test_nets),
		cmocka_unit_test(test_ranges),      cmocka_unit_test(test_steps),
		cmocka_unit_test(test_pixels),      cmocka_unit_test(test_gradcam)};

	conform_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
