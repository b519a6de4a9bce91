#include "sched/histogram.h"

#include <math.h>

int64_t histogram_bound(int i)
{
	static const int64_t first[] = {1000, 2500, 5000};
	int64_t bound = first[i % 3];

	for (; i >= 3; i -= 3)
		bound *= 10;
	return bound;
}

void histogram_add(struct histogram *h, int64_t ns)
{
	int fine = ns > 1 ? (int)(log2((double)ns) * 8) : 0, i = 0;

	h->fine[fine < HISTOGRAM_FINE ? fine : HISTOGRAM_FINE - 1]++;
	while (i < HISTOGRAM_BOUNDS && ns > histogram_bound(i))
		i++;
	if (i < HISTOGRAM_BOUNDS)
		h->coarse[i]++;
	h->n++;
	h->sum += ns > 0 ? (double)ns : 0;
}

double histogram_quantile(const struct histogram *h, double q)
{
	uint64_t seen = 0, want = (uint64_t)ceil(q * (double)h->n);
	int fine = 0;

	if (!h->n)
		return 0;
	for (; fine < HISTOGRAM_FINE - 1; fine++) {
		seen += h->fine[fine];
		if (seen >= want)
			break;
	}
	return exp2((fine + 0.5) / 8); /* the bucket's middle */
}
