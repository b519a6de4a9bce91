/*
 * A parsed, checked and ordered ONNX model: what the interpreter runs, and what a compiler for another engine
 * reads. Everything here is owned by the model and constant after onnx_load.
 *
 * Values are numbered within their graph; nodes name their inputs and outputs by these numbers. Each value has one
 * maker: the graph's input, an initializer (constant), a node, or, in a subgraph, a value of the graph around it
 * (outer). nodes stand in an order in which every value is made before it is used, with what subgraphs use counted
 * as used by the node that holds them.
 */
#ifndef ENGINE_ONNX_MODEL_H
#define ENGINE_ONNX_MODEL_H

#include "engine/onnx/tensor.h"

#include <stdbool.h>

struct onnx_graph;
struct onnx_op; /* op.h */

enum onnx_attr_type { /* ONNX's own numbers; others are refused */
		      ONNX_ATTR_FLOAT = 1,
		      ONNX_ATTR_INT = 2,
		      ONNX_ATTR_STRING = 3,
		      ONNX_ATTR_TENSOR = 4,
		      ONNX_ATTR_GRAPH = 5,
		      ONNX_ATTR_FLOATS = 6,
		      ONNX_ATTR_INTS = 7,
		      ONNX_ATTR_STRINGS = 8,
};

struct onnx_attr {
	const char *name;
	enum onnx_attr_type type;
	size_t n; /* of the lists */
	union {
		float f;
		int64_t i;
		const char *s;
		const float *floats;
		const int64_t *ints;
		const char *const *strings;
		struct onnx_tensor *tensor;
		struct onnx_graph *graph;
	};
};

struct onnx_node {
	const char *name; /* "" where the model gives none */
	const struct onnx_op *op;
	int64_t version; /* of the operator set that the model asks for */
	int n_in, n_out, n_attrs, n_captures;
	int *in, *out; /* values; -1: left out */
	struct onnx_attr *attrs;
	int *captures; /* values that its subgraphs use */
};

struct onnx_maker {
	struct onnx_value value;
	struct onnx_tensor *constant; /* or NULL */
	int node;                     /* that makes it; -1: none */
	int outer;                    /* the value of the graph around it that it stands for; -1: none */
	int uses;                     /* inputs and captures of nodes, and graph outputs */
	bool input;
};

struct onnx_graph {
	const char *name;
	struct onnx_graph *parent; /* whose node holds this one; NULL: it is the model's */
	int n_values, n_nodes, n_in, n_out;
	struct onnx_maker *values;
	struct onnx_node *nodes;
	int *in, *out;
};

struct onnx_note {
	const char *key, *value;
};

struct onnx_model {
	struct onnx_graph *graph;
	struct onnx_limits limits;
	int64_t version;         /* of the default operator set */
	struct onnx_note *notes; /* metadata_props */
	size_t n_notes;
	struct onnx_memory memory;
	struct arena *arena; /* private to parse.c */
	struct onnx_tensor **tensors;
	size_t n_tensors, room;
};

const struct onnx_attr *onnx_attr_find(const struct onnx_node *node, const char *name); /* or NULL */

#endif
