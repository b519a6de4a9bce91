/*
 * protobuf-c's structures, all in one arena; the lists of pointers to them grow beside it. Operator set 13 and format 7 are of 2021: the
 * oldest in which all that we write means what it means today, so any reader knows them.
 */
#include "engine/onnx/writer.h"

#include "engine/onnx/arena.h"
#include "engine/onnx/onnx.h"

#include "onnx.pb-c.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 7, OPERATORS = 13 };

#define BATCH "batch"

struct list {
	void **items;
	size_t n, room;
};

struct writer {
	struct arena *arena;
	struct list nodes, tensors, ends[2], metadata;
	bool failed;
};

struct writer_node {
	Onnx__NodeProto proto; /* first: the list's items are this */
	Onnx__AttributeProto *attrs[8];
};

int writer_new(struct writer **ret)
{
	struct writer *w = calloc(1, sizeof(*w));
	int r = w ? arena_new(&w->arena) : -ENOMEM;

	if (r < 0) {
		free(w);
		return r;
	}
	*ret = w;
	return 0;
}

void writer_free(struct writer *w)
{
	if (!w)
		return;
	free(w->nodes.items);
	free(w->tensors.items);
	free(w->ends[WRITER_INPUT].items);
	free(w->ends[WRITER_OUTPUT].items);
	free(w->metadata.items);
	arena_free(w->arena);
	free(w);
}

/* From here on NULL is without memory, noted. */
static void *alloc(struct writer *w, size_t n, size_t size)
{
	void *p = arena_alloc(w->arena, n, size);

	w->failed |= !p;
	return p;
}

static void push(struct writer *w, struct list *list, void *item)
{
	if (list->n == list->room) {
		size_t room = list->room ? 2 * list->room : 64;
		void **grown = realloc(list->items, room * sizeof(*grown));

		if (!grown) {
			w->failed = true;
			return;
		}
		list->items = grown;
		list->room = room;
	}
	list->items[list->n++] = item;
}

const char *writer_text(struct writer *w, const char *fmt, ...)
{
	char *text = NULL;
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n >= 0)
		text = alloc(w, (size_t)n + 1, 1);
	if (!text)
		return NULL;
	va_start(args, fmt);
	vsnprintf(text, (size_t)n + 1, fmt, args);
	va_end(args);
	return text;
}

/* protobuf-c's structures have no const. */
static char *copy(struct writer *w, const char *s)
{
	char *text = s ? arena_string(w->arena, s, strlen(s)) : NULL;

	w->failed |= !text;
	return text;
}

static int64_t *copy_ints(struct writer *w, int n, const int64_t *values)
{
	int64_t *own = alloc(w, (size_t)n, sizeof(*own));

	if (own && n)
		memcpy(own, values, (size_t)n * sizeof(*own));
	return own;
}

/* --- values --- */

static Onnx__TypeProto *float_type(struct writer *w, int rank, const int64_t *dims)
{
	Onnx__TypeProto *type = alloc(w, 1, sizeof(*type));
	Onnx__TypeProto__Tensor *tensor = alloc(w, 1, sizeof(*tensor));
	Onnx__TensorShapeProto *shape = alloc(w, 1, sizeof(*shape));
	Onnx__TensorShapeProto__Dimension **list =
		alloc(w, (size_t)rank, sizeof(Onnx__TensorShapeProto__Dimension *));

	if (!type || !tensor || !shape || !list)
		return NULL;
	for (int i = 0; i < rank; i++) {
		Onnx__TensorShapeProto__Dimension *d = list[i] = alloc(w, 1, sizeof(*d));

		if (!d)
			return NULL;
		onnx__tensor_shape_proto__dimension__init(d);
		if (dims[i] >= 0) {
			d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
			d->dim_value = dims[i];
		} else {
			d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
			d->dim_param = copy(w, BATCH);
		}
	}
	onnx__tensor_shape_proto__init(shape);
	shape->n_dim = (size_t)rank;
	shape->dim = list;
	onnx__type_proto__tensor__init(tensor);
	tensor->has_elem_type = 1;
	tensor->elem_type = ONNX_FLOAT;
	tensor->shape = shape;
	onnx__type_proto__init(type);
	type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
	type->tensor_type = tensor;
	return type;
}

void writer_value(struct writer *w, enum writer_end end, const char *name, int rank, const int64_t *dims,
		  const char *doc)
{
	Onnx__ValueInfoProto *v = alloc(w, 1, sizeof(*v));

	if (!v)
		return;
	onnx__value_info_proto__init(v);
	v->name = copy(w, name);
	v->type = float_type(w, rank, dims);
	v->doc_string = doc ? copy(w, doc) : NULL;
	push(w, &w->ends[end], v);
}

static void add_tensor(struct writer *w, const char *name, enum onnx_type type, int rank, const int64_t *dims,
		       void *data)
{
	Onnx__TensorProto *t = alloc(w, 1, sizeof(*t));
	size_t bytes = onnx_type_size(type);

	if (!t || !data)
		return;
	for (int i = 0; i < rank; i++)
		bytes *= (size_t)dims[i];
	onnx__tensor_proto__init(t);
	t->name = copy(w, name);
	t->has_data_type = 1;
	t->data_type = type;
	t->n_dims = (size_t)rank;
	t->dims = copy_ints(w, rank, dims);
	t->has_raw_data = 1;
	t->raw_data = (ProtobufCBinaryData){.len = bytes, .data = data};
	push(w, &w->tensors, t);
}

void writer_floats(struct writer *w, const char *name, int rank, const int64_t *dims, const float *values)
{
	/* packing only reads it; the structure has no const */
	add_tensor(w, name, ONNX_FLOAT, rank, dims, (void *)(uintptr_t)values);
}

