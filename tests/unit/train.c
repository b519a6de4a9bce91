/* Training learns, repeats itself bit for bit, and goes on after a stop as if there had been none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/backend.h"
#include "engine/base/rng.h"
#include "engine/model_private.h"
#include "engine/safetensors.h"
#include "engine/train.h"
#include "engine/validation.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NET  "\"net\":{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"groups\":4}"
#define FOUR "{\"dataset\":\"d\"," NET ",\"batch\":50,\"seed\":3,"
#define BATCH                                                                                            \
	"{\"dataset\":\"d\",\"net\":{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"groups\":4,\"norm\":" \
	"\"batch\"},"                                                                                    \
	"\"batch\":50,\"slices\":[0.25,0.5,1],\"seed\":3,\"flip\":true,"
#define SPEC "{\"dataset\":\"d\"," NET ",\"batch\":50,\"slices\":[0.25,0.5,1],\"seed\":3,\"flip\":true,"

/* Two classes of 12×12 noise with a bright blob in the upper or the lower half, a fifth as many to test with as to train with. */
static struct dataset *blobs(int n_train)
{
	struct buf images = BUF_INIT, labels = BUF_INIT, json = BUF_INIT;
	struct rng rng = rng_init(1, 1);
	struct dataset_scan *scan;
	struct dataset *ds;
	int fd = memfd_create("blobs", MFD_CLOEXEC);

	for (int split = 0; split < 2; split++) {
		int n = split ? n_train / 5 : n_train;

		buf_clear(&images);
		buf_clear(&labels);
		buf_add(&images, (uint8_t[]){0, 0, 8, 3, 0, 0, n >> 8, n & 255, 0, 0, 0, 12, 0, 0, 0, 12},
			16);
		buf_add(&labels, (uint8_t[]){0, 0, 8, 1, 0, 0, n >> 8, n & 255}, 8);
		for (int i = 0; i < n; i++) {
			int label = (int)rng_below(&rng, 2), cy = (label ? 7 : 1) + (int)rng_below(&rng, 3),
			    cx = (int)rng_below(&rng, 9);

			buf_add(&labels, &(uint8_t){(uint8_t)label}, 1);
			for (int y = 0; y < 12; y++)
				for (int x = 0; x < 12; x++) {
					bool blob = y >= cy && y < cy + 3 && x >= cx && x < cx + 3;
					uint8_t v = (uint8_t)(rng_below(&rng, 100) + (blob ? 60 : 0));

					buf_add(&images, &v, 1);
				}
		}
		if (split == 0)
			assert_int_equal(dataset_scan_new(&scan, &(struct dataset_scan_options){0}, NULL), 0);
		assert_int_equal(
			dataset_scan_file(scan, split ? "test-images-idx3-ubyte" : "train-images-idx3-ubyte",
					  images.data, images.len, NULL),
			0);
		assert_int_equal(
			dataset_scan_file(scan, split ? "test-labels-idx1-ubyte" : "train-labels-idx1-ubyte",
					  labels.data, labels.len, NULL),
			0);
	}
	assert_int_equal(dataset_scan_finish(scan, fd, &json, NULL), 0);
	assert_int_equal(dataset_open(&ds, fd, NULL), 0);
	dataset_scan_free(scan);
	close(fd);
	buf_release(&images), buf_release(&labels), buf_release(&json);
	return ds;
}

struct run {
	int epochs, stop_after, steps, evaluated, stop_evaluating;
	double percent, accuracy, cascade; /* cascade: what the best one gains */
	struct buf checkpoint, weights, knobs;
	char note[1024], error[400];
	const struct buf *init; /* model.json and the weights of what it begins with; NULL: none */
};

static int on_progress(void *data, const struct train_progress *p)
{
	struct run *run = data;

	assert_true(p->percent >= run->percent && p->percent <= 100);
	run->percent = p->percent;
	run->steps++;
	return 0;
}

static int on_epoch(void *data, const struct train_epoch *e)
{
	struct run *run = data;

	run->epochs = e->epoch;
	run->accuracy = e->val_accuracy[0];
	assert_true(isfinite(e->train_loss));
	return run->stop_after == e->epoch;
}

static float accuracy_of(const struct model *model, struct model_submodel of)
{
	return of.precision == PRECISION_F32 ? model->info.accuracy[of.rate_index]
					     : model->info.narrow_accuracy[of.precision][of.rate_index];
}

/* Where this CPU is faster in another precision than f32, each slice was measured in it, and is about as good. */
static void check_narrow(const struct model *model)
{
	const struct model_info *info = model_info(model);

	for (int p = PRECISION_F32 + 1; p < N_PRECISIONS; p++) {
		bool gains = backend_gains(backend_find("onednn"), (enum precision)p);

		for (int i = 0; i < info->n_rates; i++) {
			assert_int_equal(info->narrow_accuracy[p][i] > 0, gains && info->accuracy[i] > 0);
			if (gains)
				assert_float_equal(info->narrow_accuracy[p][i], info->accuracy[i], 0.1);
			if (p == PRECISION_INT8)
				assert_int_equal(model_calibrated(model, i), gains);
		}
	}
}

