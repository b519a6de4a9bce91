#include "sched/internal.h"
#include "sched/metrics.h"

#include "engine/base/log.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX (1 << 18)         /* bytes; chosen: 2,500 lines */
#define QUIET_NS   (3 * NS_PER_S)    /* who polls `events` does so at least every second (tail does) */
#define STATUS_NS  (200 * NS_PER_MS) /* at most 5 a second (DESIGN section 1) */
#define LOOK_NS    NS_PER_S

void status_release(struct status *status)
{
	buf_release(&status->events);
	buf_release(&status->last_status);
	buf_release(&status->last_metrics);
}

/* The last run's events belong on: tail -f goes on over a restart. */
void status_recover(struct sched *s)
{
	struct host_entry e;
	void *old = NULL;
	size_t len = 0;

	s->status.events_anew = true;
	s->status.last_append = loop_now(s->loop);
	if (s->ops->lookup(s->host, "events", &e) == 0 && !e.is_dir &&
	    s->ops->read(s->host, e.ino, 4 * EVENTS_MAX, &old, &len) == 0) {
		size_t whole = len;

		while (whole && ((char *)old)[whole - 1] != '\n') /* a crash in mid-line */
			whole--;
		buf_add(&s->status.events, old, whole);
		s->status.events_anew = whole != len;
		s->status.events_sent = s->status.events_anew ? 0 : len;
	}
	free(old);
}

static void status_line(void *data, struct table_node *node)
{
	const struct endpoint *ep = list_entry(node, struct endpoint, node);
	const struct stats *st = &ep->stats;

	buf_addf(data, "infer/%s %s model=", ep->name, endpoint_state_name(ep->state));
	endpoint_print_model(ep, data);
	buf_addf(data, " queued=%zu ok=%" PRIu64 " late=%" PRIu64 " dropped=%" PRIu64 " failed=%" PRIu64 "\n",
		 endpoint_waiting(ep), st->ok, st->late, st->dropped, st->failed);
}

/* Publishes `text` unless it is what was published last; `last` takes it over. */
static void publish(struct sched *s, const char *path, struct buf *text, struct buf *last)
{
	int r = buf_status(text);

	if (r == 0 && last->data && text->len == last->len &&
	    memcmp(text->data, last->data, text->len) == 0) {
		buf_release(text);
		return;
	}
	if (r == 0)
		r = s->ops->publish(s->host, &(struct host_publication){
						     .path = path, .content = text->data, .len = text->len});
	if (r < 0 && !s->stopping)
		log_error("%s: publishing: %s", path, strerror(-r));
	buf_release(last);
	*last = *text;
	*text = BUF_INIT;
}

static void events_appended(void *data, int r, int64_t visible)
{
	struct sched *s = data;

	(void)visible;
	if (r < 0 && !s->stopping) {
		log_trace(LOG_SCHED, "events: %s", strerror(-r));
		s->status.events_anew = true;
		s->status.events_sent = 0;
		s->status.events_whole = r == -EROFS; /* that takes status files alone */
	}
}

/* The text becomes `events.old`; what was not handed over yet begins the new one. */
static void events_rotate(struct sched *s)
{
	struct status *st = &s->status;
	struct buf rest = BUF_INIT;

	buf_add(&rest, st->events.data + st->events_sent, st->events.len - st->events_sent);
	if (buf_status(&rest) < 0 ||
	    s->ops->publish(s->host, &(struct host_publication){.path = "events.old",
								.content = st->events.data,
								.len = st->events_sent}) < 0) {
		buf_release(&rest);
		return; /* next time */
	}
	buf_release(&st->events);
	st->events = rest;
	st->events_sent = 0;
	st->events_anew = true;
}

static void append_events(struct sched *s)
{
	struct status *st = &s->status;
	int r;

	struct host_publication p = {.path = "events", .done = events_appended, .data = s};

	if (st->events_sent == st->events.len && !st->events_anew)
		return;
	if (!st->events_whole) {
		p.content = st->events.data + st->events_sent;
		p.len = st->events.len - st->events_sent;
		p.flags = HOST_APPEND | (st->events_anew ? HOST_EMPTY : 0);
	} else {
		p.content = st->events.data;
		p.len = st->events.len;
	}
	r = s->ops->publish(s->host, &p);
	if (r == 0) {
		st->events_sent = st->events.len;
		st->events_anew = false;
		st->last_append = loop_now(s->loop);
	}
}

