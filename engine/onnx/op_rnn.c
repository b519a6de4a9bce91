/*
 * Recurrent networks. x is (steps, batch, input), or (batch, steps, input) with layout 1; W (directions, gates ·
 * hidden, input), R (directions, gates · hidden, hidden), B (directions, 2 · gates · hidden: of W and of R). Floats.
 */
#include "engine/onnx/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* f(x) with alpha and beta */
typedef float activation_fn(float x, float a, float b);

static float f_affine(float x, float a, float b)
{
	return a * x + b;
}
static float f_elu(float x, float a, float b)
{
	(void)b;
	return x < 0 ? a * expm1f(x) : x;
}
static float f_hard_sigmoid(float x, float a, float b)
{
	return fmaxf(0, fminf(1, a * x + b));
}
static float f_leaky_relu(float x, float a, float b)
{
	(void)b;
	return x < 0 ? a * x : x;
}
static float f_relu(float x, float a, float b)
{
	(void)a;
	(void)b;
	return x > 0 ? x : 0;
}
static float f_scaled_tanh(float x, float a, float b)
{
	return a * tanhf(b * x);
}
static float f_sigmoid(float x, float a, float b)
{
	(void)a;
	(void)b;
	return 1 / (1 + expf(-x));
}
static float f_softplus(float x, float a, float b)
{
	(void)a;
	(void)b;
	return x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x));
}
static float f_softsign(float x, float a, float b)
{
	(void)a;
	(void)b;
	return x / (1 + fabsf(x));
}
static float f_tanh(float x, float a, float b)
{
	(void)a;
	(void)b;
	return tanhf(x);
}
static float f_thresholded_relu(float x, float a, float b)
{
	(void)b;
	return x > a ? x : 0;
}

static const struct {
	const char *name;
	activation_fn *f;
	float a, b; /* where the model gives none */
} activations[] = {
	{"Affine", f_affine, 1, 0},
	{"Elu", f_elu, 1, 0},
	{"HardSigmoid", f_hard_sigmoid, 0.2f, 0.5f},
	{"LeakyRelu", f_leaky_relu, 0.01f, 0},
	{"Relu", f_relu, 0, 0},
	{"ScaledTanh", f_scaled_tanh, 1, 1},
	{"Sigmoid", f_sigmoid, 0, 0},
	{"Softplus", f_softplus, 0, 0},
	{"Softsign", f_softsign, 0, 0},
	{"Tanh", f_tanh, 0, 0},
	{"ThresholdedRelu", f_thresholded_relu, 1, 0},
};

struct activation {
	activation_fn *f;
	float a, b;
};

struct rnn {
	int gates, functions; /* of one direction */
	int directions;
	bool backward, batch_first;
	int64_t steps, batch, input, hidden;
	float clip; /* 0: none */
	const float *x, *w, *r, *b;
	const struct onnx_tensor *lengths;
	struct activation f[6];
	float *gate; /* (batch, gates · hidden): scratch */
	float *extra;
	struct onnx_tensor *y, *last_h, *last_c;
};

static int read_activations(struct onnx_call *c, struct rnn *n, const char *const *usual)
{
	size_t n_names, n_alpha, n_beta, alpha = 0, beta = 0;
	const char *const *names = attr_strings(c, "activations", &n_names);
	const float *alphas = attr_floats(c, "activation_alpha", &n_alpha);
	const float *betas = attr_floats(c, "activation_beta", &n_beta);
	int many = n->functions * n->directions;

	if (names && n_names != (size_t)many)
		return call_fail(c, "%zu activations, not %d", n_names, many);
	for (int i = 0; i < many; i++) {
		const char *name = names ? names[i] : usual[i % n->functions];
		size_t j = 0;

		while (j < sizeof(activations) / sizeof(activations[0]) &&
		       strcasecmp(activations[j].name, name) != 0)
			j++;
		if (j == sizeof(activations) / sizeof(activations[0]))
			return call_unsupported(c, "activation %.40s", name);
		n->f[i] = (struct activation){activations[j].f, activations[j].a, activations[j].b};
		/* the lists hold values only for those functions that have them */
		if (activations[j].a != 0 && alpha < n_alpha)
			n->f[i].a = alphas[alpha++];
		if ((activations[j].f == f_affine || activations[j].f == f_hard_sigmoid ||
		     activations[j].f == f_scaled_tanh) &&
		    beta < n_beta)
			n->f[i].b = betas[beta++];
	}
	return 0;
}

