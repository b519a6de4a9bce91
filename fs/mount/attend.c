#include "fs/mount/attend.h"

#include "fs/node/tree.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SERIAL 16 /* requests in a row of one thread until it counts as serial; chosen */
#define AGAIN \
	16 /* requests until we look again where it runs; chosen: looking costs as much as one, being elsewhere five times that */

/* Who asked last, how often in a row, and where it runs. Threads race for it; any mix of what they write is harmless. */
static struct {
	pid_t tid;
	unsigned streak;
	int seen; /* the core it was on when last looked at; -1: not known */
	int core; /* where it was twice in a row; -1: it moves */
} last = {.seen = -1, .core = -1};

static cpu_set_t all_cores;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread int here = -2; /* where this thread stays; -1: anywhere; -2: where its maker did */

static void init(void)
{
	sched_getaffinity(getpid(), sizeof(all_cores), &all_cores); /* the main thread's, which never moves */
}

static void stay_on(int core)
{
	cpu_set_t one;

	if (core == here)
		return;
	here = core;
	pthread_once(&once, init);
	CPU_ZERO(&one);
	if (core >= 0 && core < CPU_SETSIZE)
		CPU_SET(core, &one);
	sched_setaffinity(0, sizeof(one), core >= 0 ? &one : &all_cores); /* a wish: may fail */
}

/* Field 39 of /proc/TID/stat (proc(5)): the core it last ran on. -1: unknown. */
static int core_of(pid_t tid)
{
	char path[32], text[1024], *p;
	int fd, core = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	p = strrchr(text, ')'); /* field 2 may hold anything */
	for (int field = 2; p && field < 39; field++)
		p = strchr(p + 1, ' ');
	return p && sscanf(p, "%d", &core) == 1 ? core : -1;
}

static int serial_core(struct tree *tree, pid_t tid)
{
	unsigned streak;
	int core;

	if (__atomic_load_n(&last.tid, __ATOMIC_RELAXED) != tid) {
		__atomic_store_n(&last.tid, tid, __ATOMIC_RELAXED);
		__atomic_store_n(&last.streak, 0, __ATOMIC_RELAXED);
		return -1;
	}
	streak = __atomic_add_fetch(&last.streak, 1, __ATOMIC_RELAXED);
	if (streak < SERIAL)
		return -1;
	if (streak % AGAIN == 0) {
		core = core_of(tid);
		/* On an idle machine it moves with each answer, away from us: nobody can follow. */
		__atomic_store_n(&last.core,
				 core == __atomic_load_n(&last.seen, __ATOMIC_RELAXED) ? core : -1,
				 __ATOMIC_RELAXED);
		__atomic_store_n(&last.seen, core, __ATOMIC_RELAXED);
		/* Else who serves both goes from core to core, and each request costs three times as much (measured). */
		if (core >= 0 && core == __atomic_load_n(&last.core, __ATOMIC_RELAXED))
			tree_publisher_come(tree, core);
	}
	return __atomic_load_n(&last.core, __ATOMIC_RELAXED);
}

void attend(struct tree *tree, pid_t tid)
{
	int core;

	if (tid <= 0) /* the kernel itself, or a client of another PID namespace */
		return;
	if (!tree_publisher_core(tree, tid, &core))
		core = serial_core(tree, tid);
	stay_on(core);
}

void attend_large(void)
{
	__atomic_store_n(&last.streak, 0, __ATOMIC_RELAXED);
	stay_on(-1);
}
