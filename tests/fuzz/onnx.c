/* A model of the user's: parsing, checking, ordering; then as one whose weights lie in a file "d", of the same bytes. It isn't run. What is
 * let through must hold together. */
#include "tests/fuzz/fuzz.h"

#include "engine/onnx/external.h"
#include "engine/onnx/model.h"

#include <string.h>

static void check_graph(const struct onnx_graph *g)
{
	for (int i = 0; i < g->n_nodes; i++) {
		const struct onnx_node *n = &g->nodes[i];

		MUST(n->op);
		for (int j = 0; j < n->n_in; j++) {
			MUST(n->in[j] >= -1 && n->in[j] < g->n_values);
			MUST(n->in[j] < 0 || g->values[n->in[j]].node < i); /* made before it is used */
		}
		for (int j = 0; j < n->n_captures; j++)
			MUST(g->values[n->captures[j]].node < i);
		for (int j = 0; j < n->n_out; j++)
			MUST(n->out[j] < 0 || g->values[n->out[j]].node == i);
		for (int j = 0; j < n->n_attrs; j++)
			if (n->attrs[j].type == ONNX_ATTR_GRAPH) {
				MUST(n->attrs[j].graph->parent == g);
				check_graph(n->attrs[j].graph);
			}
	}
	for (int i = 0; i < g->n_out; i++)
		MUST(g->out[i] >= 0 && g->out[i] < g->n_values);
	for (int i = 0; i < g->n_values; i++) {
		const struct onnx_maker *v = &g->values[i];

		MUST(v->value.name && v->value.rank <= ONNX_MAX_RANK);
		MUST(v->input || v->constant || v->node >= 0 || (v->outer >= 0 && g->parent));
		MUST(!v->constant ||
		     dims_count(v->constant->rank, v->constant->dims) == (int64_t)v->constant->count);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct onnx_limits limits = {.file = 1 << 20,
					   .nodes = 1000,
					   .tensor = 1 << 20,
					   .memory = 16 << 20,
					   .depth = onnx_limits_default.depth,
					   .steps = 1000};
	struct err err = ERR_INIT;
	struct onnx_model *model;
	struct onnx_tensor *t;
	struct buf whole = BUF_INIT;

	if (onnx_load(&model, data, size, &limits, &err) == 0) {
		check_graph(model->graph);
		for (size_t i = 0; i < onnx_inputs(model); i++)
			MUST(onnx_input(model, i)->rank <= ONNX_MAX_RANK);
		onnx_free(model);
	} else {
		MUST(err.code != ERR_NONE);
	}
	err = ERR_INIT;
	if (onnx_tensor_load(&t, data, size, &err) == 0) {
		MUST(t->count == 0 ||
		     ((const uint8_t *)t->data)[t->count * onnx_type_size(t->type) - 1] <= 255);
		onnx_tensor_free(t);
	} else {
		MUST(err.code != ERR_NONE);
	}
	err = ERR_INIT;
	if (onnx_embed(&whole, data, size, &(struct onnx_external){"d", data, size}, &limits, &err) < 0)
		MUST(err.code != ERR_NONE && !whole.len);
	else
		MUST(whole.len <= limits.file);
	buf_release(&whole);
	return 0;
}
