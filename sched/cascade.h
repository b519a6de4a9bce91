/*
 * Private to the dispatcher: cascades (engine/cascade.h). For a plan a cascade is one sub-model more: of the first one's mini-batches
 * the least certain share q runs again, which takes t_first + q·t_then a mini-batch and gives the accuracy that was measured of both
 * together. So Eq. 2 chooses among them like among others, and only the upper hull of all has to be looked at.
 *
 * Of a mini-batch of a cascade's first sub-model the answers above its threshold are given at once. The others are *held*: the
 * instance counts as running, and its answer can be given at any moment. When nothing of the task is queued any more the least certain
 * ones run again, as many as there is time for; what is left is answered as it was held, in time to be published.
 *
 * Those of one task may be of several *kinds*: pairs of a first sub-model and the one that is to follow. A plan mixes neighbours on the
 * hull, and when the machine turns out slower the next plan's are others. So what is held is kept by kind, and counts with what that
 * kind gains and takes. (Were all of them counted like the least certain one, a few that wait for a slow sub-model would
 * seem to need all the time there is, and all that is new would be answered by the fastest.)
 *
 *	cascade_family(ep, &family, publish, publish_one)	// the sub-models and cascades a plan may use
 *	cascade_hold(inst, of, answer, ns)	// false: can't be held, is to be answered
 *	n = cascade_kinds(group, f.m, kinds)	// those of which something is held, the most worth its time first
 *	cascade_take(task, &kinds[0].of)	// the least certain of that kind; its `held` stays until it is answered
 *	cascade_release(task)			// answers all that are held
 */
#ifndef SCHED_CASCADE_H
#define SCHED_CASCADE_H

#include "sched/executor.h"
#include "sched/list.h"
#include "sched/plan/plan.h"

#include <stdbool.h>
#include <stdint.h>

struct endpoint;
struct group;
struct instance;
struct sched;
struct task;

/* Sub-models of an endpoint; then < 0: the first one alone. */
struct cascade {
	int first, then, point; /* of cascade_shares */
};

/* What a plan may use: the endpoint's sub-models under their numbers, and then cascades. */
struct plan_family {
	int n;
	struct plan_submodel m[MAX_SUBMODELS];
	struct cascade of[MAX_SUBMODELS];
};

/* An answer that may be given anew. */
struct held {
	struct cascade of;
	struct instance_answer answer;
	int64_t compute_ns;
};

#define HELD_STEPS 64 /* of certainty, in which order is kept */

/* A task's, of a kind. */
struct held_kind {
	struct held_kind *next; /* owned */
	struct cascade of;      /* first and then; points may differ */
	uint64_t count;
	struct list step[HELD_STEPS]; /* of instances, by their link */
};

#define CASCADE_KINDS 32 /* looked at together; chosen: a plan mixes two */

/* Of a group. */
struct cascade_kind {
	struct cascade of; /* of its least certain instance */
	double count;      /* instances; of a device's part a fraction */
	double worth;      /* accuracy (0…1) gained by a mini-batch that runs again as planned, a ns */
};

/* family->m has the endpoint's n sub-models; adds the cascades on the hull. publish: the least time of a mini-batch;
 * publish_one: of one instance. */
void cascade_family(const struct endpoint *ep, struct plan_family *family, int64_t publish,
		    int64_t publish_one);
/* Below it an answer of the first one is held; 0: none is. */
float cascade_threshold(const struct endpoint *ep, const struct cascade *of);
/* Accuracies (0…1) of those above the threshold; of those below it, by the first one and by the other one `then`. */
double cascade_sure(const struct endpoint *ep, const struct cascade *of);
double cascade_unsure(const struct endpoint *ep, const struct cascade *of);
double cascade_again(const struct endpoint *ep, const struct cascade *of, int then);

/* A running one, out of every list. */
bool cascade_hold(struct instance *inst, const struct cascade *of, const struct instance_answer *answer,
		  int64_t compute_ns);
/* What is held of the group by kind, the most worth first, those that gain nothing left out; m: the endpoint's sub-models with their
 * times now. How many, at most CASCADE_KINDS. */
int cascade_kinds(const struct group *group, const struct plan_submodel *m,
		  struct cascade_kind ret[CASCADE_KINDS]);
/* The time in which `instances` come to where more time gains less than `worth` (of a kind): on the family's upper hull, ns. */
double cascade_worth_until(const struct plan_family *f, int batch, uint64_t instances, double worth);
/* Of those held of that kind, whatever its point, the least certain, and it is out of the set; NULL: none is. */
struct instance *cascade_take(struct task *task, const struct cascade *of);
void cascade_answer(struct instance *inst);      /* as it was held; it is out of the set */
void cascade_release_one(struct instance *inst); /* the same of one in the set */
void cascade_release(struct task *task);
void cascade_release_all(struct endpoint *ep);
void cascade_forget(struct task *task); /* frees those that are held, unanswered */
/* Answers what must be published now to be in time; when (loop_now) that is so of the next; INT64_MAX: of none. */
int64_t cascade_release_due(struct sched *s);

#endif
