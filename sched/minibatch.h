/*
 * Private to the dispatcher: a mini-batch on its way (minibatch.c), or one of pictures (pictures.c).
 */
#ifndef SCHED_MINIBATCH_H
#define SCHED_MINIBATCH_H

#include "sched/cascade.h"
#include "sched/executor.h"
#include "sched/fair.h"

#include <stdbool.h>
#include <stdint.h>

struct choice;
struct device;
struct endpoint;
struct group;
struct instance;
struct picture;
struct sched;

#define MAX_INSTANCE    (64u << 20) /* bytes of one file; chosen */
#define MAX_TRIES       3
#define MINIBATCH_BYTES (128u << 20) /* of one mini-batch's files; chosen */

struct minibatch {
	uint64_t id;
	struct endpoint *ep;   /* counted in its refs */
	struct device *device; /* it is handed over to */
	int submodel, n;
	bool explains;
	struct cascade of;        /* whose first sub-model it runs on, or whose other one ('again') */
	bool again;               /* what it holds has an answer already */
	int64_t handed, expected; /* loop_now; ns */
	struct fair_bill bill[2];
	struct instance **inst;   /* (n); NULL: answered as it was held, or forgotten (ahead.h) */
	struct picture **picture; /* (n), when it explains */
};

/* Room for k; NULL: out of memory. */
struct minibatch *minibatch_new(struct sched *s, struct endpoint *ep, int k);
void minibatch_free(struct minibatch *mb); /* not what it holds */
/* Frees the instances and pictures it holds; the endpoint's tables went before when it is gone. */
void minibatch_abandon(struct minibatch *mb);
/* Takes up to choice->k instances of the group into mb, with their contents into in (k). What can't be read is answered. */
void minibatch_fill(struct sched *s, const struct group *group, const struct choice *choice,
		    struct minibatch *mb, struct instance_input *in);
/* The same of those that are held of the choice's kind, the least certain first. */
void minibatch_fill_again(struct sched *s, const struct group *group, const struct choice *choice,
			  struct minibatch *mb, struct instance_input *in);
void inputs_free(struct instance_input *in, int n);
void minibatch_put_back(struct minibatch *mb); /* its instances are queued as before */
void minibatch_count(struct minibatch *mb);    /* it is handed over: in its tasks' figures */
void minibatch_release(
	struct minibatch *mb); /* `again`: answers as they were held; what it computes is not used */
/* It ran from `started` until now: for those who look. Before it is answered or blamed. */
void minibatch_note(const struct minibatch *mb, int64_t started, const struct batch_done *done);
void minibatch_answer(struct minibatch *mb, const struct batch_done *done);
/* The worker died: its instances run again. suspected: it ran, so one of them may be the cause. */
void minibatch_blame(struct minibatch *mb, bool suspected);

void pictures_next(struct device *device); /* hands some over, if any can be made */
void pictures_done(struct sched *s, struct minibatch *mb, const struct batch_done *done);

#endif
