/*
 * How the work is cut. A block of tiles is transformed, x whole and dy a chunk of channels after the other, and
 * multiplied onto the sum of its spots, (SPOTS, in, out): four times as large as weights, so threads first share out the
 * input channels, each with a part of one sum, and only what is left over shares out the tiles and sums apart.
 *
 * Where there are few tiles they are one block: then a chunk's sum is done with at once, and no sum is kept whole.
 */
#include "engine/onednn/winograd_gradient.h"

#include "engine/onednn/winograd_private.h"

#include <errno.h>
#include <omp.h>
#include <stdlib.h>

enum {
	APART = 16,      /* elements between spots, as in winograd.c */
	CHUNK = 64,      /* channels of dy, chosen: a block of them stays in the second-level cache */
	CACHE = 1 << 20, /* bytes of a block, transformed, chosen: half of such a cache */
	LEAST = 48,      /* tiles of a block, chosen: it is read and written for each what is summed */
	FEW = 256,       /* tiles that are one block, chosen */
	SHARE = 64 /* input channels, chosen: with fewer, transforming dy again for each share takes longer */
};

struct winograd_gradient {
	struct winograd_shape shape;
	const struct winograd_loops *loops;
	int tiles;
	int block;         /* tiles */
	int shares, parts; /* of the input channels, of the tiles: a thread each */
	bool few;
	size_t sum, own; /* elements in scratch memory: of each part's sum, of each thread */
	float *zeros;    /* (in or out): what lies around a plane */
};

/* (SPOTS, rows, columns) in scratch memory. */
struct spots {
	float *at;
	size_t columns, next; /* from one row to the next, from one spot to the next */
};

static size_t spots_size(int rows, int columns)
{
	return SPOTS * ((size_t)rows * (size_t)columns + APART);
}

/* Returns what follows. */
static float *spots_at(struct spots *s, float *at, int rows, int columns)
{
	*s = (struct spots){
		.at = at, .columns = (size_t)columns, .next = (size_t)rows * (size_t)columns + APART};
	return at + spots_size(rows, columns);
}

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

static int larger(int a, int b)
{
	return a > b ? a : b;
}

/* The first channel of a share. */
static int share_at(const struct winograd_gradient *g, int share)
{
	int64_t vectors = g->shape.in / g->loops->lanes;

	return (int)(vectors * share / g->shares) * g->loops->lanes;
}

static int largest_share(const struct winograd_gradient *g)
{
	int largest = 0;

	for (int share = 0; share < g->shares; share++)
		largest = larger(largest, share_at(g, share + 1) - share_at(g, share));
	return largest;
}

static void make_cut(struct winograd_gradient *g, const struct winograd_shape *shape)
{
	int threads = omp_get_max_threads(), share, fit;

	g->shape = *shape;
	g->loops = winograd_find_loops();
	g->tiles = shape->n * winograd_tiles(shape->h) * winograd_tiles(shape->w);
	g->few = g->tiles <= FEW;
	g->shares = smaller(larger(shape->in / (g->few ? g->loops->lanes : SHARE), 1), threads);
	g->parts = g->few ? 1 : smaller(threads / g->shares, g->tiles);
	share = largest_share(g);
	fit = CACHE / (SPOTS * (int)sizeof(float) * (share + CHUNK));
	g->block = g->few ? g->tiles : larger(fit, LEAST);
	g->sum = g->few ? 0 : spots_size(shape->in, shape->out);
	g->own = spots_size(g->block, share) + spots_size(g->block, CHUNK) +
		 (g->few ? spots_size(share, CHUNK) : 0);
}

int winograd_gradient_new(struct winograd_gradient **ret, const struct winograd_shape *shape)
{
	struct winograd_gradient *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	make_cut(g, shape);
	g->zeros = calloc((size_t)larger(shape->in, shape->out), sizeof(float));
	if (!g->zeros) {
		winograd_gradient_free(g);
		return -ENOMEM;
	}
	*ret = g;
	return 0;
}

void winograd_gradient_free(struct winograd_gradient *g)
{
	if (!g)
		return;
	free(g->zeros);
	free(g);
}

size_t winograd_gradient_scratch(const struct winograd_gradient *g)
{
	return ((size_t)g->parts * g->sum + (size_t)(g->shares * g->parts) * g->own) * sizeof(float);
}

/* What one thread does. */
struct job {
	const struct winograd_gradient *g;
	const float *x, *dy;
	float *dweight;
	int64_t ld;
	int channel, in; /* of x: its share */
	float *own;
};

