#include "sched/simulate/internal.h"

#include "sched/loop.h"

#include "engine/base/rng.h"
#include "engine/spec.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INSTANCES 200000  /* of a task; chosen */
#define MAX_TASKS     100000  /* of a run; chosen */
#define MAX_TOTAL     5000000 /* instances of a run; chosen: some minutes */
#define MAX_MS        1e7     /* the null executor's */
#define MAX_SECONDS   1e6
#define MAX_ENDPOINTS 64 /* chosen */

/* numbers: (n) of them, from min to max; `n` is what is there when it is 0. */
static int read_list(const cJSON *object, const char *key, double min, double max, double *numbers, int *n,
		     struct err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, key), *item;
	int count = cJSON_GetArraySize(list), i = 0;

	if (!cJSON_IsArray(list) || count < 1 || count > MAX_SUBMODELS || (*n && count != *n))
		return err_set(err, ERR_SPEC_VALUE, "\"%s\" must be a list of %d numbers%s", key,
			       *n ? *n : MAX_SUBMODELS, *n ? "" : " at most");
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max))
			return err_set(err, ERR_SPEC_VALUE, "\"%s\" must hold numbers from %g to %g", key,
				       min, max);
		numbers[i++] = item->valuedouble;
	}
	*n = count;
	return 0;
}

/* Percent of a sub-model at CASCADE_POINTS shares, as 0…1; null: none. */
static int read_shares(const cJSON *list, const char *key, float ret[CASCADE_POINTS], struct err *err)
{
	const cJSON *item;
	int k = 0;

	if (cJSON_IsNull(list))
		return 0;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != CASCADE_POINTS)
		return err_set(err, ERR_SPEC_VALUE, "\"profile.%s\" must hold lists of %d numbers", key,
			       CASCADE_POINTS);
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 100))
			return err_set(err, ERR_SPEC_VALUE, "\"profile.%s\" must hold numbers from 0 to 100",
				       key);
		ret[k++] = (float)(item->valuedouble / 100);
	}
	return 0;
}

/* A list with one for each sub-model. */
static int check_lists(const struct sim_endpoint *t, const cJSON *list, const char *key, struct err *err)
{
	if (cJSON_IsArray(list) && cJSON_GetArraySize(list) == t->n)
		return 0;
	return err_set(err, ERR_SPEC_VALUE, "\"profile.%s\" must hold a list for each of the %d sub-models",
		       key, t->n);
}

static int read_cascades(struct sim_endpoint *t, const cJSON *profile, struct err *err)
{
	const cJSON *sure = cJSON_GetObjectItemCaseSensitive(profile, "sure"), *item, *inner,
		    *then = cJSON_GetObjectItemCaseSensitive(profile, "then");
	int r, i = 0, j;

	if (!sure && !then)
		return 0;
	if ((r = check_lists(t, sure, "sure", err)) < 0 || (r = check_lists(t, then, "then", err)) < 0)
		return r;
	cJSON_ArrayForEach(item, sure) if ((r = read_shares(item, "sure", t->sure[i++], err)) < 0) return r;
	i = 0;
	cJSON_ArrayForEach(item, then)
	{
		j = 0;
		if (!cJSON_IsNull(item) && (r = check_lists(t, item, "then", err)) < 0)
			return r;
		cJSON_ArrayForEach(inner, item) if ((r = read_shares(inner, "then", t->then[i][j++], err)) <
						    0) return r;
		i++;
	}
	return 0;
}

