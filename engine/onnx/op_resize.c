/*
 * Resize and Upsample. One axis after another: each output index of an axis is a sum of up to four input indices with
 * weights. For one tap with weight 1 (nearest) elements are moved, whatever their type.
 */
#include "engine/onnx/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum filter { NEAREST, LINEAR, CUBIC };
enum { MOST_TAPS = 4 };

struct resize {
	enum filter filter;
	const char *place, *round; /* coordinate_transformation_mode, nearest_mode */
	double cubic_a;
	bool exclude_outside;
	float beyond; /* extrapolation_value */
};

/* One axis: `length` is out, or before it was rounded down scale · in. */
struct axis {
	int64_t in, out;
	double scale, length, roi_start, roi_end;
};

struct taps {
	int64_t at[MOST_TAPS];
	double weight[MOST_TAPS];
	bool beyond;
};

static double place(const struct resize *p, const struct axis *a, int64_t o)
{
	const double x = (double)o, in = (double)a->in;

	if (strcmp(p->place, "asymmetric") == 0)
		return x / a->scale;
	if (strcmp(p->place, "align_corners") == 0)
		return a->length == 1 ? 0 : x * (in - 1) / (a->length - 1);
	if (strcmp(p->place, "tf_half_pixel_for_nn") == 0)
		return (x + 0.5) / a->scale;
	if (strcmp(p->place, "tf_crop_and_resize") == 0)
		return a->out > 1 ? a->roi_start * (in - 1) +
					    x * (a->roi_end - a->roi_start) * (in - 1) / (double)(a->out - 1)
				  : 0.5 * (a->roi_start + a->roi_end) * (in - 1);
	if (strcmp(p->place, "pytorch_half_pixel") == 0 && a->out <= 1)
		return 0;
	return (x + 0.5) / a->scale - 0.5;
}

static double nearest(const char *how, double x)
{
	if (strcmp(how, "floor") == 0)
		return floor(x);
	if (strcmp(how, "ceil") == 0)
		return ceil(x);
	return strcmp(how, "round_prefer_ceil") == 0 ? floor(x + 0.5) : ceil(x - 0.5);
}

