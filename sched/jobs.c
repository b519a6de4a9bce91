#include "sched/jobs.h"

#include "engine/base/log.h"
#include "sched/jobs_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>

const char *const job_state_names[JOB_STATES] = {
	[JOB_QUEUED] = "queued", [JOB_RUNNING] = "running", [JOB_PAUSED] = "paused",
	[JOB_DONE] = "done",     [JOB_FAILED] = "failed",   [JOB_STOPPED] = "stopped",
};

static void look_for_work(void *data)
{
	struct jobs *jobs = data;

	jobs->kick = NULL;
	scan_next(jobs);
	train_next(jobs);
}

void jobs_kick(struct jobs *jobs)
{
	if (!jobs->kick && !jobs->stopped)
		jobs->kick = loop_timer_at(jobs->loop, loop_now(jobs->loop), look_for_work, jobs);
}

uint64_t jobs_number(struct jobs *jobs)
{
	uint64_t wall = (uint64_t)loop_wall(jobs->loop);

	jobs->number = wall > jobs->number ? wall : jobs->number + 1;
	return jobs->number;
}

/* --- records --- */

static uint64_t hash_bytes(const char *data, size_t len)
{
	uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)data[i]) * UINT64_C(1099511628211);
	return h;
}

int jobs_record(struct jobs *jobs, const char *prefix, const char *name, uint64_t *record, const char *value)
{
	char key[2][600];
	struct host_op ops[2];
	uint64_t number = value ? jobs_number(jobs) : 0;
	size_t n = 0;
	int r;

	if (value) {
		int len = snprintf(key[n], sizeof(key[n]), "%s/%s/%016" PRIx64, prefix, name, number);

		ops[n] = (struct host_op){.type = HOST_PUT,
					  .key = key[n],
					  .key_len = (size_t)len,
					  .value = value,
					  .value_len = strlen(value)};
		n++;
	}
	if (*record) {
		int len = snprintf(key[n], sizeof(key[n]), "%s/%s/%016" PRIx64, prefix, name, *record);

		ops[n] = (struct host_op){.type = HOST_DEL, .key = key[n], .key_len = (size_t)len};
		n++;
	}
	if (!n)
		return 0;
	r = jobs->ops->commit(jobs->host, ops, n);
	if (r < 0) {
		log_error("%s %s: its record can't be written: %s", prefix, name, strerror(-r));
		return r;
	}
	*record = number;
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

void job_forget_checkpoint(struct job *job)
{
	char *name;

	job->epoch = 0;
	if (asprintf(&name, "checkpoint/%s", job->name) < 0)
		return;
	job->jobs->ops->state_remove(job->jobs->host, name);
	free(name);
}

/* --- states --- */

static void unpublish_error(struct job *job)
{
	char *path;

	if (asprintf(&path, "jobs/%s/error", job->name) < 0)
		return;
	job->jobs->ops->unpublish(job->jobs->host, path);
	free(path);
}

void job_set_state(struct job *job, enum job_state state, const struct err *err)
{
	char text[640];

	job->state = state;
	job->wanted = JOB_RUNNING;
	job->waits_for[0] = '\0';
	job->error = err ? err->code : ERR_NONE;
	job_save(job);
	if (err) {
		err_format(err, text, sizeof(text) - 1);
		job_log(job, "failed: %s", text);
		strcat(text, "\n");
		jobs_publish(job->jobs, HOST_RESULT, text, strlen(text), "jobs/%s/error", job->name);
	} else {
		unpublish_error(job);
		job_log(job, "%s", job_state_names[state]);
	}
	job_publish_state(job);
	if (job->jobs->events && job->jobs->events->state_changed)
		job->jobs->events->state_changed(job->jobs->data, job->name, job_state_names[state]);
	jobs_kick(job->jobs);
}

/* --- the table --- */

struct job *jobs_find(struct jobs *jobs, const char *name)
{
	struct job *job = jobs->jobs;

	while (job && strcmp(job->name, name) != 0)
		job = job->next;
	return job;
}

static struct job *job_new(struct jobs *jobs, const char *name)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	*job = (struct job){.jobs = jobs, .wanted = JOB_RUNNING, .name = strdup(name)};
	if (!job->name) {
		free(job);
		return NULL;
	}
	job->next = jobs->jobs;
	jobs->jobs = job;
	return job;
}

static void job_free(struct job *job)
{
	struct job **p = &job->jobs->jobs;

	while (*p != job)
		p = &(*p)->next;
	*p = job->next;
	publishing_forget(job);
	train_spec_free(job->parsed);
	buf_release(&job->log);
	free(job->rows);
	free(job->spec);
	free(job->name);
	free(job);
}

