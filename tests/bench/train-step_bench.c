/*
 * One training step of a given model, for comparison with another framework's (train-peers.py --check):
 *
 *	bench-train-step MODEL.json WEIGHTS.safetensors PIXELS LABELS OUT.safetensors
 *
 * PIXELS (n, h, w, c) and LABELS (n), bytes. Cross-entropy, SGD with Nesterov momentum 0.9, weight decay 5e-4, learning
 * rate 0.1; prints the loss and writes the new weights.
 */
#include "engine/backend.h"
#include "engine/base/buf.h"
#include "engine/model_private.h"
#include "engine/optim.h"
#include "engine/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int read_file(const char *path, struct buf *b)
{
	FILE *f = fopen(path, "rb");
	char chunk[65536];
	size_t n;

	if (!f) {
		perror(path);
		return -errno;
	}
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		buf_add(b, chunk, n);
	fclose(f);
	return buf_status(b);
}

static int step(struct model *model, const uint8_t *pixels, const uint8_t *bytes, int n, struct err *err)
{
	const struct session_options options = {.rate = 1, .batch = n, .training = true};
	size_t classes = (size_t)model_info(model)->classes;
	float *logits = calloc((size_t)n * classes * 2, sizeof(*logits)),
	      *dlogits = logits + (size_t)n * classes;
	int *labels = calloc((size_t)n, sizeof(*labels)), r;
	struct params *params = &model->net->params;
	struct session *s = NULL;
	struct optim optim = {0};

	for (int i = 0; i < n; i++)
		labels[i] = bytes[i];
	r = session_new(&s, model, backend_find("onednn"), &options, err);
	if (r == 0)
		r = optim_init(&optim, params,
			       &(struct optim_options){.momentum = 0.9, .weight_decay = 5e-4});
	if (r == 0)
		r = session_forward(s, pixels, n, logits);
	if (r == 0) {
		printf("%.8f\n", loss_cross_entropy(logits, labels, n, (int)classes, 0, dlogits));
		r = session_backward(s, dlogits, n);
	}
	if (r == 0)
		optim_step(&optim, params, 0.1);
	optim_release(&optim);
	session_free(s);
	free(logits);
	free(labels);
	return r;
}

int main(int argc, char **argv)
{
	struct buf in[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT},
		   out[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	struct model *model = NULL;
	struct err err = ERR_INIT;
	char line[512];
	int r = 0;

	if (argc != 6) {
		fprintf(stderr, "usage: bench-train-step MODEL WEIGHTS PIXELS LABELS OUT\n");
		return 2;
	}
	for (int i = 0; i < 4 && r == 0; i++)
		r = read_file(argv[i + 1], &in[i]);
	if (r == 0)
		r = model_load(&model, in[0].data, in[0].len, in[1].data, in[1].len, &err);
	if (r == 0)
		r = step(model, (const uint8_t *)in[2].data, (const uint8_t *)in[3].data, (int)in[3].len,
			 &err);
	if (r == 0)
		r = model_save(model, &out[0], &out[1], &out[2], &out[3], &err);
	if (r == 0) {
		FILE *f = fopen(argv[5], "wb");

		if (!f || fwrite(out[1].data, 1, out[1].len, f) != out[1].len || fclose(f) != 0) {
			perror(argv[5]);
			r = -EIO;
		}
	}
	if (r < 0)
		fprintf(stderr, "bench-train-step: %s\n", err_format(&err, line, sizeof(line)));
	model_free(model);
	for (int i = 0; i < 4; i++) {
		buf_release(&in[i]);
		buf_release(&out[i]);
	}
	return r < 0;
}
