#include "engine/base/utf8.h"

size_t utf8_length(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t n = *p < 0x80                 ? 1
		   : *p >= 0xc2 && *p < 0xe0 ? 2
		   : *p >= 0xe0 && *p < 0xf0 ? 3
		   : *p >= 0xf0 && *p < 0xf5 ? 4
					     : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80) /* the NUL at the end is none */
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
	    (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

bool utf8_clean(char *text)
{
	bool ascii = true;

	while (*text) {
		size_t n = utf8_length(text);

		if (n > 1)
			ascii = false;
		if (n == 0 || (unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
		text += n ? n : 1;
	}
	return ascii;
}
