#include "engine/base/utf8.h"

/* Length of the sequence at p (RFC 3629: no overlong forms, no surrogates); 0 when it is none. */
static int sequence(const unsigned char *p)
{
	int n = *p < 0x80                 ? 1
		: *p >= 0xc2 && *p < 0xe0 ? 2
		: *p >= 0xe0 && *p < 0xf0 ? 3
		: *p >= 0xf0 && *p < 0xf5 ? 4
					  : 0;

	for (int i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
	    (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

bool utf8_clean(char *text)
{
	unsigned char *p = (unsigned char *)text;
	bool ascii = true;

	while (*p) {
		int n = sequence(p);

		if (n > 1)
			ascii = false;
		if (n == 0 || *p < ' ' || *p == 0x7f)
			*p = '?';
		p += n ? n : 1;
	}
	return ascii;
}
