/*
 * Private to engine/backend.c: an op that has no form for values of some type runs on f32 copies of them, in scratch
 * memory. So every op of every backend runs in bf16 and int8, and `ref` does so as the oracle: f32 arithmetic on rounded
 * inputs, with a rounded result.
 */
#ifndef ENGINE_WIDENED_H
#define ENGINE_WIDENED_H

#include "engine/backend.h"

/* sibling: as of op_impl.create; of another implementation it is no use and ignored. */
int widened_create(struct kernel **ret, const struct backend *backend, const struct op_desc *desc,
		   struct kernel *sibling, struct err *err);
/* Whether widened_create made it. */
bool widened_is(const struct kernel *k);

#endif
