#include "engine/precision.h"

#include "engine/base/vectorised.h"

VECTORISED void bf16_widen(const uint16_t *restrict from, float *restrict to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = bf16_to_f32(from[i]);
}

VECTORISED void bf16_round(const float *restrict from, uint16_t *restrict to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = f32_to_bf16(from[i]);
}
