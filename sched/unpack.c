/*
 * Reading archives: the queue, the worker, what it sends. The daemon looks at no byte of an archive. What comes from the worker is
 * held against archive.h again: a name that an honest one would not send ends it like any other nonsense.
 *
 * The contents the worker writes by itself into a file that it was given; the daemon adds up the names and lengths it says. A worker that
 * dies is started again with the archive from its beginning and another file; the third death is the archive's fault.
 */
#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEATHS  3
#define PATIENCE_NS (60 * NS_PER_S)  /* chosen: for an ENTRIES, at most ARCHIVE_PACK + ARCHIVE_ONE bytes */
#define SPARE_NS    (30 * NS_PER_S)  /* chosen */
#define LIMIT_NS    (600 * NS_PER_S) /* chosen: for an archive; ARCHIVE_TOTAL of xz takes a minute */

static void read_next(struct sched *s);

static void drop_tree(struct archive_job *job)
{
	struct sched *s = job->ep->s;

	if (job->tree)
		s->ops->tree_free(s->host, job->tree);
	job->tree = NULL;
	buf_release(&job->entries);
	job->files = 0;
	job->bytes = job->written = job->shared = 0;
}

void unpack_free(struct archive_job *job)
{
	struct endpoint *ep = job->ep;

	list_remove(&job->link);
	drop_tree(job);
	if (job->inst)
		job->inst->archive = NULL;
	free(job);
	endpoint_unref(ep);
}

/* --- the worker --- */

static void cancel_timers(struct sched *s)
{
	loop_timer_cancel(s->loop, s->unpacker.patience);
	loop_timer_cancel(s->loop, s->unpacker.limit);
	s->unpacker.patience = s->unpacker.limit = NULL;
}

/* The worker is done with, one way or the other; the next one starts when it is gone. */
static struct archive_job *stop_reading(struct sched *s, const char *reason)
{
	struct archive_job *job = s->unpacker.reading;

	s->unpacker.reading = NULL;
	cancel_timers(s);
	peer_kill(s->unpacker.peer, reason);
	return job;
}

static void out_of_patience(void *data)
{
	struct sched *s = data;

	s->unpacker.patience = NULL;
	s->unpacker.hung = true;
	peer_kill(s->unpacker.peer, "did not answer in time");
}

static void over_limit(void *data)
{
	struct sched *s = data;

	s->unpacker.limit = NULL;
	s->unpacker.hung = true;
	peer_kill(s->unpacker.peer, "took too long");
}

static void be_patient(struct sched *s)
{
	int64_t patience = s->options.patience_ns ? s->options.patience_ns : PATIENCE_NS;

	loop_timer_cancel(s->loop, s->unpacker.patience);
	s->unpacker.patience = loop_timer_at(s->loop, loop_now(s->loop) + patience, out_of_patience, s);
}

static void fail_reading(struct sched *s, const struct err *err)
{
	struct err copy = *err;

	unpack_fail(stop_reading(s, "finished"), &copy);
}

/* --- what it sends --- */

/* Why the files of a pack could not be stored, in the user's words. */
static void store_error(struct err *err, int r, const struct host_file *files, size_t n)
{
	size_t at = 0;

	while (at + 1 < n && files[at].ino)
		at++;
	switch (r) {
	case -EEXIST:
	case -ENOTDIR:
		err_set(err, ERR_ARCHIVE_ENTRY, "%.300s is there twice, or as file and directory",
			files[at].path);
		break;
	case -ENOSPC:
	case -EDQUOT:
		err_set(err, ERR_NO_ROOM, "%s", strerror(-r));
		break;
	case -ENOMEM:
		err_set(err, ERR_NO_MEMORY, "unpacking");
		break;
	default:
		err_set(err, ERR_IO, "storing what is in it: %s", strerror(-r));
	}
}

static int add_files(struct archive_job *job, const struct wire_entries *m, struct err *err)
{
	struct sched *s = job->ep->s;
	struct host_file *files = calloc(m->n_files, sizeof(*files));
	uint64_t at = job->written;
	int r;

	if (!files)
		return err_set(err, ERR_NO_MEMORY, "unpacking");
	for (uint32_t i = 0; i < m->n_files; i++) {
		const struct wire_member *f = &m->files[i];

		files[i] = (struct host_file){.path = f->path,
					      .offset = f->inside ? f->inside : at,
					      .len = f->len,
					      .shared = f->inside};
		at += f->inside ? 0 : f->len;
	}
	r = s->ops->tree_add(s->host, job->tree, files, m->n_files);
	if (r < 0)
		store_error(err, r, files, m->n_files);
	for (uint32_t i = 0; r == 0 && i < m->n_files; i++) {
		buf_add(&job->entries, &files[i].ino, sizeof(files[i].ino));
		buf_add(&job->entries, files[i].path, strlen(files[i].path) + 1);
	}
	if (r == 0 && job->entries.failed)
		r = err_set(err, ERR_NO_MEMORY, "unpacking");
	free(files);
	return r;
}

