/* A slice of a network as ONNX: the other direction is to_net.h. */
#ifndef ENGINE_ONNX_FROM_NET_H
#define ENGINE_ONNX_FROM_NET_H

#include "engine/net.h"
#include "engine/onnx/writer.h"

/*
 * Adds the slice to an empty model: input "images", (batch, C, H, W), of pixels scaled to 0…1, normalised by mean and std (C) within
 * the graph; output "logits", (batch, classes). Weights of the slice are copied out, those that it has whole are borrowed from the net
 * until writer_pack. -EINVAL: no slice of that rate.
 */
int onnx_from_net(struct writer *w, const struct net *net, float rate, const float *mean, const float *std,
		  struct err *err);

#endif