#define SHARE   0.3 /* the one that is recounted */
#define POINT   5
#define N_VAL   100 /* of 1,000 for training */
#define CLASSES 2

/* What a session says of the validation split, image by image. */
static void answers_of(struct model *model, const struct dataset *ds, struct model_submodel of,
		       float certain[N_VAL], bool right[N_VAL])
{
	static uint8_t pixels[N_VAL][144];
	static float logits[N_VAL][CLASSES];
	int n = (int)dataset_count(ds, DATASET_VAL);
	struct session *s;

	assert_int_equal(session_new(&s, model, backend_find("onednn"),
				     &(struct session_options){.rate = model->info.rates[of.rate_index],
							       .precision = of.precision,
							       .batch = 250},
				     NULL),
			 0);
	for (int i = 0; i < n; i++)
		memcpy(pixels[i], dataset_image(ds, DATASET_VAL, (size_t)i), 144);
	assert_int_equal(session_forward(s, pixels[0], n, logits[0]), 0);
	softmax_rows(logits[0], n, CLASSES);
	for (int i = 0; i < n; i++) {
		certain[i] = fmaxf(logits[i][0], logits[i][1]);
		right[i] = (logits[i][1] > logits[i][0]) == dataset_label(ds, DATASET_VAL, (size_t)i);
	}
	session_free(s);
}

/* One pair, recounted. Returns what it comes to. */
static double check_pair(struct model *model, const struct dataset *ds, struct model_submodel a,
			 struct model_submodel b)
{
	const struct cascade_first *first = model_cascade_first(model, a);
	const float *then = model_cascade_then(model, a, b);
	int n = (int)dataset_count(ds, DATASET_VAL), again = 0, sure = 0, both = 0;
	float certain[2][N_VAL];
	bool right[2][N_VAL];

	answers_of(model, ds, a, certain[0], right[0]);
	answers_of(model, ds, b, certain[1], right[1]);
	for (int i = 0; i < n; i++) {
		int before = 0;

		for (int j = 0; j < n; j++)
			before += certain[0][j] < certain[0][i] || (j < i && certain[0][j] == certain[0][i]);
		if (before < SHARE * n) {
			again++;
			both += right[1][i];
			assert_true(certain[0][i] <= first->threshold[POINT]);
		} else {
			sure += right[0][i];
			assert_true(certain[0][i] >= first->threshold[POINT]);
		}
	}
	assert_float_equal(first->sure[POINT], (double)sure / (n - again), 1e-6);
	assert_float_equal(then[POINT], (double)(sure + both) / n, 1e-6);
	return then[POINT];
}

/* Each sub-model that was measured begins cascades, which end with more accurate ones. Returns the best gain of a pair. */
static double check_cascades(struct model *model, const struct dataset *ds)
{
	double best = 0;

	for (int from = 0; from < N_PRECISIONS * model->info.n_rates; from++) {
		struct model_submodel a = {from / N_PRECISIONS, (enum precision)(from % N_PRECISIONS)};
		float p = accuracy_of(model, a);

		assert_int_equal(model_cascade_first(model, a) != NULL,
				 p > 0 && dataset_count(ds, DATASET_VAL) >= CASCADE_LEAST);
		for (int to = 0; to < N_PRECISIONS * model->info.n_rates; to++) {
			struct model_submodel b = {to / N_PRECISIONS, (enum precision)(to % N_PRECISIONS)};
			bool there = model_cascade_first(model, a) && accuracy_of(model, b) > p;
			double gain;

			assert_int_equal(model_cascade_then(model, a, b) != NULL, there);
			if (!there)
				continue;
			gain = check_pair(model, ds, a, b) - (double)p;
			best = gain > best ? gain : best;
		}
	}
	return best;
}

static int on_checkpoint(void *data, const void *bytes, size_t len)
{
	struct run *run = data;

	buf_clear(&run->checkpoint);
	buf_add(&run->checkpoint, bytes, len);
	return 0;
}

static void on_note(void *data, const char *text)
{
	struct run *run = data;

	snprintf(run->note, sizeof(run->note), "%s", text);
}

static void on_knobs(void *data, const char *json, size_t len)
{
	struct run *run = data;

	buf_clear(&run->knobs);
	buf_add(&run->knobs, json, len);
}

static int on_evaluating(void *data)
{
	struct run *run = data;

	return ++run->evaluated == run->stop_evaluating;
}

/* What is written of the validation images is what the sub-models say of them: it has their accuracies, by images that are what the
 * data set has. */
