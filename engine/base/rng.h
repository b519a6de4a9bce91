/*
 * Random numbers from a counter: the i-th number of a (seed, stream) is a pure function of the three, so a
 * resumed run needs no saved state. Output i is splitmix64's finaliser (Steele, Lea & Flood 2014, with
 * Stafford's constants) of key + i × golden ratio. Not for secrets.
 *
 *	struct rng rng = rng_init(seed, epoch);
 *	i = rng_below(&rng, n);
 */
#ifndef ENGINE_BASE_RNG_H
#define ENGINE_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

#define RNG_GOLDEN 0x9e3779b97f4a7c15ull

static inline uint64_t rng_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

struct rng {
	uint64_t key, counter;
};

static inline struct rng rng_init(uint64_t seed, uint64_t stream)
{
	return (struct rng){rng_mix(rng_mix(seed + RNG_GOLDEN) + stream * RNG_GOLDEN), 0};
}

static inline uint64_t rng_next(struct rng *rng)
{
	return rng_mix(rng->key + ++rng->counter * RNG_GOLDEN);
}

/* 0 … n-1; n > 0. The bias is below n / 2^64. */
static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return (uint64_t)((unsigned __int128)rng_next(rng) * n >> 64);
}

/* 0 … 1, 1 excluded, 24 bits. */
static inline float rng_float(struct rng *rng)
{
	return (float)(rng_next(rng) >> 40) * 0x1p-24f;
}

/* FNV-1a, then mixed: a key of a name. */
static inline uint64_t rng_hash(uint64_t seed, const char *name, size_t len)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)name[i]) * 0x100000001b3ull;
	return rng_mix(h ^ rng_mix(seed + RNG_GOLDEN));
}

#endif
