/*
 * Private to sched: infer/APP. The state file says
 *
 *	stopped ──spec, start──▶ starting ──loaded──▶ running
 *	   ▲                        │  ▲                 │
 *	   └──────── stop ──────────┼──┼─────────────────┤
 *	                  wrong ◀───┘  └──reload, spec───┘
 *	failed ──start, spec, reload──▶ starting
 *
 * Tasks may be submitted in every state and wait; a deadline goes on running.
 */
#ifndef SCHED_ENDPOINT_H
#define SCHED_ENDPOINT_H

#include "sched/caution.h"
#include "sched/device.h"
#include "sched/executor.h"
#include "sched/fair.h"
#include "sched/outbox.h"
#include "sched/spec.h"
#include "sched/spill.h"
#include "sched/stats.h"
#include "sched/table.h"
#include "sched/timeline.h"

struct cJSON;
struct sched;
struct loop_timer;
struct task;

enum endpoint_state { ENDPOINT_STOPPED, ENDPOINT_STARTING, ENDPOINT_RUNNING, ENDPOINT_FAILED };

struct endpoint {
	struct table_node node; /* of sched->endpoints */
	struct sched *s;
	uint32_t number; /* the executors' name for it */
	enum endpoint_state state;
	bool has_spec;
	bool ready;    /* some device has it loaded: it is running */
	bool loaded;   /* handed to the executors */
	bool gone;     /* removed: nothing is published any more; freed when refs is 0 */
	unsigned refs; /* mini-batches and publications on their way */
	struct infer_spec spec;
	struct err err;
	/* What answers are of: from `loaded` on; those in flight at a reload are still the old model's. */
	char model[ENSEMBLE_MEMBERS * MAX_NAME]; /* of an ensemble all names, "a+b" */
	int n_members;                           /* 0: none was loaded yet */
	int versions[ENSEMBLE_MEMBERS];          /* (n_members) */
	int loading[ENSEMBLE_MEMBERS];           /* the versions handed to the executors */
	/* What sub-models of ensembles are called: struct submodel's, stats' and the timeline's `members` lie here. */
	char **names; /* (n_names) owned */
	int n_names;
	char note[512]; /* what is to be known of the models that were loaded; "": nothing */

	int n_submodels;
	struct submodel submodels[MAX_SUBMODELS];
	char **labels; /* (n_labels) */
	int n_labels;
	struct served *on;      /* (s->n_devices) */
	struct caution caution; /* since the daemon started, whatever was loaded */
	struct lane lane;       /* tasks that wait */
	int64_t picture_ns;     /* what one takes, of late; 0: none was made yet */

	struct table instances; /* not answered, by path … */
	struct spill spill;     /* … and those that wait on disk */
	struct table batches;
	uint32_t last_seq; /* of the last task; 0: none yet */
	struct stats stats;
	struct timeline *timeline; /* NULL: nothing ran yet */
	struct buf schedule;       /* rows of schedule.csv */
	size_t schedule_rows;
	struct loop_timer *stats_timer;
	bool stats_soon;                 /* the timer is for something new */
	struct loop_timer *reload_timer; /* a load that could not be handed over */
	char name[MAX_NAME];
};

/* create: made, stopped, when it is not there. NULL: not there or out of memory. */
struct endpoint *endpoint_get(struct sched *s, const char *name, bool create);
size_t endpoint_waiting(const struct endpoint *ep); /* instances that are not answered */
void endpoint_spec(struct endpoint *ep, const char *json, size_t len);
void endpoint_word(struct endpoint *ep, enum infer_word word);
void endpoint_gone(struct endpoint *ep);
void endpoint_unref(struct endpoint *ep);
void endpoint_free(struct endpoint *ep);
/* After a restart: the spec as it lies there; `stopped` stays stopped. */
void endpoint_recover(struct endpoint *ep);

/* The executors' events. */
void endpoint_loaded(void *device, uint32_t number, int r, const struct err *err,
		     const struct submodel *submodels, int n, const char *const *labels, int n_labels);
void endpoint_died(void *device);

const char *endpoint_state_name(enum endpoint_state state);
/* Paths in the tree: "infer/APP/" and the rest. Returns ret. */
char *endpoint_path(const struct endpoint *ep, char *ret, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* --- endpoint_names.c --- */

/* Whose answers are given; the spec's before it ran: keys "model" and "version", of an ensemble "a+b" and "3+1". */
void endpoint_add_model(const struct endpoint *ep, struct cJSON *json);
void endpoint_print_model(const struct endpoint *ep, struct buf *ret); /* "a/3+b/1" */
/* Sets `members` of an ensemble's sub-models. -ENOMEM */
int endpoint_name_submodels(struct endpoint *ep);

/* --- endpoint_files.c --- */

void endpoint_publish(struct endpoint *ep, const char *name, const struct buf *text); /* as infer/APP/NAME */
void endpoint_schedule_row(struct endpoint *ep, const struct task *task);
void endpoint_publish_stats(struct endpoint *ep);    /* stats.json and schedule.csv, soon */
void endpoint_recover_schedule(struct endpoint *ep); /* as it lies there, if it is of the same sub-models */

#endif
