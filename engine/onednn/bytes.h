/*
 * Private to engine/onednn: conv2d and linear of int8 and uint8 values on CPUs that have AVX2 and no instruction that sums products of
 * bytes in 32 bits. oneDNN 2.6 has no right form there (int8.h).
 */
#ifndef ENGINE_ONEDNN_BYTES_H
#define ENGINE_ONEDNN_BYTES_H

#include "engine/onednn/onednn.h"

bool bytes_here(void); /* whether this is such a CPU */
/* Whether it is, and these loops can do it: d->x_type is int8 or uint8, there is one group, or each channel is one. */
bool bytes_suits(const struct op_desc *d);
/* What op_impl.create does, for an op that suits. */
int bytes_create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err);

#endif
