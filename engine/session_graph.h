/* Private to engine/: sessions over a graph that the ONNX interpreter runs; engine/session.c hands its calls on. */
#ifndef ENGINE_SESSION_GRAPH_H
#define ENGINE_SESSION_GRAPH_H

#include "engine/model_private.h"

struct graph_session;

int graph_session_new(struct graph_session **ret, const struct model *model, struct err *err);
void graph_session_free(struct graph_session *s); /* NULL is fine */

/* pixels (n, H, W, C) as decoded, any n > 0; logits (n, classes). -EDOM: it can't be computed; err may be NULL. */
int graph_session_forward(struct graph_session *s, const uint8_t *pixels, int n, float *logits,
			  struct err *err);

/*
 * The same of one graph with an input that is already normalised: x (n, H, W, C). Runs at most image->batch at once, the rest of
 * the last run zeros. classes 0: *ret_classes is what it gives for each; else it must give so many. Logits of a model that
 * gives probabilities are their logarithms.
 */
int graph_run(const struct onnx_model *m, const struct onnx_image *image, const float *x, int n, int classes,
	      int *ret_classes, float **ret_logits, struct err *err);

#endif
