/*
 * The executor over a worker process. What the worker owes is one queue of requests in the order in which
 * they were sent; it answers in that order, so the head's request is the one that runs and the one whose
 * clock ticks: no answer within its limit and the worker is killed. Anything that does not fit the head is
 * nonsense (-EPROTO), and a worker that talks nonsense is killed too.
 *
 *	        spawn              LOADED of each          socket closed, fault, timeout
 *	DOWN ────────────▶ UP ──────────────────▶ UP ────────────────────────────────────▶ DOWN
 *	  ▲  restart timer: 0, then 100 ms doubling to 10 s; back to 0 once a load or a batch went well  │
 *	  └──────────────────────────────────────────────────────────────────────────────────┘
 *
 * 1. In DOWN the queue is empty: death answers every batch with -EIO, then tells `died`, in one loop turn.
 * 2. Every endpoint that is not given up is sent LOAD as soon as the worker is UP.
 * 3. An endpoint whose load was the head when the worker died, LOAD_DEATHS times on end, is given up: it is
 *    reported as failed and not sent again until the caller loads it again; so one poisonous model does not
 *    take the others with it for ever.
 * 4. `loaded` and `done` come from the loop, never from within load(), run() or explain().
 */
#include "sched/executor.h"

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "sched/host.h"
#include "sched/loop.h"
#include "sched/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_OUTSTANDING 2
#define MAX_LABELS      65536
#define MAX_LABEL_BYTES (16 << 20)
#define LOAD_DEATHS     3
#define LOAD_LIMIT_NS   (120 * NS_PER_S) /* chosen: compiling and measuring every slice on a loaded machine */
#define RUN_LIMIT_NS    (10 * NS_PER_S)
#define RUN_LIMIT_TIMES 20 /* × what the batch should take */
#define EXPLAIN_TIMES   4  /* chosen: a backward pass and a picture, against a forward pass */
#define MIN_DELAY_NS    (100 * NS_PER_MS)
#define MAX_DELAY_NS    (10 * NS_PER_S)
#define MAX_PICTURES    (UINT64_C(1) << 32)

struct endpoint {
	struct endpoint *next;
	uint32_t number, generation; /* generation: this load of that number */
	int batch, fds[3];           /* model, weights, labels; the last may be -1 */
	bool gradcam, ready, given_up;
	int deaths;
	int n_submodels;
	int64_t time_ns[MAX_SUBMODELS];
	char **labels; /* while they come */
	int n_labels;
	size_t label_bytes;
};

enum request_kind { REQUEST_LOAD, REQUEST_RUN, REQUEST_EXPLAIN };

struct request {
	enum request_kind kind;
	uint32_t endpoint, generation; /* of a load */
	uint64_t batch;
	int64_t limit_ns;                /* from when it became the head */
	int n, answered;                 /* instances */
	uint64_t *ids;                   /* (n) */
	struct instance_answer *answers; /* (n), of a run */
	struct request *next;
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
	struct endpoint *endpoints;
	uint32_t generation;
	struct request *head, **tail;
	int outstanding; /* runs and explains in the queue */
	struct loop_timer *restart, *hang;
	int64_t delay_ns; /* of the next restart */
	int64_t run_limit_ns;
};

static const struct peer_events peer_events;

/* --- requests --- */

static void request_free(struct request *q)
{
	if (!q)
		return;
	free(q->ids);
	free(q->answers);
	free(q);
}

static void on_hang(void *data)
{
	struct exec_worker *w = data;

	w->hang = NULL;
	if (w->peer)
		peer_kill(w->peer, "did not answer in time");
}

static void set_clock(struct exec_worker *w)
{
	loop_timer_cancel(w->loop, w->hang);
	w->hang = w->head ? loop_timer_at(w->loop, loop_now(w->loop) + w->head->limit_ns, on_hang, w) : NULL;
}

static void push(struct exec_worker *w, struct request *q)
{
	bool first = !w->head;

	*w->tail = q;
	w->tail = &q->next;
	w->outstanding += q->kind != REQUEST_LOAD;
	if (first)
		set_clock(w);
}

static struct request *pop(struct exec_worker *w)
{
	struct request *q = w->head;

