#include "engine/onnx/proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* protobuf's wire format: a key (field number, wire type) before each field. */
enum { WIRE_VARINT, WIRE_64, WIRE_LENGTH, WIRE_32 = 5 };

static int varint(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
	uint64_t value = 0;

	for (int shift = 0; shift < 64; shift += 7) {
		if (*p == end)
			return -EBADMSG;
		value |= (uint64_t)(**p & 127) << shift;
		if (*(*p)++ < 128) {
			*ret = value;
			return 0;
		}
	}
	return -EBADMSG;
}

/* No deeper than depth, and no second value of what holds one message: protobuf-c would merge the two. */
static int measure(const ProtobufCMessageDescriptor *type, const uint8_t *p, const uint8_t *end, int depth,
		   struct err *err)
{
	uint64_t seen = 0;

	if (depth <= 0)
		return err_set(err, ERR_ONNX_LIMIT, "messages are nested too deeply (%s)", type->short_name);
	while (p < end) {
		const ProtobufCFieldDescriptor *field;
		uint64_t key, len;
		size_t left;
		int r;

		if (varint(&p, end, &key) < 0)
			goto broken;
		field = key >> 3 <= UINT32_MAX
				? protobuf_c_message_descriptor_get_field(type, (unsigned)(key >> 3))
				: NULL;
		left = (size_t)(end - p);
		switch (key & 7) {
		case WIRE_VARINT:
			if (varint(&p, end, &len) < 0)
				goto broken;
			continue;
		case WIRE_64:
			len = 8;
			break;
		case WIRE_32:
			len = 4;
			break;
		case WIRE_LENGTH:
			if (varint(&p, end, &len) < 0)
				goto broken;
			left = (size_t)(end - p);
			break;
		default:
			goto broken;
		}
		if (len > left)
			goto broken;
		if ((key & 7) == WIRE_LENGTH && field && field->type == PROTOBUF_C_TYPE_MESSAGE) {
			if (field->label != PROTOBUF_C_LABEL_REPEATED) {
				uint64_t bit = UINT64_C(1) << ((field - type->fields) & 63);

				if (seen & bit)
					return err_set(err, ERR_BAD_ONNX, "%s has two of %s",
						       type->short_name, field->name);
				seen |= bit;
			}
			r = measure(field->descriptor, p, p + len, depth - 1, err);
			if (r < 0)
				return r;
		}
		p += len;
	}
	return 0;
broken:
	return err_set(err, ERR_BAD_ONNX, "not protobuf, or cut short (in %s)", type->short_name);
}

static void *budget_alloc(void *data, size_t size)
{
	size_t *left = data;

	if (size > *left)
		return NULL;
	*left -= size;
	return malloc(size + !size);
}

static void budget_free(void *data, void *p)
{
	(void)data;
	free(p);
}

ProtobufCMessage *proto_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size,
			       const struct onnx_limits *limits, struct err *err)
{
	size_t left = limits->memory;
	ProtobufCAllocator budget = {budget_alloc, budget_free, &left};
	ProtobufCMessage *message;

	if (size > limits->file) {
		err_set(err, ERR_ONNX_LIMIT, "%zu bytes; at most %zu", size, limits->file);
		return NULL;
	}
	if (measure(type, data, (const uint8_t *)data + size, limits->depth, err) < 0)
		return NULL;
	message = protobuf_c_message_unpack(type, &budget, size, data);
	if (!message) {
		if (left < limits->memory / 2)
			err_set(err, ERR_ONNX_LIMIT, "parsing would take more than %zu bytes",
				limits->memory);
		else
			err_set(err, ERR_BAD_ONNX, "not a %s", type->short_name);
	}
	return message;
}

void proto_free(ProtobufCMessage *message)
{
	ProtobufCAllocator plain = {budget_alloc, budget_free, NULL};

	if (message)
		protobuf_c_message_free_unpacked(message, &plain);
}

/* The list of p that holds its type, and how many elements that has. */
static const void *typed_data(const Onnx__TensorProto *p, size_t *n)
{
	switch (p->data_type) {
	case ONNX_FLOAT:
		*n = p->n_float_data;
		return p->float_data;
	case ONNX_DOUBLE:
		*n = p->n_double_data;
		return p->double_data;
	case ONNX_INT64:
		*n = p->n_int64_data;
		return p->int64_data;
	case ONNX_UINT32:
	case ONNX_UINT64:
		*n = p->n_uint64_data;
		return p->uint64_data;
	default:
		*n = p->n_int32_data;
		return p->int32_data;
	}
}

