/*
 * "External data": a model whose larger weights lie in a file beside it, at offsets that it says. PyTorch's exporter writes such
 * pairs, model.onnx and model.onnx.data.
 *
 *	r = onnx_embed(&whole, bytes, size, &(struct onnx_external){"model.onnx.data", data, n}, NULL, &err);
 *	if (r == 0)
 *		onnx_load(&model, whole.len ? whole.data : bytes, …);
 */
#ifndef ENGINE_ONNX_EXTERNAL_H
#define ENGINE_ONNX_EXTERNAL_H

#include "engine/base/buf.h"
#include "engine/onnx/onnx.h"

struct onnx_external {
	const char *name; /* as the model has to call it; NULL: there is none */
	const void *data;
	size_t size;
};

/*
 * The same model as one file, its weights in it; *ret stays empty where it keeps nothing elsewhere. Of what the model says nothing
 * leads anywhere but into `from`: another name is refused (ONNX_EXTERNAL), and what lies beyond its end (BAD_ONNX). Else as onnx_load.
 */
int onnx_embed(struct buf *ret, const void *data, size_t size, const struct onnx_external *from,
	       const struct onnx_limits *limits, struct err *err);

#endif
