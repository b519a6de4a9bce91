/*
 * How the work of a Winograd convolution is cut. A tile of 4×4 outputs takes 36 products a pair of channels instead of 144.
 *
 * Tiles are transformed and multiplied a chunk at a time. Weights are kept as they came, in panels of output channels, and transformed anew
 * for each chunk and panel: they are four times as large afterwards, and every slice keeps its own. By count of instructions that is
 * some 5 % of the products of a chunk of CHUNK tiles.
 *
 * With enough tiles each thread has chunks of its own and waits for nobody; with few, threads transform the tiles
 * together and then share the panels.
 */
#include "engine/onednn/winograd_private.h"

#include "engine/onednn/onednn.h"

#include <errno.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
	CHUNK = 96, /* measured in a trial of its own: 48 to 192 differ by 10 % at most, with 64 to 256 channels */
	APART = 16,   /* elements between spots, else all of them are in one set of a cache */
	CHANNELS = 16 /* measured, batch 128: 1.2 to 1.6 times as fast as oneDNN's direct form, either way */
};
/* Chosen: of multiplications, below which the transforms of tiles are no longer worth it (planes of 1 to 3, or of 5). */
#define LEAST_GAIN 1.5
/* Measured: transforming the weights of a pair of channels takes as long as so many of its products. */
#define TRANSFORM 400

struct packed {
	int users;
	float *data; /* (panels, in, 9, width); NULL: none */
	uint64_t version;
};

struct winograd {
	struct winograd_cut cut;
	struct packed *packed;
	float *zeros;
};

const struct winograd_loops *winograd_find_loops(void)
{
#if defined(__x86_64__)
	if (dnnl_get_effective_cpu_isa() >= dnnl_cpu_isa_avx512_core)
		return &winograd_avx512;
	if (dnnl_get_effective_cpu_isa() >= dnnl_cpu_isa_avx2)
		return &winograd_avx2;
#endif
	return NULL;
}

int winograd_tiles(int side)
{
	return (side + TILE - 1) / TILE;
}

void winograd_pixels(const float **p, const struct winograd_shape *s, const float *values, int channels,
		     int t, int side, int before, int c, const float *zeros)
{
	int columns = winograd_tiles(s->w), plane = winograd_tiles(s->h) * columns;
	int top = t % plane / columns * TILE - before, left = t % columns * TILE - before;
	const float *image = values + (size_t)(t / plane) * (size_t)(s->h * s->w) * (size_t)channels + c;

	for (int i = 0; i < side; i++)
		for (int j = 0; j < side; j++) {
			int h = top + i, w = left + j;
			bool inside = h >= 0 && h < s->h && w >= 0 && w < s->w;

			p[i * side + j] = inside ? image + (size_t)(h * s->w + w) * (size_t)channels : zeros;
		}
}

bool winograd_suits(const struct winograd_shape *s)
{
	const struct winograd_loops *loops = winograd_find_loops();
	double direct = 9.0 * s->n * s->h * s->w;
	double gain = direct / (SPOTS * s->n * winograd_tiles(s->h) * winograd_tiles(s->w) + TRANSFORM);

	return loops && s->in >= CHANNELS && s->out >= CHANNELS && s->in % loops->lanes == 0 &&
	       s->out % loops->lanes == 0 && gain >= LEAST_GAIN;
}

static size_t rounded(size_t elements)
{
	return (elements + 15) / 16 * 16;
}

static void make_cut(struct winograd_cut *c, const struct winograd_shape *shape)
{
	int parts;

	c->shape = *shape;
	c->loops = winograd_find_loops();
	c->rows = winograd_tiles(shape->h);
	c->columns = winograd_tiles(shape->w);
	c->tiles = shape->n * c->rows * c->columns;
	c->threads = omp_get_max_threads();
	c->panel = c->loops->panel < shape->out ? c->loops->panel : shape->out;
	c->panels = (shape->out + c->panel - 1) / c->panel;
	c->by_panels = c->panels >= c->threads && c->tiles < CHUNK * c->threads;
	/* as many chunks as threads, or a multiple */
	parts = (c->tiles + CHUNK * c->threads - 1) / (CHUNK * c->threads) * c->threads;
	c->chunk = c->by_panels ? c->tiles : (c->tiles + parts - 1) / parts;
	c->v_spot = rounded((size_t)c->chunk * (size_t)shape->in) + APART;
	c->m_spot = rounded((size_t)c->chunk * (size_t)c->panel) + APART;
	c->v_size = SPOTS * c->v_spot;
	c->u_size = rounded((size_t)PATCH * (size_t)shape->in * (size_t)c->panel);
	c->m_size = SPOTS * c->m_spot;
}

int winograd_new(struct winograd **ret, const struct winograd_shape *shape, struct winograd *sibling)
{
	struct winograd *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	make_cut(&w->cut, shape);
	w->zeros = calloc((size_t)shape->in, sizeof(float));
	w->cut.zeros = w->zeros;
	w->packed = sibling ? sibling->packed : calloc(1, sizeof(*w->packed));
	if (w->packed)
		w->packed->users++;
	if (!w->zeros || !w->packed) {
		winograd_free(w);
		return -ENOMEM;
	}
	*ret = w;
	return 0;
}

