/*
 * Private to engine/onnx: from bytes to protobuf-c's structures, without trust. protobuf-c unpacks recursively and
 * takes what memory the bytes ask for; so the nesting is measured before, and its allocations draw on a budget.
 */
#ifndef ENGINE_ONNX_PROTO_H
#define ENGINE_ONNX_PROTO_H

#include "engine/onnx/tensor.h"

#include "onnx.pb-c.h"

/* The message, or NULL with the cause in err. Free it by proto_free. */
ProtobufCMessage *proto_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size,
			       const struct onnx_limits *limits, struct err *err);
void proto_free(ProtobufCMessage *message);

/* What the message says; the bytes of its raw_data are given back as soon as they are copied. */
int proto_tensor(struct onnx_tensor **ret, Onnx__TensorProto *p, struct onnx_memory *memory, struct err *err);

#endif
