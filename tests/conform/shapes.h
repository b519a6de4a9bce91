/* The shapes that every op is tested at, and what a kernel of one reads and writes. */
#ifndef TESTS_CONFORM_SHAPES_H
#define TESTS_CONFORM_SHAPES_H

#include "tests/conform/conform.h"

#include "engine/backend.h"

static const float rates[] = {0.25f, 0.5f, 0.75f, 1};
enum { N_RATES = sizeof(rates) / sizeof(rates[0]) };

/* At full width. 0 in `groups` of in or out: that side is never sliced. */
struct shape {
	enum op op;
	int n, c, h, w, in_groups;
	int out_c, out_groups, kernel, stride, pad, conv_groups; /* conv2d, linear, pools */
	int norm_groups;
	bool bias, relu, residual;
	struct {
		int kernel_w, pad_w, x2_c; /* conv2d where not square; concat */
		float ceiling, scale, share;
		bool norm, running, exclude_pad; /* conv2d; batch_norm; avg_pool */
		bool eval;                       /* without gradients */
	} more;                                  /* what few have */
};

static const struct shape shapes[] = {
	{OP_conv2d, 3, 1, 9, 8, 0, 16, 8, 3, 1, 1, 1, 0, true, false, false, {0}},
	{OP_conv2d, 2, 3, 11, 11, 0, 32, 8, 3, 2, 1, 1, 0, false, true, false, {0}},
	{OP_conv2d, 2, 16, 8, 8, 8, 32, 8, 3, 1, 1, 1, 0, false, false, false, {0}},
	{OP_conv2d, 5, 64, 7, 7, 8, 64, 8, 3, 1, 1, 1, 0, true, true, false, {0}},
	{OP_conv2d, 2, 32, 8, 6, 8, 64, 8, 1, 2, 0, 1, 0, false, false, false, {0}},
	{OP_conv2d, 4, 16, 10, 10, 8, 32, 8, 1, 2, 0, 1, 0, false, false, false, {0}},
	{OP_conv2d, 4, 16, 10, 10, 8, 24, 8, 1, 1, 0, 1, 0, false, false, false, {0}},
	{OP_conv2d, 4, 16, 10, 10, 8, 24, 8, 3, 1, 1, 1, 0, false, false, false, {0}},
	{OP_conv2d, 1, 24, 10, 10, 8, 40, 8, 5, 2, 2, 1, 0, true, false, false, {0}},
	{OP_conv2d, 2, 32, 7, 7, 8, 32, 8, 3, 1, 1, 32, 0, true, false, false, {0}},
	{OP_conv2d, 2, 32, 7, 7, 8, 64, 8, 3, 1, 1, 8, 0, true, false, false, {0}},
	{OP_conv2d, 2, 32, 9, 14, 8, 160, 8, 3, 1, 0, 1, 0, true, true, false, {0}},
	{OP_conv2d, 12, 128, 5, 6, 8, 64, 8, 3, 1, 1, 1, 0, false, false, false, {0}},
	{OP_conv2d, 2, 16, 39, 40, 1, 48, 3, 3, 1, 1, 1, 0, true, false, false, {0}}, /* many tiles */
	{OP_linear, 7, 1, 5, 6, 0, 64, 8, 0, 0, 0, 0, 0, true, true, false, {0}},
	{OP_linear, 4, 64, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, true, false, false, {0}},
	{OP_linear, 3, 16, 4, 3, 8, 48, 8, 0, 0, 0, 0, 0, false, false, false, {0}},
	{OP_group_norm, 3, 16, 5, 5, 8, 0, 0, 0, 0, 0, 0, 8, false, true, false, {0}},
	{OP_group_norm, 2, 32, 8, 8, 8, 0, 0, 0, 0, 0, 0, 8, false, true, true, {0}},
	{OP_group_norm, 2, 24, 7, 7, 8, 0, 0, 0, 0, 0, 0, 8, false, false, true, {0}},
	{OP_group_norm, 2, 64, 7, 7, 8, 0, 0, 0, 0, 0, 0, 16, false, false, false, {0}},
	{OP_group_norm, 4, 200, 1, 1, 8, 0, 0, 0, 0, 0, 0, 8, false, false, false, {0}},
	{OP_relu, 3, 24, 5, 5, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {0}},
	{OP_relu, 2, 64, 20, 20, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {0}},
	{OP_add, 3, 24, 5, 5, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {0}},
	{OP_add, 2, 64, 20, 20, 8, 0, 0, 0, 0, 0, 0, 0, false, true, false, {0}},
	{OP_max_pool, 2, 16, 9, 8, 8, 0, 0, 3, 2, 1, 0, 0, false, false, false, {0}},
	{OP_max_pool, 2, 24, 6, 6, 8, 0, 0, 2, 2, 0, 0, 0, false, false, false, {0}},
	{OP_avg_pool, 2, 16, 9, 8, 8, 0, 0, 3, 2, 1, 0, 0, false, false, false, {0}},
	{OP_avg_pool, 2, 24, 6, 6, 8, 0, 0, 2, 2, 0, 0, 0, false, false, false, {0}},
	{OP_conv2d, 2, 16, 8, 9, 8, 32, 8, 1, 1, 0, 1, 0, false, true, false, {.kernel_w = 7, .pad_w = 3}},
	{OP_conv2d, 2, 32, 9, 7, 8, 24, 8, 7, 1, 3, 1, 0, true, false, false, {.kernel_w = 1}},
	{OP_conv2d, 2, 24, 9, 9, 8, 24, 8, 3, 2, 1, 24, 0, false, true, false, {.ceiling = 1}},
	{OP_conv2d, 3, 16, 8, 8, 8, 32, 8, 3, 1, 1, 1, 0, false, true, false, {.norm = true}},
	{OP_conv2d, 2, 16, 8, 8, 8, 16, 8, 3, 1, 1, 16, 0, true, true, false, {.norm = true, .ceiling = 2}},
	{OP_conv2d, 2, 32, 6, 6, 8, 24, 8, 1, 1, 0, 1, 0, true, false, false, {.norm = true}},
	{OP_conv2d, 2, 32, 6, 6, 8, 24, 8, 1, 1, 0, 1, 0, true, true, true, {.norm = true}},
	{OP_conv2d, 3, 16, 9, 9, 8, 32, 8, 3, 2, 1, 1, 0, false, false, true, {0}},
	{OP_conv2d, 5, 32, 7, 7, 8, 32, 8, 3, 1, 1, 1, 0, true, true, true, {.ceiling = 1}},
	{OP_conv2d, 2, 16, 8, 8, 8, 16, 8, 3, 1, 1, 16, 0, false, true, true, {.norm = true}},
	{OP_linear, 4, 32, 1, 1, 8, 24, 8, 0, 0, 0, 0, 0, true, true, false, {.ceiling = 1}},
	{OP_group_norm, 3, 16, 5, 5, 8, 0, 0, 0, 0, 0, 0, 8, false, true, true, {.ceiling = 0.5f}},
	{OP_batch_norm, 3, 16, 5, 5, 8, 0, 0, 0, 0, 0, 0, 0, false, true, false, {0}},
	{OP_batch_norm, 2, 32, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0, false, true, true, {.ceiling = 1}},
	{OP_batch_norm, 2, 24, 7, 7, 8, 0, 0, 0, 0, 0, 0, 0, false, false, true, {0}},
	{OP_batch_norm, 6, 200, 1, 1, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {0}},
	{OP_batch_norm, 2, 24, 7, 7, 8, 0, 0, 0, 0, 0, 0, 0, false, true, true, {.running = true}},
	{OP_batch_norm, 3, 16, 5, 5, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {.running = true}},
	{OP_relu6, 2, 64, 20, 20, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {.ceiling = 6}},
	{OP_add, 2, 64, 20, 20, 8, 0, 0, 0, 0, 0, 0, 0, false, true, false, {.scale = 0.17f, .ceiling = 1}},
	{OP_add, 3, 24, 5, 5, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {.scale = -2}},
	{OP_concat, 3, 16, 5, 4, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {.x2_c = 40}},
	{OP_concat, 2, 64, 10, 9, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {.x2_c = 64}},
	{OP_concat, 2, 3, 6, 6, 0, 0, 0, 0, 0, 0, 0, 0, false, false, false, {.x2_c = 5}},
	{OP_dropout, 3, 24, 5, 5, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {.share = 0.5f}},
	{OP_dropout, 2, 64, 20, 20, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {.share = 0.1f}},
	{OP_avg_pool, 2, 16, 9, 8, 8, 0, 0, 3, 1, 1, 0, 0, false, false, false, {.exclude_pad = true}},
	/* by Winograd's filtering, of some tiles that are cut off, of few tiles and of many */
	{OP_conv2d, 2, 64, 9, 11, 2, 64, 2, 3, 1, 1, 1, 0, true, true, false, {0}},
	{OP_conv2d, 1, 32, 30, 29, 2, 48, 3, 3, 1, 1, 1, 0, false, false, false, {0}},
	{OP_conv2d, 2, 64, 9, 11, 4, 64, 4, 3, 1, 1, 1, 0, true, true, false, {.eval = true}},
	{OP_conv2d, 9, 160, 4, 4, 5, 96, 3, 3, 1, 1, 1, 0, false, false, false, {.eval = true, .norm = true}},
	{OP_conv2d, 2, 32, 14, 13, 2, 96, 3, 3, 1, 1, 1, 0, false, true, true, {.eval = true, .ceiling = 6}},
	{OP_conv2d, 1, 16, 58, 58, 1, 16, 1, 3, 1, 1, 1, 0, true, false, true, {.eval = true}},
	{OP_global_avg_pool, 3, 40, 7, 5, 8, 0, 0, 0, 0, 0, 0, 0, false, false, false, {0}},
};
enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static inline struct op_desc desc_of(const struct shape *s, float rate)
{
	struct op_desc d = {.op = s->op,
			    .n = s->n,
			    .in = {slice_extent(s->c, s->in_groups, rate), s->h, s->w},
			    .kernel = s->kernel,
			    .stride = s->stride,
			    .pad = s->pad,
			    .bias = s->bias,
			    .relu = s->relu,
			    .residual = s->residual,
			    .kernel_w = s->more.kernel_w ? s->more.kernel_w : s->kernel,
			    .pad_w = s->more.kernel_w ? s->more.pad_w : s->pad,
			    .ceiling = s->more.ceiling,
			    .scale = s->more.scale != 0 ? s->more.scale : 1,
			    .share = s->more.share,
			    .salt = 7,
			    .norm = s->more.norm,
			    .statistics = s->op == OP_batch_norm && !s->more.running,
			    .exclude_pad = s->more.exclude_pad,
			    .eps = 1e-5f,
			    .training = !s->more.eval && (s->op != OP_conv2d || !s->residual),
			    .need_dx = true};

	d.need_dx = d.training;
	d.out = d.in;
	switch (s->op) {
	case OP_conv2d:
		d.groups = s->conv_groups == 1 ? 1 : slice_extent(s->conv_groups, 8, rate);
		d.weight_ld = (int64_t)s->c / s->conv_groups * s->kernel * d.kernel_w;
		break;
	case OP_linear:
		d.weight_ld = (int64_t)s->c * s->h * s->w;
		break;
	case OP_group_norm:
		d.groups = slice_extent(s->norm_groups, 8, rate);
		break;
	case OP_concat:
		d.groups = s->in_groups ? slice_extent(s->in_groups, s->in_groups, rate) : 1;
		d.out.c += slice_extent(s->more.x2_c, s->in_groups, rate);
		break;
	default:
		break;
	}
	if (s->op == OP_conv2d || s->op == OP_linear)
		d.out.c = slice_extent(s->out_c, s->out_groups, rate);
	if (s->op == OP_linear || s->op == OP_global_avg_pool) {
		d.out.h = d.out.w = 1;
	} else if (s->kernel) {
		d.out.h = (s->h + 2 * s->pad - s->kernel) / s->stride + 1;
		d.out.w = (s->w + 2 * d.pad_w - d.kernel_w) / s->stride + 1;
	}
	return d;
}

