/* Kahn's algorithm; a node's inputs are counted once for each time they stand there, which comes to the same. */
#include "engine/onnx/op.h"
#include "engine/onnx/order.h"

#include <stdlib.h>
#include <string.h>

/* The node that makes the i-th value this one waits for, or -1. */
static int waits_for(const struct onnx_graph *g, const struct onnx_node *n, int i)
{
	int v = i < n->n_in ? n->in[i] : n->captures[i - n->n_in];

	return v < 0 ? -1 : g->values[v].node;
}

static bool is_ordered(const struct onnx_graph *g)
{
	for (int i = 0; i < g->n_nodes; i++)
		for (int j = 0; j < g->nodes[i].n_in + g->nodes[i].n_captures; j++)
			if (waits_for(g, &g->nodes[i], j) >= i)
				return false;
	return true;
}

int order_nodes(struct onnx_graph *g, struct err *err)
{
	size_t n = (size_t)g->n_nodes, edges = 0, head = 0, tail = 0;
	int *waits, *first, *next, *queue;
	struct onnx_node *sorted;
	int r = 0;

	if (is_ordered(g))
		return 0;
	for (size_t i = 0; i < n; i++)
		edges += (size_t)g->nodes[i].n_in + (size_t)g->nodes[i].n_captures;
	waits = calloc(n, sizeof(*waits));
	first = calloc(n + 1, sizeof(*first)); /* of its users in next */
	next = calloc(edges + 1, sizeof(*next));
	queue = calloc(n, sizeof(*queue));
	sorted = calloc(n, sizeof(*sorted));
	if (!waits || !first || !next || !queue || !sorted) {
		r = err_set(err, ERR_NO_MEMORY, "a model");
		goto out;
	}
	for (int pass = 0; pass < 2; pass++) { /* count the users of each node, then list them */
		for (size_t i = 0; i < n; i++)
			for (int j = 0; j < g->nodes[i].n_in + g->nodes[i].n_captures; j++) {
				int maker = waits_for(g, &g->nodes[i], j);

				if (maker < 0)
					continue;
				if (pass == 0) {
					first[maker + 1]++;
					waits[i]++;
				} else {
					next[first[maker]++] = (int)i;
				}
			}
		for (size_t i = 0; pass == 0 && i < n; i++)
			first[i + 1] += first[i];
	}
	for (size_t i = n; i > 0; i--) /* filling moved each to the begin of the one after it */
		first[i] = first[i - 1];
	first[0] = 0;
	for (size_t i = 0; i < n; i++)
		if (!waits[i])
			queue[tail++] = (int)i;
	while (head < tail) {
		int i = queue[head];

		sorted[head++] = g->nodes[i];
		for (int j = first[i]; j < first[i + 1]; j++)
			if (--waits[next[j]] == 0)
				queue[tail++] = next[j];
	}
	if (tail < n) {
		size_t i = 0;

		while (!waits[i])
			i++;
		r = err_set(err, ERR_BAD_ONNX, "%s, node '%.100s': its inputs depend on its outputs",
			    g->nodes[i].op->type, g->nodes[i].name);
		goto out;
	}
	memcpy(g->nodes, sorted, n * sizeof(*sorted));
	for (int i = 0; i < g->n_nodes; i++)
		for (int j = 0; j < g->nodes[i].n_out; j++)
			if (g->nodes[i].out[j] >= 0)
				g->values[g->nodes[i].out[j]].node = i;
out:
	free(waits);
	free(first);
	free(next);
	free(queue);
	free(sorted);
	return r;
}
