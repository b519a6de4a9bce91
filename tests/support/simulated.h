/* Whole runs of `inferfs simulate` in a test. */
#ifndef TESTS_SUPPORT_SIMULATED_H
#define TESTS_SUPPORT_SIMULATED_H

#include "sched/simulate/internal.h"

/* One run of a trace; ret[most] gets the outcome of each of its endpoints. Fails the test where it can't run, or an instance has no answer. */
void simulated(const char *json, const char *policy, int run, struct outcome *ret, int most);

#endif
