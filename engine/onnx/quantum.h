/* Private to engine/onnx: 8-bit numbers that stand for (q - zero point) · scale. */
#ifndef ENGINE_ONNX_QUANTUM_H
#define ENGINE_ONNX_QUANTUM_H

#include "engine/onnx/op.h"

/* Input i minus its zero point (input i_zero; 0 where that is left out) as int32. A vector of zero points runs
 * along the axis. *ret is the caller's. */
int quantum_widen(struct onnx_call *c, struct onnx_tensor **ret, int i, int i_zero, int axis);

/* Output 0, of int32, becomes round(x · scale_a · scale_b / scale_y) + zero_y in zero_y's type; the arguments say
 * which inputs these are. A vector scale_b runs along the axis; -1: the last one. */
int quantum_narrow(struct onnx_call *c, int i_scale_a, int i_scale_b, int i_scale_y, int i_zero_y, int axis);

#endif
