/* Private to sched: who may read what tells of several instances (results.csv, task.json). */
#ifndef SCHED_READERS_H
#define SCHED_READERS_H

#include "sched/host.h"

/* Who may read each of them. Those that all may read count for nothing;
 * zero: there are no others. */
struct readers {
	bool restricted, many_owners;
	struct host_access access;
};

void readers_add(struct readers *all, const struct host_access *one);
void readers_join(struct readers *all, const struct readers *some);
/* Whose such a file has to be; false: its directory's, for everybody. */
bool readers_access(const struct readers *readers, struct host_access *ret);

#endif
