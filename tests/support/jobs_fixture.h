/*
 * What tests of jobs and scans share: a daemon's side (struct jobs over a directory that plays the mount) and forked children that
 * play the workers, well or with a fault. Each test has its own, made by fixture_setup; `shared` is memory that the workers see.
 */
#ifndef TESTS_SUPPORT_JOBS_FIXTURE_H
#define TESTS_SUPPORT_JOBS_FIXTURE_H

#include "engine/base/buf.h"
#include "sched/jobs.h"
#include "tests/dirhost.h"

#include <stdbool.h>

#define EPOCHS 3
#define LARGE  (3 << 20) /* a file that travels as its descriptor */

enum fault {
	WELL,
	TRAIN_DIES,   /* in epoch 3 */
	TRAIN_WAITS,  /* in epoch 2, until STOP */
	TRAIN_HANGS,  /* in epoch 3 */
	TRAIN_EPOCHS, /* tells epoch 2 again and again */
	TRAIN_COPIES, /* sends the checkpoint of epoch 1 again and again */
	TRAIN_PIPE,   /* a checkpoint, and then other descriptors, that are no memfd */
	TRAIN_DIR,
	TRAIN_EARLY,   /* a model with a directory for weights */
	TRAIN_FAILS,   /* says FAILED in epoch 2 */
	TRAIN_GARBAGE, /* in epoch 3 */
	TRAIN_LIES,    /* a checkpoint that is not sealed */
	TRAIN_WINGS,   /* goes by a spec that is none */
	TRAIN_TWICE,   /* says twice what it goes by */
	SCAN_DIES,
	SCAN_EMPTY,
	SCAN_CRASHES, /* on each file with "crash" in its name */
	SCAN_HANGS,   /* likewise */
	SCAN_EARLY,   /* its last word comes first */
	SCAN_THANKS,  /* takes more than it was sent */
	SCAN_PIPE,    /* what should be the text of dataset.json */
	SCAN_DIR,
	SCAN_UNSEALED,
	SCAN_FAULTS
};

struct shared {
	volatile int fault, faulty; /* so many workers of the faulty kind have it */
	volatile int trains, scans;
	volatile int resumed_from[16]; /* by train worker */
	volatile int scanned_files, scanned_bytes, packs, bad;
	volatile int decoded; /* files, by all workers */
	char scanned_shape[32];
	volatile int training; /* a worker waits in epoch 2 */
};
extern struct shared *shared;

void fake_worker(const char *kind, int fd); /* struct dirhost's child */

struct fixture {
	struct loop *loop;
	struct dirhost host;
	struct jobs *jobs;
	struct sched_options options;
	int published, version;
	bool latest_was_there;
	const char *job, *state; /* what is waited for */
	int scans;
	struct buf states; /* every change */
};

int fixture_setup(void **state);
int fixture_teardown(void **state);
void fixture_start(struct fixture *f);
void fixture_run(struct fixture *f, double seconds);
void fixture_restart(struct fixture *f); /* as after kill -9: what was not in records and files is lost */
void fixture_write_dataset(struct fixture *f, const char *name, int files);
void fixture_spec(struct fixture *f, const char *job, const char *json);
bool fixture_reaches(struct fixture *f, const char *job, const char *state); /* within 20 s */
bool fixture_text_is(struct fixture *f, const char *path, const char *want);
bool fixture_text_has(struct fixture *f, const char *path, const char *want); /* else it is shown */
int fixture_lines(struct fixture *f, const char *path);

#endif
