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
	PRECISION_F32,  /* 0: what is not named */
	PRECISION_BF16, /* the upper half of an f32: 8 bits of exponent, 7 of fraction */
	PRECISION_INT8, /* -128 … 127, of which 1 stands for a step that each value has for itself */
	PRECISION_UINT8 /* 0 … 255: how int8 stores what is never negative; of values, not of networks */
};
enum { N_PRECISIONS = PRECISION_INT8 + 1 };

static inline const char *precision_name(enum precision p)
{
	static const char *const names[] = {"f32", "bf16", "int8", "uint8"};

	return names[p];
}

/* The precision of that name, or -1. */
static inline int precision_find(const char *name)
{
	for (int p = 0; p < N_PRECISIONS; p++)
		if (strcmp(name, precision_name((enum precision)p)) == 0)
			return p;
	return -1;
}

/* Whether numbers of it are steps. */
static inline bool precision_steps(enum precision p)
{
	return p == PRECISION_INT8 || p == PRECISION_UINT8;
}

static inline size_t precision_size(enum precision p)
{
	return precision_steps(p) ? 1 : p == PRECISION_BF16 ? sizeof(uint16_t) : sizeof(float);
}

/* The step that makes `largest` the largest number. */
static inline float precision_step(enum precision p, float largest)
{
	return largest / (p == PRECISION_UINT8 ? 255 : 127);
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

/* n elements of any type, which do not overlap; step: of int8 and uint8. Rounding is to the nearest, ties to even, and what is beyond
 * the largest or smallest number becomes that one; NaN becomes a number, too, in steps. */
void numbers_widen(const void *restrict from, enum precision type, float step, float *restrict to, size_t n);
float numbers_largest(const float *x, size_t n); /* magnitude; NaN if there is one */
void numbers_round(const float *restrict from, void *restrict to, enum precision type, float step, size_t n);

#endif