static int check_dims(struct onnx_call *c, int i, int rank, int64_t a, int64_t b, int64_t d)
{
	const int64_t want[] = {a, b, d};
	const struct onnx_tensor *t = call_in(c, i);
	char have[64], text[64];

	if (!t || dims_equal(t->rank, t->dims, rank, want))
		return 0;
	return call_fail(c, "input %d is %s, not %s", i, dims_text(have, sizeof(have), t->rank, t->dims),
			 dims_text(text, sizeof(text), rank, want));
}

static int rnn_init(struct onnx_call *c, struct rnn *n, int gates, int functions, const char *const *usual)
{
	const char *direction = attr_string(c, "direction", "forward");
	const struct onnx_tensor *x = c->in[0], *w = c->in[1];
	int64_t dims[4], rows;
	int r;

	memset(n, 0, sizeof(*n));
	n->gates = gates;
	n->functions = functions;
	n->backward = strcmp(direction, "reverse") == 0;
	n->directions = strcmp(direction, "bidirectional") == 0 ? 2 : 1;
	n->batch_first = c->version >= 14 && attr_int(c, "layout", 0);
	n->clip = attr_float(c, "clip", 0);
	if (x->rank != 3 || w->rank != 3)
		return call_fail(c, "inputs of ranks %d and %d", x->rank, w->rank);
	for (int i = 0; i < c->n_in; i++)
		if (c->in[i] && c->in[i]->type != (i == 4 ? ONNX_INT32 : ONNX_FLOAT))
			return call_bad_type(c, i);
	n->steps = x->dims[n->batch_first];
	n->batch = x->dims[!n->batch_first];
	n->input = x->dims[2];
	n->hidden = attr_int(c, "hidden_size", w->dims[1] / gates);
	if (n->hidden < 1 || n->hidden > INT32_MAX / 16)
		return call_fail(c, "hidden_size %lld", (long long)n->hidden);
	rows = gates * n->hidden;
	r = check_dims(c, 1, 3, n->directions, rows, n->input);
	if (r == 0)
		r = check_dims(c, 2, 3, n->directions, rows, n->hidden);
	if (r == 0)
		r = check_dims(c, 3, 2, n->directions, 2 * rows, 0);
	if (r == 0)
		r = check_dims(c, 4, 1, n->batch, 0, 0);
	for (int i = 5; r == 0 && i < 7; i++)
		r = n->batch_first ? check_dims(c, i, 3, n->batch, n->directions, n->hidden)
				   : check_dims(c, i, 3, n->directions, n->batch, n->hidden);
	if (r == 0)
		r = check_dims(c, 7, 2, n->directions, 3 * n->hidden, 0);
	if (r == 0)
		r = read_activations(c, n, usual);
	if (r < 0)
		return r;
	n->x = x->data;
	n->w = w->data;
	n->r = c->in[2]->data;
	n->b = call_in(c, 3) ? c->in[3]->data : NULL;
	n->lengths = call_in(c, 4);
	for (size_t i = 0; n->lengths && i < n->lengths->count; i++)
		if (tensor_int(n->lengths, i) < 0 || tensor_int(n->lengths, i) > n->steps)
			return call_fail(c, "a sequence of %lld in %lld steps",
					 (long long)tensor_int(n->lengths, i), (long long)n->steps);
	dims[0] = n->batch_first ? n->batch : n->steps;
	dims[1] = n->batch_first ? n->steps : n->directions;
	dims[2] = n->batch_first ? n->directions : n->batch;
	dims[3] = n->hidden;
	r = call_out(c, 0, ONNX_FLOAT, 4, dims);
	dims[0] = n->batch_first ? n->batch : n->directions;
	dims[1] = n->batch_first ? n->directions : n->batch;
	dims[2] = n->hidden;
	for (int i = 1; r == 0 && i < c->node->op->out_max; i++)
		r = call_out(c, i, ONNX_FLOAT, 3, dims);
	if (r < 0)
		return r;
	n->y = c->out[0];
	n->last_h = c->out[1];
	if (n->y->count)
		memset(n->y->data, 0, n->y->count * sizeof(float));
	n->gate = calloc((size_t)(n->batch * rows) + 1, sizeof(float));
	n->extra = calloc((size_t)(n->batch * n->hidden) + 1, sizeof(float));
	if (!n->gate || !n->extra)
		return err_set(c->err, ERR_NO_MEMORY, "%s", c->node->op->type);
	for (int i = 1; i < c->node->op->out_max; i++) { /* the states begin as given, or as 0 */
		const struct onnx_tensor *initial = call_in(c, 4 + i);

		if (!c->out[i]->count)
			continue;
		if (initial)
			memcpy(c->out[i]->data, initial->data, c->out[i]->count * sizeof(float));
		else
			memset(c->out[i]->data, 0, c->out[i]->count * sizeof(float));
	}
	n->last_c = c->out[c->node->op->out_max - 1]; /* of an LSTM */
	return 0;
}

