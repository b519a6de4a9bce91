/* Mini-batches and wishes for pictures on their way to an inference worker: the files' bytes packed into one sealed memfd. */
#include "sched/exec_private.h"

#include "engine/base/io.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_OUTSTANDING 2
#define RUN_LIMIT_TIMES 20 /* × what the batch should take */
#define EXPLAIN_TIMES   4  /* chosen: a backward pass and a picture, against a forward pass */

static int pack(const struct instance_input *in, int n, int *ret_fd)
{
	int fd = -1, r;

	r = io_memfd_new("instances", &fd);
	for (int i = 0; r == 0 && i < n; i++)
		r = io_write(fd, in[i].data, in[i].len);
	if (r == 0)
		r = io_memfd_seal(fd);
	if (r < 0 && fd >= 0)
		close(fd);
	if (r == 0)
		*ret_fd = fd;
	return r;
}

/* The common part of run and explain; m has its type. -EBUSY: two are outstanding; -ENOTCONN: the endpoint is
 * not loaded (yet, or since the worker died). */
static int ask(struct exec_worker *w, enum exec_request_kind kind, uint64_t batch, uint32_t endpoint,
	       int submodel, const struct instance_input *in, const int *labels, const float *scores, int n)
{
	struct exec_endpoint *e = exec_find(w, endpoint);
	struct wire_message m = {
		.type = kind == REQUEST_RUN ? WIRE_RUN : WIRE_EXPLAIN, .n_fds = 1, .fds = {-1}};
	struct wire_wish *wishes = NULL;
	struct wire_input *inputs = NULL;
	struct exec_request *q = NULL;
	int r;

	if (!w->peer || !e || !e->ready)
		return -ENOTCONN;
	if (n < 1 || n > e->batch || submodel < 0 || submodel >= e->n_submodels)
		return -EINVAL;
	if (w->outstanding >= MAX_OUTSTANDING)
		return -EBUSY;
	r = -ENOMEM;
	q = calloc(1, sizeof(*q));
	inputs = calloc((size_t)n, sizeof(*inputs));
	wishes = calloc((size_t)n, sizeof(*wishes));
	if (!q || !inputs || !wishes)
		goto out;
	*q = (struct exec_request){.kind = kind, .batch = batch, .n = n};
	q->ids = calloc((size_t)n, sizeof(*q->ids));
	q->answers = kind == REQUEST_RUN ? calloc((size_t)n, sizeof(*q->answers)) : NULL;
	if (!q->ids || (kind == REQUEST_RUN && !q->answers))
		goto out;
	q->limit_ns = RUN_LIMIT_TIMES * (kind == REQUEST_RUN ? 1 : EXPLAIN_TIMES) * e->time_ns[submodel];
	if (q->limit_ns < w->run_limit_ns)
		q->limit_ns = w->run_limit_ns;
	for (int i = 0; i < n; i++) {
		q->ids[i] = in[i].id;
		inputs[i] = (struct wire_input){.id = in[i].id, .len = in[i].len};
		if (kind == REQUEST_EXPLAIN)
			wishes[i] = (struct wire_wish){.id = in[i].id,
						       .len = in[i].len,
						       .label = (uint32_t)labels[i],
						       .score = scores[i]};
	}
	if (kind == REQUEST_RUN)
		m.run = (struct wire_run){.batch = batch,
					  .endpoint = endpoint,
					  .submodel = (uint32_t)submodel,
					  .inputs = inputs,
					  .n_inputs = (uint32_t)n};
	else
		m.explain = (struct wire_explain){.batch = batch,
						  .endpoint = endpoint,
						  .submodel = (uint32_t)submodel,
						  .wishes = wishes,
						  .n_wishes = (uint32_t)n};
	r = pack(in, n, &m.fds[0]);
	if (r == 0) {
		r = peer_send(w->peer, &m);
		close(m.fds[0]);
	}
	if (r == 0) {
		exec_push(w, q);
		q = NULL;
	}
out:
	exec_request_free(q);
	free(inputs);
	free(wishes);
	return r;
}

int exec_run(struct executor *ex, uint64_t batch, uint32_t endpoint, int submodel,
	     const struct instance_input *in, int n)
{
	return ask((struct exec_worker *)ex, REQUEST_RUN, batch, endpoint, submodel, in, NULL, NULL, n);
}

int exec_explain(struct executor *ex, uint64_t batch, uint32_t endpoint, int submodel,
		 const struct instance_input *in, const int *labels, const float *scores, int n)
{
	return ask((struct exec_worker *)ex, REQUEST_EXPLAIN, batch, endpoint, submodel, in, labels, scores,
		   n);
}
