/* What an endpoint says of itself: stats.json and schedule.csv. */
#include "sched/internal.h"
#include "sched/result.h"

#include "engine/base/json.h"
#include "engine/base/log.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCHEDULE_ROWS 1000              /* schedule.csv keeps the newest; chosen */
#define STATS_NS      (200 * NS_PER_MS) /* at most 5 a second (DESIGN section 1) */
#define MAX_GENERATED (1 << 20)

void endpoint_publish(struct endpoint *ep, const char *name, const struct buf *text)
{
	struct sched *s = ep->s;
	char path[MAX_NAME + 64];
	int r = text->failed ? -ENOMEM : 0;

	if (ep->gone)
		return;
	endpoint_path(ep, path, sizeof(path), "%s", name);
	if (r == 0)
		r = s->ops->publish(s->host, &(struct host_publication){
						     .path = path, .content = text->data, .len = text->len});
	if (r < 0 && !s->stopping)
		log_error("%s: publishing: %s", path, strerror(-r));
}

/* Rows of the last run belong on if they are of the same sub-models. */
void endpoint_recover_schedule(struct endpoint *ep)
{
	struct sched *s = ep->s;
	struct buf header = BUF_INIT;
	struct host_entry e;
	char path[MAX_NAME + 64];
	void *old = NULL;
	size_t len = 0;

	result_schedule_header(&header, ep);
	if (header.failed || !header.data)
		goto out; /* no memory: the rows stay as they are */
	if (ep->schedule.len >= header.len && memcmp(ep->schedule.data, header.data, header.len) == 0)
		goto out;
	endpoint_path(ep, path, sizeof(path), "schedule.csv");
	if (!ep->schedule.len && s->ops->lookup(s->host, path, &e) == 0 && !e.is_dir &&
	    s->ops->read(s->host, e.ino, MAX_GENERATED, &old, &len) == 0 && len >= header.len &&
	    memcmp(old, header.data, header.len) == 0) {
		buf_add(&header, (const char *)old + header.len, len - header.len);
	}
	free(old);
	buf_release(&ep->schedule);
	ep->schedule = header;
	ep->schedule_rows = 0;
	for (size_t i = 0; i < header.len; i++)
		ep->schedule_rows += header.data[i] == '\n';
	ep->schedule_rows -= ep->schedule_rows > 0;
	return;
out:
	buf_release(&header);
}

static double digits(double x, double scale)
{
	return round(x * scale) / scale;
}

static void add_quantiles(cJSON *json, const char *key, const struct histogram *h, double unit)
{
	cJSON *quantiles = cJSON_AddObjectToObject(json, key);

	cJSON_AddNumberToObject(quantiles, "p50", digits(histogram_quantile(h, 0.5) / unit, 1e3));
	cJSON_AddNumberToObject(quantiles, "p90", digits(histogram_quantile(h, 0.9) / unit, 1e3));
	cJSON_AddNumberToObject(quantiles, "p99", digits(histogram_quantile(h, 0.99) / unit, 1e3));
}

/* share: of the instances that were computed. */
static void add_shares(cJSON *json, const struct stats *st)
{
	cJSON *list = cJSON_AddArrayToObject(json, "slices");
	uint64_t all = 0;

	for (int i = 0; i < st->n_shares; i++)
		all += st->share[i].instances;
	for (int i = 0; i < st->n_shares; i++) {
		const struct stats_share *share = &st->share[i];
		cJSON *item = cJSON_CreateObject();

		result_add_submodel(item, share->slice / 1e4, share->precision, share->members,
				    share->n_parts);
		cJSON_AddNumberToObject(item, "minibatches", (double)share->minibatches);
		cJSON_AddNumberToObject(item, "instances", (double)share->instances);
		cJSON_AddNumberToObject(item, "share",
					all ? digits((double)share->instances / (double)all, 1e4) : 0);
		if (!cJSON_AddItemToArray(list, item)) /* no memory */
			cJSON_Delete(item);
	}
}

static void add_workers(cJSON *json, const struct endpoint *ep)
{
	cJSON *list = cJSON_AddArrayToObject(json, "workers");

	for (int i = 0; i < ep->s->n_devices; i++) {
		cJSON *item = cJSON_CreateObject();

		cJSON_AddBoolToObject(item, "ready", ep->on[i].ready);
		cJSON_AddNumberToObject(item, "minibatches", (double)ep->on[i].minibatches);
		cJSON_AddNumberToObject(item, "instances", (double)ep->on[i].instances);
		cJSON_AddNumberToObject(item, "compute_ms", digits((double)ep->on[i].compute_ns / 1e6, 1e3));
		if (!cJSON_AddItemToArray(list, item)) /* no memory */
			cJSON_Delete(item);
	}
}