static void check_validation(struct train *t, const struct dataset *ds)
{
	const struct model_info *info = model_info(train_model(t));
	size_t n = dataset_count(ds, DATASET_VAL);
	uint64_t *ids = calloc(n + 1, sizeof(*ids));
	struct buf buf = BUF_INIT;
	struct validation v;

	assert_int_equal(train_validation(t, &buf), 0);
	if (n < VALIDATION_LEAST) {
		assert_int_equal(buf.len, 0);
		free(ids);
		return;
	}
	assert_int_equal(validation_open(&v, buf.data, buf.len, NULL), 0);
	assert_true(dataset_val_ids(ds, ids));
	assert_int_equal(v.n, n);
	for (size_t i = 0, there = 0; i < n; i++, there = 0) {
		for (size_t k = 0; k < n && !there; k++)
			there = ids[k] == validation_id(&v, i) &&
				dataset_label(ds, DATASET_VAL, k) == validation_label(&v, i);
		assert_true(there);
	}
	for (int rate = 0; rate < info->n_rates; rate++)
		for (int p = 0; p < N_PRECISIONS; p++) {
			int k = validation_find(&v, info->rates[rate], (enum precision)p), right = 0;
			float accuracy = p ? info->narrow_accuracy[p][rate] : info->accuracy[rate];

			assert_true(k >= 0 || accuracy == 0);
			for (size_t i = 0; k >= 0 && i < n; i++) {
				const uint8_t *row = validation_row(&v, k, i);

				right += (validation_u16(row + 2) > validation_u16(row)) ==
					 validation_label(&v, i);
			}
			if (k >= 0)
				assert_true((float)((double)right / (double)n) == accuracy);
		}
	buf_release(&buf);
	free(ids);
}

/* Trains by the spec, from a checkpoint if there is one; run->weights gets the model. */
static int train(const struct dataset *ds, const char *json, struct run *run, const struct buf *from,
		 double accuracy[3])
{
	static const struct train_hooks hooks = {.progress = on_progress,
						 .evaluating = on_evaluating,
						 .epoch = on_epoch,
						 .checkpoint = on_checkpoint,
						 .note = on_note,
						 .knobs = on_knobs};
	struct buf b[3] = {BUF_INIT, BUF_INIT, BUF_INIT};
	struct err err = ERR_INIT;
	struct train_spec *spec;
	struct train *t;
	int r = train_spec_parse(&spec, json, strlen(json), &err);

	if (r < 0)
		fail_msg("%s", err.detail);
	if (run->init)
		assert_int_equal(train_spec_give_init(spec, run->init[0].data, run->init[0].len,
						      run->init[1].data, run->init[1].len, NULL),
				 0);
	r = train_new(&t, spec, ds, from ? from->data : NULL, from ? from->len : 0, &hooks, run, &err);
	if (r == 0) {
		r = train_run(t, &err);
		assert_int_equal(model_save(train_model(t), &b[0], &run->weights, &b[1], &b[2], NULL), 0);
		for (int i = 0; i < 3 && accuracy; i++)
			assert_int_equal(train_evaluate(train_model(t), ds, DATASET_TEST,
							model_info(train_model(t))->rates[i], 64,
							&accuracy[i], NULL),
					 0);
		if (r == 0)
			assert_non_null(strstr(b[2].data, ",test_accuracy\n"));
		if (r == 0)
			check_narrow(train_model(t));
		if (r == 0)
			run->cascade = check_cascades(train_model(t), ds);
		if (r == 0)
			check_validation(t, ds);
		train_free(t);
	}
	snprintf(run->error, sizeof(run->error), "%s", err.detail);
	train_spec_free(spec);
	for (int i = 0; i < 3; i++)
		buf_release(&b[i]);
	return r;
}

static void run_release(struct run *run)
{
	buf_release(&run->checkpoint);
	buf_release(&run->weights);
	buf_release(&run->knobs);
}

static void learns(void **state)
{
	static const char *const specs[] = {SPEC "\"epochs\":8}", BATCH "\"epochs\":8}",
					    SPEC
					    "\"epochs\":8,\"optimizer\":\"adamw\",\"ema\":0.99,\"clip\":5,"
					    "\"distill\":0.5,\"smoothing\":0.1,\"erase\":3}"};
	struct dataset *ds = blobs(1000);

	(void)state;
	for (int k = 0; k < 3; k++) {
		struct run run = {0};
		double accuracy[3];

		assert_int_equal(train(ds, specs[k], &run, NULL, accuracy), 0);
		assert_int_equal(run.epochs, 8);
		assert_int_equal(run.steps, 8 * 18); /* 900 training images, 50 a batch */
		for (int i = 0; i < 3; i++)
			if (accuracy[i] < 0.95)
				fail_msg("spec %d, slice %d: %.3f", k, i, accuracy[i]);
		run_release(&run);
	}
	dataset_close(ds);
}

/* Twice the default lr and the sum of four slices' gradients: without a bound on its norm the loss grows to infinity. */
static void learns_without_normalisation(void **state)
{
#define MLP "{\"dataset\":\"d\",\"net\":{\"arch\":\"mlp\"},\"batch\":32,\"lr\":0.2,\"epochs\":20"
	struct run bound = {0}, unbound = {0};
	struct dataset *ds = blobs(400);
	double accuracy[3];

	(void)state;
	assert_int_equal(train(ds, MLP "}", &bound, NULL, accuracy), 0);
	for (int i = 0; i < 3; i++)
		assert_true(accuracy[i] > 0.9);
	assert_int_equal(train(ds, MLP ",\"clip\":0}", &unbound, NULL, NULL), -EDOM);
	run_release(&bound);
	run_release(&unbound);
	dataset_close(ds);
#undef MLP
}

