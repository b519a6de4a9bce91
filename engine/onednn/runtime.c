#include "engine/onednn/int8.h"

#include "engine/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LARGE = 128 << 10 }; /* bytes, chosen: where malloc begins to do so, too, before it learns */

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void start(void)
{
	int r = 0;

	/* A network's equal layers share code, which needs few; more would keep the code of sessions that are gone. */
	DNNL_CHECK(dnnl_set_primitive_cache_capacity(64));
	DNNL_CHECK(dnnl_engine_create(&engine, dnnl_cpu, 0));
	DNNL_CHECK(dnnl_stream_create(&stream, engine, dnnl_stream_in_order));
out:
	(void)r; /* later calls fail with a NULL engine and say so */
}

static void start_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, start);
}

dnnl_engine_t onednn_engine(void)
{
	start_once();
	return engine;
}

dnnl_stream_t onednn_stream(void)
{
	start_once();
	return stream;
}

int onednn_error(dnnl_status_t status, const char *call)
{
	if (status == dnnl_unimplemented)
		return -EOPNOTSUPP;
	if (status == dnnl_out_of_memory)
		return -ENOMEM;
	log_error("oneDNN: status %d from %s", (int)status, call);
	return -EIO;
}

void *onednn_large_new(size_t size)
{
	void *p;

	if (size < LARGE)
		return aligned_alloc(64, (size + 64) / 64 * 64);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void onednn_large_free(void *p, size_t size)
{
	if (size < LARGE)
		free(p);
	else if (p)
		munmap(p, size);
}

/* What a forward primitive does after its sums, in steps of y where that has any. */
static int append_post_ops(dnnl_post_ops_t *ret, const struct op_desc *d)
{
	bool steps = precision_steps(d->y_type);
	float one = steps ? 1 / d->y_step : 1;
	dnnl_memory_desc_t factor;
	int r = 0;

	DNNL_CHECK(dnnl_post_ops_create(ret));
	if (precision_steps(d->x_type)) {
		r = onednn_int8_factor_format(&factor, d);
		if (r < 0)
			goto out;
		DNNL_CHECK(dnnl_post_ops_append_binary(*ret, dnnl_binary_mul, &factor));
	}
	if (d->residual && steps)
		DNNL_CHECK(dnnl_post_ops_append_sum_v2(*ret, one * d->x2_step, onednn_type(d->x2_type)));
	else if (d->residual)
		DNNL_CHECK(dnnl_post_ops_append_sum(*ret, 1.0f));
	if (d->relu && d->ceiling > 0)
		DNNL_CHECK(
			dnnl_post_ops_append_eltwise(*ret, 1.0f, dnnl_eltwise_clip, 0.0f, one * d->ceiling));
	else if (d->relu)
		DNNL_CHECK(dnnl_post_ops_append_eltwise(*ret, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f));
out:
	return r;
}

int onednn_describe(dnnl_primitive_desc_t *ret, const_dnnl_op_desc_t what, const struct op_desc *d,
		    dnnl_primitive_desc_t hint, const char *avoid)
{
	dnnl_primitive_attr_t attr = NULL;
	dnnl_post_ops_t after = NULL;
	dnnl_primitive_desc_iterator_t it = NULL;
	dnnl_primitive_desc_t pd = NULL;
	const char *implementation;
	int r = 0;

	DNNL_CHECK(dnnl_primitive_attr_create(&attr));
	DNNL_CHECK(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
	if (d) {
		r = append_post_ops(&after, d);
		if (r < 0)
			goto out;
		DNNL_CHECK(dnnl_primitive_attr_set_post_ops(attr, after));
	}
	if (d && precision_steps(d->x_type))
		avoid = "ref"; /* it is no faster than f32 */
	DNNL_CHECK(dnnl_primitive_desc_iterator_create(&it, what, attr, onednn_engine(), hint));
	for (;;) {
		pd = dnnl_primitive_desc_iterator_fetch(it);
		DNNL_CHECK(pd ? dnnl_success : dnnl_out_of_memory);
		DNNL_CHECK(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &implementation));
		if (!avoid || strncmp(implementation, avoid, strlen(avoid)) != 0)
			break;
		dnnl_primitive_desc_destroy(pd);
		pd = NULL;
		if (dnnl_primitive_desc_iterator_next(it) != dnnl_success) {
			r = -EOPNOTSUPP;
			goto out;
		}
	}
	*ret = pd;
	pd = NULL;
out:
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	if (it)
		dnnl_primitive_desc_iterator_destroy(it);
	if (after)
		dnnl_post_ops_destroy(after);
	if (attr)
		dnnl_primitive_attr_destroy(attr);
	return r;
}
