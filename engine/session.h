/*
 * Private to engine/: what training needs of a session beyond engine/model.h.
 *
 *	options = (struct session_options){ .rate = r, .batch = 128, .training = true };
 *	session_new(&s, model, backend, &options, &err);
 *	params_zero_grad(&model->net->params);
 *	session_forward_float(s, x, n, logits);
 *	loss = loss_cross_entropy(logits, labels, n, classes, 0, dlogits);
 *	session_backward(s, dlogits, n);		// adds to params.list[i].grad, within the slice
 *	… other slices …  update of value from grad …
 *	params_changed(&model->net->params);
 *
 * Sessions of one model share one workspace, so they are used one at a time, and session_backward or
 * session_gradcam belong to the last forward of any of them: else -EINVAL.
 */
#ifndef ENGINE_SESSION_H
#define ENGINE_SESSION_H

#include "engine/model.h"
#include "engine/net.h"

/* As session_new, for a net without a model: mean and std are those of session_forward's pixels (0 and 1 when
 * NULL). */
int session_new_net(struct session **ret, struct net *net, const float *mean, const float *std,
		    const struct backend *backend, const struct session_options *options, struct err *err);

/* What dropout's choices of the next forwards are made from; 0 at first. */
void session_set_seed(struct session *s, uint64_t seed);

/* As session_forward, with an input that is already normalised: x (n, H, W, C). */
int session_forward_float(struct session *s, const float *x, int n, float *logits);

/* dlogits (n, classes) of the last forward. Adds to the full-width grad arrays; outside of the slice no bit
 * changes. Needs options.training and params_need_grad (session_new with training calls it). */
int session_backward(struct session *s, const float *dlogits, int n);

/* What session_forward does to pixels: out = (pixel/255 - mean) / std, in numbers of `type` (step: of int8 and uint8). pixels and
 * out (n, H, W, C). */
void pixels_normalise(const uint8_t *pixels, int n, int height, int width, int channels, const float *mean,
		      const float *std, enum precision type, float step, void *out);

/*
 * Forwards of this session, f32 without gradients, note in ranges (nodes of the net) the largest magnitude of each result that they
 * see, those of padding included, until it is NULL: session_options.ranges of a later one. -EINVAL: it can't.
 */
int session_observe(struct session *s, float *ranges);
/* A session_forward that is observed for the model, whose slice it is: what int8 sessions of that need. Each call adds to it. */
int session_calibrate(struct session *s, struct model *model, int rate_index, const uint8_t *pixels, int n,
		      float *logits);

struct session_stats {
	size_t activations, scratch; /* bytes of the net's workspace that this session needs */
	int steps, variants;         /* after fusion; batch sizes compiled so far */
	int part;                    /* instances that the first steps run at a time; 0: all of a batch */
};
struct session_stats session_stats(const struct session *s);

/*
 * Losses: mean over n of each row's loss; dlogits (n, classes) is its gradient, overwritten, may be NULL.
 *
 * loss_cross_entropy: softmax cross-entropy with hard labels; smoothing e gives the others e/classes each
 * (Szegedy et al. 2016, section 7). loss_distill: cross-entropy with the teacher's softmax at temperature T
 * as target, × T² (Hinton et al. 2015); its value includes the teacher's entropy, its gradient does not
 * depend on it.
 */
double loss_cross_entropy(const float *logits, const int *labels, int n, int classes, float smoothing,
			  float *dlogits);
double loss_distill(const float *logits, const float *teacher_logits, int n, int classes, float temperature,
		    float *dlogits);

#endif
