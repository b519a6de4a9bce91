/*
 * The interpreter: node after node in the graph's order. A value is dropped after its last use (uses counts them,
 * the graph's outputs too), so a run holds what is still needed and no more. A subgraph is run with a frame of its
 * own; the values that it takes from around are put into it first.
 */
#include "engine/onnx/half.h"
#include "engine/onnx/op.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
	const struct onnx_model *model;
	struct onnx_memory memory;
	int64_t steps;
};

struct onnx_frame {
	struct run *run;
	const struct onnx_graph *graph;
	struct onnx_tensor **values; /* those that are there now */
	int *left;                   /* uses still to come */
};

static struct onnx_tensor *value_of(const struct onnx_frame *f, int v)
{
	return f->values[v] ? f->values[v] : f->graph->values[v].constant;
}

static void drop(struct onnx_frame *f, int v)
{
	if (v < 0 || --f->left[v] > 0)
		return;
	onnx_tensor_free(f->values[v]);
	f->values[v] = NULL;
}

/* From a 16-bit type to float, or back. */
static int convert(struct onnx_call *c, struct onnx_tensor **ret, const struct onnx_tensor *t,
		   enum onnx_type type)
{
	struct onnx_tensor *to;
	int r = tensor_make(&to, type, t->rank, t->dims, c->memory, c->err);
	const uint16_t *narrow = t->data;
	const float *wide = t->data;

	if (r < 0)
		return r;
	for (size_t i = 0; i < t->count; i++) {
		if (type == ONNX_FLOAT)
			((float *)to->data)[i] = t->type == ONNX_FLOAT16 ? half_to_float(narrow[i])
									 : bfloat_to_float(narrow[i]);
		else
			((uint16_t *)to->data)[i] =
				type == ONNX_FLOAT16 ? half_of_float(wide[i]) : bfloat_of_float(wide[i]);
	}
	*ret = to;
	return 0;
}

/* Runs the op, by floats where it asks for that. in and out are the call's own. */
static int run_widened(struct onnx_call *c)
{
	enum onnx_type half = ONNX_NONE;
	struct onnx_tensor *t;
	int r;

	for (int i = 0; i < c->n_in && c->node->op->half == ONNX_WIDENS; i++) {
		if (!c->in[i] || !type_is_half(c->in[i]->type))
			continue;
		half = c->in[i]->type;
		r = convert(c, &t, c->in[i], ONNX_FLOAT);
		if (r < 0)
			return r;
		onnx_tensor_free(c->in[i]);
		c->in[i] = t;
	}
	r = c->node->op->run(c);
	if (r == 0 && c->misfit)
		r = call_fail(c, "attribute '%.60s' is of the wrong type", c->misfit->name);
	for (int i = 0; r == 0 && half && i < c->n_out; i++) {
		if (!c->out[i] || c->out[i]->type != ONNX_FLOAT)
			continue;
		r = convert(c, &t, c->out[i], half);
		if (r < 0)
			return r;
		onnx_tensor_free(c->out[i]);
		c->out[i] = t;
	}
	return r;
}

static int run_node(struct onnx_frame *f, const struct onnx_node *node, struct err *err)
{
	int room = node->op->out_max == ONNX_MANY ? node->n_out : node->op->out_max;
	struct onnx_tensor **slots =
		calloc((size_t)node->n_in + (size_t)room + 1, sizeof(struct onnx_tensor *));
	struct onnx_call c = {.node = node,
			      .in = slots,
			      .out = slots + node->n_in,
			      .n_in = node->n_in,
			      .n_out = node->n_out,
			      .version = node->version,
			      .memory = &f->run->memory,
			      .frame = f,
			      .err = err};
	int r;

	if (!slots)
		return err_set(err, ERR_NO_MEMORY, "a node's tensors");
	if (++f->run->steps > f->run->model->limits.steps) {
		r = call_fail(&c, "more than %lld nodes run", (long long)f->run->model->limits.steps);
		goto out;
	}
	for (int i = 0; i < node->n_in; i++)
		if (node->in[i] >= 0)
			c.in[i] = tensor_ref(value_of(f, node->in[i]));
	r = run_widened(&c);
	for (int i = 0; r == 0 && i < node->n_out; i++) {
		if (node->out[i] < 0)
			continue;
		if (!c.out[i])
			r = call_unsupported(&c, "output %d", i);
		else if (f->graph->values[node->out[i]].uses) {
			f->values[node->out[i]] = c.out[i];
			c.out[i] = NULL;
		}
	}
out:
	for (int i = 0; i < node->n_in + room; i++)
		onnx_tensor_free(slots[i]);
	free(slots);
	for (int i = 0; i < node->n_in; i++)
		drop(f, node->in[i]);
	for (int i = 0; i < node->n_captures; i++)
		drop(f, node->captures[i]);
	return r;
}

