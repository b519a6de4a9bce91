/*
 * Private to sched/jobs*.c: jobs.c has the table of jobs and their states; jobs_records.c their records; jobs_train.c the training
 * worker; jobs_dataset.c data sets and their caches; jobs_scan.c the scan worker; jobs_models.c what users bring into models/NAME;
 * jobs_imports.c the table of imports and their records; jobs_import.c the import worker; jobs_files.c what is published;
 * jobs_check.c the checks at the user's system call.
 *
 * The states of a job, and who makes each transition:
 *
 *	spec.json closed ──▶ QUEUED ──train_next──▶ RUNNING ──model published──▶ DONE
 *	                      ▲  │ ▲                 │ │ │
 *	               resume │  │ └─ worker died ───┘ │ └── failed, worker died thrice ──▶ FAILED
 *	                      │  │ pause, stop         │ pause, stop (STOP sent, worker ended)
 *	                      │  ▼                     ▼
 *	                    PAUSED                 PAUSED, STOPPED
 *
 *	retry: FAILED, STOPPED, DONE ──▶ QUEUED.   resume: STOPPED too.
 *
 * 1. jobs->trainer.job is the only RUNNING job whose worker lives; it is NULL once the worker's last word
 *    came.
 * 2. The record in the host's key space is written before a state is published; each write is a new key and
 *    the deletion of the one before, in one commit.
 * 3. A RUNNING record at the start of the daemon is a QUEUED job: its checkpoint is where it goes on.
 */
#ifndef SCHED_JOBS_PRIVATE_H
#define SCHED_JOBS_PRIVATE_H

#include "engine/model.h"
#include "engine/train.h"
#include "sched/jobs.h"
#include "sched/loop.h"
#include "sched/peer.h"

#include <stdbool.h>
#include <stdint.h>

#define MAX_SPEC (UINT64_C(1) << 20)

enum job_state { JOB_QUEUED, JOB_RUNNING, JOB_PAUSED, JOB_DONE, JOB_FAILED, JOB_STOPPED, JOB_STATES };
extern const char *const job_state_names[JOB_STATES];

/* A row of metrics.csv; accuracies 0…1. */
struct epoch_row {
	int epoch;
	double seconds, lr, train_loss, train_accuracy;
	int n_rates;
	double rates[MODEL_MAX_RATES], accuracy[MODEL_MAX_RATES], loss[MODEL_MAX_RATES];
};

struct job {
	struct job *next;
	struct jobs *jobs;
	char *name;
	char *spec; /* the bytes of spec.json */
	size_t spec_len;
	struct train_spec *parsed; /* NULL: wrong, the job is FAILED */
	enum job_state state;
	enum job_state wanted;  /* of a RUNNING job that was told to stop: what it becomes; else RUNNING */
	enum err_code error;    /* of FAILED */
	uint64_t order;         /* place in the queue */
	int version;            /* of the model that is (being) published; 0: none yet */
	int epoch;              /* of the checkpoint; 0: none */
	int deaths;             /* of workers since that checkpoint */
	int64_t not_before;     /* loop time: a worker that died again waits a little */
	uint64_t record;        /* number of its record's key; 0: none */
	uint64_t recorded_spec; /* hash of the spec that the record is about; used while recovering */
	struct train_progress progress;
	char waits_for[300];         /* of QUEUED: what `progress` last said */
	struct publishing *announce; /* told when the next published state is there */
	struct buf log;
	struct epoch_row *rows;
	int n_rows;
};

/* One decoded form of a data set: state file "cache/FILE". */
struct cache {
	struct cache *next;
	char shape[48]; /* "3x32x32", "": as the data are */
	uint64_t fingerprint;
	enum { CACHE_WANTED, CACHE_READY, CACHE_FAILED } state;
	struct err err; /* of CACHE_FAILED */
	int deaths;
	uint64_t record; /* of CACHE_READY */
	char *file;      /* "cache/NAME-FINGERPRINT…" */
};

/* A file on which the decoder died; it is not sent again until the data set changes. */
struct crasher {
	struct crasher *next;
	bool hung;
	char *path;
};

