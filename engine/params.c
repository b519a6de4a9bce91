/* Parameters of a network: full-width arrays, their initial values, and the rule by which a slice takes a
 * prefix. */
#include "engine/net.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int slice_extent(int size, int groups, float rate)
{
	long used;

	if (groups <= 0)
		return size;
	used = lroundf(rate * (float)groups);
	if (used < 1)
		used = 1;
	if (used > groups)
		used = groups;
	return size / groups * (int)used;
}

int params_need_grad(struct params *p)
{
	for (int i = 0; i < p->n; i++) {
		struct param *param = &p->list[i];

		if (param->statistic)
			continue;
		if (!param->grad)
			param->grad = calloc(param->size, sizeof(float));
		if (!param->grad)
			return -ENOMEM;
	}
	return 0;
}

void params_zero_grad(struct params *p)
{
	for (int i = 0; i < p->n; i++)
		if (p->list[i].grad)
			memset(p->list[i].grad, 0, p->list[i].size * sizeof(float));
}

void params_changed(struct params *p)
{
	p->version++;
}

bool param_used(const struct param *p, float rate)
{
	return p->rate == 0 || p->rate == rate;
}

struct param *params_find(struct params *p, const char *name)
{
	for (int i = 0; i < p->n; i++)
		if (strcmp(p->list[i].name, name) == 0)
			return &p->list[i];
	return NULL;
}

/* splitmix64 (Steele et al. 2014): the same numbers on every machine. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static double next_uniform(uint64_t *state)
{
	return ((double)(next_random(state) >> 11) + 0.5) * 0x1p-53;
}

void net_init(struct net *net, uint64_t seed)
{
	for (int i = 0; i < net->params.n; i++) {
		struct param *p = &net->params.list[i];
		uint64_t state = seed * UINT64_C(0xd1342543de82ef95) + (uint64_t)i;
		double std = p->fan_in > 0 ? sqrt(2.0 / p->fan_in) : 0;

		/* Box-Muller, the cosine half only: one number a draw keeps element j independent of the
		 * array's length. */
		for (size_t j = 0; j < p->size; j++) {
			double radius = p->fan_in > 0 ? sqrt(-2 * log(next_uniform(&state))) : 0;

			p->value[j] = p->fan_in > 0
					      ? (float)(std * radius * cos(2 * M_PI * next_uniform(&state)))
					      : p->constant;
		}
	}
	params_changed(&net->params);
}
