/*
 * What runs mini-batches: a worker process (sched/worker/) or the null executor with programmed durations
 * (sched/null.c). Owner thread (the scheduler's loop) only; answers come as callbacks on that thread, never
 * from within the call that asked. One mini-batch runs at a time on one executor, in order of run().
 */
#ifndef SCHED_EXECUTOR_H
#define SCHED_EXECUTOR_H

#include "engine/base/err.h"
#include "engine/cascade.h"
#include "engine/ensemble.h"
#include "engine/precision.h"

#include <stdbool.h>
#include <stdint.h>

#define MAX_SUBMODELS 24
#define MAX_TOP       5

/* A sub-model of an endpoint: slice × precision (DESIGN section 6), of one member or combined of several where it is an ensemble. */
struct submodel {
	float slice;       /* the widest of its parts */
	char precision[8]; /* "f32", "bf16", "int8", "mixed" */
	int n_parts;       /* 0: the endpoint has one model */
	struct submodel_part {
		int member;
		float slice;
		char precision[8];
	} parts[ENSEMBLE_MEMBERS]; /* each of another member */
	const char *
		members; /* how users read the parts, "a:0.25+b:1"; the endpoint's (endpoint.c); NULL: one model */
	bool idle; /* below the upper hull of times and accuracies: no plan uses it, it isn't kept loaded */
	double accuracy;     /* p_i, 0…1, on validation data */
	int64_t time_ns;     /* t_i of a full mini-batch, decode included, measured on this executor */
	int64_t time_one_ns; /* of a mini-batch of one instance */
	/* Cascades that begin with it (engine/cascade.h), where they were measured: then[j] with sub-model j of the endpoint as the other
	 * one. 0: not measured. */
	struct cascade_first first;
	float then[MAX_SUBMODELS][CASCADE_POINTS];
};

/* A model of an ensemble; borrowed. */
struct endpoint_member {
	const char *name;                                   /* "models/a/3" */
	double weight;                                      /* > 0 */
	int model_fd, weights_fd, labels_fd, validation_fd; /* the last two may be -1 */
};

struct endpoint_load {
	uint32_t endpoint; /* the caller's number for it */
	int batch;         /* S */
	/* model.json, weights.safetensors or model.onnx, labels.txt; borrowed; labels_fd may be -1 */
	int model_fd, weights_fd, labels_fd;
	bool gradcam;
	unsigned precisions; /* 1 << enum precision of each; 0: those that the model was measured in */
	/* An ensemble's, in place of the three descriptors; 0: it has one model. */
	int n_members;
	const struct endpoint_member *members;
};

struct instance_input {
	uint64_t id;      /* the caller's */
	const void *data; /* the file's bytes, borrowed during run() */
	size_t len;
};

struct instance_answer {
	uint64_t id;
	bool failed;
	struct err err; /* when failed */
	int label;      /* index */
	float score;
	int n_top;
	int top[MAX_TOP];
	float top_score[MAX_TOP];
};

struct batch_done {
	uint64_t batch;     /* as given to run() or explain() */
	int r;              /* 0, or -EIO: the worker died or answered nonsense; nothing was computed */
	int64_t compute_ns; /* of the whole mini-batch in the worker */
	int core;           /* that it was computed on, as the worker says, from 1; 0: not known */
	int n;
	const struct instance_answer *answers; /* (n), borrowed; of run() */
	int picture_fd;              /* of explain(): one memfd, the PNGs one after the other; borrowed; -1 */
	const uint64_t *picture_len; /* (n) of explain(); 0 where one failed */
};

struct executor_events {
	/* The endpoint can run; submodels is borrowed. Labels as text, (n_labels). r 0: err may have, with code NONE, a detail that is to be
	 * known, or be NULL. */
	void (*loaded)(void *data, uint32_t endpoint, int r, const struct err *err,
		       const struct submodel *submodels, int n, const char *const *labels, int n_labels);
	void (*done)(void *data, const struct batch_done *done);
	/* The worker died: every batch handed out was answered with -EIO before; endpoints are loaded again
	 * by the executor itself and `loaded` comes once more for each. */
	void (*died)(void *data);
};

struct executor;
struct executor_ops {
	/* What is wrong with the model's files comes with `loaded`, the rest as -errno at once. */
	int (*load)(struct executor *ex, const struct endpoint_load *load);
	void (*unload)(struct executor *ex, uint32_t endpoint);
	/* At most two batches may be outstanding (one runs, one waits so that the device never idles), else
	 * -EBUSY. -EAGAIN: the endpoint is not loaded, not yet or since `died`. */
	int (*run)(struct executor *ex, uint64_t batch, uint32_t endpoint, int submodel,
		   const struct instance_input *in, int n);
	/* Grad-CAM pictures of labels[i] at the given sub-model. */
	int (*explain)(struct executor *ex, uint64_t batch, uint32_t endpoint, int submodel,
		       const struct instance_input *in, const int *labels, const float *scores, int n);
	void (*free)(struct executor *ex);
};

/* First member of each implementation's own struct. */
struct executor {
	const struct executor_ops *ops;
};

struct loop;
struct host_ops;
/*
 * A worker process of kind "infer", started at once and again when it dies (delay 0, then doubling to 10 s).
 */
int executor_worker_new(struct executor **ret, struct loop *loop, const struct host_ops *ops, void *host,
			int threads, const struct executor_events *events, void *data);
/*
 * How long a mini-batch may take before the worker counts as hung and is killed, when 20 times its expected
 * time is less: 10 s unless set (tests).
 */
void executor_worker_set_limit(struct executor *ex, int64_t ns);
/*
 * The null executor: endpoint_load's model_fd holds
 *	{"submodels":[{"slice":1,"accuracy":0.79,"ms":45.12,"one_ms":2,"told_ms":45.12,"idle":false}…],"classes":N,"load_ms":0}
 * (the last three of a sub-model may be left out: as ms, false; load_ms, until it is loaded, too; told_ms is what `loaded` says of it, ms what it takes), and of each sub-model
 * "threshold", "sure" and "then" (a list for each sub-model) as of struct submodel, of an ensemble's (where the first member's model.json
 * stands for all) "parts", [[member,slice],…]; a mini-batch takes its programmed time on the loop's clock (× the factor
 * set below; part-filled ones as sched/plan/plan.h says), an explanation the same; label = first byte of
 * the data % classes, score what follows after a blank ("7 0.35"), or 0.9; an instance that is empty or whose data begin with "bad" fails. Labels are "0", "1",
 * … The picture of a label is a grey pixel.
 */
int executor_null_new(struct executor **ret, struct loop *loop, const struct executor_events *events,
		      void *data);
void executor_null_set_factor(struct executor *ex, double factor); /* of what starts from now on; ≥ 0 */
/* Of a device: times are divided by it, those that `loaded` says, too; > 0, before anything is loaded. */
void executor_null_set_speed(struct executor *ex, double speed);
/* Each mini-batch takes a log-normally distributed multiple of it, of mean 1 and that deviation; 0: none. */
void executor_null_set_noise(struct executor *ex, double noise, uint64_t seed);
/* So many times a second, at random, the machine does nothing for ns (> 0); 0: never. */
void executor_null_set_stalls(struct executor *ex, double rate, int64_t ns, uint64_t seed);
void executor_null_kill(struct executor *ex); /* as if the worker died now; called back from the loop */

#endif
