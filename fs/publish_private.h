/* Private to fs/publish.c (the queue) and fs/publish_threads.c (who fills and empties it). */
#ifndef FS_PUBLISH_PRIVATE_H
#define FS_PUBLISH_PRIVATE_H

#include "fs/publish.h"

#include <pthread.h>
#include <sched.h>

#define HIDDEN_PREFIX ".inferfs-pub."
#define SLOT_BUCKETS  256

struct item {
	struct item *next; /* in the queue */
	struct slot *slot; /* of a status file */
	enum publication_type type;
	unsigned flags; /* enum host_publish_flags */
	char *path;     /* in the same allocation, as is what `shown` points to */
	struct publishing shown;
	int64_t due;
	void (*done)(void *data, int r, int64_t visible);
	void *data;
	char hidden[40];
	bool refused; /* under lock: its place was closed, or something else said of it, while it was `writing` or `moving` */
	int r;
	int64_t visible;
};

/* A status file's place: at most one text waits for it, either in the queue or, until `due`, only here. */
struct slot {
	struct slot *next;
	struct item *waiting; /* NULL: none */
	bool queued;          /* waiting is in the queue */
	bool written;         /* the one before it is `writing`: waiting waits for that, too */
	int64_t due;          /* CLOCK_MONOTONIC from which on it may be renewed */
	char path[];
};

/* See publisher_close. */
struct closed {
	struct closed *next;
	unsigned times;
	char path[];
};

struct publisher {
	struct volume *vol;
	char *mountpoint;
	pthread_mutex_t lock;
	pthread_cond_t wake_clerk, wake_mover, wake_scribe;
	pthread_t clerk, mover, scribe;
	struct item *head, **tail; /* under lock: to be moved */
	struct item *moving;       /* under lock: taken out of the queue, its rename may be under way */
	struct item *writing;      /* under lock: a large status text, before it is queued */
	struct closed *closed;     /* under lock */
	unsigned n_served;         /* under lock: handlers between publisher_moving and publisher_served */
	pthread_cond_t served;
	struct item *moved, **moved_tail; /* under lock: to be ended */
	unsigned n_moved;                 /* under lock */
	struct slot *slots[SLOT_BUCKETS]; /* under lock */
	bool started, stopping;           /* under lock */
	bool all_queued, all_moved;       /* under lock: at the end, by the clerk and then the mover */
	void (*grew)(void *data);         /* NULL: nobody asks; set before the threads */
	void *grew_data;
	uint64_t n_appended; /* atomic */
	pid_t mover_tid;     /* atomic */
	int core;            /* atomic: where the mover stays; -1: at rest */
	int called;          /* atomic: the core that it is to come to; -1: none */
	cpu_set_t cores;     /* that this process may use */
	uint64_t
		serial; /* mover only: of hidden names; starts at random, so that the kernel knows none of them */
};

/* --- publish.c --- */

void publish_end(struct item *item, int r); /* says so, frees it; no lock */
/* lock held. Queues status texts whose time has come (all of them when `all`); the time of the next one, or INT64_MAX. Also
 * forgets slots that have nothing to say. */
int64_t publish_due(struct publisher *pub, bool all);
/* lock held; the next of the queue, which is not empty. Its slot is free from here on. */
struct item *publish_take(struct publisher *pub);

void publish_refuse(struct publisher *pub, struct item *item); /* lock held: it ends with -ENOENT */
/* lock held. At the end of the queue. */
void publish_enqueue(struct publisher *pub, struct item *item);

/* --- publish_threads.c; arg: the publisher --- */

void *publish_mover(void *arg);
void *publish_clerk(void *arg);
void *publish_scribe(void *arg);

#endif
