/*
 * Weights as the loops read them. The instruction adds two products of uint8 and int8 in 16 bits, so of two weights that are added the
 * magnitudes may be 128 together: 255·128 < 2^15. Of those that are more, with the same sign, the second is cut, and what was cut off is a
 * weight of its own: the excess. Quads that have any, of any output of half a panel, are multiplied a second time, by their excess. So
 * sums are exact, and a sub-model answers the same wherever it runs.
 *
 * Steps are 1/127 of an output's largest weight, so of 1,000 normal random ones and of trained ones (seen: detection, text) one pair in a
 * hundred has an excess, and a fifth of such quads.
 */
#include "engine/onednn/bytes_private.h"

#include "engine/onednn/int8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PAIR = 128, QUAD_OF_HALF = BYTES_HALF * BYTES_QUAD };

int bytes_packed_new(struct bytes_packed **ret, const struct bytes_cut *c)
{
	size_t outputs = (size_t)c->panels * BYTES_PANEL;
	struct bytes_packed *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->users = 1;
	p->steps = calloc(outputs, sizeof(*p->steps));
	p->offset = calloc(outputs, sizeof(*p->offset));
	p->excess_at = calloc(2 * (size_t)c->panels + 1, sizeof(*p->excess_at));
	if (!p->steps || !p->offset || !p->excess_at) {
		bytes_pack_release(p, c);
		return -ENOMEM;
	}
	*ret = p;
	return 0;
}

/* Bytes. */
static size_t panel_size(const struct bytes_cut *c)
{
	if (c->depthwise)
		return (size_t)(c->rows * c->columns + 1) / 2 * 2 * BYTES_PANEL * sizeof(int16_t);
	return (size_t)c->depth * BYTES_PANEL;
}

static size_t packed_size(const struct bytes_cut *c)
{
	return (size_t)c->panels * panel_size(c);
}

const int8_t *bytes_panel_at(const struct bytes_packed *p, const struct bytes_cut *c, int panel)
{
	return p->data + (size_t)panel * panel_size(c);
}

static void drop_excess(struct bytes_packed *p)
{
	free(p->excess);
	free(p->quad);
	p->excess = NULL;
	p->quad = NULL;
}

void bytes_pack_drop(struct bytes_packed *p, const struct bytes_cut *c)
{
	onednn_large_free(p->data, packed_size(c));
	drop_excess(p);
	p->data = NULL;
	p->version = 0;
}

void bytes_pack_release(struct bytes_packed *p, const struct bytes_cut *c)
{
	if (!p || --p->users > 0)
		return;
	bytes_pack_drop(p, c);
	free(p->excess_at);
	free(p->steps);
	free(p->offset);
	free(p);
}

/* Of weights (in, rows, columns) of one output those of its window as it is gathered, in its place of a panel. Returns the offset. */
static int32_t pack_output(const struct bytes_cut *c, const int8_t *weight, int8_t *to)
{
	int32_t sum = 0;

	for (int ch = 0; ch < c->in.c; ch++)
		for (int i = 0; i < c->rows; i++)
			for (int j = 0; j < c->columns; j++, weight++) {
				int at = i * c->segment + j * c->in.c + ch;

				to[at / BYTES_QUAD * BYTES_QUAD * BYTES_PANEL + at % BYTES_QUAD] = *weight;
				sum += *weight;
			}
	return c->negative ? 128 * sum : 0;
}

/*
 * Depthwise: for each pair of taps two vectors of 16 numbers, as the unpack instructions leave the channels: 0 to 3 and 8 to 11 in the one, 4 to 7
 * and 12 to 15 in the other, each channel's first tap and its second.
 */
static void pack_taps(const struct bytes_cut *c, const int8_t *weight, int channel, int16_t *panel)
{
	int half = channel / 4 % 2, at = channel / 8 * 8 + channel % 4 * 2;

	for (int t = 0; t < c->rows * c->columns; t++)
		panel[(t / 2 * 2 + half) * BYTES_PANEL + at + t % 2] = (int16_t)weight[t];
}

