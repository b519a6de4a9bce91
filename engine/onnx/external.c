/*
 * The message is unpacked, its tensors are made to point into the other file, and it is packed again: what nobody here knows of stays
 * in it. Before it is freed the tensors let go of these bytes.
 */
#include "engine/onnx/external.h"
#include "engine/onnx/proto.h"

#include <stdlib.h>
#include <string.h>

struct embedding {
	const struct onnx_external *from;
	size_t found, bytes, limit; /* tensors; their bytes, and how many there may be */
	struct err *err;
};

typedef int tensor_fn(struct embedding *e, Onnx__TensorProto *t);

/* Digits only. NULL: `otherwise`. */
static bool read_number(const char *text, size_t otherwise, size_t *ret)
{
	*ret = text ? 0 : otherwise;
	if (text && (!*text || strlen(text) > 18))
		return false;
	for (; text && *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		*ret = *ret * 10 + (size_t)(*text - '0');
	}
	return true;
}

static const char *value_of(const Onnx__TensorProto *t, const char *key)
{
	for (size_t i = 0; i < t->n_external_data; i++)
		if (t->external_data[i]->key && strcmp(t->external_data[i]->key, key) == 0)
			return t->external_data[i]->value ? t->external_data[i]->value : "";
	return NULL;
}

static void forget_place(Onnx__TensorProto *t)
{
	for (size_t i = 0; i < t->n_external_data; i++)
		proto_free((ProtobufCMessage *)t->external_data[i]);
	free(t->external_data);
	t->external_data = NULL;
	t->n_external_data = 0;
	t->has_data_location = 0;
	t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__DEFAULT;
}

static int embed_tensor(struct embedding *e, Onnx__TensorProto *t)
{
	const char *name = t->name && *t->name ? t->name : "unnamed", *location = value_of(t, "location");
	const int64_t count = t->n_dims > ONNX_MAX_RANK ? -1 : dims_count((int)t->n_dims, t->dims);
	const size_t size = onnx_type_size(t->data_type);
	size_t offset, length, need;

	if (t->data_location != ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
		return 0;
	if (!location || strcmp(location, e->from->name) != 0)
		return err_set(e->err, ERR_ONNX_EXTERNAL,
			       "tensor '%.100s' lies in '%.200s'; read is '%.200s'", name,
			       location ? location : "", e->from->name);
	if (!size)
		return err_set(e->err, ERR_ONNX_UNSUPPORTED, "tensors of type %s ('%.100s')",
			       onnx_type_name(t->data_type), name);
	if (count < 0 || __builtin_mul_overflow((size_t)count, size, &need))
		return err_set(e->err, ERR_BAD_ONNX, "tensor '%.100s' has an impossible shape", name);
	if (t->has_raw_data || t->n_float_data || t->n_int32_data || t->n_int64_data || t->n_double_data ||
	    t->n_uint64_data || t->n_string_data)
		return err_set(e->err, ERR_BAD_ONNX, "tensor '%.100s' has data here and elsewhere", name);
	if (!read_number(value_of(t, "offset"), 0, &offset) ||
	    !read_number(value_of(t, "length"), need, &length) || length != need || offset > e->from->size ||
	    length > e->from->size - offset)
		return err_set(e->err, ERR_BAD_ONNX,
			       "tensor '%.100s' of %zu bytes isn't in '%.200s', which has %zu", name, need,
			       e->from->name, e->from->size);
	if (length > e->limit - e->bytes)
		return err_set(e->err, ERR_ONNX_LIMIT, "its weights have more than %zu bytes", e->limit);
	e->bytes += length;
	e->found++;
	forget_place(t);
	t->has_raw_data = 1;
	t->raw_data = (ProtobufCBinaryData){.len = length,
					    .data = length ? (uint8_t *)e->from->data + offset : NULL};
	return 0;
}

static int let_go(struct embedding *e, Onnx__TensorProto *t)
{
	const uint8_t *from = e->from->data;

	if (t->has_raw_data && t->raw_data.data >= from && t->raw_data.data < from + e->from->size)
		t->raw_data = (ProtobufCBinaryData){0};
	return 0;
}

/* Graphs in graphs are no deeper than proto_unpack lets them be. */
static int each_tensor(struct embedding *e, Onnx__GraphProto *g, tensor_fn *fn)
{
	int r = 0;

	for (size_t i = 0; r == 0 && g && i < g->n_initializer; i++)
		r = fn(e, g->initializer[i]);
	for (size_t i = 0; g && i < g->n_node; i++)
		for (size_t k = 0; r == 0 && k < g->node[i]->n_attribute; k++) {
			Onnx__AttributeProto *a = g->node[i]->attribute[k];

			if (a->t)
				r = fn(e, a->t);
			if (r == 0)
				r = each_tensor(e, a->g, fn);
		}
	return r;
}

int onnx_embed(struct buf *ret, const void *data, size_t size, const struct onnx_external *from,
	       const struct onnx_limits *limits, struct err *err)
{
	struct err scratch = ERR_INIT; /* so that a cause is known */
	struct embedding e = {.from = from, .err = err ? err : &scratch};
	Onnx__ModelProto *model;
	size_t len;
	int r;

	limits = limits ? limits : &onnx_limits_default;
	e.limit = limits->file;
	model = (Onnx__ModelProto *)proto_unpack(&onnx__model_proto__descriptor, data, size, limits, e.err);
	if (!model)
		return -err_errno(e.err->code);
	r = each_tensor(&e, model->graph, embed_tensor);
	len = r == 0 && e.found ? protobuf_c_message_get_packed_size(&model->base) : 0;
	if (len > limits->file)
		r = err_set(e.err, ERR_ONNX_LIMIT, "%zu bytes with its weights; at most %zu", len,
			    limits->file);
	if (r == 0 && len) {
		char *to = buf_reserve(ret, len);

		if (to)
			ret->len += protobuf_c_message_pack(&model->base, (uint8_t *)to);
		else
			r = err_set(e.err, ERR_NO_MEMORY, "a model with its weights");
	}
	each_tensor(&e, model->graph, let_go);
	proto_free(&model->base);
	return r;
}
