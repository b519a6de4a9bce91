/* 32 registers: products of 6 rows with 4 vectors, or 12 with 2. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,fma")))
#define LANES  16
#define WIDE   4
#define LESS   _mm512_min_ps
#define MORE   _mm512_max_ps
#define LOOPS  winograd_avx512
#include "engine/onednn/winograd_loops.h"
#include "engine/onednn/winograd_gradient_loops.h"
#endif
