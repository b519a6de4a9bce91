/*
 * A convolution as a product of matrices: (output pixels, what their windows see) · (that, outputs). A chunk of pixels is gathered and
 * multiplied by one panel of 16 outputs after the other; a linear op is a convolution whose window is the whole plane. Where there are few
 * chunks threads share the panels of one.
 *
 * The instruction takes uint8 and int8 and adds two products in 16 bits. So
 *
 *	- inputs of int8 are gathered as x + 128, and 128·Σw is taken off the sums;
 *	- of two weights that are added the magnitudes may be 128 together: 255·128 < 2^15. Of those that are more, with the same sign, the
 *	  second is cut, and what was cut off is a weight of its own: the excess. Quads that have any, of any output of half a panel, are
 *	  multiplied a second time, by their excess. Steps are 1/127 of an output's largest weight: in trained networks (seen: detection,
 *	  text) one pair in a hundred and a tenth to a fifth of such quads have an excess, in random ones a third.
 *
 * So sums are exact, and a sub-model answers the same wherever it runs. The formula is int8.c's.
 */
#include "engine/onednn/bytes_private.h"

#include "engine/onednn/int8.h"

#include <errno.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
	CHUNK_BYTES =
		192
		<< 10, /* of gathered values: chosen, with the weights they stay in a second cache of 512 KiB */
	LEAST_CHUNK = 4 * BYTES_TALL, /* chosen: below it, weights are read too often */
	MOST_CHUNK = 20 * BYTES_TALL, /* chosen */
	MOST_PAIR = 128,              /* derived, see above */
	PIECES = 4,                   /* a thread, at least, where there are so many panels: chosen */
	MOST_DEPTH = 66000            /* derived: so many products of 255 and 127 fit 32 bits */
};

struct packed {
	int users;
	int8_t *data;    /* (panels, depth / BYTES_QUAD, BYTES_PANEL, BYTES_QUAD); NULL: none */
	int8_t *excess;  /* (n, BYTES_HALF, BYTES_QUAD) */
	int32_t *quad;   /* (n): of which quads */
	int *excess_at;  /* (2 · panels + 1): from where on those of half a panel are; the last is n */
	float *steps;    /* (out): what 1 of an output's weights stands for */
	int32_t *offset; /* (out, filled to whole panels) */
	uint64_t version;
};

struct bytes {
	struct kernel base;
	struct bytes_cut cut;
	const struct bytes_loops *loops;
	struct packed *packed;
	float *factor, *shift; /* (out, filled to whole panels) */
	uint64_t version;      /* of the parameters that these are made from */
	size_t gathered, own;  /* bytes of scratch: a thread's gathered values; all of a thread */
	int threads;
};

static const struct bytes_loops *find_loops(void)
{
#if defined(__x86_64__)
	if (dnnl_get_effective_cpu_isa() >= dnnl_cpu_isa_avx2)
		return &bytes_avx2;
#endif
	return NULL;
}

bool bytes_here(void)
{
	return find_loops() && !onednn_multiplies_bytes();
}

static int ceiling_of(int a, int b)
{
	return (a + b - 1) / b;
}

/*
 * The rows of a tile are read side by side, a part of BYTES_DEPTH of each: an odd number of such parts from row to row, they are in
 * different sets of the first cache, whose ways are 4 KiB.
 */
static int row_of(int depth)
{
	int parts = ceiling_of(depth, BYTES_DEPTH);

	return depth < BYTES_DEPTH ? depth : (parts | 1) * BYTES_DEPTH;
}

/* The window: a linear op sees the whole plane. */
static void set_window(struct bytes_cut *c, const struct op_desc *d)
{
	bool conv = d->op == OP_conv2d;

	c->n = d->n;
	c->in = d->in;
	c->out = conv ? d->out : (struct extent){d->out.c, 1, 1};
	c->rows = conv ? d->kernel : d->in.h;
	c->columns = conv ? d->kernel_w : d->in.w;
	c->stride = conv ? d->stride : 1;
	c->pad = conv ? d->pad : 0;
	c->pad_w = conv ? d->pad_w : 0;
	c->segment = ceiling_of(c->columns * d->in.c, BYTES_QUAD) * BYTES_QUAD;
	c->depth = c->rows * c->segment;
	c->row = row_of(c->depth);
	c->negative = d->x_type == PRECISION_INT8;
}

