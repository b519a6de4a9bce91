/* Branches and loops over subgraphs. */
#include "engine/onnx/op.h"

#include <stdlib.h>
#include <string.h>

int op_if(struct onnx_call *c)
{
	const struct onnx_tensor *condition = c->in[0];
	const struct onnx_graph *g;

	if (condition->type != ONNX_BOOL || condition->count != 1)
		return call_fail(c, "the condition has to be one bool");
	g = attr_graph(c, *(const uint8_t *)condition->data ? "then_branch" : "else_branch");
	if (!g)
		return call_fail(c, "a branch is missing");
	return call_graph(c, g, NULL, 0, c->out, c->n_out);
}

/* What a loop makes step by step, to be put one behind the other. */
struct steps {
	struct onnx_tensor **list; /* steps × n */
	size_t used, room;
};

static int steps_add(struct onnx_call *c, struct steps *s, struct onnx_tensor *t)
{
	if (s->used == s->room) {
		size_t room = s->room ? 2 * s->room : 16;
		struct onnx_tensor **grown = realloc(s->list, room * sizeof(struct onnx_tensor *));

		if (!grown)
			return err_set(c->err, ERR_NO_MEMORY, "a loop");
		s->list = grown;
		s->room = room;
	}
	s->list[s->used++] = t;
	return 0;
}

static void steps_release(struct steps *s)
{
	for (size_t i = 0; i < s->used; i++)
		onnx_tensor_free(s->list[i]);
	free(s->list);
}

/* Output i: the which-th of n of every step, with a new first dimension. said: its shape where there is no step. */
static int stack(struct onnx_call *c, int i, const struct steps *s, size_t which, size_t n,
		 const struct onnx_value *said)
{
	int64_t dims[ONNX_MAX_RANK + 1] = {n ? (int64_t)(s->used / n) : 0};
	const struct onnx_tensor *first = s->used ? s->list[which] : NULL;
	size_t bytes;
	int r;

	if (!first) {
		for (int d = 0; d < said->rank; d++)
			dims[d + 1] = said->dims[d] > 0 ? said->dims[d] : 0;
		return call_out(c, i, said->type ? said->type : ONNX_FLOAT,
				said->rank < 0 ? 1 : said->rank + 1, dims);
	}
	memcpy(dims + 1, first->dims, sizeof(first->dims));
	r = call_out(c, i, first->type, first->rank + 1, dims);
	if (r < 0)
		return r;
	bytes = first->count * onnx_type_size(first->type);
	for (size_t step = 0; step < s->used / n; step++) {
		const struct onnx_tensor *t = s->list[step * n + which];

		if (t->type != first->type || !dims_equal(t->rank, t->dims, first->rank, first->dims))
			return call_fail(c, "its steps give different shapes");
		if (bytes)
			memcpy((char *)c->out[i]->data + step * bytes, t->data, bytes);
	}
	return 0;
}

/* One run of a body on in[n_in]: the first `kept` outputs replace in[n_in - kept …], the others are steps. */
static int run_body(struct onnx_call *c, const struct onnx_graph *g, struct onnx_tensor **in, int n_in,
		    int kept, struct steps *s)
{
	struct onnx_tensor **out = calloc((size_t)g->n_out + 1, sizeof(struct onnx_tensor *));
	int r;

	if (!out)
		return err_set(c->err, ERR_NO_MEMORY, "a loop");
	r = call_graph(c, g, in, n_in, out, g->n_out);
	for (int i = 0; r == 0 && i < kept; i++) {
		onnx_tensor_free(in[n_in - kept + i]);
		in[n_in - kept + i] = out[i];
		out[i] = NULL;
	}
	for (int i = kept; r == 0 && i < g->n_out; i++) {
		r = steps_add(c, s, out[i]);
		if (r == 0)
			out[i] = NULL;
	}
	for (int i = 0; i < g->n_out; i++)
		onnx_tensor_free(out[i]);
	free(out);
	return r;
}

/* Body: step number, condition, states → condition, states, what is stacked. */
int op_loop(struct onnx_call *c)
{
	const struct onnx_tensor *most = call_in(c, 0), *go = call_in(c, 1);
	const struct onnx_graph *g = attr_graph(c, "body");
	const int states = c->n_in - 2, n_in = states + 2;
	int64_t limit = most ? (most->count ? tensor_int(most, 0) : 0) : INT64_MAX;
	struct onnx_tensor **in;
	struct steps s = {0};
	int r = 0;

	if (!g || states < 0 || g->n_in != n_in || g->n_out < states + 1 || c->n_out != g->n_out - 1)
		return call_fail(c, "the body has another number of inputs or outputs");
	if ((go && (go->type != ONNX_BOOL || go->count != 1)) || (most && most->type != ONNX_INT64))
		return call_fail(c, "the count has to be int64, the condition one bool");
	for (int i = 2; i < c->n_in; i++)
		if (!c->in[i])
			return call_fail(c, "input %d is left out", i);
	in = calloc((size_t)n_in + 1, sizeof(struct onnx_tensor *));
	if (!in)
		return err_set(c->err, ERR_NO_MEMORY, "Loop");
	for (int i = 0; i < states; i++)
		in[2 + i] = tensor_ref(c->in[2 + i]);
	in[1] = go ? tensor_ref(c->in[1]) : call_scratch(c, ONNX_BOOL, 0, NULL);
	if (!in[1])
		r = call_error(c);
	else if (!go)
		*(uint8_t *)in[1]->data = 1;
	for (int64_t i = 0; r == 0 && i < limit && *(const uint8_t *)in[1]->data; i++) {
		onnx_tensor_free(in[0]);
		in[0] = call_scratch(c, ONNX_INT64, 0, NULL);
		if (!in[0]) {
			r = call_error(c);
			break;
		}
		*(int64_t *)in[0]->data = i;
		r = run_body(c, g, in, n_in, states + 1, &s);
		if (r == 0 && (in[1]->type != ONNX_BOOL || in[1]->count != 1))
			r = call_fail(c, "the body's condition isn't one bool");
	}
	for (int i = 0; r == 0 && i < states; i++)
		call_give(c, i, tensor_ref(in[2 + i]));
	for (int i = states; r == 0 && i < c->n_out; i++)
		r = stack(c, i, &s, (size_t)(i - states), (size_t)(c->n_out - states),
			  &g->values[g->out[i + 1]].value);
	for (int i = 0; i < n_in; i++)
		onnx_tensor_free(in[i]);
	free(in);
	steps_release(&s);
	return r;
}

