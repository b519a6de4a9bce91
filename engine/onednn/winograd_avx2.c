/* 16 registers: products of 6 rows with 2 vectors. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define LANES  8
#define WIDE   2
#define LESS   _mm256_min_ps
#define MORE   _mm256_max_ps
#define LOOPS  winograd_avx2
#include "engine/onednn/winograd_loops.h"
#include "engine/onednn/winograd_gradient_loops.h"
#endif