static int read_profile(struct sim_endpoint *t, const cJSON *root, struct err *err)
{
	static const char *const known[] = {"accuracy", "time_ms", "one_ms", "real_ms", "sure", "then", NULL};
	const cJSON *profile = cJSON_GetObjectItemCaseSensitive(root, "profile");
	double accuracy[MAX_SUBMODELS] = {0}, told[MAX_SUBMODELS] = {0}, one[MAX_SUBMODELS],
	       real[MAX_SUBMODELS];
	int r;

	if (!cJSON_IsObject(profile))
		return err_set(err, ERR_SPEC_MISSING, "\"profile\" with \"accuracy\" and \"time_ms\"");
	if ((r = spec_keys(profile, "profile", known, err)) < 0 ||
	    (r = read_list(profile, "accuracy", 0, 100, accuracy, &t->n, err)) < 0 ||
	    (r = read_list(profile, "time_ms", 1e-3, MAX_MS, told, &t->n, err)) < 0)
		return r;
	memcpy(one, told, sizeof(one));
	memcpy(real, told, sizeof(real));
	if (cJSON_HasObjectItem(profile, "one_ms") &&
	    (r = read_list(profile, "one_ms", 1e-3, MAX_MS, one, &t->n, err)) < 0)
		return r;
	if (cJSON_HasObjectItem(profile, "real_ms") &&
	    (r = read_list(profile, "real_ms", 1e-3, MAX_MS, real, &t->n, err)) < 0)
		return r;
	for (int i = 0; i < t->n; i++) {
		t->accuracy[i] = accuracy[i] / 100;
		t->told[i] = llround(told[i] * 1e6);
		t->real[i] = llround(real[i] * 1e6);
		t->real_one[i] = llround(fmin(one[i] / told[i], 1) * real[i] * 1e6);
	}
	return read_cascades(t, profile, err);
}

/* "1.5s" and the like, or a number of seconds; *ret stays where the key isn't there, and is INT64_MAX for null. */
static int read_time(const cJSON *object, const char *key, int64_t *ret, struct err *err)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
	struct deadline time;

	if (!item)
		return 0;
	if (cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble <= MAX_SECONDS) {
		*ret = llround(item->valuedouble * 1e9);
		return 0;
	}
	if (cJSON_IsNull(item)) {
		*ret = INT64_MAX;
		return 0;
	}
	if (!cJSON_IsString(item) ||
	    deadline_parse(&time, item->valuestring, strlen(item->valuestring), NULL) < 0 || time.absolute ||
	    (double)time.ns > MAX_SECONDS * 1e9)
		return err_set(err, ERR_SPEC_VALUE, "\"%s\" must be a time such as 5, \"5s\" or \"800ms\"",
			       key);
	*ret = time.ns;
	return 0;
}

static int read_instances(struct sim_endpoint *t, const cJSON *root, struct err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "instances"), *item;
	int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 1;

	if (!list)
		return err_set(err, ERR_SPEC_MISSING, "\"instances\" of a task, or \"tasks\"");
	t->instances = calloc((size_t)n + 1, sizeof(*t->instances));
	if (!t->instances)
		return err_set(err, ERR_NO_MEMORY, "a trace");
	for (int i = 0; i < n; i++) {
		item = cJSON_IsArray(list) ? cJSON_GetArrayItem(list, i) : list;
		if (!cJSON_IsNumber(item) || !(item->valuedouble >= 1 && item->valuedouble <= MAX_INSTANCES))
			return err_set(err, ERR_SPEC_VALUE,
				       "\"instances\" must be from 1 to %d, or a list of such",
				       MAX_INSTANCES);
		t->instances[t->n_instances++] = (int)item->valuedouble;
	}
	return n ? 0 : err_set(err, ERR_SPEC_VALUE, "\"instances\" is empty");
}

static int read_arrivals(struct sim_endpoint *t, const cJSON *root, struct err *err)
{
	static const char *const known[] = {"kind", "rate", "duration", "burst", NULL};
	static const char *const kinds[] = {"once", "uniform", "poisson", "bursty"};
	const cJSON *arrivals = cJSON_GetObjectItemCaseSensitive(root, "arrivals");
	const char *kind = "once";
	size_t i = 0;
	int r;

	t->rate = 1;
	t->duration = 60 * NS_PER_S;
	t->burst = 10;
	if (!arrivals)
		return 0;
	if ((r = spec_keys(arrivals, "arrivals", known, err)) < 0 ||
	    (r = spec_string(arrivals, "arrivals", "kind", &kind, err)) < 0 ||
	    (r = spec_double(arrivals, "arrivals", "rate", 1e-6, 1e6, &t->rate, err)) < 0 ||
	    (r = spec_int(arrivals, "arrivals", "burst", 1, MAX_TASKS, &t->burst, err)) < 0 ||
	    (r = read_time(arrivals, "duration", &t->duration, err)) < 0)
		return r;
	while (i < sizeof(kinds) / sizeof(kinds[0]) && strcmp(kinds[i], kind) != 0)
		i++;
	if (i == sizeof(kinds) / sizeof(kinds[0]) || t->duration == INT64_MAX)
		return err_set(err, ERR_SPEC_VALUE, "\"arrivals.%s",
			       t->duration == INT64_MAX ? "duration\" must end"
							: "kind\" must be once, uniform, poisson or bursty");
	t->arrivals = (enum arrivals)i;
	return 0;
}

