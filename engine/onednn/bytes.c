/*
 * A convolution as a product of matrices: (output pixels, what their windows see) · (that, outputs). A chunk of pixels is gathered and
 * multiplied by one panel of 16 outputs after the other; a linear op is a convolution whose window is the whole plane. Where there are few
 * chunks threads share the panels of one. Inputs of int8 are gathered as x + 128, since the instruction takes uint8 there, and 128·Σw is
 * taken off the sums. How weights are kept: bytes_pack.c. The formula is int8.c's.
 */
#include "engine/onednn/bytes_private.h"

#include "engine/onednn/int8.h"

#include <errno.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* Of gathered values: chosen, with the weights they stay in a second cache of 512 KiB. */
	CHUNK_BYTES = 192 << 10,
	LEAST_CHUNK = 4 * BYTES_TALL, /* chosen: below it, weights are read too often */
	MOST_CHUNK = 20 * BYTES_TALL, /* chosen */
	PIECES = 4,                   /* a thread, at least, where there are so many panels: chosen */
	MOST_DEPTH = 66000            /* derived: so many products of 255 and 127 fit 32 bits */
};

struct bytes {
	struct kernel base;
	struct bytes_cut cut;
	const struct bytes_loops *loops;
	struct bytes_packed *packed;
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
	c->depthwise = conv && d->groups > 1;
	c->segment = ceiling_of(c->columns * (c->depthwise ? 1 : d->in.c), BYTES_QUAD) * BYTES_QUAD;
	c->depth = c->rows * c->segment;
	c->row = row_of(c->depth);
	c->negative = d->x_type == PRECISION_INT8;
	c->direct = c->rows * c->columns == 1 && c->stride == 1 && !c->pad && !c->pad_w && !c->negative &&
		    c->depth == d->in.c && c->depth <= BYTES_DEPTH;
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
	    (d->residual && d->x2_type == PRECISION_BF16))
		return false;
	if (d->op == OP_conv2d && d->groups > 1)
		return d->groups == d->in.c && d->groups == d->out.c && d->kernel * d->kernel_w <= BYTES_TAPS;
	if (onednn_int8_row(d) > MOST_DEPTH)
		return false; /* before anything is multiplied in 32 bits */
	set_window(&c, d);
	return c.depth <= MOST_DEPTH;
}

static size_t align(size_t size)
{
	return (size + 63) / 64 * 64;
}

static void trim(struct kernel *k)
{
	struct bytes *b = (struct bytes *)k;

	bytes_pack_drop(b->packed, &b->cut);
}

static void destroy(struct kernel *k)
{
	struct bytes *b = (struct bytes *)k;

	bytes_pack_release(b->packed, &b->cut);
	free(b->factor);
	free(b);
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

static void multiply(const struct bytes *b, int panel, const int8_t *weights, int n, const uint8_t *from,
		     int32_t *sum)
{
	const struct bytes_excess excess[2] = {bytes_excess_at(b->packed, 2 * panel),
					       bytes_excess_at(b->packed, 2 * panel + 1)};

	b->loops->multiply(&b->cut, weights, excess, n, from, sum);
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
	const uint8_t *x = io_bytes(io->x), *gathered = own;

	if (c->direct)
		gathered = x + (size_t)first * (size_t)c->in.c;
	else if (!c->depthwise)
		b->loops->gather(c, x, first, first + n, own);
	for (int panel = from; panel < to; panel++) {
		const int8_t *weights = bytes_panel_at(b->packed, c, panel);

		if (c->depthwise)
			b->loops->depthwise(c, x, first, n, panel * BYTES_PANEL,
					    (const int16_t *)(const void *)weights, sum);
		else
			multiply(b, panel, weights, n, gathered, sum);
		b->loops->finish(c, f, sum, first, n, panel * BYTES_PANEL);
	}
}

static int forward(struct kernel *k, const struct op_io *io)
{
	struct bytes *b = (struct bytes *)k;
	struct bytes_finish f = finish_of(b, io);
	int pieces = b->cut.chunks * b->cut.parts, r;

	r = bytes_pack(b->packed, &b->cut, &k->desc, io);
	if (r < 0)
		return r;
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
	if (sibling) {
		b->packed = sibling->packed;
		b->packed->users++;
	} else if (bytes_packed_new(&b->packed, &b->cut) < 0) {
		return -ENOMEM;
	}
	b->factor = calloc(2 * outputs, sizeof(float));
	if (!b->factor)
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
