/*
 * Private to engine/: what a model is made of. engine/session.c reads info and net; engine/model.c makes and
 * frees it.
 */
#ifndef ENGINE_MODEL_PRIVATE_H
#define ENGINE_MODEL_PRIVATE_H

#include "engine/model.h"
#include "engine/net.h"
#include "engine/onnx/to_net.h"

#include <cJSON.h>

#define MODEL_MAX_SIDE    4096
#define MODEL_MAX_CLASSES 65536

/* Cascades that begin with one sub-model. */
struct model_cascade {
	struct cascade_first first;
	float then[N_PRECISIONS][MODEL_MAX_RATES][CASCADE_POINTS]; /* all 0: not measured */
};

struct model {
	struct model_info info;
	struct net *net;          /* NULL: the interpreter runs `graph` */
	struct onnx_model *graph; /* else NULL */
	struct onnx_image image;  /* of the graph */
	int64_t graph_params;
	float test_accuracy[MODEL_MAX_RATES]; /* as info.accuracy, on the test split */
	float narrow_test_accuracy[N_PRECISIONS][MODEL_MAX_RATES];
	float *ranges[MODEL_MAX_RATES]; /* (net->n_nodes) each, for int8; NULL: not known; owned */
	struct model_cascade *cascades[N_PRECISIONS][MODEL_MAX_RATES]; /* NULL: not measured; owned */
	char *net_json;                                                /* the "net" object as text; owned */
	char **labels; /* (info.classes), entries may be NULL; owned */
};

/* Of the slice of that rate; NULL: not known. */
const float *model_ranges(const struct model *model, float rate);

int model_check_info(const struct model_info *info, struct err *err);

/* A model with all parameters 0; net: its "net" object. */
int model_build(struct model **ret, const cJSON *net, const struct model_info *info, struct err *err);
/* Element j is what no network can have. */
bool model_bad_value(const struct param *p, size_t j);
/* labels.txt, slices.csv */
void model_write_labels(const struct model *model, struct buf *ret);
void model_write_slices(const struct model *model, struct buf *ret_slices);

/* model_json.c */

/* model.json's figures; rates and accuracies are added to what is there. */
int model_read_info(const cJSON *root, struct model_info *info, float *test_accuracy, struct err *err);
/* Format 1 knew the CIFAR shape of a ResNet only, also of depth 50 and 152: says so in the words of today. */
void model_from_format_1(const cJSON *root);
/* What is known of other precisions than f32, but for what model_info has. -ENOMEM */
int model_read_narrow(struct model *model, const cJSON *root);
int model_write_json(const struct model *model, struct buf *ret);

/* model_cascade.c: "cascade" in the object of a sub-model */

int model_read_cascades(struct model *model, const cJSON *root, struct err *err);
void model_write_cascade(const struct model *model, struct model_submodel first, cJSON *object);

/* model_onnx.c: a version that was imported from ONNX; its weights are that file. */
#define MODEL_ONNX_FORMAT "inferfs-onnx-1"
bool model_is_onnx(const cJSON *root);
/* graph and net (NULL: it is interpreted) become the model's, on failure too. */
int model_new_onnx(struct model **ret, const struct model_info *info, struct onnx_model *graph,
		   const struct onnx_image *image, struct net *net, struct err *err);
int model_load_onnx(struct model **ret, const cJSON *root, const void *onnx, size_t len, struct err *err);

/*
 * Takes the values over of what has the same name and shape; a BatchNorm's set for a rate that `from` has not
 * begins as the prefix of the full width's. A line on that in ret_note. -EBADMSG: nothing has.
 */
int model_take(struct model *to, const struct model *from, struct buf *ret_note, struct err *err);

#endif
