/*
 * Private to engine/: from gradients to weights. SGD with Nesterov momentum (Sutskever et al. 2013, in the form of
 * PyTorch: v = μv + g; w -= lr(g + μv)) and AdamW (Loshchilov & Hutter 2019, algorithm 2). Weight decay is for
 * weights only, not biases and norms.
 *
 *	optim_init(&o, &net->params, &(struct optim_options){.momentum = 0.9});
 *	… gradients …
 *	optim_step(&o, &net->params, lr);	// threads share the elements; their count changes no bit
 *	optim_release(&o);
 */
#ifndef ENGINE_OPTIM_H
#define ENGINE_OPTIM_H

#include "engine/net.h"

enum optim_kind { OPTIM_SGD, OPTIM_ADAMW };

struct optim_options {
	enum optim_kind kind;
	double momentum; /* AdamW: beta1; beta2 is 0.999 */
	double weight_decay;
	double clip; /* of the gradient's norm; 0: none */
	double ema;  /* decay of the averaged weights; 0: none */
};

struct optim {
	struct optim_options options;
	int n;            /* parameters */
	int64_t step;     /* finished ones */
	float **momentum; /* (n) of (size) each; first moment of AdamW */
	float **second;   /* AdamW; else NULL */
	float **average;  /* ema; else NULL */
};

int optim_init(struct optim *o, const struct params *params, const struct optim_options *options);
void optim_release(struct optim *o); /* of a zeroed or half-made one, too */
void optim_step(struct optim *o, struct params *params, double lr);
/* weights <-> average, where there is one; a second call swaps back */
void optim_swap_average(struct optim *o, struct params *params);

#endif
