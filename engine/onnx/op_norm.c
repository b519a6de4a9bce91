/* Normalisations. Statistics are summed as doubles. */
#include "engine/onnx/op.h"

#include <math.h>
#include <string.h>

/* Of n elements from `first` on. */
static void statistics(const struct onnx_tensor *x, size_t first, size_t n, double *mean, double *variance)
{
	double sum = 0, squares = 0;

	for (size_t i = 0; i < n; i++)
		sum += tensor_real(x, first + i);
	*mean = n ? sum / (double)n : 0;
	for (size_t i = 0; i < n; i++) {
		double d = tensor_real(x, first + i) - *mean;

		squares += d * d;
	}
	*variance = n ? squares / (double)n : 0;
}

static void set_real(struct onnx_tensor *t, size_t i, double x)
{
	if (t->type == ONNX_DOUBLE)
		((double *)t->data)[i] = x;
	else
		((float *)t->data)[i] = (float)x;
}

static int only_floats(struct onnx_call *c)
{
	for (int i = 0; i < c->n_in; i++)
		if (c->in[i] && c->in[i]->type != ONNX_FLOAT && c->in[i]->type != ONNX_DOUBLE)
			return call_bad_type(c, i);
	return 0;
}

static int are_vectors(struct onnx_call *c, int first, int last, int64_t n)
{
	for (int i = first; i <= last; i++)
		if (c->in[i]->count != (size_t)n)
			return call_fail(c, "input %d has %zu elements for %lld channels", i, c->in[i]->count,
					 (long long)n);
	return 0;
}

/* Means and variances of each channel over all else. */
static void channel_statistics(const struct onnx_tensor *x, size_t channel, double *mean, double *variance)
{
	size_t channels = (size_t)x->dims[1], plane = x->count / ((size_t)x->dims[0] * channels),
	       n = (size_t)x->dims[0];
	double sum = 0, squares = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < plane; j++)
			sum += tensor_real(x, (i * channels + channel) * plane + j);
	*mean = sum / (double)(n * plane);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < plane; j++) {
			double d = tensor_real(x, (i * channels + channel) * plane + j) - *mean;

			squares += d * d;
		}
	*variance = squares / (double)(n * plane);
}

/*
 * With training_mode (from version 14 on) by the batch's own statistics, and outputs 1 and 2 are the running ones
 * afterwards. Before version 7 is_test says so, before 14 more outputs; what these would hold is not supported.
 */
int op_batch_normalization(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	const float epsilon = attr_float(c, "epsilon", 1e-5f), momentum = attr_float(c, "momentum", 0.9f);
	const bool training = c->version >= 14 && attr_int(c, "training_mode", 0);
	size_t channels, plane;
	int r;

	if (x->rank < 2)
		return call_fail(c, "an input of rank %d", x->rank);
	if (c->version < 14 && ((c->version < 7 && !attr_int(c, "is_test", 0)) || c->n_out > 1))
		return call_unsupported(c, "training");
	if (c->version < 9 && !attr_int(c, "spatial", 1))
		return call_unsupported(c, "spatial 0");
	r = only_floats(c);
	if (r == 0)
		r = are_vectors(c, 1, 4, x->dims[1]);
	if (r == 0)
		r = call_out(c, 0, x->type, x->rank, x->dims);
	for (int i = 1; r == 0 && training && i < 3; i++)
		r = call_out(c, i, c->in[i + 2]->type, 1, &x->dims[1]);
	if (r < 0 || !x->count)
		return r;
	channels = (size_t)x->dims[1];
	plane = x->count / ((size_t)x->dims[0] * channels);
	for (size_t ch = 0; ch < channels; ch++) {
		double mean = tensor_real(c->in[3], ch), variance = tensor_real(c->in[4], ch), scale, shift;

		if (training) {
			const double old_mean = mean, old_variance = variance;

			channel_statistics(x, ch, &mean, &variance);
			set_real(c->out[1], ch, old_mean * momentum + mean * (1 - (double)momentum));
			set_real(c->out[2], ch, old_variance * momentum + variance * (1 - (double)momentum));
		}
		scale = tensor_real(c->in[1], ch) / sqrt(variance + epsilon);
		shift = tensor_real(c->in[2], ch) - mean * scale;
		for (size_t i = 0; i < (size_t)x->dims[0]; i++)
			for (size_t j = 0; j < plane; j++) {
				size_t at = (i * channels + ch) * plane + j;

				set_real(c->out[0], at, tensor_real(x, at) * scale + shift);
			}
	}
	return 0;
}

