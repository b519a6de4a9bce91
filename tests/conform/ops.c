/*
 * Every op of ops.def on every backend, at every width of a layer in 8 groups: forward and backward agree
 * with `ref`, gradients add to what was there, nothing outside of buffers or of the slice is touched. And
 * ref's gradients agree with central differences.
 */
#include "tests/conform/shapes.h"

#include <omp.h>

/* Outside of the slice no bit of a full-width gradient may change. */
static void check_outside(const char *what, const struct shape *s, const struct op_desc *d,
			  const struct guarded *before, const struct guarded *after)
{
	int64_t ld = op_info(s->op)->params == OP_PARAMS_WEIGHT_BIAS ? d->weight_ld : 1;
	int64_t row = s->op == OP_conv2d   ? (int64_t)d->in.c / d->groups * d->kernel * d->kernel_w
		      : s->op == OP_linear ? (int64_t)size_of(&d->in)
					   : 1;

	for (size_t i = 0; i < before->n; i++)
		if (((int64_t)i / ld >= d->out.c || (int64_t)i % ld >= row) &&
		    memcmp(&before->data[i], &after->data[i], sizeof(float)) != 0)
			fail_msg("%s: element %zu of a weight's gradient lies outside of the slice and "
				 "changed",
				 what, i);
}

static void check_gradients(const char *what, const struct shape *s, struct run *a, struct run *b,
			    const struct op_io *io_a, const struct op_io *io_b)
{
	const struct op_info *info = op_info(s->op);
	struct guarded before;

	/* the same mask for both: results that are 0 but for rounding would make gradients incomparable */
	memcpy(b->y.data, a->y.data, b->y.n * sizeof(float));
	before = guarded_copy(&b->dweight);
	assert_int_equal(kernel_backward(a->kernel, io_a), 0);
	assert_int_equal(kernel_backward(b->kernel, io_b), 0);
	compare(what, b->dx.data, a->dx.data, a->dx.n, info->tolerance, info->mean_tolerance);
	if (io_a->dx2)
		compare(what, b->dx2.data, a->dx2.data, a->dx2.n, info->tolerance, info->mean_tolerance);
	if (io_a->dweight) {
		compare(what, b->dweight.data, a->dweight.data, a->dweight.n, info->tolerance,
			info->mean_tolerance);
		check_outside(what, s, &a->kernel->desc, &before, &b->dweight);
	}
	if (io_a->dbias)
		compare(what, b->dbias.data, a->dbias.data, a->dbias.n, info->tolerance,
			info->mean_tolerance);
	guarded_free(&before, what);
}

static void check_shape(const struct shape *s, float rate, const struct backend *backend, uint64_t salt)
{
	const struct backend *ref = backend_find("ref");
	const struct op_info *info = op_info(s->op);
	struct op_desc d = desc_of(s, rate);
	struct run a, b;
	struct op_io io_a, io_b;
	char what[128];
	size_t out = (size_t)d.n * size_of(&d.out);

	uncut(s, &d);
	snprintf(what, sizeof(what), "%s %s %d×%d×%d→%d kernel %d rate %g", backend->name, info->name, d.in.c,
		 d.in.h, d.in.w, d.out.c, d.kernel, (double)rate);
	run_init(&a, s, &d, ref, conform_state(salt));
	run_init(&b, s, &d, backend, conform_state(salt));
	io_a = io_of(&a);
	io_b = io_of(&b);
	assert_int_equal(kernel_forward(a.kernel, &io_a), 0);
	assert_int_equal(kernel_forward(b.kernel, &io_b), 0);
	compare(what, b.y.data, a.y.data, out, info->tolerance, info->mean_tolerance);
	compare(what, b.mean.data, a.mean.data, a.mean.n, 1e-6f, 1e-6f);
	compare(what, b.variance.data, a.variance.data, a.variance.n, 1e-6f, 1e-6f);

	if (d.training)
		check_gradients(what, s, &a, &b, &io_a, &io_b);

	/* other parameters under another version: packed weights must be renewed, also after a trim */
	for (int version = 2; version < 4; version++) {
		for (size_t i = 0; i < a.weight.n; i++)
			a.weight.data[i] = b.weight.data[i] = a.weight.data[i] * 0.5f - 0.25f;
		for (size_t i = 0; d.norm && i < a.mean.n; i++)
			a.mean.data[i] = b.mean.data[i] = a.mean.data[i] * 0.5f - 0.25f;
		io_a.version = io_b.version = (uint64_t)version;
		if (version == 3)
			kernel_trim(b.kernel);
		assert_int_equal(kernel_forward(a.kernel, &io_a), 0);
		assert_int_equal(kernel_forward(b.kernel, &io_b), 0);
		compare(what, b.y.data, a.y.data, out, info->tolerance, info->mean_tolerance);
	}
	run_release(&a);
	run_release(&b);
}

