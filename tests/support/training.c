#include "tests/support/training.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/backend.h"
#include "engine/base/rng.h"
#include "engine/model_private.h"
#include "engine/validation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SHARE   0.3 /* the one that is recounted */
#define POINT   5
#define CLASSES 2

struct dataset *blobs(int n_train)
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

const struct train_hooks run_hooks = {.progress = on_progress,
				      .evaluating = on_evaluating,
				      .epoch = on_epoch,
				      .checkpoint = on_checkpoint,
				      .note = on_note,
				      .knobs = on_knobs};

int train_once(const struct dataset *ds, const char *json, struct run *run, const struct buf *from,
	       double accuracy[3])
{
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
	r = train_new(&t, spec, ds, from ? from->data : NULL, from ? from->len : 0, &run_hooks, run, &err);
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

void run_release(struct run *run)
{
	buf_release(&run->checkpoint);
	buf_release(&run->weights);
	buf_release(&run->knobs);
}

struct model *other_model(struct buf files[4])
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