struct dataset_entry {
	struct dataset_entry *next;
	struct jobs *jobs;
	char *name;
	bool dirty; /* changed since it was last walked */
	bool known; /* fingerprint is that of the last walk */
	uint64_t fingerprint;
	struct loop_timer *settle;
	struct cache *caches;
	struct crasher *crashers; /* of this fingerprint, while the daemon runs */
	int n_crashers;
};

struct scan_file {
	char *path;
	uint64_t ino, size;
};

struct dataset_walk {
	uint64_t fingerprint;
	bool collect; /* files, not only their fingerprint */
	struct scan_file *files;
	size_t n, size;
	int r;
};

struct trainer {
	struct peer *peer;           /* NULL: none; also set while a finished one ends */
	struct job *job;             /* NULL: none, or the last word came */
	struct loop_timer *patience; /* after STOP */
	struct loop_timer *watchdog; /* until the next message */
	int64_t heard_at;            /* when the last PROGRESS came; 0: none yet */
	int64_t step_ns;             /* what a step took at last, by the daemon's clock */
	int epoch;                   /* the last that this worker finished */
	int notes;                   /* of this worker */
	bool knobs;                  /* this worker said what it goes by */
	struct loop_timer *again;    /* when a job that waits a little may start */
};

#define SCAN_IN_FLIGHT 4

struct scanner {
	struct peer *peer;
	struct dataset_entry *ds; /* NULL: none, or the last word came */
	struct cache *cache;
	struct scan_file *files; /* (n): those before `taken` are decoded, before `at` sent */
	size_t n, taken, at;
	size_t alone;                /* files before this one go one at a time: one of them may be deadly */
	size_t ends[SCAN_IN_FLIGHT]; /* where the messages that are not TAKEN yet end, oldest first */
	int in_flight;
	bool finishing, hung;
	struct loop_timer *patience; /* until the next word */
};

/*
 * A file of weights that a user put into models/NAME, x.onnx or x.safetensors:
 *
 *	a walk ──▶ WAITS       of safetensors: for model.json
 *	a walk ──▶ QUEUED ──import_next──▶ RUNNING ──IMPORTED──▶ PUBLISHING ──▶ LINKING ──▶ DONE
 *	              ▲                     │    │               (models/NAME/V)  (latest)
 *	              └─── died once, ──────┘    └──FAILED, died twice, too slow──▶ PUBLISHING ──▶ FAILED
 *	                   its inputs changed                                         (error)
 *	DONE, FAILED: a walk that finds other inputs ──▶ QUEUED, or WAITS.   Its file went ──▶ forgotten
 *
 * 1. jobs->importer.import is the only RUNNING one.
 * 2. The batch that makes the version, or `error`, visible has the record too: before it the import is done again after a crash, after it
 *    never. The record names the inputs, so that it also tells whether they changed while nobody looked.
 * 3. An import that is held (PUBLISHING, LINKING) belongs to a publication on its way: it isn't freed, and its record not touched.
 */
enum import_state {
	IMPORT_WAITS,
	IMPORT_QUEUED,
	IMPORT_RUNNING,
	IMPORT_PUBLISHING,
	IMPORT_LINKING,
	IMPORT_DONE,
	IMPORT_FAILED
};

/* What a version is made of: numbers that are others when a file is; 0: it is not there. */
struct inputs {
	uint64_t weights, json, labels, beside; /* beside: the file that an ONNX model keeps weights in */
};

struct import {
	struct import *next;
	struct jobs *jobs;
	char *model, *file;
	uint64_t ino, size;
	uint64_t json_ino, labels_ino, beside_ino; /* 0: not there */
	uint64_t beside_size;
	const char *beside_end;   /* what its name has more than `file`; static */
	struct inputs seen, used; /* by the last walk; by this import, or the one that is recorded */
	enum import_state state;
	bool failed;     /* of PUBLISHING: it becomes FAILED */
	bool found;      /* by the walk at hand */
	bool gone;       /* held, and its file went */
	bool linked;     /* latest leads to the version, or did */
	int version;     /* 0: none */
	int tries;       /* to publish it under a free number */
	int deaths;      /* of workers */
	uint64_t order;  /* place in the queue */
	int64_t started; /* loop time; of RUNNING */
	uint64_t record,
		next_record; /* its key's number; 0: none. The one that is on its way with a publication */
	struct host_tree *tree;
};

