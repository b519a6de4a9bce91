/*
 * ONNX models for tests, built field by field in protobuf's wire format: so that they can be wrong, too.
 *
 *	struct buf g = BUF_INIT, m;
 *	make_input4(&g, "x", 1, 3, 8, 8);
 *	make_floats(&g, "w", 4, (int64_t[]){4, 3, 3, 3}, 0, 0.1f);
 *	make_ints(&n, "pads", 4, (int64_t[]){1, 1, 1, 1});	// attributes of the next node
 *	make_node(&g, &n, "Conv", "first", "x w", "y");
 *	make_output(&g, "y");
 *	m = make_model(&g, 17);
 */
#ifndef TESTS_SUPPORT_ONNX_WIRE_H
#define TESTS_SUPPORT_ONNX_WIRE_H

#include "engine/base/buf.h"

#include <stdint.h>
#include <string.h>

/* Numbers of fields in onnx.proto */
enum { MODEL_IR = 1, MODEL_GRAPH = 7, MODEL_OPSET = 8, OPSET_VERSION = 2 };
enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
enum { NODE_IN = 1, NODE_OUT = 2, NODE_NAME = 3, NODE_OP = 4, NODE_ATTR = 5, NODE_DOMAIN = 7 };
enum {
	ATTR_NAME = 1,
	ATTR_F = 2,
	ATTR_I = 3,
	ATTR_S = 4,
	ATTR_T = 5,
	ATTR_GRAPH = 6,
	ATTR_INTS = 8,
	ATTR_TYPE = 20
};
enum { TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_FLOATS = 4, TENSOR_NAME = 8, TENSOR_RAW = 9 };
enum { TENSOR_EXTERNAL = 13, TENSOR_LOCATION = 14 };

static inline void put_varint(struct buf *b, uint64_t v)
{
	for (; v > 127; v >>= 7)
		buf_add(b, &(uint8_t){(uint8_t)(v | 128)}, 1);
	buf_add(b, &(uint8_t){(uint8_t)v}, 1);
}

static inline void put_int(struct buf *b, unsigned field, uint64_t v)
{
	put_varint(b, field << 3);
	put_varint(b, v);
}

static inline void put_bytes(struct buf *b, unsigned field, const void *data, size_t len)
{
	put_varint(b, field << 3 | 2);
	put_varint(b, len);
	buf_add(b, data, len);
}

static inline void put_string(struct buf *b, unsigned field, const char *s)
{
	put_bytes(b, field, s, strlen(s));
}

/* Puts the message, and empties it. */
static inline void put_message(struct buf *b, unsigned field, struct buf *message)
{
	put_bytes(b, field, message->data ? message->data : "", message->len);
	buf_release(message);
}

/* What a tensor says of where its data lie in another file. */
static inline void put_place(struct buf *tensor, const char *key, const char *value)
{
	struct buf entry = BUF_INIT;

	put_string(&entry, 1, key);
	put_string(&entry, 2, value);
	put_message(tensor, TENSOR_EXTERNAL, &entry);
}

static inline void put_value(struct buf *graph, unsigned field, const char *name)
{
	struct buf v = BUF_INIT;

	put_string(&v, 1, name);
	put_message(graph, field, &v);
}

/* --- whole models --- */

static inline void put_shape(struct buf *type, const int64_t *dims, int n)
{
	struct buf shape = BUF_INIT, dim = BUF_INIT;

	for (int i = 0; i < n; i++) {
		if (dims[i] >= 0)
			put_int(&dim, 1, (uint64_t)dims[i]);
		else
			put_string(&dim, 2, "n");
		put_message(&shape, 1, &dim);
	}
	put_message(type, 2, &shape);
}

/* A float input; a negative dimension is any. */
static inline void make_input4(struct buf *g, const char *name, int64_t n, int64_t c, int64_t h, int64_t w)
{
	struct buf value = BUF_INIT, type = BUF_INIT, tensor = BUF_INIT;

	put_int(&tensor, 1, 1);
	put_shape(&tensor, (int64_t[]){n, c, h, w}, 4);
	put_message(&type, 1, &tensor);
	put_string(&value, 1, name);
	put_message(&value, 2, &type);
	put_message(g, GRAPH_INPUT, &value);
}

static inline void make_output(struct buf *g, const char *name)
{
	put_value(g, GRAPH_OUTPUT, name);
}

