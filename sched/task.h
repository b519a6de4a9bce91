/*
 * Private to sched: instances, batches and tasks (DESIGN section 2).
 *
 * An instance is a file below in/. Its life, and who moves it on:
 *
 *	WRITING ──complete──▶ COMPLETE ──submit──▶ QUEUED ──dispatch──▶ RUNNING ──answer──▶ published, freed
 *	   ▲                     │                   │  ▲──worker died──────┘
 *	   └──opened again───────┘                   └──removed, no time: answered at once
 *	WRITING, COMPLETE ──removed──▶ freed, unanswered: it was never submitted
 *
 *	COMPLETE ──it is an archive──▶ UNPACKING (unpack.h)
 *
 * 1. An instance is in endpoint->instances under its path until it is answered, removed or (while it runs)
 *    its file is written anew.
 * 2. Its link is in batch->writing, batch->ready, task->queue or (RUNNING, UNPACKING) no list, or, RUNNING but at no executor, in
 *    task->held.
 *    Beyond a bound a complete or queued one has no struct, and waits on disk: spill.h.
 * 3. A task counts in `open` every instance of it whose answer is not visible yet, and ends when that is 0.
 *
 * A batch is a directory below in/; the one called "" is in/ itself and has the loose files. Instances of one
 * submission with a deadline of their own make a task of their own for each different deadline.
 */
#ifndef SCHED_TASK_H
#define SCHED_TASK_H

/*
 * Files: instance.c and batch_events.c (what happened in the tree), batch.c (deadlines, quiet), submit.c (what is complete → tasks), draft.c and spill.c (what waits on disk),
 * task.c (tasks and their end), answer.c (their answers).
 */

#include "engine/base/buf.h"
#include "sched/executor.h"
#include "sched/list.h"
#include "sched/plan/plan.h"
#include "sched/readers.h"
#include "sched/sched.h"
#include "sched/spec.h"
#include "sched/table.h"

struct endpoint;
struct loop_timer;
struct sched;

enum instance_state {
	INSTANCE_IS_WRITING,
	INSTANCE_IS_COMPLETE,
	INSTANCE_IS_QUEUED,
	INSTANCE_IS_REMOVED, /* its answer waits; its name is free */
	INSTANCE_IS_RUNNING,
	INSTANCE_IS_UNPACKING /* an archive: see unpack.h */
};

struct instance {
	struct table_node node;
	struct list link;
	struct batch *batch;
	struct task *task; /* from its submission */
	uint64_t ino;
	uint32_t no; /* within its task */
	enum instance_state state;
	bool named;                  /* in endpoint->instances */
	uint8_t tries;               /* mini-batches that ended with the worker's death */
	uint16_t limit;              /* of the next mini-batch it is in: bisecting; 0: none */
	struct deadline own;         /* user.deadline of the file */
	struct archive_job *archive; /* UNPACKING */
	struct held *held;           /* RUNNING: its first answer (cascade.h); owned */
	struct list early;           /* of batch->early: it may be computed before its submission */
	bool ahead;                  /* it is, or was (`held`), and is not submitted (ahead.h) */
	struct minibatch *ahead_in;  /* that computes it */
	struct loop_timer *synced;   /* WRITING, and complete when it fires */
	int64_t started;             /* loop_now */
	char path[];                 /* relative to in/ */
};

struct batch {
	struct table_node node; /* of endpoint->batches */
	struct endpoint *ep;
	struct list ready;   /* COMPLETE instances */
	struct list writing; /* WRITING ones */
	uint32_t n_ready, n_writing;
	struct list early;      /* of those that are COMPLETE: what may be computed ahead */
	struct list early_link; /* of the dispatcher, while there are any */
	uint32_t n_early;
	int64_t last_event;
	struct loop_timer *settle; /* submits when it is quiet (a directory) or the window is over (in/) */
	struct loop_timer *
		latest; /* submits what is complete: its deadline, an absolute one, comes nearer while it grows */
	/* A deadline was set, or it was renamed in, while files were open for writing: submitted as soon as
	 * they are closed, counted from then (close(2) returns before the kernel sends RELEASE). */
	struct loop_timer *closing;
	int64_t asked_at;
	bool removed; /* the directory went; freed with its last task */
	bool fresh;   /* made while we watched and not submitted yet: what lies in out/ is of an older one */
	bool deadline_known; /* else user.deadline of the directory must be read */
	struct deadline deadline;
	struct task *
		draft; /* what is complete and waits on disk for its submission (draft.c); NULL: nothing. In no list */
	struct list tasks;    /* unfinished, by submission */
	struct list finished; /* tasks that wait for the others of this directory */
	char name[MAX_NAME];
};

