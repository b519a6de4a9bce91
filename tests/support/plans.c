#include "tests/support/plans.h"

#include <math.h>
#include <stdlib.h>

unsigned short plans_seed[3] = {1, 2, 3};

int64_t below(int64_t n)
{
	return (int64_t)(erand48(plans_seed) * (double)n);
}

int64_t random_time(int kind)
{
	static const int64_t primes[] = {
		2, 3, 5, 7, 11, 13, 9973, 99991, 1000003, 999999937, INT64_C(15485863)};

	switch (kind) {
	case 0: /* as measured: 1 to 100 ms */
		return 1000000 + below(99000000);
	case 1: /* small multiples of a millisecond */
		return (1 + below(40)) * 1000000;
	case 2:
		return primes[below(sizeof(primes) / sizeof(primes[0]))];
	case 3: /* from 1 ns to hours, all magnitudes */
		return (int64_t)exp(erand48(plans_seed) * log(2e13)) + 1;
	case 4: /* hours that differ by nanoseconds */
		return INT64_C(7200000000000) + below(10);
	default:
		return 1 + below(4);
	}
}

double random_accuracy(int kind)
{
	switch (kind) {
	case 0:
		return (double)below(10001) / 10000;
	case 1: /* of 10,000 validation images, all near each other */
		return 0.9 + (double)below(300) / 10000;
	case 2:
		return erand48(plans_seed);
	case 3: /* ties and zeros */
		return (double)below(3) / 2;
	default:
		return (double)(1 + below(7)) / 7;
	}
}

int64_t part_time(const struct plan_request *r, int submodel, int64_t k)
{
	const struct plan_submodel *m = &r->submodels[submodel];

	if (!m->time_one_ns || r->batch == 1)
		return m->time_ns;
	return m->time_one_ns + (int64_t)((__int128)(m->time_ns - m->time_one_ns) * (k - 1) / (r->batch - 1));
}
