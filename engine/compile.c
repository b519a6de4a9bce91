#include "engine/compile.h"

#include <errno.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64

/* What is known of each node while steps are made. */
struct place {
	int consumers, consumer; /* how many, and the last of them */
	int value;               /* -1: not made yet */
	bool absorbed;           /* its work is done by another node's step */
	bool cam;                /* the feature map, or made of it: Grad-CAM goes backward through its step */
};

struct builder {
	struct compiled *c;
	const struct net *net;
	const struct compile_options *options;
	struct place *places;
	bool *cam; /* of each value: lies between the feature map and the output */
};

static size_t instance_bytes(const struct builder *b, int value)
{
	const struct extent *e = value < 0 ? NULL : &b->c->values[value].extent;

	return e ? (size_t)e->c * (size_t)e->h * (size_t)e->w * precision_size(b->c->values[value].type) : 0;
}

static size_t value_bytes(const struct builder *b, int value)
{
	const struct compiled *c = b->c;
	size_t n = (size_t)b->options->batch;

	if (c->split && value == c->steps[c->split - 1].y)
		n += (size_t)c->part; /* the last part may be padded */
	else if (c->split && value < c->steps[c->split - 1].y)
		n = (size_t)c->part;
	return n * instance_bytes(b, value);
}

static int add_buffer(struct compiled *c, size_t size, int first, int last)
{
	c->buffers[c->n_buffers] = (struct buffer){.size = size, .first = first, .last = last};
	return c->n_buffers++;
}

static int add_value(struct builder *b, int id)
{
	struct value *v = &b->c->values[b->c->n_values];
	const struct node *node = &b->net->nodes[id];

	v->node = id;
	v->extent = (struct extent){slice_extent(node->channels, node->groups, b->options->rate),
				    node->height, node->width};
	v->grad = -1;
	return b->c->n_values++;
}

/* The only consumer of a node when that is of the given op, else 0 (no node consumes into the input). */
static int sole_consumer(const struct builder *b, int node, enum op op)
{
	const struct place *p = &b->places[node];

	return p->consumers == 1 && b->net->nodes[p->consumer].op == op ? p->consumer : 0;
}

static bool is_norm(enum op op)
{
	return op == OP_group_norm || op == OP_batch_norm;
}

/* The addition that a norm or a convolution can be done with: its sole consumer, which adds it as it is. */
static int sole_addition(const struct builder *b, int node)
{
	int add = sole_consumer(b, node, OP_add);

	return add && b->net->nodes[add].add.scale == 1 ? add : 0;
}

/* The batch_norm by running statistics that a convolution is done with. */
static int sole_norm(const struct builder *b, int conv)
{
	return b->options->training ? 0 : sole_consumer(b, conv, OP_batch_norm);
}

/* Whether a convolution whose result is that of `last` is done with the addition that follows: where no gradient
 * is asked for. */
static bool adds_residual(const struct builder *b, int last)
{
	int add = sole_addition(b, last);
	const int *in = b->net->nodes[add].in;

	return add && !b->options->training && !b->places[in[0]].cam && !b->places[in[1]].cam;
}

/* The convolution that a batch_norm was folded into, else the node itself. */
static int made_by(const struct builder *b, int node)
{
	const struct node *n = &b->net->nodes[node];

	return n->op == OP_batch_norm && b->places[node].absorbed ? n->in[0] : node;
}

/* The ReLU of either kind that takes all of a node's result, where an op can end in one. */
static int sole_relu(const struct builder *b, enum op op, int node)
{
	int relu = sole_consumer(b, node, OP_relu);

	if (op != OP_conv2d && op != OP_linear && op != OP_add && !is_norm(op))
		return 0;
	return relu ? relu : sole_consumer(b, node, OP_relu6);
}

/*
 * Makes the step of a node; `last` is the node whose result it gives, after what was fused into it: of a
 * convolution a batch_norm; then the addition of `residual`, if that isn't -1.
 */
