/*
 * conv2d and linear. Weights are packed by a oneDNN reorder straight from the strided view of the full-width
 * array into the format that a primitive prefers; packs are renewed when the parameters' version moves,
 * shared between the batch sizes of a step where they prefer the same format, and dropped by trim. Weight
 * gradients go the other way: into the primitive's format in scratch memory, then by a summing reorder onto
 * the view. A norm that follows a convolution by running statistics is a factor and a shift of each output:
 * its weights are packed times the one, the other becomes the bias.
 */
#include "engine/onednn/int8.h"

#include <errno.h>
#include <omp.h>
#include <stdlib.h>

struct pack {
	int users;
	dnnl_memory_desc_t format;
	dnnl_memory_t view, packed; /* packed has no buffer while `data` is NULL */
	dnnl_primitive_t reorder;
	void *data;
	uint64_t version; /* of the parameters it was made from; 0: none */
	float *steps;     /* (out), of int8 weights; NULL: they are of another type */
};

struct weighted {
	struct kernel base;
	dnnl_primitive_t forward, backward_data, backward_weights, add_weights;
	struct pack *pack, *back_pack; /* weights for forward and for backward_data */
	dnnl_memory_t x, y, bias, dx, dy;
	dnnl_memory_t dw, dw_view, dbias; /* dw and dbias lie in scratch memory */
	dnnl_memory_t scratch[4];         /* of the four primitives */
	dnnl_memory_desc_t dw_format;
	size_t dw_offset, dbias_offset; /* in scratch memory */
	float *folded; /* bias with the norm folded in, and in the sums' steps; NULL: it needs neither */
	dnnl_memory_t factor;
	float *factors; /* of the sums of int8 products; NULL: there are none */
	uint64_t folded_version;
};

static void pack_release(struct pack *p)
{
	if (!p || --p->users > 0)
		return;
	if (p->reorder)
		dnnl_primitive_destroy(p->reorder);
	if (p->view)
		dnnl_memory_destroy(p->view);
	if (p->packed)
		dnnl_memory_destroy(p->packed);
	onednn_large_free(p->data, dnnl_memory_desc_get_size(&p->format));
	free(p->steps);
	free(p);
}

static int make_memory(dnnl_memory_t *ret, const dnnl_memory_desc_t *desc)
{
	int r = 0;

	DNNL_CHECK(dnnl_memory_create(ret, desc, onednn_engine(), DNNL_MEMORY_NONE));
out:
	return r;
}

/*
 * Reorders of small weights take microseconds: a parallel region for each (a network has three a layer)
 * would cost more than it saves, and on a busy machine waits for a thread that is not running. oneDNN takes
 * the thread count both when a primitive is made and when it runs.
 */
static int reorder_threads(const dnnl_memory_desc_t *desc)
{
	int threads = omp_get_max_threads();

	if (dnnl_memory_desc_get_size(desc) <= 1 << 18)
		omp_set_num_threads(1);
	return threads;
}

/* from → to, or to += from. Its scratchpad is oneDNN's own: these reorders need none. */
static int make_reorder(dnnl_primitive_t *ret, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
			bool sum)
{
	dnnl_primitive_attr_t attr = NULL;
	dnnl_post_ops_t after = NULL;
	dnnl_primitive_desc_t desc = NULL;
	int threads = reorder_threads(sum ? from : to), r = 0;

	DNNL_CHECK(dnnl_primitive_attr_create(&attr));
	if (sum) {
		DNNL_CHECK(dnnl_post_ops_create(&after));
		DNNL_CHECK(dnnl_post_ops_append_sum(after, 1.0f));
		DNNL_CHECK(dnnl_primitive_attr_set_post_ops(attr, after));
	}
	DNNL_CHECK(
		dnnl_reorder_primitive_desc_create(&desc, from, onednn_engine(), to, onednn_engine(), attr));
	DNNL_CHECK(dnnl_primitive_create(ret, desc));
out:
	omp_set_num_threads(threads);
	if (desc)
		dnnl_primitive_desc_destroy(desc);
	if (after)
		dnnl_post_ops_destroy(after);
	if (attr)
		dnnl_primitive_attr_destroy(attr);
	return r;
}

static int run(dnnl_primitive_t primitive, const dnnl_exec_arg_t *args, int n)
{
	int r = 0;

	DNNL_CHECK(dnnl_primitive_execute(primitive, onednn_stream(), n, args));
out:
	return r;
}

