#include "sched/worker/crowd.h"

#include "engine/base/clock.h"

#include <sched.h>
#include <time.h>

/* Chosen. */
#define LONG_NS 1000000 /* less says little: a slice of somebody else is 3 ms */
#define SHARE   0.75    /* of a core; who has more is alone, but for short ones */
#define REST    8       /* mini-batches: where all cores are crowded moving doesn't help */

static int64_t used_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void crowd_begin(struct crowd *c)
{
	c->wall = clock_monotonic_ns();
	c->cpu = used_ns();
}

/* To any other core that this thread may use. A wish: it may fail. */
static void leave(void)
{
	int core = sched_getcpu();
	cpu_set_t all, others;

	if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof(all), &all) < 0)
		return;
	others = all;
	CPU_CLR(core, &others);
	if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof(others), &others) < 0)
		return;
	sched_setaffinity(0, sizeof(all), &all);
}

void crowd_end(struct crowd *c)
{
	int64_t wall = clock_monotonic_ns() - c->wall, used = used_ns() - c->cpu;

	if (c->rest) {
		c->rest--;
	} else if (wall >= LONG_NS && (double)used < SHARE * (double)wall) {
		leave();
		c->rest = REST;
	}
}
