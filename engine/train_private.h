/* Private to engine/train*.c. */
#ifndef ENGINE_TRAIN_PRIVATE_H
#define ENGINE_TRAIN_PRIVATE_H

#include "engine/base/rng.h"
#include "engine/model_private.h"
#include "engine/optim.h"
#include "engine/session.h"
#include "engine/train.h"
#include "engine/validation.h"

#include <cJSON.h>
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
	uint32_t
		named; /* bit i: the text said what train_spec_keys[i] is; a value below 0 leaves it to the data */
};

/* engine/train_spec.c. Of the object that a spec's text is; train_spec_write: NULL without memory, the caller's. */
extern const char *const train_spec_keys[]; /* ends in NULL */
int train_spec_read(struct train_spec **ret, const cJSON *root, struct err *err);
cJSON *train_spec_write(const struct train_spec *spec);

/*
 * engine/train_resume.c: what a run goes by. Before its first step whatever the spec leaves to the data or to the network gets its value,
 * and each checkpoint holds all of them by name. A run that goes on from one keeps to those, whatever another version's defaults
 * are; what spec.json names has to be the same.
 */
/* Without init_model, which stays the other's. */
int train_spec_copy(struct train_spec **ret, const struct train_spec *spec, struct err *err);
void train_spec_settle(struct train_spec *spec, const struct dataset *ds, const struct net *net);
/* -EBADMSG (BAD_CHECKPOINT): `spec` names something that is another thing in `saved`; err tells which, and both values. */
int train_spec_agrees(const struct train_spec *spec, const struct train_spec *saved, struct err *err);
/* Adds a line about what differs between what a run goes by and what `spec`, settled too, would have it be today; nothing where nothing does. */
int train_spec_differences(const struct train_spec *spec, const struct train_spec *run, struct buf *ret);

struct train {
	struct train_spec *spec; /* settled; owned */
	const struct dataset *ds;
	struct train_hooks hooks;
	void *hook_data;
	struct model *model;
	struct session *session[MODEL_MAX_RATES], *eval[MODEL_MAX_RATES];
	int classes, batch;
	int64_t batches; /* of an epoch */
	uint64_t seed;
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
struct checkpoint {
	struct safetensors *tensors;
	int epoch;
	int64_t step;
	double elapsed;
	struct train_spec
		*spec; /* what the run goes by; NULL: of the first form, which has only `hash` of it */
	uint64_t hash;
	struct dataset_shape shape; /* with spec: */
	size_t images;              /* for training */
	float mean[4], std[4];
};
int train_checkpoint_write(const struct train *t, struct buf *ret, struct err *err);
/* -EBADMSG (BAD_CHECKPOINT). data stays borrowed until checkpoint_close, which takes one that is all 0, too. */
int checkpoint_open(struct checkpoint *ret, const void *data, size_t len, struct err *err);
void checkpoint_close(struct checkpoint *c);
/* Whether it is one of this spec and these data: -EBADMSG. */
int checkpoint_fits(const struct checkpoint *c, const struct train_spec *spec, const struct dataset *ds,
		    struct err *err);
/* The arrays and the counts. All is checked before anything is taken. */
int checkpoint_take(const struct checkpoint *c, struct train *t, struct err *err);

#endif
