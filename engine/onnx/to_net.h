/*
 * From an ONNX graph to a network of our own (engine/net.h), which then runs at the engine's full speed, in every precision, and can be
 * explained. Every node has to have a counterpart there; what hasn't is the interpreter's (onnx.h).
 */
#ifndef ENGINE_ONNX_TO_NET_H
#define ENGINE_ONNX_TO_NET_H

#include "engine/net.h"
#include "engine/onnx/model.h"

/* How images go into a model: its one input, (N, C, H, W) or (N, H, W, C) floats. */
struct onnx_image {
	int channels, height, width;
	bool nhwc;
	int batch; /* of one run; 0: any */
};

/*
 * What the model's input says. Sides that it leaves open are those of *ret (0 there: not known either). -EOPNOTSUPP (NO_IMAGES): it
 * isn't an input of images, or its sides aren't known.
 */
int onnx_image(struct onnx_image *ret, const struct onnx_model *m, struct err *err);

/* Its output comes out of a softmax. */
bool onnx_gives_probabilities(const struct onnx_model *m);

/*
 * The same function as a network with weights, without a softmax at its end. Nothing of the model is used afterwards. -EOPNOTSUPP
 * (UNSUPPORTED_OP): a node without a counterpart; the detail names it. -ENOMEM.
 */
int onnx_to_net(struct net **ret, const struct onnx_model *m, const struct onnx_image *image,
		struct err *err);

#endif