static int on_entries(struct sched *s, const struct wire_message *m)
{
	struct archive_job *job = s->unpacker.reading;
	struct err err = ERR_INIT;
	uint64_t len, written;
	int r = archive_check_entries(&m->entries, &job->limits, job->files, job->bytes, job->shared, &len,
				      &written);

	if (r < 0)
		return r;
	if (add_files(job, &m->entries, &err) < 0) {
		fail_reading(s, &err);
		return 0;
	}
	job->files += m->entries.n_files;
	job->bytes += len;
	job->written += written;
	be_patient(s);
	return peer_send(s->unpacker.peer, &(struct wire_message){.type = WIRE_NEXT, .next = {1}});
}

/* Once it is killed nobody writes to the file of the contents any more: all the daemon need know is that they are there. */
static int on_unpacked(struct sched *s, uint32_t files)
{
	struct archive_job *job = s->unpacker.reading;
	struct err err = ERR_INIT;
	struct stat st;

	if (files != job->files || fstat(s->ops->tree_fd(s->host, job->tree), &st) < 0 ||
	    (uint64_t)st.st_size != job->written)
		return -EPROTO;
	if (job->files) {
		unpack_submit(stop_reading(s, "finished"));
	} else {
		err_set(&err, ERR_BAD_ARCHIVE, "there is no file in it");
		fail_reading(s, &err);
	}
	return 0;
}

static int on_message(void *data, struct wire_message *m)
{
	struct sched *s = data;
	struct archive_job *job = s->unpacker.reading;
	struct err err = ERR_INIT;

	if (!job)
		return -EPROTO; /* nobody asked it */
	switch (m->type) {
	case WIRE_ENTRIES:
		return on_entries(s, m);
	case WIRE_UNPACKED:
		return on_unpacked(s, m->unpacked.files);
	case WIRE_FAILED:
		if (!wire_err(&err, m->failed.code, m->failed.detail) || err.code == ERR_NONE)
			return -EPROTO;
		fail_reading(s, &err);
		return 0;
	default:
		return -EPROTO;
	}
}

static void on_gone(void *data, const char *reason)
{
	struct sched *s = data;
	struct unpacker *u = &s->unpacker;
	struct archive_job *job = u->reading;
	struct err err = ERR_INIT;
	int pid = peer_pid(u->peer);

	u->reading = NULL;
	u->spare = false;
	cancel_timers(s);
	peer_free(u->peer, &u->reaper);
	u->peer = NULL;
	if (job) {
		log_warn("infer/%s/in/%s: the worker %d that unpacks it %s", job->ep->name, job->name, pid,
			 reason);
		drop_tree(job);
		if (u->hung || ++job->deaths >= MAX_DEATHS) {
			err_set(&err, ERR_WORKER_DIED, u->hung ? "it %s" : "three times; the last one %s",
				reason);
			unpack_fail(job, &err);
		} else {
			list_append(&u->waiting, &job->link);
		}
	}
	read_next(s);
}

static const struct peer_events events = {.message = on_message, .gone = on_gone};

static void not_needed(void *data)
{
	struct sched *s = data;

	s->unpacker.patience = NULL;
	peer_kill(s->unpacker.peer, "is not needed");
}

static int start_worker(struct sched *s)
{
	struct unpacker *u = &s->unpacker;
	int r = peer_new(&u->peer, s->loop, s->ops, s->host, "unpack", &events, s);

	if (r < 0)
		return r;
	r = peer_send(u->peer, &(struct wire_message){.type = WIRE_SETUP, .setup = {1}});
	if (r < 0) {
		peer_free(u->peer, &u->reaper);
		u->peer = NULL;
	}
	return r;
}

void unpack_expect(struct instance *inst)
{
	struct sched *s = inst->batch->ep->s;
	struct unpacker *u = &s->unpacker;

	if (u->peer || s->stopping || !s->ops->tree_new || start_worker(s) < 0)
		return;
	u->spare = true;
	u->patience = loop_timer_at(s->loop, loop_now(s->loop) + SPARE_NS, not_needed, s);
}