static void rnn_release(struct rnn *n)
{
	free(n->gate);
	free(n->extra);
}

/* Row of a state (last_h, last_c) of one sequence. */
static float *state_at(const struct rnn *n, struct onnx_tensor *t, int direction, int64_t sequence)
{
	int64_t row = n->batch_first ? sequence * n->directions + direction : direction * n->batch + sequence;

	return (float *)t->data + row * n->hidden;
}

static float *y_at(const struct rnn *n, int direction, int64_t sequence, int64_t step)
{
	int64_t row = n->batch_first ? (sequence * n->steps + step) * n->directions + direction
				     : (step * n->directions + direction) * n->batch + sequence;

	return (float *)n->y->data + row * n->hidden;
}

static const float *x_at(const struct rnn *n, int64_t sequence, int64_t step)
{
	return n->x + (n->batch_first ? sequence * n->steps + step : step * n->batch + sequence) * n->input;
}

static float clipped(const struct rnn *n, float x)
{
	return n->clip > 0 ? fmaxf(-n->clip, fminf(n->clip, x)) : x;
}

static float apply(const struct rnn *n, int direction, int function, float x)
{
	const struct activation *f = &n->f[direction * n->functions + function];

	return f->f(clipped(n, x), f->a, f->b);
}

/* sum += w (rows, k) · x */
static void add_product(float *sum, const float *w, const float *x, int64_t rows, int64_t k)
{
	for (int64_t i = 0; i < rows; i++) {
		float a = 0;

		for (int64_t j = 0; j < k; j++)
			a += w[i * k + j] * x[j];
		sum[i] += a;
	}
}

/* gate (gates · hidden) = W x + biases, of all but what R adds */
static void input_part(const struct rnn *n, int direction, const float *x, float *gate)
{
	int64_t rows = n->gates * n->hidden;

	memset(gate, 0, (size_t)rows * sizeof(*gate));
	add_product(gate, n->w + direction * rows * n->input, x, rows, n->input);
	for (int64_t i = 0; n->b && i < rows; i++)
		gate[i] += n->b[direction * 2 * rows + i];
}

static const float *recurrent_bias(const struct rnn *n, int direction, int gate)
{
	return n->b ? n->b + direction * 2 * n->gates * n->hidden + (n->gates + gate) * n->hidden : NULL;
}

/* h = f(W x + R h + b) */
static void rnn_step(const struct rnn *n, struct onnx_call *c, int direction, int64_t s, float *gate,
		     float *extra)
{
	float *h = state_at(n, n->last_h, direction, s);
	const float *bias = recurrent_bias(n, direction, 0);

	(void)c;
	(void)extra;
	add_product(gate, n->r + direction * n->hidden * n->hidden, h, n->hidden, n->hidden);
	for (int64_t i = 0; i < n->hidden; i++)
		h[i] = apply(n, direction, 0, gate[i] + (bias ? bias[i] : 0));
}