static void copy_typed(struct onnx_tensor *t, const void *from)
{
	const int32_t *narrow = from;

	switch (t->type) {
	case ONNX_FLOAT:
	case ONNX_DOUBLE:
	case ONNX_INT32:
	case ONNX_INT64:
	case ONNX_UINT64:
		memcpy(t->data, from, t->count * onnx_type_size(t->type));
		break;
	case ONNX_UINT32:
		for (size_t i = 0; i < t->count; i++)
			((uint32_t *)t->data)[i] = (uint32_t)((const uint64_t *)from)[i];
		break;
	case ONNX_BOOL:
		for (size_t i = 0; i < t->count; i++)
			((uint8_t *)t->data)[i] = narrow[i] != 0;
		break;
	default: /* one or two bytes of an int32 */
		for (size_t i = 0; i < t->count; i++) {
			if (onnx_type_size(t->type) == 1)
				((uint8_t *)t->data)[i] = (uint8_t)narrow[i];
			else
				((uint16_t *)t->data)[i] = (uint16_t)narrow[i];
		}
	}
}

static const char *external_place(const Onnx__TensorProto *p)
{
	for (size_t i = 0; i < p->n_external_data; i++)
		if (p->external_data[i]->key && strcmp(p->external_data[i]->key, "location") == 0 &&
		    p->external_data[i]->value)
			return p->external_data[i]->value;
	return "";
}

int proto_tensor(struct onnx_tensor **ret, Onnx__TensorProto *p, struct onnx_memory *memory, struct err *err)
{
	const char *name = p->name && *p->name ? p->name : "unnamed";
	size_t size = onnx_type_size(p->data_type), n;
	const void *typed;
	struct onnx_tensor *t;
	int64_t count;
	int r;

	if (p->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL || p->n_external_data)
		return err_set(err, ERR_ONNX_EXTERNAL, "tensor '%.100s' lies in '%.200s', which isn't here",
			       name, external_place(p));
	if (p->segment)
		return err_set(err, ERR_ONNX_UNSUPPORTED, "a tensor in segments ('%.100s')", name);
	if (!size)
		return err_set(err, ERR_ONNX_UNSUPPORTED, "tensors of type %s ('%.100s')",
			       onnx_type_name(p->data_type), name);
	if (p->n_dims > ONNX_MAX_RANK)
		return err_set(err, ERR_ONNX_LIMIT, "tensor '%.100s' of rank %zu; at most %d", name,
			       p->n_dims, ONNX_MAX_RANK);
	count = dims_count((int)p->n_dims, p->dims);
	typed = typed_data(p, &n);
	/* before anything is taken for what the file only claims */
	if (count < 0)
		return err_set(err, ERR_BAD_ONNX, "tensor '%.100s' has an impossible shape", name);
	if (p->has_raw_data ? p->raw_data.len != (size_t)count * size : n != (size_t)count)
		return err_set(err, ERR_BAD_ONNX,
			       "tensor '%.100s' has %lld elements by its shape, and data for %zu", name,
			       (long long)count, p->has_raw_data ? p->raw_data.len / size : n);
	r = tensor_make(&t, (enum onnx_type)p->data_type, (int)p->n_dims, p->dims, memory, err);
	if (r < 0)
		return r;
	if (count && !p->has_raw_data)
		copy_typed(t, typed);
	else if (count)
		memcpy(t->data, p->raw_data.data, p->raw_data.len);
	if (p->has_raw_data) {
		free(p->raw_data.data); /* from budget_alloc */
		p->raw_data = (ProtobufCBinaryData){0};
		p->has_raw_data = 0;
	}
	if (t->type == ONNX_BOOL)
		for (size_t i = 0; i < t->count; i++)
			((uint8_t *)t->data)[i] = ((uint8_t *)t->data)[i] != 0;
	*ret = t;
	return 0;
}

int onnx_tensor_load(struct onnx_tensor **ret, const void *data, size_t size, struct err *err)
{
	struct err scratch = ERR_INIT; /* so that a cause is known */
	ProtobufCMessage *message;
	int r;

	err = err ? err : &scratch;
	message = proto_unpack(&onnx__tensor_proto__descriptor, data, size, &onnx_limits_default, err);
	if (!message)
		return -err_errno(err->code);
	r = proto_tensor(ret, (Onnx__TensorProto *)message, NULL, err);
	proto_free(message);
	return r;
}