int op_instance_normalization(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	const float epsilon = attr_float(c, "epsilon", 1e-5f);
	size_t sets, plane;
	int r;

	if (x->rank < 3)
		return call_fail(c, "an input of rank %d", x->rank);
	r = only_floats(c);
	if (r == 0)
		r = are_vectors(c, 1, 2, x->dims[1]);
	if (r == 0)
		r = call_out(c, 0, x->type, x->rank, x->dims);
	if (r < 0 || !x->count)
		return r;
	sets = (size_t)(x->dims[0] * x->dims[1]);
	plane = x->count / sets;
	for (size_t i = 0; i < sets; i++) {
		size_t channel = i % (size_t)x->dims[1];
		double mean, variance, scale;

		statistics(x, i * plane, plane, &mean, &variance);
		scale = tensor_real(c->in[1], channel) / sqrt(variance + epsilon);
		for (size_t j = i * plane; j < (i + 1) * plane; j++)
			set_real(c->out[0], j,
				 (tensor_real(x, j) - mean) * scale + tensor_real(c->in[2], channel));
	}
	return 0;
}

/* Over the channels of a group and their planes. Scale and bias are one a group at first, from version 21 on one a channel. */
int op_group_normalization(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0], *scale = c->in[1], *bias = c->in[2];
	const float epsilon = attr_float(c, "epsilon", 1e-5f);
	const int64_t groups = attr_int(c, "num_groups", 0);
	size_t sets, n, plane, width;
	int r;

	if (x->rank < 2 || groups < 1 || x->dims[1] % groups)
		return call_fail(c, "%lld groups of an input of rank %d", (long long)groups, x->rank);
	r = only_floats(c);
	if (r == 0)
		r = are_vectors(c, 1, 2, c->version < 21 ? groups : x->dims[1]);
	if (r == 0)
		r = call_out(c, 0, x->type, x->rank, x->dims);
	if (r < 0 || !x->count)
		return r;
	sets = (size_t)(x->dims[0] * groups);
	n = x->count / sets;
	plane = x->count / (size_t)(x->dims[0] * x->dims[1]);
	width = c->version < 21 ? n : plane; /* elements for one scale */
	for (size_t i = 0; i < sets; i++) {
		double mean, variance;

		statistics(x, i * n, n, &mean, &variance);
		for (size_t j = i * n; j < (i + 1) * n; j++) {
			size_t k = j / width % scale->count;

			set_real(c->out[0], j,
				 (tensor_real(x, j) - mean) / sqrt(variance + epsilon) *
						 tensor_real(scale, k) +
					 tensor_real(bias, k));
		}
	}
	return 0;
}

/* Mean and 1 / standard deviation of each of the sets, or 0 and 1 / root mean square: (sets, 2). */
static int set_statistics(struct onnx_call *c, struct onnx_tensor **ret, size_t sets, size_t n, bool centred,
			  float epsilon)
{
	struct onnx_tensor *t = call_scratch(c, ONNX_DOUBLE, 2, (int64_t[]){(int64_t)sets, 2});
	double *to;

	if (!t)
		return call_error(c);
	to = t->data;
	for (size_t i = 0; i < sets; i++) {
		double mean, variance;

		statistics(c->in[0], i * n, n, &mean, &variance);
		to[2 * i] = centred ? mean : 0;
		to[2 * i + 1] = 1 / sqrt((centred ? variance : variance + mean * mean) + epsilon);
	}
	*ret = t;
	return 0;
}

