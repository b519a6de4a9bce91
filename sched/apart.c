#include "sched/apart.h"

void apart_from(struct apart *a, const int *cores, int n)
{
	cpu_set_t others;

	if (!a->known) {
		if (sched_getaffinity(0, sizeof(a->all), &a->all) < 0)
			return;
		a->now = a->all;
		a->known = true;
	}
	others = a->all;
	for (int i = 0; i < n; i++)
		if (cores[i] > 0 && cores[i] <= CPU_SETSIZE)
			CPU_CLR(cores[i] - 1, &others);
	if (CPU_COUNT(&others) == 0)
		others = a->all;
	if (!CPU_EQUAL(&others, &a->now) && sched_setaffinity(0, sizeof(others), &others) == 0)
		a->now = others;
}