static void print_stats(struct buf *ret, const struct endpoint *ep)
{
	const struct stats *st = &ep->stats;
	uint64_t all = st->ok + st->late + st->dropped + st->failed;
	cJSON *json = cJSON_CreateObject();

	if (!json) {
		ret->failed = true;
		return;
	}
	endpoint_add_model(ep, json);
	if (*ep->note)
		cJSON_AddStringToObject(json, "note", ep->note);
	cJSON_AddNumberToObject(json, "throughput", digits(stats_throughput(st, loop_now(ep->s->loop)), 100));
	add_quantiles(json, "latency_ms", &st->latency, 1e6);
	cJSON_AddNumberToObject(json, "effective_accuracy",
				all ? digits(100 * st->gained / (double)all, 1e4) : 0);
	cJSON_AddNumberToObject(json, "tasks", (double)st->tasks);
	cJSON_AddNumberToObject(json, "ok", (double)st->ok);
	cJSON_AddNumberToObject(json, "late", (double)st->late);
	cJSON_AddNumberToObject(json, "dropped", (double)st->dropped);
	cJSON_AddNumberToObject(json, "failed", (double)st->failed);
	cJSON_AddNumberToObject(json, "misses", (double)(st->late + st->dropped));
	cJSON_AddNumberToObject(json, "ahead", (double)st->ahead);
	cJSON_AddNumberToObject(json, "explained", (double)st->explained);
	cJSON_AddNumberToObject(json, "queued", (double)endpoint_waiting(ep));
	cJSON_AddNumberToObject(json, "on_disk", (double)ep->spill.count);
	cJSON_AddNumberToObject(json, "worker_deaths", (double)st->worker_deaths);
	cJSON_AddNumberToObject(json, "time_deviation", digits(served_deviation(ep), 1e4));
	cJSON_AddNumberToObject(json, "reserve_deviations", digits(caution_deviations(&ep->caution), 1e4));
	cJSON_AddNumberToObject(json, "unpromised", digits(caution_unpromised(&ep->caution), 1e4));
	add_quantiles(json, "plan_us", &st->plan, 1e3);
	add_quantiles(json, "compute_ms", &st->compute, 1e6);
	add_shares(json, st);
	add_workers(json, ep);
	cJSON_AddNumberToObject(json, "publish_ms", digits(ep->s->outbox.cost.of_late / 1e6, 1e4));
	json_print(ret, json);
	cJSON_Delete(json);
}

static void publish_stats(void *data)
{
	struct endpoint *ep = data;
	struct buf text = BUF_INIT;

	ep->stats_timer = NULL;
	print_stats(&text, ep);
	endpoint_publish(ep, "stats.json", &text);
	buf_release(&text);
	if (ep->schedule.len)
		endpoint_publish(ep, "schedule.csv", &ep->schedule);
	/* The throughput falls to 0 when nothing comes any more. */
	if (stats_throughput(&ep->stats, loop_now(ep->s->loop)) > 0)
		ep->stats_timer =
			loop_timer_at(ep->s->loop, loop_now(ep->s->loop) + NS_PER_S, publish_stats, ep);
	ep->stats_soon = false;
}

void endpoint_publish_stats(struct endpoint *ep)
{
	if (ep->stats_soon || ep->gone)
		return;
	loop_timer_cancel(ep->s->loop, ep->stats_timer);
	ep->stats_timer = loop_timer_at(ep->s->loop, loop_now(ep->s->loop) + STATS_NS, publish_stats, ep);
	ep->stats_soon = ep->stats_timer != NULL;
}

void endpoint_schedule_row(struct endpoint *ep, const struct task *task)
{
	if (!ep->n_submodels)
		return; /* never ran: every instance was dropped or removed, and the columns are not known */
	if (ep->schedule_rows >= 2 * SCHEDULE_ROWS) { /* the older half goes */
		struct buf rest = BUF_INIT;
		const char *p = ep->schedule.data;

		result_schedule_header(&rest, ep);
		for (size_t i = 0; i <= ep->schedule_rows - SCHEDULE_ROWS && p; i++)
			p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL;
		if (p)
			buf_adds(&rest, p);
		buf_release(&ep->schedule);
		ep->schedule = rest;
		ep->schedule_rows = SCHEDULE_ROWS;
	}
	result_schedule_row(&ep->schedule, task);
	ep->schedule_rows++;
	endpoint_publish_stats(ep);
}
