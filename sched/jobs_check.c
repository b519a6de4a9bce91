/* The checks of jobs/NAME/spec.json at the user's system call: pure, on the caller's thread. */
#include "sched/jobs.h"

#include "engine/train.h"

#include <errno.h>
#include <string.h>

/* Not a parser: only whether brackets and quotes are still open when the text ends, so that a spec.json that
 * comes in several writes is not refused at the first. */
static bool cut_short(const char *json, size_t len)
{
	bool in_string = false, any = false;
	int depth = 0;

	for (size_t i = 0; i < len; i++) {
		char c = json[i];

		if (in_string && c == '\\')
			i++;
		else if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == '{' || c == '['))
			depth++;
		else if (!in_string && (c == '}' || c == ']'))
			depth--;
		any = any || !strchr(" \t\r\n", c);
	}
	return in_string || depth > 0 || !any;
}

int jobs_check_spec(const char *json, size_t len, struct err *err)
{
	struct train_spec *spec = NULL;
	int r;

	r = train_spec_parse(&spec, json, len, err);
	train_spec_free(spec);
	return r < 0 && r != -ENOMEM && cut_short(json, len) ? -EAGAIN : r;
}