static void add_step(struct builder *b, int id, int last, int residual)
{
	const struct node *node = &b->net->nodes[id];
	int norm = node->op == OP_conv2d ? sole_norm(b, id) : 0;
	const struct param *weight = node->weight >= 0 ? &b->net->params.list[node->weight] : NULL;
	struct step *s = &b->c->steps[b->c->n_steps++];
	int relu = sole_relu(b, node->op, last);

	*s = (struct step){.x = b->places[node->in[0]].value,
			   .x2 = residual >= 0 ? b->places[residual].value : -1,
			   .weight = node->weight,
			   .bias = node->bias,
			   .norm = -1,
			   .saved = -1,
			   .dx = -1,
			   .dx2 = -1};
	if (norm) {
		s->norm = net_batch_norm_set(b->net, &b->net->nodes[norm], b->options->rate);
		s->desc.norm = true;
		s->desc.eps = b->net->nodes[norm].norm.eps;
	}
	if (relu) {
		b->places[relu].absorbed = true;
		last = relu;
		s->desc.relu = true;
		s->desc.ceiling = b->net->nodes[relu].op == OP_relu6 ? 6 : 0;
	}
	s->y = b->places[last].value = add_value(b, last);
	s->desc.op = node->op;
	s->desc.in = b->c->values[s->x].extent;
	s->desc.out = b->c->values[s->y].extent;
	s->desc.bias = node->bias >= 0;
	s->desc.residual = (is_norm(node->op) || node->op == OP_conv2d) && residual >= 0;
	s->desc.weight_ld = weight ? (int64_t)(weight->size / (size_t)weight->dims[0]) : 0;
	switch (node->op) {
	case OP_conv2d:
		s->desc.kernel = node->conv.kernel;
		s->desc.stride = node->conv.stride;
		s->desc.pad = node->conv.pad;
		s->desc.kernel_w = node->conv.kernel_w;
		s->desc.pad_w = node->conv.pad_w;
		s->desc.groups = node->conv.conv_groups;
		if (s->desc.groups > 1)
			s->desc.groups = (int)((int64_t)s->desc.groups * s->desc.out.c / node->channels);
		break;
	case OP_max_pool:
	case OP_avg_pool:
		s->desc.kernel = node->pool.kernel;
		s->desc.stride = node->pool.stride;
		s->desc.pad = node->pool.pad;
		s->desc.exclude_pad = node->pool.exclude_pad;
		break;
	case OP_group_norm:
		s->desc.groups = (int)((int64_t)node->norm.groups * s->desc.in.c / node->channels);
		s->desc.eps = node->norm.eps;
		break;
	case OP_batch_norm:
		s->norm = net_batch_norm_set(b->net, node, b->options->rate);
		s->weight = s->norm;
		s->bias = s->norm + 1;
		s->desc.eps = node->norm.eps;
		s->desc.statistics = b->options->training;
		break;
	case OP_relu6:
		s->desc.ceiling = 6;
		break;
	case OP_add:
		s->desc.scale = node->add.scale;
		break;
	case OP_concat:
		s->desc.groups = node->groups ? s->desc.out.c / (node->channels / node->groups) : 1;
		break;
	case OP_dropout:
		s->desc.share = node->dropout.share;
		s->desc.salt = (uint64_t)id;
		break;
	default:
		break;
	}
}

/*
 * A normalisation or convolution whose only consumer is an addition waits for it and takes the other addend as
 * its residual; when both addends are such, the second is made on its own first.
 */
static void add_addition(struct builder *b, int id)
{
	int x = b->net->nodes[id].in[0], x2 = b->net->nodes[id].in[1];
	bool wait = b->places[x].value < 0, wait2 = b->places[x2].value < 0;

	if (wait && wait2)
		add_step(b, made_by(b, x2), x2, -1);
	if (wait) {
		add_step(b, made_by(b, x), id, x2);
	} else if (wait2) {
		add_step(b, made_by(b, x2), id, x);
	} else {
		add_step(b, id, id, x2);
	}
}

