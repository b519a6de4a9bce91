/*
 * Einstein's summation, of up to three inputs. Each letter is a dimension; what stands in `...` gets letters of its
 * own, counted from the right. One walk goes over the output's letters, and for each of them one over the others.
 */
#include "engine/onnx/op.h"

#include <ctype.h>
#include <string.h>

enum { MOST_INPUTS = WALK_MAX - 1, LETTERS = 52 + ONNX_MAX_RANK };

struct term {
	int n, letters[ONNX_MAX_RANK];
};

struct einsum {
	struct term in[MOST_INPUTS], out;
	int64_t dims[LETTERS]; /* 0: not seen */
	bool known[LETTERS];
	int dots; /* dimensions of `...` */
	int seen[LETTERS];
};

static int letter_of(char ch)
{
	return islower((unsigned char)ch) ? ch - 'a' : ch - 'A' + 26;
}

/* Reads letters up to `end`; rank: of the input, -1 for the output. */
static int read_term(struct onnx_call *c, struct einsum *e, const char **s, const char *end, int rank,
		     struct term *t)
{
	int letters = 0, dots = 0;

	for (const char *p = *s; *p && !strchr(end, *p); p++)
		letters += isalpha((unsigned char)*p) != 0;
	if (rank >= 0 && rank < letters)
		return call_fail(c, "a term of %d letters for rank %d", letters, rank);
	for (; **s && !strchr(end, **s); ++*s) {
		if (**s == ' ')
			continue;
		if (strncmp(*s, "...", 3) == 0) {
			int many = rank < 0 ? e->dots : rank - letters;

			if (dots++ || many > ONNX_MAX_RANK || t->n + many > ONNX_MAX_RANK)
				return call_fail(c, "the equation has too many dimensions");
			for (int i = 0; i < many; i++)
				t->letters[t->n++] = 52 + many - 1 - i;
			e->dots = many > e->dots ? many : e->dots;
			*s += 2;
		} else if (isalpha((unsigned char)**s) && t->n < ONNX_MAX_RANK) {
			t->letters[t->n++] = letter_of(**s);
		} else {
			return call_fail(c, "'%c' in the equation, or too many dimensions", **s);
		}
	}
	if (rank >= 0 && t->n != rank)
		return call_fail(c, "a term of %d letters for rank %d", t->n, rank);
	return 0;
}

static int read_equation(struct onnx_call *c, struct einsum *e, const char *s)
{
	int r;

	for (int i = 0; i < c->n_in; i++) {
		r = read_term(c, e, &s, ",-", c->in[i]->rank, &e->in[i]);
		if (r < 0)
			return r;
		for (int d = 0; d < e->in[i].n; d++) {
			int letter = e->in[i].letters[d];
			int64_t dim = c->in[i]->dims[d];

			if (e->known[letter] && e->dims[letter] != dim && e->dims[letter] != 1 && dim != 1)
				return call_fail(c, "a letter is both %lld and %lld",
						 (long long)e->dims[letter], (long long)dim);
			if (!e->known[letter] || e->dims[letter] == 1)
				e->dims[letter] = dim;
			e->known[letter] = true;
			e->seen[letter]++;
		}
		if (i + 1 < c->n_in && *s++ != ',')
			return call_fail(c, "fewer terms than %d inputs", c->n_in);
	}
	if (*s == ',')
		return call_fail(c, "more terms than %d inputs", c->n_in);
	if (strncmp(s, "->", 2) == 0) {
		s += 2;
		return read_term(c, e, &s, "", -1, &e->out);
	}
	/* none said: `...`, then the letters that stand once, in the alphabet's order (capitals first) */
	for (int i = e->dots - 1; i >= 0; i--)
		e->out.letters[e->out.n++] = 52 + i;
	for (int i = 0; i < 52; i++) {
		int letter = (i + 26) % 52;

		if (e->seen[letter] != 1)
			continue;
		if (e->out.n == ONNX_MAX_RANK)
			return call_fail(c, "an output of more than %d dimensions", ONNX_MAX_RANK);
		e->out.letters[e->out.n++] = letter;
	}
	return 0;
}

