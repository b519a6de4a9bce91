/*
 * Reading a JSON object of knobs: defaults, ranges, and for an unknown key the nearest known one. `where` is
 * how messages name the object ("net"; "" for the top). A value is left at its default, already in *ret, when
 * the key is not there. All give 0 or -EINVAL with err set.
 */
#ifndef ENGINE_SPEC_H
#define ENGINE_SPEC_H

#include "engine/base/err.h"

#include <cJSON.h>
#include <stdbool.h>
#include <stdint.h>

/* known ends in NULL. */
int spec_keys(const cJSON *object, const char *where, const char *const *known, struct err *err);
/* by edit distance; NULL: none is near */
const char *spec_nearest(const char *word, const char *const *known);

int spec_int(const cJSON *object, const char *where, const char *key, int64_t min, int64_t max, int *ret,
	     struct err *err);
int spec_double(const cJSON *object, const char *where, const char *key, double min, double max, double *ret,
		struct err *err);
int spec_bool(const cJSON *object, const char *where, const char *key, bool *ret, struct err *err);
/* *ret is borrowed from the object. */
int spec_string(const cJSON *object, const char *where, const char *key, const char **ret, struct err *err);

#endif
