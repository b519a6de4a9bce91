/*
 * Private to sched: infer/APP/spec.json and the words of its ctl. One table (spec.c) has the keys; all but
 * "model" have defaults:
 *
 *	model		the name below models/
 *	version		"latest", or a number
 *	models		in place of both, two to eight that answer together: ["a",{"model":"b","version":3,"weight":2}]; weight 1
 *	batch		instances of a mini-batch, S: 1 to 1024; 32
 *	deadline	as user.deadline would be; none: best accuracy
 *	explain		[] or ["gradcam"]
 *	policy		what lets run which sub-model (policy/policy.h): "cascade"
 *	precision	some of ["f32","bf16","int8"]: what sub-models may compute in; those that the model was measured in
 *	weight		its part of the device's time when not everything is in time (fair.c): 0.01 to 1000; 1
 *	ahead		whether a batch directory's files are computed before it is submitted (ahead.h): the daemon's
 *	settle		loose files that arrive within it form one task: "50ms", 0 = each at once
 *	settle_batch	a batch directory that was quiet for it is submitted: "1s"
 */
#ifndef SCHED_SPEC_H
#define SCHED_SPEC_H

#include "engine/ensemble.h"
#include "engine/precision.h"
#include "sched/policy/policy.h"
#include "sched/sched.h"

#define MAX_NAME     256 /* of a directory entry, NUL included */
#define MAX_BATCH    1024
#define SPEC_MAX_LEN 65536

struct spec_member {
	char model[MAX_NAME];
	int version; /* 0: latest */
	double weight;
};

struct infer_spec {
	char model[ENSEMBLE_MEMBERS * MAX_NAME]; /* of an ensemble all names, "a+b" */
	int version;                             /* 0: latest; an ensemble's members have their own */
	int n_members;
	struct spec_member members[ENSEMBLE_MEMBERS]; /* (n_members) 1: of `model` and `version` */
	int batch;
	struct deadline deadline;
	bool gradcam;
	const struct policy *policy;
	double weight;
	int ahead;                          /* -1: the daemon's option */
	unsigned precisions;                /* 1 << enum precision of each; 0: not said */
	int64_t settle_ns, settle_batch_ns; /* -1: the daemon's option */
};

#define INFER_SPEC_DEFAULT                              \
	((struct infer_spec){.batch = 32,               \
			     .policy = &policy_cascade, \
			     .weight = 1,               \
			     .ahead = -1,               \
			     .settle_ns = -1,           \
			     .settle_batch_ns = -1})

/* -EINVAL with the reason, -EAGAIN when the text is JSON cut short; ret is untouched then. */
int infer_spec_parse(struct infer_spec *ret, const char *json, size_t len, struct err *err);

enum infer_word { INFER_START, INFER_STOP, INFER_RELOAD };
int infer_word_parse(enum infer_word *ret, const char *text, size_t len, struct err *err);

#endif
