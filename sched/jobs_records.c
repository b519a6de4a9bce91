/* What the host's key space remembers of jobs, and how a start takes it up. */
#include "sched/jobs.h"

#include "engine/base/log.h"
#include "sched/jobs_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>

/* --- records --- */

static uint64_t hash_bytes(const char *data, size_t len)
{
	uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)data[i]) * UINT64_C(1099511628211);
	return h;
}

void jobs_record_ops(struct jobs *jobs, const char *prefix, const char *name, uint64_t record,
		     const char *value, struct record_ops *ret)
{
	struct host_op *op = ret->ops;

	ret->number = value ? jobs_number(jobs) : 0;
	if (value) {
		int len =
			snprintf(ret->put, sizeof(ret->put), "%s/%s/%016" PRIx64, prefix, name, ret->number);

		*op++ = (struct host_op){.type = HOST_PUT,
					 .key = ret->put,
					 .key_len = (size_t)len,
					 .value = value,
					 .value_len = strlen(value)};
	}
	if (record) {
		int len = snprintf(ret->del, sizeof(ret->del), "%s/%s/%016" PRIx64, prefix, name, record);

		*op++ = (struct host_op){.type = HOST_DEL, .key = ret->del, .key_len = (size_t)len};
	}
	ret->n = (size_t)(op - ret->ops);
}

int jobs_record(struct jobs *jobs, const char *prefix, const char *name, uint64_t *record, const char *value)
{
	struct record_ops set;
	int r;

	jobs_record_ops(jobs, prefix, name, *record, value, &set);
	if (!set.n)
		return 0;
	r = jobs->ops->commit(jobs->host, set.ops, set.n);
	if (r < 0) {
		log_error("%s %s: its record can't be written: %s", prefix, name, strerror(-r));
		return r;
	}
	*record = set.number;
	return 0;
}

int job_save(struct job *job)
{
	cJSON *json = cJSON_CreateObject();
	char hex[24], *text = NULL;
	int r = -ENOMEM;

	snprintf(hex, sizeof(hex), "%016" PRIx64, hash_bytes(job->spec, job->spec_len));
	if (json && cJSON_AddStringToObject(json, "state", job_state_names[job->state]) &&
	    cJSON_AddStringToObject(json, "spec", hex) &&
	    cJSON_AddNumberToObject(json, "version", job->version) &&
	    cJSON_AddNumberToObject(json, "epoch", job->epoch) &&
	    cJSON_AddNumberToObject(json, "deaths", job->deaths) &&
	    cJSON_AddStringToObject(json, "error", err_name(job->error))) {
		snprintf(hex, sizeof(hex), "%" PRIu64, job->order);
		if (cJSON_AddStringToObject(json, "order", hex))
			text = cJSON_PrintUnformatted(json);
	}
	if (text)
		r = jobs_record(job->jobs, "job", job->name, &job->record, text);
	cJSON_free(text);
	cJSON_Delete(json);
	return r;
}

/* --- recovery --- */

static bool record_get(const cJSON *json, const char *key, int *ret)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);

	if (!cJSON_IsNumber(item))
		return false;
	*ret = item->valueint;
	return true;
}

struct recovery {
	struct jobs *jobs;
	struct name {
		struct name *next;
		uint64_t ino; /* of spec.json */
		char name[];
	} * names;
	int r;
};

static int add_name(struct recovery *rec, const char *name, size_t len, uint64_t ino)
{
	struct name *n = calloc(1, sizeof(*n) + len + 1);

	if (!n)
		return rec->r = -ENOMEM;
	n->ino = ino;
	memcpy(n->name, name, len);
	n->next = rec->names;
	rec->names = n;
	return 0;
}

static void free_names(struct recovery *rec)
{
	struct name *n;

	while ((n = rec->names)) {
		rec->names = n->next;
		free(n);
	}
}

