/* A world around one endpoint, infer/app: see fake_host.h. */
#include "tests/support/fake_host.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN "infer/app/in/"

static void make_sched(struct world *w)
{
	if (sched_new_on(&w->s, &fake_host_ops, &w->host, &w->options, w->loop) < 0)
		abort();
}

void world_init(struct world *w, const char *model_json, const char *spec_json)
{
	world_init_workers(w, model_json, spec_json, 1);
}

void world_init_workers(struct world *w, const char *model_json, const char *spec_json, int workers)
{
	const char *queue = getenv("TEST_QUEUE"); /* the same with nearly all instances waiting on disk */

	*w = (struct world){.options = {.settle_ns = 50 * NS_PER_MS,
					.settle_batch_ns = NS_PER_S,
					.workers = workers,
					.worker_threads = 1,
					.null_backend = true}};
	if (queue)
		w->options.queue = atoi(queue);
	if (loop_new(&w->loop, true) < 0)
		abort();
	fake_host_init(&w->host, w->loop);
	fake_mkdir(&w->host, "infer/app/in");
	fake_mkdir(&w->host, "infer/app/out");
	fake_mkdir(&w->host, "models/m/1");
	fake_put(&w->host, "models/m/1/model.json", model_json);
	fake_put(&w->host, "models/m/1/weights.safetensors", "");
	fake_put(&w->host, "infer/app/spec.json", spec_json);
	make_sched(w);
	sched_begin(w->s);
	world_run(w, 1);
}

void world_crash(struct world *w)
{
	sched_free(w->s);
	w->s = NULL;
	fake_host_crash(&w->host);
	/* What was posted to the dead scheduler is gone with it; nothing else posts to this loop. */
}

void world_restart(struct world *w)
{
	make_sched(w);
	sched_begin(w->s);
}

void world_release(struct world *w)
{
	sched_free(w->s);
	fake_host_release(&w->host);
	loop_free(w->loop);
}

void world_run(struct world *w, int64_t ms)
{
	loop_fake_advance(w->loop, loop_now(w->loop) + ms * NS_PER_MS);
}

int64_t world_ms(const struct world *w)
{
	return loop_now(w->loop) / NS_PER_MS;
}

static char *in_path(const char *path)
{
	char *whole;

	if (asprintf(&whole, "%s%s", *path ? IN : "infer/app/in", path) < 0)
		abort();
	return whole;
}

/* Messages are run at once, so that a crash finds none of them in the loop. */
static void deliver(struct world *w)
{
	world_run(w, 0);
}

void world_open(struct world *w, const char *path, const char *content)
{
	char *whole = in_path(path);
	uint64_t ino = fake_put(&w->host, whole, content);

	sched_post_instance(w->s, "app", INSTANCE_WRITING, path, ino);
	free(whole);
	deliver(w);
}

void world_close(struct world *w, const char *path)
{
	char *whole = in_path(path);

	sched_post_instance(w->s, "app", INSTANCE_COMPLETE, path, fake_ino(&w->host, whole));
	free(whole);
	deliver(w);
}

void world_put(struct world *w, const char *path, const char *content)
{
	world_open(w, path, content);
	world_close(w, path);
}

void world_remove(struct world *w, const char *path)
{
	char *whole = in_path(path);
	uint64_t ino = fake_ino(&w->host, whole);

	fake_remove(&w->host, whole);
	sched_post_instance(w->s, "app", INSTANCE_REMOVED, path, ino);
	free(whole);
	deliver(w);
}

void world_mkdir(struct world *w, const char *path)
{
	char *whole = in_path(path);

	fake_mkdir(&w->host, whole);
	sched_post_batch(w->s, "app", BATCH_MADE, path, fake_ino(&w->host, whole));
	free(whole);
	deliver(w);
}

void world_deadline(struct world *w, const char *path, const char *text)
{
	char *whole = in_path(path);

	fake_setxattr(&w->host, whole, "user.deadline", text);
	sched_post_deadline(w->s, "app", path, fake_ino(&w->host, whole), text);
	free(whole);
	deliver(w);
}

void world_submit(struct world *w, const char *app, const char *name, int n, const char *deadline,
		  const char *content)
{
	char path[400];

	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "infer/%s/in/%s/%06d", app, name, i);
		fake_put(&w->host, path, content);
	}
	snprintf(path, sizeof(path), "infer/%s/in/%s", app, name);
	if (deadline)
		fake_setxattr(&w->host, path, "user.deadline", deadline);
	sched_post_batch(w->s, app, BATCH_RENAMED_IN, name, fake_ino(&w->host, path));
	world_run(w, 0);
}

static cJSON *json_of(struct world *w, const char *file)
{
	char *whole;
	const char *text;

	if (asprintf(&whole, "infer/app/%s", file) < 0)
		abort();
	text = fake_content(&w->host, whole);
	free(whole);
	return text ? cJSON_Parse(text) : NULL;
}

double world_number(struct world *w, const char *file, const char *key)
{
	cJSON *json = json_of(w, file);
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
	double ret = cJSON_IsNumber(item) ? item->valuedouble : cJSON_IsBool(item) ? cJSON_IsTrue(item) : NAN;

	cJSON_Delete(json);
	return ret;
}

double world_task_number(struct world *w, const char *batch, const char *key)
{
	char path[400];

	snprintf(path, sizeof(path), "out/%s/task.json", batch);
	return world_number(w, path, key);
}

const char *world_text(struct world *w, const char *file, const char *key)
{
	static char text[1024];
	cJSON *json = json_of(w, file);
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
	bool there = cJSON_IsString(item);

	if (there)
		snprintf(text, sizeof(text), "%s", item->valuestring);
	cJSON_Delete(json);
	return there ? text : NULL;
}

const char *world_status(struct world *w, const char *path)
{
	char file[4400];

	snprintf(file, sizeof(file), "out/%s.json", path);
	return world_text(w, file, "status");
}

double world_stat(struct world *w, const char *key)
{
	return world_number(w, "stats.json", key);
}

int world_answered_once(struct world *w, const char *path)
{
	char *in = in_path(path), *out;
	const char *state = fake_xattr(&w->host, in, "user.state"), *status = world_status(w, path);
	int ok;

	if (asprintf(&out, "infer/app/out/%s.json", path) < 0)
		abort();
	ok = status && fake_times(&w->host, out) == 1 &&
	     (!fake_ino(&w->host, in) || (state && strcmp(state, status) == 0));
	free(in);
	free(out);
	return ok;
}