/* Who consumes each node, and which ones Grad-CAM goes through. */
static void look_around(struct builder *b)
{
	const struct net *net = b->net;

	b->places[net->feature].cam = b->options->gradcam;
	for (int i = 1; i <= net->output; i++)
		for (int k = 0; k < 2; k++)
			if (net->nodes[i].in[k] >= 0) {
				b->places[net->nodes[i].in[k]].consumers++;
				b->places[net->nodes[i].in[k]].consumer = i;
				b->places[i].cam |= b->places[net->nodes[i].in[k]].cam;
			}
	b->places[net->output].consumers++;
	for (int i = 0; i <= net->output; i++)
		b->places[i].value = -1;
}

static void make_steps(struct builder *b)
{
	const struct net *net = b->net;

	look_around(b);
	b->places[0].value = add_value(b, 0);
	for (int i = 1; i <= net->output; i++) {
		int norm;

		if (b->places[i].absorbed)
			continue;
		switch (net->nodes[i].op) {
		case OP_dropout:
			if (b->options->training) {
				add_step(b, i, i, -1);
				break;
			}
			/* fall through */
		case OP_flatten:
			b->places[i].value = b->places[net->nodes[i].in[0]].value;
			break;
		case OP_conv2d:
			norm = sole_norm(b, i);
			b->places[norm].absorbed |= norm > 0;
			if (!adds_residual(b, norm ? norm : i))
				add_step(b, i, norm ? norm : i, -1);
			break;
		case OP_concat:
			add_step(b, i, i, net->nodes[i].in[1]);
			break;
		case OP_add:
			add_addition(b, i);
			break;
		case OP_group_norm:
		case OP_batch_norm:
			if (sole_addition(b, i))
				break;
			/* fall through */
		default:
			add_step(b, i, i, -1);
		}
	}
	b->c->output = b->places[net->output].value;
	b->c->feature = b->places[net->feature].value;
}

/* Which values' gradients are wanted, and which steps will be run backward. */
static void mark_gradients(struct builder *b)
{
	struct compiled *c = b->c;

	if (b->options->gradcam)
		c->values[c->feature].need_grad = b->cam[c->feature] = true;
	for (int i = 0; i < c->n_steps; i++) {
		struct step *s = &c->steps[i];
		bool cam = b->cam[s->x] || (s->x2 >= 0 && b->cam[s->x2]);
		bool learns = b->options->training && (s->weight >= 0 || c->values[s->x].need_grad ||
						       (s->x2 >= 0 && c->values[s->x2].need_grad));

		b->cam[s->y] |= cam;
		c->values[s->y].need_grad |= cam || learns;
		s->desc.training = cam || learns;
		s->desc.need_dx = c->values[s->x].need_grad && s->desc.training;
		if (s->y == c->feature)
			c->feature_steps = i + 1;
	}
}

/* --- types --- */

/* Beyond these no step can be told from nothing (chosen); ranges may come from a file. */
#define LEAST_RANGE 1e-20f

/* Whether a step's result is never negative, given that of what it reads. */
static bool makes_no_negative(const struct step *s, const bool *positive)
{
	switch (s->desc.op) {
	case OP_relu:
	case OP_relu6:
		return true;
	case OP_add:
	case OP_concat:
	case OP_max_pool:
	case OP_avg_pool:
	case OP_global_avg_pool:
		return s->desc.relu ||
		       (positive[s->x] && (s->x2 < 0 || positive[s->x2]) && s->desc.scale >= 0);
	default:
		return s->desc.relu;
	}
}

/*
 * What was seen in f32 becomes steps, unsigned where that wins a bit. A norm's statistics are taken of what nothing has rounded: its input
 * stays f32.
 */
static void set_steps(struct builder *b, bool *positive)
{
	struct compiled *c = b->c;

	for (int i = 0; i < c->n_steps; i++)
		positive[c->steps[i].y] = makes_no_negative(&c->steps[i], positive);
	for (int i = 0; i < c->n_values; i++) {
		struct value *v = &c->values[i];
		float largest = b->options->ranges[v->node];

		if (v->type != PRECISION_INT8)
			continue;
		v->type = !(largest > LEAST_RANGE && largest < 1 / LEAST_RANGE) ? PRECISION_F32
			  : positive[i]                                         ? PRECISION_UINT8
										: PRECISION_INT8;
		v->step = precision_step(v->type, largest);
	}
	for (int i = 0; i < c->n_steps; i++)
		if (is_norm(c->steps[i].desc.op))
			c->values[c->steps[i].x].type = PRECISION_F32;
}

