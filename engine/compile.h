/*
 * Private to the session: a network compiled for one slice rate. Nodes become steps (fused, flatten gone),
 * tensors become values, and every value, gradient and saved statistic gets its place in one activation area,
 * for the largest batch. Time runs over the forward steps 0 … S-1 and then over their backward passes, step i
 * at 2S-1-i; two buffers overlap only if they are never alive at the same time.
 */
#ifndef ENGINE_COMPILE_H
#define ENGINE_COMPILE_H

#include "engine/backend.h"

struct buffer {
	size_t size, offset; /* bytes; offset in the activation area */
	int first, last;     /* alive in this time, ends included; size 0: not there */
};

struct value {
	int node; /* whose result it is */
	struct extent extent;
	enum precision type;
	float step; /* of int8 and uint8 */
	bool need_grad;
	int data, grad; /* buffers; grad -1: none */
};

struct step {
	struct op_desc desc; /* n left 0 */
	int x, x2, y;        /* values; -1: none */
	int weight, bias;    /* parameters; -1: none */
	int norm;            /* parameter: scale of batch_norm's set; shift and statistics follow; -1: none */
	int saved;           /* buffer; -1: none */
	/* Where backward puts the gradients of x and x2: straight into that value's grad, or, when another
	 * step has written there before, into a buffer of its own, from where it is added. -1: not needed. */
	int dx, dx2;
	bool add_dx, add_dx2;
};

struct compiled {
	int n_values, n_steps, n_buffers;
	struct value *values;
	struct step *steps;
	struct buffer *buffers;
	int output, feature; /* values */
	int feature_steps;   /* the steps from here on lie between feature and output */
	/* The steps before this one run for `part` instances at a time, so that what lies between them stays in the
	 * cache. Their values have room for so many, but for the last one's, which has it for all. 0: none */
	int split, part;
	size_t activation_size; /* bytes */
};

struct compile_options {
	float rate;
	int batch;
	bool training, gradcam;
	/* Of values but the logits and those that a gradient needs, which are f32. Not with training. */
	enum precision precision;
	/* int8: of each node's result, the largest magnitude that its steps reach to; where it is 0 the result stays f32 */
	const float *ranges;
	const struct backend *backend; /* asked for the size of what an op saves */
};

/* How many instances a variant for n of them takes at a time in the steps before the split; and n rounded up to these. */
static inline int compiled_part(const struct compiled *c, int n)
{
	int parts = c->split ? (n + c->part - 1) / c->part : 1;

	return (n + parts - 1) / parts;
}

int compile(struct compiled *ret, const struct net *net, const struct compile_options *options);
void compiled_release(struct compiled *c);

#endif