static void make_cut(struct bytes_cut *c, const struct op_desc *d, int threads)
{
	int most, pieces = PIECES * threads;

	set_window(c, d);
	most = CHUNK_BYTES / c->row < LEAST_CHUNK ? LEAST_CHUNK : CHUNK_BYTES / c->row;
	most = most > MOST_CHUNK ? MOST_CHUNK : most;
	c->pixels = c->n * c->out.h * c->out.w;
	c->chunks = ceiling_of(c->pixels, most);
	c->chunk = ceiling_of(ceiling_of(c->pixels, c->chunks), BYTES_TALL) * BYTES_TALL;
	c->chunks = ceiling_of(c->pixels, c->chunk);
	c->panels = ceiling_of(c->out.c, BYTES_PANEL);
	c->parts = c->chunks >= pieces ? 1 : ceiling_of(pieces, c->chunks);
	c->parts = c->parts > c->panels ? c->panels : c->parts;
	c->at_once = ceiling_of(c->panels, c->parts);
	c->parts = ceiling_of(c->panels, c->at_once);
}

bool bytes_suits(const struct op_desc *d)
{
	struct bytes_cut c;

	if (!bytes_here() || !precision_steps(d->x_type) || d->y_type == PRECISION_BF16 ||
	    (d->residual && d->x2_type == PRECISION_BF16) || (d->op == OP_conv2d && d->groups != 1))
		return false;
	set_window(&c, d);
	return c.depth <= MOST_DEPTH;
}

static size_t align(size_t size)
{
	return (size + 63) / 64 * 64;
}

static size_t packed_size(const struct bytes_cut *c)
{
	return (size_t)c->panels * (size_t)c->depth * BYTES_PANEL;
}

static void drop_excess(struct packed *p)
{
	free(p->excess);
	free(p->quad);
	p->excess = NULL;
	p->quad = NULL;
}

static void trim(struct kernel *k)
{
	struct bytes *b = (struct bytes *)k;

	onednn_large_free(b->packed->data, packed_size(&b->cut));
	drop_excess(b->packed);
	b->packed->data = NULL;
	b->packed->version = 0;
}

static void destroy(struct kernel *k)
{
	struct bytes *b = (struct bytes *)k;

	if (b->packed && --b->packed->users == 0) {
		trim(k);
		free(b->packed->excess_at);
		free(b->packed->steps);
		free(b->packed->offset);
		free(b->packed);
	}
	free(b->factor);
	free(b);
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

/* What the second of two weights has more than fits. */
static int excess_of(const int8_t *two)
{
	int sum = two[0] + two[1];

	if ((two[0] < 0) != (two[1] < 0))
		return 0;
	return sum > MOST_PAIR ? sum - MOST_PAIR : sum < -MOST_PAIR ? sum + MOST_PAIR : 0;
}

enum { QUAD_OF_HALF = BYTES_HALF * BYTES_QUAD };

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
static int8_t *quad_at(const struct bytes_cut *c, const struct packed *p, int half, int quad)
{
	return p->data + (size_t)(half / 2) * (size_t)c->depth * BYTES_PANEL +
	       (size_t)(2 * quad + half % 2) * QUAD_OF_HALF;
}

static int split(const struct bytes_cut *c, struct packed *p)
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

static int pack(struct bytes *b, const struct op_io *io)
{
	const struct op_desc *d = &b->base.desc;
	const struct bytes_cut *c = &b->cut;
	struct packed *p = b->packed;
	size_t row = onednn_int8_row(d), size = (size_t)d->out.c * row;
	int8_t *weights = onednn_large_new(size);
	int r;

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
		size_t panel = (size_t)(o / BYTES_PANEL) * (size_t)c->depth * BYTES_PANEL;

		p->offset[o] = pack_output(c, weights + (size_t)o * row,
					   p->data + panel + o % BYTES_PANEL * BYTES_QUAD);
	}
	onednn_large_free(weights, size);
	r = split(c, p);
	p->version = r < 0 ? 0 : io->version;
	return r;
}

static void fold(struct bytes *b, const struct op_io *io)
{
	const struct op_desc *d = &b->base.desc;
	float step = precision_steps(d->y_type) ? d->y_step : 1;

	for (int o = 0; o < d->out.c; o++) {
		float shift = d->norm ? onednn_norm_shift(d, io, o) : io->bias ? io->bias[o] : 0;

		b->factor[o] = d->x_step * b->packed->steps[o] / step;
		b->shift[o] = shift / step;
	}
	b->version = io->version;
}

static struct bytes_finish finish_of(const struct bytes *b, const struct op_io *io)
{
	const struct op_desc *d = &b->base.desc;
	bool steps = precision_steps(d->y_type);
	float step = steps ? d->y_step : 1;
	float least = !steps ? -INFINITY : d->y_type == PRECISION_INT8 ? -128 : 0;
	float most = !steps ? INFINITY : d->y_type == PRECISION_INT8 ? 127 : 255;