static void test_against_ref(void **state)
{
	bool covered[OP_COUNT] = {false};

	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++) {
		covered[shapes[i].op] = true;
		for (int k = 0; k < N_RATES; k++)
			for (size_t b = 0; backend_at(b); b++)
				check_shape(&shapes[i], rates[k], backend_at(b), i * 16 + (size_t)k);
	}
	for (int op = 0; op < OP_COUNT; op++)
		if (!covered[op] && op_info((enum op)op)->gradient && op != OP_flatten)
			fail_msg("%s has no conformance shape", op_info((enum op)op)->name);
}

/* However the work is shared out. */
static void test_thread_counts(void **state)
{
	static const int counts[] = {1, 3, 5};
	int threads = omp_get_max_threads();

	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++)
		for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
			omp_set_num_threads(counts[k]);
			check_shape(&shapes[i], 1, backend_find("onednn"), i * 16 + N_RATES - 1);
		}
	omp_set_num_threads(threads);
}

/* Elementwise ops and normalisation may run their gradient in place; a residual's dx2 may be dy. */
static void test_in_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++) {
		const struct shape *s = &shapes[i];
		struct op_desc d = desc_of(s, 0.75f);
		size_t n = (size_t)d.n * size_of(&d.in);

		if (s->op != OP_relu && s->op != OP_relu6 && s->op != OP_dropout && s->op != OP_add &&
		    s->op != OP_group_norm && s->op != OP_batch_norm)
			continue;
		for (size_t b = 0; backend_at(b); b++) {
			struct run apart, place;
			struct op_io io, io_place;

			run_init(&apart, s, &d, backend_at(b), conform_state(i));
			run_init(&place, s, &d, backend_at(b), conform_state(i));
			io = io_of(&apart);
			io_place = io_of(&place);
			if (s->residual)
				io_place.dx2 = io_place.dy;
			else if (d.scale != 1) /* two different gradients: only one may lie there */
				io_place.dx2 = io_place.dy, io.dx = io_place.dx = NULL;
			else
				io_place.dx = io_place.dy;
			kernel_forward(apart.kernel, &io);
			kernel_forward(place.kernel, &io_place);
			kernel_backward(apart.kernel, &io);
			kernel_backward(place.kernel, &io_place);
			if (io.dx)
				assert_memory_equal(io.dx, io_place.dx, n * sizeof(float));
			if (io.dx2)
				assert_memory_equal(io.dx2, io_place.dx2, n * sizeof(float));
			run_release(&apart);
			run_release(&place);
		}
	}
}

/* A convolution may find the residual where its result goes. */
static void test_residual_in_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++) {
		struct op_desc d = desc_of(&shapes[i], 0.5f);

		if (d.op != OP_conv2d || !d.residual)
			continue;
		for (size_t b = 0; backend_at(b); b++) {
			struct run apart, place;
			struct op_io io, io_place;

			run_init(&apart, &shapes[i], &d, backend_at(b), conform_state(i));
			run_init(&place, &shapes[i], &d, backend_at(b), conform_state(i));
			io = io_of(&apart);
			io_place = io_of(&place);
			memcpy(io_place.y, io.x2, apart.y.n * sizeof(float));
			io_place.x2 = io_place.y;
			assert_int_equal(kernel_forward(apart.kernel, &io), 0);
			assert_int_equal(kernel_forward(place.kernel, &io_place), 0);
			assert_memory_equal(io_place.y, io.y, apart.y.n * sizeof(float));
			run_release(&apart);
			run_release(&place);
		}
	}
}

/* Σ y·g after element `i` of `of` moved by h. */
static double loss_at(struct run *r, const struct op_io *io, float *of, float h, const float *g)
{
	float old = *of;
	double loss = 0;

	*of = old + h;
	((struct op_io *)(uintptr_t)io)->version++;
	kernel_forward(r->kernel, io);
	for (size_t i = 0; i < r->y.n; i++)
		loss += (double)r->y.data[i] * g[i];
	*of = old;
	return loss;
}