static void repeats_and_resumes(void **state)
{
	static const char *const specs[] = {
		FOUR "\"epochs\":3,\"threads\":1}",
		FOUR "\"epochs\":3,\"threads\":1,\"optimizer\":\"adamw\",\"ema\":0.9}",
		/* wide enough for Winograd's filtering, by two threads */
		"{\"dataset\":\"d\",\"net\":{\"arch\":\"resnet\",\"depth\":8,\"width\":32,\"groups\":2},"
		"\"batch\":50,"
		"\"slices\":[0.5,1],\"epochs\":3,\"threads\":2}",
		/* a norm with statistics for each slice, and dropout */
		"{\"dataset\":\"d\",\"net\":{\"arch\":\"layers\",\"layers\":[{\"op\":\"conv2d\",\"channels\":"
		"8,\"stride\":2},"
		"{\"op\":\"batch_norm\"},{\"op\":\"relu\"},{\"op\":\"global_avg_pool\"},{\"op\":\"dropout\"},"
		"{\"op\":\"linear\",\"features\":\"classes\"}]},\"batch\":50,"
		"\"slices\":[0.5,1],\"epochs\":3,\"threads\":1,\"clip\":5,\"ema\":0.9}"};
	struct dataset *ds = blobs(400);

	(void)state;
	for (size_t k = 0; k < sizeof(specs) / sizeof(specs[0]); k++) {
		struct run whole = {0}, again = {0}, first = {.stop_after = 1}, rest = {0};

		assert_int_equal(train(ds, specs[k], &whole, NULL, NULL), 0);
		assert_int_equal(train(ds, specs[k], &again, NULL, NULL), 0);
		assert_int_equal(whole.weights.len, again.weights.len);
		assert_memory_equal(whole.weights.data, again.weights.data, whole.weights.len);
		assert_int_equal(train(ds, specs[k], &first, NULL, NULL), -ECANCELED);
		assert_int_equal(first.epochs, 1);
		assert_memory_not_equal(first.weights.data, whole.weights.data, whole.weights.len);
		assert_int_equal(train(ds, specs[k], &rest, &first.checkpoint, NULL), 0);
		assert_int_equal(rest.steps, 2 * 7); /* 360 training images, 50 a batch */
		assert_memory_equal(rest.weights.data, whole.weights.data, whole.weights.len);
		/* A finished run's checkpoint: nothing is left to do. */
		struct run done = {0};
		assert_int_equal(train(ds, specs[k], &done, &whole.checkpoint, NULL), 0);
		assert_int_equal(done.steps, 0);
		assert_memory_equal(done.weights.data, whole.weights.data, whole.weights.len);
		run_release(&whole), run_release(&again), run_release(&first), run_release(&rest);
		run_release(&done);
	}
	dataset_close(ds);
}

/* After an epoch the slices differ: what is right more often helps where another one is unsure. */
static void cascades(void **state)
{
	struct dataset *ds = blobs(1000);
	struct run run = {0};

	(void)state;
	assert_int_equal(dataset_count(ds, DATASET_VAL), N_VAL);
	assert_int_equal(train(ds, SPEC "\"epochs\":1}", &run, NULL, NULL), 0);
	print_message("the best cascade gains %.3f\n", run.cascade);
	assert_true(run.cascade > 0.02);
	run_release(&run);
	dataset_close(ds);
}

/* An evaluation gives signs of life, too, and can be stopped. */
static void stops_evaluating(void **state)
{
	struct dataset *ds = blobs(1000);
	struct run run = {0}, stopped = {.stop_evaluating = 2};

	(void)state;
	assert_int_equal(train(ds, SPEC "\"epochs\":1}", &run, NULL, NULL), 0);
	assert_true(run.evaluated >= 3 * 3); /* slices, after the epoch and of val and test at the end */
	assert_int_equal(train(ds, SPEC "\"epochs\":1}", &stopped, NULL, NULL), -ECANCELED);
	assert_int_equal(stopped.evaluated, 2);
	assert_int_equal(stopped.epochs, 0);
	run_release(&run);
	run_release(&stopped);
	dataset_close(ds);
}

/* A model of five classes whose pixels are normalised otherwise than the blobs' are: its four files. */
static struct model *other_model(struct buf files[4])
{
	static const char *const net = "{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"norm\":\"batch\"}";
	static const struct model_info info = {.channels = 1,
					       .height = 16,
					       .width = 16,
					       .classes = 5,
					       .mean = {0.3f},
					       .std = {0.4f},
					       .n_rates = 2,
					       .rates = {0.5f, 1}};
	struct model *model;

	assert_int_equal(model_new(&model, net, &info, 99, NULL), 0);
	/* as if it were trained: statistics too */
	for (int i = 0; i < model->net->params.n; i++)
		model->net->params.list[i].value[0] = 0.5f + (float)i;
	for (int i = 0; i < 4; i++)
		files[i] = BUF_INIT;
	assert_int_equal(model_save(model, &files[0], &files[1], &files[2], &files[3], NULL), 0);
	return model;
}