static void publish_events(struct sched *s)
{
	struct status *st = &s->status;

	if (st->events_sent > EVENTS_MAX && loop_now(s->loop) - st->last_append > QUIET_NS)
		events_rotate(s);
	if (st->events_sent <= 2 * EVENTS_MAX) /* else it waits until those who follow have read it */
		append_events(s);
}

/* When it comes, changes its kind ("… since TIME …") and goes. */
static void trouble_event(struct sched *s, const char *trouble)
{
	const char *since = strstr(trouble, "since");
	size_t len = since ? (size_t)(since - trouble) : strlen(trouble);
	char *last = s->status.trouble;

	if (strncmp(trouble, last, len) == 0 && (len > 0) == (*last != '\0'))
		return;
	snprintf(last, sizeof(s->status.trouble), "%s", trouble);
	status_event(s, "volume", "", *trouble ? trouble : "volume well again", -1);
}

static void publish_all(void *data)
{
	struct sched *s = data;
	struct status *st = &s->status;
	struct buf text = BUF_INIT;
	char trouble[256] = "";

	st->timer = NULL;
	st->soon = true;
	if (s->ops->trouble && s->ops->trouble(s->host, trouble, sizeof(trouble)))
		buf_addf(&text, "%s\n", trouble);
	trouble_event(s, trouble);
	jobs_status(s->jobs, &text);
	table_each(&s->endpoints, status_line, &text);
	if (!text.len)
		buf_adds(&text, "no jobs, no endpoints\n");
	publish(s, "status", &text, &st->last_status);
	metrics_print(s, &text);
	jobs_metrics(s->jobs, &text);
	publish(s, "metrics", &text, &st->last_metrics);
	publish_events(s);
	/* Jobs move on without telling; so does the throughput. */
	st->soon = false;
	st->timer = loop_timer_at(s->loop, loop_now(s->loop) + LOOK_NS, publish_all, s);
}

void status_flush(struct sched *s)
{
	append_events(s);
}

void status_changed(struct sched *s)
{
	struct status *st = &s->status;

	if (st->soon)
		return;
	loop_timer_cancel(s->loop, st->timer);
	st->timer = loop_timer_at(s->loop, loop_now(s->loop) + STATUS_NS, publish_all, s);
	st->soon = st->timer != NULL;
}

void status_event(struct sched *s, const char *event, const char *name, const char *what, int64_t count)
{
	struct buf *events = &s->status.events;
	int64_t ms = loop_wall(s->loop) / NS_PER_MS;
	cJSON *json = cJSON_CreateObject();
	char *line = NULL;

	if (json) {
		cJSON_AddNumberToObject(json, "time", (double)ms / 1e3);
		cJSON_AddStringToObject(json, "event", event);
		cJSON_AddStringToObject(json, "name", name);
		cJSON_AddStringToObject(json, "what", what);
		if (count >= 0)
			cJSON_AddNumberToObject(json, "count", (double)count);
		line = cJSON_PrintUnformatted(json);
	}
	cJSON_Delete(json);
	if (!line)
		return; /* an event less; the log has the reason for the shortage */
	buf_addf(events, "%s\n", line);
	cJSON_free(line);
	status_changed(s);
}

void status_answer(struct sched *s, struct endpoint *ep, enum result_status status, double gain,
		   int64_t latency_ns)
{
	struct stats *st = &ep->stats;

	switch (status) {
	case RESULT_OK:
		st->ok++;
		st->gained += gain;
		break;
	case RESULT_LATE:
		st->late++;
		break;
	case RESULT_DROPPED:
		st->dropped++;
		break;
	case RESULT_FAILED:
		st->failed++;
		break;
	}
	if (status == RESULT_OK || status == RESULT_LATE)
		stats_answer(st, loop_now(s->loop), latency_ns);
	endpoint_publish_stats(ep);
	status_changed(s);
}

void status_task(struct sched *s, const struct task *task)
{
	task->ep->stats.tasks++;
	timeline_task(task);
	endpoint_schedule_row(task->ep, task);
	status_event(s, "finished", task->ep->name, task->id, task->total);
}
