/* What tests of training share: a data set that is quick to learn, and one run of it with what it told. */
#ifndef TESTS_SUPPORT_TRAINING_H
#define TESTS_SUPPORT_TRAINING_H

#include "engine/base/buf.h"
#include "engine/train.h"

struct dataset;
struct model;

#define NET  "\"net\":{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"groups\":4}"
#define FOUR "{\"dataset\":\"d\"," NET ",\"batch\":50,\"seed\":3,"
#define BATCH                                                                                            \
	"{\"dataset\":\"d\",\"net\":{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"groups\":4,\"norm\":" \
	"\"batch\"},"                                                                                    \
	"\"batch\":50,\"slices\":[0.25,0.5,1],\"seed\":3,\"flip\":true,"
#define SPEC "{\"dataset\":\"d\"," NET ",\"batch\":50,\"slices\":[0.25,0.5,1],\"seed\":3,\"flip\":true,"

/* Two classes of 12×12 noise with a bright blob in the upper or the lower half, a fifth as many to test with as to train with. */
struct dataset *blobs(int n_train);
#define N_VAL 100 /* images to validate with, of blobs(1000) */

struct run {
	int epochs, stop_after, steps, evaluated, stop_evaluating;
	double percent, accuracy, cascade; /* cascade: what the best one gains */
	struct buf checkpoint, weights, knobs;
	char note[1024], error[400];
	const struct buf *init; /* model.json and the weights of what it begins with; NULL: none */
};

extern const struct train_hooks run_hooks; /* data: a struct run */
/* Trains by the spec, from a checkpoint if there is one; run->weights gets the model, accuracy (NULL: not asked for) what its rates have on
 * the test images. What comes out is checked: narrow slices, cascades, the answers on the validation images. */
int train_once(const struct dataset *ds, const char *json, struct run *run, const struct buf *from,
	       double accuracy[3]);
void run_release(struct run *run);

/* A model of five classes whose pixels are normalised otherwise than the blobs' are: its four files. */
struct model *other_model(struct buf files[4]);

#endif