/* What only moves numbers keeps them as they are: from the last on, what is read takes over the steps of the result. */
static void share_steps(struct builder *b)
{
	struct compiled *c = b->c;

	for (int i = c->n_steps - 1; i >= 0; i--) {
		const struct step *s = &c->steps[i];
		const struct value *y = &c->values[s->y];
		int read[2] = {s->x, s->x2};

		for (int k = 0; k < 2 && (s->desc.op == OP_concat || s->desc.op == OP_max_pool); k++)
			if (read[k] >= 0 && precision_steps(y->type) &&
			    precision_steps(c->values[read[k]].type)) {
				c->values[read[k]].type = y->type;
				c->values[read[k]].step = y->step;
			}
	}
}

/* What Grad-CAM goes through, reads or begins with is f32, and so are the logits. positive: scratch, of each value. */
static void set_types(struct builder *b, bool *positive)
{
	struct compiled *c = b->c;

	for (int i = 0; i < c->n_values; i++)
		c->values[i].type = b->cam[i] ? PRECISION_F32 : b->options->precision;
	c->values[c->output].type = PRECISION_F32;
	for (int i = 0; i < c->n_steps; i++) {
		if (!c->steps[i].desc.training)
			continue;
		c->values[c->steps[i].x].type = PRECISION_F32;
		if (c->steps[i].x2 >= 0)
			c->values[c->steps[i].x2].type = PRECISION_F32;
	}
	if (b->options->precision == PRECISION_INT8) {
		set_steps(b, positive);
		share_steps(b);
	}
	for (int i = 0; i < c->n_steps; i++) {
		struct step *s = &c->steps[i];

		s->desc.x_type = c->values[s->x].type;
		s->desc.x_step = c->values[s->x].step;
		s->desc.x2_type = s->x2 >= 0 ? c->values[s->x2].type : PRECISION_F32;
		s->desc.x2_step = s->x2 >= 0 ? c->values[s->x2].step : 0;
		s->desc.y_type = c->values[s->y].type;
		s->desc.y_step = c->values[s->y].step;
	}
}

/* --- parts of a batch --- */

/*
 * Measured: ResNet-50 at 224², where a step at batch 32 reads and writes 230 MB, is 10 % faster in parts of 4 or 8
 * instances. Not measured: whether less is better where the cache is smaller.
 */
#define CACHE ((size_t)32 << 20)
#define MOST  4096 /* instances of a part, chosen: more than an instance that is worth it allows */

static size_t weight_bytes(const struct op_desc *d)
{
	if (d->op == OP_linear)
		return (size_t)d->out.c * (size_t)(d->in.c * d->in.h * d->in.w) * sizeof(float);
	if (d->op != OP_conv2d)
		return 0;
	return (size_t)d->out.c * (size_t)(d->in.c / d->groups * d->kernel * d->kernel_w) * sizeof(float);
}

/* Bytes of memory traffic that running a step in parts saves: those of its values, if that makes them fit the cache, less those of
 * its weights, which are read once for each part. */
static double saved_by_parts(const struct builder *b, const struct step *s, int part)
{
	size_t instance = instance_bytes(b, s->x) + instance_bytes(b, s->x2) + instance_bytes(b, s->y);
	size_t batch = (size_t)b->options->batch, parts = (batch + (size_t)part - 1) / (size_t)part;
	bool helps = instance * batch > CACHE && instance * (size_t)part <= CACHE;

	return (helps ? (double)(instance * batch) : 0) - (double)(weight_bytes(&s->desc) * (parts - 1));
}

/* -1: none */
static int last_reader(const struct compiled *c, int value)
{
	int last = -1;

	for (int i = 0; i < c->n_steps; i++)
		if (c->steps[i].x == value || c->steps[i].x2 == value)
			last = i;
	return last;
}

/*
 * Where steps before run in parts and the others for all: only where a single value goes on, the one just made. Parts are at least
 * as many instances as there are threads.
 */