/* How far input i goes for a step of the letter. */
static int64_t step_of(const struct onnx_call *c, const struct einsum *e, int i, int letter)
{
	int64_t strides[ONNX_MAX_RANK], step = 0;

	dims_strides(c->in[i]->rank, c->in[i]->dims, strides);
	for (int d = 0; d < e->in[i].n; d++)
		if (e->in[i].letters[d] == letter && c->in[i]->dims[d] != 1)
			step += strides[d]; /* twice the same letter: a diagonal */
	return step;
}

#define EINSUM_CASE(id, T, A)                                                                             \
	case id:                                                                                          \
		do                                                                                        \
			for (int64_t i = 0; i < w.row; i++) {                                             \
				A sum = 0;                                                                \
				do                                                                        \
					for (int64_t j = 0; j < v.row; j++) {                             \
						A product = 1;                                            \
						for (int k = 0; k < c->n_in; k++)                         \
							product *= (A)((const T *)c->in[k]->data)         \
								[w.at[k + 1] + i * walk_step(&w, k + 1) + \
								 v.at[k + 1] + j * walk_step(&v, k + 1)]; \
						sum += product;                                           \
					}                                                                 \
				while (walk_next(&v));                                                    \
				((T *)c->out[0]->data)[w.at[0] + i] = (T)sum;                             \
			}                                                                                 \
		while (walk_next(&w));                                                                    \
		return 0;

int op_einsum(struct onnx_call *c)
{
	struct einsum e = {0};
	int64_t dims[ONNX_MAX_RANK], rest[ONNX_MAX_RANK];
	int letters[ONNX_MAX_RANK], n = 0, r;
	bool in_output[LETTERS] = {false};
	struct walk w, v;

	if (c->n_in > MOST_INPUTS)
		return call_unsupported(c, "%d inputs; at most %d", c->n_in, MOST_INPUTS);
	for (int i = 0; i < c->n_in; i++)
		if (!c->in[i] || c->in[i]->type != c->in[0]->type)
			return call_fail(c, "inputs of different types");
	r = read_equation(c, &e, attr_string(c, "equation", ""));
	if (r < 0)
		return r;
	for (int d = 0; d < e.out.n; d++) {
		int letter = e.out.letters[d];

		if (!e.known[letter] || in_output[letter])
			return call_fail(c, "the output has a letter twice, or one that no input has");
		in_output[letter] = true;
		dims[d] = e.dims[letter];
	}
	for (int letter = 0; letter < LETTERS; letter++) {
		if (!e.known[letter] || in_output[letter])
			continue;
		if (n == ONNX_MAX_RANK)
			return call_unsupported(c, "sums over more than %d dimensions", ONNX_MAX_RANK);
		letters[n] = letter;
		rest[n++] = e.dims[letter];
	}
	r = call_out(c, 0, c->in[0]->type, e.out.n, dims);
	if (r < 0)
		return r;
	if (dims_count(n, rest) < 0)
		return call_fail(c, "a sum of too many elements");
	walk_init(&w, e.out.n, dims);
	walk_broadcast(&w, 0, e.out.n, dims);
	walk_init(&v, n, rest);
	for (int k = 0; k < c->n_in; k++) {
		for (int d = 0; d < e.out.n; d++)
			w.stride[k + 1][d] = step_of(c, &e, k, e.out.letters[d]);
		for (int d = 0; d < n; d++)
			v.stride[k + 1][d] = step_of(c, &e, k, letters[d]);
	}
	switch (c->in[0]->type) {
		FLOAT_CASES(EINSUM_CASE, double)
		EINSUM_CASE(ONNX_INT32, int32_t, uint64_t)
		EINSUM_CASE(ONNX_INT64, int64_t, uint64_t)
	default:
		return call_bad_type(c, 0);
	}
}
