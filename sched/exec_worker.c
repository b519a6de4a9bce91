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
#include "sched/exec_private.h"

#include "engine/base/log.h"
#include "sched/host.h"
#include "sched/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOAD_DEATHS   3
#define LOAD_LIMIT_NS (120 * NS_PER_S) /* chosen: compiling and measuring every slice on a loaded machine */
#define RUN_LIMIT_NS  (10 * NS_PER_S)
#define MIN_DELAY_NS  (100 * NS_PER_MS)
#define MAX_DELAY_NS  (10 * NS_PER_S)

static const struct peer_events peer_events;

/* --- requests --- */

void exec_request_free(struct exec_request *q)
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

void exec_push(struct exec_worker *w, struct exec_request *q)
{
	bool first = !w->head;

	*w->tail = q;
	w->tail = &q->next;
	w->outstanding += q->kind != REQUEST_LOAD;
	if (first)
		set_clock(w);
}

struct exec_request *exec_pop(struct exec_worker *w)
{
	struct exec_request *q = w->head;

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

struct exec_endpoint *exec_find(struct exec_worker *w, uint32_t number)
{
	struct exec_endpoint *e = w->endpoints;

	while (e && e->number != number)
		e = e->next;
	return e;
}

void exec_forget_labels(struct exec_endpoint *e)
{
	for (int i = 0; i < e->n_labels; i++)
		free(e->labels[i]);
	free(e->labels);
	e->labels = NULL;
	e->n_labels = 0;
	e->label_bytes = 0;
}

static void endpoint_free(struct exec_endpoint *e)
{
	if (!e)
		return;
	exec_forget_labels(e);
	for (int m = 0; m < e->n_members; m++) {
		free(e->members[m].name);
		for (int i = 0; i < 4; i++)
			if (e->members[m].fds[i] >= 0)
				close(e->members[m].fds[i]);
	}
	free(e);
}

static struct exec_endpoint *take_out(struct exec_worker *w, uint32_t number)
{
	for (struct exec_endpoint **p = &w->endpoints; *p; p = &(*p)->next) {
		struct exec_endpoint *e = *p;

		if (e->number != number)
			continue;
		*p = e->next;
		return e;
	}
	return NULL;
}

/* Descriptors of a member, without those that aren't there. */
static void add_fds(struct wire_message *m, const struct exec_member *member)
{
	for (int i = 0; i < 4; i++)
		if (member->fds[i] >= 0)
			m->fds[m->n_fds++] = member->fds[i];
}

/* All but the first come before it, as ENSEMBLE. */
static int send_members(struct exec_worker *w, const struct exec_endpoint *e)
{
	int r = 0;

	for (int i = 1; r == 0 && i < e->n_members; i++) {
		const struct exec_member *member = &e->members[i];
		struct wire_message m = {.type = WIRE_ENSEMBLE,
					 .ensemble = {.endpoint = e->number,
						      .name = member->name,
						      .weight = member->weight,
						      .has_validation = member->fds[3] >= 0}};

		add_fds(&m, member);
		r = peer_send(w->peer, &m);
	}
	return r;
}

static int send_load(struct exec_worker *w, struct exec_endpoint *e)
{
	struct exec_request *q = calloc(1, sizeof(*q));
	struct wire_message m = {.type = WIRE_LOAD,
				 .load = {.endpoint = e->number,
					  .batch = (uint32_t)e->batch,
					  .gradcam = e->gradcam,
					  .precisions = (uint8_t)e->precisions,
					  .name = e->members[0].name,
					  .weight = e->members[0].weight,
					  .has_validation = e->members[0].fds[3] >= 0}};
	int r;

	if (!q)
		return -ENOMEM;
	*q = (struct exec_request){.kind = REQUEST_LOAD,
				   .endpoint = e->number,
				   .generation = e->generation,
				   .n = e->n_members,
				   .limit_ns = e->n_members * LOAD_LIMIT_NS};
	e->ready = false;
	exec_forget_labels(e);
	add_fds(&m, &e->members[0]);
	r = send_members(w, e);
	if (r == 0)
		r = peer_send(w->peer, &m);
	if (r < 0) {
		exec_request_free(q);
		return r;
	}
	exec_push(w, q);
	return 0;
}

static void report_failed_load(struct exec_worker *w, const struct exec_endpoint *e, enum err_code code,
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
	for (struct exec_endpoint *e = w->endpoints; r == 0 && e; e = e->next)
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
	struct exec_endpoint *poison = NULL;
	struct exec_request *q;

	log_warn("inference worker %d: %s; it is started again", peer_pid(w->peer), reason);
	peer_free(w->peer, &w->reaper);
	w->peer = NULL;
	if (w->head && w->head->kind == REQUEST_LOAD) {
		struct exec_endpoint *e = exec_find(w, w->head->endpoint);

		if (e && e->generation == w->head->generation && ++e->deaths >= LOAD_DEATHS) {
			e->given_up = true;
			poison = e;
		}
	}
	for (struct exec_endpoint *e = w->endpoints; e; e = e->next)
		e->ready = false;
	/* Whoever is told -EIO here may not ask for more at once: run() answers -ENOTCONN until `loaded`. */
	while ((q = exec_pop(w))) {
		if (q->kind != REQUEST_LOAD)
			w->events->done(w->data,
					&(struct batch_done){.batch = q->batch, .r = -EIO, .picture_fd = -1});
		exec_request_free(q);
	}
	if (poison && exec_find(w, poison->number) == poison)
		report_failed_load(w, poison, ERR_WORKER_DIED, "it died each time it loaded this model");
	start_later(w);
	w->events->died(w->data);
}

static const struct peer_events peer_events = {.message = exec_message, .gone = on_gone};

/* --- what the scheduler asks --- */

static int add_member(struct exec_endpoint *e, const struct endpoint_member *of)
{
	const int fds[4] = {of->model_fd, of->weights_fd, of->labels_fd, of->validation_fd};
	struct exec_member *member = &e->members[e->n_members++];

	*member =
		(struct exec_member){.name = strdup(of->name), .weight = of->weight, .fds = {-1, -1, -1, -1}};
	if (!member->name)
		return -ENOMEM;
	if (fds[0] < 0 || fds[1] < 0)
		return -EINVAL;
	for (int i = 0; i < 4; i++) {
		if (fds[i] < 0)
			continue;
		member->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		if (member->fds[i] < 0)
			return -errno;
	}
	return 0;
}

static int exec_load(struct executor *ex, const struct endpoint_load *load)
{
	struct exec_worker *w = (struct exec_worker *)ex;
	const struct endpoint_member only = {.name = "",
					     .weight = 1,
					     .model_fd = load->model_fd,
					     .weights_fd = load->weights_fd,
					     .labels_fd = load->labels_fd,
					     .validation_fd = -1},
				     *members = load->n_members ? load->members : &only;
	struct exec_endpoint *e;
	int r = 0;

	if (load->batch < 1 || load->n_members < 0 || load->n_members > ENSEMBLE_MEMBERS)
		return -EINVAL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	*e = (struct exec_endpoint){.number = load->endpoint,
				    .generation = ++w->generation,
				    .batch = load->batch,
				    .gradcam = load->gradcam,
				    .precisions = load->precisions};
	for (int i = 0; r == 0 && i < (load->n_members ? load->n_members : 1); i++)
		r = add_member(e, &members[i]);
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
	struct exec_endpoint *e = take_out(w, number);

	if (e && w->peer)
		peer_send(w->peer, &(struct wire_message){.type = WIRE_UNLOAD, .unload = {number}});
	endpoint_free(e);
}

static void exec_free(struct executor *ex)
{
	struct exec_worker *w = (struct exec_worker *)ex;
	struct exec_request *q;

	if (!w)
		return;
	loop_timer_cancel(w->loop, w->restart);
	while ((q = exec_pop(w)))
		exec_request_free(q);
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
