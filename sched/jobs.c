#include "sched/jobs.h"

#include "engine/base/log.h"
#include "sched/jobs_private.h"
#include "sched/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	import_next(jobs);
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

void job_unpublish_error(struct job *job)
{
	jobs_unpublish(job->jobs, "jobs/%s/error", job->name);
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
		job_unpublish_error(job);
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

struct job *job_new(struct jobs *jobs, const char *name)
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

int job_take_spec(struct job *job, const char *json, size_t len, struct err *err)
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

void job_publish_knobs(struct job *job, const struct train_spec *spec)
{
	struct buf knobs = BUF_INIT;

	if (train_spec_to_json(spec, &knobs) == 0)
		jobs_publish(job->jobs, HOST_RESULT, knobs.data, knobs.len, "jobs/%s/trials/1/knobs.json",
			     job->name);
	buf_release(&knobs);
}

void jobs_spec(struct jobs *jobs, const char *name, const char *json, size_t len)
{
	struct job *job = jobs_find(jobs, name);
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
	r = job_take_spec(job, json, len, &err);
	if (r < 0) {
		if (err.code == ERR_NONE)
			err_set(&err, ERR_IO, "spec.json: %s", strerror(-r));
		job_forget_checkpoint(job);
		job_set_state(job, JOB_FAILED, &err);
		return;
	}
	job_publish_knobs(job, job->parsed);
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
	import_stop(jobs);
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
	imports_free_all(jobs);
	models_free_all(jobs);
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
	imports_status(jobs, ret);
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
		metrics_label(ret, job->name);
		buf_addf(ret, "\"} %.2f\n", job->progress.percent);
	}
	buf_adds(ret, "# HELP inferfs_job_samples_per_second Training speed of the running job.\n"
		      "# TYPE inferfs_job_samples_per_second gauge\n");
	for (struct job *job = jobs->jobs; job; job = job->next) {
		buf_adds(ret, "inferfs_job_samples_per_second{job=\"");
		metrics_label(ret, job->name);
		buf_addf(ret, "\"} %.1f\n", job->state == JOB_RUNNING ? job->progress.samples_per_s : 0);
	}
}