static int by_time(const void *a, const void *b)
{
	const struct sim_task *x = a, *y = b;

	if (x->at == y->at)
		return (x->endpoint > y->endpoint) - (x->endpoint < y->endpoint);
	return (x->at > y->at) - (x->at < y->at);
}

static int read_tasks(struct sim_endpoint *t, const cJSON *list, struct err *err)
{
	static const char *const known[] = {"at", "instances", "deadline", NULL};
	const cJSON *item;
	int64_t total = 0;
	int r;

	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) < 1 || cJSON_GetArraySize(list) > MAX_TASKS)
		return err_set(err, ERR_SPEC_VALUE, "\"tasks\" must be a list of 1 to %d", MAX_TASKS);
	t->task = calloc((size_t)cJSON_GetArraySize(list), sizeof(*t->task));
	if (!t->task)
		return err_set(err, ERR_NO_MEMORY, "a trace");
	cJSON_ArrayForEach(item, list)
	{
		struct sim_task *task = &t->task[t->n_tasks++];

		*task = (struct sim_task){.deadline = t->deadline, .instances = 1};
		if ((r = spec_keys(item, "tasks", known, err)) < 0 ||
		    (r = spec_int(item, "tasks", "instances", 1, MAX_INSTANCES, &task->instances, err)) < 0 ||
		    (r = read_time(item, "at", &task->at, err)) < 0 ||
		    (r = read_time(item, "deadline", &task->deadline, err)) < 0)
			return r;
		total += task->instances;
		if (task->at == INT64_MAX || total > MAX_TOTAL)
			return err_set(err, ERR_SPEC_VALUE, "\"tasks\": %s",
				       task->at == INT64_MAX ? "\"at\" must be a time"
							     : "too many instances");
	}
	qsort(t->task, (size_t)t->n_tasks, sizeof(*t->task), by_time);
	return 0;
}

static int read_policies(struct trace *t, const cJSON *list, struct err *err)
{
	const cJSON *item;

	if (!list) {
		while ((t->policy[t->n_policies] = policy_at(t->n_policies)))
			t->n_policies++;
		return 0;
	}
	cJSON_ArrayForEach(item, list)
	{
		const struct policy *policy = cJSON_IsString(item) ? policy_find(item->valuestring) : NULL;

		if (!policy || t->n_policies == sizeof(t->policy) / sizeof(t->policy[0]))
			return err_set(err, ERR_SPEC_VALUE,
				       "\"policies\": \"%.40s\" is none; --help names them",
				       cJSON_IsString(item) ? item->valuestring : "?");
		t->policy[t->n_policies++] = policy;
	}
	return t->n_policies ? 0 : err_set(err, ERR_SPEC_VALUE, "\"policies\" must be a list of names");
}

/* json: of one endpoint, or of a trace that has one. */
static int read_endpoint(struct sim_endpoint *t, const cJSON *json, struct err *err)
{
	const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(json, "tasks");
	int r;

	if ((r = read_profile(t, json, err)) < 0 ||
	    (r = spec_int(json, "", "batch", 1, 1024, &t->batch, err)) < 0 ||
	    (r = read_time(json, "deadline", &t->deadline, err)) < 0 || (r = read_arrivals(t, json, err)) < 0)
		return r;
	return tasks ? read_tasks(t, tasks, err) : read_instances(t, json, err);
}

