/*
 * In what numbers a network's activations are stored and its weights multiplied. Accumulation, biases, norms'
 * statistics and all of training are f32 in any.
 */
#ifndef ENGINE_PRECISION_H
#define ENGINE_PRECISION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum precision {
	PRECISION_F32, /* 0: what is not named */
	PRECISION_BF16 /* the upper half of an f32: 8 bits of exponent, 7 of fraction */
};
enum { N_PRECISIONS = PRECISION_BF16 + 1 };

static inline const char *precision_name(enum precision p)
{
	return p == PRECISION_BF16 ? "bf16" : "f32";
}

/* The precision of that name, or -1. */
static inline int precision_find(const char *name)
{
	for (int p = 0; p < N_PRECISIONS; p++)
		if (strcmp(name, precision_name((enum precision)p)) == 0)
			return p;
	return -1;
}

static inline size_t precision_size(enum precision p)
{
	return p == PRECISION_BF16 ? sizeof(uint16_t) : sizeof(float);
}

static inline float bf16_to_f32(uint16_t b)
{
	uint32_t bits = (uint32_t)b << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* To the nearest, ties to even; NaN stays one. */
static inline uint16_t f32_to_bf16(float f)
{
	uint32_t bits, nan;

	memcpy(&bits, &f, sizeof(bits));
	nan = (bits & 0x7fffffff) > 0x7f800000;
	return (uint16_t)((nan ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* n elements, which do not overlap. Rounded as by f32_to_bf16, but what is below 2^-126 may become 0 (the CPU's own
 * instruction does that). */
void bf16_widen(const uint16_t *restrict from, float *restrict to, size_t n);
void bf16_round(const float *restrict from, uint16_t *restrict to, size_t n);

#endif
