/*
 * A node of ours becomes one to five of ONNX. A value has rank 4 (N, C, H, W), or 2 (N, features) after flatten and linear; where the
 * other one is wanted a Flatten or Reshape goes between, once. Channels stand as channels.h says. What is written, to_net.c knows, so
 * that an export which is imported runs compiled; GroupNorm is written as PyTorch does, since ONNX's own came late (and, before operator
 * set 21, scales groups instead of channels).
 */
#include "engine/onnx/from_net.h"

#include "engine/onnx/channels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IMAGES "images"
#define LOGITS "logits"

struct place {
	const char *name; /* of the value; NULL: not made, or no memory */
	int rank;
	const char *plane, *features; /* the same with rank 4 and 2; NULL: not asked for yet */
};

struct exporter {
	const struct net *net;
	float rate;
	const float *mean, *std;
	struct writer *w;
	struct channels *channels;
	struct place *places; /* (n_nodes) */
	bool *used;           /* (n_nodes) */
};

#define IN(...)   ((const char *const[]){__VA_ARGS__, NULL})
#define DIMS(...) ((const int64_t[]){__VA_ARGS__})

static int count(const struct exporter *e, int node)
{
	return channels_count(e->net, node, e->rate);
}

static const struct param *param(const struct exporter *e, int index)
{
	return &e->net->params.list[index];
}

/* What the node is called: as in the network, else by its op. */
static const char *label(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i];

	return *n->name ? n->name : writer_text(e->w, "%s%d", op_info(n->op)->name, i);
}

/* Values have no dot in their names, parameters have. */
static const char *value_name(struct exporter *e, int i)
{
	return i == e->net->output && e->net->nodes[i].op == OP_linear ? LOGITS : writer_text(e->w, "n%d", i);
}

static void made(struct exporter *e, int i, const char *name, int rank)
{
	e->places[i] = (struct place){.name = name, .rank = rank};
}

static int rank_of(const struct exporter *e, int i)
{
	return e->places[i].rank;
}

static const char *plain(const struct exporter *e, int i)
{
	return e->places[i].name;
}

static const char *features(struct exporter *e, int i)
{
	struct place *p = &e->places[i];

	if (p->rank == 2)
		return p->name;
	if (!p->features) {
		p->features = writer_text(e->w, "n%d_flat", i);
		writer_node(e->w, "Flatten", p->features, p->features, IN(p->name));
	}
	return p->features;
}

static const char *plane(struct exporter *e, int i)
{
	struct place *p = &e->places[i];

	if (p->rank == 4)
		return p->name;
	if (!p->plane) {
		const char *shape = writer_text(e->w, "n%d_plane.shape", i);

		p->plane = writer_text(e->w, "n%d_plane", i);
		writer_ints(e->w, shape, 4, DIMS(0, count(e, i), 1, 1));
		writer_node(e->w, "Reshape", p->plane, p->plane, IN(p->name, shape));
	}
	return p->plane;
}

/*
 * A parameter as initializer of that name and those dims: the first `rows` of its first dimension, of each the first `columns` stretches
 * of `stretch` numbers, in these orders (NULL: as they are).
 */
struct cut {
	int rows, columns, stretch;
	const int *row_order, *column_order;
};

static const char *tensor(struct exporter *e, const char *name, const struct param *p, const struct cut *cut,
			  int rank, const int64_t *dims)
{
	size_t stretch = (size_t)cut->stretch, columns = (size_t)cut->columns, rows = (size_t)cut->rows,
	       row = p->size / (size_t)p->dims[0];
	float *to;

	if (!cut->row_order && !cut->column_order && rows * columns * stretch == p->size) {
		writer_floats(e->w, name, rank, dims, p->value);
		return name;
	}
	to = writer_new_floats(e->w, name, rank, dims);
	for (size_t r = 0; to && r < rows; r++) {
		const float *from = p->value + (cut->row_order ? (size_t)cut->row_order[r] : r) * row;

		for (size_t c = 0; c < columns; c++, to += stretch)
			memcpy(to, from + (cut->column_order ? (size_t)cut->column_order[c] : c) * stretch,
			       stretch * sizeof(*to));
	}
	return name;
}

/* One number a channel of node i, for "NODE.suffix". */
static const char *vector(struct exporter *e, int i, const char *suffix, int index, int rank,
			  const int64_t *dims)
{
	const struct cut cut = {
		.rows = count(e, i), .columns = 1, .stretch = 1, .row_order = channels_order(e->channels, i)};

	return tensor(e, writer_text(e->w, "%s.%s", e->net->nodes[i].name, suffix), param(e, index), &cut,
		      rank, dims);
}

