/*
 * Running one slice of a network. The compiled form (engine/compile.c) is made once; kernels are made for
 * each batch size that occurs: exactly that size when training, else the next of 1 2 3 4 6 8 12 … (so at most
 * a third of the rows is padding, and the memory of kernels stays bounded). All batch sizes share the places
 * of the largest. Where values are larger than a cache, the first steps run for a part of the batch at a time
 * (compiled.split).
 *
 * Layout. Activations are (n, h, w, c) throughout. Measured with oneDNN 2.6.3 on 2 cores: 3×3 convolutions
 * of 16 to 128 channels on 28×28 to 7×7 planes at batch 32 and 128, GFLOPS in nhwc / in the blocked format
 * that oneDNN chooses by itself: AVX-512 forward 259-415 / 195-402, data gradient 264-397 / 183-402, weight
 * gradient 260-375 / 187-364; with AVX2 the two differ by 7 % at most (158-269). nhwc loses most with 16
 * channels forward (10-19 %) and wins most with 24 (35 %); with 8 it is 140 / 180, 172 / 84, 166 / 202. For
 * that, slices, normalisation, losses and Grad-CAM need to know of one layout only.
 */
#include "engine/session.h"

#include "engine/compile.h"
#include "engine/model_private.h"
#include "engine/session_graph.h"
#include "engine/workspace.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

struct variant {
	int n;
	struct kernel **kernels; /* (n_steps) */
};

struct session {
	struct graph_session *graph; /* NULL: what follows counts; else only this, threads and options do */
	struct net *net;
	const struct backend *backend;
	struct session_options options;
	int threads, pixel_channels;
	float *mean, *std; /* of the pixels, by channel */
	struct compiled compiled;
	int n_variants;
	struct variant *variants;
	size_t scratch_size;
	float *ranges; /* where forwards note what they see, (net's nodes); NULL: they don't */
	uint64_t seed;
	uint64_t generation; /* workspace->generation after the last forward */
	int last_n;          /* of that forward; 0: none, or its activations were used up by a backward */
	int last_variant;
};

static float *buffer_at(const struct session *s, int buffer)
{
	return buffer < 0
		       ? NULL
		       : (float *)(s->net->workspace->activations.base + s->compiled.buffers[buffer].offset);
}

static size_t row_size(const struct session *s, int value)
{
	const struct extent *e = &s->compiled.values[value].extent;

	return (size_t)e->c * (size_t)e->h * (size_t)e->w;
}

static float *data_of(const struct session *s, int value)
{
	return buffer_at(s, s->compiled.values[value].data);
}

static float *grad_of(const struct session *s, int value)
{
	return buffer_at(s, s->compiled.values[value].grad);
}

static void variant_release(struct variant *v, int n_steps)
{
	for (int i = 0; v->kernels && i < n_steps; i++)
		kernel_destroy(v->kernels[i]);
	free(v->kernels);
}

static int add_variant(struct session *s, int n, struct err *err)
{
	const struct compiled *c = &s->compiled;
	struct variant *list = realloc(s->variants, (size_t)(s->n_variants + 1) * sizeof(*list));
	struct variant v = {.n = n, .kernels = calloc((size_t)c->n_steps, sizeof(*v.kernels))};
	size_t scratch = s->scratch_size;
	int r = 0;

	if (list)
		s->variants = list;
	if (!list || !v.kernels)
		r = err_set(err, ERR_NO_MEMORY, "kernels for %d instances", n);
	for (int i = 0; r == 0 && i < c->n_steps; i++) {
		struct kernel *sibling = s->n_variants ? list[0].kernels[i] : NULL;
		struct op_desc desc = c->steps[i].desc;

		desc.n = i < c->split ? compiled_part(c, n) : n;
		r = kernel_create(&v.kernels[i], s->backend, &desc, sibling, err);
		if (r == 0 && v.kernels[i]->scratch_size > scratch)
			scratch = v.kernels[i]->scratch_size;
	}
	if (r == 0 && (workspace_area_need(&s->net->workspace->scratch, scratch) < 0))
		r = err_set(err, ERR_NO_MEMORY, "%zu bytes of scratch memory", scratch);
	if (r < 0) {
		variant_release(&v, c->n_steps);
		return r;
	}
	s->scratch_size = scratch;
	s->variants[s->n_variants] = v;
	return s->n_variants++;
}