static void check_slope(const char *what, struct run *r, struct op_io *io, float *of, const float *gradient,
			size_t n, const float *g, uint64_t *state)
{
	double scale = 0;

	for (size_t i = 0; i < n; i++)
		scale = fmax(scale, fabs(gradient[i]));
	for (int k = 0; k < 12; k++) {
		size_t i = (size_t)((conform_random(state) * 0.5 + 0.5) * 0.999 * (double)n);
		const float h = 0x1p-7f;
		double slope =
			(loss_at(r, io, of + i, h, g) - loss_at(r, io, of + i, -h, g)) / (2 * (double)h);

		if (!(fabs(slope - gradient[i]) <= 2e-3 * scale))
			fail_msg("%s: gradient %zu is %g, the difference quotient %g", what, i,
				 (double)gradient[i], slope);
	}
}

static void test_numeric_gradients(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++) {
		struct shape s = shapes[i];
		struct op_desc d = desc_of(&s, 0.5f);
		struct run r;
		struct op_io io;
		struct guarded g;
		uint64_t random = conform_state(1000 + i);

		if (!d.training)
			continue;

		/* the fused kink is checked by test_fused_relu */
		s.relu = false;
		d = desc_of(&s, 0.5f);
		run_init(&r, &s, &d, backend_find("ref"), random);
		/* kinks (0 of relu, ties of max_pool) further apart than the step */
		for (size_t k = 0; (s.op == OP_relu || s.op == OP_relu6 || s.op == OP_max_pool) && k < r.x.n;
		     k++)
			r.x.data[k] = (float)((int)((k * 7919) % r.x.n) - (int)(r.x.n / 2)) / 16 + 1.0f / 32;
		g = guarded_copy(&r.dy);
		memset(r.dweight.data, 0, r.dweight.n * sizeof(float));
		memset(r.dbias.data, 0, r.dbias.n * sizeof(float));
		io = io_of(&r);
		kernel_forward(r.kernel, &io);
		kernel_backward(r.kernel, &io);
		check_slope(op_info(s.op)->name, &r, &io, r.x.data, r.dx.data, r.x.n, g.data, &random);
		if (io.dx2)
			check_slope(op_info(s.op)->name, &r, &io, r.x2.data, r.dx2.data, r.x2.n, g.data,
				    &random);
		if (io.dweight)
			check_slope(op_info(s.op)->name, &r, &io, r.weight.data, r.dweight.data, r.weight.n,
				    g.data, &random);
		if (io.dbias)
			check_slope(op_info(s.op)->name, &r, &io, r.bias.data, r.dbias.data, (size_t)d.out.c,
				    g.data, &random);
		guarded_free(&g, "g");
		run_release(&r);
	}
}

/* op + ReLU in one is the op, then the ReLU, in both directions, to the bit. */
static void check_fused(const struct shape *s, const struct backend *backend, uint64_t state)
{
	struct op_desc d = desc_of(s, 1), d_plain = d;
	struct run fused, apart;
	struct op_io io, io_apart;

	d_plain.relu = false;
	run_init(&fused, s, &d, backend, state);
	run_init(&apart, s, &d_plain, backend, state);
	io = io_of(&fused);
	io_apart = io_of(&apart);
	assert_int_equal(kernel_forward(fused.kernel, &io), 0);
	assert_int_equal(kernel_forward(apart.kernel, &io_apart), 0);
	for (size_t k = 0; k < apart.y.n; k++) {
		float y = apart.y.data[k], ceiling = op_ceiling(&d);

		apart.dy.data[k] = y > 0 && y < ceiling ? apart.dy.data[k] : 0;
		apart.y.data[k] = fminf(fmaxf(y, 0), ceiling);
		if (fused.y.data[k] != apart.y.data[k])
			fail_msg("%s %s: element %zu is %g with the ReLU in it, %g before one of its own",
				 backend->name, op_info(s->op)->name, k, (double)fused.y.data[k],
				 (double)apart.y.data[k]);
	}
	if (d.training) {
		assert_int_equal(kernel_backward(fused.kernel, &io), 0);
		assert_int_equal(kernel_backward(apart.kernel, &io_apart), 0);
		for (size_t k = 0; k < apart.dx.n; k++)
			assert_true(fused.dx.data[k] == apart.dx.data[k]);
	}
	run_release(&fused);
	run_release(&apart);
}

static void test_fused_relu(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SHAPES; i++)
		for (size_t b = 0; shapes[i].relu && backend_at(b); b++)
			check_fused(&shapes[i], backend_at(b), conform_state(i));
}