static const char *constants(struct exporter *e, const char *name, int n, float value)
{
	float *values = writer_new_floats(e->w, name, 1, DIMS(n));

	for (int i = 0; values && i < n; i++)
		values[i] = value;
	return name;
}

/* --- ops --- */

static void emit_input(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i];
	const int64_t dims[4] = {-1, n->channels, n->height, n->width}, one[4] = {1, n->channels, 1, 1};
	const char *name = IMAGES;
	bool centred = true, scaled = true;

	for (int c = 0; c < n->channels; c++) {
		centred &= e->mean[c] == 0;
		scaled &= e->std[c] == 1;
	}
	writer_value(e->w, WRITER_INPUT, IMAGES, 4, dims, n->channels == 1 ? "grey, 0 to 1" : "RGB, 0 to 1");
	if (!centred) {
		writer_floats(e->w, "input.mean", 4, one, e->mean);
		writer_node(e->w, "Sub", "mean", "centred", IN(name, "input.mean"));
		name = "centred";
	}
	if (!scaled) {
		writer_floats(e->w, "input.std", 4, one, e->std);
		writer_node(e->w, "Div", "std", "normalised", IN(name, "input.std"));
		name = "normalised";
	}
	made(e, i, name, 4);
}

static void emit_conv2d(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i];
	const struct conv2d_attr *a = &n->conv;
	const struct param *p = param(e, n->weight);
	bool grouped = a->conv_groups > 1;
	const struct cut cut = {.rows = count(e, i),
				.columns = grouped ? p->dims[1] : count(e, n->in[0]),
				.stretch = a->kernel * a->kernel_w,
				.row_order = channels_order(e->channels, i),
				.column_order = grouped ? NULL : channels_order(e->channels, n->in[0])};
	const char *name = value_name(e, i), *x = plane(e, n->in[0]), *w, *b = NULL;
	struct writer_node *node;

	w = tensor(e, writer_text(e->w, "%s.weight", n->name), p, &cut, 4,
		   DIMS(cut.rows, cut.columns, a->kernel, a->kernel_w));
	if (n->bias >= 0)
		b = vector(e, i, "bias", n->bias, 1, DIMS(cut.rows));
	node = writer_node(e->w, "Conv", n->name, name, IN(x, w, b));
	writer_attr_ints(e->w, node, "kernel_shape", 2, DIMS(a->kernel, a->kernel_w));
	writer_attr_ints(e->w, node, "strides", 2, DIMS(a->stride, a->stride));
	writer_attr_ints(e->w, node, "pads", 4, DIMS(a->pad, a->pad_w, a->pad, a->pad_w));
	if (grouped)
		writer_attr_int(e->w, node, "group", (int64_t)a->conv_groups * cut.rows / n->channels);
	made(e, i, name, 4);
}

static void emit_linear(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i], *from = &e->net->nodes[n->in[0]];
	const struct cut cut = {.rows = count(e, i),
				.columns = count(e, n->in[0]),
				.stretch = from->height * from->width,
				.row_order = channels_order(e->channels, i),
				.column_order = channels_order(e->channels, n->in[0])};
	const char *name = value_name(e, i), *x = features(e, n->in[0]), *w, *b = NULL;
	struct writer_node *node;

	w = tensor(e, writer_text(e->w, "%s.weight", n->name), param(e, n->weight), &cut, 2,
		   DIMS(cut.rows, (int64_t)cut.columns * cut.stretch));
	if (n->bias >= 0)
		b = vector(e, i, "bias", n->bias, 1, DIMS(cut.rows));
	node = writer_node(e->w, "Gemm", n->name, name, IN(x, w, b));
	writer_attr_int(e->w, node, "transB", 1);
	made(e, i, name, 2);
}

static void emit_batch_norm(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i];
	int set = net_batch_norm_set(e->net, n, e->rate), x = n->in[0];
	const char *name = value_name(e, i), *in[4];
	static const char *const suffixes[4] = {"weight", "bias", "running_mean", "running_var"};
	struct writer_node *node;

	for (int k = 0; k < 4; k++)
		in[k] = vector(e, i, suffixes[k], set + k, 1, DIMS(count(e, i)));
	node = writer_node(e->w, "BatchNormalization", n->name, name,
			   IN(plain(e, x), in[0], in[1], in[2], in[3]));
	writer_attr_float(e->w, node, "epsilon", n->norm.eps);
	made(e, i, name, rank_of(e, x));
}

