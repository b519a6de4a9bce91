/*
 * Training of a sliceable model: each step runs the full width, the smallest slice and random ones between
 * (sandwich rule, Yu & Huang 2019); narrow slices also learn the full width's soft outputs; SGD with Nesterov
 * momentum or AdamW; warm-up and cosine; flip and shift augmentation. The same spec, seed, data and
 * thread count give the same weights, also across a stop and a resume from a checkpoint.
 *
 *	train_spec_parse(&spec, json, n, &err);
 *	train_new(&t, &spec, dataset, checkpoint, checkpoint_len, &hooks, hook_data, &err);
 *	r = train_run(t, &err);		// 0 done, -ECANCELED stopped by a hook
 *	model_save(train_model(t), …);
 */
#ifndef ENGINE_TRAIN_H
#define ENGINE_TRAIN_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/dataset.h"
#include "engine/model.h"

struct train_spec; /* opaque: the knobs, all with defaults but "dataset" */

/* The whole of jobs/NAME/spec.json. Unknown keys are errors (SPEC_KEY), with the key's name and the nearest
 * known one. */
int train_spec_parse(struct train_spec **ret, const char *json, size_t len, struct err *err);
void train_spec_free(struct train_spec *spec);
const char *train_spec_dataset(const struct train_spec *spec);
const char *train_spec_model(const struct train_spec *spec); /* NULL: named after the job */
/* The input shape asked for ("input":"3x32x32"); all 0 when the data decide. */
void train_spec_input(const struct train_spec *spec, int *c, int *h, int *w);
/* The model to begin with ("init":"models/OTHER/3"), its name and version (0: latest); NULL: none. */
const char *train_spec_init(const struct train_spec *spec, int *ret_version);
/*
 * Its files, before train_new, which takes over what fits this network by name and shape. They also give the
 * network where the spec has no "net", and the normalisation. train_spec_drop_init frees what train_new has no use
 * of any more.
 */
int train_spec_give_init(struct train_spec *spec, const char *json, size_t json_len, const void *weights,
			 size_t weights_len, struct err *err);
void train_spec_drop_init(struct train_spec *spec);
/* For knobs.json: every key with its value. -1 is left to the data or the network: hooks.knobs tells what came of it. */
int train_spec_to_json(const struct train_spec *spec, struct buf *ret);

struct train_progress {
	int epoch, epochs;      /* epoch counts from 1 */
	int64_t batch, batches; /* of this epoch */
	double samples_per_s, eta_s;
	double percent;
};

struct train_epoch {
	int epoch;
	double seconds, lr, train_loss, train_accuracy; /* of the full width */
	int n_rates;
	float rates[MODEL_MAX_RATES], val_accuracy[MODEL_MAX_RATES], val_loss[MODEL_MAX_RATES];
};

/* Called from train_run on its thread; a non-zero return stops the run after the current step with
 * -ECANCELED. Any may be NULL. */
struct train_hooks {
	int (*progress)(void *data, const struct train_progress *p);  /* after every step */
	int (*epoch)(void *data, const struct train_epoch *e);        /* before that epoch's checkpoint */
	int (*checkpoint)(void *data, const void *bytes, size_t len); /* after every epoch; borrowed */
	void (*note)(void *data, const char *text);                   /* a line for the log; from train_new */
	void (*knobs)(void *data, const char *json,
		      size_t len);     /* from train_new: what the run goes by, as a spec; borrowed */
	int (*evaluating)(void *data); /* after every batch of an evaluation between and after epochs */
};

struct train;
/*
 * checkpoint NULL: from the start. Else every knob is as the checkpoint has it, whatever this version's defaults are; what the spec names
 * has to be the same, and the data's shape too. -EBADMSG (BAD_CHECKPOINT): that isn't so, err says what differs, or the checkpoint is
 * damaged. Of another form, without knobs, all of the spec has to be the same.
 */
int train_new(struct train **ret, const struct train_spec *spec, const struct dataset *ds,
	      const void *checkpoint, size_t checkpoint_len, const struct train_hooks *hooks, void *hook_data,
	      struct err *err);
int train_run(struct train *t, struct err *err);
/* Borrowed; after train_run its weights, labels, accuracies and cascades are set, those in other precisions where they are faster here. */
struct model *train_model(struct train *t);
/* What it says of its validation images (engine/validation.h), after train_run. Nothing where there are too few of them. -ENOMEM */
int train_validation(const struct train *t, struct buf *ret);
void train_free(struct train *t);

/* Top-1 accuracy (0…1) of a slice on a split; used for slices.csv and by the benches. */
int train_evaluate(struct model *model, const struct dataset *ds, enum dataset_split split, float rate,
		   int batch, double *ret_accuracy, struct err *err);

#endif
