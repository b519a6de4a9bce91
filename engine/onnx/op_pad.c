/* Pad, and what is a Pad of other words. */
#include "engine/onnx/op.h"

#include <stdlib.h>
#include <string.h>

/* Where index i of a padded dimension comes from; -1: from nowhere. */
static int64_t pad_source(const char *mode, int64_t i, int64_t dim)
{
	if (i >= 0 && i < dim)
		return i;
	if (*mode == 'c')
		return -1;
	if (*mode == 'e')
		return i < 0 ? 0 : dim - 1;
	if (*mode == 'w')
		return i % dim < 0 ? i % dim + dim : i % dim;
	if (dim == 1) /* reflections of one element are that element */
		return 0;
	i = (i < 0 ? -i : i) % (2 * dim - 2);
	return i < dim ? i : 2 * dim - 2 - i;
}

static int pad(struct onnx_call *c, const int64_t *pads, const void *fill)
{
	const struct onnx_tensor *in = c->in[0];
	const char *mode = attr_string(c, "mode", "constant");
	size_t size = onnx_type_size(in->type), total = 0;
	int64_t dims[ONNX_MAX_RANK], strides[ONNX_MAX_RANK], *sources = NULL, *source[ONNX_MAX_RANK];
	struct walk w;
	char *to;
	int r;

	if (strcmp(mode, "constant") != 0 && strcmp(mode, "reflect") != 0 && strcmp(mode, "edge") != 0 &&
	    (c->version < 19 || strcmp(mode, "wrap") != 0))
		return call_unsupported(c, "mode %.40s", mode);
	for (int d = 0; d < in->rank; d++) {
		if (__builtin_add_overflow(in->dims[d], pads[d], &dims[d]) ||
		    __builtin_add_overflow(dims[d], pads[in->rank + d], &dims[d]) || dims[d] < 0 ||
		    (*mode != 'c' && !in->dims[d] && dims[d]))
			return call_fail(c, "pads that dimension %d can't have", d);
		total += (size_t)dims[d];
	}
	r = call_out(c, 0, in->type, in->rank, dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	sources = malloc((total + 1) * sizeof(*sources));
	if (!sources)
		return err_set(c->err, ERR_NO_MEMORY, "Pad");
	sources[0] = 0;
	for (int d = 0; d < ONNX_MAX_RANK; d++) /* of a scalar's one dimension, too */
		source[d] = sources;
	dims_strides(in->rank, in->dims, strides);
	total = 0;
	for (int d = 0; d < in->rank; d++) {
		source[d] = sources + total;
		for (int64_t i = 0; i < dims[d]; i++) {
			int64_t from = pad_source(mode, i - pads[d], in->dims[d]);

			source[d][i] = from < 0 ? -1 : from * strides[d];
		}
		total += (size_t)dims[d];
	}
	walk_init(&w, in->rank, dims);
	to = c->out[0]->data;
	do {
		int64_t base = 0;

		for (int d = 0; d < w.rank - 1 && base >= 0; d++)
			base = source[d][w.index[d]] < 0 ? -1 : base + source[d][w.index[d]];
		for (int64_t i = 0; i < w.row; i++, to += size) {
			int64_t last = source[w.rank - 1][i];

			memcpy(to,
			       base < 0 || last < 0 ? fill
						    : (const char *)in->data + (size_t)(base + last) * size,
			       size);
		}
	} while (walk_next(&w));
	free(sources);
	return 0;
}

int op_pad(struct onnx_call *c)
{
	static const uint64_t zero;
	const struct onnx_tensor *in = c->in[0], *value = call_in(c, 2);
	int64_t pads[2 * ONNX_MAX_RANK] = {0}, given[2 * ONNX_MAX_RANK], axes[ONNX_MAX_RANK];
	bool seen[ONNX_MAX_RANK] = {false};
	int n, n_axes = in->rank, r;

	for (int d = 0; d < in->rank; d++)
		axes[d] = d;
	r = call_ints(c, 1, given, 2 * ONNX_MAX_RANK, &n);
	if (r == 0 && call_in(c, 3))
		r = call_ints(c, 3, axes, ONNX_MAX_RANK, &n_axes);
	if (r < 0)
		return r;
	if (n != 2 * n_axes)
		return call_fail(c, "%d pads of %d dimensions", n, n_axes);
	for (int i = 0; i < n_axes; i++) {
		r = call_axis(c, &axes[i], in->rank);
		if (r < 0)
			return r;
		if (seen[axes[i]])
			return call_fail(c, "axis %lld is given twice", (long long)axes[i]);
		seen[axes[i]] = true;
		pads[axes[i]] = given[i];
		pads[in->rank + axes[i]] = given[n_axes + i];
	}
	if (value && (value->type != in->type || value->count != 1))
		return call_fail(c, "the constant has to be one %s", onnx_type_name(in->type));
	return pad(c, pads, value ? value->data : &zero);
}

/* What is too much is cut off, or zeros are put, at both ends; of an odd number the end has the one more. */
int op_center_crop_pad(struct onnx_call *c)
{
	static const uint64_t zero;
	const struct onnx_tensor *in = c->in[0];
	int64_t pads[2 * ONNX_MAX_RANK] = {0}, shape[ONNX_MAX_RANK];
	bool mask[ONNX_MAX_RANK];
	const int64_t *axes;
	size_t n_axes;
	int n = 0, many = 0, r;

	r = call_ints(c, 1, shape, ONNX_MAX_RANK, &n);
	if (r == 0)
		r = call_axes(c, -1, "axes", in->rank, mask, &many);
	if (r < 0)
		return r;
	axes = attr_ints(c, "axes", &n_axes);
	if (n != (axes ? many : in->rank) || dims_count(n, shape) < 0)
		return call_fail(c, "a shape of %d for an input of rank %d", n, in->rank);
	for (int i = 0; i < n; i++) {
		const int64_t d = axes ? axes[i] + (axes[i] < 0 ? in->rank : 0) : i;
		const int64_t more = shape[i] - in->dims[d];

		pads[d] = more / 2;
		pads[in->rank + d] = more - more / 2;
	}
	return pad(c, pads, &zero);
}

int op_pad_attrs(struct onnx_call *c)
{
	const float value = attr_float(c, "value", 0);
	const double wide = value;
	const struct onnx_tensor *in = c->in[0];
	const int64_t *pads;
	size_t n;

	pads = attr_ints(c, c->version < 2 ? "paddings" : "pads", &n);
	if (n != 2 * (size_t)in->rank)
		return call_fail(c, "%zu pads at rank %d", n, in->rank);
	if (in->type != ONNX_FLOAT && in->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	return pad(c, pads, in->type == ONNX_FLOAT ? (const void *)&value : &wide);
}