/* Keys 1981, with the parameter a; d: distance */
static double cubic(double a, double d)
{
	d = fabs(d);
	return d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

static void find_taps(const struct resize *p, const struct axis *a, int64_t o, struct taps *t)
{
	const double x = place(p, a, o), last = (double)(a->in - 1);
	const int n = p->filter == CUBIC ? 4 : p->filter == LINEAR ? 2 : 1;
	double first = p->filter == NEAREST ? nearest(p->round, x) : floor(x), sum = 0;

	memset(t, 0, sizeof(*t));
	t->beyond = strcmp(p->place, "tf_crop_and_resize") == 0 && (x < 0 || x > last);
	if (!(fabs(x) < 0x1p52)) { /* of a region that is no number, or too far away for one */
		t->beyond = true;
		return;
	}
	if (p->filter == CUBIC)
		first -= 1;
	for (int i = 0; i < n; i++) {
		double at = first + i;

		t->weight[i] = p->filter == CUBIC    ? cubic(p->cubic_a, x - at)
			       : p->filter == LINEAR ? 1 - fabs(x - at)
						     : 1;
		if (p->exclude_outside && p->filter != NEAREST && (at < 0 || at > last))
			t->weight[i] = 0;
		t->at[i] = (int64_t)(at < 0 ? 0 : at > last ? last : at);
		sum += t->weight[i];
	}
	for (int i = 0; i < n && p->exclude_outside && sum != 0; i++)
		t->weight[i] /= sum;
}

#define RESIZE_CASE(id, T, ...)                                                                        \
	case id:                                                                                       \
		for (int64_t i = 0; i < inner; i++) {                                                  \
			double sum = 0;                                                                \
			for (int k = 0; k < MOST_TAPS; k++)                                            \
				if (t->weight[k] != 0)                                                 \
					sum += t->weight[k] * ((const T *)from)[t->at[k] * inner + i]; \
			((T *)to)[i] = (T)(t->beyond ? p->beyond : sum);                               \
		}                                                                                      \
		break;

/* A row of `inner` elements. */
static void resize_row(const struct resize *p, const struct taps *t, enum onnx_type type, const void *from,
		       void *to, int64_t inner)
{
	size_t size = onnx_type_size(type);

	if (p->filter == NEAREST && !t->beyond) {
		memcpy(to, (const char *)from + (size_t)(t->at[0] * inner) * size, (size_t)inner * size);
		return;
	}
	switch (type) {
		FLOAT_CASES(RESIZE_CASE, )
	default:
		break;
	}
}

/* *t becomes the tensor with axis d resized. */
static int resize_axis(struct onnx_call *c, const struct resize *p, const struct axis *a,
		       struct onnx_tensor **t, int d)
{
	const struct onnx_tensor *in = *t;
	size_t size = onnx_type_size(in->type);
	int64_t dims[ONNX_MAX_RANK], outer = 1, inner = 1;
	struct onnx_tensor *out;

	memcpy(dims, in->dims, sizeof(dims));
	dims[d] = a->out;
	out = call_scratch(c, in->type, in->rank, dims);
	if (!out)
		return call_error(c);
	for (int i = 0; i < in->rank; i++) {
		outer *= i < d ? dims[i] : 1;
		inner *= i > d ? dims[i] : 1;
	}
	for (int64_t i = 0; out->count && i < a->out; i++) {
		struct taps taps;

		find_taps(p, a, i, &taps);
		for (int64_t o = 0; o < outer; o++)
			resize_row(p, &taps, in->type,
				   (const char *)in->data + (size_t)(o * a->in * inner) * size,
				   (char *)out->data + (size_t)((o * a->out + i) * inner) * size, inner);
	}
	onnx_tensor_free(*t);
	*t = out;
	return 0;
}

/* scales or sizes: one for each dimension, the other NULL. roi: starts, then ends, or NULL. */
static int resize(struct onnx_call *c, const struct resize *p, const struct onnx_tensor *roi,
		  const float *scales, const int64_t *sizes)
{
	const struct onnx_tensor *in = c->in[0];
	const bool crops = strcmp(p->place, "tf_crop_and_resize") == 0;
	struct onnx_tensor *t;
	int r = 0;

	if (p->filter != NEAREST && in->type != ONNX_FLOAT && in->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	if (crops && in->type != ONNX_FLOAT && in->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	if (crops && (!roi || roi->count != 2 * (size_t)in->rank))
		return call_fail(c, "there is no region for each dimension");
	if (!in->count)
		return call_fail(c, "an empty input");
	t = tensor_ref(c->in[0]);
	for (int d = 0; r == 0 && d < in->rank; d++) {
		struct axis a = {.in = in->dims[d], .roi_end = 1};

		if (crops) {
			a.roi_start = tensor_real(roi, (size_t)d);
			a.roi_end = tensor_real(roi, (size_t)in->rank + (size_t)d);
		}
		if (sizes) {
			a.out = sizes[d];
			a.length = (double)a.out;
			a.scale = a.length / (double)a.in;
		} else {
			float length = (float)a.in * scales[d];

			a.scale = scales[d];
			a.length = (double)a.in * a.scale;
			a.out = length >= 0 && length < 0x1p40f ? (int64_t)floorf(length) : -1;
		}
		if (a.out < 0 || !(a.scale > 0))
			r = call_fail(c, "dimension %d by %g", d, a.scale);
		else if (a.out != a.in || a.scale != 1 || crops)
			r = resize_axis(c, p, &a, &t, d);
	}
	if (r == 0)
		call_give(c, 0, t);
	else
		onnx_tensor_free(t);
	return r;
}

static bool one_of(const char *s, const char *const *list)
{
	while (*list && strcmp(*list, s) != 0)
		list++;
	return *list;
}

static int read_filter(struct onnx_call *c, struct resize *p)
{
	static const char *const places[] = {"half_pixel", "pytorch_half_pixel",   "align_corners",
					     "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize",
					     NULL};
	static const char *const rounds[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil",
					     NULL};
	const char *mode = attr_string(c, "mode", "nearest");

	*p = (struct resize){.place = attr_string(c, "coordinate_transformation_mode", "half_pixel"),
			     .round = attr_string(c, "nearest_mode", "round_prefer_floor"),
			     .cubic_a = attr_float(c, "cubic_coeff_a", -0.75f),
			     .exclude_outside = attr_int(c, "exclude_outside", 0),
			     .beyond = attr_float(c, "extrapolation_value", 0)};
	if (strcmp(mode, "linear") == 0 || strcmp(mode, "bilinear") == 0)
		p->filter = LINEAR;
	else if (strcmp(mode, "cubic") == 0)
		p->filter = CUBIC;
	else if (strcmp(mode, "nearest") != 0)
		return call_unsupported(c, "mode %.40s", mode);
	if (!one_of(p->place, places) || !one_of(p->round, rounds))
		return call_unsupported(c, "%.40s, %.40s", p->place, p->round);
	if (c->version < 11) {
		p->place = "asymmetric";
		p->round = "floor";
	}
	return 0;
}

static int by_scales(struct onnx_call *c, const struct resize *p, const struct onnx_tensor *roi,
		     const float *scales, size_t n)
{
	return n == (size_t)c->in[0]->rank ? resize(c, p, roi, scales, NULL)
					   : call_fail(c, "%zu scales at rank %d", n, c->in[0]->rank);
}

int op_resize(struct onnx_call *c)
{
	const int i_scales = c->version < 11 ? 1 : 2;
	const struct onnx_tensor *scales = call_in(c, i_scales),
				 *roi = c->version < 11 ? NULL : call_in(c, 1);
	int64_t sizes[ONNX_MAX_RANK];
	struct resize p;
	int r, n;

	r = read_filter(c, &p);
	if (r < 0)
		return r;
	if (call_in(c, 3)) {
		r = call_ints(c, 3, sizes, ONNX_MAX_RANK, &n);
		if (r < 0)
			return r;
		return n == c->in[0]->rank ? resize(c, &p, roi, NULL, sizes)
					   : call_fail(c, "%d sizes at rank %d", n, c->in[0]->rank);
	}
	if (!scales || scales->type != ONNX_FLOAT)
		return call_fail(c, "there are neither sizes nor float scales");
	return by_scales(c, &p, roi, scales->data, scales->count);
}

int op_upsample(struct onnx_call *c)
{
	struct resize p;
	size_t n;
	int r = read_filter(c, &p);

	if (r < 0)
		return r;
	if (c->version < 9) {
		const float *scales = attr_floats(c, "scales", &n);

		return by_scales(c, &p, NULL, scales, n);
	}
	if (c->in[1]->type != ONNX_FLOAT)
		return call_bad_type(c, 1);
	return by_scales(c, &p, NULL, c->in[1]->data, c->in[1]->count);
}
