/* relu, add, concat, dropout: bound by memory, so threads take long stretches and each is one pass. */
#include "engine/dropout.h"
#include "engine/onednn/onednn.h"

#include <math.h>
#include <string.h>

enum { STRETCH = 16384 }; /* elements: 64 KiB, chosen; up to it one thread does all */

/* dx = y > 0 ? dy : 0 and the like: a body over one stretch, and the loop over stretches. NULL where it has
 * no use. k: a factor or a ceiling. */
typedef void (*body_fn)(const float *a, const float *b, float *to, size_t n, float k);

static void each_stretch(body_fn body, const float *a, const float *b, float *to, size_t total, float k)
{
#pragma omp parallel for schedule(static) if (total > STRETCH)
	for (size_t i = 0; i < total; i += STRETCH)
		body(a + i, b + i, to + i, total - i < STRETCH ? total - i : STRETCH, k);
}

/* What a body reads or writes, in numbers of its type. */
struct operand {
	const void *at; /* NULL: it has no use */
	enum precision type;
	float step; /* of int8 and uint8 */
};

enum { PIECE = 1024 }; /* elements of the f32 copies of an operand: all of them stay in the first cache */

static const float *widened(const struct operand *o, size_t i, size_t n, float *space)
{
	if (o->type == PRECISION_F32)
		return o->at ? (const float *)o->at + i : NULL;
	numbers_widen((const char *)o->at + i * precision_size(o->type), o->type, o->step, space, n);
	return space;
}

static void each_piece(body_fn body, const struct operand *a, const struct operand *b,
		       const struct operand *to, size_t begin, size_t end, float k)
{
	float copy_a[PIECE], copy_b[PIECE], copy_to[PIECE];

	for (size_t i = begin; i < end; i += PIECE) {
		size_t n = end - i < PIECE ? end - i : PIECE;
		bool round = to->type != PRECISION_F32;
		float *result = round ? copy_to : (float *)(uintptr_t)to->at + i;

		body(widened(a, i, n, copy_a), widened(b, i, n, copy_b), result, n, k);
		if (round)
			numbers_round(result, (char *)(uintptr_t)to->at + i * precision_size(to->type),
				      to->type, to->step, n);
	}
}

/* As each_stretch, of any types. */
static void each_typed(body_fn body, struct operand a, struct operand b, struct operand to, size_t total,
		       float k)
{
#pragma omp parallel for schedule(static) if (total > STRETCH)
	for (size_t i = 0; i < total; i += STRETCH)
		each_piece(body, &a, &b, &to, i, total - i < STRETCH ? total : i + STRETCH, k);
}

VECTORISED static void mask(const float *y, const float *dy, float *dx, size_t n, float ceiling)
{
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		dx[i] = y[i] > 0 && y[i] < ceiling ? dy[i] : 0;
}

VECTORISED static void rectify(const float *x, const float *unused, float *y, size_t n, float ceiling)
{
	(void)unused;
#pragma omp simd
	for (size_t i = 0; i < n; i++) {
		float v = x[i] > 0 ? x[i] : 0;

		y[i] = v < ceiling ? v : ceiling;
	}
}

VECTORISED static void sum(const float *x, const float *x2, float *y, size_t n, float scale)
{
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		y[i] = x[i] + scale * x2[i];
}

VECTORISED static void sum_rectify(const float *x, const float *x2, float *y, size_t n, float ceiling)
{
#pragma omp simd
	for (size_t i = 0; i < n; i++) {
		float v = x[i] + x2[i];

		v = v > 0 ? v : 0;
		y[i] = v < ceiling ? v : ceiling;
	}
}

VECTORISED static void multiply(const float *x, const float *unused, float *y, size_t n, float scale)
{
	(void)unused;
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		y[i] = scale * x[i];
}

static size_t total(const struct op_desc *d)
{
	return (size_t)d->n * extent_size(&d->out);
}

void onednn_relu_before(const struct op_desc *d, const float *y, float *dy)
{
	if (d->relu)
		each_stretch(mask, y, dy, dy, total(d), op_ceiling(d));
}

void onednn_add_to(float *y, const float *x, size_t n)
{
	each_stretch(sum, y, x, y, n, 1);
}

static void copy(const float *x, const float *unused, float *y, size_t n, float k)
{
	(void)unused;
	(void)k;
	memcpy(y, x, n * sizeof(*y));
}

static struct operand x_of(const struct kernel *k, const struct op_io *io)
{
	return (struct operand){io->x, k->desc.x_type, k->desc.x_step};
}

static struct operand x2_of(const struct kernel *k, const struct op_io *io)
{
	return (struct operand){io->x2, k->desc.x2_type, k->desc.x2_step};
}

static struct operand y_of(const struct kernel *k, const struct op_io *io)
{
	return (struct operand){io->y, k->desc.y_type, k->desc.y_step};
}