	if (!q)
		return NULL;
	w->head = q->next;
	if (!w->head)
		w->tail = &w->head;
	w->outstanding -= q->kind != REQUEST_LOAD;
	set_clock(w);
	return q;
}

/* --- endpoints --- */

static struct endpoint *find(struct exec_worker *w, uint32_t number)
{
	struct endpoint *e = w->endpoints;

	while (e && e->number != number)
		e = e->next;
	return e;
}

static void forget_labels(struct endpoint *e)
{
	for (int i = 0; i < e->n_labels; i++)
		free(e->labels[i]);
	free(e->labels);
	e->labels = NULL;
	e->n_labels = 0;
	e->label_bytes = 0;
}

static void endpoint_free(struct endpoint *e)
{
	if (!e)
		return;
	forget_labels(e);
	for (int i = 0; i < 3; i++)
		if (e->fds[i] >= 0)
			close(e->fds[i]);
	free(e);
}

static struct endpoint *take_out(struct exec_worker *w, uint32_t number)
{
	for (struct endpoint **p = &w->endpoints; *p; p = &(*p)->next) {
		struct endpoint *e = *p;

		if (e->number != number)
			continue;
		*p = e->next;
		return e;
	}
	return NULL;
}

static int send_load(struct exec_worker *w, struct endpoint *e)
{
	struct request *q = calloc(1, sizeof(*q));
	struct wire_message m = {
		.type = WIRE_LOAD,
		.n_fds = e->fds[2] >= 0 ? 3 : 2,
		.fds = {e->fds[0], e->fds[1], e->fds[2]},
		.load = {.endpoint = e->number, .batch = (uint32_t)e->batch, .gradcam = e->gradcam}};
	int r;

	if (!q)
		return -ENOMEM;
	*q = (struct request){.kind = REQUEST_LOAD,
			      .endpoint = e->number,
			      .generation = e->generation,
			      .limit_ns = LOAD_LIMIT_NS};
	e->ready = false;
	forget_labels(e);
	r = peer_send(w->peer, &m);
	if (r < 0) {
		request_free(q);
		return r;
	}
	push(w, q);
	return 0;
}

static void report_failed_load(struct exec_worker *w, const struct endpoint *e, enum err_code code,
			       const char *detail)
{
	struct err err = ERR_INIT;
	int r = err_set(&err, code, "%s", detail);

	w->events->loaded(w->data, e->number, r, &err, NULL, 0, NULL, 0);
}

/* --- life and death --- */

static void start_later(struct exec_worker *w);

static void start(void *data)
{
	struct exec_worker *w = data;
	int r;

	w->restart = NULL;
	r = peer_new(&w->peer, w->loop, w->ops, w->host, "infer", &peer_events, w);
	if (r < 0) {
		log_error("an inference worker can't be started: %s", strerror(-r));
		start_later(w);
		return;
	}
	r = peer_send(w->peer, &(struct wire_message){.type = WIRE_SETUP, .setup = {(uint32_t)w->threads}});
	for (struct endpoint *e = w->endpoints; r == 0 && e; e = e->next)
		if (!e->given_up)
			r = send_load(w, e);
	if (r < 0)
		peer_kill(w->peer, strerrordesc_np(-r));
}

/* The first restart comes at once, the next ones after 100 ms, doubling to 10 s. */
static void start_later(struct exec_worker *w)
{
	w->restart = loop_timer_at(w->loop, loop_now(w->loop) + w->delay_ns, start, w);
	if (!w->restart)
		log_error("no memory: the inference worker is not started again");
	w->delay_ns = w->delay_ns ? 2 * w->delay_ns : MIN_DELAY_NS;
	if (w->delay_ns > MAX_DELAY_NS)
		w->delay_ns = MAX_DELAY_NS;
}

