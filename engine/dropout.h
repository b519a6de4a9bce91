/*
 * Private to the backends: which elements a dropout keeps, a pure function of the step's seed, the op and the
 * element's index. So forward and backward agree without keeping a mask, and all backends and thread counts do.
 */
#ifndef ENGINE_DROPOUT_H
#define ENGINE_DROPOUT_H

#include "engine/backend.h"

struct dropout {
	uint64_t seed;
	uint32_t below; /* the element goes when its number is */
	float grow;
};

static inline struct dropout dropout_init(uint64_t seed, const struct op_desc *d)
{
	return (struct dropout){.seed = (seed + 1) * UINT64_C(0xd1342543de82ef95) ^
					(d->salt * UINT64_C(0x9e3779b97f4a7c15)),
				.below = (uint32_t)(d->share * 0x1p31f),
				.grow = 1 / (1 - d->share)};
}

/* splitmix64 (Steele et al. 2014) */
static inline float dropout_of(const struct dropout *choice, size_t i, float x)
{
	uint64_t z = choice->seed + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t)(z >> 33) < choice->below ? 0 : x * choice->grow;
}

#endif