/* models/NAME */
struct model_dir {
	struct model_dir *next;
	struct jobs *jobs;
	char *name;
	bool dirty; /* changed since it was last walked */
	bool came;  /* by a rename: what is recorded for its files under another name is theirs */
	struct loop_timer *settle;
};

struct importer {
	struct peer *peer;
	struct import *import;    /* NULL: none, or the last word came */
	struct loop_timer *limit; /* for the whole of it */
	int weights_fd;           /* the host's, that the worker writes them to; -1: the bytes are shared */
	uint64_t weights_len;     /* those */
	bool hung;
};

/* Files of a model version on their way into the tree. */
struct publishing {
	struct publishing *next;
	struct jobs *jobs;
	struct job *job; /* NULL: gone or started anew meanwhile */
	char *model;
	int version, left, r;
};

struct jobs {
	struct loop *loop;
	const struct host_ops *ops;
	void *host;
	const struct sched_options *options;
	const struct jobs_events *events;
	void *data;
	bool stopped;
	uint64_t number; /* the last given to a record or a queue place */
	struct job *jobs;
	struct dataset_entry *datasets;
	struct trainer trainer;
	struct scanner scanner;
	struct publishing *publishing;
	struct model_dir *model_dirs;
	struct import *imports;
	struct importer importer;
	uint64_t *writing; /* (n_writing): inodes directly in models/NAME that are open for writing */
	size_t n_writing;
	struct announced *announced; /* dataset.json on its way */
	struct reaper reaper;
	struct loop_timer *kick;
};

/* --- jobs.c --- */

uint64_t jobs_number(struct jobs *jobs); /* unique across restarts, ascending */
void jobs_kick(struct jobs *jobs);       /* looks for work, from the loop */
struct job *jobs_find(struct jobs *jobs, const char *name);
struct job *job_new(struct jobs *jobs, const char *name); /* in the table; NULL: out of memory */
int job_take_spec(struct job *job, const char *json, size_t len, struct err *err);
void job_unpublish_error(struct job *job);
/* Records and publishes. err: of FAILED, else NULL. */
void job_set_state(struct job *job, enum job_state state, const struct err *err);
void job_forget_checkpoint(struct job *job);
void job_publish_knobs(struct job *job, const struct train_spec *spec);

/* --- jobs_records.c --- */

/* Puts value under PREFIX/NAME/number and deletes the key of *record; *record is the new number. value NULL:
 * only deletes. */
int jobs_record(struct jobs *jobs, const char *prefix, const char *name, uint64_t *record, const char *value);
/* The same to be committed with something else: ops point into the struct and to value. Room for RECORD_MORE ops. */
#define RECORD_MORE 2
struct record_ops {
	uint64_t number; /* of the new record */
	size_t n;
	struct host_op ops[2 + RECORD_MORE];
	char put[600], del[600];
};
void jobs_record_ops(struct jobs *jobs, const char *prefix, const char *name, uint64_t record,
		     const char *value, struct record_ops *ret);
int job_save(struct job *job);

/* --- jobs_train.c --- */

void train_next(struct jobs *jobs); /* starts the first queued job that can run, if none does */
void train_tell_stop(struct job *job, enum job_state wanted);
void train_kill(struct jobs *jobs); /* at once, without a change of state */

/* --- jobs_dataset.c --- */

/* 0: *ret_fd is the cache; -EAGAIN: a scan has to end first (why in text); else err says what is wrong. */
int dataset_cache(struct jobs *jobs, const char *name, int c, int h, int w, int *ret_fd, char *text,
		  size_t size, struct err *err);
