/*
 * The scheduler as fs sees it: one thread that owns all tasks, endpoints, jobs, scans and workers. The
 * sched_post_* functions may be called from any thread, copy their arguments and never block on more than a
 * mutex; the sched_check_* functions are pure and may be called anywhere: they give the errno that the user's
 * system call answers.
 *
 *	sched_new(&s, &host_ops, host, &options);
 *	… mount, start the FUSE loop …
 *	sched_start(s);		// recovers what the last run left, then goes on
 *	…
 *	sched_stop(s);		// leaves everything resumable; the mount must still answer meanwhile
 *	sched_free(s);
 */
#ifndef SCHED_SCHED_H
#define SCHED_SCHED_H

#include "engine/base/err.h"
#include "sched/host.h"

#include <stdbool.h>
#include <stdint.h>

struct sched;
struct loop;

struct sched_options {
	int64_t settle_ns;       /* loose files that arrive together; 50 ms */
	int64_t settle_batch_ns; /* a batch directory is complete when quiet for this long; 1 s */
	/* Instances that have a struct, and the memory these take (spill.h): what comes beyond waits on disk. 0: no bound. */
	int64_t queue, queue_bytes;
	int workers;        /* that run mini-batches, side by side; 0: one */
	int worker_threads; /* of each; 0: all cores, but one for inference, of which workers have equal parts */
	int64_t patience_ns; /* how long a scan or training worker may be silent; 0: as their files say */
	bool ahead; /* batch directories are computed before they are submitted, where spec.json does not say */
	bool null_backend; /* endpoints run on the null executor (tests) */
};

int sched_new(struct sched **ret, const struct host_ops *ops, void *host,
	      const struct sched_options *options);
/*
 * Before sched_start: inodes that are open for writing though the scheduler begins only now (the mount was taken over).
 * Recovery leaves them alone; what happens to them is posted. Copied.
 */
int sched_expect(struct sched *s, const uint64_t *inos, size_t n);
int sched_start(struct sched *s);
void sched_stop(struct sched *s);
void sched_free(struct sched *s);
struct loop *sched_loop(struct sched *s); /* borrowed; where the host posts its `done` callbacks */

/* --- checks at the user's system call --- */

/* "5", "5s", "800ms", "2m", "@1769000000.5"; one newline at the end is allowed. BAD_DEADLINE otherwise. */
struct deadline {
	bool set, absolute;
	int64_t ns; /* after submission, or Unix time */
};
int deadline_parse(struct deadline *ret, const char *text, size_t len, struct err *err);

enum spec_kind { SPEC_JOB, SPEC_INFER };
/* -EINVAL with the reason; -EAGAIN when the text is JSON cut short (more writes may follow). */
int sched_check_spec(enum spec_kind kind, const char *json, size_t len, struct err *err);
enum ctl_kind { CTL_JOB, CTL_INFER };
int sched_check_ctl(enum ctl_kind kind, const char *text, size_t len, struct err *err);

/* --- what happened in the tree --- */

/* infer/APP: made, its spec.json complete (closed or renamed into place), a word written to ctl, removed. */
void sched_post_endpoint_spec(struct sched *s, const char *app, const char *json, size_t len);
void sched_post_endpoint_ctl(struct sched *s, const char *app, const char *word);
void sched_post_endpoint_gone(struct sched *s, const char *app);

/* jobs/NAME */
void sched_post_job_spec(struct sched *s, const char *job, const char *json, size_t len);
void sched_post_job_ctl(struct sched *s, const char *job, const char *word);
void sched_post_job_gone(struct sched *s, const char *job);

/* Anything below datasets/NAME changed or went. */
void sched_post_dataset_changed(struct sched *s, const char *dataset);
void sched_post_dataset_gone(struct sched *s, const char *dataset);

/* models/NAME and files directly in it, `ino` being the file's; names that wait are not posted. */
enum model_event {
	MODEL_WRITING,  /* opened for writing: what is in there is not whole */
	MODEL_COMPLETE, /* last writable handle released, renamed into place, or synced */
	MODEL_REMOVED,
	MODEL_CAME, /* the directory, renamed into models/ */
	MODEL_GONE
};
void sched_post_model(struct sched *s, const char *model, enum model_event event, uint64_t ino);

/*
 * Below infer/APP/in/. `path` is relative to in/ ("x.png", "batch1/sub/x.png"); its first directory, if any,
 * is the batch. Names that wait (.hidden, ~, .tmp, .part) are not posted until they are renamed.
 */
enum instance_event {
	INSTANCE_WRITING,  /* opened for writing: its batch is not quiet */
	INSTANCE_COMPLETE, /* last writable handle released, or renamed into place */
	INSTANCE_REMOVED,
	/* On disk as it is, but still open: complete unless WRITING comes again soon (an NFS server closes its
	 * files only after minutes). */
	INSTANCE_SYNCED,
	INSTANCE_CLOSED, /* the last handle went, and nothing changed since INSTANCE_SYNCED */
};
void sched_post_instance(struct sched *s, const char *app, enum instance_event event, const char *path,
			 uint64_t ino);
/* user.deadline (or the text of `.deadline`) set or removed (text NULL) on in/ (path ""), a batch directory
 * or a file. A batch directory that has files is submitted by it. */
void sched_post_deadline(struct sched *s, const char *app, const char *path, uint64_t ino, const char *text);
/*
 * A directory was made or renamed into in/ (renamed: its files, found by walking, are submitted, but for those that INSTANCE_WRITING
 * was posted for before it), or removed.
 */
enum batch_event { BATCH_MADE, BATCH_RENAMED_IN, BATCH_REMOVED };
void sched_post_batch(struct sched *s, const char *app, enum batch_event event, const char *path,
		      uint64_t ino);

#endif
