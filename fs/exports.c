#include "fs/exports.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/model.h"
#include "sched/exporter.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define ENDED     16                  /* chosen: of the last ones that failed */
#define ENDED_NS  INT64_C(2000000000) /* chosen: who waited asks again well before, and others may hope */
#define MOST_WAIT 256 /* chosen: wishes at a time; each is one of few names in a directory of few */

struct wish {
	struct wish *next;
	struct tree_export what;
	uint64_t ticket;
};

/* It could not be had. */
struct ended {
	uint64_t dir;
	char name[sizeof(((struct tree_export *)NULL)->name)];
	int r;
	int64_t until;
};

struct exports {
	struct volume *vol;
	struct glue *glue;
	int (*spawn)(void *host, const char *kind, int *ret_fd, int *ret_pid);
	void (*made)(void *data, uint64_t ticket);
	void *made_data;
	int cancel_fd; /* eventfd */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool started, stopping;     /* under lock */
	struct wish *first, **last; /* under lock; the first is being made */
	size_t n_wishes;            /* under lock */
	uint64_t next_ticket;       /* under lock */
	struct ended ended[ENDED];  /* under lock */
	size_t next_ended;          /* under lock */
};

/* --- one wish, on the thread --- */

struct source {
	int json, weights, labels;
	struct vol_attr attr; /* of the weights */
};

static int open_file(struct exports *e, uint64_t version, const char *name, struct vol_attr *attr,
		     int *ret_fd)
{
	uint64_t len;
	int r = vol_resolve(e->vol, version, name, attr);

	if (r == 0 && !S_ISREG(attr->mode))
		r = -ENOENT;
	return r < 0 ? r : vol_content_fd(e->vol, attr->ino, ret_fd, &len);
}

static int source_open(struct exports *e, uint64_t version, struct source *ret, struct err *err)
{
	struct vol_attr attr;
	int r = open_file(e, version, "model.json", &attr, &ret->json);

	if (r == 0)
		r = open_file(e, version, MODEL_WEIGHTS, &ret->attr, &ret->weights);
	if (r == -ENOENT && ret->json >= 0)
		r = open_file(e, version, MODEL_ONNX, &ret->attr, &ret->weights);
	if (r == 0)
		open_file(e, version, "labels.txt", &attr, &ret->labels); /* or numbers do */
	if (r == -ENOENT)
		return err_set(err, ERR_BAD_MODEL, "there is no %s",
			       ret->json < 0 ? "model.json" : MODEL_WEIGHTS);
	return r < 0 ? err_set(err, ERR_IO, "the model's files: %s", strerror(-r)) : 0;
}

static void source_close(struct source *s)
{
	if (s->json >= 0)
		close(s->json);
	if (s->weights >= 0)
		close(s->weights);
	if (s->labels >= 0)
		close(s->labels);
}

static int put(struct vol_stage *stage, const struct tree_export *what, const struct vol_attr *weights,
	       struct err *err)
{
	/* Whoever may read the weights may read a part of them. Kind 0: inferfs made it. */
	struct vol_new file = {
		.mode = S_IFREG | (weights->mode & 0444) | S_IRUSR, .uid = weights->uid, .gid = weights->gid};
	struct vol_put how = {0};
	int r = vol_stage_sync(stage);

	clock_gettime(CLOCK_REALTIME, &how.when);
	if (r == 0)
		r = vol_stage_put(stage, what->dir, what->usual, &file, &how, NULL);
	if (r == -ENOSPC || r == -EDQUOT)
		return err_set(err, ERR_NO_SPACE, "%s", strerror(-r));
	return r < 0 ? err_set(err, ERR_IO, "storing it: %s", strerror(-r)) : 0;
}

static int make(struct exports *e, const struct tree_export *what, struct err *err)
{
	struct source s = {-1, -1, -1, {0}};
	struct vol_stage *stage = NULL;
	int r = source_open(e, what->version, &s, err);

	if (r == 0) {
		r = vol_stage_new(&stage, e->vol);
		if (r < 0)
			r = err_set(err, ERR_IO, "making a file: %s", strerror(-r));
	}
	if (r == 0)
		r = exporter_run(e->spawn, e->glue,
				 &(struct export_ask){.json_fd = s.json,
						      .weights_fd = s.weights,
						      .labels_fd = s.labels,
						      .to_fd = vol_stage_fd(stage),
						      .rate = what->rate,
						      .cancel_fd = e->cancel_fd},
				 err);
	if (r == 0)
		r = put(stage, what, &s.attr, err);
	vol_stage_free(stage);
	source_close(&s);
	return r;
}

/* models/NAME/V/error: there as long as the last export failed. */
static void tell(struct exports *e, uint64_t version, const struct err *err)
{
	char model[256], number[256], path[600], text[512];
	struct vol_attr attr, old;

	if (vol_getattr(e->vol, version, &attr) < 0 ||
	    vol_dir_name(e->vol, version, number, sizeof(number)) < 0 ||
	    vol_dir_name(e->vol, attr.parent, model, sizeof(model)) < 0)
		return;
	snprintf(path, sizeof(path), "models/%s/%s/error", model, number);
	if (err)
		log_warn("models/%s/%s/export: %s", model, number, err_format(err, text, sizeof(text)));
	if (err || vol_lookup(e->vol, version, "error", &old) == 0)
		glue_publish_error(e->glue, path, err);
}