/* Everything of the other model but its head, and its network where the spec has none. */
static void begins_with_another(void **state)
{
	static const struct train_hooks hooks = {.note = on_note};
	static const struct {
		const char *spec;
		int r;
		const char *says;
	} cases[] = {
		{"{\"dataset\":\"d\",\"init\":\"models/o/3\",\"slices\":[0.5,1]}", 0,
		 "81 of 83 arrays are those of the model it begins with; the head is new: 2 classes, 5 "
		 "there"},
		{"{\"dataset\":\"d\",\"init\":\"o\",\"slices\":[0.25,1]}", 0, "81 of 83 arrays"},
		{"{\"dataset\":\"d\",\"init\":\"o/latest\",\"net\":{\"arch\":\"mlp\"}}", -EBADMSG, "fits"},
		{NULL, -ENOENT, "models/o"},
	};
	struct dataset *ds = blobs(1000);
	struct buf b[4];
	struct model *other = other_model(b);

	(void)state;
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		const char *json = cases[k].spec ? cases[k].spec : cases[0].spec;
		struct err err = ERR_INIT;
		struct train_spec *spec;
		struct train *t;
		struct run run = {0};
		int r;

		assert_int_equal(train_spec_parse(&spec, json, strlen(json), NULL), 0);
		if (cases[k].spec)
			assert_int_equal(
				train_spec_give_init(spec, b[0].data, b[0].len, b[1].data, b[1].len, NULL),
				0);
		r = train_new(&t, spec, ds, NULL, 0, &hooks, &run, &err);
		if (r != cases[k].r || !strstr(r < 0 ? err.detail : run.note, cases[k].says))
			fail_msg("%s: %d %s %s", json, r, err.detail, run.note);
		if (r == 0) {
			struct params *p = &train_model(t)->net->params;

			for (int i = 0; i < p->n; i++) {
				const struct param *from = params_find(&other->net->params, p->list[i].name);

				if (from && strncmp(p->list[i].name, "fc.", 3) != 0)
					assert_memory_equal(p->list[i].value, from->value,
							    from->size * sizeof(float));
			}
			assert_float_equal(model_info(train_model(t))->mean[0], 0.3, 1e-6);
			assert_int_equal(model_info(train_model(t))->classes, 2);
			train_free(t);
		}
		train_spec_free(spec);
	}
	model_free(other);
	dataset_close(ds);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
}

/* The model that it began with may be gone, and with it the network and how pixels are normalised. */
static void goes_on_without_what_it_began_with(void **state)
{
	static const char spec[] =
		"{\"dataset\":\"d\",\"init\":\"models/o/3\",\"slices\":[0.5,1],\"batch\":50,"
		"\"epochs\":2,\"threads\":1}";
	struct dataset *ds = blobs(400);
	struct buf b[4];
	struct run whole = {.init = b}, first = {.stop_after = 1, .init = b}, rest = {0};

	(void)state;
	model_free(other_model(b));
	assert_int_equal(train(ds, spec, &whole, NULL, NULL), 0);
	assert_int_equal(train(ds, spec, &first, NULL, NULL), -ECANCELED);
	assert_int_equal(train(ds, spec, &rest, &first.checkpoint, NULL), 0);
	assert_memory_equal(rest.weights.data, whole.weights.data, whole.weights.len);
	run_release(&whole), run_release(&first), run_release(&rest);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
	dataset_close(ds);
}

/* Every knob, and of all that have one none at its default. */
#define EVERY(epochs)                                                                                       \
	"{\"dataset\":\"d\",\"net\":{\"arch\":\"mlp\",\"hidden\":[16]},\"epochs\":" #epochs                 \
	",\"batch\":40,\"lr\":0.01,\"momentum\":0.8,\"weight_decay\":0.001,\"warmup\":0.5,\"smoothing\":0." \
	"1,"                                                                                                \
	"\"random\":1,\"distill\":0.3,\"temperature\":2,\"shift\":1,\"erase\":3,\"clip\":5,\"ema\":0.9,"    \
	"\"seed\":3,\"threads\":1,\"optimizer\":\"adamw\",\"slices\":[0.25,0.5,0.75,0.875,1],\"flip\":true}"