static int set_spec(struct job *job, const char *json, size_t len, struct err *err)
{
	char *copy = malloc(len + 1);

	if (!copy)
		return err_set(err, ERR_NO_MEMORY, "spec.json");
	memcpy(copy, json, len);
	copy[len] = '\0';
	free(job->spec);
	job->spec = copy;
	job->spec_len = len;
	train_spec_free(job->parsed);
	job->parsed = NULL;
	return train_spec_parse(&job->parsed, json, len, err);
}

static void queue(struct job *job)
{
	job->order = jobs_number(job->jobs);
	job->deaths = 0;
	job->not_before = 0;
	job_set_state(job, JOB_QUEUED, NULL);
}

/* Everything that an earlier run left does not count any more. */
static void start_over(struct job *job)
{
	publishing_forget(job);
	job_forget_checkpoint(job);
	job->version = 0;
	job->progress = (struct train_progress){0};
	job_keep_rows(job, 0);
	queue(job);
}

void jobs_spec(struct jobs *jobs, const char *name, const char *json, size_t len)
{
	struct job *job = jobs_find(jobs, name);
	struct buf knobs = BUF_INIT;
	struct err err = ERR_INIT;
	int r;

	if (job && job->state <= JOB_PAUSED && job->parsed && job->spec_len == len &&
	    memcmp(job->spec, json, len) == 0)
		return;
	if (!job)
		job = job_new(jobs, name);
	if (!job) {
		log_error("job %s: no memory", name);
		return;
	}
	if (jobs->trainer.job == job)
		train_kill(jobs);
	r = set_spec(job, json, len, &err);
	if (r < 0) {
		if (err.code == ERR_NONE)
			err_set(&err, ERR_IO, "spec.json: %s", strerror(-r));
		job_forget_checkpoint(job);
		job_set_state(job, JOB_FAILED, &err);
		return;
	}
	if (train_spec_to_json(job->parsed, &knobs) == 0)
		jobs_publish(jobs, HOST_RESULT, knobs.data, knobs.len, "jobs/%s/trials/1/knobs.json", name);
	buf_release(&knobs);
	start_over(job);
}

void jobs_gone(struct jobs *jobs, const char *name)
{
	struct job *job = jobs_find(jobs, name);

	if (!job)
		return;
	if (jobs->trainer.job == job)
		train_kill(jobs);
	job_forget_checkpoint(job);
	jobs_record(jobs, "job", name, &job->record, NULL);
	if (jobs->events && jobs->events->state_changed)
		jobs->events->state_changed(jobs->data, name, "removed");
	job_free(job);
	jobs_kick(jobs);
}

/* --- words --- */

static void word_pause(struct job *job)
{
	if (job->state == JOB_RUNNING)
		train_tell_stop(job, JOB_PAUSED);
	else
		job_set_state(job, JOB_PAUSED, NULL);
}

static void word_stop(struct job *job)
{
	if (job->state == JOB_RUNNING)
		train_tell_stop(job, JOB_STOPPED);
	else
		job_set_state(job, JOB_STOPPED, NULL);
}

static void word_resume(struct job *job)
{
	if (job->state == JOB_RUNNING) /* still on its way to a pause */
		job->wanted = JOB_QUEUED;
	else
		queue(job);
}

/* What failed for a reason outside the run goes on from its checkpoint; all else starts again. */
static void word_retry(struct job *job)
{
	bool go_on =
		job->state == JOB_FAILED && job->error != ERR_BAD_CHECKPOINT && job->error != ERR_DIVERGED;

	if (!job->parsed)
		job_log(job, "retry: mend spec.json first");
	else if (go_on)
		queue(job);
	else
		start_over(job);
}

#define IN(state) (1u << (state))

static const struct word {
	const char *name;
	unsigned states; /* in which it means something */
	void (*act)(struct job *job);
} words[] = {
	{"pause", IN(JOB_QUEUED) | IN(JOB_RUNNING), word_pause},
	{"resume", IN(JOB_PAUSED) | IN(JOB_STOPPED) | IN(JOB_RUNNING), word_resume},
	{"stop", IN(JOB_QUEUED) | IN(JOB_RUNNING) | IN(JOB_PAUSED), word_stop},
	{"retry", IN(JOB_FAILED) | IN(JOB_STOPPED) | IN(JOB_DONE), word_retry},
};
#define N_WORDS (sizeof(words) / sizeof(words[0]))

/* One trailing newline is what `echo` writes. */
static const struct word *find_word(const char *text, size_t len)
{
	if (len && text[len - 1] == '\n')
		len--;
	for (size_t i = 0; i < N_WORDS; i++)
		if (strlen(words[i].name) == len && memcmp(words[i].name, text, len) == 0)
			return &words[i];
	return NULL;
}