/* A share of the elements goes, the others grow so that the mean stays; another step drops others. */
static void test_dropout(void **state)
{
	(void)state;
	for (size_t b = 0; backend_at(b); b++) {
		struct op_desc d = {.op = OP_dropout,
				    .n = 10,
				    .in = {100, 10, 10},
				    .out = {100, 10, 10},
				    .share = 0.25f,
				    .training = true};
		enum { N = 100000 };
		float *x = malloc(N * sizeof(*x)), *y = malloc(N * sizeof(*y)), *z = malloc(N * sizeof(*z));
		struct kernel *k;
		int gone = 0, both = 0;

		for (int i = 0; i < N; i++)
			x[i] = 3;
		assert_int_equal(kernel_create(&k, backend_at(b), &d, NULL, NULL), 0);
		kernel_forward(k, &(struct op_io){.x = x, .y = y, .seed = 1});
		kernel_forward(k, &(struct op_io){.x = x, .y = z, .seed = 2});
		for (int i = 0; i < N; i++) {
			assert_true(y[i] == 0 || fabsf(y[i] - 4) < 1e-6f);
			gone += y[i] == 0;
			both += y[i] == 0 && z[i] == 0;
		}
		assert_in_range(gone, N / 4 - N / 100, N / 4 + N / 100);
		assert_in_range(both, N / 16 - N / 100, N / 16 + N / 100);
		kernel_destroy(k);
		free(x);
		free(y);
		free(z);
	}
}

/* Two groups of each: 0 1 | 2 3 joined with 10 | 11 is 0 1 10 | 2 3 11; its first group is that of the parts'. */
static void test_concat(void **state)
{
	static const float x[] = {0, 1, 2, 3}, x2[] = {10, 11}, joined[] = {0, 1, 10, 2, 3, 11};
	float y[6];

	(void)state;
	for (size_t b = 0; backend_at(b); b++)
		for (int groups = 1; groups <= 2; groups++) {
			struct op_desc d = {.op = OP_concat,
					    .n = 1,
					    .in = {2 * groups, 1, 1},
					    .out = {3 * groups, 1, 1},
					    .groups = groups};
			struct kernel *k;

			assert_int_equal(kernel_create(&k, backend_at(b), &d, NULL, NULL), 0);
			kernel_forward(k, &(struct op_io){.x = x, .x2 = x2, .y = y});
			assert_memory_equal(y, joined, (size_t)(3 * groups) * sizeof(float));
			kernel_destroy(k);
		}
}

/*
 * A kernel for another batch size shares the packed weights of its sibling, and so has its form, though a convolution of few tiles is
 * otherwise run another way than one of many.
 */
static void test_sibling(void **state)
{
	static const int sizes[][2] = {{12, 1}, {1, 12}, {12, 5}};
	struct shape shape = {.op = OP_conv2d,
			      .c = 32,
			      .h = 7,
			      .w = 7,
			      .out_c = 64,
			      .kernel = 3,
			      .stride = 1,
			      .pad = 1,
			      .conv_groups = 1,
			      .more = {.eval = true}};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (size_t b = 0; backend_at(b); b++) {
			struct run first, other;
			struct guarded y;
			struct kernel *k;
			struct err err = ERR_INIT;
			struct op_desc d;
			struct op_io io;
			void *scratch;

			shape.n = sizes[i][0];
			d = desc_of(&shape, 1);
			run_init(&first, &shape, &d, backend_at(b), conform_state(i));
			d.n = shape.n = sizes[i][1];
			run_init(&other, &shape, &d, backend_find("ref"), conform_state(i + 8));
			assert_int_equal(kernel_create(&k, backend_at(b), &d, first.kernel, &err), 0);
			assert_ptr_equal(k->impl, first.kernel->impl);
			y = guarded_new(other.y.n);
			scratch = aligned_alloc(64, (k->scratch_size + 64) / 64 * 64);
			io = io_of(&other);
			assert_int_equal(kernel_forward(other.kernel, &io), 0);
			io.y = y.data;
			io.scratch = scratch;
			assert_int_equal(kernel_forward(k, &io), 0);
			compare("a sibling", y.data, other.y.data, y.n, op_info(OP_conv2d)->tolerance,
				op_info(OP_conv2d)->mean_tolerance);
			free(scratch);
			guarded_free(&y, "y");
			kernel_destroy(k);
			run_release(&first);
			run_release(&other);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_ref),
					   cmocka_unit_test(test_thread_counts),
					   cmocka_unit_test(test_in_place),
					   cmocka_unit_test(test_residual_in_place),
					   cmocka_unit_test(test_numeric_gradients),
					   cmocka_unit_test(test_fused_relu),
					   cmocka_unit_test(test_dropout),
					   cmocka_unit_test(test_concat),
					   cmocka_unit_test(test_sibling)};

	conform_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