static void on_gone(void *data, const char *reason)
{
	struct exec_worker *w = data;
	struct endpoint *poison = NULL;
	struct request *q;

	log_warn("inference worker %d: %s; it is started again", peer_pid(w->peer), reason);
	peer_free(w->peer, &w->reaper);
	w->peer = NULL;
	if (w->head && w->head->kind == REQUEST_LOAD) {
		struct endpoint *e = find(w, w->head->endpoint);

		if (e && e->generation == w->head->generation && ++e->deaths >= LOAD_DEATHS) {
			e->given_up = true;
			poison = e;
		}
	}
	for (struct endpoint *e = w->endpoints; e; e = e->next)
		e->ready = false;
	/* Whoever is told -EIO here may not ask for more at once: run() answers -ENOTCONN until `loaded`. */
	while ((q = pop(w))) {
		if (q->kind != REQUEST_LOAD)
			w->events->done(w->data,
					&(struct batch_done){.batch = q->batch, .r = -EIO, .picture_fd = -1});
		request_free(q);
	}
	if (poison && find(w, poison->number) == poison)
		report_failed_load(w, poison, ERR_WORKER_DIED, "it died each time it loaded this model");
	start_later(w);
	w->events->died(w->data);
}

/* --- answers --- */

static bool fraction(double x)
{
	return x >= 0 && x <= 1; /* false for NaN */
}

static int on_labels(struct exec_worker *w, const struct wire_labels *m)
{
	struct endpoint *e;
	char **labels;

	if (!w->head || w->head->kind != REQUEST_LOAD || w->head->endpoint != m->endpoint)
		return -EPROTO;
	e = find(w, m->endpoint);
	if (!e || e->generation != w->head->generation)
		return 0;
	if (m->n_names == 0 || m->n_names > (uint32_t)(MAX_LABELS - e->n_labels))
		return -EPROTO;
	labels = reallocarray(e->labels, (size_t)e->n_labels + m->n_names, sizeof(*labels));
	if (!labels)
		return -ENOMEM;
	e->labels = labels;
	for (uint32_t i = 0; i < m->n_names; i++) {
		e->label_bytes += strlen(m->names[i].text);
		if (e->label_bytes > MAX_LABEL_BYTES)
			return -EPROTO;
		labels[e->n_labels] = strdup(m->names[i].text);
		if (!labels[e->n_labels])
			return -ENOMEM;
		e->n_labels++;
	}
	return 0;
}

static int on_loaded(struct exec_worker *w, const struct wire_loaded *m)
{
	struct submodel submodels[MAX_SUBMODELS];
	struct err err = ERR_INIT;
	struct endpoint *e;
	struct request *q;
	int n = (int)m->n_submodels;

	if (!w->head || w->head->kind != REQUEST_LOAD || w->head->endpoint != m->endpoint ||
	    m->n_submodels > MAX_SUBMODELS || !wire_err(&err, m->code, m->detail) ||
	    (m->code == ERR_NONE) != (n > 0))
		return -EPROTO;
	for (int i = 0; i < n; i++) {
		const struct wire_submodel *s = &m->submodels[i];

		if (!(s->slice > 0 && s->slice <= 1) || !fraction(s->accuracy) ||
		    strlen(s->precision) >= sizeof(submodels[i].precision) || s->time_ns == 0 ||
		    s->time_ns > INT64_MAX / 1000 || s->time_one_ns == 0 || s->time_one_ns > INT64_MAX / 1000)
			return -EPROTO;
		submodels[i] = (struct submodel){.slice = s->slice,
						 .accuracy = s->accuracy,
						 .time_ns = (int64_t)s->time_ns,
						 .time_one_ns = (int64_t)s->time_one_ns};
		strcpy(submodels[i].precision, s->precision);
	}
	e = find(w, m->endpoint);
	if (e && e->generation != w->head->generation)
		e = NULL; /* unloaded, and perhaps loaded anew, since it was asked */
	if (e && n && e->n_labels == 0)
		return -EPROTO;
	q = pop(w);
	request_free(q);
	w->delay_ns = 0;
	if (!e)
		return 0;
	e->deaths = 0;
	if (n == 0) {
		e->given_up = true;
		w->events->loaded(w->data, e->number, -err_errno(err.code), &err, NULL, 0, NULL, 0);
		return 0;
	}
	e->ready = true;
	e->n_submodels = n;
	for (int i = 0; i < n; i++)
		e->time_ns[i] = submodels[i].time_ns;
	{
		/* The caller may unload this endpoint in the call, but not pull the labels from under it. */
		char **labels = e->labels;
		int n_labels = e->n_labels;
		struct endpoint keep = {.labels = labels, .n_labels = n_labels};

		e->labels = NULL;
		e->n_labels = 0;
		w->events->loaded(w->data, e->number, 0, NULL, submodels, n, (const char *const *)labels,
				  n_labels);
		forget_labels(&keep);
	}
	return 0;
}

