/*
 * The scheduler's outside: its thread, and the messages by which other threads tell it what happened. A
 * message is one allocation with its texts behind it.
 */
#include "sched/internal.h"
#include "sched/spec.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STOP_NS (3 * NS_PER_S) /* answers on their way get this long to become visible; the rest resumes */

int sched_check_ctl(enum ctl_kind kind, const char *text, size_t len, struct err *err)
{
	enum infer_word word;

	if (kind == CTL_JOB)
		return jobs_check_ctl(text, len, err);
	return infer_word_parse(&word, text, len, err);
}

int sched_check_spec(enum spec_kind kind, const char *json, size_t len, struct err *err)
{
	struct infer_spec spec;

	if (kind == SPEC_JOB)
		return jobs_check_spec(json, len, err);
	return infer_spec_parse(&spec, json, len, err);
}

/* --- messages --- */

struct message {
	struct sched *s;
	void (*handle)(struct sched *s, const struct message *m);
	int event;
	uint64_t ino;
	const char *name, *path, *text; /* text may be NULL */
	size_t text_len;
	char bytes[];
};

static void message_run(void *data)
{
	struct message *m = data;

	if (!m->s->stopping)
		m->handle(m->s, m);
	free(m);
}

static void post(struct sched *s, void (*handle)(struct sched *s, const struct message *m), const char *name,
		 const char *path, int event, uint64_t ino, const char *text, size_t text_len)
{
	size_t name_len = strlen(name) + 1, path_len = path ? strlen(path) + 1 : 0;
	struct message *m = malloc(sizeof(*m) + name_len + path_len + text_len + 1);

	if (!m)
		goto lost;
	*m = (struct message){.s = s, .handle = handle, .event = event, .ino = ino, .text_len = text_len};
	m->name = memcpy(m->bytes, name, name_len);
	if (path)
		m->path = memcpy(m->bytes + name_len, path, path_len);
	if (text) {
		char *copy = m->bytes + name_len + path_len;

		memcpy(copy, text, text_len);
		copy[text_len] = '\0';
		m->text = copy;
	}
	if (loop_post(s->loop, message_run, free, m) == 0)
		return;
	free(m);
lost:
	log_error("%s/%s: out of memory, the scheduler will see this after a restart", name,
		  path ? path : "");
}

static void on_endpoint_spec(struct sched *s, const struct message *m)
{
	struct endpoint *ep = endpoint_get(s, m->name, true);

	if (ep)
		endpoint_spec(ep, m->text, m->text_len);
}

static void on_endpoint_ctl(struct sched *s, const struct message *m)
{
	struct endpoint *ep = endpoint_get(s, m->name, true);
	enum infer_word word;

	if (ep && infer_word_parse(&word, m->text, m->text_len, NULL) == 0)
		endpoint_word(ep, word);
}

static void forgotten(struct sched *s, const char *top, const char *name)
{
	char path[MAX_NAME + 16];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	if (s->ops->forgotten)
		s->ops->forgotten(s->host, path);
}

static void on_endpoint_gone(struct sched *s, const struct message *m)
{
	struct endpoint *ep = endpoint_get(s, m->name, false);

	if (ep)
		endpoint_gone(ep);
	forgotten(s, "infer", m->name);
}

static void on_instance(struct sched *s, const struct message *m)
{
	struct endpoint *ep = endpoint_get(s, m->name, m->event != INSTANCE_REMOVED);

	if (ep)
		task_instance_event(ep, (enum instance_event)m->event, m->path, m->ino);
}

static void on_deadline(struct sched *s, const struct message *m)
{
	struct endpoint *ep = endpoint_get(s, m->name, true);

	if (ep)
		task_deadline_event(ep, m->path, m->ino, m->text);
}

static void on_batch(struct sched *s, const struct message *m)
{
	struct endpoint *ep = endpoint_get(s, m->name, m->event != BATCH_REMOVED);

	if (ep)
		task_batch_event(ep, (enum batch_event)m->event, m->path, m->ino);
}

static void on_job_spec(struct sched *s, const struct message *m)
{
	jobs_spec(s->jobs, m->name, m->text, m->text_len);
}

static void on_job_ctl(struct sched *s, const struct message *m)
{
	jobs_ctl(s->jobs, m->name, m->text);
}

