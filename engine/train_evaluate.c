/*
 * How good a model's slices are on a split, in f32 and in the precisions that gain anything here. At the end of training
 * what each of these sub-models says of the validation split is kept until cascades were measured of it: 9 bytes an image. All
 * that they say of some of it becomes the version's validation.bin.
 */
#include "engine/train_private.h"

#include "engine/backend.h"
#include "engine/cascade.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CALIBRATION 1000 /* images, chosen: what more of them add to the largest numbers is rare */

/* Where what a sub-model says of each instance is noted. */
struct train_said {
	struct cascade_answers *answers; /* NULL: not there */
	struct validation_notes *notes;  /* NULL: not there */
	int submodel;                    /* its number in them */
};

/* A row of logits becomes its softmax. The score is as an inference worker's: 0 where it is no number. */
static void note(const struct train_said *said, size_t instance, float *row, int best, bool right,
		 int classes)
{
	softmax_rows(row, 1, classes);
	if (said->answers) {
		said->answers->right[instance] = right;
		said->answers->certain[instance] = isfinite(row[best]) ? row[best] : 0;
	}
	if (said->notes)
		validation_note(said->notes, said->submodel, instance, row);
}

/* Accuracy and loss of one session over a split. hooks and said may be NULL. */
static int evaluate(const struct train_hooks *hooks, void *hook_data, struct session *s,
		    const struct dataset *ds, enum dataset_split split, int batch,
		    const struct train_said *said, double *ret_accuracy, double *ret_loss)
{
	struct dataset_shape shape = dataset_shape(ds);
	size_t n = dataset_count(ds, split), size = (size_t)shape.channels * shape.height * shape.width;
	uint8_t *pixels = malloc(size * batch);
	float *logits = malloc((size_t)batch * shape.classes * sizeof(float));
	int *labels = malloc(batch * sizeof(int)), r = pixels && logits && labels ? 0 : -ENOMEM;
	size_t right = 0;
	double loss = 0;

	for (size_t at = 0; at < n && r == 0; at += batch) {
		int m = n - at < (size_t)batch ? (int)(n - at) : batch;

		for (int i = 0; i < m; i++) {
			memcpy(pixels + i * size, dataset_image(ds, split, at + i), size);
			labels[i] = dataset_label(ds, split, at + i);
		}
		r = session_forward(s, pixels, m, logits);
		if (r < 0)
			break;
		loss += m * loss_cross_entropy(logits, labels, m, shape.classes, 0, NULL);
		for (int i = 0; i < m; i++) {
			float *row = logits + (size_t)i * shape.classes;
			int best = 0;

			for (int c = 1; c < shape.classes; c++)
				if (row[c] > row[best])
					best = c;
			right += best == labels[i];
			if (said)
				note(said, at + i, row, best, best == labels[i], shape.classes);
		}
		if (hooks && hooks->evaluating && hooks->evaluating(hook_data))
			r = -ECANCELED;
	}
	if (r == 0) {
		*ret_accuracy = n ? (double)right / n : 0;
		*ret_loss = n ? loss / n : 0;
	}
	free(pixels);
	free(logits);
	free(labels);
	return r;
}

int train_evaluate(struct model *model, const struct dataset *ds, enum dataset_split split, float rate,
		   int batch, double *ret_accuracy, struct err *err)
{
	struct dataset_shape shape = dataset_shape(ds);
	struct session *s;
	double loss;
	int r;

	if (shape.channels != model->info.channels || shape.height != model->info.height ||
	    shape.width != model->info.width || shape.classes != model->info.classes)
		return err_set(err, ERR_BAD_MODEL,
			       "the model's input or classes are not those of the data set");
	r = session_new(&s, model, backend_find("onednn"),
			&(struct session_options){.rate = rate, .batch = batch}, err);
	if (r < 0)
		return r;
	r = evaluate(NULL, NULL, s, ds, split, batch, NULL, ret_accuracy, &loss);
	if (r < 0)
		err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "evaluating a slice");
	session_free(s);
	return r;
}

int train_evaluate_session(struct train *t, struct session *s, enum dataset_split split,
			   const struct train_said *said, double *ret_accuracy, double *ret_loss)
{
	return evaluate(&t->hooks, t->hook_data, s, t->ds, split, EVAL_BATCH, said, ret_accuracy, ret_loss);
}