/* Over all from the axis on; outputs 1 and 2: mean and 1 / standard deviation. Scale and bias broadcast. */
static int normalise_from(struct onnx_call *c, bool centred)
{
	const struct onnx_tensor *x = c->in[0], *scale = c->in[1], *bias = call_in(c, 2);
	const float epsilon = attr_float(c, "epsilon", 1e-5f);
	int64_t axis = attr_int(c, "axis", -1), dims[ONNX_MAX_RANK], full[ONNX_MAX_RANK];
	size_t sets = 1, n = 1;
	struct onnx_tensor *stats = NULL;
	int r, rank = x->rank;
	const double *of;
	struct walk w;

	r = only_floats(c);
	if (r == 0)
		r = call_axis(c, &axis, x->rank);
	if (r < 0)
		return r;
	memcpy(full, x->dims, sizeof(full));
	for (int i = 1; i < 3; i++) {
		if (!call_in(c, i))
			continue;
		r = call_broadcast(c, &rank, full, c->in[i]);
		if (r < 0)
			return r;
		if (!dims_equal(rank, full, x->rank, x->dims))
			return call_fail(c, "input %d has more than the input's shape", i);
	}
	for (int d = 0; d < x->rank; d++) {
		dims[d] = d < axis ? x->dims[d] : 1;
		*(d < axis ? &sets : &n) *= (size_t)x->dims[d];
	}
	r = call_out(c, 0, x->type, x->rank, x->dims);
	for (int i = 1; r == 0 && centred && i < 3; i++)
		r = call_out(c, i, x->type, x->rank, dims);
	if (r == 0 && x->count)
		r = set_statistics(c, &stats, sets, n, centred, epsilon);
	if (r < 0 || !stats) /* or there is nothing to normalise */
		return r;
	of = stats->data;
	for (size_t i = 0; centred && i < 2 * sets; i++)
		set_real(c->out[1 + i % 2], i / 2, of[i]);
	walk_init(&w, x->rank, x->dims);
	walk_broadcast(&w, 0, x->rank, x->dims);
	walk_broadcast(&w, 1, scale->rank, scale->dims);
	if (bias)
		walk_broadcast(&w, 2, bias->rank, bias->dims);
	do
		for (int64_t i = 0; i < w.row; i++) {
			size_t at = (size_t)(w.at[0] + i * walk_step(&w, 0)), set = at / n;
			double y = (tensor_real(x, at) - of[2 * set]) * of[2 * set + 1] *
				   tensor_real(scale, (size_t)(w.at[1] + i * walk_step(&w, 1)));

			if (bias)
				y += tensor_real(bias, (size_t)(w.at[2] + i * walk_step(&w, 2)));
			set_real(c->out[0], at, y);
		}
	while (walk_next(&w));
	onnx_tensor_free(stats);
	return 0;
}

int op_layer_normalization(struct onnx_call *c)
{
	return normalise_from(c, true);
}

int op_rms_normalization(struct onnx_call *c)
{
	return normalise_from(c, false);
}

