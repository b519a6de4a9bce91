/* relu and add: bound by memory, so threads take long stretches and each is one pass. */
#include "engine/onednn/onednn.h"

#include <string.h>

enum { STRETCH = 16384 }; /* elements: 64 KiB, chosen; up to it one thread does all */

/* dx = y > 0 ? dy : 0 and the like: a body over one stretch, and the loop over stretches. NULL where it has
 * no use. */
typedef void (*body_fn)(const float *a, const float *b, float *to, size_t n);

static void each_stretch(body_fn body, const float *a, const float *b, float *to, size_t total)
{
#pragma omp parallel for schedule(static) if (total > STRETCH)
	for (size_t i = 0; i < total; i += STRETCH)
		body(a + i, b + i, to + i, total - i < STRETCH ? total - i : STRETCH);
}

VECTORISED static void mask(const float *y, const float *dy, float *dx, size_t n)
{
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		dx[i] = y[i] > 0 ? dy[i] : 0;
}

VECTORISED static void rectify(const float *x, const float *unused, float *y, size_t n)
{
	(void)unused;
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		y[i] = x[i] > 0 ? x[i] : 0;
}

VECTORISED static void sum(const float *x, const float *x2, float *y, size_t n)
{
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		y[i] = x[i] + x2[i];
}

VECTORISED static void sum_rectify(const float *x, const float *x2, float *y, size_t n)
{
#pragma omp simd
	for (size_t i = 0; i < n; i++) {
		float v = x[i] + x2[i];

		y[i] = v > 0 ? v : 0;
	}
}

static size_t total(const struct op_desc *d)
{
	return (size_t)d->n * extent_size(&d->out);
}

void onednn_relu_before(const struct op_desc *d, const float *y, float *dy)
{
	if (d->relu)
		each_stretch(mask, y, dy, dy, total(d));
}

void onednn_add_to(float *y, const float *x, size_t n)
{
	each_stretch(sum, y, x, y, n);
}

static int relu_forward(struct kernel *k, const struct op_io *io)
{
	each_stretch(rectify, io->x, io->x, io->y, total(&k->desc));
	return 0;
}

static int relu_backward(struct kernel *k, const struct op_io *io)
{
	if (io->dx)
		each_stretch(mask, io->y, io->dy, io->dx, total(&k->desc));
	return 0;
}

static int add_forward(struct kernel *k, const struct op_io *io)
{
	each_stretch(k->desc.relu ? sum_rectify : sum, io->x, io->x2, io->y, total(&k->desc));
	return 0;
}

static int add_backward(struct kernel *k, const struct op_io *io)
{
	onednn_relu_before(&k->desc, io->y, io->dy);
	if (io->dx && io->dx != io->dy)
		memcpy(io->dx, io->dy, total(&k->desc) * sizeof(float));
	if (io->dx2 && io->dx2 != io->dy)
		memcpy(io->dx2, io->dy, total(&k->desc) * sizeof(float));
	return 0;
}

const struct op_impl onednn_relu = {
	.create = plain_create, .forward = relu_forward, .backward = relu_backward};
const struct op_impl onednn_add = {.create = plain_create, .forward = add_forward, .backward = add_backward};
