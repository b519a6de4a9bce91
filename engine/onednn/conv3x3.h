/* Private to engine/onednn: a form of conv2d. */
#ifndef ENGINE_ONEDNN_CONV3X3_H
#define ENGINE_ONEDNN_CONV3X3_H

#include "engine/onednn/onednn.h"

/* Whether a convolution can and should be run by conv3x3_create's kernel. */
bool conv3x3_suits(const struct op_desc *d);
bool conv3x3_made(const struct kernel *k); /* whether by conv3x3_create */
int conv3x3_create(struct kernel **ret, const struct op_desc *d, struct kernel *sibling, struct err *err);

#endif
