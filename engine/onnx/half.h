/* Private to engine/onnx: the 16-bit floats. Rounds to nearest, ties to even. */
#ifndef ENGINE_ONNX_HALF_H
#define ENGINE_ONNX_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static inline uint32_t bits_of_float(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return bits;
}

static inline float half_to_float(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;

	if (exponent == 31)
		return float_of_bits(sign | 0x7f800000 | mantissa << 13);
	if (exponent)
		return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
	return float_of_bits(sign | bits_of_float((float)mantissa * 0x1p-24f));
}

static inline uint16_t half_of_float(float f)
{
	uint32_t bits = bits_of_float(f), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;

	if (rest > 0x7f800000)
		return (uint16_t)(sign | 0x7e00);
	if (rest >= 0x477ff000) /* 65520: rounds to infinity */
		return (uint16_t)(sign | 0x7c00);
	if (rest < 0x38800000) { /* below 2^-14: adding 1/2 leaves multiples of 2^-24 in the low bits */
		float sum = float_of_bits(rest) + 0.5f;

		return (uint16_t)(sign | (bits_of_float(sum) - bits_of_float(0.5f)));
	}
	rest += 0xfff + (rest >> 13 & 1);
	return (uint16_t)(sign | ((rest - 0x38000000) >> 13));
}

static inline float bfloat_to_float(uint16_t b)
{
	return float_of_bits((uint32_t)b << 16);
}

static inline uint16_t bfloat_of_float(float f)
{
	uint32_t bits = bits_of_float(f);

	if ((bits & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