/* (x - mean) / standard deviation, over the axes: batch and plane where none are given. */
int op_mean_variance_normalization(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	int64_t around[ONNX_MAX_RANK], within[ONNX_MAX_RANK], strides[ONNX_MAX_RANK], step[2][ONNX_MAX_RANK];
	int n_around = 0, n_within = 0, n = 0, r;
	bool mask[ONNX_MAX_RANK] = {false};
	struct walk w, v;
	double count;

	r = only_floats(c);
	if (r == 0)
		r = call_axes(c, -1, "axes", x->rank, mask, &n);
	if (r == 0)
		r = call_out(c, 0, x->type, x->rank, x->dims);
	if (r < 0 || !x->count)
		return r;
	dims_strides(x->rank, x->dims, strides);
	for (int d = 0; d < x->rank; d++) {
		if (n ? mask[d] : d != 1) {
			within[n_within] = x->dims[d];
			step[1][n_within++] = strides[d];
		} else {
			around[n_around] = x->dims[d];
			step[0][n_around++] = strides[d];
		}
	}
	walk_init(&w, n_around, around);
	walk_init(&v, n_within, within);
	if (n_around)
		walk_strides(&w, 0, step[0]);
	if (n_within)
		walk_strides(&v, 0, step[1]);
	count = (double)dims_count(n_within, within);
	do
		for (int64_t i = 0; i < w.row; i++) {
			int64_t first = w.at[0] + i * walk_step(&w, 0);
			double sum = 0, squares = 0;

			for (int pass = 0; pass < 3; pass++)
				do
					for (int64_t j = 0; j < v.row; j++) {
						size_t at = (size_t)(first + v.at[0] + j * walk_step(&v, 0));
						double d = tensor_real(x, at) - sum / count;

						if (pass == 0)
							sum += tensor_real(x, at);
						else if (pass == 1)
							squares += d * d;
						else
							set_real(c->out[0], at,
								 d / (sqrt(squares / count) + 1e-9));
					}
				while (walk_next(&v));
		}
	while (walk_next(&w));
	return 0;
}

/* Over `size` neighbouring channels. */
int op_lrn(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	const double alpha = attr_float(c, "alpha", 1e-4f), beta = attr_float(c, "beta", 0.75f);
	const double bias = attr_float(c, "bias", 1);
	const int64_t size = attr_int(c, "size", 0);
	size_t plane;
	int r = only_floats(c);

	if (r == 0 && (x->rank < 3 || size < 1 || size > INT32_MAX))
		r = call_fail(c, "rank %d, size %lld", x->rank, (long long)size);
	if (r == 0)
		r = call_out(c, 0, x->type, x->rank, x->dims);
	if (r < 0 || !x->count)
		return r;
	plane = x->count / (size_t)(x->dims[0] * x->dims[1]);
	for (size_t i = 0; i < x->count; i++) {
		int64_t channel = (int64_t)(i / plane) % x->dims[1];
		int64_t first = channel - (size - 1) / 2, last = channel + size / 2;
		double sum = 0;

		first = first < 0 ? 0 : first;
		last = last >= x->dims[1] ? x->dims[1] - 1 : last;
		for (int64_t ch = first; ch <= last; ch++) {
			double y = tensor_real(x, (size_t)((int64_t)i + (ch - channel) * (int64_t)plane));

			sum += y * y;
		}
		set_real(c->out[0], i, tensor_real(x, i) / pow(bias + alpha / (double)size * sum, beta));
	}
	return 0;
}

int op_lp_normalization(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	const int64_t p = attr_int(c, "p", 2);
	int64_t axis = attr_int(c, "axis", -1), n, inner = 1;
	int r = only_floats(c);

	if (r == 0)
		r = call_axis(c, &axis, x->rank);
	if (r == 0 && p != 1 && p != 2)
		r = call_fail(c, "p of %lld", (long long)p);
	if (r == 0)
		r = call_out(c, 0, x->type, x->rank, x->dims);
	if (r < 0 || !x->count)
		return r;
	n = x->dims[axis];
	for (int d = (int)axis + 1; d < x->rank; d++)
		inner *= x->dims[d];
	for (int64_t i = 0; i < (int64_t)x->count / n; i++) {
		int64_t first = i / inner * n * inner + i % inner;
		double sum = 0;

		for (int64_t j = 0; j < n; j++) {
			double y = tensor_real(x, (size_t)(first + j * inner));

			sum += p == 1 ? fabs(y) : y * y;
		}
		sum = p == 1 ? sum : sqrt(sum);
		for (int64_t j = 0; j < n; j++)
			set_real(c->out[0], (size_t)(first + j * inner),
				 sum > 0 ? tensor_real(x, (size_t)(first + j * inner)) / sum : 0);
	}
	return 0;
}