/* What the second of two weights has more than fits. */
static int excess_of(const int8_t *two)
{
	int sum = two[0] + two[1];

	if ((two[0] < 0) != (two[1] < 0))
		return 0;
	return sum > MOST_PAIR ? sum - MOST_PAIR : sum < -MOST_PAIR ? sum + MOST_PAIR : 0;
}

static bool has_excess(const int8_t *quad)
{
	bool any = false;

	for (int i = 0; i < QUAD_OF_HALF; i += 2)
		any |= excess_of(quad + i) != 0;
	return any;
}

/* Moves it from the weights to `to`. */
static void move_excess(int8_t *quad, int8_t *to)
{
	for (int i = 0; i < QUAD_OF_HALF; i += 2) {
		int more = excess_of(quad + i);

		to[i + 1] = (int8_t)more;
		quad[i + 1] = (int8_t)(quad[i + 1] - more);
	}
}

/* Of half a panel, one of 2 · panels. */
static int8_t *quad_at(const struct bytes_cut *c, const struct bytes_packed *p, int half, int quad)
{
	return p->data + (size_t)(half / 2) * panel_size(c) + (size_t)(2 * quad + half % 2) * QUAD_OF_HALF;
}

static int split(const struct bytes_cut *c, struct bytes_packed *p)
{
	int quads = c->depth / BYTES_QUAD, halves = 2 * c->panels, n = 0;

	drop_excess(p);
	for (int half = 0; half < halves; half++) {
		p->excess_at[half] = n;
		for (int q = 0; q < quads; q++)
			n += has_excess(quad_at(c, p, half, q));
	}
	p->excess_at[halves] = n;
	if (n == 0)
		return 0;
	p->excess = calloc((size_t)n, QUAD_OF_HALF);
	p->quad = calloc((size_t)n, sizeof(*p->quad));
	if (!p->excess || !p->quad)
		return -ENOMEM;
	n = 0;
	for (int half = 0; half < halves; half++)
		for (int q = 0; q < quads; q++) {
			if (!has_excess(quad_at(c, p, half, q)))
				continue;
			move_excess(quad_at(c, p, half, q), p->excess + (size_t)n * QUAD_OF_HALF);
			p->quad[n++] = q;
		}
	return 0;
}

int bytes_pack(struct bytes_packed *p, const struct bytes_cut *c, const struct op_desc *d,
	       const struct op_io *io)
{
	size_t row = onednn_int8_row(d), size = (size_t)d->out.c * row;
	int8_t *weights;
	int r;

	if (p->data && p->version == io->version)
		return 0;
	weights = onednn_large_new(size);
	if (!p->data)
		p->data = onednn_large_new(packed_size(c));
	if (!weights || !p->data) {
		onednn_large_free(weights, size);
		return -ENOMEM;
	}
	onednn_int8_weights(d, io, weights, p->steps);
	memset(p->data, 0, packed_size(c));
#pragma omp parallel for schedule(static) if (packed_size(c) > 1 << 18)
	for (int o = 0; o < d->out.c; o++) {
		int8_t *panel = p->data + (size_t)(o / BYTES_PANEL) * panel_size(c);
		const int8_t *weight = weights + (size_t)o * row;

		if (c->depthwise)
			pack_taps(c, weight, o % BYTES_PANEL, (int16_t *)(void *)panel);
		else
			p->offset[o] = pack_output(c, weight, panel + o % BYTES_PANEL * BYTES_QUAD);
	}
	onednn_large_free(weights, size);
	r = c->depthwise ? 0 : split(c, p);
	p->version = r < 0 ? 0 : io->version;
	return r;
}

struct bytes_excess bytes_excess_at(const struct bytes_packed *p, int half)
{
	int at = p->excess_at[half], n = p->excess_at[half + 1] - at;

	if (n == 0)
		return (struct bytes_excess){0};
	return (struct bytes_excess){
		.at = p->excess + (size_t)at * QUAD_OF_HALF, .quad = p->quad + at, .n = n};
}
