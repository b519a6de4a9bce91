/*
 * Data sets. A change starts the settle clock anew; when it was quiet the directory is walked and its
 * fingerprint (of path, inode, size, mtime of every file that counts) compared. Another fingerprint drops the
 * caches of the old one and asks for a scan; so does a job that wants a shape nobody asked for yet. A cache
 * is valid exactly when its record exists: the worker makes the file durable before its last word.
 *
 * Files that don't count: dataset.json (written here), hidden ones (also rsync's and git's), and unfinished
 * ones by their names.
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

#include <cJSON.h>

/* A pack is read on the scheduler's thread: chosen so that it takes some ms at most. */
#define PACK_BYTES  (UINT64_C(2) << 20)
#define PACK_FILES  256
#define PACK_NAMES  (32 * 1024)
#define PACK_LARGE  (UINT64_C(1) << 20) /* a file beyond this goes by itself, as the blob's descriptor */
#define IN_FLIGHT   4
#define MAX_DEATHS  3
#define PATIENCE_NS (300 * NS_PER_S) /* chosen: one gigabyte of IDX, or writing a large cache */
#define MAX_JSON    (UINT64_C(64) << 20)
#define SPLIT_SEED  1

/* --- caches --- */

static struct dataset_entry *find(struct jobs *jobs, const char *name)
{
	struct dataset_entry *ds = jobs->datasets;

	while (ds && strcmp(ds->name, name) != 0)
		ds = ds->next;
	return ds;
}

static struct dataset_entry *find_or_add(struct jobs *jobs, const char *name)
{
	struct dataset_entry *ds = find(jobs, name);

	if (ds)
		return ds;
	ds = calloc(1, sizeof(*ds));
	if (!ds)
		return NULL;
	*ds = (struct dataset_entry){.jobs = jobs, .name = strdup(name), .next = jobs->datasets};
	if (!ds->name) {
		free(ds);
		return NULL;
	}
	jobs->datasets = ds;
	return ds;
}

static struct cache *find_cache(struct dataset_entry *ds, const char *shape)
{
	struct cache *c = ds->caches;

	while (c && strcmp(c->shape, shape) != 0)
		c = c->next;
	return c;
}

static struct cache *add_cache(struct dataset_entry *ds, const char *shape, uint64_t fingerprint)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct cache){.fingerprint = fingerprint, .state = CACHE_WANTED, .next = ds->caches};
	snprintf(c->shape, sizeof(c->shape), "%s", shape);
	if (asprintf(&c->file, "cache/%s-%016" PRIx64 "%s%s", ds->name, fingerprint, *shape ? "-" : "",
		     shape) < 0) {
		free(c);
		return NULL;
	}
	ds->caches = c;
	return c;
}

static void cache_free(struct dataset_entry *ds, struct cache *c)
{
	struct cache **p = &ds->caches;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	free(c->file);
	free(c);
}

/* The record goes first: a file without record is only garbage, a record without file a lie. */
static void cache_remove(struct dataset_entry *ds, struct cache *c)
{
	jobs_record(ds->jobs, "dataset", ds->name, &c->record, NULL);
	ds->jobs->ops->state_remove(ds->jobs->host, c->file);
	cache_free(ds, c);
}

static int cache_record(struct dataset_entry *ds, struct cache *c)
{
	cJSON *json = cJSON_CreateObject();
	char hex[24], *text = NULL;
	int r = -ENOMEM;

	snprintf(hex, sizeof(hex), "%016" PRIx64, c->fingerprint);
	if (json && cJSON_AddStringToObject(json, "fingerprint", hex) &&
	    cJSON_AddStringToObject(json, "shape", c->shape))
		text = cJSON_PrintUnformatted(json);
	if (text)
		r = jobs_record(ds->jobs, "dataset", ds->name, &c->record, text);
	cJSON_free(text);
	cJSON_Delete(json);
	return r;
}

/* --- the walk --- */

