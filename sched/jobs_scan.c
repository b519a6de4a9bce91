/*
 * The scan worker. It gets the files of one data set, a few packs ahead, then the file that becomes the cache,
 * and its last word is the text of dataset.json.
 *
 * A file that kills the decoder costs that file, not the data set. What the worker decoded is lost when it
 * dies, but not what is known about the files: a new worker gets first those that were in flight, one at a
 * time, then those that nobody got yet, and last those that were decoded well already. The file that is by
 * itself in flight at a death is bad; it is not sent again and dataset.json lists it. So K such files among N
 * cost at most 2·K starts of a worker, each file decoded once as unknown, at most SCAN_IN_FLIGHT packs again by
 * single files for each of the K, and all N once more in the run that is not interrupted: linear in N, not K·N.
 * A worker that doesn't answer in time is killed, which is a death like any other.
 *
 * A death that no file explains (before the first answer, while the cache is written, or when the suspects
 * pass one by one) counts; the third since the last file that was found guilty fails the scan.
 */
#include "sched/jobs_private.h"

#include "engine/base/io.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A pack is read on the scheduler's thread: chosen so that it takes some ms at most. */
#define PACK_BYTES   (UINT64_C(2) << 20)
#define PACK_FILES   256
#define PACK_NAMES   (32 * 1024)
#define PACK_LARGE   (UINT64_C(1) << 20) /* a file beyond this goes by itself, as the blob's descriptor */
#define MAX_DEATHS   3
#define MAX_CRASHERS 1000             /* chosen: more are not bad files but a bad decoder */
#define PATIENCE_NS  (300 * NS_PER_S) /* chosen: one gigabyte of IDX, or writing a large cache */
#define ONE_FILE_NS  (60 * NS_PER_S)  /* chosen: one file of at most PACK_LARGE */
#define MAX_JSON     (UINT64_C(64) << 20)
#define SPLIT_SEED   1

void scan_kill(struct jobs *jobs)
{
	struct scanner *s = &jobs->scanner;

	loop_timer_cancel(jobs->loop, s->patience);
	peer_free(s->peer, &jobs->reaper);
	scan_files_free(s->files, s->n);
	*s = (struct scanner){0};
}

static void out_of_patience(void *data)
{
	struct jobs *jobs = data;

	jobs->scanner.patience = NULL;
	jobs->scanner.hung = true;
	peer_kill(jobs->scanner.peer, "did not answer in time");
}

static void be_patient(struct jobs *jobs)
{
	struct scanner *s = &jobs->scanner;
	bool one = s->taken < s->alone && s->taken < s->at && s->files[s->at - 1].size <= PACK_LARGE;

	int64_t patience = jobs->options->patience_ns;

	if (!patience)
		patience = one ? ONE_FILE_NS : PATIENCE_NS;
	loop_timer_cancel(jobs->loop, s->patience);
	s->patience = loop_timer_at(jobs->loop, loop_now(jobs->loop) + patience, out_of_patience, jobs);
}

static void last_word(struct jobs *jobs)
{
	jobs->scanner.ds = NULL;
	jobs->scanner.cache = NULL;
	peer_kill(jobs->scanner.peer, "finished");
}

static int send_files(struct jobs *jobs, const struct wire_message *m)
{
	struct scanner *s = &jobs->scanner;
	int r = peer_send(s->peer, m);

	if (r == 0)
		s->ends[s->in_flight++] = s->at;
	return r;
}

/* One large file by its blob. 0 also when it went away meanwhile. */
static int send_large(struct jobs *jobs, const struct scan_file *f)
{
	struct wire_file file = {.path = f->path};
	struct wire_message m = {.type = WIRE_FILES, .n_fds = 1, .files = {.files = &file, .n_files = 1}};
	int r;

	r = jobs->ops->open(jobs->host, f->ino, &m.fds[0], &file.len);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return 0;
	r = send_files(jobs, &m);
	close(m.fds[0]);
	return r == -EMSGSIZE ? 0 : r;
}

/* The next files in one memfd, at most `most`. With none the message is only a question whether the worker
 * lives. */