int jobs_check_ctl(const char *text, size_t len, struct err *err)
{
	if (find_word(text, len))
		return 0;
	return err_set(err, ERR_BAD_CTL, "\"%.*s\"; a job knows pause, resume, stop, retry",
		       len > 40 ? 40 : (int)len, text);
}

void jobs_ctl(struct jobs *jobs, const char *name, const char *word)
{
	const struct word *w = find_word(word, strlen(word));
	struct job *job = jobs_find(jobs, name);

	if (!job || !w) {
		log_warn("job %s: ctl \"%s\" has no effect", name, word);
		return;
	}
	if (!(w->states & IN(job->state)) ||
	    (w->act == word_resume && job->state == JOB_RUNNING && job->wanted == JOB_RUNNING)) {
		job_log(job, "%s has no effect: the job is %s", w->name, job_state_names[job->state]);
		return;
	}
	w->act(job);
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
		if (set_spec(job, spec, len, &err) < 0 && job->state != JOB_FAILED)
			job_set_state(job, JOB_FAILED, &err);
		job_read_back(job);
		if (job->state == JOB_RUNNING) {
			job->state = JOB_QUEUED;
			job_log(job, "goes on after a restart, from epoch %d", job->epoch);
			job_save(job);
		}
		job_publish_state(job);
		if (job->state != JOB_FAILED)
			unpublish_error(job);
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

/* --- life --- */

int jobs_new(struct jobs **ret, struct loop *loop, const struct host_ops *ops, void *host,
	     const struct sched_options *options, const struct jobs_events *events, void *data)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));

	if (!jobs)
		return -ENOMEM;
	*jobs = (struct jobs){
		.loop = loop, .ops = ops, .host = host, .options = options, .events = events, .data = data};
	reaper_init(&jobs->reaper, loop);
	*ret = jobs;
	return 0;
}

void jobs_stop(struct jobs *jobs)
{
	jobs->stopped = true;
	loop_timer_cancel(jobs->loop, jobs->kick);
	jobs->kick = NULL;
	train_kill(jobs);
	scan_kill(jobs);
}

void jobs_free(struct jobs *jobs)
{
	if (!jobs)
		return;
	jobs_stop(jobs);
	reaper_release(&jobs->reaper);
	for (struct job *job = jobs->jobs, *next; job; job = next) {
		next = job->next;
		job_free(job);
	}
	dataset_free_all(jobs);
	publishing_free_all(jobs);
	free(jobs);
}

/* --- for the tree's own files --- */

void jobs_status(struct jobs *jobs, struct buf *ret)
{
	for (struct job *job = jobs->jobs; job; job = job->next) {
		buf_addf(ret, "job %s %s", job->name, job_state_names[job->state]);
		if (job->state == JOB_FAILED) {
			buf_addf(ret, ": %s", err_sentence(job->error));
		} else {
			buf_adds(ret, " ");
			job_progress_text(job, ret);
		}
		buf_adds(ret, "\n");
	}
	dataset_status(jobs, ret);
}

/* A label value of the Prometheus text format. */
static void add_label(struct buf *b, const char *s)
{
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_add(b, "\\", 1);
		if (*s == '\n')
			buf_adds(b, "\\n");
		else
			buf_add(b, s, 1);
	}
}

void jobs_metrics(struct jobs *jobs, struct buf *ret)
{
	int count[JOB_STATES] = {0};

	for (struct job *job = jobs->jobs; job; job = job->next)
		count[job->state]++;
	buf_adds(ret, "# HELP inferfs_jobs Training jobs by state.\n# TYPE inferfs_jobs gauge\n");
	for (int i = 0; i < JOB_STATES; i++)
		buf_addf(ret, "inferfs_jobs{state=\"%s\"} %d\n", job_state_names[i], count[i]);
	if (!jobs->jobs)
		return;
	buf_adds(ret, "# HELP inferfs_job_percent How much of a training job is done.\n"
		      "# TYPE inferfs_job_percent gauge\n");
	for (struct job *job = jobs->jobs; job; job = job->next) {
		buf_adds(ret, "inferfs_job_percent{job=\"");
		add_label(ret, job->name);
		buf_addf(ret, "\"} %.2f\n", job->progress.percent);
	}
	buf_adds(ret, "# HELP inferfs_job_samples_per_second Training speed of the running job.\n"
		      "# TYPE inferfs_job_samples_per_second gauge\n");
	for (struct job *job = jobs->jobs; job; job = job->next) {
		buf_adds(ret, "inferfs_job_samples_per_second{job=\"");
		add_label(ret, job->name);
		buf_addf(ret, "\"} %.1f\n", job->state == JOB_RUNNING ? job->progress.samples_per_s : 0);
	}
}
