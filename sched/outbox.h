/*
 * Private to sched: results on their way through the publisher, and how long that takes. Publications are
 * answered in order, so the time between two answers while some are waiting is what one costs.
 *
 * That cost varies with what else the cores do, for a whole task long. So there are two figures: what it is of late,
 * by which the dispatcher acts, and what it hardly ever exceeded (the 90 % quantile of the last 4,096, in blocks),
 * by which a task's plan promises.
 *
 * A publication that fails (a full disk) is tried again until it succeeds: its instance has no row
 * meanwhile.
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

enum outbox_view { OUTBOX_OF_LATE, OUTBOX_CAREFUL };

#define OUTBOX_BLOCKS 128

struct outbox_figure {
	double of_late, careful; /* ns; the second is of `recent` */
	float recent[OUTBOX_BLOCKS];
	unsigned n; /* measured since the start */
};

struct outbox {
	struct list parcels;
	size_t outstanding;
	int64_t last_visible;
	struct outbox_figure
		lag; /* of a publication that finds nobody before it: from handing over to visible */
	struct outbox_figure cost;      /* between two of a row */
	struct outbox_figure stall;     /* the longest of a block: some program had our core (careful only) */
	double block_ns, block_longest; /* of the row's current block */
	unsigned block_n;
};

/* A publication. Filled by the caller, owned by the outbox from outbox_send on. */
struct parcel {
	struct list link;
	struct endpoint *ep;
	char *path; /* malloc'd; relative to the mount */
	struct buf content;
	uint64_t owner_ino;
	struct host_access access; /* in place of owner_ino when has_access */
	bool has_access;
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

/* What publishing k of them in a row takes. */
int64_t outbox_cost(const struct outbox *box, enum outbox_view view, size_t k);
/* From handing the last of a row over until it is visible. */
int64_t outbox_margin(const struct outbox *box, enum outbox_view view);
/* The least time until something handed over now is visible, behind all that waits: what can't be in time then never
 * will. */
int64_t outbox_delay(const struct outbox *box);

#endif