void onednn_residual(const struct kernel *k, const struct op_io *io)
{
	if (precision_steps(k->desc.y_type)) /* in x2's own steps: what adds to it knows them */
		memcpy(io->y, io->x2, total(&k->desc));
	else
		each_typed(copy, x2_of(k, io), (struct operand){0}, y_of(k, io), total(&k->desc), 0);
}

static int relu_forward(struct kernel *k, const struct op_io *io)
{
	each_typed(rectify, x_of(k, io), (struct operand){0}, y_of(k, io), total(&k->desc),
		   op_ceiling(&k->desc));
	return 0;
}

static int relu_backward(struct kernel *k, const struct op_io *io)
{
	if (io->dx)
		each_stretch(mask, io->y, io->dy, io->dx, total(&k->desc), op_ceiling(&k->desc));
	return 0;
}

static int add_forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	struct operand x2 = x2_of(k, io);

	if (d->relu && d->scale == 1) {
		each_typed(sum_rectify, x_of(k, io), x2, y_of(k, io), total(d), op_ceiling(d));
		return 0;
	}
	each_typed(sum, x_of(k, io), x2, y_of(k, io), total(d), d->scale);
	if (d->relu)
		each_typed(rectify, y_of(k, io), (struct operand){0}, y_of(k, io), total(d), op_ceiling(d));
	return 0;
}

static int add_backward(struct kernel *k, const struct op_io *io)
{
	onednn_relu_before(&k->desc, io->y, io->dy);
	if (io->dx && io->dx != io->dy)
		memcpy(io->dx, io->dy, total(&k->desc) * sizeof(float));
	if (io->dx2 && (io->dx2 != io->dy || k->desc.scale != 1))
		each_stretch(multiply, io->dy, io->dy, io->dx2, total(&k->desc), k->desc.scale);
	return 0;
}

/* Copies channels between the joined tensor and one part of it, whose groups begin at `at` in the joined ones. */
static void move_part(const struct op_desc *d, void *joined, void *part, int channels, size_t at, bool join)
{
	size_t groups = (size_t)d->groups, size = precision_size(d->y_type);
	size_t both = (size_t)d->out.c / groups * size, own = (size_t)channels / groups * size;
	size_t n = (size_t)d->n * (size_t)d->out.h * (size_t)d->out.w * groups;

#pragma omp parallel for schedule(static) if (n * own > STRETCH * sizeof(float))
	for (size_t i = 0; i < n; i++) {
		char *whole = (char *)joined + i * both + at * size, *piece = (char *)part + i * own;

		memcpy(join ? whole : piece, join ? piece : whole, own);
	}
}

/* It moves elements and converts none. */
static int concat_create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling,
			 struct err *err)
{
	bool steps = precision_steps(d->y_type);

	if (d->x_type != d->y_type || d->x2_type != d->y_type ||
	    (steps && (d->x_step != d->y_step || d->x2_step != d->y_step)))
		return err_set(err, ERR_UNSUPPORTED_OP, "concat of several types");
	return plain_create(ret, d, sibling, err);
}

static int concat_forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

	/* the parts are only read */
	move_part(d, io->y, (void *)(uintptr_t)io->x, d->in.c, 0, true);
	move_part(d, io->y, (void *)(uintptr_t)io->x2, d->out.c - d->in.c, (size_t)(d->in.c / d->groups),
		  true);
	return 0;
}

static int concat_backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

	if (io->dx)
		move_part(d, io->dy, io->dx, d->in.c, 0, false);
	if (io->dx2)
		move_part(d, io->dy, io->dx2, d->out.c - d->in.c, (size_t)(d->in.c / d->groups), false);
	return 0;
}

static void drop(const struct op_desc *d, uint64_t seed, const float *from, float *to)
{
	const struct dropout choice = dropout_init(seed, d);
	size_t n = total(d);

#pragma omp parallel for simd schedule(static) if (parallel : n > STRETCH)
	for (size_t i = 0; i < n; i++)
		to[i] = dropout_of(&choice, i, from[i]);
}

static int dropout_forward(struct kernel *k, const struct op_io *io)
{
	drop(&k->desc, io->seed, io->x, io->y);
	return 0;
}

static int dropout_backward(struct kernel *k, const struct op_io *io)
{
	if (io->dx)
		drop(&k->desc, io->seed, io->dy, io->dx);
	return 0;
}

const struct op_impl onednn_relu6 = {.create = plain_create,
				     .forward = relu_forward,
				     .backward = relu_backward,
				     .bf16 = true,
				     .int8 = true};
const struct op_impl onednn_concat = {.create = concat_create,
				      .forward = concat_forward,
				      .backward = concat_backward,
				      .bf16 = true,
				      .int8 = true};
const struct op_impl onednn_dropout = {
	.create = plain_create, .forward = dropout_forward, .backward = dropout_backward};
const struct op_impl onednn_relu = {.create = plain_create,
				    .forward = relu_forward,
				    .backward = relu_backward,
				    .bf16 = true,
				    .int8 = true};
const struct op_impl onednn_add = {
	.create = plain_create, .forward = add_forward, .backward = add_backward, .bf16 = true, .int8 = true};