enum deadline_source { DEADLINE_NONE, DEADLINE_SPEC, DEADLINE_IN, DEADLINE_BATCH, DEADLINE_FILE };

#define ROWS_KEPT \
	(2u       \
	 << 20) /* bytes of a task's rows in memory; chosen: 16,000 of them. The others are read from its records */

struct row { /* of results.csv, with its newline, in task->rows */
	uint32_t no;
	uint32_t at; /* ROW_STORED: only in its record */
	uint32_t len : 31;
	uint32_t renewed : 1; /* the key's suffix */
};
#define ROW_STORED UINT32_MAX

struct task {
	struct endpoint *ep;
	struct batch *batch;
	struct list batch_link;
	struct list link;   /* of the dispatcher's due, due_asleep or overdue */
	struct list own;    /* of the endpoint's lane, while instances are queued or held */
	struct task *split; /* where instances with moved deadlines last went; borrowed, checked by seq */
	uint32_t split_seq;
	uint32_t seq;
	char id[MAX_NAME + 12];
	int64_t submitted_wall, submitted; /* loop_wall, loop_now */
	struct deadline deadline;
	enum deadline_source source;
	int64_t due; /* loop_now; INT64_MAX: none */
	struct list queue;
	struct list pages;    /* what of it waits on disk (spill.h) */
	struct list removed;  /* instances that were removed before they ran, not answered yet */
	struct list removing; /* of the dispatcher, while there are any */
	uint32_t n_queued, n_running, open, next_no;
	struct held_kind *held; /* of what kinds there were yet; owned */
	uint32_t n_held;        /* of n_running */

	uint32_t total, ok, late, dropped, failed;
	uint32_t taken;  /* of dropped: their files were removed */
	double gained;   /* Σ p_i of instances that were in time */
	double expected; /* Σ p_i of all that were handed to the executor */
	bool numbered;   /* its number was taken before it is submitted */
	bool planned;
	bool begun; /* some of it was handed to the executor */
	int began; /* 1 + the sub-model of its first mini-batch, but for what was computed ahead; 0: none yet */
	double planned_p_eff;
	int64_t admitted; /* instances that were expected in time (admit.h); -1: not known */
	int64_t n_planned[MAX_SUBMODELS], n_real[MAX_SUBMODELS];
	enum plan_method method;
	int64_t solve_ns;
	int64_t finished; /* loop_now of the last answer's publication */

	struct readers readers;
	struct buf rows;
	struct row *row; /* (n_rows) */
	size_t n_rows, rows_size;
	bool rows_stored; /* not all of them are in `rows` */
	uint32_t *noted;  /* (n_noted) numbers in the task's KEY_INSTANCES */
	size_t n_noted;
};

struct instance_verdict {
	const struct instance_answer *answer; /* NULL: dropped, or failed before it ran */
	struct err err;                       /* of these */
	bool dropped;
	int submodel;    /* with answer */
	double accuracy; /* p of this answer, 0…1: the sub-model's, or of a part of a cascade's */
	int64_t compute_ns;
};

/* --- what happened in the tree --- */
void task_instance_event(struct endpoint *ep, enum instance_event event, const char *path, uint64_t ino);
void task_deadline_event(struct endpoint *ep, const char *path, uint64_t ino, const char *text);
void task_batch_event(struct endpoint *ep, enum batch_event event, const char *path, uint64_t ino);

/* --- for recovery, and between those files --- */
struct batch *batch_get(struct endpoint *ep, const char *path, bool create); /* of an instance's path */
void batch_release_unused(struct batch *batch); /* frees it when it is removed and has nothing left */
bool batch_is_loose(const struct batch *batch); /* in/ itself */
/* The deadline that a task of this batch has now, read where needed: batch, in/, spec. */
enum deadline_source batch_deadline(struct batch *batch, struct deadline *ret);
struct batch *batch_named(struct endpoint *ep, const char *name, bool create); /* a directory's, or "" */
/* Something happened in it: a directory is quiet from here on, a window of loose files may open. */
void batch_touch(struct batch *batch);
void batch_settle_at(struct batch *batch,
		     int64_t at); /* looks then whether it is quiet; it has no settle timer */