static int grant(struct exports *e, const struct tree_export *what)
{
	struct err err = ERR_INIT;
	struct vol_attr attr;
	int r = vol_lookup(e->vol, what->dir, what->usual, &attr);

	if (r == -ENOENT) {
		r = make(e, what, &err);
		if (r == -ECANCELED || err.code == ERR_NO_SLICE)
			return r;
		tell(e, what->version, r < 0 ? &err : NULL);
		if (r == 0)
			r = vol_lookup(e->vol, what->dir, what->usual, &attr);
	}
	/* slice-0.5.onnx is another name of slice-0.50.onnx */
	if (r == 0 && strcmp(what->name, what->usual) != 0) {
		r = vol_link(e->vol, attr.ino, what->dir, what->name, &attr);
		r = r == -EEXIST ? 0 : r;
	}
	return r;
}

static void note_end(struct exports *e, const struct tree_export *what, int r)
{
	struct ended *ended = &e->ended[e->next_ended++ % ENDED];

	*ended = (struct ended){.dir = what->dir, .r = r, .until = clock_monotonic_ns() + ENDED_NS};
	memcpy(ended->name, what->name, sizeof(ended->name));
}

static void *thread_main(void *data)
{
	struct exports *e = data;

	pthread_setname_np(pthread_self(), "inferfs/export");
	pthread_mutex_lock(&e->lock);
	for (;;) {
		struct wish *wish = e->first;
		uint64_t ticket;
		int r;

		if (e->stopping)
			break;
		if (!wish) {
			pthread_cond_wait(&e->wake, &e->lock);
			continue;
		}
		pthread_mutex_unlock(&e->lock);
		r = grant(e, &wish->what);
		pthread_mutex_lock(&e->lock);
		if (r == -ECANCELED)
			break;
		if (r < 0)
			note_end(e, &wish->what, r);
		e->first = wish->next;
		if (!e->first)
			e->last = &e->first;
		e->n_wishes--;
		ticket = wish->ticket;
		free(wish);
		pthread_mutex_unlock(&e->lock);
		e->made(e->made_data, ticket);
		pthread_mutex_lock(&e->lock);
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* --- asking --- */

static struct wish *find(const struct exports *e, const struct tree_export *what)
{
	struct wish *wish = e->first;

	while (wish && (wish->what.dir != what->dir || strcmp(wish->what.name, what->name) != 0))
		wish = wish->next;
	return wish;
}

static int answer(const struct exports *e, const struct tree_export *what)
{
	int64_t now = clock_monotonic_ns();

	for (size_t i = 0; i < ENDED; i++)
		if (e->ended[i].dir == what->dir && e->ended[i].until > now &&
		    strcmp(e->ended[i].name, what->name) == 0)
			return e->ended[i].r;
	return 0;
}

/* lock held. A worker dies with the thread that started it: so there is one for all, started when there is a first wish. */
static int add(struct exports *e, const struct tree_export *what, struct wish **ret)
{
	struct wish *wish = e->n_wishes < MOST_WAIT ? calloc(1, sizeof(*wish)) : NULL;
	int r;

	if (!wish)
		return -ENOMEM;
	if (!e->started && !e->stopping) {
		r = -pthread_create(&e->thread, NULL, thread_main, e);
		if (r < 0) {
			free(wish);
			return r;
		}
		e->started = true;
	}
	wish->what = *what;
	wish->ticket = e->next_ticket++;
	*e->last = wish;
	e->last = &wish->next;
	e->n_wishes++;
	pthread_cond_signal(&e->wake);
	*ret = wish;
	return 0;
}

int exports_ask(struct exports *e, const struct tree_export *what, int (*park)(void *data, uint64_t ticket),
		void *data)
{
	struct wish *wish;
	int r;

	pthread_mutex_lock(&e->lock);
	r = answer(e, what);
	if (r == 0) {
		wish = find(e, what);
		if (!wish)
			r = add(e, what, &wish);
		/* with the lock held: else it may have been made, and told, before */
		if (r == 0)
			r = park(data, wish->ticket);
	}
	pthread_mutex_unlock(&e->lock);
	return r;
}

void exports_on_made(struct exports *e, void (*made)(void *data, uint64_t ticket), void *data)
{
	e->made = made;
	e->made_data = data;
}

int exports_new(struct exports **ret, struct volume *vol, struct glue *glue,
		int (*spawn)(void *host, const char *kind, int *ret_fd, int *ret_pid))
{
	struct exports *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return -ENOMEM;
	e->cancel_fd = eventfd(0, EFD_CLOEXEC);
	if (e->cancel_fd < 0) {
		r = -errno;
		free(e);
		return r;
	}
	e->vol = vol;
	e->glue = glue;
	e->spawn = spawn;
	e->last = &e->first;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->wake, NULL);
	*ret = e;
	return 0;
}

void exports_stop(struct exports *e)
{
	bool started;

	pthread_mutex_lock(&e->lock);
	started = e->started;
	e->started = false;
	e->stopping = true;
	pthread_cond_signal(&e->wake);
	pthread_mutex_unlock(&e->lock);
	if (started) {
		eventfd_write(e->cancel_fd, 1);
		pthread_join(e->thread, NULL);
	}
}

void exports_free(struct exports *e)
{
	if (!e)
		return;
	exports_stop(e);
	for (struct wish *wish = e->first, *next; wish; wish = next) {
		next = wish->next;
		free(wish);
	}
	close(e->cancel_fd);
	pthread_mutex_destroy(&e->lock);
	pthread_cond_destroy(&e->wake);
	free(e);
}
