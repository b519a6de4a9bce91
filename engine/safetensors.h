/*
 * Weights in files that other tools read (the safetensors format: 8 bytes little-endian header length, a JSON
 * header that gives each tensor its dtype, shape and byte range, then the bytes). F32 is written. Reading trusts
 * nothing: sizes, shapes, ranges, holes and overlaps are checked, and nothing is copied.
 *
 *	safetensors_open(&st, bytes, len, &err);		// bytes stay borrowed until close
 *	t = safetensors_find(st, "fc.weight");
 *	memcpy(value, t->data, t->bytes);
 */
#ifndef ENGINE_SAFETENSORS_H
#define ENGINE_SAFETENSORS_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdint.h>

#define SAFETENSORS_MAX_RANK 8

enum safetensors_type { SAFETENSORS_F32, SAFETENSORS_F16, SAFETENSORS_BF16, SAFETENSORS_OTHER };

struct safetensors_tensor {
	const char *name;
	int rank;
	int64_t dims[SAFETENSORS_MAX_RANK];
	const void *data; /* little-endian; not aligned when the file is another program's */
	size_t bytes;
	enum safetensors_type type;
};

/* metadata: keys and values by turns, n_metadata pairs; goes into "__metadata__". Tensors lie in the order
 * given. */
int safetensors_write(struct buf *ret, const struct safetensors_tensor *tensors, size_t n,
		      const char *const *metadata, size_t n_metadata, struct err *err);

struct safetensors;
/* -EBADMSG (BAD_TENSORS) when anything is not as it should be. */
int safetensors_open(struct safetensors **ret, const void *data, size_t len, struct err *err);
void safetensors_close(struct safetensors *st);
size_t safetensors_count(const struct safetensors *st);
const struct safetensors_tensor *safetensors_at(const struct safetensors *st, size_t i);
const struct safetensors_tensor *safetensors_find(const struct safetensors *st,
						  const char *name); /* or NULL */
/* All elements as floats; -EINVAL: of another type. */
int safetensors_floats(const struct safetensors_tensor *t, float *ret);
const char *safetensors_metadata(const struct safetensors *st, const char *key); /* or NULL */

#endif