static inline size_t size_of(const struct extent *e)
{
	return (size_t)e->c * (size_t)e->h * (size_t)e->w;
}

/* Everything an op reads and writes; weights are full width. */
struct run {
	struct guarded x, x2, y, dy, dx, dx2, weight, bias, dweight, dbias, saved;
	struct guarded scale, shift, mean, variance;
	void *scratch;
	struct kernel *kernel;
};

static inline size_t weight_size(const struct shape *s, const struct op_desc *d)
{
	return s->op == OP_batch_norm   ? (size_t)d->in.c
	       : s->op == OP_group_norm ? (size_t)s->c
					: (size_t)(d->weight_ld * s->out_c);
}

/*
 * Errors are relative to the largest result, which a ceiling takes away from sums of products: these are compared as they were
 * before it. That it cuts them right is another test's.
 */
static inline void uncut(const struct shape *s, struct op_desc *d)
{
	if (op_info(s->op)->params == OP_PARAMS_WEIGHT_BIAS)
		d->ceiling = 0;
}

static inline void run_init(struct run *r, const struct shape *s, const struct op_desc *d,
			    const struct backend *backend, uint64_t state)
{
	size_t in = (size_t)d->n * size_of(&d->in), out = (size_t)d->n * size_of(&d->out);
	size_t second = d->op == OP_concat ? out - in : out, channels = (size_t)d->out.c;
	struct err err = ERR_INIT;
	int status = kernel_create(&r->kernel, backend, d, NULL, &err);

	if (status < 0)
		fail_msg("%s on %s: %s %s", op_info(d->op)->name, backend->name, err_sentence(err.code),
			 err.detail);
	r->x = guarded_random(in, &state);
	r->x2 = guarded_random(second, &state);
	r->dy = guarded_random(out, &state);
	r->weight = guarded_random(weight_size(s, d), &state);
	r->bias = guarded_random((size_t)(s->out_c + s->c), &state);
	r->dweight = guarded_random(weight_size(s, d), &state);
	r->dbias = guarded_random((size_t)(s->out_c + s->c), &state);
	r->y = guarded_new(out);
	r->dx = guarded_new(in);
	r->dx2 = guarded_new(second);
	r->scale = guarded_random(channels, &state);
	r->shift = guarded_random(channels, &state);
	r->mean = guarded_random(channels, &state);
	r->variance = guarded_random(channels, &state);
	for (size_t i = 0; i < channels; i++)
		r->variance.data[i] = fabsf(r->variance.data[i]) + 0.25f;
	r->saved = guarded_new((kernel_saved_size(backend, d) + 3) / 4);
	r->scratch = aligned_alloc(64, (r->kernel->scratch_size + 127) / 64 * 64);
	assert_non_null(r->scratch);
}

