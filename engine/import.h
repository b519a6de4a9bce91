/*
 * A model of somebody else's becomes the files of a version: an ONNX file, or safetensors of a network that we know by its names.
 *
 *	from = (struct import_source){ .file = "resnet.onnx", .data = bytes, .size = n };
 *	r = model_import(&to, &from, &err);
 *	… to.json, to.labels, to.slices; to.weights where it came as safetensors, or as two files (ONNX: else the file itself) …
 *	imported_release(&to);
 *
 * Nothing that is read is trusted, but the work is bounded by what the file asks for only: call it where it may be killed.
 *
 * The user's model.json: {"input":[C,H,W], "mean":[…], "std":[…], "classes":N, "accuracy":0.76, "net":{"arch":…}}, all optional but
 * "net" of safetensors. mean and std are of pixels scaled to 0…1, one number a channel; without them images of 3 channels have
 * ImageNet's (0.485 0.456 0.406, 0.229 0.224 0.225), those of 1 channel 0 and 1. accuracy (0…1) is what is said in slices.csv.
 */
#ifndef ENGINE_IMPORT_H
#define ENGINE_IMPORT_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stddef.h>

struct import_source {
	const char *file; /* its name, ending in .onnx or .safetensors */
	const void *data;
	size_t size;
	const char *json, *labels; /* model.json, labels.txt; NULL: not there */
	size_t json_len, labels_len;
	/* The file beside an ONNX model that has its weights (engine/onnx/external.h), its name as the model says it; NULL: none. */
	const char *beside;
	const void *beside_data;
	size_t beside_size;
};

struct imported {
	struct buf json, labels, slices, weights;
};

/* 0: of another name */
enum import_format { IMPORT_NONE, IMPORT_ONNX, IMPORT_TENSORS };
enum import_format import_format(const char *file);

/* What can't be run is refused with the op, its version and the node's name; a file that is no model with what is wrong where. On
 * failure *ret is empty. */
int model_import(struct imported *ret, const struct import_source *from, struct err *err);
void imported_release(struct imported *i);

#endif
