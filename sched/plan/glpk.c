/*
 * Where GLPK meets an internal error it would abort the process: the error hook jumps back here instead, and the environment is
 * thrown away, as its manual asks (section 6.3). Its terminal output is swallowed by a hook, since an error turns output on again by
 * itself.
 */
#include "sched/plan/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <glpk.h>
#include <setjmp.h>

static jmp_buf on_error;

static void glpk_failed(void *info)
{
	(void)info;
	longjmp(on_error, 1);
}

static int swallow(void *info, const char *text)
{
	(void)info;
	log_trace(LOG_SCHED, "glpk: %s", text);
	return 1;
}

int glpk_guarded(int (*fn)(void *data), void *data)
{
	int r;

	if (setjmp(on_error)) {
		glp_free_env();
		log_warn("GLPK failed; this plan is made without it");
		return -EIO;
	}
	glp_term_out(GLP_OFF);
	glp_term_hook(swallow, NULL);
	glp_error_hook(glpk_failed, NULL);
	r = fn(data);
	glp_error_hook(NULL, NULL);
	return r;
}
