/* Windows, Fourier transforms, mel weights, and determinants: plain sums, for the sizes that speech needs. */
#include "engine/onnx/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void set_real(struct onnx_tensor *t, size_t i, double x)
{
	if (t->type == ONNX_DOUBLE)
		((double *)t->data)[i] = x;
	else
		((float *)t->data)[i] = (float)x;
}

/* a0 - a1 cos(2πi/n) + a2 cos(4πi/n), n one less where it isn't periodic */
static int window(struct onnx_call *c, double a0, double a1, double a2)
{
	const enum onnx_type type = (enum onnx_type)attr_int(c, "output_datatype", ONNX_FLOAT);
	const bool periodic = attr_int(c, "periodic", 1);
	int64_t n;
	int r, many;

	r = call_ints(c, 0, &n, 1, &many);
	if (r < 0)
		return r;
	if (type != ONNX_FLOAT && type != ONNX_DOUBLE)
		return call_unsupported(c, "windows of type %s", onnx_type_name(type));
	if (many != 1 || n < 0)
		return call_fail(c, "a size has to be given");
	r = call_out(c, 0, type, 1, &n);
	for (int64_t i = 0; r == 0 && i < n; i++) {
		double turn = n > 1 || periodic ? 2 * M_PI * (double)i / (double)(periodic ? n : n - 1) : 0;

		set_real(c->out[0], (size_t)i, a0 - a1 * cos(turn) + a2 * cos(2 * turn));
	}
	return r;
}

int op_hann_window(struct onnx_call *c)
{
	return window(c, 0.5, 0.5, 0);
}

int op_hamming_window(struct onnx_call *c)
{
	return window(c, 25. / 46, 21. / 46, 0);
}

int op_blackman_window(struct onnx_call *c)
{
	return window(c, 0.42, 0.5, 0.08);
}

