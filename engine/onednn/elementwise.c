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

void onednn_copy(float *y, const float *x, size_t n)
{
	each_stretch(copy, x, x, y, n, 0);
}

static int relu_forward(struct kernel *k, const struct op_io *io)
{
	each_stretch(rectify, io->x, io->x, io->y, total(&k->desc), op_ceiling(&k->desc));
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
	if (k->desc.relu && k->desc.scale == 1) {
		each_stretch(sum_rectify, io->x, io->x2, io->y, total(&k->desc), op_ceiling(&k->desc));
		return 0;
	}
	each_stretch(sum, io->x, io->x2, io->y, total(&k->desc), k->desc.scale);
	if (k->desc.relu)
		each_stretch(rectify, io->y, io->y, io->y, total(&k->desc), op_ceiling(&k->desc));
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
static void move_part(const struct op_desc *d, float *joined, float *part, int channels, size_t at, bool join)
{
	size_t groups = (size_t)d->groups, both = (size_t)d->out.c / groups, own = (size_t)channels / groups;
	size_t n = (size_t)d->n * (size_t)d->out.h * (size_t)d->out.w * groups;

#pragma omp parallel for schedule(static) if (n * own > STRETCH)
	for (size_t i = 0; i < n; i++) {
		if (join)
			memcpy(joined + i * both + at, part + i * own, own * sizeof(float));
		else
			memcpy(part + i * own, joined + i * both + at, own * sizeof(float));
	}
}

static int concat_forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

	/* the parts are only read */
	move_part(d, io->y, (float *)(uintptr_t)io->x, d->in.c, 0, true);
	move_part(d, io->y, (float *)(uintptr_t)io->x2, d->out.c - d->in.c, (size_t)(d->in.c / d->groups),
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

const struct op_impl onednn_relu6 = {
	.create = plain_create, .forward = relu_forward, .backward = relu_backward};
const struct op_impl onednn_concat = {
	.create = plain_create, .forward = concat_forward, .backward = concat_backward};
const struct op_impl onednn_dropout = {
	.create = plain_create, .forward = dropout_forward, .backward = dropout_backward};
const struct op_impl onednn_relu = {
	.create = plain_create, .forward = relu_forward, .backward = relu_backward};
const struct op_impl onednn_add = {.create = plain_create, .forward = add_forward, .backward = add_backward};
