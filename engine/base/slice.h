/*
 * How long this thread may run before another gets its turn and, with that, how soon it gets its own when it wakes: the
 * slice of a fair task (EEVDF, Linux 6.12; older kernels ignore it). In ns, 0: the kernel's own, 3 ms. Inherited by
 * the threads and processes it starts. A wish: -errno matters to nobody.
 */
#ifndef ENGINE_BASE_SLICE_H
#define ENGINE_BASE_SLICE_H

#include <errno.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int slice_set(uint64_t ns)
{
	/* <linux/sched/types.h> can't be included beside <sched.h> */
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = {.size = sizeof(attr), .nice = getpriority(PRIO_PROCESS, 0), .runtime = ns};

	return syscall(SYS_sched_setattr, 0, &attr, 0) < 0 ? -errno : 0;
}

#endif
