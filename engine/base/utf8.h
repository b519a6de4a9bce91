/* Names come from directories and may hold any bytes; what is written as JSON or PNG text must be UTF-8. */
#ifndef ENGINE_BASE_UTF8_H
#define ENGINE_BASE_UTF8_H

#include <stdbool.h>

/* Replaces each byte that is not part of a valid sequence, and control characters, by '?'. True when what is
 * left is plain ASCII. */
bool utf8_clean(char *text);

#endif