static uint64_t mix(uint64_t h, uint64_t x)
{
	/* splitmix64's finaliser (Steele et al. 2014). */
	h += x + UINT64_C(0x9e3779b97f4a7c15);
	h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
	return h ^ h >> 31;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

static bool counts(const char *path)
{
	return strcmp(path, "dataset.json") != 0 && path[0] != '.' && !strstr(path, "/.") &&
	       !ends_with(path, "~") && !ends_with(path, ".tmp") && !ends_with(path, ".part");
}

struct walk {
	uint64_t fingerprint;
	bool collect;
	struct scan_file *files;
	size_t n, size;
	int r;
};

static int on_file(void *data, const struct host_entry *e)
{
	struct walk *walk = data;
	uint64_t h = 0;

	if (e->is_dir || !counts(e->path))
		return 0;
	for (const char *p = e->path; *p; p++)
		h = mix(h, (uint8_t)*p);
	h = mix(mix(h, e->ino), e->size);
	h = mix(mix(h, (uint64_t)e->mtime.tv_sec), (uint64_t)e->mtime.tv_nsec);
	walk->fingerprint += h; /* a sum: the order of the walk does not matter */
	if (!walk->collect)
		return 0;
	if (walk->n == walk->size) {
		size_t size = walk->size ? 2 * walk->size : 256;
		struct scan_file *files = reallocarray(walk->files, size, sizeof(*files));

		if (!files)
			return walk->r = -ENOMEM;
		walk->files = files;
		walk->size = size;
	}
	walk->files[walk->n] = (struct scan_file){.path = strdup(e->path), .ino = e->ino, .size = e->size};
	if (!walk->files[walk->n].path)
		return walk->r = -ENOMEM;
	walk->n++;
	return 0;
}

static void free_files(struct scan_file *files, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(files[i].path);
	free(files);
}

static int walk_dataset(struct dataset_entry *ds, struct walk *walk)
{
	char *path;
	int r;

	if (asprintf(&path, "datasets/%s", ds->name) < 0)
		return -ENOMEM;
	r = ds->jobs->ops->walk(ds->jobs->host, path, on_file, walk);
	free(path);
	return walk->r < 0 ? walk->r : r < 0 ? r : 0;
}

static bool has_json(struct dataset_entry *ds)
{
	struct host_entry e;
	char *path;
	int r;

	if (asprintf(&path, "datasets/%s/dataset.json", ds->name) < 0)
		return false;
	r = ds->jobs->ops->lookup(ds->jobs->host, path, &e);
	free(path);
	return r == 0;
}

static void on_settled(void *data)
{
	struct dataset_entry *ds = data;
	struct walk walk = {0};
	struct cache *natural;
	int r;

	ds->settle = NULL;
	r = walk_dataset(ds, &walk);
	if (r == -ENOENT || r == -ESTALE) {
		jobs_dataset_gone(ds->jobs, ds->name);
		return;
	}
	if (r < 0) {
		log_error("data set %s can't be walked: %s", ds->name, strerror(-r));
		ds->settle = loop_timer_at(ds->jobs->loop,
					   loop_now(ds->jobs->loop) + ds->jobs->options->settle_batch_ns,
					   on_settled, ds);
		return;
	}
	ds->dirty = false;
	ds->known = true;
	ds->fingerprint = walk.fingerprint;
	for (struct cache *c = ds->caches, *next; c; c = next) {
		next = c->next;
		if (c->fingerprint != ds->fingerprint)
			cache_remove(ds, c);
	}
	natural = find_cache(ds, "");
	if (!natural && !add_cache(ds, "", ds->fingerprint))
		log_error("data set %s: no memory to scan it", ds->name);
	else if (natural && natural->state == CACHE_READY && !has_json(ds))
		natural->state = CACHE_WANTED;
	jobs_kick(ds->jobs);
}

void jobs_dataset_changed(struct jobs *jobs, const char *name)
{
	struct dataset_entry *ds;

	if (jobs->stopped)
		return;
	ds = find_or_add(jobs, name);
	if (!ds) {
		log_error("data set %s: no memory", name);
		return;
	}
	if (jobs->scanner.ds == ds)
		scan_kill(jobs);
	ds->dirty = true;
	loop_timer_cancel(jobs->loop, ds->settle);
	ds->settle = loop_timer_at(jobs->loop, loop_now(jobs->loop) + jobs->options->settle_batch_ns,
				   on_settled, ds);
}

static void dataset_free(struct dataset_entry *ds)
{
	struct dataset_entry **p = &ds->jobs->datasets;

	while (*p != ds)
		p = &(*p)->next;
	*p = ds->next;
	loop_timer_cancel(ds->jobs->loop, ds->settle);
	while (ds->caches)
		cache_free(ds, ds->caches);
	free(ds->name);
	free(ds);
}

void jobs_dataset_gone(struct jobs *jobs, const char *name)
{
	struct dataset_entry *ds = find(jobs, name);

	if (!ds)
		return;
	if (jobs->scanner.ds == ds)
		scan_kill(jobs);
	while (ds->caches)
		cache_remove(ds, ds->caches);
	dataset_free(ds);
	jobs_kick(jobs);
}

void dataset_free_all(struct jobs *jobs)
{
	for (struct dataset_entry *ds = jobs->datasets, *next; ds; ds = next) {
		next = ds->next;
		dataset_free(ds);
	}
}

int dataset_cache(struct jobs *jobs, const char *name, int c, int h, int w, int *ret_fd, char *text,
		  size_t size, struct err *err)
{
	struct dataset_entry *ds = find(jobs, name);
	struct host_entry entry;
	struct cache *cache;
	char shape[48] = "", *path;
	int r;

	if (!ds) {
		if (asprintf(&path, "datasets/%s", name) < 0)
			return err_set(err, ERR_NO_MEMORY, "%s", name);
		r = jobs->ops->lookup(jobs->host, path, &entry);
		free(path);
		if (r < 0 || !entry.is_dir)
			return err_set(err, ERR_NO_DATASET, "datasets/%s", name);
		jobs_dataset_changed(jobs, name);
		ds = find(jobs, name);
		if (!ds)
			return err_set(err, ERR_NO_MEMORY, "%s", name);
	}
	snprintf(text, size, "waits for the scan of data set %s", name);
	if (ds->dirty || !ds->known)
		return -EAGAIN;
	if (c)
		snprintf(shape, sizeof(shape), "%dx%dx%d", c, h, w);
	cache = find_cache(ds, shape);
	if (!cache)
		cache = add_cache(ds, shape, ds->fingerprint);
	if (!cache)
		return err_set(err, ERR_NO_MEMORY, "%s", name);
	if (cache->state == CACHE_FAILED) {
		*err = cache->err;
		return -err_errno(err->code);
	}
	if (cache->state == CACHE_READY) {
		r = jobs->ops->state_open(jobs->host, cache->file, O_RDONLY, ret_fd);
		if (r == 0)
			return 0;
		log_warn("data set %s: %s is gone: scanning again", name, cache->file);
		cache->state = CACHE_WANTED;
	}
	jobs_kick(jobs);
	return -EAGAIN;
}

/* --- the scan worker --- */

void scan_kill(struct jobs *jobs)
{
	struct scanner *s = &jobs->scanner;

	loop_timer_cancel(jobs->loop, s->patience);
	peer_free(s->peer, &jobs->reaper);
	free_files(s->files, s->n);
	*s = (struct scanner){0};
}

static void out_of_patience(void *data)
{
	struct jobs *jobs = data;

	jobs->scanner.patience = NULL;
	peer_kill(jobs->scanner.peer, "did not answer in time");
}

static void be_patient(struct jobs *jobs)
{
	struct scanner *s = &jobs->scanner;

	loop_timer_cancel(jobs->loop, s->patience);
	s->patience = loop_timer_at(jobs->loop, loop_now(jobs->loop) + PATIENCE_NS, out_of_patience, jobs);
}

static void last_word(struct jobs *jobs)
{
	jobs->scanner.ds = NULL;
	jobs->scanner.cache = NULL;
	peer_kill(jobs->scanner.peer, "finished");
}

/* One large file by its blob. 0 also when it went away meanwhile. */
static int send_large(struct jobs *jobs, const struct scan_file *f)
{
	struct scanner *s = &jobs->scanner;
	struct wire_file file = {.path = f->path};
	struct wire_message m = {.type = WIRE_FILES, .n_fds = 1, .files = {.files = &file, .n_files = 1}};
	int r;

	r = jobs->ops->open(jobs->host, f->ino, &m.fds[0], &file.len);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return 0;
	r = peer_send(s->peer, &m);
	close(m.fds[0]);
	s->in_flight += r == 0;
	return r == -EMSGSIZE ? 0 : r;
}

/* The next files in one memfd. */
static int send_pack(struct jobs *jobs)
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
	while (s->at < s->n && m.files.n_files < PACK_FILES && bytes < PACK_BYTES && names < PACK_NAMES) {
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
	if (m.files.n_files) {
		r = io_memfd_seal(m.fds[0]);
		if (r == 0)
			r = peer_send(s->peer, &m);
		s->in_flight += r == 0;
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

	while (r == 0 && s->at < s->n && s->in_flight < IN_FLIGHT) {
		if (s->files[s->at].size > PACK_LARGE)
			r = send_large(jobs, &s->files[s->at++]);
		else
			r = send_pack(jobs);
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
	if (!*s->cache->shape)
		jobs_publish(jobs, HOST_RESULT, json, len, "datasets/%s/dataset.json", s->ds->name);
	free(json);
	if (err.code != ERR_NONE) {
		fail(jobs, &err);
		return 0;
	}
	r = cache_record(s->ds, s->cache);
	if (r < 0) {
		err_set(&err, ERR_IO, "the record of the decoded cache: %s", strerror(-r));
		fail(jobs, &err);
		return 0;
	}
	s->cache->state = CACHE_READY;
	last_word(jobs);
	return 0;
}

static int on_message(void *data, struct wire_message *m)
{
	struct jobs *jobs = data;
	struct scanner *s = &jobs->scanner;
	struct err err = ERR_INIT;

	if (!s->ds)
		return -EPROTO;
	be_patient(jobs);
	switch (m->type) {
	case WIRE_TAKEN:
		if (!s->in_flight)
			return -EPROTO;
		s->in_flight--;
		return feed(jobs);
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

static void on_gone(void *data, const char *reason)
{
	struct jobs *jobs = data;
	struct dataset_entry *ds = jobs->scanner.ds;
	struct cache *c = jobs->scanner.cache;

	if (ds) {
		log_warn("scan worker %d of data set %s: %s", peer_pid(jobs->scanner.peer), ds->name, reason);
		if (++c->deaths >= MAX_DEATHS) {
			c->state = CACHE_FAILED;
			err_set(&c->err, ERR_WORKER_DIED, "%d times, scanning datasets/%s", c->deaths,
				ds->name);
			jobs->ops->state_remove(jobs->host, c->file);
		}
	}
	scan_kill(jobs);
	jobs_kick(jobs);
}

static const struct peer_events events = {.message = on_message, .gone = on_gone};

static int start(struct dataset_entry *ds, struct cache *c)
{
	struct jobs *jobs = ds->jobs;
	struct scanner *s = &jobs->scanner;
	struct walk walk = {.collect = true};
	unsigned channels = 0, height = 0, width = 0;
	int r;

	r = walk_dataset(ds, &walk);
	if (r == 0 && walk.fingerprint != ds->fingerprint) {
		free_files(walk.files, walk.n);
		jobs_dataset_changed(jobs, ds->name); /* a change whose news is still on its way */
		return 0;
	}
	if (r < 0) {
		free_files(walk.files, walk.n);
		return r;
	}
	if (*c->shape && sscanf(c->shape, "%ux%ux%u", &channels, &height, &width) != 3)
		return -EINVAL;
	/* Whatever the record said, the file is about to be written anew. */
	jobs_record(jobs, "dataset", ds->name, &c->record, NULL);
	*s = (struct scanner){.ds = ds, .cache = c, .files = walk.files, .n = walk.n};
	r = peer_new(&s->peer, jobs->loop, jobs->ops, jobs->host, "scan", &events, jobs);
	if (r == 0)
		r = peer_send(s->peer,
			      &(struct wire_message){.type = WIRE_SETUP,
						     .setup = {(uint32_t)jobs->options->worker_threads}});
	if (r == 0)
		r = peer_send(s->peer, &(struct wire_message){.type = WIRE_SCAN,
							      .scan = {.dataset = ds->name,
								       .channels = channels,
								       .height = height,
								       .width = width,
								       .seed = SPLIT_SEED}});
	if (r == 0)
		r = feed(jobs);
	if (r < 0)
		scan_kill(jobs);
	else
		be_patient(jobs);
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

/* --- restarts and reports --- */

struct recovery {
	struct jobs *jobs;
	int r;
};

/* "dataset/NAME/NUMBER": a cache that is there. */
static int on_record(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct recovery *rec = data;
	const size_t prefix = strlen("dataset/"), tail = 1 + 16;
	cJSON *json = cJSON_ParseWithLength(value, value_len);
	const char *hex = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "fingerprint"));
	const char *shape = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "shape"));
	char name[300], number[17] = "";
	struct dataset_entry *ds;
	struct cache *c;

	if (key_len <= prefix + tail || key_len - prefix - tail >= sizeof(name) || !hex || !shape) {
		log_error("the record of a decoded cache is damaged and left alone");
		goto out;
	}
	memcpy(name, (const char *)key + prefix, key_len - prefix - tail);
	name[key_len - prefix - tail] = '\0';
	memcpy(number, (const char *)key + key_len - 16, 16);
	ds = find_or_add(rec->jobs, name);
	c = ds ? add_cache(ds, shape, strtoull(hex, NULL, 16)) : NULL;
	if (!c) {
		rec->r = -ENOMEM;
		goto out;
	}
	c->record = strtoull(number, NULL, 16);
	c->state = CACHE_READY;
	if (c->record > rec->jobs->number)
		rec->jobs->number = c->record;
out:
	cJSON_Delete(json);
	return rec->r;
}

/* The first level below datasets/: whether each is as the caches say is seen when it settled. */
static int on_dir(void *data, const struct host_entry *e)
{
	struct recovery *rec = data;

	if (e->is_dir && !strchr(e->path, '/') && !find_or_add(rec->jobs, e->path))
		return rec->r = -ENOMEM;
	return 0;
}

int dataset_recover(struct jobs *jobs)
{
	struct recovery rec = {.jobs = jobs};
	int r;

	r = jobs->ops->scan(jobs->host, "dataset/", strlen("dataset/"), on_record, &rec);
	if (r >= 0)
		r = rec.r;
	if (r == 0) {
		r = jobs->ops->walk(jobs->host, "datasets", on_dir, &rec);
		r = rec.r < 0 ? rec.r : r == -ENOENT || r > 0 ? 0 : r;
	}
	/* One that is only in the records is found to be gone when it settles. */
	for (struct dataset_entry *ds = jobs->datasets; r == 0 && ds; ds = ds->next)
		jobs_dataset_changed(jobs, ds->name);
	return r;
}

void dataset_status(struct jobs *jobs, struct buf *ret)
{
	const struct scanner *s = &jobs->scanner;

	if (s->ds)
		buf_addf(ret, "dataset %s scanning %zu/%zu files\n", s->ds->name, s->at, s->n);
}