static void choose_split(struct builder *b)
{
	struct compiled *c = b->c;
	double best = 0;

	if (b->options->training || b->options->gradcam)
		return;
	for (int part = 1; part < b->options->batch && part <= MOST; part *= 2) {
		double saved = 0;
		int until = last_reader(c, 0);

		for (int i = 0; i < c->n_steps && part >= omp_get_max_threads(); i++) {
			saved += saved_by_parts(b, &c->steps[i], part);
			if (until <= i && saved > best) {
				best = saved;
				c->split = i + 1;
				c->part = part;
			}
			if (last_reader(c, c->steps[i].y) > until)
				until = last_reader(c, c->steps[i].y);
		}
	}
}

/* --- places --- */

static void live_until(struct compiled *c, int buffer, int time)
{
	if (buffer >= 0 && c->buffers[buffer].last < time)
		c->buffers[buffer].last = time;
}

/*
 * A residual that nothing reads later gives its place to the result: a convolution then adds onto what lies
 * there, which spares a third of that step's memory traffic.
 */
static bool takes_place_of_x2(const struct builder *b, int i)
{
	const struct compiled *c = b->c;
	const struct step *s = &c->steps[i];

	if (s->desc.op != OP_conv2d || s->x2 < 0 || s->x2 == s->x || s->x2 == c->feature ||
	    precision_size(s->desc.x2_type) != precision_size(s->desc.y_type) || i + 1 == c->split)
		return false;
	for (int k = 0; k < c->n_steps; k++)
		if ((c->steps[k].x == s->x2 || c->steps[k].x2 == s->x2) &&
		    (k > i || c->steps[k].desc.training))
			return false;
	return true;
}

static void place_data(struct builder *b)
{
	struct compiled *c = b->c;
	int end = 2 * c->n_steps;

	c->values[0].data = add_buffer(c, value_bytes(b, 0), 0, 0);
	for (int i = 0; i < c->n_steps; i++) {
		struct step *s = &c->steps[i];
		struct op_desc d = s->desc;
		int back = b->cam[s->y] ? end : end - 1 - i;
		size_t saved;

		c->values[s->y].data = takes_place_of_x2(b, i) ? c->values[s->x2].data
							       : add_buffer(c, value_bytes(b, s->y),
									    i + 1 == c->split ? 0 : i, i);
		live_until(c, c->values[s->x].data, i);
		if (s->x2 >= 0)
			live_until(c, c->values[s->x2].data, i);
		d.n = b->options->batch;
		saved = kernel_saved_size(b->options->backend, &d);
		if (saved)
			s->saved = add_buffer(c, saved, i, i);
		if (!s->desc.training)
			continue;
		live_until(c, s->saved, back);
		if (d.op == OP_conv2d || d.op == OP_linear || is_norm(d.op))
			live_until(c, c->values[s->x].data, back);
		if (d.relu || d.op == OP_relu || d.op == OP_relu6)
			live_until(c, c->values[s->y].data, back);
	}
	live_until(c, c->values[c->output].data, c->n_steps);
	if (b->options->gradcam)
		live_until(c, c->values[c->feature].data, end);
}

/*
 * The gradient of a value is written by the first of its consumers to run backward and added to by the
 * others. An elementwise op hands its dy on as dx, and an addition or residual its dy as dx2, without a copy:
 * dy is of no more use then, since all consumers of y have run. Where an addition's dx2 is another than its dx,
 * by a factor, and both are wanted, they need two places.
 */
static bool gradient_in_place(const struct op_desc *d)
{
	return d->op == OP_add || d->op == OP_relu || d->op == OP_relu6 || d->op == OP_dropout ||
	       (is_norm(d->op) && !d->residual);
}

