/*
 * Whole networks: a slice equals a network that was built narrow from the copied-out weights, gradients
 * included and bit-equal outside; part-filled batches; repeatability; backends against each other.
 */
#include "tests/conform/nets.h"

#include <errno.h>

static const float rates[] = {0.25f, 0.5f, 0.75f, 1};
enum { N_RATES = sizeof(rates) / sizeof(rates[0]) };

/* Steps through a parameter's slice: the index in the full array of element i of the narrow one. */
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

static double sum_of(const struct param *p)
{
	double sum = 0;

	for (size_t k = 0; k < p->size; k++)
		sum += p->value[k] * (double)(k + 1);
	return sum;
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
	struct param *of_full[128], *of_narrow[128];
	double statistics = 0;
	char what[128];
	int n_used;

	snprintf(what, sizeof(what), "%s on %s at rate %g", nets[which].name, backend, (double)rate);
	assert_int_equal(net_params(full, rate), net_params(narrow, 1));
	assert_int_equal(net_flops(full, rate), net_flops(narrow, 1));
	n_used = used_params(full, rate, of_full);
	assert_int_equal(used_params(narrow, 1, of_narrow), n_used);
	for (int i = 0; i < n_used; i++)
		for (size_t k = 0; k < of_narrow[i]->size; k++)
			of_narrow[i]->value[k] = of_full[i]->value[full_index(of_full[i], of_narrow[i], k)];
	for (int i = 0; i < full->params.n; i++) {
		struct param *f = &full->params.list[i];
		uint32_t pattern = 0x3f9dead1; /* 1.23… */

		for (size_t k = 0; f->grad && k < f->size; k++)
			memcpy(&f->grad[k], &pattern, sizeof(pattern));
		statistics += f->statistic && !param_used(f, rate) ? sum_of(f) : 0;
	}
	params_changed(&narrow->params);
	assert_int_equal(session_forward_float(n, x.data, BATCH, expected.data), 0);
	assert_int_equal(session_forward_float(s, x.data, BATCH, logits.data), 0);
	compare(what, logits.data, expected.data, BATCH * CLASSES, TOLERANCE, MEAN_TOLERANCE);
	loss_cross_entropy(expected.data, labels, BATCH, CLASSES, 0, dlogits);
	assert_int_equal(session_backward(s, dlogits, BATCH), 0);
	assert_int_equal(session_backward(n, dlogits, BATCH), 0);
	for (int i = 0; i < full->params.n; i++) {
		const struct param *f = &full->params.list[i];
		uint32_t pattern = 0x3f9dead1;

		for (size_t k = 0; f->grad && !param_used(f, rate) && k < f->size; k++)
			if (memcmp(&f->grad[k], &pattern, sizeof(pattern)) != 0)
				fail_msg("%s: %s is of another rate and its gradient changed", what, f->name);
		statistics -= f->statistic && !param_used(f, rate) ? sum_of(f) : 0;
	}
	if (statistics != 0)
		fail_msg("%s: statistics of another rate changed", what);
	for (int i = 0; i < n_used; i++) {
		struct param *f = of_full[i], *p = of_narrow[i];
		float *got;

		if (f->statistic) {
			compare(f->name, f->value, p->value, p->size, 1e-5f, 1e-6f);
			continue;
		}
		got = malloc(p->size * sizeof(float));
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

/* Steps through a full array: whether element k lies in the slice. */
static bool in_slice(const struct param *p, size_t k, float rate)
{
	for (int d = p->rank - 1; d >= 0; d--) {
		if ((int)(k % (size_t)p->dims[d]) >= slice_extent(p->dims[d], p->groups[d], rate))
			return false;
		k /= (size_t)p->dims[d];
	}
	return true;
}

/* Slices nest: the full network with nothing but zeros outside of a slice gives what the slice gives. */
static void check_nested(size_t which, float rate)
{
	struct net *net = make(which, nets[which].width, GROUPS);
	struct session *full = start(net, "onednn", 1, false, false),
		       *slice = start(net, "onednn", rate, false, false);
	struct guarded x = inputs(which);
	float expected[BATCH * CLASSES], logits[BATCH * CLASSES];

	for (int i = 1; i < net->n_nodes; i++) {
		struct node *node = &net->nodes[i];
		struct param *to = &net->params.list[node->weight < 0 ? 0 : node->weight], *from;

		if (node->op != OP_batch_norm)
			continue;
		/* the full width's set is the slice's, and silent beyond it */
		from = &net->params.list[net_batch_norm_set(net, node, rate)];
		for (int k = 0; k < 4 && rate < 1; k++)
			for (size_t j = 0; j < to[k].size; j++)
				to[k].value[j] = j < from[k].size ? from[k].value[j] : k == 3;
	}
	for (int i = 0; i < net->params.n; i++) {
		struct param *p = &net->params.list[i];

		for (size_t k = 0; k < p->size; k++)
			p->value[k] = in_slice(p, k, rate) ? p->value[k] : 0;
	}
	params_changed(&net->params);
	session_forward_float(full, x.data, BATCH, expected);
	session_forward_float(slice, x.data, BATCH, logits);
	compare(nets[which].name, logits, expected, BATCH * CLASSES, TOLERANCE, MEAN_TOLERANCE);
	session_free(full);
	session_free(slice);
	net_free(net);
	guarded_free(&x, "x");
}

static void test_slices_nest(void **state)
{
	(void)state;
	for (size_t which = 0; which < N_NETS; which++)
		for (int k = 0; k < N_RATES; k++)
			check_nested(which, rates[k]);
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
			for (int i = 0; i < a->params.n; i++) {
				const struct param *p = &a->params.list[i], *q = &b->params.list[i];

				compare(p->name, p->statistic ? q->value : q->grad,
					p->statistic ? p->value : p->grad, p->size, 5e-4f, 5e-5f);
			}
			session_free(ref);
			session_free(fast);
			net_free(a);
			net_free(b);
			guarded_free(&x, "x");
		}
}

/* In inference too, where convolutions take in what follows them, and with Grad-CAM, where less is. */
static void test_backends_agree_in_inference(void **state)
{
	(void)state;
	for (size_t which = 0; which < N_NETS; which++)
		for (int cam = 0; cam < 2; cam++) {
			struct net *net = make(which, nets[which].width, GROUPS);
			struct session *ref = start(net, "ref", 0.75f, false, cam);
			struct session *fast = start(net, "onednn", 0.75f, false, cam);
			struct guarded x = inputs(which);
			float expected[BATCH * CLASSES], logits[BATCH * CLASSES];

			session_forward_float(ref, x.data, BATCH, expected);
			session_forward_float(fast, x.data, BATCH, logits);
			compare(nets[which].name, logits, expected, BATCH * CLASSES, TOLERANCE,
				MEAN_TOLERANCE);
			session_free(ref);
			session_free(fast);
			net_free(net);
			guarded_free(&x, "x");
		}
}

/*
 * The loss of the whole net against central differences in every parameter: fusion and the meeting of
 * gradients.
 */
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

			if (p->statistic || !param_used(p, 0.5f))
				continue;
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

/* The same seed and threads give the same bits; sessions that share the workspace do not disturb another. */
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
		if (a->params.list[i].grad)
			assert_memory_equal(a->params.list[i].grad, b->params.list[i].grad,
					    a->params.list[i].size * sizeof(float));
	net_free(a);
	net_free(b);
	guarded_free(&x, "x");
}