static inline struct op_io io_of(const struct run *r)
{
	const struct op_desc *d = &r->kernel->desc;
	bool weighted = op_info(d->op)->params != OP_PARAMS_NONE;
	bool bias = d->bias || d->op == OP_group_norm || d->op == OP_batch_norm;
	bool second = op_info(d->op)->inputs == 2 || d->residual;
	bool running = d->norm || d->op == OP_batch_norm;

	return (struct op_io){.x = r->x.data,
			      .x2 = second ? r->x2.data : NULL,
			      .y = r->y.data,
			      .dy = r->dy.data,
			      .dx = r->dx.data,
			      .dx2 = second ? r->dx2.data : NULL,
			      .weight = weighted ? r->weight.data : NULL,
			      .bias = bias ? r->bias.data : NULL,
			      /* with a norm folded in nothing is learned */
			      .dweight = weighted && !d->norm ? r->dweight.data : NULL,
			      .dbias = bias && !d->norm ? r->dbias.data : NULL,
			      .scale = d->norm ? r->scale.data : NULL,
			      .shift = d->norm ? r->shift.data : NULL,
			      .mean = running ? r->mean.data : NULL,
			      .variance = running ? r->variance.data : NULL,
			      .seed = 5,
			      .saved = r->saved.n ? r->saved.data : NULL,
			      .scratch = r->scratch,
			      .version = 1};
}

static inline void run_release(struct run *r)
{
	struct guarded *all[] = {&r->x,     &r->x2,     &r->y,     &r->dy,      &r->dx,
				 &r->dx2,   &r->weight, &r->bias,  &r->dweight, &r->dbias,
				 &r->saved, &r->scale,  &r->shift, &r->mean,    &r->variance};
	static const char *const names[] = {"x",     "x2",     "y",     "dy",      "dx",
					    "dx2",   "weight", "bias",  "dweight", "dbias",
					    "saved", "scale",  "shift", "mean",    "variance"};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		guarded_free(all[i], names[i]);
	kernel_destroy(r->kernel);
	free(r->scratch);
}

#endif