static int send_pack(struct jobs *jobs, uint32_t most)
{
	struct scanner *s = &jobs->scanner;
	struct wire_file files[PACK_FILES];
	struct wire_message m = {.type = WIRE_FILES, .n_fds = 1, .files = {.files = files}};
	uint64_t bytes = 0;
	size_t names = 0;
	int r;

	r = io_memfd_new("files", &m.fds[0]);
	if (r < 0)
		return r;
	while (s->at < s->n && m.files.n_files < most && bytes < PACK_BYTES && names < PACK_NAMES) {
		const struct scan_file *f = &s->files[s->at];
		void *data;
		size_t len;

		if (f->size > PACK_LARGE)
			break;
		s->at++;
		r = jobs->ops->read(jobs->host, f->ino, PACK_LARGE, &data, &len);
		if (r == -ENOMEM)
			goto out;
		if (r < 0) { /* gone, or grown: its change makes a further scan */
			r = 0;
			continue;
		}
		r = io_write(m.fds[0], data, len);
		free(data);
		if (r < 0)
			goto out;
		files[m.files.n_files++] = (struct wire_file){.path = f->path, .len = len};
		bytes += len;
		names += strlen(f->path);
	}
	if (m.files.n_files || !most) {
		r = io_memfd_seal(m.fds[0]);
		if (r == 0)
			r = send_files(jobs, &m);
	}
out:
	close(m.fds[0]);
	return r;
}

static int feed(struct jobs *jobs)
{
	struct scanner *s = &jobs->scanner;
	struct wire_message m = {.type = WIRE_FINISH, .n_fds = 1};
	int r = 0;

	while (r == 0 && s->at < s->n) {
		bool alone;

		if (!s->in_flight) /* what went away before it could be sent is nobody's to answer */
			s->taken = s->at;
		alone = s->taken < s->alone;
		if (s->in_flight >= (alone ? 1 : SCAN_IN_FLIGHT))
			break;
		if (s->files[s->at].size > PACK_LARGE)
			r = send_large(jobs, &s->files[s->at++]);
		else
			r = send_pack(jobs, alone ? 1 : PACK_FILES);
	}
	if (r < 0 || s->at < s->n || s->in_flight || s->finishing)
		return r;
	/* A new file: a training worker may still have the old one mapped. */
	jobs->ops->state_remove(jobs->host, s->cache->file);
	r = jobs->ops->state_open(jobs->host, s->cache->file, O_RDWR | O_CREAT | O_TRUNC, &m.fds[0]);
	if (r < 0)
		return r;
	s->finishing = true;
	r = peer_send(s->peer, &m);
	close(m.fds[0]);
	return r;
}

/* The scan ends without a cache. */
static void fail(struct jobs *jobs, const struct err *err)
{
	struct cache *c = jobs->scanner.cache;

	log_warn("data set %s: %s: %s", jobs->scanner.ds->name, err_sentence(err->code), err->detail);
	c->state = CACHE_FAILED;
	c->err = *err;
	jobs->ops->state_remove(jobs->host, c->file);
	last_word(jobs);
}

static int on_scanned(struct jobs *jobs, const struct wire_message *m)
{
	struct scanner *s = &jobs->scanner;
	struct err err = ERR_INIT;
	uint64_t size;
	void *json;
	size_t len;
	int r;

	if (!s->finishing || !wire_err(&err, m->scanned.code, m->scanned.detail) ||
	    wire_check_memfd(m->fds[0], MAX_JSON, &size) < 0)
		return -EPROTO;
	r = io_read(m->fds[0], MAX_JSON, &json, &len);
	if (r < 0)
		return r;
	if (err.code != ERR_NONE) {
		if (!*s->cache->shape)
			jobs_publish(jobs, HOST_RESULT, json, len, "datasets/%s/dataset.json", s->ds->name);
		fail(jobs, &err);
		goto out;
	}
	s->cache->state = CACHE_READY;
	r = dataset_scanned(s->ds, s->cache, json, len);
	if (r < 0) {
		err_set(&err, ERR_IO, "the record of the decoded cache: %s", strerror(-r));
		fail(jobs, &err);
		goto out;
	}
	last_word(jobs);
out:
	free(json);
	return 0;
}