/* Element `step` of the first dimension, as a tensor of one dimension less. */
static struct onnx_tensor *slice_of(struct onnx_call *c, const struct onnx_tensor *t, int64_t step)
{
	struct onnx_tensor *slice = call_scratch(c, t->type, t->rank - 1, t->dims + 1);
	size_t bytes = slice ? slice->count * onnx_type_size(t->type) : 0;

	if (bytes)
		memcpy(slice->data, (const char *)t->data + (size_t)step * bytes, bytes);
	return slice;
}

/* Body: states, slices → states, what is stacked. Along the first dimensions, forward. */
int op_scan(struct onnx_call *c)
{
	static const char *const ways[] = {"scan_input_axes", "scan_output_axes", "scan_input_directions",
					   "scan_output_directions"};
	const int64_t scanned = attr_int(c, "num_scan_inputs", 0);
	const struct onnx_graph *g = attr_graph(c, "body");
	struct onnx_tensor **in;
	int states, r = 0;
	struct steps s = {0};
	int64_t n;

	for (int i = 0; i < 4; i++) {
		size_t many;
		const int64_t *list = attr_ints(c, ways[i], &many);

		for (size_t j = 0; j < many; j++)
			if (list[j])
				return call_unsupported(c, "%s other than 0", ways[i]);
	}
	if (!g || scanned < 1 || scanned > c->n_in || g->n_in != c->n_in || c->n_out != g->n_out)
		return call_fail(c, "the body has another number of inputs or outputs");
	states = c->n_in - (int)scanned;
	if (g->n_out < states)
		return call_fail(c, "the body has fewer outputs than states");
	for (int i = 0; i < c->n_in; i++)
		if (!c->in[i] ||
		    (i >= states && (c->in[i]->rank < 1 || c->in[i]->dims[0] != c->in[states]->dims[0])))
			return call_fail(c, "input %d has another number of steps, or is left out", i);
	n = c->in[states]->dims[0];
	in = calloc((size_t)c->n_in * 2 + 1, sizeof(struct onnx_tensor *));
	if (!in)
		return err_set(c->err, ERR_NO_MEMORY, "Scan");
	for (int i = 0; i < states; i++)
		in[i] = tensor_ref(c->in[i]);
	for (int64_t step = 0; r == 0 && step < n; step++) {
		struct onnx_tensor **body = in + c->n_in; /* what this step is run on */
		struct onnx_tensor **out;

		for (int i = 0; i < states; i++)
			body[i] = tensor_ref(in[i]);
		for (int i = states; r == 0 && i < c->n_in; i++) {
			body[i] = slice_of(c, c->in[i], step);
			if (!body[i])
				r = call_error(c);
		}
		out = calloc((size_t)g->n_out + 1, sizeof(struct onnx_tensor *));
		if (!out)
			r = err_set(c->err, ERR_NO_MEMORY, "Scan");
		if (r == 0)
			r = call_graph(c, g, body, c->n_in, out, g->n_out);
		for (int i = 0; r == 0 && i < states; i++) {
			onnx_tensor_free(in[i]);
			in[i] = tensor_ref(out[i]);
		}
		for (int i = states; r == 0 && i < g->n_out; i++)
			r = steps_add(c, &s, tensor_ref(out[i]));
		for (int i = 0; out && i < g->n_out; i++)
			onnx_tensor_free(out[i]);
		free(out);
		for (int i = 0; i < c->n_in; i++) {
			onnx_tensor_free(body[i]);
			body[i] = NULL;
		}
	}
	for (int i = 0; r == 0 && i < states; i++)
		call_give(c, i, tensor_ref(in[i]));
	for (int i = states; r == 0 && i < c->n_out; i++)
		r = stack(c, i, &s, (size_t)(i - states), (size_t)(c->n_out - states),
			  &g->values[g->out[i]].value);
	for (int i = 0; i < c->n_in; i++)
		onnx_tensor_free(in[i]);
	free(in);
	steps_release(&s);
	return r;
}
