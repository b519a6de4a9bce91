/*
 * Whether a precision is any faster here. Instructions for it say nothing: vdpbf16ps has twice the rate of f32 on some CPUs, half of
 * it on others (measured on a Xeon of family 6, model 207: 168 GFLOPS against 340, `bench-peak`), and without them oneDNN
 * emulates it or refuses. So one product of matrices is timed in each, once a process, some milliseconds.
 */
#include "engine/onednn/int8.h"

#include "engine/base/clock.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>

enum { ROWS = 128, DEPTH = 512, COLUMNS = 256, RUNS = 9 };
/* Chosen: what is faster by less may be so by chance, and costs memory and accuracy. */
#define LEAST_GAIN 1.15

struct product {
	dnnl_primitive_t primitive;
	dnnl_memory_t memories[3];
	void *data[3];
};

static void product_release(struct product *p)
{
	if (p->primitive)
		dnnl_primitive_destroy(p->primitive);
	for (int i = 0; i < 3; i++) {
		if (p->memories[i])
			dnnl_memory_destroy(p->memories[i]);
		free(p->data[i]);
	}
}

static int product_init(struct product *p, enum precision precision)
{
	dnnl_data_type_t type = onednn_type(precision), x_type = precision_steps(precision) ? dnnl_u8 : type;
	static const dnnl_query_t of[3] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
	dnnl_dims_t x = {ROWS, DEPTH}, w = {DEPTH, COLUMNS}, y = {ROWS, COLUMNS};
	dnnl_memory_desc_t descs[3];
	dnnl_primitive_desc_t pd = NULL;
	dnnl_matmul_desc_t what;
	int r = 0;

	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&descs[0], 2, x, x_type, dnnl_ab));
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&descs[1], 2, w, type, dnnl_format_tag_any));
	DNNL_CHECK(dnnl_memory_desc_init_by_tag(&descs[2], 2, y, x_type, dnnl_ab));
	DNNL_CHECK(dnnl_matmul_desc_init(&what, &descs[0], &descs[1], NULL, &descs[2]));
	DNNL_CHECK(dnnl_primitive_desc_create(&pd, &what, NULL, onednn_engine(), NULL));
	DNNL_CHECK(dnnl_primitive_create(&p->primitive, pd));
	for (int i = 0; i < 3; i++) {
		const dnnl_memory_desc_t *desc = dnnl_primitive_desc_query_md(pd, of[i], 0);
		size_t size = dnnl_memory_desc_get_size(desc);

		p->data[i] = calloc(1, size);
		DNNL_CHECK(p->data[i] ? dnnl_success : dnnl_out_of_memory);
		DNNL_CHECK(dnnl_memory_create(&p->memories[i], desc, onednn_engine(), p->data[i]));
	}
out:
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	return r;
}

/* Seconds of the fastest run; 0: it can't be run. */
static double fastest(enum precision precision)
{
	struct product p = {0};
	double best = 0;
	int r = product_init(&p, precision);

	for (int i = 0; r == 0 && i < RUNS; i++) {
		const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p.memories[0]},
						{DNNL_ARG_WEIGHTS, p.memories[1]},
						{DNNL_ARG_DST, p.memories[2]}};
		double start = clock_seconds(), seconds;

		DNNL_CHECK(dnnl_primitive_execute(p.primitive, onednn_stream(), 3, args));
		seconds = clock_seconds() - start;
		if (best == 0 || seconds < best)
			best = seconds;
	}
out:
	product_release(&p);
	return r < 0 ? 0 : best;
}

static bool gain[N_PRECISIONS];

static void measure(void)
{
	int threads = omp_get_max_threads();
	double f32;

	omp_set_num_threads(1);
	f32 = fastest(PRECISION_F32);
	for (int p = 0; p < N_PRECISIONS; p++) {
		bool can = p != PRECISION_INT8 || onednn_multiplies_bytes();
		double seconds = can ? fastest((enum precision)p) : 0;

		gain[p] = seconds > 0 && f32 > LEAST_GAIN * seconds;
	}
	omp_set_num_threads(threads);
	gain[PRECISION_F32] = true;
}

bool onednn_gains(enum precision precision)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	if (precision == PRECISION_F32)
		return true;
	pthread_once(&once, measure);
	return gain[precision];
}