/* (…, n, n) to (…), by elimination with the largest pivot. */
int op_det(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	int64_t n;
	double *m;
	int r;

	if (in->rank < 2 || in->dims[in->rank - 1] != in->dims[in->rank - 2])
		return call_fail(c, "no square matrices");
	if (in->type != ONNX_FLOAT && in->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	r = call_out(c, 0, in->type, in->rank - 2, in->dims);
	if (r < 0 || !c->out[0]->count)
		return r;
	n = in->dims[in->rank - 1];
	m = calloc((size_t)(n * n) + 1, sizeof(*m));
	if (!m)
		return err_set(c->err, ERR_NO_MEMORY, "Det");
	for (size_t i = 0; i < c->out[0]->count; i++) {
		double det = 1;

		for (int64_t j = 0; j < n * n; j++)
			m[j] = tensor_real(in, i * (size_t)(n * n) + (size_t)j);
		for (int64_t k = 0; k < n && det != 0; k++) {
			int64_t pivot = k;

			for (int64_t row = k + 1; row < n; row++)
				if (fabs(m[row * n + k]) > fabs(m[pivot * n + k]))
					pivot = row;
			for (int64_t j = 0; pivot != k && j < n; j++) {
				double t = m[k * n + j];

				m[k * n + j] = m[pivot * n + j];
				m[pivot * n + j] = t;
			}
			det *= pivot != k ? -m[k * n + k] : m[k * n + k];
			for (int64_t row = k + 1; det != 0 && row < n; row++)
				for (int64_t j = n - 1; j >= k; j--)
					m[row * n + j] -= m[row * n + k] / m[k * n + k] * m[k * n + j];
		}
		set_real(c->out[0], i, det);
	}
	free(m);
	return 0;
}

/* A line of complex (parts 2) or real (1) numbers, `step` numbers apart, of which `there` are there. */
struct line {
	const struct onnx_tensor *t;
	int64_t first, step, there, parts;
};

/* Σ x[i] w[i] exp(∓2πi·k/n), i < n; w: a window of `weights`, or NULL */
static void fourier(const struct line *l, const struct onnx_tensor *w, int64_t n, int64_t k, bool inverse,
		    double *ret)
{
	ret[0] = ret[1] = 0;
	for (int64_t i = 0; i < n && i < l->there; i++) {
		/* i · k modulo n: the angle stays exact */
		double turn =
			2 * M_PI * (double)(int64_t)((uint64_t)i * (uint64_t)k % (uint64_t)n) / (double)n;
		size_t at = (size_t)((l->first + i * l->step) * l->parts);
		double re = tensor_real(l->t, at), im = l->parts == 2 ? tensor_real(l->t, at + 1) : 0;
		double cosine = cos(turn), sine = inverse ? sin(turn) : -sin(turn);
		double weight = w ? tensor_real(w, (size_t)i) : 1;

		ret[0] += weight * (re * cosine - im * sine);
		ret[1] += weight * (re * sine + im * cosine);
	}
	if (inverse) {
		ret[0] /= (double)n;
		ret[1] /= (double)n;
	}
}

/* (…, n, …, 1 or 2) along an axis to (…, n or n/2+1, …, 2) */
int op_dft(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0];
	const bool inverse = attr_int(c, "inverse", 0), onesided = attr_int(c, "onesided", 0);
	int64_t axis = c->version < 20 ? attr_int(c, "axis", 1) : -2, dims[ONNX_MAX_RANK], n, inner = 1, bins;
	int r = 0, many = 1;

	if (in->type != ONNX_FLOAT && in->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	if (in->rank < 2 || in->dims[in->rank - 1] < 1 || in->dims[in->rank - 1] > 2)
		return call_fail(c, "the last dimension has to be 1 (real) or 2 (complex)");
	if (call_in(c, 2)) /* from version 20 on */
		r = call_ints(c, 2, &axis, 1, &many);
	if (r == 0 && many != 1)
		r = call_fail(c, "the axis has to be one number");
	if (r == 0)
		r = call_axis(c, &axis, in->rank);
	if (r < 0)
		return r;
	if (axis == in->rank - 1)
		return call_fail(c, "along the parts of numbers");
	if (inverse && onesided)
		return call_unsupported(c, "onesided and inverse");
	n = in->dims[axis];
	if (call_in(c, 1)) {
		r = call_ints(c, 1, &n, 1, &many);
		if (r < 0)
			return r;
		if (many != 1)
			return call_fail(c, "dft_length has to be one number");
	}
	if (n < 1 || n > INT32_MAX)
		return call_fail(c, "a length of %lld", (long long)n);
	bins = onesided ? n / 2 + 1 : n;
	memcpy(dims, in->dims, sizeof(dims));
	dims[axis] = bins;
	dims[in->rank - 1] = 2;
	r = call_out(c, 0, in->type, in->rank, dims);
	if (r < 0)
		return r;
	for (int d = (int)axis + 1; d < in->rank - 1; d++)
		inner *= in->dims[d];
	for (int64_t i = 0; i < (int64_t)c->out[0]->count / 2; i++) {
		struct line l = {.t = in,
				 .first = i / inner / bins * in->dims[axis] * inner + i % inner,
				 .step = inner,
				 .there = in->dims[axis],
				 .parts = in->dims[in->rank - 1]};
		double value[2];

		fourier(&l, NULL, n, i / inner % bins, inverse, value);
		set_real(c->out[0], (size_t)(2 * i), value[0]);
		set_real(c->out[0], (size_t)(2 * i) + 1, value[1]);
	}
	return 0;
}

/* (batch, length, 1 or 2) to (batch, frames, bins, 2) */
int op_stft(struct onnx_call *c)
{
	const struct onnx_tensor *in = c->in[0], *w = call_in(c, 2);
	const bool onesided = attr_int(c, "onesided", 1);
	int64_t step, n = w ? (int64_t)w->count : 0, frames, bins;
	int r, many;

	if (in->type != ONNX_FLOAT && in->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	r = call_ints(c, 1, &step, 1, &many);
	if (r == 0 && many != 1)
		r = call_fail(c, "frame_step has to be one number");
	if (r == 0 && call_in(c, 3)) {
		r = call_ints(c, 3, &n, 1, &many);
		if (r == 0 && many != 1)
			r = call_fail(c, "frame_length has to be one number");
	}
	if (r < 0)
		return r;
	/* without a last dimension the signal is real */
	if (in->rank < 2 || in->rank > 3 || (in->rank == 3 && (in->dims[2] < 1 || in->dims[2] > 2)))
		return call_fail(c, "a signal of rank %d", in->rank);
	if (step < 1 || n < 1 || n > in->dims[1] || (w && w->count != (size_t)n) ||
	    (w && type_is_integer(w->type)))
		return call_fail(c, "frames of %lld, %lld apart, in %lld", (long long)n, (long long)step,
				 (long long)in->dims[1]);
	frames = (in->dims[1] - n) / step + 1;
	bins = onesided ? n / 2 + 1 : n;
	r = call_out(c, 0, in->type, 4, (int64_t[]){in->dims[0], frames, bins, 2});
	if (r < 0)
		return r;
	for (int64_t i = 0; i < (int64_t)c->out[0]->count / 2; i++) {
		struct line l = {.t = in,
				 .first = i / bins / frames * in->dims[1] + i / bins % frames * step,
				 .step = 1,
				 .there = n,
				 .parts = in->rank == 3 ? in->dims[2] : 1};
		double value[2];

		fourier(&l, w, n, i % bins, false, value);
		set_real(c->out[0], (size_t)(2 * i), value[0]);
		set_real(c->out[0], (size_t)(2 * i) + 1, value[1]);
	}
	return 0;
}

static double mel(double hertz)
{
	return 2595 * log10(1 + hertz / 700);
}

/* Triangles between places that are equally far apart in mel: (dft_length / 2 + 1, bins) */
int op_mel_weight_matrix(struct onnx_call *c)
{
	const enum onnx_type type = (enum onnx_type)attr_int(c, "output_datatype", ONNX_FLOAT);
	int64_t number[3] = {0}, spectrum, *places;
	double low, high;
	int r = 0, many;

	for (int i = 0; r == 0 && i < 3; i++) {
		r = call_ints(c, i, &number[i], 1, &many);
		if (r == 0 && (many != 1 || number[i] < 1 || number[i] > INT32_MAX))
			r = call_fail(c, "input %d has to be one number", i);
	}
	if (r < 0)
		return r;
	if (type != ONNX_FLOAT && type != ONNX_DOUBLE)
		return call_unsupported(c, "weights of type %s", onnx_type_name(type));
	if (c->in[3]->count != 1 || c->in[4]->count != 1)
		return call_fail(c, "the edges have to be one number each");
	spectrum = number[1] / 2 + 1;
	low = mel(tensor_real(c->in[3], 0));
	high = mel(tensor_real(c->in[4], 0));
	r = call_out(c, 0, type, 2, (int64_t[]){spectrum, number[0]});
	if (r < 0)
		return r;
	memset(c->out[0]->data, 0, c->out[0]->count * onnx_type_size(type));
	places = calloc((size_t)(number[0] + 2), sizeof(*places));
	if (!places)
		return err_set(c->err, ERR_NO_MEMORY, "MelWeightMatrix");
	for (int64_t i = 0; i < number[0] + 2; i++) {
		double hertz =
			700 *
			(pow(10, (low + (double)i * (high - low) / (double)(number[0] + 2)) / 2595) - 1);
		double place = floor((double)(number[1] + 1) * hertz / (double)number[2]);

		places[i] = place >= 0 && place < (double)spectrum ? (int64_t)place
			    : place < 0                            ? 0
								   : spectrum;
	}
	for (int64_t i = 0; i < number[0]; i++) {
		int64_t from = places[i], top = places[i + 1], to = places[i + 2];

		if (top == from && top < spectrum)
			set_real(c->out[0], (size_t)(top * number[0] + i), 1);
		for (int64_t j = from; top > from && j <= top && j < spectrum; j++)
			set_real(c->out[0], (size_t)(j * number[0] + i),
				 (double)(j - from) / (double)(top - from));
		for (int64_t j = top; to > top && j < to && j < spectrum; j++)
			set_real(c->out[0], (size_t)(j * number[0] + i),
				 (double)(to - j) / (double)(to - top));
	}
	free(places);
	return 0;
}