/* Gates z, r, h. linear_before_reset: the reset gate weighs R h + b, else h itself. */
static void gru_step(const struct rnn *n, struct onnx_call *c, int direction, int64_t s, float *gate,
		     float *extra)
{
	const bool linear = attr_int(c, "linear_before_reset", 0);
	const float *bias = recurrent_bias(n, direction, 0);
	float *h = state_at(n, n->last_h, direction, s);
	const int64_t m = n->hidden;
	const float *r = n->r + direction * 3 * m * m;

	add_product(gate, r, h, 2 * m, m);
	for (int64_t i = 0; i < 2 * m; i++)
		gate[i] = apply(n, direction, 0, gate[i] + (bias ? bias[i] : 0));
	for (int64_t i = 0; i < m; i++)
		extra[i] = linear ? (bias ? bias[2 * m + i] : 0) : gate[m + i] * h[i];
	if (linear) {
		add_product(extra, r + 2 * m * m, h, m, m);
		for (int64_t i = 0; i < m; i++)
			gate[2 * m + i] += gate[m + i] * extra[i];
	} else {
		add_product(gate + 2 * m, r + 2 * m * m, extra, m, m);
		for (int64_t i = 0; bias && i < m; i++)
			gate[2 * m + i] += bias[2 * m + i];
	}
	for (int64_t i = 0; i < m; i++) {
		float candidate = apply(n, direction, 1, gate[2 * m + i]);

		h[i] = (1 - gate[i]) * candidate + gate[i] * h[i];
	}
}

/* Gates i, o, f, c; peepholes P (3 · hidden) of i, o, f. */
static void lstm_step(const struct rnn *n, struct onnx_call *c, int direction, int64_t s, float *gate,
		      float *extra)
{
	const bool coupled = attr_int(c, "input_forget", 0);
	const float *bias = recurrent_bias(n, direction, 0);
	float *h = state_at(n, n->last_h, direction, s), *cell = state_at(n, n->last_c, direction, s);
	const int64_t m = n->hidden;
	const float *p = call_in(c, 7) ? (const float *)c->in[7]->data + direction * 3 * m : NULL;

	(void)extra;
	add_product(gate, n->r + direction * 4 * m * m, h, 4 * m, m);
	for (int64_t i = 0; i < m; i++) {
		float in = gate[i] + (bias ? bias[i] : 0), out = gate[m + i] + (bias ? bias[m + i] : 0);
		float forget = gate[2 * m + i] + (bias ? bias[2 * m + i] : 0);
		float candidate = apply(n, direction, 1, gate[3 * m + i] + (bias ? bias[3 * m + i] : 0));

		in = apply(n, direction, 0, in + (p ? p[i] * cell[i] : 0));
		forget = coupled ? 1 - in : apply(n, direction, 0, forget + (p ? p[2 * m + i] * cell[i] : 0));
		cell[i] = forget * cell[i] + in * candidate;
		out = apply(n, direction, 0, out + (p ? p[m + i] * cell[i] : 0));
		h[i] = out * n->f[direction * n->functions + 2].f(cell[i],
								  n->f[direction * n->functions + 2].a,
								  n->f[direction * n->functions + 2].b);
	}
}

typedef void step_fn(const struct rnn *n, struct onnx_call *c, int direction, int64_t s, float *gate,
		     float *extra);

static void rnn_run(struct onnx_call *c, struct rnn *n, step_fn *step)
{
	for (int direction = 0; direction < n->directions; direction++)
		for (int64_t s = 0; s < n->batch; s++) {
			int64_t len = n->lengths ? tensor_int(n->lengths, (size_t)s) : n->steps;
			bool backward = n->backward || direction == 1;

			for (int64_t i = 0; i < len; i++) {
				int64_t t = backward ? len - 1 - i : i;

				input_part(n, direction, x_at(n, s, t), n->gate);
				step(n, c, direction, s, n->gate, n->extra);
				memcpy(y_at(n, direction, s, t), state_at(n, n->last_h, direction, s),
				       (size_t)n->hidden * sizeof(float));
			}
		}
}

static int recurrent(struct onnx_call *c, int gates, int functions, const char *const *usual, step_fn *step)
{
	struct rnn n;
	int r = rnn_init(c, &n, gates, functions, usual);

	if (r == 0)
		rnn_run(c, &n, step);
	rnn_release(&n);
	return r;
}

int op_rnn(struct onnx_call *c)
{
	static const char *const usual[] = {"Tanh"};

	return recurrent(c, 1, 1, usual, rnn_step);
}

int op_gru(struct onnx_call *c)
{
	static const char *const usual[] = {"Sigmoid", "Tanh"};

	return recurrent(c, 3, 2, usual, gru_step);
}

int op_lstm(struct onnx_call *c)
{
	static const char *const usual[] = {"Sigmoid", "Tanh", "Tanh"};

	return recurrent(c, 4, 3, usual, lstm_step);
}