	return (struct bytes_finish){.offset = b->packed->offset,
				     .factor = b->factor,
				     .shift = b->shift,
				     .residual = io->x2,
				     .y = io->y,
				     .residual_type = d->x2_type,
				     .y_type = d->y_type,
				     .residual_factor =
					     precision_steps(d->x2_type) ? d->x2_step / step : 1 / step,
				     .low = d->relu ? 0 : least,
				     .high = d->relu ? fminf(op_ceiling(d) / step, most) : most};
}

static struct bytes_excess excess_at(const struct packed *p, int half)
{
	int at = p->excess_at[half], n = p->excess_at[half + 1] - at;

	if (n == 0)
		return (struct bytes_excess){0};
	return (struct bytes_excess){
		.at = p->excess + (size_t)at * QUAD_OF_HALF, .quad = p->quad + at, .n = n};
}

/* One chunk with its part of the panels. */
static void run_piece(const struct bytes *b, const struct bytes_finish *f, const struct op_io *io, int piece)
{
	const struct bytes_cut *c = &b->cut;
	int first = piece / c->parts * c->chunk, from = piece % c->parts * c->at_once;
	int n = c->pixels - first < c->chunk ? c->pixels - first : c->chunk;
	int to = from + c->at_once < c->panels ? from + c->at_once : c->panels;
	uint8_t *own = (uint8_t *)io->scratch + (size_t)omp_get_thread_num() * b->own;
	int32_t *sum = (void *)(own + b->gathered);
	const struct packed *p = b->packed;

	b->loops->gather(c, io_bytes(io->x), first, first + n, own);
	for (int panel = from; panel < to; panel++) {
		struct bytes_excess excess[2] = {excess_at(p, 2 * panel), excess_at(p, 2 * panel + 1)};

		b->loops->multiply(c, p->data + (size_t)panel * (size_t)c->depth * BYTES_PANEL, excess, n,
				   own, sum);
		b->loops->finish(c, f, sum, first, n, panel * BYTES_PANEL);
	}
}

static int forward(struct kernel *k, const struct op_io *io)
{
	struct bytes *b = (struct bytes *)k;
	struct bytes_finish f = finish_of(b, io);
	int pieces = b->cut.chunks * b->cut.parts, r;

	if (!b->packed->data || b->packed->version != io->version) {
		r = pack(b, io);
		if (r < 0)
			return r;
	}
	if (b->version != io->version)
		fold(b, io);
#pragma omp parallel for schedule(dynamic, 1) num_threads(b->threads)
	for (int i = 0; i < pieces; i++)
		run_piece(b, &f, io, i);
	return 0;
}

static const struct op_impl bytes = {.destroy = destroy, .trim = trim, .forward = forward};

static int make(struct bytes *b, const struct op_desc *d, struct bytes *sibling)
{
	size_t outputs;

	b->base.desc = *d;
	b->loops = find_loops();
	b->threads = omp_get_max_threads();
	make_cut(&b->cut, d, b->threads);
	outputs = (size_t)b->cut.panels * BYTES_PANEL;
	b->gathered = align((size_t)b->cut.chunk * (size_t)b->cut.row);
	b->own = b->gathered + align((size_t)b->cut.chunk * BYTES_PANEL * sizeof(int32_t));
	b->base.scratch_size = (size_t)b->threads * b->own;
	b->packed = sibling ? sibling->packed : calloc(1, sizeof(*b->packed));
	if (!b->packed)
		return -ENOMEM;
	b->packed->users++;
	if (!sibling) {
		b->packed->steps = calloc(outputs, sizeof(float));
		b->packed->offset = calloc(outputs, sizeof(int32_t));
		b->packed->excess_at = calloc(2 * (size_t)b->cut.panels + 1, sizeof(int));
	}
	b->factor = calloc(2 * outputs, sizeof(float));
	if (!b->factor || !b->packed->steps || !b->packed->offset || !b->packed->excess_at)
		return -ENOMEM;
	b->shift = b->factor + outputs;
	return 0;
}

int bytes_create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err)
{
	struct bytes *b = calloc(1, sizeof(*b));
	int r = b ? make(b, d, (struct bytes *)sibling) : -ENOMEM;

	if (r < 0) {
		if (b)
			destroy(&b->base);
		return err_set(err, ERR_NO_MEMORY, "%s of int8 values", op_info(d->op)->name);
	}
	b->base.impl = &bytes;
	*ret = &b->base;
	return 0;
}