static size_t packed_size(const struct winograd *w)
{
	return 9 * (size_t)w->cut.shape.in * (size_t)w->cut.shape.out * sizeof(float);
}

void winograd_trim(struct winograd *w)
{
	onednn_large_free(w->packed->data, packed_size(w));
	w->packed->data = NULL;
	w->packed->version = 0;
}

void winograd_free(struct winograd *w)
{
	if (!w)
		return;
	if (w->packed && --w->packed->users == 0) {
		winograd_trim(w);
		free(w->packed);
	}
	free(w->zeros);
	free(w);
}

size_t winograd_scratch(const struct winograd *w)
{
	const struct winograd_cut *c = &w->cut;
	size_t own = c->u_size + c->m_size;

	return (c->by_panels ? c->v_size + (size_t)c->threads * own
			     : (size_t)c->threads * (c->v_size + own)) *
	       sizeof(float);
}

/* --- weights --- */

bool winograd_packed(const struct winograd *w, uint64_t version)
{
	return w->packed->data && w->packed->version == version;
}

static int panel_width(const struct winograd_cut *c, int panel)
{
	int left = c->shape.out - panel * c->panel;

	return left < c->panel ? left : c->panel;
}

static size_t panel_at(const struct winograd_cut *c, int panel)
{
	return (size_t)panel * (size_t)c->panel * (size_t)c->shape.in * 9;
}

/* The nine weights of inputs k … of one output, at `to` a row of the panel apart. */
static void pack_output(const struct winograd_shape *s, float *to, int width, const float *weight, int64_t ld,
			int o, float factor)
{
	for (int k = 0; k < s->in; k++)
		for (int q = 0; q < 9; q++) {
			float value =
				s->transposed ? weight[k * ld + o * 9 + (8 - q)] : weight[o * ld + k * 9 + q];

			to[(size_t)(k * 9 + q) * (size_t)width] = factor * value;
		}
}

int winograd_pack(struct winograd *w, const float *weight, int64_t ld, const float *factor, uint64_t version)
{
	const struct winograd_cut *c = &w->cut;
	float *data = w->packed->data;

	if (!data)
		data = onednn_large_new(packed_size(w));
	if (!data)
		return -ENOMEM;
	w->packed->data = data;
	w->packed->version = version;
#pragma omp parallel for schedule(static) if (packed_size(w) > 1 << 18)
	for (int o = 0; o < c->shape.out; o++)
		pack_output(&c->shape, data + panel_at(c, o / c->panel) + o % c->panel,
			    panel_width(c, o / c->panel), weight, ld, o, factor ? factor[o] : 1);
	return 0;
}

/* --- running --- */

/* A thread's own U and M. */
struct place {
	float *u, *m;
};

static struct place place_of(const struct winograd_cut *c, float *scratch, int thread)
{
	float *own = scratch + (size_t)thread * (c->u_size + c->m_size);

	return (struct place){.u = own, .m = own + c->u_size};
}

static void run_panel(const struct winograd *w, const struct winograd_run *run, int panel, int first, int end,
		      const float *v, struct place p)
{
	const struct winograd_cut *c = &w->cut;
	int width = panel_width(c, panel);

	c->loops->multiply(c, w->packed->data + panel_at(c, panel), width, end - first, v, p.u, p.m);
	c->loops->output(c, run, p.m, first, end, panel * c->panel, width);
}

static void run_chunk(const struct winograd *w, const struct winograd_run *run, int chunk, float *v,
		      struct place p)
{
	const struct winograd_cut *c = &w->cut;
	int first = chunk * c->chunk, end = first + c->chunk < c->tiles ? first + c->chunk : c->tiles;

	c->loops->input(c, run->x, first, end, first, v);
	for (int panel = 0; panel < c->panels; panel++)
		run_panel(w, run, panel, first, end, v, p);
}

void winograd_run(const struct winograd *w, const struct winograd_run *run)
{
	const struct winograd_cut *c = &w->cut;
	int chunks = (c->tiles + c->chunk - 1) / c->chunk;
	float *v = run->scratch;
	float *own = v + (c->by_panels ? c->v_size : (size_t)c->threads * c->v_size);

	if (!c->by_panels) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(c->threads)
		for (int i = 0; i < chunks; i++)
			run_chunk(w, run, i, v + (size_t)omp_get_thread_num() * c->v_size,
				  place_of(c, own, omp_get_thread_num()));
		return;
	}
#pragma omp parallel num_threads(c->threads)
	{
#pragma omp for schedule(static)
		for (int t = 0; t < c->tiles; t++)
			c->loops->input(c, run->x, t, t + 1, 0, v);
#pragma omp for schedule(dynamic, 1)
		for (int panel = 0; panel < c->panels; panel++)
			run_panel(w, run, panel, 0, c->tiles, v, place_of(c, own, omp_get_thread_num()));
	}
}
