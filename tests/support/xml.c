#include "tests/support/xml.h"

#include "engine/base/utf8.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define MAX_DEPTH      64
#define MAX_ATTRIBUTES 32

struct name {
	const char *at;
	size_t len;
};

static bool same(struct name a, struct name b)
{
	return a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

static struct name take_name(const char **p)
{
	struct name name = {.at = *p};

	while (isalpha((unsigned char)**p) ||
	       (*p > name.at && (isalnum((unsigned char)**p) || strchr("-:", **p))))
		if (!*++*p)
			break;
	name.len = (size_t)(*p - name.at);
	return name;
}

/* A character of text or, with `quote`, of an attribute's value; false: what may not be there. */
static bool take_char(const char **p, char quote)
{
	static const char *const entities[] = {"&lt;", "&gt;", "&amp;", "&quot;", "&apos;"};
	size_t n = utf8_length(*p);

	if (!n || **p == '<' || **p == quote || strncmp(*p, "]]>", 3) == 0)
		return false;
	if ((unsigned char)**p < ' ' && !strchr("\t\n\r", **p))
		return false;
	if (strncmp(*p, "\xef\xbf\xbe", 3) == 0 || strncmp(*p, "\xef\xbf\xbf", 3) == 0)
		return false;
	if (**p == '&') {
		for (size_t i = 0; i < 5; i++)
			if (strncmp(*p, entities[i], strlen(entities[i])) == 0) {
				*p += strlen(entities[i]);
				return true;
			}
		return false;
	}
	*p += n;
	return true;
}

static void skip_space(const char **p)
{
	while (**p && strchr(" \t\n\r", **p))
		++*p;
}

/* From behind the element's name to behind its ">". */
static bool take_attributes(const char **p, bool *ret_empty)
{
	struct name seen[MAX_ATTRIBUTES];
	size_t n = 0;

	for (;;) {
		bool spaced = **p == ' ';

		skip_space(p);
		*ret_empty = **p == '/';
		if (*ret_empty)
			++*p;
		if (**p == '>') {
			++*p;
			return true;
		}
		if (!spaced || *ret_empty || n == MAX_ATTRIBUTES)
			return false;
		seen[n] = take_name(p);
		if (!seen[n].len || strncmp(*p, "=\"", 2) != 0)
			return false;
		for (size_t i = 0; i < n; i++)
			if (same(seen[i], seen[n]))
				return false;
		n++;
		for (*p += 2; **p != '"';)
			if (!**p || !take_char(p, '"'))
				return false;
		++*p;
	}
}

const char *xml_wrong(const char *text)
{
	struct name open[MAX_DEPTH];
	const char *p = text;
	bool empty;
	int depth = 0;

	if (strncmp(p, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>", 38) == 0)
		p += 38;
	skip_space(&p);
	do {
		const char *at = p;

		if (*p == '<' && p[1] == '/') {
			struct name name;

			p += 2;
			name = take_name(&p);
			if (!depth || !same(name, open[--depth]) || *p++ != '>')
				return at;
		} else if (*p == '<') {
			p++;
			if (depth == MAX_DEPTH)
				return at;
			open[depth] = take_name(&p);
			if (!open[depth].len || !take_attributes(&p, &empty))
				return at;
			depth += !empty;
		} else if (!depth || !*p || !take_char(&p, '\0')) {
			return at;
		}
	} while (depth);
	skip_space(&p);
	return *p ? p : NULL;
}
