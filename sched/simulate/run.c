#include "sched/simulate/internal.h"

#include "sched/internal.h"
#include "sched/plan/partition.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST (INT64_C(10000000) * NS_PER_S) /* of a run, on its clock */

static void print_shares(struct buf *ret, const float shares[CASCADE_POINTS])
{
	for (int k = 0; k < CASCADE_POINTS; k++)
		buf_addf(ret, "%s%.6f", k ? "," : "[", (double)shares[k]);
	buf_adds(ret, "]");
}

static void print_model(const struct sim_endpoint *trace, bool knowing, struct buf *ret)
{
	buf_adds(ret, "{\"classes\":1,\"submodels\":[");
	for (int i = 0; i < trace->n; i++) {
		buf_addf(ret,
			 "%s{\"slice\":%.9f,\"accuracy\":%.9f,\"ms\":%.6f,\"one_ms\":%.6f,\"told_ms\":%.6f",
			 i ? "," : "", (double)(trace->n - i) / trace->n, trace->accuracy[i],
			 (double)trace->real[i] / 1e6, (double)trace->real_one[i] / 1e6,
			 (double)(knowing ? trace->real[i] : trace->told[i]) / 1e6);
		/* Scores are spread evenly: so many are below a threshold. */
		buf_adds(ret, ",\"threshold\":");
		print_shares(ret, cascade_shares);
		buf_adds(ret, ",\"sure\":");
		print_shares(ret, trace->sure[i]);
		buf_adds(ret, ",\"then\":[");
		for (int j = 0; j < trace->n; j++) {
			buf_adds(ret, j ? "," : "");
			print_shares(ret, trace->then[i][j]);
		}
		buf_adds(ret, "]}");
	}
	buf_adds(ret, "]}");
}

static double number(const cJSON *json, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);

	/* of json_add_decimal they are raw */
	return cJSON_IsNumber(item) ? item->valuedouble
	       : cJSON_IsRaw(item)  ? strtod(item->valuestring, NULL)
				    : 0;
}

static int add_report(struct outcome *o, const struct buf *report, const struct sim_task *task)
{
	cJSON *json = cJSON_ParseWithLength(report->data, report->len);
	const cJSON *schedule = cJSON_GetObjectItemCaseSensitive(json, "schedule"), *item;
	double instances = number(json, "instances"), ok = number(json, "ok"),
	       admitted = number(json, "admitted");
	int64_t finished = task->at + (int64_t)(number(json, "finished_ms") * 1e6);
	int i = 0;

	if (!json || instances != task->instances) {
		cJSON_Delete(json);
		return -EBADMSG;
	}
	o->ok += (int64_t)ok;
	o->admitted += (int64_t)admitted;
	o->broken += admitted > ok ? (int64_t)(admitted - ok) : 0;
	o->late += (int64_t)number(json, "late");
	o->dropped += (int64_t)number(json, "dropped");
	o->failed += (int64_t)number(json, "failed");
	o->gained += instances * number(json, "effective_accuracy") / 100;
	o->planned += instances * number(json, "planned_effective_accuracy") / 100;
	o->latency_ms += number(json, "finished_ms");
	o->plan_us += number(json, "solve_us");
	o->last_ns = finished > o->last_ns ? finished : o->last_ns;
	cJSON_ArrayForEach(item, schedule) if (i < MAX_SUBMODELS) o->ran[i++] +=
		(int64_t)number(item, "real");
	cJSON_Delete(json);
	return 0;
}

/* The same of several workers; of a part-filled mini-batch as much of a full one as it has instances. */
static double bound_of(const struct trace *trace, const struct sim_endpoint *ep, const struct sim_task *task)
{
	struct plan_submodel m[MAX_DEVICES][MAX_SUBMODELS];
	struct partition_worker w[MAX_DEVICES];
	double count = (double)task->instances / ep->batch;

	for (int k = 0; k < trace->n_workers; k++) {
		for (int i = 0; i < ep->n; i++) {
			double ns = (double)ep->real[i] / trace->real_speed[k];

			m[k][i] = (struct plan_submodel){.accuracy = ep->accuracy[i], .time_ns = (int64_t)ns};
		}
		w[k] = (struct partition_worker){.submodels = m[k], .n = ep->n, .time_ns = task->deadline};
	}
	return partition_bound(w, trace->n_workers, count) / count;
}

/* What is best of a task that has the device for itself, of real times. */
static int add_bound(struct outcome *o, const struct trace *all, const struct sim_endpoint *trace,
		     const struct sim_task *task, struct planner *planner)
{
	struct plan_submodel m[MAX_SUBMODELS];
	struct plan plan;
	int r;

	for (int i = 0; i < trace->n; i++)
		m[i] = (struct plan_submodel){trace->accuracy[i],
					      (int64_t)((double)trace->real[i] / all->real_speed[0]),
					      (int64_t)((double)trace->real_one[i] / all->real_speed[0])};
	r = all->n_workers > 1 ? 0
			       : planner_plan(planner,
					      &(struct plan_request){.n_submodels = trace->n,
								     .submodels = m,
								     .instances = task->instances,
								     .batch = trace->batch,
								     .deadline_ns = task->deadline},
					      &plan);
	o->bound += task->instances * (all->n_workers > 1 ? bound_of(all, trace, task) : plan.bound);
	o->instances += task->instances;
	return r;
}