static int pack_get(struct pack **ret, const struct op_desc *d, const dnnl_memory_desc_t *view,
		    const dnnl_memory_desc_t *format, struct pack *const *candidates, int n)
{
	struct pack *p;
	int r = 0;

	for (int i = 0; i < n; i++)
		if (candidates[i] && dnnl_memory_desc_equal(&candidates[i]->format, format)) {
			candidates[i]->users++;
			*ret = candidates[i];
			return 0;
		}
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->users = 1;
	p->format = *format;
	if (precision_steps(d->x_type) && !(p->steps = calloc((size_t)d->out.c, sizeof(*p->steps))))
		r = -ENOMEM;
	if (r == 0)
		r = make_memory(&p->view, view);
	if (r == 0)
		r = make_memory(&p->packed, format);
	if (r == 0)
		r = make_reorder(&p->reorder, view, format, false);
	if (r < 0)
		pack_release(p);
	else
		*ret = p;
	return r;
}

static size_t folded_size(const struct op_desc *d, bool steps)
{
	return steps ? (size_t)d->out.c * onednn_int8_row(d)
		     : (size_t)(d->out.c * d->weight_ld) * sizeof(float);
}

/* Weights as they are packed where they aren't the parameters themselves: steps, or the rows of the slice, each times its norm's
 * factor, at the same strides; large_free it. */
static void *fold_weight(const struct pack *p, const struct op_desc *d, const struct op_io *io)
{
	float *folded = onednn_large_new(folded_size(d, p->steps));

	if (p->steps) {
		if (folded)
			onednn_int8_weights(d, io, (int8_t *)(void *)folded, p->steps);
		return folded;
	}
	for (int o = 0; folded && o < d->out.c; o++) {
		float factor = onednn_norm_factor(d, io, o);

		for (int64_t j = o * d->weight_ld; j < (o + 1) * d->weight_ld; j++)
			folded[j] = factor * io->weight[j];
	}
	return folded;
}

static void fold_bias(struct weighted *w, const struct op_io *io)
{
	const struct op_desc *d = &w->base.desc;

	if ((!w->folded && !w->factors) || w->folded_version == io->version)
		return;
	if (w->factors)
		onednn_int8_factors(d, io, w->pack->steps, w->factors, w->folded);
	for (int o = 0; o < d->out.c && !w->factors; o++)
		w->folded[o] = onednn_norm_shift(d, io, o);
	w->folded_version = io->version;
}

static int pack_renew(struct pack *p, const struct op_desc *d, const struct op_io *io)
{
	dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, p->view}, {DNNL_ARG_TO, p->packed}};
	const void *weight = io->weight;
	void *folded = NULL;
	int threads, r = 0;

	if (p->version == io->version)
		return 0;
	if (d->norm || p->steps) {
		weight = folded = fold_weight(p, d, io);
		if (!folded)
			return -ENOMEM;
	}
	if (!p->data) {
		p->data = onednn_large_new(dnnl_memory_desc_get_size(&p->format));
		if (!p->data) {
			r = -ENOMEM;
			goto out;
		}
		DNNL_CHECK(dnnl_memory_set_data_handle(p->packed, p->data));
	}
	/* oneDNN's handles are not const, its reorder only reads this one */
	DNNL_CHECK(dnnl_memory_set_data_handle(p->view, (void *)(uintptr_t)weight));
	threads = reorder_threads(&p->format);
	r = run(p->reorder, args, 2);
	omp_set_num_threads(threads);
	if (r == 0)
		p->version = io->version;
out:
	onednn_large_free(folded, folded ? folded_size(d, p->steps) : 0);
	return r;
}

static const dnnl_memory_desc_t *query(dnnl_primitive_desc_t pd, dnnl_query_t what)
{
	return dnnl_primitive_desc_query_md(pd, what, 0);
}

static size_t align(size_t size)
{
	return (size + 63) / 64 * 64;
}

/* The primitive, and memory objects for it that have no place yet. */
static int make_primitive(struct weighted *w, dnnl_primitive_t *ret, dnnl_memory_t *ret_scratch,
			  dnnl_primitive_desc_t pd)
{
	const dnnl_memory_desc_t *scratch = query(pd, dnnl_query_scratchpad_md);
	size_t size = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
	int r = 0;

	DNNL_CHECK(dnnl_primitive_create(ret, pd));
	if (align(size) > w->base.scratch_size)
		w->base.scratch_size = align(size);
	if (size)
		r = make_memory(ret_scratch, scratch);
out:
	return r;
}