static int launch(struct sched *s, struct archive_job *job)
{
	struct wire_message m = {.type = WIRE_UNPACK, .n_fds = 2, .unpack = {.ahead = ARCHIVE_AHEAD}};
	struct unpacker *u = &s->unpacker;
	int own = -1, r;

	if (!s->ops->tree_new)
		return -ENOSYS;
	r = s->ops->tree_new(s->host, job->ino, &job->tree);
	if (r < 0)
		return r;
	r = s->ops->tree_share(s->host, job->tree, job->ino, &m.fds[0], &job->len);
	if (r == 0)
		job->shared = job->len;
	else if (r == -ENODATA)
		r = s->ops->open(s->host, job->ino, &own, &job->len);
	if (own >= 0)
		m.fds[0] = own;
	job->limits = archive_limits(job->len);
	m.unpack.shared = job->shared > 0;
	if (r == 0)
		m.fds[1] = s->ops->tree_fd(s->host, job->tree);
	if (r == 0 && !u->peer)
		r = start_worker(s);
	u->spare = false;
	if (r == 0)
		r = peer_send(u->peer, &m);
	if (own >= 0)
		close(own);
	if (r < 0) {
		cancel_timers(s);
		drop_tree(job);
		peer_free(u->peer, &u->reaper);
		u->peer = NULL;
		return r;
	}
	u->reading = job;
	u->hung = false;
	be_patient(s);
	u->limit = loop_timer_at(s->loop, loop_now(s->loop) + LIMIT_NS, over_limit, s);
	return 0;
}

static void read_next(struct sched *s)
{
	struct unpacker *u = &s->unpacker;

	list_each(link, &u->waiting)
	{
		struct archive_job *job = list_entry(link, struct archive_job, link);
		struct err err = ERR_INIT;
		int r;

		if ((u->peer && !u->spare) || s->stopping)
			return;
		list_remove(link);
		if (unpack_check(job, &err) < 0) {
			unpack_fail(job, &err);
			continue;
		}
		r = launch(s, job);
		if (r == -ESTALE || r == -ENOENT) { /* the news of its removal is on the way */
			unpack_free(job);
		} else if (r < 0) {
			err_set(&err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "starting to unpack: %s",
				strerror(-r));
			unpack_fail(job, &err);
		}
	}
}

/* --- coming and going --- */

bool unpack_wants(const struct instance *inst)
{
	return batch_is_loose(inst->batch) && archive_stem(inst->path);
}

void unpack_take(struct instance *inst)
{
	struct endpoint *ep = inst->batch->ep;
	struct sched *s = ep->s;
	struct archive_job *job = calloc(1, sizeof(*job));

	if (!job) {
		log_error("infer/%s/in/%s: out of memory; it is unpacked after a restart", ep->name,
			  inst->path);
		return;
	}
	list_init(&job->link);
	job->ep = ep;
	ep->refs++;
	job->inst = inst;
	inst->archive = job;
	job->ino = inst->ino;
	job->complete = loop_now(s->loop);
	job->stem = archive_stem(inst->path);
	memcpy(job->name, inst->path, strlen(inst->path) + 1); /* one part: shorter than MAX_NAME */
	s->ops->mark(s->host, job->ino, "unpacking");
	list_append(&s->unpacker.waiting, &job->link);
	read_next(s);
}

static void forget(struct archive_job *job)
{
	struct sched *s = job->ep->s;

	if (job == s->unpacker.reading)
		stop_reading(s, "is not needed any more");
	unpack_free(job);
}

static bool is_publishing(const struct sched *s, const struct archive_job *job)
{
	list_each(link, &s->unpacker.publishing)
	{
		if (link == &job->link)
			return true;
	}
	return false;
}

void unpack_cancel(struct instance *inst)
{
	struct archive_job *job = inst->archive;

	inst->archive = NULL;
	if (!job)
		return;
	job->inst = NULL;
	if (!is_publishing(job->ep->s, job)) /* else its end is near */
		forget(job);
}

/* Of an endpoint, or all (NULL). Those that are published are answered by the host, but not at the end. */
static void forget_all(struct sched *s, const struct endpoint *ep)
{
	struct unpacker *u = &s->unpacker;
	struct list *lists[] = {&u->waiting, &u->publishing};

	for (size_t i = 0; i < 2; i++)
		list_each(link, lists[i])
		{
			struct archive_job *job = list_entry(link, struct archive_job, link);

			if (ep && job->ep != ep)
				continue;
			if (job->inst)
				instance_free(job->inst);
			job->inst = NULL;
			if (!ep || i == 0)
				unpack_free(job);
		}
	if (u->reading && (!ep || u->reading->ep == ep)) {
		if (u->reading->inst)
			instance_free(u->reading->inst);
		u->reading->inst = NULL;
		forget(u->reading);
	}
}

void unpack_forget(struct endpoint *ep)
{
	forget_all(ep->s, ep);
}

void unpack_init(struct sched *s)
{
	list_init(&s->unpacker.waiting);
	list_init(&s->unpacker.publishing);
	reaper_init(&s->unpacker.reaper, s->loop);
}

void unpack_release(struct sched *s)
{
	struct unpacker *u = &s->unpacker;

	if (u->waiting.next)
		forget_all(s, NULL);
	cancel_timers(s);
	peer_free(u->peer, &u->reaper);
	u->peer = NULL;
	reaper_release(&u->reaper);
}
