/*
 * Private to sched: the texts that users read: answers, results.csv, task.json, schedule.csv.
 */
#ifndef SCHED_RESULT_H
#define SCHED_RESULT_H

#include "engine/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct instance;
struct instance_verdict;
struct task;
struct endpoint;
struct row;
struct cJSON;
struct submodel;

enum result_status { RESULT_OK, RESULT_LATE, RESULT_DROPPED, RESULT_FAILED };
const char *result_status_name(enum result_status status);
int result_status_parse(enum result_status *ret, const char *name);

#define RESULTS_HEADER \
	"file,status,label,score,slice,precision,queued_ms,compute_ms,finished_ms,deadline_ms,task,error\n"

/*
 * Where the answer, or the picture with suffix ".gradcam.png", of in/PATH appears: "infer/APP/out/PATH.json".
 * A name too long for that is cut and ends in a hash. malloc'd; NULL: no memory.
 */
char *result_path(const struct endpoint *ep, const char *path, const char *suffix);
/* out/PATH.json. now: loop_now. NULL: no memory. */
struct cJSON *result_answer(const struct instance *inst, const struct instance_verdict *verdict,
			    enum result_status status, int64_t now);
/* Keys "slice" and "precision", and of an ensemble's "members"; "slice" is null where several members have one each. */
void result_add_submodel(struct cJSON *json, double slice, const char *precision, const char *members,
			 int n_parts);
void result_set_status(struct cJSON *answer, enum result_status status);
/* The answer's line of results.csv. */
void result_row(struct buf *ret, const struct cJSON *answer);
/* Rows of `old` (a whole results.csv or NULL) whose file is in none of the tasks, then the tasks' rows. */
void result_csv(struct buf *ret, const char *old, size_t old_len, struct task *const *tasks, size_t n);
/* task.json: of one task, or the sums over several of one directory. */
void result_task(struct buf *ret, struct task *const *tasks, size_t n);
/* The header fits the endpoint's sub-models. */
void result_schedule_header(struct buf *ret, const struct endpoint *ep);
void result_schedule_row(struct buf *ret, const struct task *task);
void result_slices(struct buf *ret, const struct endpoint *ep);
/* Σ p_i over N, in percent. */
double result_p_eff(const struct task *task);

#endif
