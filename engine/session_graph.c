/*
 * Images into a graph and class scores out of it. A graph with a fixed batch runs in parts of that size; one without takes all at
 * once.
 */
#include "engine/session_graph.h"

#include "engine/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A probability of 0 is the logit of e^-100: far below what a float's softmax tells from 0. */
#define LEAST 3.8e-44f

struct graph_session {
	const struct model *model;
};

int graph_session_new(struct graph_session **ret, const struct model *model, struct err *err)
{
	struct graph_session *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, ERR_NO_MEMORY, "a session");
	s->model = model;
	*ret = s;
	return 0;
}

void graph_session_free(struct graph_session *s)
{
	free(s);
}

/* x (n, H, W, C) in the order that the graph wants. */
static void fill_input(struct onnx_tensor *t, const struct onnx_image *image, const float *x, int n)
{
	size_t plane = (size_t)image->height * (size_t)image->width, channels = (size_t)image->channels;
	float *to = t->data;

	if (image->nhwc || channels == 1) {
		memcpy(to, x, (size_t)n * plane * channels * sizeof(*to));
		return;
	}
	for (size_t i = 0; i < (size_t)n; i++)
		for (size_t c = 0; c < channels; c++)
			for (size_t p = 0; p < plane; p++)
				to[(i * channels + c) * plane + p] = x[(i * plane + p) * channels + c];
}

/* (n, classes), (n, classes, 1, 1) …: the classes, or 0. */
static int classes_of(const struct onnx_tensor *t, int n)
{
	if (t->type != ONNX_FLOAT || t->rank < 2 || t->dims[0] != n)
		return 0;
	for (int d = 2; d < t->rank; d++)
		if (t->dims[d] != 1)
			return 0;
	return t->dims[1] > 0 && t->dims[1] <= 65536 ? (int)t->dims[1] : 0;
}

static int run_part(const struct onnx_model *m, const struct onnx_image *image, const float *x, int n,
		    int classes, int *ret_classes, float *logits, struct err *err)
{
	int batch = image->batch ? image->batch : n, found = 0, r;
	const int64_t nchw[4] = {batch, image->channels, image->height, image->width},
		      nhwc[4] = {batch, image->height, image->width, image->channels};
	struct onnx_tensor *in, **out = calloc(onnx_outputs(m), sizeof(struct onnx_tensor *));
	char dims[128];

	r = out ? onnx_tensor_new(&in, ONNX_FLOAT, 4, image->nhwc ? nhwc : nchw, err)
		: err_set(err, ERR_NO_MEMORY, "a graph's outputs");
	if (r < 0)
		goto out;
	fill_input(in, image, x, n);
	r = onnx_run(m, &in, 1, out, onnx_outputs(m), err);
	onnx_tensor_free(in);
	if (r < 0)
		goto out;
	found = classes_of(out[0], batch);
	if (!found || (classes && found != classes))
		r = err_set(err, ERR_NO_IMAGES, "its output '%.60s' is %s %s for %d images",
			    onnx_output(m, 0)->name, onnx_type_name(out[0]->type),
			    dims_text(dims, sizeof(dims), out[0]->rank, out[0]->dims), batch);
	if (r == 0 && logits)
		memcpy(logits, out[0]->data, (size_t)n * (size_t)found * sizeof(*logits));
	if (r == 0 && ret_classes)
		*ret_classes = found;
	for (size_t i = 0; i < onnx_outputs(m); i++)
		onnx_tensor_free(out[i]);
out:
	free(out);
	return r;
}

static int run_parts(const struct onnx_model *m, const struct onnx_image *image, const float *x, int n,
		     int classes, float *logits, struct err *err)
{
	size_t row = (size_t)image->channels * (size_t)image->height * (size_t)image->width;
	int step = image->batch ? image->batch : n, r = 0;

	for (int at = 0; r == 0 && at < n; at += step)
		r = run_part(m, image, x + (size_t)at * row, n - at < step ? n - at : step, classes, NULL,
			     logits + (size_t)at * (size_t)classes, err);
	if (r == 0 && onnx_gives_probabilities(m))
		for (size_t i = 0; i < (size_t)n * (size_t)classes; i++)
			logits[i] = logf(fmaxf(logits[i], LEAST));
	return r;
}

int graph_run(const struct onnx_model *m, const struct onnx_image *image, const float *x, int n, int classes,
	      int *ret_classes, float **ret_logits, struct err *err)
{
	int first = image->batch && n > image->batch ? image->batch : n, r = 0;
	float *logits;

	if (!classes)
		r = run_part(m, image, x, first, 0, &classes, NULL, err);
	if (r < 0)
		return r;
	logits = calloc((size_t)n * (size_t)classes, sizeof(*logits));
	if (!logits)
		return err_set(err, ERR_NO_MEMORY, "class scores");
	r = run_parts(m, image, x, n, classes, logits, err);
	if (r < 0) {
		free(logits);
		return r;
	}
	if (ret_classes)
		*ret_classes = classes;
	*ret_logits = logits;
	return 0;
}

int graph_session_forward(struct graph_session *s, const uint8_t *pixels, int n, float *logits,
			  struct err *err)
{
	const struct model_info *info = &s->model->info;
	float *x = calloc((size_t)n * (size_t)info->height,
			  (size_t)info->width * (size_t)info->channels * sizeof(*x));
	int r;

	if (!x)
		return err_set(err, ERR_NO_MEMORY, "an input of %d images", n);
	pixels_normalise(pixels, n, info->height, info->width, info->channels, info->mean, info->std,
			 PRECISION_F32, 0, x);
	r = run_parts(s->model->graph, &s->model->image, x, n, info->classes, logits, err);
	free(x);
	return r;
}