static int on_message(void *data, struct wire_message *m)
{
	struct jobs *jobs = data;
	struct scanner *s = &jobs->scanner;
	struct err err = ERR_INIT;
	int r;

	if (!s->ds)
		return -EPROTO;
	switch (m->type) {
	case WIRE_TAKEN:
		if (!s->in_flight)
			return -EPROTO;
		s->taken = s->ends[0];
		s->in_flight--;
		memmove(s->ends, s->ends + 1, (size_t)s->in_flight * sizeof(*s->ends));
		r = feed(jobs);
		be_patient(jobs);
		return r;
	case WIRE_SCANNED:
		return on_scanned(jobs, m);
	case WIRE_FAILED:
		if (!wire_err(&err, m->failed.code, m->failed.detail) || err.code == ERR_NONE)
			return -EPROTO;
		fail(jobs, &err);
		return 0;
	default:
		return -EPROTO;
	}
}

/* --- deaths --- */

/* Moves the first n files behind the others. */
static int rotate(struct scanner *s, size_t n)
{
	struct scan_file *first;

	if (!n || n == s->n)
		return 0;
	first = reallocarray(NULL, n, sizeof(*first));
	if (!first)
		return -ENOMEM;
	memcpy(first, s->files, n * sizeof(*first));
	memmove(s->files, s->files + n, (s->n - n) * sizeof(*first));
	memcpy(s->files + s->n - n, first, n * sizeof(*first));
	free(first);
	return 0;
}

/* The file at `at` is bad and goes from the list. */
static int blame(struct scanner *s, size_t at)
{
	struct crasher *c = malloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	*c = (struct crasher){.next = s->ds->crashers, .hung = s->hung, .path = s->files[at].path};
	log_warn("data set %s: the decoder %s %s", s->ds->name, c->hung ? "hung on" : "died of", c->path);
	s->ds->crashers = c;
	s->ds->n_crashers++;
	s->n--;
	memmove(s->files + at, s->files + at + 1, (s->n - at) * sizeof(*s->files));
	return 0;
}

static int launch(struct jobs *jobs);

/* What a death tells about the files; then a new worker. */
static int after_death(struct jobs *jobs, struct err *err)
{
	struct scanner *s = &jobs->scanner;
	size_t taken = s->in_flight ? s->taken : s->at, suspects = s->at - taken;
	size_t alone = s->alone > taken ? s->alone - taken : 0;
	int r = 0;

	if (suspects && alone) { /* by itself, so it is the last that was sent */
		taken = s->at - 1;
		alone = s->alone > s->at ? s->alone - s->at : 0;
		s->cache->deaths = 0;
		if (s->ds->n_crashers >= MAX_CRASHERS)
			return err_set(err, ERR_WORKER_DIED, "of more than %d files of datasets/%s",
				       MAX_CRASHERS, s->ds->name);
		r = blame(s, taken);
	} else {
		if (++s->cache->deaths >= MAX_DEATHS)
			return err_set(err, ERR_WORKER_DIED, "%d times, scanning datasets/%s",
				       s->cache->deaths, s->ds->name);
		alone = suspects ? suspects : alone;
	}
	if (r == 0)
		r = rotate(s, taken);
	if (r == 0) {
		*s = (struct scanner){
			.ds = s->ds, .cache = s->cache, .files = s->files, .n = s->n, .alone = alone};
		r = launch(jobs);
	}
	if (r < 0)
		err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "scanning datasets/%s: %s", s->ds->name,
			strerror(-r));
	return r;
}

static void on_gone(void *data, const char *reason)
{
	struct jobs *jobs = data;
	struct scanner *s = &jobs->scanner;
	struct err err = ERR_INIT;
	int r = 0;

	loop_timer_cancel(jobs->loop, s->patience);
	s->patience = NULL;
	if (s->ds)
		log_warn("scan worker %d of data set %s: %s", peer_pid(s->peer), s->ds->name, reason);
	peer_free(s->peer, &jobs->reaper);
	s->peer = NULL;
	if (s->ds) {
		r = after_death(jobs, &err);
		if (r == 0)
			return;
		log_error("data set %s can't be scanned: %s: %s", s->ds->name, err_sentence(err.code),
			  err.detail);
		s->cache->state = CACHE_FAILED;
		s->cache->err = err;
		jobs->ops->state_remove(jobs->host, s->cache->file);
	}
	scan_kill(jobs);
	jobs_kick(jobs);
}