/* Of a slice that saw one batch again and again, inference on that batch gives what training does, but for the
 * running variance's 1/(count-1): what is folded is the norm, and the set is that rate's. */
static void test_running_statistics(void **state)
{
	enum { BRANCHES = 4, RESIDUAL };

	(void)state;
	for (size_t b = 0, which = BRANCHES; backend_at(b); which == RESIDUAL ? b++, which-- : which++) {
		struct net *net = make(which, nets[which].width, GROUPS);
		struct session *train = start(net, backend_at(b)->name, 0.5f, true, false);
		struct session *infer = start(net, backend_at(b)->name, 0.5f, false, false);
		struct guarded x = inputs(which);
		float expected[BATCH * CLASSES], logits[BATCH * CLASSES], early[BATCH * CLASSES];

		session_forward_float(infer, x.data, BATCH, early);
		for (int i = 0; i < 100; i++)
			session_forward_float(train, x.data, BATCH, expected);
		/* no parameter changed: the statistics alone make packed weights old */
		session_forward_float(infer, x.data, BATCH, logits);
		compare(nets[which].name, logits, expected, BATCH * CLASSES, 0.02f, 0.01f);
		assert_memory_not_equal(early, logits, sizeof(early));
		session_free(train);
		session_free(infer);
		net_free(net);
		guarded_free(&x, "x");
	}
}

/* A rate that no set of statistics was made for is refused, in words. */
static void test_other_rate(void **state)
{
	struct net *net = make(3, nets[3].width, GROUPS);
	struct session_options options = {.rate = 0.6f, .batch = 1};
	struct err err = ERR_INIT;
	struct session *s = NULL;

	(void)state;
	assert_int_equal(session_new_net(&s, net, NULL, NULL, backend_at(0), &options, &err), -EINVAL);
	assert_non_null(strstr(err.detail, "0.6"));
	assert_null(s);
	net_free(net);
}

