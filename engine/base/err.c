#include "engine/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static const struct {
	const char *name, *sentence, *todo;
	int num;
} table[] = {
#define ERR(name, num, sentence, todo) {#name, sentence, todo, num},
#include "engine/base/err.def"
#undef ERR
};

/* In parentheses: not the macro that analysers see. */
int(err_set)(struct err *e, enum err_code code, const char *fmt, ...)
{
	if (e) {
		va_list ap;

		e->code = code;
		va_start(ap, fmt);
		vsnprintf(e->detail, sizeof(e->detail), fmt, ap);
		va_end(ap);
		for (char *p = e->detail; *p; p++)
			if ((unsigned char)*p < ' ')
				*p = ' ';
	}
	return -table[code].num;
}

const char *err_name(enum err_code code)
{
	return table[code].name;
}

const char *err_sentence(enum err_code code)
{
	return table[code].sentence;
}

int err_errno(enum err_code code)
{
	return table[code].num;
}

char *err_format(const struct err *e, char *text, size_t size)
{
	const char *todo = table[e->code].todo;

	snprintf(text, size, "%s%s%s%s%s", table[e->code].sentence, *e->detail ? ": " : "", e->detail,
		 *todo ? "; " : "", todo);
	return text;
}