/* What int8 needs to know of a slice: how large its activations become on images from all over the training split. */
static int calibrate(struct train *t, int rate)
{
	struct dataset_shape shape = dataset_shape(t->ds);
	size_t n = dataset_count(t->ds, DATASET_TRAIN), some = n < CALIBRATION ? n : CALIBRATION;
	size_t size = (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
	uint8_t *pixels = malloc(size * EVAL_BATCH);
	float *logits = malloc((size_t)EVAL_BATCH * (size_t)t->classes * sizeof(*logits));
	int r = pixels && logits ? 0 : -ENOMEM;

	for (size_t at = 0; at < some && r == 0; at += EVAL_BATCH) {
		size_t m = some - at < EVAL_BATCH ? some - at : EVAL_BATCH;

		for (size_t i = 0; i < m; i++)
			memcpy(pixels + i * size, dataset_image(t->ds, DATASET_TRAIN, (at + i) * n / some),
			       size);
		r = session_calibrate(t->eval[rate], t->model, rate, pixels, (int)m, logits);
		if (r == 0 && t->hooks.evaluating && t->hooks.evaluating(t->hook_data))
			r = -ECANCELED;
	}
	free(pixels);
	free(logits);
	return r;
}

/* A sub-model, and what it says of the validation split; n 0: not kept. */
struct evaluated {
	struct model_submodel submodel;
	float accuracy;
	struct cascade_answers said;
};

static void set_accuracies(struct model *model, struct model_submodel of, float accuracy, float tested)
{
	if (of.precision == PRECISION_F32) {
		model_set_accuracy(model, of.rate_index, accuracy);
		model_set_test_accuracy(model, of.rate_index, tested);
	} else {
		model_set_narrow_accuracy(model, of.precision, of.rate_index, accuracy, tested);
	}
}

static int evaluate_in(struct train *t, struct evaluated *e, struct err *err)
{
	int rate = e->submodel.rate_index;
	enum precision precision = e->submodel.precision;
	struct session_options options = {.rate = t->spec->rates[rate],
					  .batch = EVAL_BATCH,
					  .precision = precision,
					  .threads = t->spec->threads};
	struct train_said said = {.answers = e->said.n ? &e->said : NULL, .notes = t->notes};
	struct session *narrow = NULL, *s = t->eval[rate];
	double accuracy = 0, tested = 0, loss;
	int r = precision == PRECISION_INT8 ? calibrate(t, rate) : 0;

	if (r == 0 && precision != PRECISION_F32) {
		r = session_new(&narrow, t->model, backend_find("onednn"), &options, err);
		s = narrow;
	}
	if (t->notes)
		said.submodel = validation_add(t->notes, t->spec->rates[rate], precision);
	if (r == 0)
		r = train_evaluate_session(t, s, DATASET_VAL, &said, &accuracy, &loss);
	if (r == 0 && dataset_count(t->ds, DATASET_TEST))
		r = train_evaluate_session(t, s, DATASET_TEST, NULL, &tested, &loss);
	session_free(narrow);
	e->accuracy = (float)accuracy;
	if (r == 0)
		set_accuracies(t->model, e->submodel, e->accuracy, (float)tested);
	else if (r != -ECANCELED)
		err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "evaluating slice %g in %s",
			(double)t->spec->rates[rate], precision_name(precision));
	return r;
}

/* Cascades that begin with one that was right at all, and end with better ones. */
static int measure_cascades(struct model *model, struct evaluated *first, const struct evaluated *list, int n)
{
	struct cascade_first measured;
	float then[CASCADE_POINTS];
	int r;

	if (!first->said.n || !(first->accuracy > 0))
		return 0;
	r = cascade_sort(&first->said);
	if (r < 0)
		return r;
	cascade_measure_first(&first->said, &measured);
	r = model_set_cascade_first(model, first->submodel, &measured);
	for (int i = 0; r == 0 && i < n; i++)
		if (list[i].accuracy > first->accuracy) {
			cascade_measure_then(&first->said, &list[i].said, then);
			model_set_cascade_then(model, first->submodel, list[i].submodel, then);
		}
	return r;
}

/* Where there is something to be noted of so many sub-models. */
static int begin_notes(struct train *t, int n_submodels)
{
	size_t n = dataset_count(t->ds, DATASET_VAL);
	uint64_t *ids = calloc(n + 1, sizeof(*ids));
	int r = ids ? 0 : -ENOMEM;

	if (r == 0 && dataset_val_ids(t->ds, ids))
		r = validation_notes_new(&t->notes, ids, n, t->classes, n_submodels);
	free(ids);
	return r == -ERANGE ? 0 : r;
}

int train_validation(const struct train *t, struct buf *ret)
{
	size_t n = dataset_count(t->ds, DATASET_VAL);
	int *labels, r;

	if (!t->notes)
		return 0;
	labels = calloc(n, sizeof(*labels));
	if (!labels)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		labels[i] = dataset_label(t->ds, DATASET_VAL, i);
	r = validation_write(t->notes, labels, ret);
	free(labels);
	return r;
}

int train_evaluate_final(struct train *t, struct err *err)
{
	struct evaluated list[N_PRECISIONS * MODEL_MAX_RATES] = {0};
	size_t images = dataset_count(t->ds, DATASET_VAL);
	int n = 0, r;

	for (int p = 0; p < N_PRECISIONS; p++)
		for (int i = 0; i < t->spec->n_rates; i++)
			if (p == PRECISION_F32 ||
			    model_gains(t->model, backend_find("onednn"), (enum precision)p))
				list[n++].submodel = (struct model_submodel){i, (enum precision)p};
	r = begin_notes(t, n);
	for (int i = 0; i < n && r == 0 && images >= CASCADE_LEAST; i++)
		r = cascade_answers_init(&list[i].said, images);
	if (r < 0)
		err_set(err, ERR_NO_MEMORY, "evaluating");
	for (int i = 0; i < n && r == 0; i++)
		r = evaluate_in(t, &list[i], err);
	for (int i = 0; i < n && r == 0; i++) {
		r = measure_cascades(t->model, &list[i], list, n);
		if (r < 0)
			err_set(err, ERR_NO_MEMORY, "measuring cascades");
	}
	for (int i = 0; i < n; i++)
		cascade_answers_release(&list[i].said);
	return r;
}
