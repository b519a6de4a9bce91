#include "sched/caution.h"

#include <math.h>

#define TARGET 0.0005 /* τ: half of the 0.1 % that is the limit; what is learnt first costs some, too */
#define STEP   0.25   /* η; chosen */
#define LEAST  2.0    /* derived: caution.h */
#define FIRST \
	4.0 /* chosen: normal times exceed it once in 1400 times; what is not known yet may be worse than that */
#define MOST         8.0  /* chosen: for normal times the chance to exceed it is 1e-10 */
#define SIZE_WEIGHT  0.05 /* chosen */
#define PROMISE_STEP 0.1  /* υ; chosen */
#define MOST_PROMISE 0.5  /* chosen */

void caution_init(struct caution *c)
{
	*c = (struct caution){.z = FIRST};
}

void caution_ran(struct caution *c, int n)
{
	c->size = c->size > 0 ? c->size + SIZE_WEIGHT * (n - c->size) : n;
}

void caution_answered(struct caution *c, bool late)
{
	double step = STEP / fmax(c->size, 1);

	c->z = fmin(fmax(c->z + step * ((late ? 1 : 0) - TARGET), LEAST), MOST);
}

void caution_ended(struct caution *c, int64_t promised, int64_t missed)
{
	if (promised <= 0)
		return;
	c->unpromised += PROMISE_STEP * ((double)missed / (double)promised - TARGET);
	c->unpromised = fmin(fmax(c->unpromised, 0), MOST_PROMISE);
}

double caution_deviations(const struct caution *c)
{
	return c->z;
}

double caution_unpromised(const struct caution *c)
{
	return c->unpromised;
}