/* around: the frame of the graph around g, or NULL. */
static int run_graph(struct run *run, const struct onnx_graph *g, const struct onnx_frame *around,
		     struct onnx_tensor *const *in, struct onnx_tensor **out, struct err *err)
{
	size_t n = (size_t)g->n_values + 1;
	struct onnx_frame f = {.run = run,
			       .graph = g,
			       .values = calloc(n, sizeof(*f.values)),
			       .left = calloc(n, sizeof(*f.left))};
	int r = 0;

	if (!f.values || !f.left) {
		r = err_set(err, ERR_NO_MEMORY, "a graph's values");
		goto out;
	}
	for (int i = 0; i < g->n_values; i++) {
		f.left[i] = g->values[i].uses;
		if (around && g->values[i].outer >= 0)
			f.values[i] = tensor_ref(value_of(around, g->values[i].outer));
	}
	for (int i = 0; i < g->n_in; i++)
		f.values[g->in[i]] = tensor_ref(in[i]);
	for (int i = 0; r == 0 && i < g->n_nodes; i++)
		r = run_node(&f, &g->nodes[i], err);
	for (int i = 0; r == 0 && i < g->n_out; i++)
		out[i] = tensor_ref(value_of(&f, g->out[i]));
out:
	for (int i = 0; f.values && i < g->n_values; i++)
		onnx_tensor_free(f.values[i]);
	free(f.values);
	free(f.left);
	return r;
}

int call_graph(struct onnx_call *c, const struct onnx_graph *g, struct onnx_tensor *const *in, int n_in,
	       struct onnx_tensor **out, int n_out)
{
	struct run *run = c->frame->run;

	if (g->n_in != n_in || g->n_out != n_out)
		return call_fail(c, "its graph has %d inputs and %d outputs instead of %d and %d", g->n_in,
				 g->n_out, n_in, n_out);
	if (g->parent != c->frame->graph)
		return call_fail(c, "its graph is another node's");
	if (++run->steps > run->model->limits.steps) /* of a loop with an empty body, too */
		return call_fail(c, "more than %lld nodes run", (long long)run->model->limits.steps);
	return run_graph(run, g, c->frame, in, out, c->err);
}

static int check_input(const struct onnx_value *v, const struct onnx_tensor *t, struct err *err)
{
	char want[128], have[128];
	bool fits = v->rank < 0 || v->rank == t->rank;

	if (v->type && v->type != t->type)
		return err_set(err, ERR_ONNX_INPUT, "'%.100s' is %s, not %s", v->name,
			       onnx_type_name(v->type), onnx_type_name(t->type));
	for (int d = 0; fits && d < v->rank; d++)
		fits = v->dims[d] < 0 || v->dims[d] == t->dims[d];
	if (!fits)
		return err_set(err, ERR_ONNX_INPUT, "'%.60s' is %s, not %s", v->name,
			       dims_text(want, sizeof(want), v->rank, v->dims),
			       dims_text(have, sizeof(have), t->rank, t->dims));
	return 0;
}

int onnx_run(const struct onnx_model *m, struct onnx_tensor *const *in, size_t n_in, struct onnx_tensor **out,
	     size_t n_out, struct err *err)
{
	struct run run = {.model = m, .memory = {.limit = m->limits.memory, .tensor = m->limits.tensor}};
	struct err scratch = ERR_INIT; /* so that a cause is known */
	struct onnx_tensor **made;
	int r = 0;

	err = err ? err : &scratch;
	if (n_in != onnx_inputs(m) || n_out != onnx_outputs(m))
		return err_set(err, ERR_ONNX_INPUT, "it has %zu inputs and %zu outputs, not %zu and %zu",
			       onnx_inputs(m), onnx_outputs(m), n_in, n_out);
	for (size_t i = 0; r == 0 && i < n_in; i++)
		r = check_input(onnx_input(m, i), in[i], err);
	if (r < 0)
		return r;
	made = calloc(n_out + 1, sizeof(struct onnx_tensor *));
	if (!made)
		return err_set(err, ERR_NO_MEMORY, "outputs");
	r = run_graph(&run, m->graph, NULL, in, made, err);
	for (size_t i = 0; i < n_out; i++) {
		if (r == 0) {
			tensor_detach(made[i]);
			out[i] = made[i];
		} else {
			onnx_tensor_free(made[i]);
		}
	}
	free(made);
	return r;
}
