/* How good a model's slices are on a split, in f32 and in the precisions that gain anything here. */
#include "engine/train_private.h"

#include "engine/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CALIBRATION 1000 /* images, chosen: what more of them add to the largest numbers is rare */

/* Accuracy and loss of one session over a split. hooks may be NULL. */
static int evaluate(const struct train_hooks *hooks, void *hook_data, struct session *s,
		    const struct dataset *ds, enum dataset_split split, int batch, double *ret_accuracy,
		    double *ret_loss)
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
		for (int i = 0; i < m; i++) {
			const float *row = logits + (size_t)i * shape.classes;
			int best = 0;

			for (int c = 1; c < shape.classes; c++)
				if (row[c] > row[best])
					best = c;
			right += best == labels[i];
		}
		loss += m * loss_cross_entropy(logits, labels, m, shape.classes, 0, NULL);
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
	r = evaluate(NULL, NULL, s, ds, split, batch, ret_accuracy, &loss);
	if (r < 0)
		err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "evaluating a slice");
	session_free(s);
	return r;
}

int train_evaluate_session(struct train *t, struct session *s, enum dataset_split split, double *ret_accuracy,
			   double *ret_loss)
{
	return evaluate(&t->hooks, t->hook_data, s, t->ds, split, EVAL_BATCH, ret_accuracy, ret_loss);
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

static int evaluate_in(struct train *t, int rate, enum precision precision, struct err *err)
{
	struct session_options options = {.rate = t->spec->rates[rate],
					  .batch = EVAL_BATCH,
					  .precision = precision,
					  .threads = t->spec->threads};
	double accuracy = 0, tested = 0, loss;
	struct session *s = NULL;
	int r = precision == PRECISION_INT8 ? calibrate(t, rate) : 0;

	if (r == 0)
		r = session_new(&s, t->model, backend_find("onednn"), &options, err);
	if (r == 0)
		r = train_evaluate_session(t, s, DATASET_VAL, &accuracy, &loss);
	if (r == 0 && dataset_count(t->ds, DATASET_TEST))
		r = train_evaluate_session(t, s, DATASET_TEST, &tested, &loss);
	session_free(s);
	if (r == 0)
		model_set_narrow_accuracy(t->model, precision, rate, (float)accuracy, (float)tested);
	else if (r != -ECANCELED)
		err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "evaluating slice %g in %s",
			(double)t->spec->rates[rate], precision_name(precision));
	return r;
}

int train_evaluate_narrow(struct train *t, struct err *err)
{
	int r = 0;

	for (int p = PRECISION_F32 + 1; p < N_PRECISIONS; p++)
		for (int i = 0; i < t->spec->n_rates && r == 0; i++)
			if (model_gains(t->model, backend_find("onednn"), (enum precision)p))
				r = evaluate_in(t, i, (enum precision)p, err);
	return r;
}
