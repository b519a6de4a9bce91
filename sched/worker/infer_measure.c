/*
 * What the sub-models of an endpoint cost on this device.
 *
 * They are measured one after the other, since each has its weights packed meanwhile. A machine that others share may run at one speed
 * now and at another in a second (measured: 1.6 apart), and what was measured at two speeds can't be compared: the fastest sub-model seemed to be
 * slower than the next one, and was not loaded. So each is run in turn with the first one, and of the pairs
 *
 *	t_i = median(own ÷ first) · median(all runs of the first one)
 */
#include "sched/worker/infer_private.h"

#include "engine/base/clock.h"
#include "engine/image.h"

#include <errno.h>
#include <stdlib.h>

#define WARM       3                   /* packed weights, touched memory, woken threads */
#define RUNS       INFER_PAIRS         /* pairs … */
#define MEASURE_NS INT64_C(1000000000) /* … or as many as this allows, at least one */
#define LONG_NS    INT64_C(50000000)   /* what was in the caches doesn't matter; chosen */

/* Of one sub-model with n instances; of the first one there are no pairs, and own is empty. */
struct series {
	int n;
	int64_t first[RUNS], own[RUNS];
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *list, int n)
{
	qsort(list, (size_t)n, sizeof(list[0]), compare);
	return list[n / 2];
}

int64_t infer_paired_ns(const int64_t *first, const int64_t *own, int n, int64_t first_ns)
{
	double ratio[RUNS];

	n = n < RUNS ? n : RUNS;
	for (int i = 0; i < n; i++)
		ratio[i] = (double)own[i] / (double)(first[i] > 0 ? first[i] : 1);
	return (int64_t)(median(ratio, n) * (double)first_ns);
}

/* A mini-batch, decoding included; 1 at least. */
static int64_t run(struct infer_endpoint *e, int submodel, const struct map *data, int n)
{
	int64_t begin = clock_monotonic_ns(), took;

	infer_run(e, submodel, data, n);
	took = clock_monotonic_ns() - begin;
	return took > 0 ? took : 1;
}

/* The shorter of two: the first one left its data in the caches. */
static int64_t again(struct infer_endpoint *e, int submodel, const struct map *data, int n)
{
	int64_t a = run(e, submodel, data, n), b = a < LONG_NS ? run(e, submodel, data, n) : a;

	return a < b ? a : b;
}

static void measure(struct infer_endpoint *e, int submodel, const struct map *data, int n, struct series *ret)
{
	int64_t start = clock_monotonic_ns();

	for (int i = 0; i < WARM && (i == 0 || clock_monotonic_ns() - start < MEASURE_NS); i++)
		infer_run(e, submodel, data, n);
	for (ret->n = 0; ret->n < RUNS && (ret->n == 0 || clock_monotonic_ns() - start < MEASURE_NS);
	     ret->n++) {
		ret->first[ret->n] = run(e, 0, data, n);
		if (submodel > 0)
			ret->own[ret->n] = again(e, submodel, data, n);
	}
}

/* From the series of all sub-models. */
static void set_times(struct infer_endpoint *e, const struct series *series, bool one)
{
	double all[MAX_SUBMODELS * RUNS];
	int64_t first;
	int n = 0;

	for (int i = 0; i < e->n_submodels; i++)
		for (int k = 0; k < series[i].n; k++)
			all[n++] = (double)series[i].first[k];
	first = (int64_t)median(all, n);
	for (int i = 0; i < e->n_submodels; i++) {
		int64_t ns = i ? infer_paired_ns(series[i].first, series[i].own, series[i].n, first) : first;

		*(one ? &e->submodels[i].time_one_ns : &e->submodels[i].time_ns) = ns > 0 ? ns : 1;
	}
}

/* Noise as PNG of the (first) input's shape: what real instances take to decode depends on their size and format, and
 * the scheduler keeps the times current as they come. */
static int noise_png(const struct infer_endpoint *e, struct buf *ret)
{
	const struct infer_member *m = &e->members[0];
	struct image noise = {.height = m->height, .width = m->width, .channels = m->channels == 1 ? 1 : 3};
	size_t size = (size_t)m->height * (size_t)m->width * (size_t)noise.channels;
	uint32_t random = 1;
	int r;

	noise.pixels = malloc(size);
	if (!noise.pixels)
		return -ENOMEM;
	for (size_t i = 0; i < size; i++)
		noise.pixels[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
	r = image_encode_png(ret, &noise, NULL, 0);
	free(noise.pixels);
	return r;
}

/* One at a time has its weights packed, and the first one. */
static void trim(struct infer_endpoint *e, int submodel)
{
	const struct infer_submodel *s = &e->submodels[submodel], *first = &e->submodels[0];

	for (int i = 0; i < s->n_parts; i++) {
		struct infer_part *part = infer_part(e, s->parts[i]);
		bool keep = false;

		for (int k = 0; k < first->n_parts; k++)
			keep |= infer_part(e, first->parts[k]) == part;
		if (!keep)
			session_trim(part->session);
	}
}

static bool in_use(const struct infer_endpoint *e, int member, int part)
{
	for (int i = 0; i < e->n_submodels; i++)
		for (int k = 0; !e->submodels[i].idle && k < e->submodels[i].n_parts; k++)
			if (e->submodels[i].parts[k].member == member &&
			    e->submodels[i].parts[k].part == part)
				return true;
	return false;
}

static void free_idle(struct infer_endpoint *e)
{
	for (int m = 0; m < e->n_members; m++)
		for (int k = 0; k < e->members[m].n_parts; k++) {
			struct infer_part *part = &e->members[m].parts[k];

			if (in_use(e, m, k))
				continue;
			session_free(part->session);
			part->session = NULL;
		}
}

int infer_submodels_measure(struct infer_endpoint *e, struct err *err)
{
	struct buf png = BUF_INIT;
	struct map *data = calloc((size_t)e->batch, sizeof(*data));
	struct series *full = calloc((size_t)e->n_submodels, sizeof(*full)),
		      *one = calloc((size_t)e->n_submodels, sizeof(*one));
	int r = data && full && one ? noise_png(e, &png) : -ENOMEM;

	for (int i = 0; r == 0 && i < e->batch; i++)
		data[i] = (struct map){.data = (const uint8_t *)png.data, .len = png.len};
	for (int i = 0; r == 0 && i < e->n_submodels; i++) {
		r = infer_submodel_sessions(e, i, err);
		if (r < 0)
			break;
		measure(e, i, data, e->batch, &full[i]);
		measure(e, i, data, 1, &one[i]);
		trim(e, i);
	}
	if (r == 0) {
		set_times(e, full, false);
		set_times(e, one, true);
		infer_submodels_choose(e->submodels, e->n_submodels);
		free_idle(e);
	}
	for (int i = 0; r == 0 && i < e->n_submodels; i++)
		if (!e->submodels[i].idle)
			infer_run(e, i, data, 1); /* packs again: a first mini-batch is as fast as any */
	for (int m = 0; m < e->n_members; m++)
		map_rest(&e->members[m].weights);
	buf_release(&png);
	free(full);
	free(one);
	free(data);
	return r;
}