/* The user said that it is whole: submitted now, or when what is still open is closed, but soon in any case. */
void batch_ask_submission(struct batch *batch);
/* What is complete becomes tasks that count from `at` (loop_now). If they can't be recorded it is tried again. */
void batch_submit(struct batch *batch, int64_t at);
void batch_cancel_timers(struct batch *batch);
bool deadline_read(struct sched *s, uint64_t ino, struct deadline *ret); /* the xattr; false: none */
/* It has a KEY_INSTANCES from `first` on, to be deleted at its end. */
int task_note_instances(struct task *task, uint32_t first);
/* After all rows were recovered: in the order of their keys they come sorted. */
bool task_has_row(const struct task *task, uint32_t no);
/* All rows with their texts, in the order of the instances. */
int task_read_rows(struct task *task);
/* A row of results.csv, in place of row *ret, or (SIZE_MAX) a new one. */
int task_add_row(struct task *task, uint32_t no, bool renewed, const char *text, size_t *ret);
void task_end_if_done(struct task *task); /* may free the task and its batch */
int task_new(struct task **ret, struct batch *batch, uint32_t seq, int64_t submitted_wall);
void task_set_submitted(struct task *task, int64_t submitted_wall);
void task_set_deadline(struct task *task, const struct deadline *deadline, enum deadline_source source);
/* Moves a submitted task's deadline; or one instance's, which then goes to a task of its own. */
void task_move_deadline(struct task *task, const struct deadline *deadline, enum deadline_source source);
void task_move_instance(struct instance *inst, const struct deadline *deadline, enum deadline_source source);
/* NULL: none. What waits on disk gets a struct by that. */
struct instance *instance_find(struct endpoint *ep, const char *path);
bool instance_is_known(const struct endpoint *ep, const char *path); /* the same, and changes nothing */
struct instance *instance_new(struct batch *batch, const char *path, uint64_t ino); /* WRITING, named */
void instance_queue(struct instance *inst, struct task *task); /* numbers it when it has no task yet */
/* It is queued, and was counted as such before. */
void instance_wait(struct instance *inst, struct task *task, uint32_t no);
void instance_ready(struct instance *inst); /* COMPLETE, in batch->ready */
int64_t instance_bytes(const struct instance *inst);
bool batch_has_complete(const struct batch *batch); /* there is something to submit */
/* Those of the task's queue are complete and not submitted; they go to `list`. */
void task_unqueue(struct task *task, struct list *list);

/* --- draft.c --- */

/* Beyond the bound: what is complete goes into the batch's draft, a record at a time. */
void draft_gather(struct batch *batch);
/* It was in the draft under that number and is complete again. */
void draft_withdraw(struct task *task, struct instance *inst, uint32_t no);
void draft_discard(struct batch *batch); /* and its records */

bool instance_name_waits(const char *path); /* .hidden, ~, .tmp, .part: some part of it */
/* access: NULL when the record has none. */
int task_recover_row(struct task *task, uint32_t no, bool renewed, const char *status, double gain,
		     const struct host_access *access, const char *text);
/* All its instances are queued: hands it to the dispatcher, or ends it. */
void task_recovered(struct task *task);

/* --- for the dispatcher --- */
/* Gives an instance (out of every list) its one answer, frees it; task's `open` falls when it is visible. */
void instance_answer(struct instance *inst, const struct instance_verdict *verdict);
void task_drop_instance(struct instance *inst, enum err_code code); /* a queued one */
void task_remove_instance(
	struct instance *inst);              /* a queued one: its file went; answered when there is room */
void task_answer_removed(struct task *task); /* the first of those */
void instance_unname(struct instance *inst); /* its name may be used anew */
void instance_free(struct instance *inst);
void instance_discard(struct sched *s, struct instance *inst); /* in no list and no table */

/* Everything of an endpoint that was removed; nothing is published. Mini-batches that run are kept. */
void task_forget_all(struct endpoint *ep);
void task_free(struct task *task);

#endif
