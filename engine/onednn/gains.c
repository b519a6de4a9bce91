/*
 * Whether a precision is any faster here. Instructions for it say nothing: vdpbf16ps has twice the rate of f32 on some CPUs, half of
 * it on others (measured on a Xeon of family 6, model 207: 168 GFLOPS against 340, `bench-peak`), and without them oneDNN
 * emulates it or refuses. So one product of matrices is timed in each, as a convolution, once a process, some milliseconds.
 */
#include "engine/onednn/onednn.h"

#include "engine/base/clock.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>

enum { ROWS = 128, DEPTH = 512, COLUMNS = 256, RUNS = 9 };
/* Chosen: what is faster by less may be so by chance, and costs memory and accuracy. */
#define LEAST_GAIN 1.15

/* ROWS pixels of a 1×1 convolution: (ROWS, DEPTH) · (DEPTH, COLUMNS). */
static struct op_desc product_of(enum precision precision)
{
	enum precision type = precision == PRECISION_INT8 ? PRECISION_UINT8 : precision;

	return (struct op_desc){.op = OP_conv2d,
				.n = 1,
				.in = {DEPTH, ROWS, 1},
				.out = {COLUMNS, ROWS, 1},
				.kernel = 1,
				.kernel_w = 1,
				.stride = 1,
				.groups = 1,
				.weight_ld = DEPTH,
				.x_type = type,
				.y_type = type,
				.x_step = 1,
				.y_step = 1};
}

struct product {
	struct kernel *kernel; /* NULL: this precision can't be run */
	struct op_io io;
	float *zeros;
};

static void product_release(struct product *p)
{
	if (p->kernel)
		p->kernel->impl->destroy(p->kernel);
	free(p->zeros);
	free(p->io.scratch);
	*p = (struct product){0};
}

static void product_init(struct product *p, enum precision precision)
{
	struct op_desc d = product_of(precision);

	*p = (struct product){.io.version = 1};
	if (onednn_conv2d.create(&p->kernel, &d, NULL, NULL) < 0) {
		p->kernel = NULL;
		return;
	}
	p->kernel->desc = d;
	if (!p->kernel->impl)
		p->kernel->impl = &onednn_conv2d;
	p->zeros = calloc((size_t)(ROWS + COLUMNS) * DEPTH + (size_t)ROWS * COLUMNS, sizeof(*p->zeros));
	p->io.scratch = aligned_alloc(64, (p->kernel->scratch_size + 64) / 64 * 64);
	p->io.weight = p->zeros;
	p->io.x = p->zeros + (size_t)COLUMNS * DEPTH;
	p->io.y = p->zeros + (size_t)(ROWS + COLUMNS) * DEPTH;
	/* the first run packs the weights */
	if (!p->zeros || !p->io.scratch || p->kernel->impl->forward(p->kernel, &p->io) < 0)
		product_release(p);
}

static void take_time(const struct product *p, double *best)
{
	double start = clock_seconds(), seconds;

	p->kernel->impl->forward(p->kernel, &p->io);
	seconds = clock_seconds() - start;
	if (*best == 0 || seconds < *best)
		*best = seconds;
}

/* How many times as fast it is as f32; 0: it can't be run. In turns, since machines change their speed. */
static double gain_of(enum precision precision)
{
	double f32 = 0, other = 0;
	struct product a, b;

	product_init(&a, PRECISION_F32);
	product_init(&b, precision);
	for (int i = 0; i < RUNS && a.kernel && b.kernel; i++) {
		take_time(&a, &f32);
		take_time(&b, &other);
	}
	product_release(&a);
	product_release(&b);
	return other > 0 ? f32 / other : 0;
}

static bool gain[N_PRECISIONS];

static void measure(void)
{
	int threads = omp_get_max_threads();

	omp_set_num_threads(1);
	for (int p = 0; p < N_PRECISIONS; p++)
		gain[p] = p == PRECISION_F32 || gain_of((enum precision)p) > LEAST_GAIN;
	omp_set_num_threads(threads);
}

bool onednn_gains(enum precision precision)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	if (precision == PRECISION_F32)
		return true;
	pthread_once(&once, measure);
	return gain[precision];
}