/* "job/NAME/NUMBER" → NAME and the number. */
static int on_record(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct recovery *rec = data;
	const size_t prefix = strlen("job/"), tail = 1 + 16;
	cJSON *json = cJSON_ParseWithLength(value, value_len);
	const char *state, *order, *spec, *error;
	char name[300], number[17] = "";
	struct job *job;

	if (key_len <= prefix + tail || key_len - prefix - tail >= sizeof(name) || !json) {
		log_error("a job's record is damaged and left alone");
		goto out;
	}
	memcpy(name, (const char *)key + prefix, key_len - prefix - tail);
	name[key_len - prefix - tail] = '\0';
	memcpy(number, (const char *)key + key_len - 16, 16);
	state = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "state"));
	spec = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "spec"));
	order = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "order"));
	error = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "error"));
	job = jobs_find(rec->jobs, name) ? NULL : job_new(rec->jobs, name);
	if (!job) {
		rec->r = -ENOMEM;
		goto out;
	}
	job->record = strtoull(number, NULL, 16);
	if (job->record > rec->jobs->number)
		rec->jobs->number = job->record;
	for (int i = 0; state && i < JOB_STATES; i++)
		if (strcmp(state, job_state_names[i]) == 0)
			job->state = i;
	for (int i = 0; error && i < ERR_COUNT; i++)
		if (strcmp(error, err_name(i)) == 0)
			job->error = i;
	job->order = order ? strtoull(order, NULL, 10) : 0;
	record_get(json, "version", &job->version);
	record_get(json, "epoch", &job->epoch);
	record_get(json, "deaths", &job->deaths);
	job->recorded_spec = spec ? strtoull(spec, NULL, 16) : 0;
out:
	cJSON_Delete(json);
	return rec->r;
}

static int on_path(void *data, const struct host_entry *e)
{
	struct recovery *rec = data;
	const char *slash = strchr(e->path, '/');

	if (!e->is_dir && !e->is_other && slash && strcmp(slash, "/spec.json") == 0)
		return add_name(rec, e->path, (size_t)(slash - e->path), e->ino);
	return 0;
}

/* A job whose spec.json is as the record says goes on; another text is a spec that was closed just before the
 * daemon died. */
static int recover_job(struct jobs *jobs, const struct name *n)
{
	struct job *job = jobs_find(jobs, n->name);
	struct err err = ERR_INIT;
	void *spec;
	size_t len;
	int r;

	r = jobs->ops->read(jobs->host, n->ino, MAX_SPEC, &spec, &len);
	if (r < 0) {
		log_error("job %s: its spec.json can't be read: %s", n->name, strerror(-r));
		return 0;
	}
	if (job && job->recorded_spec == hash_bytes(spec, len)) {
		if (job_take_spec(job, spec, len, &err) < 0 && job->state != JOB_FAILED)
			job_set_state(job, JOB_FAILED, &err);
		job_read_back(job);
		if (job->state == JOB_RUNNING) {
			job->state = JOB_QUEUED;
			job_log(job, "goes on after a restart, from epoch %d", job->epoch);
			job_save(job);
		}
		job_publish_state(job);
		if (job->state != JOB_FAILED)
			job_unpublish_error(job);
	} else {
		jobs_spec(jobs, n->name, spec, len);
	}
	free(spec);
	return 0;
}

int jobs_start(struct jobs *jobs)
{
	struct recovery rec = {.jobs = jobs};
	int r;

	r = jobs->ops->scan(jobs->host, "job/", strlen("job/"), on_record, &rec);
	if (r >= 0)
		r = rec.r;
	if (r == 0)
		r = dataset_recover(jobs);
	if (r == 0)
		r = models_recover(jobs);
	if (r == 0) {
		r = jobs->ops->walk(jobs->host, "jobs", on_path, &rec);
		if (r == -ENOENT || r > 0)
			r = 0;
		if (rec.r < 0)
			r = rec.r;
	}
	for (struct name *n = rec.names; r == 0 && n; n = n->next)
		r = recover_job(jobs, n);
	/* A record without spec.json: removed while nobody looked. */
	for (struct job *job = jobs->jobs, *next; r == 0 && job; job = next) {
		next = job->next;
		if (!job->spec)
			jobs_gone(jobs, job->name);
	}
	free_names(&rec);
	jobs_kick(jobs);
	return r;
}