/* A run that goes on by another version: none of its defaults counts, and what it says is what the run began with. */
static void goes_on_as_it_began(void **state)
{
	static const struct {
		const char *began, *goes_on, *note;
	} cases[] = {
		{EVERY(3), "{\"dataset\":\"d\"}", "lr 0.01 (today 0.1)"},
		{EVERY(3), "{\"dataset\":\"d\",\"lr\":0.01,\"shift\":-1}", "clip 5 (today 1)"},
		{EVERY(3), EVERY(3), ""},
		/* what the data and the network decided */
		{SPEC "\"epochs\":3,\"threads\":1}",
		 "{\"dataset\":\"d\",\"clip\":-1,\"threads\":1,\"epochs\":3}",
		 "slices [0.25,0.5,1] (today [0.25,0.5,0.75,1])"},
	};
	struct dataset *ds = blobs(400);

	(void)state;
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		struct run whole = {0}, first = {.stop_after = 1}, rest = {0};

		assert_int_equal(train(ds, cases[k].began, &whole, NULL, NULL), 0);
		assert_string_equal(whole.note, "");
		assert_null(strstr(whole.knobs.data, "-1"));
		assert_int_equal(train(ds, cases[k].began, &first, NULL, NULL), -ECANCELED);
		if (train(ds, cases[k].goes_on, &rest, &first.checkpoint, NULL) < 0)
			fail_msg("%zu: %s", k, rest.error);
		assert_int_equal(rest.steps, whole.steps - first.steps);
		assert_int_equal(rest.weights.len, whole.weights.len);
		assert_memory_equal(rest.weights.data, whole.weights.data, whole.weights.len);
		assert_string_equal(rest.knobs.data, whole.knobs.data);
		if (!strstr(rest.note, cases[k].note) || !*cases[k].note != !*rest.note)
			fail_msg("%zu: %s", k, rest.note);
		run_release(&whole), run_release(&first), run_release(&rest);
	}
	dataset_close(ds);
}

/* What spec.json names is what the run began with, or it is refused and told. */
static void names_what_differs(void **state)
{
	static const struct {
		const char *spec, *says;
	} cases[] = {
		{"\"epochs\":4", "\"epochs\" is 4 in spec.json and was 2 when the training began"},
		{"\"batch\":50", "\"batch\" is 50 in spec.json and was 40"},
		{"\"lr\":0.1", "\"lr\" is 0.1 in spec.json and was 0.01"},
		{"\"momentum\":0.9", "\"momentum\" is 0.9 "},
		{"\"weight_decay\":0", "\"weight_decay\" is 0 in spec.json and was 0.001"},
		{"\"warmup\":1", "\"warmup\" is 1 "},
		{"\"smoothing\":0", "\"smoothing\" is 0 "},
		{"\"random\":2", "\"random\" is 2 "},
		{"\"distill\":0", "\"distill\" is 0 "},
		{"\"temperature\":1", "\"temperature\" is 1 "},
		{"\"shift\":0", "\"shift\" is 0 "},
		{"\"erase\":0", "\"erase\" is 0 "},
		{"\"clip\":0", "\"clip\" is 0 in spec.json and was 5"},
		{"\"ema\":0", "\"ema\" is 0 "},
		{"\"seed\":1", "\"seed\" is 1 "},
		{"\"threads\":0", "\"threads\" is 0 "},
		{"\"optimizer\":\"sgd\"", "\"optimizer\" is \"sgd\" in spec.json and was \"adamw\""},
		{"\"slices\":[1]", "\"slices\" is [1] in spec.json and was [0.25,0.5,0.75,0.875,1]"},
		{"\"flip\":false", "\"flip\" is false in spec.json and was true"},
		{"\"budget\":\"2m\"", "\"budget\" is 120 in spec.json and was none"},
		{"\"model\":\"m\"", "\"model\" is \"m\" in spec.json and was none"},
		{"\"input\":\"1x12x12\"", "\"input\" is \"1x12x12\" in spec.json and was none"},
		{"\"net\":{\"arch\":\"mlp\",\"hidden\":[32]}",
		 "\"net\" is {\"arch\":\"mlp\",\"hidden\":[32]} "},
	};
	struct dataset *ds = blobs(400), *more = blobs(1000);
	struct run run = {.stop_after = 1}, none = {0};
	char spec[200];

	(void)state;
	assert_int_equal(train(ds, EVERY(2), &run, NULL, NULL), -ECANCELED);
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		snprintf(spec, sizeof(spec), "{\"dataset\":\"d\",%s}", cases[k].spec);
		assert_int_equal(train(ds, spec, &none, &run.checkpoint, NULL), -EBADMSG);
		if (!strstr(none.error, cases[k].says))
			fail_msg("%s: %s", spec, none.error);
	}
	assert_int_equal(train(ds, "{\"dataset\":\"e\"}", &none, &run.checkpoint, NULL), -EBADMSG);
	assert_non_null(strstr(none.error, "\"dataset\" is \"e\" in spec.json and was \"d\""));
	assert_int_equal(train(more, EVERY(2), &none, &run.checkpoint, NULL), -EBADMSG);
	assert_string_equal(none.error,
			    "the data set is 900 images of 1x12x12 for training, in 2 classes, and was "
			    "360 of 1x12x12 in 2 when the training began");
	assert_int_equal(none.steps, 0);
	run_release(&run);
	run_release(&none);
	dataset_close(ds);
	dataset_close(more);
}

/* The same checkpoint with this metadata in place of "run". */
static struct buf with_metadata(const struct buf *from, const char *key, const char *value)
{
	struct buf ret = BUF_INIT;
	struct safetensors *st;
	struct safetensors_tensor *list;

