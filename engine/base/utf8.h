/* Names come from directories and may hold any bytes; what is written as JSON or PNG text must be UTF-8. */
#ifndef ENGINE_BASE_UTF8_H
#define ENGINE_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* In the place of bytes that are no character: U+FFFD. */
#define UTF8_REPLACEMENT "\xef\xbf\xbd"

/* Bytes of the character that `text`, which ends in NUL, begins with (RFC 3629: no overlong forms, no surrogates); 0:
 * that is none. */
size_t utf8_length(const char *text);
/* Replaces each byte that is not part of a valid sequence, and control characters, by '?'. True when what is
 * left is plain ASCII. */
bool utf8_clean(char *text);

#endif