/* What one of "endpoints" does not say is as the trace says it. */
static int inherit(cJSON *to, const cJSON *from)
{
	static const char *const keys[] = {"profile", "batch", "deadline", "arrivals", "instances", "tasks"};
	bool own = cJSON_HasObjectItem(to, "instances") || cJSON_HasObjectItem(to, "tasks");

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const cJSON *item = cJSON_GetObjectItemCaseSensitive(from, keys[i]);
		cJSON *copy;

		if (!item || cJSON_GetObjectItemCaseSensitive(to, keys[i]) || (i > 3 && own))
			continue;
		copy = cJSON_Duplicate(item, true);
		if (!copy || !cJSON_AddItemToObject(to, keys[i], copy)) {
			cJSON_Delete(copy);
			return -ENOMEM;
		}
	}
	return 0;
}

static int read_named(struct sim_endpoint *t, const cJSON *item, const cJSON *root, struct err *err)
{
	static const char *const known[] = {"name",      "weight",   "profile", "batch", "deadline",
					    "instances", "arrivals", "tasks",   NULL};
	cJSON *json = cJSON_Duplicate(item, true);
	const char *name = "";
	int r;

	if (!json || inherit(json, root) < 0) {
		r = err_set(err, ERR_NO_MEMORY, "a trace");
		goto out;
	}
	if ((r = spec_keys(json, "endpoints", known, err)) < 0 ||
	    (r = spec_string(json, "endpoints", "name", &name, err)) < 0 ||
	    (r = spec_double(json, "endpoints", "weight", 0.01, 1000, &t->weight, err)) < 0 ||
	    (r = read_endpoint(t, json, err)) < 0)
		goto out;
	if (!*name || strlen(name) >= sizeof(t->name) || strpbrk(name, ",\"\n"))
		r = err_set(err, ERR_SPEC_VALUE,
			    "\"endpoints\": each needs a \"name\", of %zu letters at most",
			    sizeof(t->name) - 1);
	else if (t->n_instances > 1)
		r = err_set(err, ERR_SPEC_VALUE, "\"endpoints\": one number of \"instances\" for each");
	else
		strcpy(t->name, name);
out:
	cJSON_Delete(json);
	return r;
}

static int read_endpoints(struct trace *t, const cJSON *root, struct err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "endpoints"), *item;
	int n = list ? cJSON_GetArraySize(list) : 1, r = 0;

	if (list && (!cJSON_IsArray(list) || n < 1 || n > MAX_ENDPOINTS))
		return err_set(err, ERR_SPEC_VALUE, "\"endpoints\" must be a list of 1 to %d", MAX_ENDPOINTS);
	t->named = list != NULL;
	t->endpoint = calloc((size_t)n, sizeof(*t->endpoint));
	if (!t->endpoint)
		return err_set(err, ERR_NO_MEMORY, "a trace");
	t->n_endpoints = n;
	for (int i = 0; i < n; i++)
		t->endpoint[i] = (struct sim_endpoint){.batch = 32, .deadline = INT64_MAX, .weight = 1};
	n = 0;
	cJSON_ArrayForEach(item, list) if ((r = read_named(&t->endpoint[n++], item, root, err)) < 0) return r;
	if (!list)
		r = read_endpoint(t->endpoint, root, err);
	t->n_runs = t->endpoint->task || list ? 1 : t->endpoint->n_instances;
	return r;
}

/* A number of them, or their speeds; "real_workers": the speeds that they turn out to have. */
static int read_workers(struct trace *t, const cJSON *root, struct err *err)
{
	int r = 0;

	t->n_workers = 1;
	if (cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(root, "workers"))) {
		t->n_workers = 0;
		r = read_list(root, "workers", 1e-3, 1e3, t->speed, &t->n_workers, err);
	} else {
		r = spec_int(root, "", "workers", 1, MAX_DEVICES, &t->n_workers, err);
		for (int i = 0; i < MAX_DEVICES; i++)
			t->speed[i] = 1;
	}
	memcpy(t->real_speed, t->speed, sizeof(t->speed));
	if (r == 0 && cJSON_HasObjectItem(root, "real_workers"))
		r = read_list(root, "real_workers", 1e-3, 1e3, t->real_speed, &t->n_workers, err);
	return r;
}

