/* Pooling over (h, w, c): a window's pixels are added or compared channel by channel, so the inner loops run
 * along c. What is computed stands in engine/ref/pool.c. */
#include "engine/onednn/onednn.h"

#include <string.h>

struct window {
	int h0, h1, w0, w1; /* inside the plane */
};

static struct window window_at(const struct op_desc *d, int oh, int ow)
{
	int h = oh * d->stride - d->pad, w = ow * d->stride - d->pad;

	if (d->op == OP_global_avg_pool)
		return (struct window){0, d->in.h, 0, d->in.w};
	return (struct window){h < 0 ? 0 : h, h + d->kernel < d->in.h ? h + d->kernel : d->in.h,
			       w < 0 ? 0 : w, w + d->kernel < d->in.w ? w + d->kernel : d->in.w};
}

static float factor(const struct op_desc *d, struct window win)
{
	return 1.0f / (d->op == OP_global_avg_pool || d->exclude_pad
			       ? (float)((win.h1 - win.h0) * (win.w1 - win.w0))
			       : (float)(d->kernel * d->kernel));
}

/* x: the instance's plane; y and from: one output pixel. from may be NULL. */
VECTORISED static void max_pixel(const float *restrict x, const struct op_desc *d, struct window win,
				 float *restrict y, int32_t *restrict from)
{
	int c = d->in.c, first = win.h0 * d->in.w + win.w0;

	memcpy(y, x + (size_t)first * (size_t)c, (size_t)c * sizeof(float));
	for (int j = 0; from && j < c; j++)
		from[j] = first;
	for (int h = win.h0; h < win.h1; h++)
		for (int w = win.w0; w < win.w1; w++) {
			int32_t pixel = h * d->in.w + w;
			const float *restrict p = x + (size_t)pixel * (size_t)c;

			if (from)
				for (int j = 0; j < c; j++) {
					from[j] = p[j] > y[j] ? pixel : from[j];
					y[j] = p[j] > y[j] ? p[j] : y[j];
				}
			else
				for (int j = 0; j < c; j++)
					y[j] = p[j] > y[j] ? p[j] : y[j];
		}
}

/* bf16 as an integer of the same order: what is negative counts downwards. The map is its own inverse. */
static inline int16_t ordered(uint16_t bits)
{
	return (int16_t)(bits ^ ((int16_t)bits < 0 ? 0x7fff : 0));
}

VECTORISED static void max_pixel_bf16(const uint16_t *restrict x, const struct op_desc *d, struct window win,
				      uint16_t *restrict y)
{
	int c = d->in.c;

	memcpy(y, x + (size_t)(win.h0 * d->in.w + win.w0) * (size_t)c, (size_t)c * sizeof(*y));
	for (int h = win.h0; h < win.h1; h++)
		for (int w = win.w0; w < win.w1; w++) {
			const uint16_t *restrict p = x + (size_t)(h * d->in.w + w) * (size_t)c;

			for (int j = 0; j < c; j++)
				y[j] = ordered(p[j]) > ordered(y[j]) ? p[j] : y[j];
		}
}

/* Added to an int8 it makes it 0 … 255, in the same order. */
static uint8_t sign_of(const struct op_desc *d)
{
	return d->x_type == PRECISION_INT8 ? 0x80 : 0;
}

VECTORISED static void max_pixel_steps(const uint8_t *restrict x, const struct op_desc *d, struct window win,
				       uint8_t *restrict y)
{
	uint8_t sign = sign_of(d);
	int c = d->in.c;

	memcpy(y, x + (size_t)(win.h0 * d->in.w + win.w0) * (size_t)c, (size_t)c * sizeof(*y));
	for (int h = win.h0; h < win.h1; h++)
		for (int w = win.w0; w < win.w1; w++) {
			const uint8_t *restrict p = x + (size_t)(h * d->in.w + w) * (size_t)c;

			for (int j = 0; j < c; j++)
				y[j] = (uint8_t)(p[j] ^ sign) > (uint8_t)(y[j] ^ sign) ? p[j] : y[j];
		}
}

enum { SOME = 256 }; /* channels that are summed at a time, chosen */

