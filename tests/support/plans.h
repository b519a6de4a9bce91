/* What tests of plans share: seeded random sub-models, and plan.h's time of a mini-batch that is not full. */
#ifndef TESTS_SUPPORT_PLANS_H
#define TESTS_SUPPORT_PLANS_H

#include "sched/plan/plan.h"

extern unsigned short plans_seed[3];

int64_t below(int64_t n);         /* 0…n - 1 */
int64_t random_time(int kind);    /* kind: 0…5 */
double random_accuracy(int kind); /* kind: 0…4 */
int64_t part_time(const struct plan_request *r, int submodel, int64_t k);

#endif