/* --- the start --- */

static const struct peer_events events = {.message = on_message, .gone = on_gone};

/* A worker for what the scanner has; on failure there is none. */
static int launch(struct jobs *jobs)
{
	struct scanner *s = &jobs->scanner;
	struct wire_message m = {.type = WIRE_SCAN, .scan = {.dataset = s->ds->name, .seed = SPLIT_SEED}};
	int r;

	if (*s->cache->shape && sscanf(s->cache->shape, "%" SCNu32 "x%" SCNu32 "x%" SCNu32, &m.scan.channels,
				       &m.scan.height, &m.scan.width) != 3)
		return -EINVAL;
	r = peer_new(&s->peer, jobs->loop, jobs->ops, jobs->host, "scan", &events, jobs);
	if (r < 0)
		return r;
	r = peer_send(s->peer, &(struct wire_message){.type = WIRE_SETUP,
						      .setup = {(uint32_t)jobs->options->worker_threads}});
	if (r == 0)
		r = peer_send(s->peer, &m);
	for (const struct crasher *c = s->ds->crashers; r == 0 && c; c = c->next)
		r = peer_send(s->peer, &(struct wire_message){
					       .type = WIRE_BAD,
					       .bad = {c->path, c->hung ? "the decoder hung on it"
									: "the decoder crashed on it"}});
	if (r == 0 && s->alone) /* one that dies of itself must not cost a file its name */
		r = send_pack(jobs, 0);
	if (r == 0)
		r = feed(jobs);
	if (r == 0) {
		be_patient(jobs);
	} else {
		peer_free(s->peer, &jobs->reaper);
		s->peer = NULL;
	}
	return r;
}

static bool is_crasher(const struct dataset_entry *ds, const char *path)
{
	for (const struct crasher *c = ds->crashers; c; c = c->next)
		if (strcmp(c->path, path) == 0)
			return true;
	return false;
}

static int start(struct dataset_entry *ds, struct cache *c)
{
	struct jobs *jobs = ds->jobs;
	struct dataset_walk walk = {.collect = true};
	size_t n = 0;
	int r;

	r = dataset_walk(ds, &walk);
	if (r < 0 || walk.fingerprint != ds->fingerprint) {
		scan_files_free(walk.files, walk.n);
		if (r == 0)
			jobs_dataset_changed(jobs, ds->name); /* a change whose news is still on its way */
		return r;
	}
	for (size_t i = 0; i < walk.n; i++)
		if (is_crasher(ds, walk.files[i].path))
			free(walk.files[i].path);
		else
			walk.files[n++] = walk.files[i];
	/* Whatever the record said, the file is about to be written anew. */
	jobs_record(jobs, "dataset", ds->name, &c->record, NULL);
	jobs->scanner = (struct scanner){.ds = ds, .cache = c, .files = walk.files, .n = n};
	r = launch(jobs);
	if (r < 0)
		scan_kill(jobs);
	return r;
}

void scan_next(struct jobs *jobs)
{
	for (struct dataset_entry *ds = jobs->datasets, *next; ds && !jobs->stopped && !jobs->scanner.peer;
	     ds = next) {
		next = ds->next;
		if (ds->dirty || !ds->known)
			continue;
		for (struct cache *c = ds->caches; c && !jobs->scanner.peer; c = c->next) {
			int r;

			if (c->state != CACHE_WANTED || ds->dirty)
				continue;
			r = start(ds, c);
			if (r < 0) {
				c->state = CACHE_FAILED;
				err_set(&c->err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO,
					"scanning datasets/%s: %s", ds->name, strerror(-r));
				log_error("data set %s can't be scanned: %s", ds->name, strerror(-r));
			}
		}
	}
}
