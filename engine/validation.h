/*
 * What the sub-models of a model say of its validation images: models/NAME/V/validation.bin, which training writes beside the weights.
 * From such files the accuracy of several models' averaged probabilities is measured without running them (engine/ensemble.h).
 *
 *	struct validation_notes *notes;
 *	validation_notes_new(&notes, ids, n, classes, n_submodels);	// ids as dataset_val_ids
 *	k = validation_add(notes, rate, precision);
 *	validation_note(notes, k, image, probabilities);		// of each image
 *	validation_write(notes, labels, &buf);
 *
 *	validation_open(&v, bytes, len, &err);				// any bytes
 *	p = validation_row(&v, k, i);
 *
 * The file, little-endian without padding:
 *
 *	"INFVAL1\n", u32 images, u32 classes, u32 sub-models, u32 0
 *	of each sub-model: f32 rate, u32 precision (0 f32, 1 bf16, 2 int8)
 *	of each image: u64 id, ascending
 *	of each image: u16 its class
 *	of each sub-model, of each image, of each class: u16 probability in 65535ths
 *
 * It has at most VALIDATION_MAX bytes: of more images than fit those with the lowest ids, which are a random sample, and of
 * models with the same validation split one the other's part.
 */
#ifndef ENGINE_VALIDATION_H
#define ENGINE_VALIDATION_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/precision.h"

#include <stddef.h>
#include <stdint.h>

#define VALIDATION_MAX \
	(UINT64_C(32) << 20) /* chosen: 68,000 images of 10 classes, 8 slices in all precisions */
#define VALIDATION_LEAST 100 /* images; chosen: of fewer an accuracy says nothing */

struct validation_notes;

/* -ERANGE: there are too few images, or too few of them fit. */
int validation_notes_new(struct validation_notes **ret, const uint64_t *ids, size_t n, int classes,
			 int n_submodels);
void validation_notes_free(struct validation_notes *notes);
int validation_add(struct validation_notes *notes, float rate, enum precision precision); /* its number */
/* image: of all n, whether it is kept or not. probabilities (classes) */
void validation_note(struct validation_notes *notes, int submodel, size_t image, const float *probabilities);
/* labels (n) */
int validation_write(const struct validation_notes *notes, const int *labels, struct buf *ret);

/* A file's bytes, borrowed. */
struct validation {
	size_t n; /* images */
	int classes, n_submodels;
	const uint8_t *submodels, *ids, *labels, *rows;
};

/* -EBADMSG: it is no such file, or says what can't be. */
int validation_open(struct validation *ret, const void *data, size_t len, struct err *err);
int validation_find(const struct validation *v, float rate, enum precision precision); /* -1: it has none */
uint64_t validation_id(const struct validation *v, size_t i);
int validation_label(const struct validation *v, size_t i);
/* (classes) little-endian u16, unaligned */
const uint8_t *validation_row(const struct validation *v, int submodel, size_t i);

static inline unsigned validation_u16(const uint8_t *p)
{
	return p[0] | (unsigned)p[1] << 8;
}

#endif
