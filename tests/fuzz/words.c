/* Values of user.deadline, lines of .deadline, words of ctl. */
#include "tests/fuzz/fuzz.h"

#include "sched/jobs.h"
#include "sched/sched.h"
#include "sched/spec.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct deadline deadline, before;
	struct err err = ERR_INIT;
	enum infer_word word;
	int r;

	memset(&deadline, 0x5a, sizeof(deadline));
	before = deadline;
	r = deadline_parse(&deadline, (const char *)data, size, &err);
	if (r == 0)
		MUST(deadline.set && deadline.ns > 0);
	else
		MUST(r == -EINVAL && memcmp(&deadline, &before, sizeof(deadline)) == 0);
	for (size_t i = 0; err.code != ERR_NONE && err.detail[i]; i++)
		MUST(err.detail[i] != '\n');
	infer_word_parse(&word, (const char *)data, size, &err);
	MUST(sched_check_ctl(CTL_INFER, (const char *)data, size, NULL) <= 0);
	MUST(sched_check_ctl(CTL_JOB, (const char *)data, size, NULL) <= 0);
	return 0;
}