static void test_fusion(void **state)
{
	(void)state;
	for (size_t which = 0; which < N_NETS; which++) {
		struct net *net = make(which, nets[which].width, GROUPS);
		struct session *s = start(net, "ref", 1, false, false);
		struct session *cam = start(net, "ref", 1, false, true);

		assert_int_equal(session_stats(s).steps, nets[which].steps);
		assert_int_equal(session_stats(cam).steps, nets[which].cam_steps);
		session_free(s);
		session_free(cam);
		net_free(net);
	}
}

/* Values larger than the cache: the first steps run in parts, the last of which is padded; a residual goes through them. */
static struct net *make_large(int side)
{
	struct net *net;
	int x, y;

	assert_int_equal(net_new(&net, 3, side, side, NULL), 0);
	x = net_relu(net, conv(net, "a", 0, 32, 3, 1, GROUPS), NULL);
	y = conv(net, "c", net_relu(net, conv(net, "b", x, 32, 3, 1, GROUPS), NULL), 32, 1, 1, GROUPS);
	x = net_relu(net, net_add(net, y, x, NULL), NULL);
	x = net_relu(net, conv(net, "d", x, 16, 3, 2, GROUPS), NULL);
	x = net_relu(net, net_group_norm(net, "n", conv(net, "e", x, 64, 3, 2, GROUPS), 0, NULL), NULL);
	x = net_linear(net, "fc", net_global_avg_pool(net, x, NULL),
		       &(struct linear_attr){.features = CLASSES, .bias = true}, NULL);
	assert_int_equal(net_finish(net, x, NULL), 0);
	net_init(net, 3);
	return net;
}

static void test_parts_of_a_batch(void **state)
{
	enum { SIDE = 192, LARGE_BATCH = 11 };
	static const int some[] = {LARGE_BATCH, 1, 7, 4, 10};
	size_t row = 3 * SIDE * SIDE;
	struct net *net = make_large(SIDE);
	struct guarded x = guarded_new(LARGE_BATCH * row), logits = guarded_new(LARGE_BATCH * CLASSES),
		       expected = guarded_new(LARGE_BATCH * CLASSES);
	const struct session_options one = {.rate = 0.5f, .batch = 1, .threads = 2},
				     all = {.rate = 0.5f, .batch = LARGE_BATCH, .threads = 2};
	const struct backend *onednn = backend_find("onednn");
	struct session *single, *whole;
	uint64_t random = conform_state(31);
	int part;

	(void)state;
	for (size_t i = 0; i < x.n; i++)
		x.data[i] = conform_random(&random);
	assert_int_equal(session_new_net(&single, net, NULL, NULL, onednn, &one, NULL), 0);
	for (size_t i = 0; i < LARGE_BATCH; i++)
		assert_int_equal(
			session_forward_float(single, x.data + i * row, 1, expected.data + i * CLASSES), 0);
	assert_int_equal(session_stats(single).part, 0);
	assert_int_equal(session_new_net(&whole, net, NULL, NULL, onednn, &all, NULL), 0);
	part = session_stats(whole).part;
	assert_true(part > 1 && part < LARGE_BATCH);
	for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
		size_t n = (size_t)some[i];

		memset(logits.data, 0, logits.n * sizeof(float));
		assert_int_equal(session_forward_float(whole, x.data, some[i], logits.data), 0);
		compare("parts of a batch", logits.data, expected.data, n * CLASSES, TOLERANCE,
			MEAN_TOLERANCE);
	}
	session_free(single);
	session_free(whole);
	net_free(net);
	guarded_free(&x, "x");
	guarded_free(&logits, "logits");
	guarded_free(&expected, "expected");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_slice_is_narrow_net),
					   cmocka_unit_test(test_slices_nest),
					   cmocka_unit_test(test_backends_agree),
					   cmocka_unit_test(test_backends_agree_in_inference),
					   cmocka_unit_test(test_numeric_gradients),
					   cmocka_unit_test(test_part_filled_batch),
					   cmocka_unit_test(test_weights_renewed),
					   cmocka_unit_test(test_repeatable),
					   cmocka_unit_test(test_running_statistics),
					   cmocka_unit_test(test_other_rate),
					   cmocka_unit_test(test_parts_of_a_batch),
					   cmocka_unit_test(test_fusion)};

	conform_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