/* Tiles first … end-1; returns what of the thread's memory follows. */
static float *transform_x(const struct job *job, int first, int end, struct spots *v)
{
	const struct winograd_gradient *g = job->g;
	const float *p[SPOTS];
	float *rest = spots_at(v, job->own, g->block, job->in);

	for (int t = first; t < end; t++) {
		winograd_pixels(p, &g->shape, job->x, g->shape.in, t, PATCH, 1, job->channel, g->zeros);
		g->loops->input_tile(v->at + (size_t)(t - first) * v->columns, v->next, p, job->in);
	}
	return rest;
}

/* Those tiles' channels of dy from o on, times v: sum (in, width) = or += that. */
static void multiply_dy(const struct job *job, int first, int end, int o, const struct spots *v,
			const struct spots *sum, bool add, float *space)
{
	const struct winograd_gradient *g = job->g;
	int width = smaller(g->shape.out - o, CHUNK);
	const float *p[TILE * TILE];
	struct spots m;

	spots_at(&m, space, g->block, width);
	for (int t = first; t < end; t++) {
		winograd_pixels(p, &g->shape, job->dy, g->shape.out, t, TILE, 0, o, g->zeros);
		g->loops->gradient_tile(m.at + (size_t)(t - first) * m.columns, m.next, p, width);
	}
	for (size_t i = 0; i < SPOTS; i++)
		g->loops->multiply_transposed(sum->at + i * sum->next, sum->columns, v->at + i * v->next,
					      v->columns, m.at + i * m.next, m.columns, end - first, job->in,
					      width, add);
}

static void add_weights(const struct job *job, const struct spots *sum, int parts, int i, int o)
{
	job->g->loops->add_weights(job->dweight + o * job->ld + (int64_t)i * 9, job->ld, sum->at,
				   sum->columns, sum->next, parts, job->g->sum);
}

static void run_few(const struct job *job)
{
	const struct winograd_gradient *g = job->g;
	int lanes = g->loops->lanes;
	struct spots v, sum;
	float *space = transform_x(job, 0, g->tiles, &v);

	for (int o = 0; o < g->shape.out; o += CHUNK) {
		int width = smaller(g->shape.out - o, CHUNK);
		float *rest = spots_at(&sum, space, job->in, width);

		multiply_dy(job, 0, g->tiles, o, &v, &sum, false, rest);
		for (int i = 0; i < job->in; i += lanes)
			for (int j = 0; j < width; j += lanes) {
				struct spots some = sum;

				some.at += (size_t)i * sum.columns + (size_t)j;
				add_weights(job, &some, 1, job->channel + i, o + j);
			}
	}
}

/* A part of the tiles, onto its sum of all weights. */
static void run_part(const struct job *job, int part, float *sums)
{
	const struct winograd_gradient *g = job->g;
	int first = (int)((int64_t)g->tiles * part / g->parts),
	    end = (int)((int64_t)g->tiles * (part + 1) / g->parts);
	struct spots v, sum;

	spots_at(&sum, sums + (size_t)part * g->sum, g->shape.in, g->shape.out);
	sum.at += (size_t)job->channel * sum.columns;
	for (int t = first; t < end; t += g->block) {
		int last = smaller(t + g->block, end);
		float *rest = transform_x(job, t, last, &v);

		for (int o = 0; o < g->shape.out; o += CHUNK) {
			struct spots some = sum;

			some.at += o;
			multiply_dy(job, t, last, o, &v, &some, t > first, rest);
		}
	}
}

/* The parts' sums, in their order. */
static void join_parts(const struct winograd_gradient *g, const struct job *job, float *sums)
{
	int lanes = g->loops->lanes;

#pragma omp parallel for collapse(2) schedule(static) num_threads(g->shares * g->parts)
	for (int o = 0; o < g->shape.out; o += lanes)
		for (int i = 0; i < g->shape.in; i += lanes) {
			struct spots sum;

			spots_at(&sum, sums, g->shape.in, g->shape.out);
			sum.at += (size_t)i * sum.columns + (size_t)o;
			add_weights(job, &sum, g->parts, i, o);
		}
}

void winograd_gradient_run(const struct winograd_gradient *g, const float *x, const float *dy, float *dweight,
			   int64_t ld, void *scratch)
{
	const struct job all = {.g = g, .x = x, .dy = dy, .dweight = dweight, .ld = ld};
	float *sums = scratch, *owns = sums + (size_t)g->parts * g->sum;

#pragma omp parallel for schedule(static, 1) num_threads(g->shares * g->parts)
	for (int thread = 0; thread < g->shares * g->parts; thread++) {
		int share = thread % g->shares;
		struct job job = all;

		job.channel = share_at(g, share);
		job.in = share_at(g, share + 1) - job.channel;
		job.own = owns + (size_t)thread * g->own;
		if (g->few)
			run_few(&job);
		else
			run_part(&job, thread / g->shares, sums);
	}
	if (!g->few)
		join_parts(g, &all, sums);
}