float *writer_new_floats(struct writer *w, const char *name, int rank, const int64_t *dims)
{
	size_t n = 1;
	float *values;

	for (int i = 0; i < rank; i++)
		n *= (size_t)dims[i];
	values = alloc(w, n, sizeof(*values));
	add_tensor(w, name, ONNX_FLOAT, rank, dims, values);
	return values;
}

int64_t *writer_new_ints(struct writer *w, const char *name, int n)
{
	int64_t dims[1] = {n}, *values = alloc(w, (size_t)n, sizeof(*values));

	add_tensor(w, name, ONNX_INT64, 1, dims, values);
	return values;
}

void writer_ints(struct writer *w, const char *name, int n, const int64_t *values)
{
	int64_t *own = writer_new_ints(w, name, n);

	if (own)
		memcpy(own, values, (size_t)n * sizeof(*own));
}

/* --- nodes --- */

struct writer_node *writer_node(struct writer *w, const char *type, const char *name, const char *out,
				const char *const *in)
{
	struct writer_node *node = alloc(w, 1, sizeof(*node));
	char **names;
	size_t n = 0;

	while (in[n])
		n++;
	names = alloc(w, n + 1, sizeof(*names));
	if (!node || !names)
		return NULL;
	for (size_t i = 0; i < n; i++)
		names[i] = copy(w, in[i]);
	names[n] = copy(w, out);
	onnx__node_proto__init(&node->proto);
	node->proto.op_type = copy(w, type);
	node->proto.name = copy(w, name);
	node->proto.n_input = n;
	node->proto.input = names;
	node->proto.n_output = 1;
	node->proto.output = names + n;
	node->proto.attribute = node->attrs;
	push(w, &w->nodes, node);
	return node;
}

static Onnx__AttributeProto *add_attr(struct writer *w, struct writer_node *node, const char *name,
				      Onnx__AttributeProto__AttributeType type)
{
	Onnx__AttributeProto *attr = node ? alloc(w, 1, sizeof(*attr)) : NULL;

	if (!attr)
		return NULL;
	if (node->proto.n_attribute == sizeof(node->attrs) / sizeof(node->attrs[0])) {
		w->failed = true;
		return NULL;
	}
	onnx__attribute_proto__init(attr);
	attr->name = copy(w, name);
	attr->has_type = 1;
	attr->type = type;
	node->attrs[node->proto.n_attribute++] = attr;
	return attr;
}

void writer_attr_int(struct writer *w, struct writer_node *node, const char *name, int64_t value)
{
	Onnx__AttributeProto *attr = add_attr(w, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);

	if (!attr)
		return;
	attr->has_i = 1;
	attr->i = value;
}

void writer_attr_float(struct writer *w, struct writer_node *node, const char *name, float value)
{
	Onnx__AttributeProto *attr = add_attr(w, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);

	if (!attr)
		return;
	attr->has_f = 1;
	attr->f = value;
}

void writer_attr_ints(struct writer *w, struct writer_node *node, const char *name, int n,
		      const int64_t *values)
{
	Onnx__AttributeProto *attr = add_attr(w, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);

	if (!attr)
		return;
	attr->ints = copy_ints(w, n, values);
	attr->n_ints = attr->ints ? (size_t)n : 0;
}

void writer_metadata(struct writer *w, const char *key, const char *value)
{
	Onnx__StringStringEntryProto *e = alloc(w, 1, sizeof(*e));

	if (!e)
		return;
	onnx__string_string_entry_proto__init(e);
	e->key = copy(w, key);
	e->value = copy(w, value);
	push(w, &w->metadata, e);
}

/* --- the file --- */

int writer_pack(struct writer *w, const char *graph, const char *doc, struct buf *ret, struct err *err)
{
	Onnx__OperatorSetIdProto set = ONNX__OPERATOR_SET_ID_PROTO__INIT, *sets[1] = {&set};
	Onnx__GraphProto g = ONNX__GRAPH_PROTO__INIT;
	Onnx__ModelProto m = ONNX__MODEL_PROTO__INIT;
	static char domain[] = "", producer[] = "inferfs", version[] = INFERFS_VERSION;
	size_t size;
	char *at;

	g.name = copy(w, graph);
	g.n_node = w->nodes.n;
	g.node = (Onnx__NodeProto **)w->nodes.items;
	g.n_initializer = w->tensors.n;
	g.initializer = (Onnx__TensorProto **)w->tensors.items;
	g.n_input = w->ends[WRITER_INPUT].n;
	g.input = (Onnx__ValueInfoProto **)w->ends[WRITER_INPUT].items;
	g.n_output = w->ends[WRITER_OUTPUT].n;
	g.output = (Onnx__ValueInfoProto **)w->ends[WRITER_OUTPUT].items;
	set.domain = domain;
	set.has_version = 1;
	set.version = OPERATORS;
	m.has_ir_version = 1;
	m.ir_version = FORMAT;
	m.n_opset_import = 1;
	m.opset_import = sets;
	m.producer_name = producer;
	m.producer_version = version;
	m.doc_string = doc ? copy(w, doc) : NULL;
	m.graph = &g;
	m.n_metadata_props = w->metadata.n;
	m.metadata_props = (Onnx__StringStringEntryProto **)w->metadata.items;
	if (w->failed)
		goto no_memory;
	size = onnx__model_proto__get_packed_size(&m);
	if (size > onnx_limits_default.file)
		return err_set(err, ERR_ONNX_LIMIT, "%zu bytes; at most %zu", size, onnx_limits_default.file);
	at = buf_reserve(ret, size);
	if (!at)
		goto no_memory;
	ret->len += onnx__model_proto__pack(&m, (uint8_t *)at);
	return 0;
no_memory:
	return err_set(err, ERR_NO_MEMORY, "an ONNX model");
}