/* What only int8 products need. */
static int make_steps(struct weighted *w, const struct op_desc *d)
{
	dnnl_memory_desc_t format;
	int r;

	if (!precision_steps(d->x_type))
		return 0;
	w->factors = calloc((size_t)d->out.c, sizeof(*w->factors));
	if (!w->factors)
		return -ENOMEM;
	r = onednn_int8_factor_format(&format, d);
	return r < 0 ? r : make_memory(&w->factor, &format);
}

static int make_all(struct weighted *w, const struct op_desc *d, struct weighted *sibling,
		    const struct weighted_descs *descs)
{
	struct pack *candidates[] = {sibling ? sibling->pack : NULL, sibling ? sibling->back_pack : NULL,
				     NULL};
	dnnl_primitive_desc_t forward = descs->forward, weights = descs->backward_weights;
	int r;

	if ((r = make_primitive(w, &w->forward, &w->scratch[0], forward)) < 0 ||
	    (r = make_memory(&w->x, query(forward, dnnl_query_src_md))) < 0 ||
	    (r = make_memory(&w->y, query(forward, dnnl_query_dst_md))) < 0 ||
	    ((d->bias || d->norm) &&
	     (r = make_memory(&w->bias, dnnl_primitive_desc_query_md(forward, dnnl_query_weights_md, 1))) <
		     0) ||
	    (r = pack_get(&w->pack, d, &descs->weight_view, query(forward, dnnl_query_weights_md), candidates,
			  2)) < 0)
		return r;
	if ((r = make_steps(w, d)) < 0)
		return r;
	if ((d->norm || (w->factors && d->bias)) && !(w->folded = malloc((size_t)d->out.c * sizeof(float))))
		return -ENOMEM;
	if (!d->training)
		return 0;
	r = make_memory(&w->dy, query(forward, dnnl_query_dst_md));
	if (r == 0 && descs->backward_data) {
		candidates[2] = w->pack;
		if ((r = make_primitive(w, &w->backward_data, &w->scratch[1], descs->backward_data)) < 0 ||
		    (r = make_memory(&w->dx, query(descs->backward_data, dnnl_query_diff_src_md))) < 0)
			return r;
		r = pack_get(&w->back_pack, d, &descs->weight_view,
			     query(descs->backward_data, dnnl_query_weights_md), candidates, 3);
	}
	if (r < 0 || !weights)
		return r;
	if ((r = make_primitive(w, &w->backward_weights, &w->scratch[2], weights)) < 0 ||
	    (r = make_memory(&w->dw, query(weights, dnnl_query_diff_weights_md))) < 0 ||
	    (r = make_memory(&w->dw_view, &descs->weight_view)) < 0 ||
	    (d->bias && (r = make_memory(&w->dbias, dnnl_primitive_desc_query_md(
							    weights, dnnl_query_diff_weights_md, 1))) < 0))
		return r;
	w->dw_format = *query(weights, dnnl_query_diff_weights_md);
	w->dw_offset = w->base.scratch_size;
	w->dbias_offset = w->dw_offset + align(dnnl_memory_desc_get_size(&w->dw_format));
	w->base.scratch_size = w->dbias_offset + align((size_t)d->out.c * sizeof(float));
	return make_reorder(&w->add_weights, query(weights, dnnl_query_diff_weights_md), &descs->weight_view,
			    true);
}

int weighted_create(struct kernel **ret, const struct op_desc *desc, struct kernel *sibling,
		    struct weighted_descs *descs, struct err *err)
{
	struct weighted *w = calloc(1, sizeof(*w));
	int r = -ENOMEM;

	if (w)
		r = make_all(w, desc, (struct weighted *)sibling, descs);
	if (descs->forward)
		dnnl_primitive_desc_destroy(descs->forward);
	if (descs->backward_data)
		dnnl_primitive_desc_destroy(descs->backward_data);
	if (descs->backward_weights)
		dnnl_primitive_desc_destroy(descs->backward_weights);
	if (r < 0) {
		if (w)
			weighted_destroy(&w->base);
		return err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_UNSUPPORTED_OP, "onednn %s",
			       op_info(desc->op)->name);
	}
	*ret = &w->base;
	return 0;
}

