#ifndef ENGINE_BASE_JSON_H
#define ENGINE_BASE_JSON_H

#include "engine/base/buf.h"

#include <cJSON.h>

/* Adds the text for people to read, with one newline at the end; without memory ret->failed is set. */
void json_print(struct buf *ret, const cJSON *json);

#endif
