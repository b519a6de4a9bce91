#include "tests/support/simulated.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void simulated(const char *json, const char *policy, int run, struct outcome *ret, int most)
{
	struct err err = ERR_INIT;
	struct sim_task *task;
	struct trace trace;
	int n;

	memset(ret, 0, (size_t)most * sizeof(*ret));
	if (trace_parse(&trace, json, strlen(json), &err) < 0)
		fail_msg("%s: %s", json, err.detail);
	assert_true(trace.n_endpoints <= most);
	n = trace_tasks(&trace, run, &task);
	assert_true(n > 0);
	if (sim_run(&trace, policy_find(policy), task, n, ret, &err) < 0)
		fail_msg("%s: %s", json, err.detail);
	for (int e = 0; e < trace.n_endpoints; e++)
		assert_int_equal(ret[e].ok + ret[e].late + ret[e].dropped, ret[e].instances);
	free(task);
	trace_release(&trace);
}