/* Index of the kernels that run n instances, made if need be. */
static int variant_for(struct session *s, int n)
{
	int size = n;

	if (!s->options.training) {
		for (size = 1; size < n; size *= 2)
			if (size > 1 && size / 2 * 3 >= n) {
				size = size / 2 * 3;
				break;
			}
		if (size > s->options.batch)
			size = s->options.batch;
	}
	for (int i = 0; i < s->n_variants; i++)
		if (s->variants[i].n == size)
			return i;
	return add_variant(s, size, NULL);
}

/* All cores, or what OMP_NUM_THREADS says; OpenMP itself tells only what was set last. */
static int all_threads(void)
{
	const char *text = getenv("OMP_NUM_THREADS");
	int n = text ? atoi(text) : 0;

	return n > 0 ? n : omp_get_num_procs();
}

int session_new_net(struct session **ret, struct net *net, const float *mean, const float *std,
		    const struct backend *backend, const struct session_options *options, struct err *err)
{
	struct compile_options how = {.rate = options->rate,
				      .batch = options->batch,
				      .training = options->training,
				      .gradcam = options->gradcam,
				      .precision = options->precision,
				      .ranges = options->ranges,
				      .backend = backend};
	struct session *s;
	int r;

	if (!net->output || options->batch < 1 || !(options->rate > 0 && options->rate <= 1))
		return err_set(err, ERR_SPEC_VALUE, "a session of batch %d at rate %g", options->batch,
			       (double)options->rate);
	if (options->precision != PRECISION_F32 && options->training)
		return err_set(err, ERR_SPEC_VALUE, "training in %s", precision_name(options->precision));
	if (options->precision == PRECISION_INT8 && !options->ranges)
		return err_set(err, ERR_SPEC_VALUE, "slice %g was not calibrated for int8",
			       (double)options->rate);
	for (int i = 1; i < net->n_nodes; i++)
		if (net->nodes[i].op == OP_batch_norm &&
		    net_batch_norm_set(net, &net->nodes[i], options->rate) < 0)
			return err_set(err, ERR_SPEC_VALUE,
				       "slice %g: this network has a BatchNorm for other rates only",
				       (double)options->rate);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, ERR_NO_MEMORY, "a session");
	s->net = net;
	s->backend = backend;
	s->options = *options;
	s->threads = options->threads > 0 ? options->threads : all_threads();
	omp_set_num_threads(s->threads);
	s->pixel_channels = net->nodes[0].channels;
	s->mean = calloc((size_t)s->pixel_channels * 2, sizeof(float));
	if (!s->mean) {
		r = err_set(err, ERR_NO_MEMORY, "a session");
		goto out;
	}
	s->std = s->mean + s->pixel_channels;
	for (int c = 0; c < s->pixel_channels; c++) {
		s->mean[c] = mean ? mean[c] : 0;
		s->std[c] = std && std[c] > 0 ? std[c] : 1;
	}
	r = compile(&s->compiled, net, &how);
	if (r == 0 && options->training)
		r = params_need_grad(&net->params);
	if (r == 0)
		r = workspace_area_need(&net->workspace->activations, s->compiled.activation_size);
	if (r < 0) {
		err_set(err, ERR_NO_MEMORY, "a network of %zu bytes at batch %d", s->compiled.activation_size,
			options->batch);
		goto out;
	}
	net->workspace->generation++; /* it may have moved */
	r = add_variant(s, options->batch, err);
out:
	if (r < 0)
		session_free(s);
	else
		*ret = s;
	return r < 0 ? r : 0;
}

/* One without a network. */
static int session_new_graph(struct session **ret, const struct model *model,
			     const struct session_options *options, struct err *err)
{
	struct session *s;
	int r;

	if (options->training || options->gradcam)
		return err_set(err, ERR_NO_GRADCAM, "the ONNX interpreter runs it, which has no gradients");
	if (options->precision != PRECISION_F32)
		return err_set(err, ERR_UNSUPPORTED_OP, "%s: the ONNX interpreter runs it, in f32",
			       precision_name(options->precision));
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, ERR_NO_MEMORY, "a session");
	s->options = *options;
	s->threads = options->threads > 0 ? options->threads : all_threads();
	r = graph_session_new(&s->graph, model, err);
	if (r < 0)
		free(s);
	else
		*ret = s;
	return r;
}

