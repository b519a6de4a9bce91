/*
 * Private to the executor over a worker process: exec_worker.c has its life and the queue of requests, exec_answers.c what the
 * worker says, exec_pack.c what it is given to do.
 */
#ifndef SCHED_EXEC_PRIVATE_H
#define SCHED_EXEC_PRIVATE_H

#include "sched/executor.h"
#include "sched/peer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host_ops;
struct loop;
struct loop_timer;

struct exec_member {
	char *name; /* owned */
	double weight;
	int fds[4]; /* model, weights, labels, validation; the last two may be -1 */
};

struct exec_endpoint {
	struct exec_endpoint *next;
	uint32_t number, generation; /* generation: this load of that number */
	int batch, n_members;
	struct exec_member members[ENSEMBLE_MEMBERS];
	unsigned precisions;
	bool gradcam, ready, given_up;
	int deaths;
	int n_submodels;
	int64_t time_ns[MAX_SUBMODELS];
	char **labels; /* while they come */
	int n_labels;
	size_t label_bytes;
};

enum exec_request_kind { REQUEST_LOAD, REQUEST_RUN, REQUEST_EXPLAIN };

struct exec_request {
	enum exec_request_kind kind;
	uint32_t endpoint, generation; /* of a load */
	uint64_t batch;
	int64_t limit_ns;                /* from when it became the head */
	int n, answered;                 /* instances; of a load its members */
	uint64_t *ids;                   /* (n) */
	struct instance_answer *answers; /* (n), of a run */
	struct exec_request *next;
};

struct exec_worker {
	struct executor ex;
	struct loop *loop;
	const struct host_ops *ops;
	void *host;
	int threads;
	const struct executor_events *events;
	void *data;

	struct peer *peer; /* NULL: DOWN */
	struct reaper reaper;
	struct exec_endpoint *endpoints;
	uint32_t generation;
	struct exec_request *head, **tail;
	int outstanding; /* runs and explains in the queue */
	struct loop_timer *restart, *hang;
	int64_t delay_ns; /* of the next restart */
	int64_t run_limit_ns;
};

/* --- exec_worker.c --- */

struct exec_endpoint *exec_find(struct exec_worker *w, uint32_t number);
void exec_forget_labels(struct exec_endpoint *e);
void exec_push(struct exec_worker *w, struct exec_request *q); /* it was sent */
struct exec_request *exec_pop(struct exec_worker *w); /* the head, which is the caller's now; NULL: none */
void exec_request_free(struct exec_request *q);

/* --- exec_answers.c: of struct peer_events --- */

int exec_message(void *data, struct wire_message *m);

/* --- exec_pack.c: of struct executor_ops --- */

int exec_run(struct executor *ex, uint64_t batch, uint32_t endpoint, int submodel,
	     const struct instance_input *in, int n);
int exec_explain(struct executor *ex, uint64_t batch, uint32_t endpoint, int submodel,
		 const struct instance_input *in, const int *labels, const float *scores, int n);

#endif
