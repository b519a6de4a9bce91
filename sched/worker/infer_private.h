/* Private to the inference worker: infer.c has its endpoints and messages, infer_run.c mini-batches, infer_pictures.c Grad-CAM. */
#ifndef SCHED_WORKER_INFER_PRIVATE_H
#define SCHED_WORKER_INFER_PRIVATE_H

#include "engine/ensemble.h"
#include "engine/model.h"
#include "sched/executor.h"
#include "sched/worker/crowd.h"
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

/* A slice of one model at a precision. */
struct infer_part {
	int rate_index; /* of the model's */
	float rate, accuracy;
	enum precision precision;
	struct session *session; /* NULL: not made, or idle and not asked for since */
};

/* One of the models that answer together; most endpoints have one only. */
struct infer_member {
	struct model *model;
	struct map weights;           /* of the model, which borrows from them */
	void *notes;                  /* what `validation` borrows from, until sub-models are listed */
	struct validation validation; /* n 0: there is none */
	char name[300];               /* for what users read */
	double weight;
	int *labels; /* (classes) the endpoint's number of each of its classes; NULL: the same */
	int channels, height, width;
	size_t image_size; /* C·H·W */
	int like;          /* the first member with the same input: instances are decoded for that one */
	uint8_t *pixels;   /* (batch, H, W, C); NULL: `like` is another one */
	int n_parts;
	struct infer_part parts[MAX_SUBMODELS];
};

/* A part alone, or one each of several members together. Their numbers depend on the models and the spec only, not on what was measured. */
struct infer_submodel {
	int n_parts;
	struct infer_place {
		int member, part;
	} parts[ENSEMBLE_MEMBERS]; /* by member */
	float accuracy;
	int64_t time_ns, time_one_ns;
	bool idle;
};

struct infer_endpoint {
	struct infer_endpoint *next;
	uint32_t number;
	int batch, classes, threads;
	bool gradcam;
	int n_members;
	struct infer_member members[ENSEMBLE_MEMBERS];
	int n_submodels;
	struct infer_submodel submodels[MAX_SUBMODELS];
	char note[512];      /* what is to be known of it; "": nothing */
	struct session *cam; /* of the part cam_part; NULL: not made */
	struct infer_place cam_part;
	float *logits;               /* (batch, classes) */
	float *means;                /* (batch, classes); NULL: there is one member */
	struct wire_answer *answers; /* (batch) */
	struct wire_top *tops;       /* (batch, MAX_TOP) */
	struct err *errs;            /* (batch) */
};

struct infer {
	struct worker *w;
	struct infer_endpoint *endpoints;
	struct wire_message coming[ENSEMBLE_MEMBERS - 1]; /* (n_coming) members that a LOAD is to follow */
	int n_coming;
	struct crowd crowd;
};

int map_open(struct map *ret, int fd); /* all of the file */
void map_close(struct map *map);
void map_rest(const struct map *map); /* its pages are not this process's until they are read again */
/* The parts of a pack of n files one after the other: the lengths are every `stride` bytes from len on. False: they don't fit. */
bool map_split(struct map *ret, const struct map *pack, const uint64_t *len, size_t stride, int n);
struct infer_endpoint *infer_find(struct infer *in, uint32_t number); /* NULL: none */

/* --- infer_run.c --- */

/* Mini-batch of n ≤ batch files: fills e->answers[0…n). */
void infer_run(struct infer_endpoint *e, int submodel, const struct map *data, int n);

/* --- infer_submodels.c --- */

/* Which there are. precisions: as endpoint_load's. */
int infer_submodels_list(struct infer_endpoint *e, unsigned precisions, struct err *err);
static inline struct infer_part *infer_part(struct infer_endpoint *e, struct infer_place at)
{
	return &e->members[at.member].parts[at.part];
}

/* Makes the sessions of its parts that aren't there. */
int infer_submodel_sessions(struct infer_endpoint *e, int submodel, struct err *err);
/* Which of them are idle, by time_ns, time_one_ns and accuracy. */
void infer_submodels_choose(struct infer_submodel *list, int n);

/* --- infer_measure.c --- */

/* Measures each on this device and frees those that no plan would use. */
int infer_submodels_measure(struct infer_endpoint *e, struct err *err);
#define INFER_PAIRS 7
/* What one takes when the first one takes first_ns, of n runs of both in turn, 1…INFER_PAIRS: the median of own ÷ first, times that. */
int64_t infer_paired_ns(const int64_t *first, const int64_t *own, int n, int64_t first_ns);

/* --- infer_ensemble.c --- */

/* Finds out which of the first member's classes those of each other one are. -EBADMSG: they aren't the same ones. */
int infer_ensemble_labels(struct infer_endpoint *e, struct err *err);
/* The sub-models of several members: their parts alone and together; where that can't be e->note says why. */
int infer_ensemble_list(struct infer_endpoint *e, struct err *err);

/* --- infer_cascades.c --- */

/* What LOADED says of cascades: its lists lie in *ret_memory, to be freed. -ENOMEM */
int infer_cascades_list(const struct infer_endpoint *e, struct wire_loaded *loaded, void **ret_memory);

/* --- infer_pictures.c --- */

int infer_explain(struct infer *in, const struct wire_message *m);

#endif