static int take_answer(struct instance_answer *ret, const struct wire_answer *a)
{
	*ret = (struct instance_answer){.id = a->id, .failed = a->failed};
	if (a->failed)
		return a->code != ERR_NONE && wire_err(&ret->err, a->code, a->detail) ? 0 : -EPROTO;
	if (a->n_top < 1 || a->n_top > MAX_TOP || a->label > INT32_MAX || !fraction(a->score))
		return -EPROTO;
	ret->label = (int)a->label;
	ret->score = a->score;
	ret->n_top = (int)a->n_top;
	for (uint32_t i = 0; i < a->n_top; i++) {
		if (a->top[i].label > INT32_MAX || !fraction(a->top[i].score))
			return -EPROTO;
		ret->top[i] = (int)a->top[i].label;
		ret->top_score[i] = a->top[i].score;
	}
	return 0;
}

static int on_answers(struct exec_worker *w, const struct wire_answers *m)
{
	struct request *q = w->head;

	if (!q || q->kind != REQUEST_RUN || q->batch != m->batch ||
	    m->n_answers > (uint32_t)(q->n - q->answered))
		return -EPROTO;
	for (uint32_t i = 0; i < m->n_answers; i++) {
		int r = take_answer(&q->answers[q->answered], &m->answers[i]);

		if (r < 0 || m->answers[i].id != q->ids[q->answered])
			return -EPROTO;
		q->answered++;
	}
	return 0;
}

static int on_done(struct exec_worker *w, const struct wire_done *m)
{
	struct request *q = w->head;

	if (!q || q->kind != REQUEST_RUN || q->batch != m->batch || q->answered != q->n ||
	    m->compute_ns > INT64_MAX)
		return -EPROTO;
	pop(w);
	w->delay_ns = 0;
	w->events->done(w->data, &(struct batch_done){.batch = q->batch,
						      .compute_ns = (int64_t)m->compute_ns,
						      .n = q->n,
						      .answers = q->answers,
						      .picture_fd = -1});
	request_free(q);
	return 0;
}

static int on_pictures(struct exec_worker *w, const struct wire_message *m)
{
	struct request *q = w->head;
	uint64_t size, sum = 0;
	uint64_t *len;

	if (!q || q->kind != REQUEST_EXPLAIN || q->batch != m->pictures.batch ||
	    m->pictures.n_pictures != (uint32_t)q->n || m->pictures.compute_ns > INT64_MAX ||
	    wire_check_memfd(m->fds[0], MAX_PICTURES, &size) < 0)
		return -EPROTO;
	len = calloc((size_t)q->n + 1, sizeof(*len));
	if (!len)
		return -ENOMEM;
	for (int i = 0; i < q->n; i++) {
		len[i] = m->pictures.pictures[i].len;
		if (len[i] > size - sum) {
			free(len);
			return -EPROTO;
		}
		sum += len[i];
	}
	pop(w);
	w->delay_ns = 0;
	w->events->done(w->data, &(struct batch_done){.batch = q->batch,
						      .compute_ns = (int64_t)m->pictures.compute_ns,
						      .n = q->n,
						      .picture_fd = m->fds[0],
						      .picture_len = len});
	request_free(q);
	free(len);
	return 0;
}

static int on_message(void *data, struct wire_message *m)
{
	struct exec_worker *w = data;

	switch (m->type) {
	case WIRE_LABELS:
		return on_labels(w, &m->labels);
	case WIRE_LOADED:
		return on_loaded(w, &m->loaded);
	case WIRE_ANSWERS:
		return on_answers(w, &m->answers);
	case WIRE_DONE:
		return on_done(w, &m->done);
	case WIRE_PICTURES:
		return on_pictures(w, m);
	default:
		return -EPROTO;
	}
}

static const struct peer_events peer_events = {.message = on_message, .gone = on_gone};

/* --- what the scheduler asks --- */

