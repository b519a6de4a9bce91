/* Ops that give the same elements another shape, and those that tell of a shape. */
#include "engine/onnx/op.h"

#include <string.h>

static int give_view(struct onnx_call *c, int rank, const int64_t *dims)
{
	struct onnx_tensor *view;
	int r = tensor_view(&view, c->in[0], rank, dims, c->err);

	if (r == 0)
		call_give(c, 0, view);
	return r;
}

int op_identity(struct onnx_call *c)
{
	call_give(c, 0, tensor_ref(c->in[0]));
	return 0;
}

/* Without training it changes nothing. The mask has the input's type before version 10. */
int op_dropout(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *ratio = call_in(c, 1), *training = call_in(c, 2);
	const bool dropping = c->version < 7    ? attr_int(c, "is_test", 0) == 0
			      : c->version < 12 ? false
						: training && training->count && tensor_int(training, 0);
	double share = c->version < 12 ? attr_float(c, "ratio", 0.5f) : 0.5;
	struct onnx_tensor *mask;
	int r;

	if (ratio && ratio->count)
		share = tensor_real(ratio, 0);
	if (dropping && share != 0)
		return call_unsupported(c, "training");
	call_give(c, 0, tensor_ref(c->in[0]));
	if (c->n_out < 2)
		return 0;
	r = call_out(c, 1, c->version < 10 ? in->type : ONNX_BOOL, in->rank, in->dims);
	if (r < 0)
		return r;
	mask = c->out[1];
	for (size_t i = 0; i < mask->count; i++) {
		if (mask->type == ONNX_BOOL)
			((uint8_t *)mask->data)[i] = 1;
		else if (mask->type == ONNX_FLOAT)
			((float *)mask->data)[i] = 1;
		else
			return call_bad_type(c, 0);
	}
	return 0;
}

/* -1: what is left; 0: as the input's, or with allowzero none. */
static int reshape(struct onnx_call *c, const int64_t *shape, int rank)
{
	const struct onnx_tensor *in = c->in[0];
	const bool allow_zero = c->version >= 14 && attr_int(c, "allowzero", 0);
	int64_t dims[ONNX_MAX_RANK], known;
	char want[64], have[64];
	int open = -1;

	for (int d = 0; d < rank; d++) {
		dims[d] = shape[d];
		if (dims[d] == 0 && !allow_zero) {
			if (d >= in->rank)
				return call_fail(c, "dimension %d is taken from an input of rank %d", d,
						 in->rank);
			dims[d] = in->dims[d];
		} else if (dims[d] == -1) {
			if (open >= 0)
				return call_fail(c, "two dimensions are left open");
			open = d;
			dims[d] = 1;
		}
	}
	known = dims_count(rank, dims);
	if (open >= 0 && known > 0 && in->count % (size_t)known == 0)
		dims[open] = (int64_t)(in->count / (size_t)known);
	if (known < 0 || dims_count(rank, dims) != (int64_t)in->count)
		return call_fail(c, "%s to %s", dims_text(have, sizeof(have), in->rank, in->dims),
				 dims_text(want, sizeof(want), rank, shape));
	return give_view(c, rank, dims);
}

int op_reshape(struct onnx_call *c)
{
	int64_t shape[ONNX_MAX_RANK];
	const int64_t *given;
	int r, rank;
	size_t n;

	if (c->version >= 5) {
		r = call_ints(c, 1, shape, ONNX_MAX_RANK, &rank);
		return r < 0 ? r : reshape(c, shape, rank);
	}
	given = attr_ints(c, "shape", &n);
	if (n > ONNX_MAX_RANK)
		return call_fail(c, "to rank %zu", n);
	return reshape(c, given, (int)n);
}

int op_flatten(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t axis = attr_int(c, "axis", 1), dims[2] = {1, 1};

	if (axis < -in->rank || axis > in->rank)
		return call_fail(c, "axis %lld at rank %d", (long long)axis, in->rank);
	if (axis < 0)
		axis += in->rank;
	for (int d = 0; d < in->rank; d++)
		dims[d >= axis] *= in->dims[d];
	return give_view(c, 2, dims);
}

int op_squeeze(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t dims[ONNX_MAX_RANK];
	bool mask[ONNX_MAX_RANK];
	int n, r, rank = 0;
	bool all;

	r = call_axes(c, c->version >= 13 ? 1 : -1, "axes", in->rank, mask, &n);
	if (r < 0)
		return r;
	all = n == 0;
	for (int d = 0; d < in->rank; d++) {
		if (mask[d] && in->dims[d] != 1)
			return call_fail(c, "dimension %d is %lld", d, (long long)in->dims[d]);
		if (!(mask[d] || (all && in->dims[d] == 1)))
			dims[rank++] = in->dims[d];
	}
	return give_view(c, rank, dims);
}

/* The axes count in the output. */
int op_unsqueeze(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t dims[ONNX_MAX_RANK], axes[ONNX_MAX_RANK];
	int n, r, rank, from = 0;
	bool mask[ONNX_MAX_RANK];
	size_t many;

	if (c->version >= 13) {
		r = call_ints(c, 1, axes, ONNX_MAX_RANK, &n);
		if (r < 0)
			return r;
		many = (size_t)n;
	} else {
		attr_ints(c, "axes", &many);
	}
	if (in->rank + many > ONNX_MAX_RANK)
		return call_fail(c, "to rank %zu; at most %d", in->rank + many, ONNX_MAX_RANK);
	rank = in->rank + (int)many;
	r = call_axes(c, c->version >= 13 ? 1 : -1, "axes", rank, mask, &n);
	if (r < 0)
		return r;
	for (int d = 0; d < rank; d++)
		dims[d] = mask[d] ? 1 : in->dims[from++];
	return give_view(c, rank, dims);
}

int op_shape(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t start = c->version >= 15 ? attr_int(c, "start", 0) : 0;
	int64_t end = c->version >= 15 ? attr_int(c, "end", in->rank) : in->rank, n;
	int r;

	start = start < -in->rank ? 0 : start < 0 ? start + in->rank : start > in->rank ? in->rank : start;
	end = end < -in->rank ? 0 : end < 0 ? end + in->rank : end > in->rank ? in->rank : end;
	n = end > start ? end - start : 0;
	r = call_out(c, 0, ONNX_INT64, 1, &n);
	if (r == 0 && n)
		memcpy(c->out[0]->data, in->dims + start, (size_t)n * sizeof(int64_t));
	return r;
}

int op_size(struct onnx_call *c)
{
	int r = call_out(c, 0, ONNX_INT64, 0, NULL);

	if (r == 0)
		*(int64_t *)c->out[0]->data = (int64_t)c->in[0]->count;
	return r;
}
