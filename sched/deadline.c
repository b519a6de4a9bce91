#include "sched/internal.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Longer than any deadline that makes sense (a year), short enough that sums of int64_t ns stay far from
 * their end. */
#define MAX_RELATIVE_S 31536000.0
#define MAX_ABSOLUTE_S 9e9

int deadline_parse(struct deadline *ret, const char *text, size_t len, struct err *err)
{
	static const struct {
		const char *unit;
		double seconds;
	} units[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"m", 60}};
	bool absolute = len && text[0] == '@';
	double value, seconds = 0;
	char copy[64], *end;
	size_t i;

	if (len && text[len - 1] == '\n')
		len--;
	if (!len || len >= sizeof(copy) || memchr(text, '\0', len))
		return err_set(err, ERR_BAD_DEADLINE, "%zu bytes", len);
	memcpy(copy, text, len);
	copy[len] = '\0';
	/* strtod would also take blanks, signs, hexadecimal, inf and nan. */
	if (strspn(copy + absolute, "0123456789.ms") != len - absolute ||
	    !isdigit((unsigned char)copy[absolute]))
		return err_set(err, ERR_BAD_DEADLINE, "\"%s\"", copy);
	value = strtod(copy + absolute, &end);
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(end, units[i].unit) == 0 && (!absolute || i == 0))
			seconds = value * units[i].seconds;
	if (!(seconds > 0) || seconds > (absolute ? MAX_ABSOLUTE_S : MAX_RELATIVE_S) ||
	    llround(seconds * 1e9) <= 0)
		return err_set(err, ERR_BAD_DEADLINE, "\"%s\"", copy);
	*ret = (struct deadline){.set = true, .absolute = absolute, .ns = llround(seconds * 1e9)};
	return 0;
}

bool deadline_read(struct sched *s, uint64_t ino, struct deadline *ret)
{
	char text[80];
	int len = s->ops->getxattr(s->host, ino, "user.deadline", text, sizeof(text));

	return len > 0 && deadline_parse(ret, text, strlen(text), NULL) == 0;
}