static int exec_load(struct executor *ex, const struct endpoint_load *load)
{
	struct exec_worker *w = (struct exec_worker *)ex;
	const int fds[3] = {load->model_fd, load->weights_fd, load->labels_fd};
	struct endpoint *e;
	int r = 0;

	if (load->batch < 1 || load->model_fd < 0 || load->weights_fd < 0)
		return -EINVAL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	*e = (struct endpoint){.number = load->endpoint,
			       .generation = ++w->generation,
			       .batch = load->batch,
			       .gradcam = load->gradcam,
			       .fds = {-1, -1, -1}};
	for (int i = 0; r == 0 && i < 3; i++) {
		if (fds[i] < 0)
			continue;
		e->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		if (e->fds[i] < 0)
			r = -errno;
	}
	if (r == 0 && w->peer)
		r = send_load(w, e);
	if (r < 0) {
		endpoint_free(e);
		return r;
	}
	endpoint_free(take_out(w, load->endpoint));
	e->next = w->endpoints;
	w->endpoints = e;
	return 0;
}

static void exec_unload(struct executor *ex, uint32_t number)
{
	struct exec_worker *w = (struct exec_worker *)ex;
	struct endpoint *e = take_out(w, number);

	if (e && w->peer)
		peer_send(w->peer, &(struct wire_message){.type = WIRE_UNLOAD, .unload = {number}});
	endpoint_free(e);
}

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
static int ask(struct exec_worker *w, enum request_kind kind, uint64_t batch, uint32_t endpoint, int submodel,
	       const struct instance_input *in, const int *labels, const float *scores, int n)
{
	struct endpoint *e = find(w, endpoint);
	struct wire_message m = {
		.type = kind == REQUEST_RUN ? WIRE_RUN : WIRE_EXPLAIN, .n_fds = 1, .fds = {-1}};
	struct wire_wish *wishes = NULL;
	struct wire_input *inputs = NULL;
	struct request *q = NULL;
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
	*q = (struct request){.kind = kind, .batch = batch, .n = n};
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
		push(w, q);
		q = NULL;
	}
out:
	request_free(q);
	free(inputs);
	free(wishes);
	return r;
}

static int exec_run(struct executor *ex, uint64_t batch, uint32_t endpoint, int submodel,
		    const struct instance_input *in, int n)
{
	return ask((struct exec_worker *)ex, REQUEST_RUN, batch, endpoint, submodel, in, NULL, NULL, n);
}

static int exec_explain(struct executor *ex, uint64_t batch, uint32_t endpoint, int submodel,
			const struct instance_input *in, const int *labels, const float *scores, int n)
{
	return ask((struct exec_worker *)ex, REQUEST_EXPLAIN, batch, endpoint, submodel, in, labels, scores,
		   n);
}

static void exec_free(struct executor *ex)
{
	struct exec_worker *w = (struct exec_worker *)ex;
	struct request *q;

	if (!w)
		return;
	loop_timer_cancel(w->loop, w->restart);
	while ((q = pop(w)))
		request_free(q);
	loop_timer_cancel(w->loop, w->hang);
	peer_free(w->peer, &w->reaper);
	reaper_release(&w->reaper);
	while (w->endpoints)
		endpoint_free(take_out(w, w->endpoints->number));
	free(w);
}

static const struct executor_ops exec_ops = {
	.load = exec_load,
	.unload = exec_unload,
	.run = exec_run,
	.explain = exec_explain,
	.free = exec_free,
};

void executor_worker_set_limit(struct executor *ex, int64_t ns)
{
	((struct exec_worker *)ex)->run_limit_ns = ns;
}

int executor_worker_new(struct executor **ret, struct loop *loop, const struct host_ops *ops, void *host,
			int threads, const struct executor_events *events, void *data)
{
	struct exec_worker *w;

	if (!ops->spawn)
		return -ENOSYS;
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	*w = (struct exec_worker){.ex = {&exec_ops},
				  .loop = loop,
				  .ops = ops,
				  .host = host,
				  .threads = threads,
				  .run_limit_ns = RUN_LIMIT_NS,
				  .events = events,
				  .data = data};
	w->tail = &w->head;
	reaper_init(&w->reaper, loop);
	start_later(w);
	if (!w->restart) {
		free(w);
		return -ENOMEM;
	}
	w->delay_ns = 0;
	*ret = &w->ex;
	return 0;
}