/* What the device did for each so far. */
static void look(struct sched *s, struct outcome *o, int n)
{
	char name[32];

	for (int e = 0; e < n; e++) {
		const struct endpoint *ep;

		snprintf(name, sizeof(name), "%d", e);
		ep = endpoint_get(s, name, false);
		o[e].device_ns = 0;
		for (int i = 0; ep && i < ep->stats.n_shares; i++)
			o[e].device_ns += ep->stats.share[i].compute_ns;
	}
}

/* Submits each when its time has come, and goes on until all were answered. */
static int play(struct sched *s, struct sim_host *host, const struct trace *trace, struct outcome *o)
{
	struct loop *loop = host->loop;
	int64_t until = trace->until ? trace->until : host->task[host->n_tasks - 1].at;
	char app[32], name[32];

	if (until <= host->task[0].at) /* all come at once */
		until = INT64_MAX;
	for (int i = 0; i < host->n_tasks; i++) {
		const struct sim_task *task = &host->task[i];

		if (until <= task->at && loop_now(loop) < until) {
			loop_fake_advance(loop, until);
			look(s, o, host->n_endpoints);
		}
		loop_fake_advance(loop, task->at);
		snprintf(app, sizeof(app), "%d", task->endpoint);
		sim_host_name(i, name, sizeof(name));
		sched_post_batch(s, app, BATCH_RENAMED_IN, name, sim_host_dir(i));
	}
	for (int64_t step = NS_PER_S; host->n_reports < host->n_tasks; step += step / 8) {
		int64_t to = loop_now(loop) + step;

		if (loop_now(loop) > LONGEST)
			return -ETIME;
		loop_fake_advance(loop, loop_now(loop) < until && until < to ? until : to);
		if (loop_now(loop) <= until)
			look(s, o, host->n_endpoints);
	}
	return 0;
}

static int add_endpoint(struct sched *s, struct sim_host *host, const struct trace *trace, int e,
			const struct policy *policy)
{
	const struct sim_endpoint *t = &trace->endpoint[e];
	struct buf spec = BUF_INIT;
	char name[32];
	int r;

	print_model(t, policy->simulated, &host->model_json[e]);
	/* What only a simulation can know is in the model; its policy is the best. */
	buf_addf(&spec, "{\"model\":\"%d\",\"batch\":%d,\"policy\":\"%s\",\"weight\":%.9g}", e, t->batch,
		 policy->simulated ? policy_optimal.name : policy->name, t->weight);
	r = host->model_json[e].failed || spec.failed ? -ENOMEM : 0;
	snprintf(name, sizeof(name), "%d", e);
	if (r == 0)
		sched_post_endpoint_spec(s, name, spec.data, spec.len);
	buf_release(&spec);
	return r;
}

int sim_run(const struct trace *trace, const struct policy *policy, const struct sim_task *task, int n_tasks,
	    struct outcome *ret, struct err *err)
{
	const struct sched_options options = {.settle_ns = NS_PER_MS,
					      .settle_batch_ns = NS_PER_MS,
					      .workers = trace->n_workers,
					      .worker_threads = 1,
					      .null_backend = true};
	int n = trace->n_endpoints;
	struct sim_host host = {
		.task = task, .n_tasks = n_tasks, .n_endpoints = n, .publish = trace->publish};
	struct outcome *o = calloc((size_t)n, sizeof(*o));
	struct planner *planner = NULL;
	struct sched *s = NULL;
	int r = loop_new(&host.loop, true);

	host.report = calloc((size_t)n_tasks + 1, sizeof(*host.report));
	host.model_json = calloc((size_t)n, sizeof(*host.model_json));
	if (r < 0 || !o || !host.report || !host.model_json) {
		r = -ENOMEM;
		goto out;
	}
	r = sched_new_on(&s, &sim_host_ops, &host, &options, host.loop);
	if (r == 0)
		r = devices_start(s);
	if (r == 0)
		r = planner_new(&planner);
	if (r < 0)
		goto out;
	for (int i = 0; i < s->n_devices; i++) {
		struct executor *ex = s->device[i].ex;

		executor_null_set_noise(ex, trace->noise, trace->seed + (uint64_t)i);
		executor_null_set_stalls(ex, trace->stalls, trace->stall_ns, trace->seed + (uint64_t)i);
		executor_null_set_speed(ex, policy->simulated ? trace->real_speed[i] : trace->speed[i]);
		executor_null_set_factor(ex, policy->simulated ? 1 : trace->speed[i] / trace->real_speed[i]);
	}
	sched_begin(s);
	for (int e = 0; e < n && r == 0; e++)
		r = add_endpoint(s, &host, trace, e, policy);
	if (r == 0)
		r = play(s, &host, trace, o);
	for (int i = 0; i < n_tasks && r == 0; i++) {
		struct outcome *of = &o[task[i].endpoint];

		r = add_bound(of, trace, &trace->endpoint[task[i].endpoint], &task[i], planner);
		if (r == 0)
			r = add_report(of, &host.report[i], &task[i]);
	}
out:
	if (r < 0)
		err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "simulating %s: %s", policy->name,
			strerror(-r));
	else
		memcpy(ret, o, (size_t)n * sizeof(*o));
	planner_free(planner);
	if (s) /* what is still to be published is the loop's */
		loop_fake_advance(host.loop,
				  host.free_at > loop_now(host.loop) ? host.free_at : loop_now(host.loop));
	sched_free(s);
	for (int i = 0; i < n_tasks && host.report; i++)
		buf_release(&host.report[i]);
	free(host.report);
	for (int e = 0; e < n && host.model_json; e++)
		buf_release(&host.model_json[e]);
	free(host.model_json);
	free(o);
	loop_free(host.loop);
	return r;
}