static void emit_group_norm(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i];
	struct writer *w = e->w;
	int channels = count(e, i), rank = rank_of(e, n->in[0]);
	int groups = (int)((int64_t)n->norm.groups * channels / n->channels);
	const char *name = value_name(e, i), *split = writer_text(w, "n%d_split", i),
		   *even = writer_text(w, "n%d_even", i), *back = writer_text(w, "n%d_back", i),
		   *scaled = writer_text(w, "n%d_scaled", i),
		   *to_groups = writer_text(w, "n%d_split.shape", i),
		   *to_plane = writer_text(w, "n%d_back.shape", i), *scale, *shift, *one, *zero;
	struct writer_node *node;

	one = constants(e, writer_text(w, "n%d_even.one", i), groups, 1);
	zero = constants(e, writer_text(w, "n%d_even.zero", i), groups, 0);
	writer_ints(w, to_groups, 3, DIMS(0, groups, -1));
	writer_ints(w, to_plane, rank, DIMS(0, channels, n->height, n->width));
	scale = vector(e, i, "weight", n->weight, rank - 1, DIMS(channels, 1, 1));
	shift = vector(e, i, "bias", n->bias, rank - 1, DIMS(channels, 1, 1));
	writer_node(w, "Reshape", split, split, IN(plain(e, n->in[0]), to_groups));
	node = writer_node(w, "InstanceNormalization", n->name, even, IN(split, one, zero));
	writer_attr_float(w, node, "epsilon", n->norm.eps);
	writer_node(w, "Reshape", back, back, IN(even, to_plane));
	writer_node(w, "Mul", scaled, scaled, IN(back, scale));
	writer_node(w, "Add", name, name, IN(scaled, shift));
	made(e, i, name, rank);
}

static void emit_relu(struct exporter *e, int i)
{
	int x = e->net->nodes[i].in[0];
	const char *name = value_name(e, i);

	writer_node(e->w, "Relu", label(e, i), name, IN(plain(e, x)));
	made(e, i, name, rank_of(e, x));
}

static void emit_relu6(struct exporter *e, int i)
{
	int x = e->net->nodes[i].in[0];
	const char *name = value_name(e, i), *min = writer_text(e->w, "n%d.min", i),
		   *max = writer_text(e->w, "n%d.max", i);
	float *six;

	writer_new_floats(e->w, min, 0, NULL);
	six = writer_new_floats(e->w, max, 0, NULL);
	if (six)
		*six = 6;
	writer_node(e->w, "Clip", label(e, i), name, IN(plain(e, x), min, max));
	made(e, i, name, rank_of(e, x));
}

static void emit_add(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i];
	bool flat = rank_of(e, n->in[0]) == 2 || rank_of(e, n->in[1]) == 2;
	const char *name = value_name(e, i), *in[2];

	for (int k = 0; k < 2; k++)
		in[k] = flat ? features(e, n->in[k]) : plane(e, n->in[k]);
	if (n->add.scale != 1) {
		const char *factor = writer_text(e->w, "n%d.scale", i),
			   *scaled = writer_text(e->w, "n%d_scaled", i);

		writer_floats(e->w, factor, 0, NULL, &n->add.scale);
		writer_node(e->w, "Mul", scaled, scaled, IN(in[1], factor));
		in[1] = scaled;
	}
	writer_node(e->w, "Add", label(e, i), name, IN(in[0], in[1]));
	made(e, i, name, flat ? 2 : 4);
}

static void emit_concat(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i];
	const int *gather = channels_gather(e->channels, i);
	const char *name = value_name(e, i), *joined = gather ? writer_text(e->w, "n%d_joined", i) : name;
	struct writer_node *node =
		writer_node(e->w, "Concat", label(e, i), joined, IN(plane(e, n->in[0]), plane(e, n->in[1])));

	writer_attr_int(e->w, node, "axis", 1);
	if (gather) {
		const char *order = writer_text(e->w, "n%d.order", i);
		int64_t *places = writer_new_ints(e->w, order, count(e, i));

		for (int k = 0; places && k < count(e, i); k++)
			places[k] = gather[k];
		node = writer_node(e->w, "Gather", name, name, IN(joined, order));
		writer_attr_int(e->w, node, "axis", 1);
	}
	made(e, i, name, 4);
}

