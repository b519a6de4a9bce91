#include "engine/onnx/window.h"

#include <string.h>

/* A list attribute of n (or many) numbers of at least `low`. */
static int list(struct onnx_call *c, const char *name, int n, int64_t otherwise, int64_t low, int64_t *ret)
{
	size_t many;
	const int64_t *given = attr_ints(c, name, &many);

	if (given && many != (size_t)n)
		return call_fail(c, "%s has %zu numbers, not %d", name, many, n);
	for (int i = 0; i < n; i++) {
		ret[i] = given ? given[i] : otherwise;
		if (ret[i] < low || ret[i] > INT32_MAX)
			return call_fail(c, "%s of %lld", name, (long long)ret[i]);
	}
	return 0;
}

static int read_attrs(struct onnx_call *c, struct window *w, const struct onnx_tensor *x,
		      const struct onnx_tensor *weight)
{
	int64_t pads[2 * WINDOW_MAX] = {0};
	int r;

	memset(w, 0, sizeof(*w));
	if (x->rank < 3 || (weight && weight->rank != x->rank))
		return call_fail(c, "an input of rank %d", x->rank);
	w->n = x->rank - 2;
	r = list(c, "kernel_shape", w->n, 0, weight ? 0 : 1, w->kernel);
	if (r == 0)
		r = list(c, "strides", w->n, 1, 1, w->stride);
	if (r == 0)
		r = list(c, "dilations", w->n, 1, 1, w->dilation);
	if (r == 0)
		r = list(c, "pads", 2 * w->n, 0, 0, pads);
	if (r < 0)
		return r;
	for (int d = 0; d < w->n; d++) {
		w->in[d] = x->dims[d + 2];
		w->begin[d] = pads[d];
		w->end[d] = pads[w->n + d];
		if (weight && w->kernel[d] && w->kernel[d] != weight->dims[d + 2])
			return call_fail(c, "kernel_shape isn't the weights'");
		if (weight)
			w->kernel[d] = weight->dims[d + 2];
		if (w->kernel[d] < 1 || w->kernel[d] > INT32_MAX || w->in[d] > INT32_MAX)
			return call_fail(c, "a kernel of %lld over %lld", (long long)w->kernel[d],
					 (long long)w->in[d]);
	}
	return 0;
}

static int finish(struct onnx_call *c, struct window *w)
{
	w->in_plane = dims_count(w->n, w->in);
	w->out_plane = dims_count(w->n, w->out);
	w->taps = dims_count(w->n, w->kernel);
	if (w->in_plane < 0 || w->out_plane < 0 || w->taps < 0)
		return call_fail(c, "windows that don't fit the input");
	return 0;
}

int window_init(struct onnx_call *c, struct window *w, const struct onnx_tensor *x,
		const struct onnx_tensor *weight, bool round_up)
{
	const char *fit = attr_string(c, "auto_pad", "NOTSET");
	int r = read_attrs(c, w, x, weight);

	if (r < 0)
		return r;
	for (int d = 0; d < w->n; d++) {
		int64_t span = (w->kernel[d] - 1) * w->dilation[d] + 1, room;

		if (strcmp(fit, "SAME_UPPER") == 0 || strcmp(fit, "SAME_LOWER") == 0) {
			int64_t pad;

			w->out[d] = (w->in[d] + w->stride[d] - 1) / w->stride[d];
			pad = (w->out[d] - 1) * w->stride[d] + span - w->in[d];
			pad = pad > 0 ? pad : 0;
			w->begin[d] = strcmp(fit, "SAME_UPPER") == 0 ? pad / 2 : pad - pad / 2;
			w->end[d] = pad - w->begin[d];
			continue;
		}
		if (strcmp(fit, "VALID") == 0)
			w->begin[d] = w->end[d] = 0;
		else if (strcmp(fit, "NOTSET") != 0)
			return call_unsupported(c, "auto_pad %s", fit);
		room = w->in[d] + w->begin[d] + w->end[d] - span;
		if (room < 0)
			return call_fail(c, "a window of %lld over %lld", (long long)span,
					 (long long)(w->in[d] + w->begin[d] + w->end[d]));
		w->out[d] = room / w->stride[d] + 1;
		if (round_up && room % w->stride[d] && w->out[d] * w->stride[d] < w->in[d] + w->begin[d])
			w->out[d]++;
	}
	return finish(c, w);
}

