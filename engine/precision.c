#include "engine/precision.h"

#include "engine/base/vectorised.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* With an instruction for it: a third of the time that the bits take one by one. */
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) static void round_avx512(
	const float *restrict from, uint16_t *restrict to, size_t n)
{
	for (size_t i = 0; i < n; i += 16) {
		__mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
		__m512 x = _mm512_maskz_loadu_ps(some, from + i);

		_mm256_mask_storeu_epi16(to + i, some, (__m256i)_mm512_cvtneps_pbh(x));
	}
}
#endif

VECTORISED void bf16_widen(const uint16_t *restrict from, float *restrict to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = bf16_to_f32(from[i]);
}

VECTORISED static void round_bits(const float *restrict from, uint16_t *restrict to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = f32_to_bf16(from[i]);
}

void bf16_round(const float *restrict from, uint16_t *restrict to, size_t n)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512bf16")) {
		round_avx512(from, to, n);
		return;
	}
#endif
	round_bits(from, to, n);
}
