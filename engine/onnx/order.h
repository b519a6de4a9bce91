/* Private to engine/onnx. */
#ifndef ENGINE_ONNX_ORDER_H
#define ENGINE_ONNX_ORDER_H

#include "engine/onnx/model.h"

/* Puts the nodes into an order in which each comes after those whose values it uses; those that stand right
 * stay where they are. -EBADMSG (BAD_ONNX): they use one another in a circle. */
int order_nodes(struct onnx_graph *g, struct err *err);

#endif