void weighted_destroy(struct kernel *k)
{
	struct weighted *w = (struct weighted *)k;
	dnnl_memory_t memories[] = {w->x,          w->y,          w->bias,       w->dx,
				    w->dy,         w->dw,         w->dw_view,    w->dbias,
				    w->scratch[0], w->scratch[1], w->scratch[2], w->factor};
	dnnl_primitive_t primitives[] = {w->forward, w->backward_data, w->backward_weights, w->add_weights};

	for (size_t i = 0; i < sizeof(memories) / sizeof(memories[0]); i++)
		if (memories[i])
			dnnl_memory_destroy(memories[i]);
	for (size_t i = 0; i < sizeof(primitives) / sizeof(primitives[0]); i++)
		if (primitives[i])
			dnnl_primitive_destroy(primitives[i]);
	pack_release(w->pack);
	pack_release(w->back_pack);
	free(w->folded);
	free(w->factors);
	free(w);
}

static void pack_trim(struct pack *p)
{
	if (!p)
		return;
	onednn_large_free(p->data, dnnl_memory_desc_get_size(&p->format));
	p->data = NULL;
	p->version = 0;
}

void weighted_trim(struct kernel *k)
{
	pack_trim(((struct weighted *)k)->pack);
	pack_trim(((struct weighted *)k)->back_pack);
}

enum { MOST_ARGUMENTS = 6 };

struct argument {
	int what;
	dnnl_memory_t memory;
	const void *data; /* NULL: the memory has its place already */
};

/* Runs a primitive with the arguments that have a memory. */
static int execute(dnnl_primitive_t primitive, const struct argument *arguments, int n)
{
	dnnl_exec_arg_t args[MOST_ARGUMENTS];
	int n_args = 0, r = 0;

	for (int i = 0; i < n; i++) {
		if (!arguments[i].memory)
			continue;
		if (arguments[i].data)
			DNNL_CHECK(dnnl_memory_set_data_handle(arguments[i].memory,
							       (void *)(uintptr_t)arguments[i].data));
		args[n_args++] = (dnnl_exec_arg_t){arguments[i].what, arguments[i].memory};
	}
	r = run(primitive, args, n_args);
out:
	return r;
}

int weighted_forward(struct kernel *k, const struct op_io *io)
{
	struct weighted *w = (struct weighted *)k;
	const struct argument arguments[] = {
		{DNNL_ARG_SRC, w->x, io->x},
		{DNNL_ARG_WEIGHTS, w->pack->packed, NULL},
		{DNNL_ARG_BIAS, w->bias, w->folded ? w->folded : io->bias},
		{DNNL_ARG_DST, w->y, io->y},
		{DNNL_ARG_SCRATCHPAD, w->scratch[0], io->scratch},
		{DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, w->factor, w->factors}};
	int r = pack_renew(w->pack, &k->desc, io);

	if (r == 0)
		fold_bias(w, io);
	if (k->desc.residual && io->x2 != io->y)
		onednn_residual(k, io);
	return r < 0 ? r : execute(w->forward, arguments, MOST_ARGUMENTS);
}

int weighted_backward(struct kernel *k, const struct op_io *io)
{
	struct weighted *w = (struct weighted *)k;
	char *scratch = io->scratch;
	int r = 0;

	onednn_relu_before(&k->desc, io->y, io->dy);
	if (io->dweight && w->backward_weights) {
		const struct argument arguments[] = {
			{DNNL_ARG_SRC, w->x, io->x},
			{DNNL_ARG_DIFF_DST, w->dy, io->dy},
			{DNNL_ARG_DIFF_WEIGHTS, w->dw, scratch + w->dw_offset},
			{DNNL_ARG_DIFF_BIAS, w->dbias, scratch + w->dbias_offset},
			{DNNL_ARG_SCRATCHPAD, w->scratch[2], scratch}};
		const struct argument sum[] = {{DNNL_ARG_FROM, w->dw, NULL},
					       {DNNL_ARG_TO, w->dw_view, io->dweight}};

		r = execute(w->backward_weights, arguments, 5);
		if (r == 0) {
			int threads = reorder_threads(&w->dw_format);

			r = execute(w->add_weights, sum, 2);
			omp_set_num_threads(threads);
		}
		if (r == 0 && io->dbias)
			onednn_add_to(io->dbias, (float *)(void *)(scratch + w->dbias_offset),
				      (size_t)k->desc.out.c);
	}
	if (r == 0 && io->dx) {
		const struct argument arguments[] = {{DNNL_ARG_DIFF_DST, w->dy, io->dy},
						     {DNNL_ARG_WEIGHTS, w->back_pack->packed, NULL},
						     {DNNL_ARG_DIFF_SRC, w->dx, io->dx},
						     {DNNL_ARG_SCRATCHPAD, w->scratch[1], scratch}};

		r = pack_renew(w->back_pack, &k->desc, io);
		if (r == 0)
			r = execute(w->backward_data, arguments, 4);
	}
	return r;
}
