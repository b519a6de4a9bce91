/*
 * Private to sched: results on their way through the publisher, and how long that takes. Publications are
 * answered in order, so the time between two answers while some are waiting is what one costs.
 *
 * A publication that fails (a full disk) is tried again until it succeeds: its instance keeps its pending
 * record meanwhile.
 */
#ifndef SCHED_OUTBOX_H
#define SCHED_OUTBOX_H

#include "engine/base/buf.h"
#include "sched/list.h"
#include "sched/store.h"

#include <stdbool.h>
#include <stdint.h>

struct sched;
struct endpoint;

struct outbox {
	struct list parcels;
	size_t outstanding;
	int64_t last_visible;
	double lag_ns;       /* of a publication that finds nobody before it: from handing over to visible */
	double cost_ns;      /* between two of a row */
	double deviation_ns; /* of both */
	bool lag_measured, cost_measured;
};

/* A publication. Filled by the caller, owned by the outbox from outbox_send on. */
struct parcel {
	struct list link;
	struct endpoint *ep;
	char *path; /* malloc'd; relative to the mount */
	struct buf content;
	uint64_t owner_ino;
	struct opset ops;
	/* When it is visible, or will never be since the endpoint went (visible false). May be NULL. */
	void (*done)(struct parcel *p, bool visible);
	/* Set before `done`: when it was visible, or that it could not be by `publish_by` and was not published. */
	int64_t visible_at;
	bool expired;
	bool computed;      /* the caller's: it counts for what publications cost */
	int64_t publish_by; /* 0: whenever */
	void *data;         /* malloc'd, freed with the parcel unless `done` takes it and sets NULL */
	size_t row;         /* the caller's */
	int64_t due;        /* the caller's */
	bool in_time;       /* the caller's */
	int64_t handed;     /* loop_now when it was handed over */
	unsigned attempts;
	struct loop_timer *retry;
};

void outbox_init(struct outbox *box);
void outbox_release(struct outbox *box); /* after the host's last callback */
struct parcel *parcel_new(struct endpoint *ep);
void parcel_free(struct parcel *p);
void outbox_send(struct parcel *p);

/* What publishing k of them in a row takes, with a reserve. */
int64_t outbox_cost(const struct outbox *box, size_t k);
/* What to keep free for the last of a row, so that it is hardly ever late: its lag and some deviations. */
int64_t outbox_margin(const struct outbox *box);
/* Until something handed over now is visible: all that waits before it, and the margin. */
int64_t outbox_delay(const struct outbox *box);

#endif