	assert_int_equal(safetensors_open(&st, from->data, from->len, NULL), 0);
	list = calloc(safetensors_count(st), sizeof(*list));
	for (size_t i = 0; i < safetensors_count(st); i++)
		list[i] = *safetensors_at(st, i);
	const char *const metadata[] = {
		"epoch",   safetensors_metadata(st, "epoch"),   "step", safetensors_metadata(st, "step"),
		"elapsed", safetensors_metadata(st, "elapsed"), key,    value};
	assert_int_equal(safetensors_write(&ret, list, safetensors_count(st), metadata, 4, NULL), 0);
	free(list);
	safetensors_close(st);
	return ret;
}

/* The first form of a checkpoint has a hash of the whole spec; this is what the version that wrote it made of these. */
static void goes_on_from_the_first_form(void **state)
{
	static const char spec[] = SPEC "\"epochs\":2}";
	struct run whole = {0}, first = {.stop_after = 1}, rest = {0};
	struct dataset *ds = blobs(400);
	struct buf old;

	(void)state;
	assert_int_equal(train(ds, spec, &whole, NULL, NULL), 0);
	assert_int_equal(train(ds, spec, &first, NULL, NULL), -ECANCELED);
	old = with_metadata(&first.checkpoint, "spec", "56cb25550abafa7e");
	assert_int_equal(train(ds, spec, &rest, &old, NULL), 0);
	assert_int_equal(rest.steps, 7);
	assert_memory_equal(rest.weights.data, whole.weights.data, whole.weights.len);
	assert_int_equal(train(ds, SPEC "\"epochs\":3}", &rest, &old, NULL), -EBADMSG);
	assert_string_equal(rest.error, "it was made with another spec or data set");
	buf_release(&old);
	run_release(&whole), run_release(&first), run_release(&rest);
	dataset_close(ds);
}

static void checkpoint_hostile(void **state)
{
#define RUN(version, spec, data, mean, std) \
	"{\"version\":" version ",\"spec\":{" spec "},\"data\":{" data "},\"mean\":" mean ",\"std\":" std "}"
#define S "\"dataset\":\"d\",\"net\":{\"arch\":\"mlp\"}"
#define D "\"channels\":1,\"height\":12,\"width\":12,\"classes\":2,\"images\":360"
	static const struct {
		const char *run, *says;
	} cases[] = {
		{"", "run"},
		{"{", "run"},
		{"[]", "version"},
		{"{}", "version"},
		{RUN("2", S, D, "[0]", "[1]"), "\"run.version\" must be"},
		{RUN("1", S, D, "[0]", "[1]"), "does not fit"}, /* another network */
		{RUN("1", S ",\"wings\":2", D, "[0]", "[1]"), "\"wings\""},
		{RUN("1", S ",\"lr\":1e9", D, "[0]", "[1]"), "\"lr\" must be"},
		{RUN("1", "\"net\":{\"arch\":\"mlp\"}", D, "[0]", "[1]"), "\"dataset\""},
		{RUN("1", "\"dataset\":\"d\",\"init\":\"models/m\"", D, "[0]", "[1]"), "\"net\""},
		{RUN("1", S, "\"channels\":1", "[0]", "[1]"), "of \"data\""},
		{RUN("1", S, D ",\"depth\":1", "[0]", "[1]"), "\"data.depth\""},
		{RUN("1", S, "\"channels\":5", "[0]", "[1]"), "\"data.channels\" must be"},
		{RUN("1", S, D, "[0,0]", "[1]"), "\"mean\" must be 1 numbers"},
		{RUN("1", S, D, "[1e39]", "[1]"), "\"mean\" has"},
		{RUN("1", S, D, "[0]", "[0]"), "\"std\" has"},
		{RUN("1", S, D, "[0]", "7"), "\"std\" must be"},
		{RUN("1", S, D, "[0]", "[1],\"more\":1"), "\"run.more\""},
		{"{\"version\":1,\"spec\":[],\"data\":{" D "},\"mean\":[0],\"std\":[1]}", "the spec must be"},
		{"{\"version\":1,\"mean\":[0],\"std\":[1]}", "data must be"},
	};
	struct dataset *ds = blobs(400);
	struct run run = {.stop_after = 1}, none = {0};
	struct buf cut = BUF_INIT;

	(void)state;
	assert_int_equal(train(ds, SPEC "\"epochs\":2}", &run, NULL, NULL), -ECANCELED);
	for (size_t n = 0; n < run.checkpoint.len; n += run.checkpoint.len / 20) {
		buf_clear(&cut);
		buf_add(&cut, run.checkpoint.data, n);
		if (!n)
			buf_adds(&cut, "\0");
		cut.len = n;
		if (n)
			assert_int_equal(train(ds, SPEC "\"epochs\":2}", &none, &cut, NULL), -EBADMSG);
	}
	buf_release(&cut);
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		cut = with_metadata(&run.checkpoint, "run", cases[k].run);
		assert_int_equal(train(ds, "{\"dataset\":\"d\"}", &none, &cut, NULL), -EBADMSG);
		if (!strstr(none.error, cases[k].says))
			fail_msg("%s: %s", cases[k].run, none.error);
		buf_release(&cut);
	}
	assert_int_equal(none.steps, 0);
	run_release(&run);
	dataset_close(ds);
