/* Private to sched/simulate: a trace, a host for its endpoints, a run. */
#ifndef SCHED_SIMULATE_INTERNAL_H
#define SCHED_SIMULATE_INTERNAL_H

#include "sched/device.h"
#include "sched/host.h"
#include "sched/plan/plan.h"
#include "sched/policy/policy.h"
#include "sched/sched.h"

#include "engine/base/buf.h"
#include "engine/cascade.h"

#include <stdio.h>

struct loop;

/* --- trace.c --- */

enum arrivals { ARRIVE_ONCE, ARRIVE_UNIFORM, ARRIVE_POISSON, ARRIVE_BURSTY };

struct sim_task {
	int64_t at, deadline; /* ns; INT64_MAX: none */
	int instances;
	int endpoint; /* of the trace's */
};

struct sim_endpoint {
	char name[32];
	double weight;
	int n; /* sub-models */
	double accuracy[MAX_SUBMODELS];
	int64_t told[MAX_SUBMODELS], real[MAX_SUBMODELS], real_one[MAX_SUBMODELS]; /* ns of a mini-batch */
	/* Cascades (engine/cascade.h), 0…1; 0: none. */
	float sure[MAX_SUBMODELS][CASCADE_POINTS], then[MAX_SUBMODELS][MAX_SUBMODELS][CASCADE_POINTS];
	int batch;
	int64_t deadline;            /* ns */
	int *instances, n_instances; /* of the runs */
	enum arrivals arrivals;
	double rate;      /* tasks a second */
	int64_t duration; /* ns */
	int burst;
	struct sim_task *task; /* (n_tasks); those that the trace names */
	int n_tasks;
};

struct trace {
	struct sim_endpoint *endpoint; /* (n_endpoints), one at least */
	int n_endpoints, n_runs;
	bool named; /* the trace has "endpoints" */
	int64_t publish,
		until; /* ns; of an answer; how long the device is looked at, 0: as long as tasks come */
	double noise;
	double stalls;                                      /* a second */
	int64_t stall_ns;                                   /* each */
	double speed[MAX_DEVICES], real_speed[MAX_DEVICES]; /* (n_workers), as measured and as they are */
	int n_workers;
	uint64_t seed;
	const struct policy *policy[16];
	int n_policies;
};

int trace_parse(struct trace *ret, const char *json, size_t len, struct err *err);
void trace_release(struct trace *trace);
/* The tasks of run i, by time; *ret is malloc'd. The number of them, or -ENOMEM. */
int trace_tasks(const struct trace *trace, int i, struct sim_task **ret);

/* --- host.c --- */

/*
 * Files: of endpoint E models/E/1/model.json, and directories infer/E/in/tK with so many instances each, whose answers have scores spread
 * evenly over 0…1. Answers are published one after the other, and forgotten, but for task.json.
 */
struct sim_host {
	struct loop *loop;
	int64_t publish, free_at; /* ns an answer; loop_now when the last one is done */
	struct buf *model_json;   /* (n_endpoints) */
	int n_endpoints;
	const struct sim_task *task; /* (n_tasks) */
	int n_tasks;
	struct buf *report; /* (n_tasks) out/tK/task.json, when it is there */
	int n_reports;
};

extern const struct host_ops sim_host_ops;
uint64_t sim_host_dir(int task);                      /* inode of infer/E/in/tK */
void sim_host_name(int task, char *ret, size_t size); /* "tK" */

/* --- run.c --- */

struct outcome { /* of an endpoint */
	int64_t instances, ok, late, dropped, failed;
	int64_t admitted, broken;      /* as task.json says it; of them not in time */
	double gained, planned, bound; /* Σ over instances, 0…1 each */
	double latency_ms, plan_us;    /* Σ over tasks */
	int64_t last_ns;               /* when the last task was finished */
	int64_t ran[MAX_SUBMODELS];    /* mini-batches */
	int64_t device_ns;             /* computed for it, as long as it was looked at */
};

/* ret: (trace->n_endpoints) */
int sim_run(const struct trace *trace, const struct policy *policy, const struct sim_task *task, int n_tasks,
	    struct outcome *ret, struct err *err);

#endif