/* Element i is around + spread · something between -1 and 1 that follows from i and the name. */
static inline void make_floats(struct buf *g, const char *name, int rank, const int64_t *dims, float around,
			       float spread)
{
	struct buf t = BUF_INIT;
	int64_t count = 1;
	uint32_t state = (uint32_t)name[0];
	float *data;

	for (int i = 0; i < rank; i++) {
		put_int(&t, TENSOR_DIMS, (uint64_t)dims[i]);
		count *= dims[i];
	}
	put_int(&t, TENSOR_TYPE, 1);
	put_string(&t, TENSOR_NAME, name);
	put_varint(&t, TENSOR_RAW << 3 | 2);
	put_varint(&t, (uint64_t)count * sizeof(*data));
	for (int64_t i = 0; i < count; i++) {
		state = state * 1664525 + 1013904223;
		float v = around + spread * ((float)(state >> 8) / (float)(1 << 23) - 1);
		buf_add(&t, &v, sizeof(v));
	}
	put_message(g, GRAPH_INITIALIZER, &t);
}

static inline void make_int64s(struct buf *g, const char *name, int n, const int64_t *v)
{
	struct buf t = BUF_INIT;

	put_int(&t, TENSOR_DIMS, (uint64_t)n);
	put_int(&t, TENSOR_TYPE, 7);
	put_string(&t, TENSOR_NAME, name);
	put_bytes(&t, TENSOR_RAW, v, (size_t)n * sizeof(*v));
	put_message(g, GRAPH_INITIALIZER, &t);
}

static inline void make_ints(struct buf *attrs, const char *name, int n, const int64_t *v)
{
	struct buf a = BUF_INIT;

	put_string(&a, ATTR_NAME, name);
	for (int i = 0; i < n; i++)
		put_int(&a, ATTR_INTS, (uint64_t)v[i]);
	put_int(&a, ATTR_TYPE, 7);
	put_message(attrs, NODE_ATTR, &a);
}

static inline void make_int(struct buf *attrs, const char *name, int64_t v)
{
	struct buf a = BUF_INIT;

	put_string(&a, ATTR_NAME, name);
	put_int(&a, ATTR_I, (uint64_t)v);
	put_int(&a, ATTR_TYPE, 2);
	put_message(attrs, NODE_ATTR, &a);
}

static inline void make_float(struct buf *attrs, const char *name, float v)
{
	struct buf a = BUF_INIT;

	put_string(&a, ATTR_NAME, name);
	put_varint(&a, ATTR_F << 3 | 5);
	buf_add(&a, &v, sizeof(v));
	put_int(&a, ATTR_TYPE, 1);
	put_message(attrs, NODE_ATTR, &a);
}

static inline void make_text(struct buf *attrs, const char *name, const char *v)
{
	struct buf a = BUF_INIT;

	put_string(&a, ATTR_NAME, name);
	put_string(&a, ATTR_S, v);
	put_int(&a, ATTR_TYPE, 3);
	put_message(attrs, NODE_ATTR, &a);
}

/* Names in ins and outs stand between single spaces. attrs is emptied; NULL: none. */
static inline void make_node(struct buf *g, struct buf *attrs, const char *op, const char *name,
			     const char *ins, const char *outs)
{
	struct buf n = BUF_INIT;

	for (size_t len; *ins; ins += len + (ins[len] == ' ')) {
		len = strcspn(ins, " ");
		put_bytes(&n, NODE_IN, ins, len);
	}
	for (size_t len; *outs; outs += len + (outs[len] == ' ')) {
		len = strcspn(outs, " ");
		put_bytes(&n, NODE_OUT, outs, len);
	}
	put_string(&n, NODE_OP, op);
	put_string(&n, NODE_NAME, name);
	if (attrs && attrs->len) {
		buf_add(&n, attrs->data, attrs->len);
		buf_release(attrs);
	}
	put_message(g, GRAPH_NODE, &n);
}

/* The graph is emptied. */
static inline struct buf make_model(struct buf *graph, int version)
{
	struct buf m = BUF_INIT, set = BUF_INIT;

	put_int(&m, MODEL_IR, 8);
	put_message(&m, MODEL_GRAPH, graph);
	put_int(&set, OPSET_VERSION, (uint64_t)version);
	put_message(&m, MODEL_OPSET, &set);
	return m;
}

#endif