/* A worker could not use this cache: it goes, and who asks next waits for a scan. */
void dataset_cache_bad(struct jobs *jobs, const char *name, int c, int h, int w);
/* Adds up the fingerprint and, when asked to, the files, which the caller frees on failure too. */
int dataset_walk(struct dataset_entry *ds, struct dataset_walk *walk);
void scan_files_free(struct scan_file *files, size_t n);
/* The cache is READY: recorded now, or, when it is the one that dataset.json comes of, when that is visible. */
int dataset_scanned(struct dataset_entry *ds, struct cache *c, const void *json, size_t len);
int dataset_recover(struct jobs *jobs);
void dataset_free_all(struct jobs *jobs);
void dataset_status(struct jobs *jobs, struct buf *ret);

/* Adds to a hash what tells of a change: inode, size, mtime. */
uint64_t mix_entry(uint64_t h, const struct host_entry *e);

/* --- jobs_scan.c --- */

void scan_next(struct jobs *jobs); /* starts the first scan that is wanted, if none runs */
void scan_kill(struct jobs *jobs);

/* --- jobs_models.c --- */

int models_recover(struct jobs *jobs);
void models_free_all(struct jobs *jobs);
bool models_has(const struct jobs *jobs, const char *name);
/* Whether its directory is as the last walk saw it. */
bool import_is_settled(const struct import *imp);
/* A publication is through: it is in its last state, or what came up meanwhile is done. */
void import_ended(struct import *imp);

/* --- jobs_imports.c --- */

struct import *import_find(const struct jobs *jobs, uint64_t ino);
struct import *import_new(struct jobs *jobs, uint64_t ino, const char *model,
			  const char *file); /* in the table */
bool import_is_held(const struct import *imp);
void import_halt(struct import *imp);   /* RUNNING becomes QUEUED */
void import_forget(struct import *imp); /* record and all; when it is held, at the end of that */
/* As it will be recorded by ops that go with a publication; *ret_value holds the record's text. */
int import_record_ops(struct import *imp, struct record_ops *ops, char **ret_value);
int import_save(struct import *imp);
int imports_recover(struct jobs *jobs); /* those that are recorded */
void imports_free_all(struct jobs *jobs);
void imports_status(struct jobs *jobs, struct buf *ret);

/* --- jobs_import.c --- */

void import_next(struct jobs *jobs); /* starts the first that is queued, if none runs */
void import_stop(struct jobs *jobs); /* the one that runs, without a change of state */
void import_link(struct import *imp);

/* --- jobs_files.c --- */

/* The number of a version that nobody makes yet. */
int jobs_next_version(struct jobs *jobs, const char *model, int *ret);
void jobs_unpublish(struct jobs *jobs, const char *path, ...) __attribute__((format(printf, 2, 3)));

/* Publishes at the path; what can't be is logged. */
void jobs_publish(struct jobs *jobs, unsigned flags, const void *data, size_t len, const char *path, ...)
	__attribute__((format(printf, 5, 6)));
/* At `path`; done (may be NULL) is called from the loop, or, if it fails at once, before this returns. */
void jobs_publish_then(struct jobs *jobs, unsigned flags, const void *data, size_t len, const char *path,
		       void (*done)(void *data, int r, int64_t visible), void *done_data);
void job_log(struct job *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void job_publish_state(struct job *job);
void job_publish_progress(struct job *job);
void job_progress_text(const struct job *job, struct buf *ret); /* without newline */
void job_publish_rows(struct job *job);                         /* metrics.csv, curves.svg */
int job_add_row(struct job *job, const struct epoch_row *row);  /* in place of one of the same epoch */
void job_keep_rows(struct job *job, int epoch);                 /* forgets what came after it */
void job_read_back(struct job *job); /* log and rows from the tree, after a restart */
/* The descriptors of MODEL become a version; DONE follows from the loop when it is there. */
int job_publish_model(struct job *job, const int *fds, int n, struct err *err);
void publishing_forget(struct job *job);
void publishing_free_all(struct jobs *jobs);

/* --- jobs_svg.c --- */

void curves_svg(const struct epoch_row *rows, int n, const char *title, struct buf *ret);

#endif