int session_new(struct session **ret, struct model *model, const struct backend *backend,
		const struct session_options *options, struct err *err)
{
	const struct model_info *info = &model->info;
	struct session_options how = *options;
	const struct node *output;

	if (!model->net)
		return session_new_graph(ret, model, options, err);
	output = &model->net->nodes[model->net->output];
	if (output->channels != info->classes || model->net->nodes[0].channels != info->channels ||
	    info->channels > (int)(sizeof(info->mean) / sizeof(info->mean[0])))
		return err_set(err, ERR_BAD_MODEL,
			       "%d channels in and %d classes out do not match the network", info->channels,
			       info->classes);
	if (options->precision == PRECISION_INT8 && !options->ranges)
		how.ranges = model_ranges(model, options->rate);
	return session_new_net(ret, model->net, info->mean, info->std, backend, &how, err);
}

bool model_gains(const struct model *model, const struct backend *backend, enum precision precision)
{
	return precision == PRECISION_F32 || (model->net && backend_gains(backend, precision));
}

void session_free(struct session *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->n_variants; i++)
		variant_release(&s->variants[i], s->compiled.n_steps);
	free(s->variants);
	graph_session_free(s->graph);
	compiled_release(&s->compiled);
	free(s->mean);
	free(s);
}

void session_trim(struct session *s)
{
	for (int i = 0; i < s->n_variants; i++)
		for (int k = 0; k < s->compiled.n_steps; k++)
			kernel_trim(s->variants[i].kernels[k]);
}

struct session_stats session_stats(const struct session *s)
{
	return (struct session_stats){.activations = s->compiled.activation_size,
				      .scratch = s->scratch_size,
				      .steps = s->compiled.n_steps,
				      .variants = s->n_variants,
				      .part = s->compiled.part};
}

void session_set_seed(struct session *s, uint64_t seed)
{
	s->seed = seed;
}

/* `first`: of the instances that a step before the split runs. */
static struct op_io io_of(const struct session *s, const struct step *step, int first)
{
	const struct params *p = &s->net->params;
	const struct param *weight = step->weight < 0 ? NULL : &p->list[step->weight];
	const struct param *bias = step->bias < 0 ? NULL : &p->list[step->bias];
	const struct param *norm = step->norm < 0 ? NULL : &p->list[step->norm];
	size_t skip = (size_t)first * row_size(s, step->y) * precision_size(s->compiled.values[step->y].type);

	return (struct op_io){
		.x = data_of(s, step->x),
		.x2 = step->x2 < 0 ? NULL : data_of(s, step->x2),
		.y = (float *)(void *)((char *)data_of(s, step->y) + skip),
		.weight = weight ? weight->value : NULL,
		.bias = bias ? bias->value : NULL,
		.scale = norm ? norm[0].value : NULL,
		.shift = norm ? norm[1].value : NULL,
		.mean = norm ? norm[2].value : NULL,
		.variance = norm ? norm[3].value : NULL,
		.seed = s->seed,
		.saved = buffer_at(s, step->saved),
		.scratch = s->net->workspace->scratch.base,
		.version = p->version + (norm ? p->statistics : 0), /* neither goes back */
	};
}

/* What a forward begins with: bytes of images, or numbers that are normalised already. */
struct input {
	const uint8_t *pixels; /* NULL: numbers */
	const float *numbers;
	int n;
};

/* n instances of a value's f32 numbers, for session_observe. */
static void observe(struct session *s, int value, const float *x, int n)
{
	float *range = &s->ranges[s->compiled.values[value].node];

	*range = fmaxf(*range, numbers_largest(x, (size_t)n * row_size(s, value)));
}