/* c channels, SOME at the most, of bf16 pixels. */
VECTORISED static void sum_some_bf16(const uint16_t *restrict x, const struct op_desc *d, struct window win,
				     float *restrict sum, int c, float scale)
{
	memset(sum, 0, (size_t)c * sizeof(float));
	for (int h = win.h0; h < win.h1; h++)
		for (int w = win.w0; w < win.w1; w++) {
			const uint16_t *restrict p = x + (size_t)(h * d->in.w + w) * (size_t)d->in.c;

			for (int j = 0; j < c; j++)
				sum[j] += bf16_to_f32(p[j]);
		}
	for (int j = 0; j < c; j++)
		sum[j] *= scale;
}

/* The same of int8 or uint8 pixels: exact until they are scaled. */
VECTORISED static void sum_some_steps(const uint8_t *restrict x, const struct op_desc *d, struct window win,
				      float *restrict sum, int c, float scale)
{
	uint8_t sign = sign_of(d);
	uint32_t whole[SOME] = {0}; /* up to 4096² pixels of 255 */
	int64_t pixels = (int64_t)(win.h1 - win.h0) * (win.w1 - win.w0);

	for (int h = win.h0; h < win.h1; h++)
		for (int w = win.w0; w < win.w1; w++) {
			const uint8_t *restrict p = x + (size_t)(h * d->in.w + w) * (size_t)d->in.c;

			for (int j = 0; j < c; j++)
				whole[j] += (uint8_t)(p[j] ^ sign);
		}
	for (int j = 0; j < c; j++)
		sum[j] = (float)((int64_t)whole[j] - pixels * sign) * scale;
}

/* x: the instance's plane; y: one output pixel; in numbers of their types, x not f32. */
static void sum_pixel_typed(const char *x, const struct op_desc *d, struct window win, char *y, float scale)
{
	float sum[SOME];

	for (int c = 0; c < d->in.c; c += SOME) {
		int n = d->in.c - c < SOME ? d->in.c - c : SOME;
		bool round = d->y_type != PRECISION_F32;
		const void *from = x + (size_t)c * precision_size(d->x_type);
		char *to = y + (size_t)c * precision_size(d->y_type);
		float *result = round ? sum : (float *)(void *)to;

		if (d->x_type == PRECISION_BF16)
			sum_some_bf16(from, d, win, result, n, scale);
		else
			sum_some_steps(from, d, win, result, n, scale * d->x_step);
		if (round)
			numbers_round(sum, to, d->y_type, d->y_step, (size_t)n);
	}
}

VECTORISED static void sum_pixel(const float *restrict x, const struct op_desc *d, struct window win,
				 float *restrict y, float scale)
{
	int c = d->in.c;

	memset(y, 0, (size_t)c * sizeof(float));
	for (int h = win.h0; h < win.h1; h++)
		for (int w = win.w0; w < win.w1; w++) {
			const float *restrict p = x + (size_t)(h * d->in.w + w) * (size_t)c;

			for (int j = 0; j < c; j++)
				y[j] += p[j];
		}
	for (int j = 0; j < c; j++)
		y[j] *= scale;
}

VECTORISED static void spread_pixel(float *restrict dx, const struct op_desc *d, struct window win,
				    const float *restrict dy, float scale)
{
	int c = d->in.c;

	for (int h = win.h0; h < win.h1; h++)
		for (int w = win.w0; w < win.w1; w++) {
			float *restrict p = dx + (size_t)(h * d->in.w + w) * (size_t)c;

			for (int j = 0; j < c; j++)
				p[j] += dy[j] * scale;
		}
}

static size_t max_saved_size(const struct op_desc *d)
{
	return d->training ? (size_t)d->n * extent_size(&d->out) * sizeof(int32_t) : 0;
}

/* x, y: where the instance and the output pixel begin, in elements. */
static void max_typed(const struct op_desc *d, const struct op_io *io, size_t x, size_t y, struct window win)
{
	switch (d->x_type) {
	case PRECISION_F32:
		max_pixel(io->x + x, d, win, io->y + y, io->saved ? (int32_t *)io->saved + y : NULL);
		break;
	case PRECISION_BF16:
		max_pixel_bf16(io_bf16(io->x) + x, d, win, io_bf16(io->y) + y);
		break;
	case PRECISION_INT8:
	case PRECISION_UINT8:
		max_pixel_steps(io_bytes(io->x) + x, d, win, io_bytes(io->y) + y);
	}
}

