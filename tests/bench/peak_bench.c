/*
 * What the machine's multipliers give, all threads, nothing read from memory: multiply-adds of f32, dot products of bf16 and of 8-bit
 * integers, in GFLOPS (two for each multiply-add). The best of ROUNDS.
 *
 *	bench-peak [ROUNDS [THREADS]]
 */
#include "engine/base/clock.h"

#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__x86_64__)

enum { STEPS = 4000000, CHAINS = 12 }; /* chains: latency 4, two a cycle */

#define EACH(I, W)                                                                                        \
	I " %%" W "mm15, %%" W "mm15, %%" W "mm0\n" I " %%" W "mm15, %%" W "mm15, %%" W "mm1\n" I " %%" W \
	  "mm15, %%" W "mm15, %%" W "mm2\n" I " %%" W "mm15, %%" W "mm15, %%" W "mm3\n" I " %%" W         \
	  "mm15, %%" W "mm15, %%" W "mm4\n" I " %%" W "mm15, %%" W "mm15, %%" W "mm5\n" I " %%" W         \
	  "mm15, %%" W "mm15, %%" W "mm6\n" I " %%" W "mm15, %%" W "mm15, %%" W "mm7\n" I " %%" W         \
	  "mm15, %%" W "mm15, %%" W "mm8\n" I " %%" W "mm15, %%" W "mm15, %%" W "mm9\n" I " %%" W         \
	  "mm15, %%" W "mm15, %%" W "mm10\n" I " %%" W "mm15, %%" W "mm15, %%" W "mm11\n"
#define USED                                                                                              \
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
		"xmm15"

#define LOOP(name, instruction, width)                                           \
	static void name(void)                                                   \
	{                                                                        \
		__asm__ volatile("vxorps %%xmm15, %%xmm15, %%xmm15\n" ::: USED); \
		for (int i = 0; i < STEPS; i++)                                  \
			__asm__ volatile(EACH(instruction, width)::: USED);      \
	}
LOOP(fma_512, "vfmadd231ps", "z")
LOOP(fma_256, "vfmadd231ps", "y")
LOOP(bf16_512, "vdpbf16ps", "z")
LOOP(int8_512, "vpdpbusd", "z")

static void report(const char *what, void (*loop)(void), int a_chain, bool here, int rounds)
{
	double best = 0;

	if (!here) {
		printf("%s: the CPU has it not\n", what);
		return;
	}
	for (int r = 0; r < rounds; r++) {
		double start = clock_seconds(), rate;

#pragma omp parallel
		loop();
		rate = (double)STEPS * CHAINS * a_chain * omp_get_max_threads() / (clock_seconds() - start);
		best = rate > best ? rate : best;
	}
	printf("%s: %.0f GFLOPS\n", what, best * 1e-9);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 10;

	if (argc > 2)
		omp_set_num_threads(atoi(argv[2]));
	report("f32, 512 bits", fma_512, 32, __builtin_cpu_supports("avx512f"), rounds);
	report("f32, 256 bits", fma_256, 16, __builtin_cpu_supports("fma"), rounds);
	report("bf16, 512 bits", bf16_512, 64, __builtin_cpu_supports("avx512bf16"), rounds);
	report("8-bit integers, 512 bits", int8_512, 128, __builtin_cpu_supports("avx512vnni"), rounds);
	return 0;
}

#else

int main(void)
{
	puts("only for x86-64");
	return 0;
}

#endif