#undef RUN
#undef S
#undef D
}

static void budget_ends(void **state)
{
	struct dataset *ds = blobs(1000);
	struct run run = {0};
	struct timespec a, b;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(train(ds, SPEC "\"budget\":\"1.5s\"}", &run, NULL, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true(run.epochs >= 1);
	assert_true(b.tv_sec - a.tv_sec >= 1 && b.tv_sec - a.tv_sec < 30);
	run_release(&run);
	dataset_close(ds);
}

static void diverges(void **state)
{
	struct dataset *ds = blobs(1000);
	struct run run = {0};

	(void)state;
	assert_int_equal(train(ds,
			       "{\"dataset\":\"d\",\"net\":{\"arch\":\"mlp\",\"hidden\":[16]},\"lr\":100,"
			       "\"weight_decay\":10,\"warmup\":0,\"epochs\":20}",
			       &run, NULL, NULL),
			 -EDOM);
	run_release(&run);
	dataset_close(ds);
}

static void specs(void **state)
{
	static const struct {
		const char *json, *says;
	} bad[] = {
		{"", ""},
		{"{", ""},
		{"{}", "dataset"},
		{"{\"dataset\":7}", "text"},
		{"{\"dataset\":\"../x\"}", "name"},
		{"{\"dataset\":\"d\",\"epoch\":3}", "did you mean \"epochs\""},
		{"{\"dataset\":\"d\",\"epochs\":0}", "epochs"},
		{"{\"dataset\":\"d\",\"epochs\":1.5}", "epochs"},
		{"{\"dataset\":\"d\",\"lr\":\"0.1\"}", "lr"},
		{"{\"dataset\":\"d\",\"lr\":0.1,\"lr\":0.2}", "twice"},
		{"{\"dataset\":\"d\",\"flip\":1}", "flip"},
		{"{\"dataset\":\"d\",\"optimizer\":\"lion\"}", "adamw"},
		{"{\"dataset\":\"d\",\"slices\":[0.5]}", "end in 1"},
		{"{\"dataset\":\"d\",\"slices\":[0.5,0.25,1]}", "ascend"},
		{"{\"dataset\":\"d\",\"input\":\"2x3x4\"}", "input"},
		{"{\"dataset\":\"d\",\"input\":\"3x32x32 \"}", "input"},
		{"{\"dataset\":\"d\",\"budget\":\"8 parsecs\"}", "budget"},
		{"{\"dataset\":\"d\",\"budget\":-1}", "budget"},
		{"{\"dataset\":\"d\",\"init\":\"models/\"}", "init"},
		{"{\"dataset\":\"d\",\"init\":\"models/a/b/3\"}", "init"},
		{"{\"dataset\":\"d\",\"init\":\"models/a/0\"}", "init"},
		{"{\"dataset\":\"d\",\"init\":\"../a\"}", "init"},
		{"{\"dataset\":\"d\",\"net\":{\"arch\":\"resnet\",\"depth\":9}}", "6n+2"},
	};
	const char *good =
		"{\"dataset\":\"d\",\"model\":\"m\",\"budget\":\"2m\",\"input\":\"3x16x20\",\"lr\":0.25}";
	struct train_spec *spec, *again;
	struct buf a = BUF_INIT, b = BUF_INIT;
	int c, h, w;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = ERR_INIT;
		int r = train_spec_parse(&spec, bad[i].json, strlen(bad[i].json), &err);

		if (r != -EINVAL || !strstr(err.detail, bad[i].says))
			fail_msg("%s: %d %s", bad[i].json, r, err.detail);
	}
	assert_int_equal(train_spec_parse(&spec, good, strlen(good), NULL), 0);
	assert_string_equal(train_spec_dataset(spec), "d");
	assert_string_equal(train_spec_model(spec), "m");
	train_spec_input(spec, &c, &h, &w);
	assert_true(c == 3 && h == 16 && w == 20);
	/* What is written back is a spec that says the same. */
	assert_int_equal(train_spec_to_json(spec, &a), 0);
	assert_non_null(strstr(a.data, "\"budget\":\t120"));
	assert_int_equal(train_spec_parse(&again, a.data, a.len, NULL), 0);
	assert_int_equal(train_spec_to_json(again, &b), 0);
	assert_string_equal(a.data, b.data);
	train_spec_free(spec);
	train_spec_free(again);
	buf_release(&a);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(specs),
		cmocka_unit_test(learns),
		cmocka_unit_test(cascades),
		cmocka_unit_test(learns_without_normalisation),
		cmocka_unit_test(repeats_and_resumes),
		cmocka_unit_test(stops_evaluating),
		cmocka_unit_test(begins_with_another),
		cmocka_unit_test(goes_on_without_what_it_began_with),
		cmocka_unit_test(goes_on_as_it_began),
		cmocka_unit_test(names_what_differs),
		cmocka_unit_test(goes_on_from_the_first_form),
		cmocka_unit_test(checkpoint_hostile),
		cmocka_unit_test(budget_ends),
		cmocka_unit_test(diverges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
