/*
 * A trained slice as a file that other programs run: ONNX, complete in itself.
 *
 *	r = model_export(&(struct export_source){.json = …, .weights = …, .labels = …}, 0.5, &bytes, &err);
 *
 * Input "images": float (batch, C, H, W), RGB (or grey) pixels scaled to 0…1; the model's mean and std are taken off within. Output
 * "logits": float (batch, classes). Names of layers and weights are the network's, those of PyTorch; operator set 13. metadata_props
 * has "input" (EXPORT_INPUT), "labels", "mean" and "std" as JSON lists, "slice", and "accuracy" (0…1) where it was measured.
 */
#ifndef ENGINE_EXPORT_H
#define ENGINE_EXPORT_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stddef.h>

struct model;

/* Says that the file normalises by itself: who imports it again doesn't. */
#define EXPORT_INPUT "pixels / 255"

/* -ENOENT (NO_SLICE): it has no slice of that rate; -EOPNOTSUPP (NO_NETWORK): an ONNX model that isn't compiled. ret is added to. */
int model_export_onnx(const struct model *model, float rate, struct buf *ret, struct err *err);

/* A version's files (model.h). */
struct export_source {
	const char *json;
	const void *weights;
	const char *labels; /* NULL: not there */
	size_t json_len, weights_len, labels_len;
};

/* As above; what came as ONNX is its own export, at rate 1. */
int model_export(const struct export_source *from, float rate, struct buf *ret, struct err *err);

#endif