/* Instances first … first+rows-1 to the input's place; those beyond n are 0. */
static void fill(struct session *s, const struct input *in, int first, int rows)
{
	const struct value *value = &s->compiled.values[0];
	const struct extent *e = &value->extent;
	size_t row = row_size(s, 0), size = precision_size(value->type);
	int some = in->n - first < rows ? in->n - first : rows;
	char *x = (char *)data_of(s, 0);

	if (in->pixels)
		pixels_normalise(in->pixels + (size_t)first * row, some, e->h, e->w, e->c, s->mean, s->std,
				 value->type, value->step, x);
	else
		numbers_round(in->numbers + (size_t)first * row, x, value->type, value->step,
			      (size_t)some * row);
	memset(x + (size_t)some * row * size, 0, (size_t)(rows - some) * row * size);
	if (s->ranges)
		observe(s, 0, data_of(s, 0), rows);
}

static int run_steps(struct session *s, const struct variant *v, int begin, int end, int first)
{
	int r = 0;

	for (int i = begin; r == 0 && i < end; i++) {
		const struct step *step = &s->compiled.steps[i];
		struct op_io io = io_of(s, step, i + 1 == s->compiled.split ? first : 0);

		r = kernel_forward(v->kernels[i], &io);
		if (r == 0 && s->ranges)
			observe(s, step->y, io.y, v->kernels[i]->desc.n);
	}
	return r;
}

static int run_forward(struct session *s, const struct input *in, float *logits)
{
	const struct compiled *c = &s->compiled;
	int variant, r = 0;

	if (in->n < 1 || in->n > s->options.batch)
		return -EINVAL;
	omp_set_num_threads(s->threads);
	variant = variant_for(s, in->n);
	if (variant < 0)
		return variant;
	if (!data_of(s, 0))
		return -EINVAL;
	s->last_n = 0;
	s->generation = ++s->net->workspace->generation;
	if (c->split) {
		int part = compiled_part(c, s->variants[variant].n);

		for (int first = 0; r == 0 && first < in->n; first += part) {
			fill(s, in, first, part);
			r = run_steps(s, &s->variants[variant], 0, c->split, first);
		}
	} else {
		fill(s, in, 0, s->variants[variant].n);
	}
	if (r == 0)
		r = run_steps(s, &s->variants[variant], c->split, c->n_steps, 0);
	s->net->params.statistics += s->options.training;
	if (r < 0)
		return r;
	memcpy(logits, data_of(s, c->output), (size_t)in->n * row_size(s, c->output) * sizeof(float));
	s->last_n = in->n;
	s->last_variant = variant;
	return 0;
}

int session_forward(struct session *s, const uint8_t *pixels, int n, float *logits)
{
	const struct input in = {.pixels = pixels, .n = n};

	if (s->graph) {
		omp_set_num_threads(s->threads);
		return n < 1 || n > s->options.batch
			       ? -EINVAL
			       : graph_session_forward(s->graph, pixels, n, logits, NULL);
	}
	return run_forward(s, &in, logits);
}

int session_observe(struct session *s, float *ranges)
{
	if (s->graph || s->options.precision != PRECISION_F32 || s->options.gradcam || s->options.training)
		return -EINVAL;
	s->ranges = ranges;
	return 0;
}

int session_calibrate(struct session *s, struct model *model, int rate_index, const uint8_t *pixels, int n,
		      float *logits)
{
	float **ranges = &model->ranges[rate_index];
	int r;

	if (!model->net)
		return -EINVAL;
	if (!*ranges && !(*ranges = calloc((size_t)model->net->n_nodes, sizeof(**ranges))))
		return -ENOMEM;
	r = session_observe(s, *ranges);
	if (r == 0)
		r = session_forward(s, pixels, n, logits);
	session_observe(s, NULL);
	return r;
}

int session_forward_float(struct session *s, const float *input, int n, float *logits)
{
	const struct input in = {.numbers = input, .n = n};

	return s->graph ? -EINVAL : run_forward(s, &in, logits);
}

