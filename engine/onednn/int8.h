/* Private to engine/onednn: what conv2d and linear need for int8 and uint8 values. */
#ifndef ENGINE_ONEDNN_INT8_H
#define ENGINE_ONEDNN_INT8_H

#include "engine/onednn/onednn.h"

/*
 * Whether the CPU adds products of bytes in 32 bits, by AVX-512's VNNI. Without it oneDNN adds pairs of them in 16, where two of uint8
 * and int8 don't fit: results are cut, and neither accuracy nor the gain are what they should be. And with AVX2's VNNI its version 2.6.3
 * gives what is wrong, not always the same, where channels don't fill a vector (seen with 18 inputs of a 1×1 convolution, and depthwise
 * with 6). Then bytes.h has forms, but for groups of several channels.
 */
bool onednn_multiplies_bytes(void);
/* Whether oneDNN's forms can do it, where any of its values is int8 or uint8; true where none is. */
bool onednn_int8_suits(const struct op_desc *d);

/* Of the post-op's factors, one an output. */
int onednn_int8_factor_format(dnnl_memory_desc_t *ret, const struct op_desc *d);
/* Weights of an output in this slice. */
size_t onednn_int8_row(const struct op_desc *d);
/* to (out, row): the slice's weights with a norm folded in; steps (out): what 1 stands for. */
void onednn_int8_weights(const struct op_desc *d, const struct op_io *io, int8_t *to, float *steps);
/* factors and bias (out), bias NULL where there is none: as the formula in int8.c has them. */
void onednn_int8_factors(const struct op_desc *d, const struct op_io *io, const float *steps, float *factors,
			 float *bias);

#endif