int trace_parse(struct trace *ret, const char *json, size_t len, struct err *err)
{
	static const char *const known[] = {
		"profile",   "batch", "deadline", "instances",  "arrivals", "tasks",
		"noise",     "seed",  "policies", "publish_us", "workers",  "real_workers",
		"endpoints", "until", "stalls",   "stall_ms",   NULL};
	struct trace t = {0};
	cJSON *root = cJSON_ParseWithLength(json, len);
	double seed = 1, publish_us = 0, stall_ms = 150;
	int r;

	if (!cJSON_IsObject(root)) {
		r = err_set(err, ERR_JSON_SYNTAX, "a trace is an object");
		goto out;
	}
	if ((r = spec_keys(root, "", known, err)) < 0 || (r = read_endpoints(&t, root, err)) < 0 ||
	    (r = read_time(root, "until", &t.until, err)) < 0 || (r = read_workers(&t, root, err)) < 0 ||
	    (r = spec_double(root, "", "noise", 0, 1, &t.noise, err)) < 0 ||
	    (r = spec_double(root, "", "stalls", 0, 1000, &t.stalls, err)) < 0 ||
	    (r = spec_double(root, "", "stall_ms", 1e-3, MAX_MS, &stall_ms, err)) < 0 ||
	    (r = spec_double(root, "", "publish_us", 0, 1e9, &publish_us, err)) < 0 ||
	    (r = spec_double(root, "", "seed", 0, 9007199254740992.0, &seed, err)) < 0 ||
	    (r = read_policies(&t, cJSON_GetObjectItemCaseSensitive(root, "policies"), err)) < 0)
		goto out;
	t.seed = (uint64_t)seed;
	t.publish = llround(publish_us * 1e3);
	t.stall_ns = llround(stall_ms * 1e6);
	*ret = t;
	t = (struct trace){0};
out:
	trace_release(&t);
	cJSON_Delete(root);
	return r;
}

void trace_release(struct trace *trace)
{
	for (int i = 0; i < trace->n_endpoints; i++) {
		free(trace->endpoint[i].instances);
		free(trace->endpoint[i].task);
	}
	free(trace->endpoint);
	*trace = (struct trace){0};
}

/* ns until the next of a Poisson process of that many a second */
static int64_t wait_of(struct rng *rng, double rate)
{
	return llround(-log(1 - (double)rng_float(rng)) / rate * 1e9);
}

/* Of one endpoint, behind the n that are there; how many there are then. */
static int add_tasks(const struct trace *trace, int i, int e, struct sim_task *task, int n)
{
	const struct sim_endpoint *t = &trace->endpoint[e];
	struct rng rng = rng_init(trace->seed, ((uint64_t)e << 32) + (uint64_t)i + 1);
	int per_burst = t->arrivals == ARRIVE_BURSTY ? t->burst : 1, most = MAX_TASKS, first = n;
	int64_t at = 0;

	if (t->task) {
		for (int k = 0; k < t->n_tasks && n < most; k++)
			task[n++] = t->task[k];
	} else if (t->arrivals == ARRIVE_ONCE) {
		if (n < most)
			task[n++] = (struct sim_task){.deadline = t->deadline, .instances = t->instances[i]};
	} else {
		if (MAX_TOTAL / t->instances[i] < most - n)
			most = n + MAX_TOTAL / t->instances[i];
		while (n + per_burst <= most) {
			if (t->arrivals == ARRIVE_UNIFORM)
				at = llround((n - first) / t->rate * 1e9);
			else
				at += wait_of(&rng, t->rate / per_burst);
			if (at >= t->duration)
				break;
			for (int k = 0; k < per_burst; k++)
				task[n++] = (struct sim_task){
					.at = at, .deadline = t->deadline, .instances = t->instances[i]};
		}
	}
	for (int k = first; k < n; k++)
		task[k].endpoint = e;
	return n;
}

int trace_tasks(const struct trace *trace, int i, struct sim_task **ret)
{
	struct sim_task *task = calloc(MAX_TASKS, sizeof(*task));
	int n = 0;

	if (!task)
		return -ENOMEM;
	for (int e = 0; e < trace->n_endpoints; e++)
		n = add_tasks(trace, i, e, task, n);
	qsort(task, (size_t)n, sizeof(*task), by_time);
	*ret = task;
	return n;
}
