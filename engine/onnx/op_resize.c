/*
 * Resize and Upsample. One axis after another: each output index of an axis is a sum of input indices with weights: of two or
 * four, and with antialias, where it shrinks, of as many as one output's filter then covers. For one tap with weight 1 (nearest)
 * elements are moved, whatever their type.
 */
#include "engine/onnx/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum filter { NEAREST, LINEAR, CUBIC };
enum policy { STRETCH, NOT_LARGER, NOT_SMALLER }; /* of the aspect ratio */

struct resize {
	enum filter filter;
	const char *place, *round; /* coordinate_transformation_mode, nearest_mode */
	double cubic_a;
	bool exclude_outside, antialias;
	float beyond; /* extrapolation_value */
	enum policy policy;
	int n_axes; /* that are resized */
	int64_t axes[ONNX_MAX_RANK];
};

/* One axis: `length` is out, or before it was rounded down scale · in. */
struct axis {
	int64_t in, out;
	double scale, length, roi_start, roi_end;
};

struct taps {
	int64_t n, *at; /* n: the same for all outputs of an axis */
	double *weight;
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
	if (strcmp(p->place, "half_pixel_symmetric") ==
	    0) /* the middle stays the middle where the length was rounded */
		return in / 2 * (1 - (double)a->out / a->length) + (x + 0.5) / a->scale - 0.5;
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

/* How much wider than between neighbours the filter is, as a factor of distances. */
static double narrowing(const struct resize *p, const struct axis *a)
{
	return p->antialias && p->filter != NEAREST && a->scale < 1 ? a->scale : 1;
}

static double radius(const struct resize *p, const struct axis *a)
{
	return (p->filter == CUBIC ? 2 : 1) / narrowing(p, a);
}

static int taps_init(struct onnx_call *c, struct taps *t, const struct resize *p, const struct axis *a)
{
	/* an output of at least half an element: the filter covers no more than some times the input */
	t->n = p->filter == NEAREST ? 1 : (int64_t)ceil(2 * radius(p, a));
	t->at = calloc((size_t)t->n, sizeof(*t->at));
	t->weight = calloc((size_t)t->n, sizeof(*t->weight));
	return t->at && t->weight ? 0 : err_set(c->err, ERR_NO_MEMORY, "Resize");
}

static void find_taps(const struct resize *p, const struct axis *a, int64_t o, struct taps *t)
{
	const double x = place(p, a, o), last = (double)(a->in - 1), narrow = narrowing(p, a);
	const bool normalise = p->exclude_outside || narrow < 1;
	double first = p->filter == NEAREST ? nearest(p->round, x) : floor(x - radius(p, a)) + 1, sum = 0;

	for (int64_t i = 0; i < t->n; i++) {
		t->at[i] = 0;
		t->weight[i] = 0;
	}
	t->beyond = strcmp(p->place, "tf_crop_and_resize") == 0 && (x < 0 || x > last);
	if (!(fabs(x) < 0x1p52)) { /* of a region that is no number, or too far away for one */
		t->beyond = true;
		return;
	}
	for (int64_t i = 0; i < t->n; i++) {
		double at = first + (double)i;

		t->weight[i] = p->filter == CUBIC    ? cubic(p->cubic_a, (x - at) * narrow)
			       : p->filter == LINEAR ? fmax(0, 1 - fabs(x - at) * narrow)
						     : 1;
		if (p->exclude_outside && p->filter != NEAREST && (at < 0 || at > last))
			t->weight[i] = 0;
		t->at[i] = (int64_t)(at < 0 ? 0 : at > last ? last : at);
		sum += t->weight[i];
	}
	for (int64_t i = 0; i < t->n && normalise && sum != 0; i++)
		t->weight[i] /= sum;
}

#define RESIZE_CASE(id, T, ...)                                                                        \
	case id:                                                                                       \
		for (int64_t i = 0; i < inner; i++) {                                                  \
			double sum = 0;                                                                \
			for (int64_t k = 0; k < t->n; k++)                                             \
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
	struct taps taps = {0};
	struct onnx_tensor *out;
	int r;

	memcpy(dims, in->dims, sizeof(dims));
	dims[d] = a->out;
	out = call_scratch(c, in->type, in->rank, dims);
	if (!out)
		return call_error(c);
	r = out->count ? taps_init(c, &taps, p, a) : 0;
	if (r < 0) {
		onnx_tensor_free(out);
		goto out;
	}
	for (int i = 0; i < in->rank; i++) {
		outer *= i < d ? dims[i] : 1;
		inner *= i > d ? dims[i] : 1;
	}
	for (int64_t i = 0; out->count && i < a->out; i++) {
		find_taps(p, a, i, &taps);
		for (int64_t o = 0; o < outer; o++)
			resize_row(p, &taps, in->type,
				   (const char *)in->data + (size_t)(o * a->in * inner) * size,
				   (char *)out->data + (size_t)((o * a->out + i) * inner) * size, inner);
	}
	onnx_tensor_free(*t);
	*t = out;
out:
	free(taps.at);
	free(taps.weight);
	return r;
}

/* What the aspect ratio says of all axes: one scale for them. 0: each has its own. */
static double common_scale(const struct resize *p, const struct onnx_tensor *in, const int64_t *sizes)
{
	double scale = 0;

	for (int i = 0; sizes && p->policy != STRETCH && i < p->n_axes; i++) {
		double own = (double)sizes[i] / (double)in->dims[p->axes[i]];

		if (i == 0 || (p->policy == NOT_LARGER ? own < scale : own > scale))
			scale = own;
	}
	return scale;
}

/* scales or sizes: one for each axis of p, the other NULL. roi: starts, then ends, or NULL. */
static int resize(struct onnx_call *c, const struct resize *p, const struct onnx_tensor *roi,
		  const float *scales, const int64_t *sizes)
{
	const struct onnx_tensor *in = c->in[0];
	const bool crops = strcmp(p->place, "tf_crop_and_resize") == 0;
	struct onnx_tensor *t;
	double common;
	int r = 0;

	if (p->filter != NEAREST && in->type != ONNX_FLOAT && in->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	if (crops && in->type != ONNX_FLOAT && in->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	if (crops && (!roi || roi->count != 2 * (size_t)p->n_axes))
		return call_fail(c, "there is no region for each dimension");
	if (!in->count)
		return call_fail(c, "an empty input");
	common = common_scale(p, in, sizes);
	t = tensor_ref(c->in[0]);
	for (int i = 0; r == 0 && i < p->n_axes; i++) {
		const int d = (int)p->axes[i];
		struct axis a = {.in = in->dims[d], .roi_end = 1};

		if (crops) {
			a.roi_start = tensor_real(roi, (size_t)i);
			a.roi_end = tensor_real(roi, (size_t)p->n_axes + (size_t)i);
		}
		if (common > 0) {
			a.scale = common;
			a.length = (double)a.in * common;
			a.out = a.length < 0x1p40 ? (int64_t)floor(a.length + 0.5) : -1;
		} else if (sizes) {
			a.out = sizes[i];
			a.length = (double)a.out;
			a.scale = a.length / (double)a.in;
		} else {
			float length = (float)a.in * scales[i];

			a.scale = scales[i];
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

/* What version 18 added: some axes only, and the aspect ratio. */
static int read_axes(struct onnx_call *c, struct resize *p)
{
	static const char *const policies[] = {"stretch", "not_larger", "not_smaller"};
	const char *policy = attr_string(c, "keep_aspect_ratio_policy", policies[0]);
	const int rank = c->in[0]->rank;
	bool seen[ONNX_MAX_RANK] = {false};
	const int64_t *axes;
	size_t n;
	int r;

	for (p->n_axes = 0; p->n_axes < rank; p->n_axes++)
		p->axes[p->n_axes] = p->n_axes;
	if (c->version < 18)
		return 0;
	p->antialias = attr_int(c, "antialias", 0);
	while (p->policy <= NOT_SMALLER && strcmp(policy, policies[p->policy]) != 0)
		p->policy++;
	if (p->policy > NOT_SMALLER)
		return call_unsupported(c, "keep_aspect_ratio_policy %.40s", policy);
	axes = attr_ints(c, "axes", &n);
	if (n > (size_t)rank)
		return call_fail(c, "%zu axes at rank %d", n, rank);
	for (size_t i = 0; i < n; i++) {
		p->axes[i] = axes[i];
		r = call_axis(c, &p->axes[i], rank);
		if (r < 0)
			return r;
		if (seen[p->axes[i]])
			return call_fail(c, "axis %lld is given twice", (long long)p->axes[i]);
		seen[p->axes[i]] = true;
	}
	if (n)
		p->n_axes = (int)n;
	return 0;
}

static int read_filter(struct onnx_call *c, struct resize *p)
{
	static const char *const places[] = {
		"half_pixel",           "pytorch_half_pixel", "align_corners",        "asymmetric",
		"tf_half_pixel_for_nn", "tf_crop_and_resize", "half_pixel_symmetric", NULL};
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
	if (!one_of(p->place, places) || !one_of(p->round, rounds) ||
	    (c->version < 19 && strcmp(p->place, "half_pixel_symmetric") == 0))
		return call_unsupported(c, "%.40s, %.40s", p->place, p->round);
	if (c->version < 11) {
		p->place = "asymmetric";
		p->round = "floor";
	}
	return read_axes(c, p);
}

static int by_scales(struct onnx_call *c, const struct resize *p, const struct onnx_tensor *roi,
		     const float *scales, size_t n)
{
	return n == (size_t)p->n_axes ? resize(c, p, roi, scales, NULL)
				      : call_fail(c, "%zu scales of %d dimensions", n, p->n_axes);
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
		return n == p.n_axes ? resize(c, &p, roi, NULL, sizes)
				     : call_fail(c, "%d sizes of %d dimensions", n, p.n_axes);
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
