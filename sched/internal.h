/*
 * Private to sched: the scheduler itself. Owner thread only, but for what sched_post_* hand over.
 */
#ifndef SCHED_INTERNAL_H
#define SCHED_INTERNAL_H

#include "sched/apart.h"
#include "sched/cascade.h"
#include "sched/device.h"
#include "sched/dispatch.h"
#include "sched/endpoint.h"
#include "sched/erase.h"
#include "sched/host.h"
#include "sched/jobs.h"
#include "sched/loop.h"
#include "sched/outbox.h"
#include "sched/sched.h"
#include "sched/status.h"
#include "sched/table.h"
#include "sched/task.h"
#include "sched/unpack.h"

#include <pthread.h>

struct sched {
	struct loop *loop;
	bool owns_loop, threaded, stopping;
	pthread_t thread;
	const struct host_ops *ops;
	void *host;
	struct sched_options options;
	struct device *device; /* (n_devices) */
	int n_devices;
	struct apart apart;
	struct planner *planner;
	struct jobs *jobs;
	struct table endpoints;      /* by name */
	struct endpoint **by_number; /* (n_numbers); NULL where one went */
	uint32_t n_numbers;
	struct dispatch dispatch;
	struct outbox outbox;
	struct unpacker unpacker;
	struct list erasures; /* to be done, the first one now */
	struct loop_timer *erase_timer;
	struct status status;
	uint64_t *expected; /* (n_expected), ascending: sched_expect's */
	size_t n_expected;
	int64_t in_memory, in_memory_bytes; /* struct instances */
	struct loop_timer *stop_timer;
	int64_t stop_until;
};

/* On a loop of the caller's, without a thread: tests drive it with loop_fake_advance. sched_begin is what
 * sched_start's thread does first; loop stays the caller's and outlives the scheduler. */
int sched_new_on(struct sched **ret, const struct host_ops *ops, void *host,
		 const struct sched_options *options, struct loop *loop);
void sched_begin(struct sched *s);
bool sched_expects(const struct sched *s, uint64_t ino);

#endif
