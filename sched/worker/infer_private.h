/* Private to the inference worker: infer.c has its endpoints and mini-batches, infer_pictures.c Grad-CAM. */
#ifndef SCHED_WORKER_INFER_PRIVATE_H
#define SCHED_WORKER_INFER_PRIVATE_H

#include "engine/model.h"
#include "sched/worker/worker.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INFER_BACKEND "onednn"

struct infer_endpoint {
	struct infer_endpoint *next;
	uint32_t number;
	int batch, classes, channels, height, width, threads;
	size_t image_size; /* C·H·W */
	bool gradcam;
	struct model *model;
	int n_slices;
	struct session *sessions[MODEL_MAX_RATES];
	struct session *cam; /* of slice cam_slice; NULL: not made */
	int cam_slice;
	uint8_t *pixels;             /* (batch, H, W, C) */
	float *logits;               /* (batch, classes) */
	struct wire_answer *answers; /* (batch) */
	struct wire_top *tops;       /* (batch, MAX_TOP) */
	struct err *errs;            /* (batch) */
};

struct infer {
	struct worker *w;
	struct infer_endpoint *endpoints;
};

/* A file's bytes, mapped. */
struct map {
	const uint8_t *data;
	size_t len;
};

int map_open(struct map *ret, int fd); /* all of the file */
void map_close(struct map *map);
/* The parts of a pack of n files one after the other: the lengths are every `stride` bytes from len on. False: they don't fit. */
bool map_split(struct map *ret, const struct map *pack, const uint64_t *len, size_t stride, int n);
struct infer_endpoint *infer_find(struct infer *in, uint32_t number); /* NULL: none */

/* --- infer_pictures.c --- */

int infer_explain(struct infer *in, const struct wire_message *m);

#endif