static void place_gradients(struct builder *b)
{
	struct compiled *c = b->c;

	if (!c->values[c->output].need_grad)
		return;
	c->values[c->output].grad = add_buffer(c, value_bytes(b, c->output), c->n_steps, c->n_steps);
	for (int i = c->n_steps - 1; i >= 0; i--) {
		struct step *s = &c->steps[i];
		int time = 2 * c->n_steps - 1 - i, dy = c->values[s->y].grad;
		bool in_place = gradient_in_place(&s->desc), dy_taken = false;

		if (!s->desc.training || dy < 0)
			continue;
		live_until(c, dy, time);
		if (c->values[s->x].need_grad) {
			struct value *x = &c->values[s->x];

			s->add_dx = x->grad >= 0;
			s->dx = in_place ? dy : add_buffer(c, value_bytes(b, s->x), time, time);
			if (!s->add_dx) {
				x->grad = s->dx;
				dy_taken = in_place;
			}
			live_until(c, x->grad, time);
		}
		if (s->x2 >= 0 && c->values[s->x2].need_grad) {
			struct value *x2 = &c->values[s->x2];

			bool apart = s->desc.op == OP_concat ||
				     (s->desc.op == OP_add && s->desc.scale != 1 && s->dx >= 0);

			s->add_dx2 = x2->grad >= 0;
			s->dx2 = !apart && (s->add_dx2 || !dy_taken)
					 ? dy
					 : add_buffer(c, value_bytes(b, s->x2), time, time);
			if (!s->add_dx2)
				x2->grad = s->dx2;
			live_until(c, x2->grad, time);
		}
	}
	if (b->options->gradcam)
		live_until(c, c->values[c->feature].grad, 2 * c->n_steps);
}

static int by_size(const void *a, const void *b)
{
	const struct buffer *x = *(const struct buffer *const *)a, *y = *(const struct buffer *const *)b;

	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	return x < y ? -1 : 1;
}

static int by_offset(const void *a, const void *b)
{
	const struct buffer *x = *(const struct buffer *const *)a, *y = *(const struct buffer *const *)b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Largest first, each at the lowest offset where nothing alive at the same time lies. */
static int place_buffers(struct compiled *c)
{
	struct buffer **order = calloc((size_t)c->n_buffers * 2, sizeof(*order)), **near;

	if (!order)
		return -ENOMEM;
	near = order + c->n_buffers;
	for (int i = 0; i < c->n_buffers; i++) {
		c->buffers[i].size = (c->buffers[i].size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
		order[i] = &c->buffers[i];
	}
	qsort(order, (size_t)c->n_buffers, sizeof(*order), by_size);
	for (int i = 0; i < c->n_buffers; i++) {
		size_t n = 0, offset = 0;

		for (int k = 0; k < i; k++)
			if (order[k]->first <= order[i]->last && order[i]->first <= order[k]->last)
				near[n++] = order[k];
		qsort(near, n, sizeof(*near), by_offset);
		for (size_t k = 0; k < n && near[k]->offset < offset + order[i]->size; k++)
			if (near[k]->offset + near[k]->size > offset)
				offset = near[k]->offset + near[k]->size;
		order[i]->offset = offset;
		if (offset + order[i]->size > c->activation_size)
			c->activation_size = offset + order[i]->size;
	}
	free(order);
	return 0;
}

int compile(struct compiled *ret, const struct net *net, const struct compile_options *options)
{
	size_t n = (size_t)net->n_nodes;
	struct compiled c = {.values = calloc(n, sizeof(*c.values)),
			     .steps = calloc(n, sizeof(*c.steps)),
			     /* data, gradient and two more of each step: saved, and the other addend's */
			     .buffers = calloc(4 * n + 4, sizeof(*c.buffers))};
	struct builder b = {.c = &c,
			    .net = net,
			    .options = options,
			    .places = calloc(n, sizeof(*b.places)),
			    .cam = calloc(n, sizeof(*b.cam))};
	bool *positive = calloc(n, sizeof(*positive));
	int r = -ENOMEM;

	if (!c.values || !c.steps || !c.buffers || !b.places || !b.cam || !positive)
		goto out;
	make_steps(&b);
	mark_gradients(&b);
	set_types(&b, positive);
	choose_split(&b);
	place_data(&b);
	place_gradients(&b);
	r = place_buffers(&c);
out:
	free(b.places);
	free(b.cam);
	free(positive);
	if (r < 0)
		compiled_release(&c);
	else
		*ret = c;
	return r;
}

void compiled_release(struct compiled *c)
{
	free(c->values);
	free(c->steps);
	free(c->buffers);
	*c = (struct compiled){0};
}