/* From the output's gradient, which is in place, down to step `first`. */
static int run_backward(struct session *s, int first, bool learn)
{
	const struct compiled *c = &s->compiled;
	const struct variant *v = &s->variants[s->last_variant];
	int r = 0;

	for (int i = c->n_steps - 1; r == 0 && i >= first; i--) {
		const struct step *step = &c->steps[i];
		struct op_io io = io_of(s, step, 0);

		io.dy = grad_of(s, step->y);
		if (!step->desc.training || !io.dy)
			continue;
		io.dx = buffer_at(s, step->dx);
		io.dx2 = buffer_at(s, step->dx2);
		if (learn && step->weight >= 0)
			io.dweight = s->net->params.list[step->weight].grad;
		if (learn && step->bias >= 0)
			io.dbias = s->net->params.list[step->bias].grad;
		r = kernel_backward(v->kernels[i], &io);
		if (step->add_dx)
			s->backend->add_to(grad_of(s, step->x), io.dx, (size_t)v->n * row_size(s, step->x));
		if (step->add_dx2)
			s->backend->add_to(grad_of(s, step->x2), io.dx2,
					   (size_t)v->n * row_size(s, step->x2));
	}
	return r;
}

static bool has_forward(const struct session *s, int n)
{
	return n >= 1 && n <= s->last_n && s->generation == s->net->workspace->generation;
}

int session_backward(struct session *s, const float *dlogits, int n)
{
	size_t row = row_size(s, s->compiled.output);

	if (!s->options.training || !has_forward(s, n) || n != s->last_n)
		return -EINVAL;
	omp_set_num_threads(s->threads);
	memcpy(grad_of(s, s->compiled.output), dlogits, (size_t)n * row * sizeof(float));
	s->last_n = 0;
	return run_backward(s, 0, true);
}

void session_gradcam_shape(const struct session *s, int *ret_h, int *ret_w)
{
	*ret_h = s->compiled.values[s->compiled.feature].extent.h;
	*ret_w = s->compiled.values[s->compiled.feature].extent.w;
}

/* Eq. 1: a channel's weight is the mean of its gradient over the plane; eq. 2: the ReLU of the weighted sum
 * of maps. */
static void activation_map(const struct extent *e, const float *map, const float *grad, float *heat)
{
	int plane = e->h * e->w;

	memset(heat, 0, (size_t)plane * sizeof(float));
	for (int c = 0; c < e->c; c++) {
		double weight = 0;

		for (int i = 0; i < plane; i++)
			weight += grad[i * e->c + c];
		for (int i = 0; i < plane; i++)
			heat[i] += (float)(weight / plane) * map[i * e->c + c];
	}
	for (int i = 0; i < plane; i++)
		heat[i] = heat[i] > 0 ? heat[i] : 0;
}

static void saliency_map(const struct extent *e, const float *grad, float *heat)
{
	for (int i = 0; i < e->h * e->w; i++) {
		heat[i] = 0;
		for (int c = 0; c < e->c; c++)
			heat[i] = fmaxf(heat[i], fabsf(grad[i * e->c + c]));
	}
}

static void scale_to_one(float *heat, int n)
{
	float max = 0;

	for (int i = 0; i < n; i++)
		max = fmaxf(max, heat[i]);
	for (int i = 0; i < n; i++)
		heat[i] = max > 0 ? heat[i] / max : 0;
}

int session_gradcam(struct session *s, const int *labels, int n, float *heat)
{
	const struct compiled *c = &s->compiled;
	const struct extent *e = &c->values[c->feature].extent;
	size_t row = row_size(s, c->feature), classes = row_size(s, c->output);
	float *dlogits;
	int r;

	if (!s->options.gradcam || !has_forward(s, n))
		return -EINVAL;
	for (int i = 0; i < n; i++)
		if (labels[i] < 0 || (size_t)labels[i] >= classes)
			return -EINVAL;
	omp_set_num_threads(s->threads);
	dlogits = grad_of(s, c->output);
	memset(dlogits, 0, (size_t)s->variants[s->last_variant].n * classes * sizeof(float));
	for (int i = 0; i < n; i++)
		dlogits[(size_t)i * classes + (size_t)labels[i]] = 1;
	r = run_backward(s, c->feature_steps, false);
	for (int i = 0; r == 0 && i < n; i++) {
		float *map = heat + (size_t)i * (size_t)(e->h * e->w);
		const float *grad = grad_of(s, c->feature) + (size_t)i * row;

		if (c->feature == 0)
			saliency_map(e, grad, map);
		else
			activation_map(e, data_of(s, c->feature) + (size_t)i * row, grad, map);
		scale_to_one(map, e->h * e->w);
	}
	return r;
}