int window_init_sized(struct onnx_call *c, struct window *w, int n, const int64_t *in, const int64_t *kernel)
{
	int64_t pads[2 * WINDOW_MAX] = {0};
	int r;

	memset(w, 0, sizeof(*w));
	w->n = n;
	r = list(c, "strides", n, 1, 1, w->stride);
	if (r == 0)
		r = list(c, "dilations", n, 1, 1, w->dilation);
	if (r == 0)
		r = list(c, "pads", 2 * n, 0, 0, pads);
	if (r < 0)
		return r;
	for (int d = 0; d < n; d++) {
		int64_t room;

		if (in[d] < 1 || in[d] > INT32_MAX || kernel[d] < 1 || kernel[d] > INT32_MAX)
			return call_fail(c, "a kernel of %lld over %lld", (long long)kernel[d],
					 (long long)in[d]);
		w->in[d] = in[d];
		w->kernel[d] = kernel[d];
		w->begin[d] = pads[d];
		w->end[d] = pads[n + d];
		room = in[d] + pads[d] + pads[n + d] - (kernel[d] - 1) * w->dilation[d] - 1;
		if (room < 0)
			return call_fail(c, "a window beyond %lld", (long long)in[d]);
		w->out[d] = room / w->stride[d] + 1;
	}
	return finish(c, w);
}

int window_init_transposed(struct onnx_call *c, struct window *w, const struct onnx_tensor *x,
			   const struct onnx_tensor *weight)
{
	const char *fit = attr_string(c, "auto_pad", "NOTSET");
	int64_t extra[WINDOW_MAX] = {0}, wanted[WINDOW_MAX];
	size_t n_wanted;
	const int64_t *shape = attr_ints(c, "output_shape", &n_wanted);
	int r = read_attrs(c, w, x, weight);

	if (r == 0)
		r = list(c, "output_padding", w->n, 0, 0, extra);
	if (r < 0)
		return r;
	/* some give all dims, batch and channels too */
	if (shape && n_wanted != (size_t)w->n && n_wanted != (size_t)w->n + 2)
		return call_fail(c, "output_shape has %zu numbers, not %d", n_wanted, w->n);
	for (int d = 0; d < w->n; d++) {
		const bool same = strncmp(fit, "SAME_", 5) == 0;
		int64_t full =
			w->stride[d] * (w->in[d] - 1) + extra[d] + (w->kernel[d] - 1) * w->dilation[d] + 1;

		if (strcmp(fit, "VALID") == 0)
			w->begin[d] = w->end[d] = 0;
		w->out[d] = full - w->begin[d] - w->end[d];
		if (shape || same) {
			int64_t pad;

			wanted[d] =
				shape ? shape[n_wanted - (size_t)w->n + (size_t)d] : w->in[d] * w->stride[d];
			if (wanted[d] < 0 || wanted[d] > INT32_MAX)
				return call_fail(c, "output_shape of %lld", (long long)wanted[d]);
			w->out[d] = wanted[d];
			pad = full - wanted[d] > 0 ? full - wanted[d] : 0;
			w->begin[d] = strcmp(fit, "SAME_UPPER") == 0 ? pad / 2 : pad - pad / 2;
			w->end[d] = pad - w->begin[d];
		}
		if (w->out[d] < 0)
			return call_fail(c, "pads of more than there is");
	}
	return finish(c, w);
}

int64_t window_at(const struct window *w, int64_t o, int64_t t)
{
	int64_t at = 0, plane = 1;

	for (int d = w->n - 1; d >= 0; d--) {
		int64_t x = o % w->out[d] * w->stride[d] + t % w->kernel[d] * w->dilation[d] - w->begin[d];

		if (x < 0 || x >= w->in[d])
			return -1;
		at += x * plane;
		plane *= w->in[d];
		o /= w->out[d];
		t /= w->kernel[d];
	}
	return at;
}
