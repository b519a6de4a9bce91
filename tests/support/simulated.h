/* Whole runs of `inferfs simulate` in a test. */
#ifndef TESTS_SUPPORT_SIMULATED_H
#define TESTS_SUPPORT_SIMULATED_H

#include "sched/simulate/internal.h"

/* With a sanitizer a run takes eight times as long, and sees the same code in a part of them: one case of so many then. */
#ifdef __SANITIZE_ADDRESS__
#define SIMULATED_EACH(n) (n)
#else
#define SIMULATED_EACH(n) 1
#endif

/* One run of a trace; ret[most] gets the outcome of each of its endpoints. Fails the test where it can't run, or an instance has no answer. */
void simulated(const char *json, const char *policy, int run, struct outcome *ret, int most);

#endif
