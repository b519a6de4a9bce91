/*
 * Data sets. A change starts the settle clock anew; when it was quiet the directory is walked and its
 * fingerprint (of path, inode, size, mtime of every file that counts) compared. Another fingerprint drops the
 * caches of the old one and asks for a scan; so does a job that wants a shape nobody asked for yet. A cache
 * is valid after a restart exactly when its record exists: the worker makes the file durable before its last word, and
 * dataset.json is visible before it.
 *
 * Files that don't count: dataset.json (written here), hidden ones (also rsync's and git's), and unfinished
 * ones by their names.
 */
#include "sched/jobs_private.h"

#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cJSON.h>

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

static void forget_crashers(struct dataset_entry *ds)
{
	struct crasher *c;

	while ((c = ds->crashers)) {
		ds->crashers = c->next;
		free(c->path);
		free(c);
	}
	ds->n_crashers = 0;
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

/* --- dataset.json --- */

struct announced {
	struct announced *next;
	struct jobs *jobs;
	uint64_t fingerprint;
	char name[];
};

static void announced_free(struct announced *a)
{
	struct announced **p = &a->jobs->announced;

	while (*p != a)
		p = &(*p)->next;
	*p = a->next;
	free(a);
}

static void json_visible(void *data, int r, int64_t visible)
{
	struct announced *a = data;
	struct dataset_entry *ds = find(a->jobs, a->name);
	struct cache *c = ds ? find_cache(ds, "") : NULL;

	(void)visible;
	if (c && c->state == CACHE_READY && !c->record && c->fingerprint == a->fingerprint) {
		if (r == 0)
			r = cache_record(ds, c);
		if (r < 0)
			log_error("data set %s is scanned again at the next start: %s", a->name,
				  strerror(-r));
	}
	announced_free(a);
}

/* Recorded before, a crash would leave the dataset.json of an older scan for good. */
int dataset_scanned(struct dataset_entry *ds, struct cache *c, const void *json, size_t len)
{
	struct jobs *jobs = ds->jobs;
	struct announced *a;
	char *path;

	if (*c->shape)
		return cache_record(ds, c);
	a = malloc(sizeof(*a) + strlen(ds->name) + 1);
	if (!a || asprintf(&path, "datasets/%s/dataset.json", ds->name) < 0) {
		free(a);
		return -ENOMEM;
	}
	*a = (struct announced){.next = jobs->announced, .jobs = jobs, .fingerprint = c->fingerprint};
	strcpy(a->name, ds->name);
	jobs->announced = a;
	jobs_publish_then(jobs, HOST_RESULT, json, len, path, json_visible, a);
	free(path);
	return 0;
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

uint64_t mix_entry(uint64_t h, const struct host_entry *e)
{
	h = mix(mix(h, e->ino), e->size);
	return mix(mix(h, (uint64_t)e->mtime.tv_sec), (uint64_t)e->mtime.tv_nsec);
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

static int on_file(void *data, const struct host_entry *e)
{
	struct dataset_walk *walk = data;
	uint64_t h = 0;

	if (e->is_dir || e->is_other || !counts(e->path))
		return 0;
	for (const char *p = e->path; *p; p++)
		h = mix(h, (uint8_t)*p);
	walk->fingerprint += mix_entry(h, e); /* a sum: the order of the walk does not matter */
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

void scan_files_free(struct scan_file *files, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(files[i].path);
	free(files);
}

int dataset_walk(struct dataset_entry *ds, struct dataset_walk *walk)
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
	struct dataset_walk walk = {0};
	struct cache *natural;
	int r;

	ds->settle = NULL;
	r = dataset_walk(ds, &walk);
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
	if (!ds->known || ds->fingerprint != walk.fingerprint)
		forget_crashers(ds);
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
	if (jobs->scanner.ds == ds) {
		scan_kill(jobs);
		jobs_kick(jobs); /* others wait for the scanner, and this one may change for hours */
	}
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
	forget_crashers(ds);
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
	for (struct announced *a = jobs->announced, *next; a; a = next) {
		next = a->next;
		free(a);
	}
	jobs->announced = NULL;
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
	if (cache && cache->state == CACHE_WANTED)
		return -EAGAIN; /* the scanner knows; kicked again it would keep asking us */
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

	if (!e->is_dir || strchr(e->path, '/'))
		return 0;
	if (!find_or_add(rec->jobs, e->path))
		return rec->r = -ENOMEM;
	return HOST_NOT_BELOW;
}

void dataset_cache_bad(struct jobs *jobs, const char *name, int c, int h, int w)
{
	struct dataset_entry *ds = find(jobs, name);
	char shape[48] = "";
	struct cache *cache;

	if (c)
		snprintf(shape, sizeof(shape), "%dx%dx%d", c, h, w);
	cache = ds ? find_cache(ds, shape) : NULL;
	if (cache && cache->state == CACHE_READY)
		cache_remove(ds, cache);
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
		if (r < 0 && r != -ENOENT && rec.r == 0)
			log_error("not all data sets are looked at after this start: %s", strerror(-r));
		r = rec.r;
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