static void on_job_gone(struct sched *s, const struct message *m)
{
	jobs_gone(s->jobs, m->name);
	forgotten(s, "jobs", m->name);
}

static void on_dataset_changed(struct sched *s, const struct message *m)
{
	jobs_dataset_changed(s->jobs, m->name);
}

static void on_dataset_gone(struct sched *s, const struct message *m)
{
	jobs_dataset_gone(s->jobs, m->name);
}

static void on_model(struct sched *s, const struct message *m)
{
	jobs_model_event(s->jobs, m->name, (enum model_event)m->event, m->ino);
	if (m->event == MODEL_GONE)
		forgotten(s, "models", m->name);
}

void sched_post_endpoint_spec(struct sched *s, const char *app, const char *json, size_t len)
{
	post(s, on_endpoint_spec, app, NULL, 0, 0, json, len);
}

void sched_post_endpoint_ctl(struct sched *s, const char *app, const char *word)
{
	post(s, on_endpoint_ctl, app, NULL, 0, 0, word, strlen(word));
}

void sched_post_endpoint_gone(struct sched *s, const char *app)
{
	post(s, on_endpoint_gone, app, NULL, 0, 0, NULL, 0);
}

void sched_post_job_spec(struct sched *s, const char *job, const char *json, size_t len)
{
	post(s, on_job_spec, job, NULL, 0, 0, json, len);
}

void sched_post_job_ctl(struct sched *s, const char *job, const char *word)
{
	post(s, on_job_ctl, job, NULL, 0, 0, word, strlen(word));
}

void sched_post_job_gone(struct sched *s, const char *job)
{
	post(s, on_job_gone, job, NULL, 0, 0, NULL, 0);
}

void sched_post_dataset_changed(struct sched *s, const char *dataset)
{
	post(s, on_dataset_changed, dataset, NULL, 0, 0, NULL, 0);
}

void sched_post_dataset_gone(struct sched *s, const char *dataset)
{
	post(s, on_dataset_gone, dataset, NULL, 0, 0, NULL, 0);
}

void sched_post_model(struct sched *s, const char *model, enum model_event event, uint64_t ino)
{
	post(s, on_model, model, NULL, (int)event, ino, NULL, 0);
}

void sched_post_instance(struct sched *s, const char *app, enum instance_event event, const char *path,
			 uint64_t ino)
{
	post(s, on_instance, app, path, (int)event, ino, NULL, 0);
}

void sched_post_deadline(struct sched *s, const char *app, const char *path, uint64_t ino, const char *text)
{
	post(s, on_deadline, app, path, 0, ino, text, text ? strlen(text) : 0);
}

void sched_post_batch(struct sched *s, const char *app, enum batch_event event, const char *path,
		      uint64_t ino)
{
	post(s, on_batch, app, path, (int)event, ino, NULL, 0);
}

/* --- the whole --- */

struct loop *sched_loop(struct sched *s)
{
	return s->loop;
}

/* An endpoint that failed for want of a model starts with it; one that runs goes on with its version until `reload`. */
static void reload_latest(void *data, struct table_node *node)
{
	struct endpoint *ep = list_entry(node, struct endpoint, node);
	bool named = false;

	for (int i = 0; i < ep->spec.n_members; i++)
		named |= !ep->spec.members[i].version && strcmp(ep->spec.members[i].model, data) == 0;
	if (ep->has_spec && named && ep->state == ENDPOINT_FAILED)
		endpoint_word(ep, INFER_RELOAD);
}

static void model_published(void *data, const char *model, int version)
{
	struct sched *s = data;

	status_event(s, "model", model, "published", version);
	table_each(&s->endpoints, reload_latest, (void *)model);
}

static void job_changed(void *data, const char *job, const char *state)
{
	status_event(data, "job", job, state, -1);
}

static void import_changed(void *data, const char *model, const char *what)
{
	status_event(data, "model", model, what, -1);
}

static const struct jobs_events jobs_events = {
	.model_published = model_published, .state_changed = job_changed, .import_changed = import_changed};

