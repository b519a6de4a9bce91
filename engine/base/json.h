#ifndef ENGINE_BASE_JSON_H
#define ENGINE_BASE_JSON_H

#include "engine/base/buf.h"

#include <cJSON.h>

/* Adds the text for people to read, with one newline at the end; without memory ret->failed is set. */
void json_print(struct buf *ret, const cJSON *json);
/*
 * Adds `value` rounded to `decimals` (0 to 9) places, without trailing zeros: 0.91, 12, -0.5. cJSON would print its
 * nearest double and read it back to check, five times the work. Read it as text: the item is raw.
 */
void json_add_decimal(cJSON *json, const char *key, double value, int decimals);
void json_add_decimals(cJSON *json, const char *key, const float *values, int n,
		       int decimals); /* an array of n */

#endif
