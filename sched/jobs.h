/*
 * Training jobs, scans of data sets and imports of models: jobs/NAME, datasets/NAME and models/NAME of the tree (DESIGN section 1).
 * One training worker, one scan worker and one import worker run at a time; the rest waits in order. Everything is called on the
 * scheduler's thread; no function calls an event before it returned.
 *
 *	jobs_new(&jobs, loop, ops, host, &options, &events, data);
 *	jobs_start(jobs);			// goes on with what the last run left
 *	jobs_dataset_changed(jobs, "fashion");	// each time a user's file below it changed
 *	jobs_spec(jobs, "night", json, len);	// spec.json was closed
 *	…
 *	jobs_stop(jobs);			// leaves everything resumable
 *	jobs_free(jobs);
 *
 * A job's record lives in the host's key space below "job/", a data set's below "dataset/", an import's below "import/"; the published
 * files are a picture of the records and are drawn again at the start. Decoded caches are the state files
 * "cache/NAME-FINGERPRINT[-CxHxW]", checkpoints "checkpoint/NAME".
 */
#ifndef SCHED_JOBS_H
#define SCHED_JOBS_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "sched/host.h"
#include "sched/sched.h"

#include <stddef.h>

struct jobs;
struct loop;

struct jobs_events {
	/* models/MODEL/VERSION is whole and models/MODEL/latest points to it. May be NULL. */
	void (*model_published)(void *data, const char *model, int version);
	/* A job is in another state now, or "removed". From within any function here: it must call none. May be NULL. */
	void (*state_changed)(void *data, const char *job, const char *state);
	/* An import for models/MODEL: "importing", "import failed". As state_changed. May be NULL. */
	void (*import_changed)(void *data, const char *model, const char *what);
};

/*
 * ops, host, options are borrowed until jobs_free (options' fields settle_batch_ns and worker_threads count).
 */
int jobs_new(struct jobs **ret, struct loop *loop, const struct host_ops *ops, void *host,
	     const struct sched_options *options, const struct jobs_events *events, void *data);
void jobs_free(struct jobs *jobs); /* NULL is allowed */
int jobs_start(struct jobs *jobs);
void jobs_stop(struct jobs *jobs); /* ends the workers; states stay as recorded */

/* jobs/NAME/spec.json is complete: (re)starts the job, unless it is active with the same bytes. A wrong spec
 * makes the job `failed` with the reason in `error`. */
void jobs_spec(struct jobs *jobs, const char *name, const char *json, size_t len);
/* A word of ctl, already checked by jobs_check_ctl: pause resume stop retry; one that does not fit the state
 * is noted in the job's log and changes nothing. */
void jobs_ctl(struct jobs *jobs, const char *name, const char *word);
void jobs_gone(struct jobs *jobs, const char *name);

/*
 * A user's file below datasets/NAME changed (not dataset.json, which is published here); the directory went.
 */
void jobs_dataset_changed(struct jobs *jobs, const char *name);
void jobs_dataset_gone(struct jobs *jobs, const char *name);

/*
 * models/NAME: what a user brings is imported when nothing of it is being written and the directory was quiet (jobs_models.c). For
 * a file that is open though nobody told who writes it name is "".
 */
void jobs_model_event(struct jobs *jobs, const char *name, enum model_event event, uint64_t ino);

/* For the tree's `status` (a line for each job and running scan) and `metrics` (Prometheus text). */
void jobs_status(struct jobs *jobs, struct buf *ret);
void jobs_metrics(struct jobs *jobs, struct buf *ret);

/* For sched_check_spec and sched_check_ctl; pure, any thread. -EINVAL with the reason; -EAGAIN when the text
 * is JSON cut short. */
int jobs_check_spec(const char *json, size_t len, struct err *err);
int jobs_check_ctl(const char *text, size_t len, struct err *err);

#endif