/* What changes nothing when a model is used. */
static void emit_dropout(struct exporter *e, int i)
{
	int x = e->net->nodes[i].in[0];

	made(e, i, plain(e, x), rank_of(e, x));
}

static void emit_flatten(struct exporter *e, int i)
{
	made(e, i, features(e, e->net->nodes[i].in[0]), 2);
}

static void emit_pool(struct exporter *e, int i)
{
	const struct node *n = &e->net->nodes[i];
	const struct pool_attr *a = &n->pool;
	bool average = n->op == OP_avg_pool;
	const char *name = value_name(e, i);
	struct writer_node *node = writer_node(e->w, average ? "AveragePool" : "MaxPool", label(e, i), name,
					       IN(plane(e, n->in[0])));

	writer_attr_ints(e->w, node, "kernel_shape", 2, DIMS(a->kernel, a->kernel));
	writer_attr_ints(e->w, node, "strides", 2, DIMS(a->stride, a->stride));
	writer_attr_ints(e->w, node, "pads", 4, DIMS(a->pad, a->pad, a->pad, a->pad));
	if (average)
		writer_attr_int(e->w, node, "count_include_pad", !a->exclude_pad);
	made(e, i, name, 4);
}

static void emit_global_avg_pool(struct exporter *e, int i)
{
	const char *name = value_name(e, i), *x = plane(e, e->net->nodes[i].in[0]);

	writer_node(e->w, "GlobalAveragePool", label(e, i), name, IN(x));
	made(e, i, name, 4);
}

static void (*const emits[OP_COUNT])(struct exporter *e, int i) = {
	[OP_input] = emit_input,
	[OP_conv2d] = emit_conv2d,
	[OP_linear] = emit_linear,
	[OP_group_norm] = emit_group_norm,
	[OP_batch_norm] = emit_batch_norm,
	[OP_relu] = emit_relu,
	[OP_relu6] = emit_relu6,
	[OP_add] = emit_add,
	[OP_concat] = emit_concat,
	[OP_dropout] = emit_dropout,
	[OP_max_pool] = emit_pool,
	[OP_avg_pool] = emit_pool,
	[OP_global_avg_pool] = emit_global_avg_pool,
	[OP_flatten] = emit_flatten,
};

/* Those that the output depends on, with the input. */
static void mark_used(struct exporter *e)
{
	const struct net *net = e->net;

	e->used[0] = e->used[net->output] = true;
	for (int i = net->output; i > 0; i--)
		for (int k = 0; e->used[i] && k < 2; k++)
			if (net->nodes[i].in[k] >= 0)
				e->used[net->nodes[i].in[k]] = true;
}

static int emit_all(struct exporter *e, struct err *err)
{
	const struct net *net = e->net;
	int out = net->output;

	for (int i = 0; i <= out; i++) {
		if (!e->used[i])
			continue;
		if (!emits[net->nodes[i].op])
			return err_set(err, ERR_UNSUPPORTED_OP, "%s in ONNX",
				       op_info(net->nodes[i].op)->name);
		if (net->nodes[i].op == OP_batch_norm && net_batch_norm_set(net, &net->nodes[i], e->rate) < 0)
			return err_set(err, ERR_NO_SLICE, "%g", (double)e->rate);
		emits[net->nodes[i].op](e, i);
	}
	if (net->nodes[out].op != OP_linear)
		writer_node(e->w, "Flatten", LOGITS, LOGITS, IN(plain(e, out)));
	writer_value(e->w, WRITER_OUTPUT, LOGITS, 2, DIMS(-1, net->nodes[out].channels), "before softmax");
	return 0;
}

int onnx_from_net(struct writer *w, const struct net *net, float rate, const float *mean, const float *std,
		  struct err *err)
{
	struct exporter e = {.net = net, .rate = rate, .mean = mean, .std = std, .w = w};
	struct channels *channels = NULL;
	int r = -ENOMEM;

	e.places = calloc((size_t)net->n_nodes, sizeof(*e.places));
	e.used = calloc((size_t)net->n_nodes, sizeof(*e.used));
	if (e.places && e.used) {
		mark_used(&e);
		r = channels_new(&channels, net, rate, e.used);
	}
	e.channels = channels;
	r = r < 0 ? err_set(err, ERR_NO_MEMORY, "an ONNX model") : emit_all(&e, err);
	channels_free(channels);
	free(e.places);
	free(e.used);
	return r;
}
