/* Private to the inference worker: infer.c has its endpoints and mini-batches, infer_pictures.c Grad-CAM. */
#ifndef SCHED_WORKER_INFER_PRIVATE_H
#define SCHED_WORKER_INFER_PRIVATE_H

#include "engine/model.h"
#include "sched/executor.h"
#include "sched/worker/worker.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INFER_BACKEND "onednn"

/* A file's bytes, mapped. */
struct map {
	const uint8_t *data;
	size_t len;
};

/* A slice at a precision. Their numbers depend on the model and the spec only, not on what was measured. */
struct infer_submodel {
	int rate_index; /* of the model's */
	float rate, accuracy;
	enum precision precision;
	struct session *session; /* NULL: not made, or idle and not asked for since */
	int64_t time_ns, time_one_ns;
	bool idle;
};

struct infer_endpoint {
	struct infer_endpoint *next;
	uint32_t number;
	int batch, classes, channels, height, width, threads;
	size_t image_size; /* C·H·W */
	bool gradcam;
	struct model *model;
	struct map weights; /* of the model, which borrows from them */
	int n_submodels;
	struct infer_submodel submodels[MAX_SUBMODELS];
	struct session *cam; /* of sub-model cam_submodel; NULL: not made */
	int cam_submodel;
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

int map_open(struct map *ret, int fd); /* all of the file */
void map_close(struct map *map);
void map_rest(const struct map *map); /* its pages are not this process's until they are read again */
/* The parts of a pack of n files one after the other: the lengths are every `stride` bytes from len on. False: they don't fit. */
bool map_split(struct map *ret, const struct map *pack, const uint64_t *len, size_t stride, int n);
struct infer_endpoint *infer_find(struct infer *in, uint32_t number); /* NULL: none */

/* Mini-batch of n ≤ batch files: fills e->answers[0…n). */
void infer_run(struct infer_endpoint *e, int submodel, const struct map *data, int n);

/* --- infer_submodels.c --- */

/* Which there are. precisions: as endpoint_load's. */
int infer_submodels_list(struct infer_endpoint *e, unsigned precisions, struct err *err);
/* Makes its session if it isn't there. */
int infer_submodel_session(struct infer_endpoint *e, int submodel, struct err *err);
/* Measures each on this device and frees those that no plan would use. */
int infer_submodels_measure(struct infer_endpoint *e, struct err *err);
/* Which of them are idle, by time_ns, time_one_ns and accuracy. */
void infer_submodels_choose(struct infer_submodel *list, int n);

/* --- infer_cascades.c --- */

/* What LOADED says of cascades: its lists lie in *ret_memory, to be freed. -ENOMEM */
int infer_cascades_list(const struct infer_endpoint *e, struct wire_loaded *loaded, void **ret_memory);

/* --- infer_pictures.c --- */

int infer_explain(struct infer *in, const struct wire_message *m);

#endif
