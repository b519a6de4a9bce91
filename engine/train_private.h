/* Private to engine/train*.c. */
#ifndef ENGINE_TRAIN_PRIVATE_H
#define ENGINE_TRAIN_PRIVATE_H

#include "engine/base/rng.h"
#include "engine/model_private.h"
#include "engine/optim.h"
#include "engine/session.h"
#include "engine/train.h"
#include "engine/validation.h"

#include <stdbool.h>

/* The knobs; train_spec.c has the table with their keys, defaults and ranges. */
struct train_spec {
	char *dataset, *model;
	char *net;                   /* JSON text; NULL: that of init_model */
	char *init;                  /* name of the model to begin with; NULL: none */
	int init_version;            /* 0: latest */
	struct model *init_model;    /* owned; NULL: none, or it was not given */
	int channels, height, width; /* "input"; 0: the data decide */
	int epochs, batch, random, shift, erase, threads, flip; /* shift and flip -1: the data decide */
	double budget;                                          /* seconds; 0: epochs count */
	double lr, momentum, weight_decay, warmup, smoothing, distill, temperature, clip, ema, seed;
	enum optim_kind optimizer;
	int n_rates;
	float rates[MODEL_MAX_RATES];
};

struct train {
	const struct train_spec *spec;
	const struct dataset *ds;
	struct train_hooks hooks;
	void *hook_data;
	struct model *model;
	struct session *session[MODEL_MAX_RATES], *eval[MODEL_MAX_RATES];
	int classes, batch, shift;
	bool flip;
	int64_t batches; /* of an epoch */
	uint64_t seed, hash;
	struct validation_notes *notes; /* NULL: too few images of validation, or not evaluated yet */
	/* What a checkpoint holds: everything below, and the weights. */
	int epoch;          /* finished ones */
	double elapsed;     /* seconds of finished epochs */
	struct optim optim; /* counts the steps */
	/* Scratch. */
	uint32_t *order; /* (train images) */
	float *x, *logits, *teacher, *dlogits, *dsoft;
	int *labels;
	float lut[4][256]; /* pixel to normalised value, by channel */
};

/* engine/train_data.c: batch `at` of an epoch, in t->x and t->labels; n images. A pure function of (seed,
 * epoch, at). */
void train_shuffle(struct train *t, int epoch);
void train_batch(struct train *t, int epoch, int64_t at, int n);

#define EVAL_BATCH 250 /* chosen: activations of a training batch's order, and it divides 1000s */

/* engine/train_evaluate.c */
struct train_said;
/* said: where what it says of each instance goes; NULL: nowhere. */
int train_evaluate_session(struct train *t, struct session *s, enum dataset_split split,
			   const struct train_said *said, double *ret_accuracy, double *ret_loss);
/*
 * Sets the accuracies of all slices, in f32 and in the precisions that are faster here (for int8 they are calibrated), and
 * what cascades of them come to.
 */
int train_evaluate_final(struct train *t, struct err *err);

/* engine/train_checkpoint.c */
int train_checkpoint_write(const struct train *t, struct buf *ret, struct err *err);
int train_checkpoint_read(struct train *t, const void *data, size_t len, struct err *err);

#endif