static int max_forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

#pragma omp parallel for collapse(2) schedule(static)
	for (int n = 0; n < d->n; n++)
		for (int oh = 0; oh < d->out.h; oh++)
			for (int ow = 0; ow < d->out.w; ow++) {
				size_t y = ((size_t)(n * d->out.h + oh) * (size_t)d->out.w + (size_t)ow) *
					   (size_t)d->out.c;

				size_t x = (size_t)n * extent_size(&d->in);

				max_typed(d, io, x, y, window_at(d, oh, ow));
			}
	return 0;
}

static int max_backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	size_t in = extent_size(&d->in), out = extent_size(&d->out);

	if (!io->dx)
		return 0;
#pragma omp parallel for schedule(static)
	for (int n = 0; n < d->n; n++) {
		const int32_t *from = (const int32_t *)io->saved + (size_t)n * out;
		const float *dy = io->dy + (size_t)n * out;
		float *dx = io->dx + (size_t)n * in;

		memset(dx, 0, in * sizeof(float));
		for (size_t i = 0; i < out; i++)
			dx[(size_t)from[i] * (size_t)d->in.c + i % (size_t)d->in.c] += dy[i];
	}
	return 0;
}

static int avg_forward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;

#pragma omp parallel for collapse(2) schedule(static)
	for (int n = 0; n < d->n; n++)
		for (int oh = 0; oh < d->out.h; oh++)
			for (int ow = 0; ow < d->out.w; ow++) {
				struct window win = window_at(d, oh, ow);
				size_t x = (size_t)n * extent_size(&d->in),
				       y = ((size_t)(n * d->out.h + oh) * (size_t)d->out.w + (size_t)ow) *
					   (size_t)d->out.c;

				if (d->x_type == PRECISION_F32)
					sum_pixel(io->x + x, d, win, io->y + y, factor(d, win));
				else
					sum_pixel_typed((const char *)io->x + x * precision_size(d->x_type),
							d, win, (char *)io->y + y * precision_size(d->y_type),
							factor(d, win));
			}
	return 0;
}

static int avg_backward(struct kernel *k, const struct op_io *io)
{
	const struct op_desc *d = &k->desc;
	size_t in = extent_size(&d->in), out = extent_size(&d->out);

	if (!io->dx)
		return 0;
#pragma omp parallel for schedule(static)
	for (int n = 0; n < d->n; n++) {
		const float *dy = io->dy + (size_t)n * out;

		memset(io->dx + (size_t)n * in, 0, in * sizeof(float));
		for (int i = 0; i < d->out.h * d->out.w; i++) {
			struct window win = window_at(d, i / d->out.w, i % d->out.w);

			spread_pixel(io->dx + (size_t)n * in, d, win, dy + (size_t)i * (size_t)d->out.c,
				     factor(d, win));
		}
	}
	return 0;
}

static int max_create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	if (d->x_type != d->y_type || (precision_steps(d->y_type) && d->x_step != d->y_step))
		return err_set(err, ERR_UNSUPPORTED_OP, "max_pool to another type");
	return plain_create(ret, d, sibling, err);
}

static int avg_create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	if (d->x_type == PRECISION_F32 && d->y_type != PRECISION_F32)
		return err_set(err, ERR_UNSUPPORTED_OP, "avg_pool to a narrower type");
	return plain_create(ret, d, sibling, err);
}

const struct op_impl onednn_max_pool = {.bf16 = true,
					.int8 = true,
					.create = max_create,
					.saved_size = max_saved_size,
					.forward = max_forward,
					.backward = max_backward};
const struct op_impl onednn_avg_pool = {
	.create = avg_create, .forward = avg_forward, .backward = avg_backward, .bf16 = true, .int8 = true};
const struct op_impl onednn_global_avg_pool = {
	.create = avg_create, .forward = avg_forward, .backward = avg_backward, .bf16 = true, .int8 = true};
