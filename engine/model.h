/*
 * A model: a network of some architecture, its one full-width weight set, and what is needed to use it
 * (input shape, normalisation, labels). A session runs one slice of it at one batch size.
 *
 *	model_load(&model, json, json_len, weights, weights_len, &err);
 *	options = (struct session_options){ .rate = 0.5, .batch = 32 };
 *	session_new(&s, model, backend_find("onednn"), &options, &err);
 *	session_forward(s, pixels, n, logits);		// n <= batch
 *
 * Slicing (DESIGN section 5): a layer of C channels in G equal groups uses at rate r the first round(r·G)
 * groups of inputs and outputs; the network's input and its classifier's output stay whole. Sessions of one
 * model share its weights; a kernel's packed copy is a cache of the session that session_trim drops.
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/cascade.h"
#include "engine/precision.h"

#include <stdbool.h>
#include <stdint.h>

struct backend;
struct model;
struct session;

#define MODEL_MAX_RATES 8

/* A version's files. Of the two that model_load takes as weights one is there. */
#define MODEL_JSON    "model.json"
#define MODEL_LABELS  "labels.txt"
#define MODEL_SLICES  "slices.csv"
#define MODEL_WEIGHTS "weights.safetensors"
#define MODEL_ONNX    "model.onnx"
/* May be missing: engine/validation.h */
#define MODEL_VALIDATION "validation.bin"

/* What model.json says. */
struct model_info {
	int channels, height, width, classes;
	float mean[4], std[4]; /* per channel, of pixels scaled to 0…1 */
	int n_rates;
	float rates[MODEL_MAX_RATES];    /* ascending; the last is 1 */
	float accuracy[MODEL_MAX_RATES]; /* top-1 on the validation split, 0…1; 0 when not measured */
	float narrow_accuracy[N_PRECISIONS][MODEL_MAX_RATES]; /* the same in the others; of f32 0 */
};

/* Rate info.rates[rate_index] in a precision. */
struct model_submodel {
	int rate_index;
	enum precision precision;
};

/*
 * A new model with initialised weights (He normal, seeded). spec: the "net" object of a job's spec.json,
 *	{"arch":"resnet","depth":20,"width":32,"groups":8}
 *	{"arch":"mlp","hidden":[256,256]}
 *	{"arch":"layers","layers":[…]}
 * parsed with cJSON; info gives shapes, normalisation and rates.
 */
int model_new(struct model **ret, const char *net_json, const struct model_info *info, uint64_t seed,
	      struct err *err);
int model_load(struct model **ret, const char *json, size_t json_len, const void *weights, size_t weights_len,
	       struct err *err);
/*
 * As model_load, for inference only: large arrays of safetensors are used where they lie, so `weights` must stay until model_free.
 * They are read when a session packs them: at its first forward, and at the first after session_trim.
 */
int model_open(struct model **ret, const char *json, size_t json_len, const void *weights, size_t weights_len,
	       struct err *err);
void model_free(struct model *model);

const struct model_info *model_info(const struct model *model);
/* Whether sessions of it can have gradcam: a graph that the ONNX interpreter runs has no gradients. */
bool model_explains(const struct model *model);
void model_set_accuracy(struct model *model, int rate_index, float accuracy);
void model_set_test_accuracy(struct model *model, int rate_index, float accuracy); /* on the test split */
/* In another precision than f32. */
void model_set_narrow_accuracy(struct model *model, enum precision precision, int rate_index, float accuracy,
			       float test_accuracy);
/* What int8 needs of a slice, of each node of the network: see session_observe in engine/session.h. Copied. -ENOMEM */
int model_set_ranges(struct model *model, int rate_index, const float *ranges);
bool model_calibrated(const struct model *model, int rate_index); /* whether it has them */
/* What training measured of cascades (engine/cascade.h); borrowed; NULL: not measured. then: (CASCADE_POINTS) */
const struct cascade_first *model_cascade_first(const struct model *model, struct model_submodel first);
const float *model_cascade_then(const struct model *model, struct model_submodel first,
				struct model_submodel then);
/* Copied. Of `then` none is kept before its first has been set. -ENOMEM */
int model_set_cascade_first(struct model *model, struct model_submodel of, const struct cascade_first *first);
void model_set_cascade_then(struct model *model, struct model_submodel first, struct model_submodel then,
			    const float accuracy[CASCADE_POINTS]);
int model_set_label(struct model *model, int class, const char *label); /* copied */
/* From labels.txt, a name a line; empty lines and those beyond the classes say nothing. -ENOMEM. */
int model_set_labels(struct model *model, const char *text, size_t len);
const char *model_label(const struct model *model, int class); /* borrowed; the number as text when unset */

/* What is written to models/NAME/V/: model.json, weights.safetensors, labels.txt, slices.csv
 * (slice,precision,accuracy,params,flops[,test_accuracy]; accuracies in percent, flops of one forward pass
 * of one instance; other precisions than f32 where their accuracy was measured). */
int model_save(const struct model *model, struct buf *ret_json, struct buf *ret_weights,
	       struct buf *ret_labels, struct buf *ret_slices, struct err *err);
int64_t model_params(const struct model *model, float rate);
int64_t model_flops(const struct model *model, float rate); /* 2 × multiply-adds */

struct session_options {
	float rate;
	int batch; /* the most instances of one call */
	/* Not f32: activations are stored and weights packed so; with gradcam what it needs is f32. Not with training */
	enum precision precision;
	const float *ranges; /* int8: of each node (engine/session.h); NULL: those that the model has */
	bool training;       /* gradients are kept: session_backward works */
	bool gradcam;        /* the last feature map and its gradient can be asked for */
	int threads;         /* 0: all */
};

/* Whether a session of that precision is any faster here than one of f32; of f32 always. */
bool model_gains(const struct model *model, const struct backend *backend, enum precision precision);

int session_new(struct session **ret, struct model *model, const struct backend *backend,
		const struct session_options *options, struct err *err);
void session_free(struct session *s);
/* Drops packed weights; they are made again at the next use. */
void session_trim(struct session *s);

/* pixels (n, H, W, C) as decoded; logits (n, classes). Sessions of one model share one workspace: one thread
 * at a time for all of them, and session_gradcam belongs to the last forward of any of them. */
int session_forward(struct session *s, const uint8_t *pixels, int n, float *logits);

/* Of the last session_forward: class activation maps by Grad-CAM (Selvaraju et al. 2017, eq. 1-2) of class
 * labels[i] for each instance, ReLU'd and scaled to 0…1 (all 0 when nothing speaks for the class). heat (n,
 * h, w), h and w from session_gradcam_shape. A network without a feature map (mlp) gives the input's saliency
 * instead: the largest |∂logit/∂x| over channels (Simonyan et al. 2014, section 3), scaled to 0…1. -EINVAL
 * without options.gradcam, before a forward, or with a label out of range. */
void session_gradcam_shape(const struct session *s, int *ret_h, int *ret_w);
int session_gradcam(struct session *s, const int *labels, int n, float *heat);

/* Softmax of (n, classes) logits in place: the `score` of an answer. */
void softmax_rows(float *logits, int n, int classes);

#endif