int sched_new_on(struct sched **ret, const struct host_ops *ops, void *host,
		 const struct sched_options *options, struct loop *loop)
{
	struct sched *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->ops = ops;
	s->host = host;
	s->options = *options;
	dispatch_init(&s->dispatch);
	outbox_init(&s->outbox);
	unpack_init(s);
	list_init(&s->erasures);
	r = devices_new(s, options->workers);
	if (r == 0)
		r = planner_new(&s->planner);
	if (r == 0)
		r = jobs_new(&s->jobs, loop, ops, host, &s->options, &jobs_events, s);
	if (r < 0) {
		sched_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int sched_new(struct sched **ret, const struct host_ops *ops, void *host, const struct sched_options *options)
{
	struct loop *loop;
	int r = loop_new(&loop, false);

	if (r < 0)
		return r;
	r = sched_new_on(ret, ops, host, options, loop);
	if (r < 0)
		loop_free(loop);
	else
		(*ret)->owns_loop = true;
	return r;
}

static int compare_inos(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int sched_expect(struct sched *s, const uint64_t *inos, size_t n)
{
	uint64_t *copy = calloc(n + 1, sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	if (n)
		memcpy(copy, inos, n * sizeof(*copy));
	qsort(copy, n, sizeof(*copy), compare_inos);
	free(s->expected);
	s->expected = copy;
	s->n_expected = n;
	return 0;
}

bool sched_expects(const struct sched *s, uint64_t ino)
{
	return s->n_expected && bsearch(&ino, s->expected, s->n_expected, sizeof(ino), compare_inos);
}

void sched_begin(struct sched *s)
{
	int r;

	status_recover(s);
	r = store_recover(s);
	if (r < 0)
		log_error("recovering tasks: %s", strerror(-r));
	for (size_t i = 0; i < s->n_expected; i++)
		jobs_model_event(s->jobs, "", MODEL_WRITING, s->expected[i]);
	r = jobs_start(s->jobs);
	if (r < 0)
		log_error("recovering jobs: %s", strerror(-r));
	status_changed(s);
	dispatch_kick(s);
}

static void *thread_main(void *data)
{
	struct sched *s = data;

	pthread_setname_np(pthread_self(), "inferfs/sched");
	sched_begin(s);
	loop_run(s->loop);
	return NULL;
}

int sched_start(struct sched *s)
{
	int r = -pthread_create(&s->thread, NULL, thread_main, s);

	s->threaded = r == 0;
	return r;
}

static void stop_now(void *data)
{
	struct sched *s = data;

	s->stop_timer = NULL;
	status_flush(s);
	loop_stop(s->loop);
}

/* Looks every 5 ms whether all publications were answered. */
static void stop_wait(void *data)
{
	struct sched *s = data;

	s->stop_timer = NULL;
	if (!s->outbox.outstanding || loop_now(s->loop) >= s->stop_until)
		stop_now(s);
	else
		s->stop_timer = loop_timer_at(s->loop, loop_now(s->loop) + 5 * NS_PER_MS, stop_wait, s);
}

static void stop_begins(void *data)
{
	struct sched *s = data;

	s->stopping = true;
	jobs_stop(s->jobs);
	s->stop_until = loop_now(s->loop) + STOP_NS;
	stop_wait(s);
}

void sched_stop(struct sched *s)
{
	if (!s->threaded)
		return;
	if (loop_post(s->loop, stop_begins, NULL, s) < 0)
		loop_stop(s->loop);
	pthread_join(s->thread, NULL);
	s->threaded = false;
}

static void free_endpoint(void *data, struct table_node *node)
{
	(void)data;
	endpoint_free(list_entry(node, struct endpoint, node));
}

void sched_free(struct sched *s)
{
	if (!s)
		return;
	sched_stop(s);
	s->stopping = true;
	jobs_free(s->jobs);
	devices_stop(s);
	unpack_release(s);
	erasures_release(s);
	dispatch_release(s);
	devices_free(s);
	outbox_release(&s->outbox);
	table_each(&s->endpoints, free_endpoint, NULL);
	table_release(&s->endpoints);
	loop_timer_cancel(s->loop, s->status.timer);
	loop_timer_cancel(s->loop, s->stop_timer);
	status_release(&s->status);
	planner_free(s->planner);
	free(s->by_number);
	free(s->expected);
	if (s->owns_loop)
		loop_free(s->loop);
	free(s);
}
