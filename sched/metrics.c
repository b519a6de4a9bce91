/*
 * Prometheus' text exposition format (prometheus.io/docs/instrumenting/exposition_formats): one table of families; all
 * samples of one stand together, below its HELP and TYPE.
 */
#include "sched/metrics.h"
#include "sched/internal.h"

#include "engine/base/utf8.h"

#include <stdio.h>

void metrics_label(struct buf *ret, const char *value)
{
	for (size_t n; *value; value += n ? n : 1) {
		n = utf8_length(value);
		if (!n)
			buf_adds(ret, UTF8_REPLACEMENT);
		else if (*value == '\n')
			buf_adds(ret, "\\n");
		else if (*value == '\\' || *value == '"')
			buf_addf(ret, "\\%c", *value);
		else
			buf_add(ret, value, n);
	}
}

/* suffix and more (labels, from a comma on) may be "". */
static void sample(struct buf *ret, const char *name, const char *suffix, const struct endpoint *ep,
		   const char *more, double value)
{
	buf_addf(ret, "%s%s{endpoint=\"", name, suffix);
	metrics_label(ret, ep->name);
	buf_addf(ret, "\"%s} %.10g\n", more, value);
}

struct family {
	const char *name, *type, *help;
	void (*add)(struct buf *ret, const struct family *family, const struct endpoint *ep);
};

static void add_one(struct buf *ret, const struct family *f, const struct endpoint *ep, double value)
{
	sample(ret, f->name, "", ep, "", value);
}

static void add_answers(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	sample(ret, f->name, "", ep, ",status=\"ok\"", (double)ep->stats.ok);
	sample(ret, f->name, "", ep, ",status=\"late\"", (double)ep->stats.late);
	sample(ret, f->name, "", ep, ",status=\"dropped\"", (double)ep->stats.dropped);
	sample(ret, f->name, "", ep, ",status=\"failed\"", (double)ep->stats.failed);
}

static void add_misses(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, (double)(ep->stats.late + ep->stats.dropped));
}

static void add_tasks(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, (double)ep->stats.tasks);
}

static void add_ahead(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, (double)ep->stats.ahead);
}

static void add_queue(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, (double)endpoint_waiting(ep));
}

static void add_on_disk(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, (double)ep->spill.count);
}

static void add_running(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, ep->state == ENDPOINT_RUNNING);
}

static void add_throughput(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, stats_throughput(&ep->stats, loop_now(ep->s->loop)));
}

static void add_accuracy(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	double all = (double)(ep->stats.ok + ep->stats.late + ep->stats.dropped + ep->stats.failed);

	add_one(ret, f, ep, all > 0 ? ep->stats.gained / all : 0);
}

static void add_deaths(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, (double)ep->stats.worker_deaths);
}

static void add_deviation(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, served_deviation(ep));
}

static void add_reserve(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, caution_deviations(&ep->caution));
}

static void add_unpromised(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_one(ret, f, ep, caution_unpromised(&ep->caution));
}

/* With buckets up to the bounds from `first` to `last`, ns. */
static void add_histogram(struct buf *ret, const struct family *f, const struct endpoint *ep,
			  const struct histogram *h, int64_t first, int64_t last)
{
	uint64_t upto = 0;
	char le[32];

	for (int i = 0; i < HISTOGRAM_BOUNDS && histogram_bound(i) <= last; i++) {
		upto += h->coarse[i];
		if (histogram_bound(i) < first)
			continue;
		snprintf(le, sizeof(le), ",le=\"%g\"", (double)histogram_bound(i) / 1e9);
		sample(ret, f->name, "_bucket", ep, le, (double)upto);
	}
	sample(ret, f->name, "_bucket", ep, ",le=\"+Inf\"", (double)h->n);
	sample(ret, f->name, "_sum", ep, "", h->sum / 1e9);
	sample(ret, f->name, "_count", ep, "", (double)h->n);
}

static void add_latency(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_histogram(ret, f, ep, &ep->stats.latency, NS_PER_MS, 50 * NS_PER_S);
}

static void add_plan(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_histogram(ret, f, ep, &ep->stats.plan, NS_PER_MS / 1000, 25 * NS_PER_MS);
}

static void add_compute(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_histogram(ret, f, ep, &ep->stats.compute, NS_PER_MS / 10, 5 * NS_PER_S);
}

static void add_share(struct buf *ret, const struct family *f, const struct endpoint *ep,
		      const struct stats_share *share, double value)
{
	buf_addf(ret, "%s{endpoint=\"", f->name);
	metrics_label(ret, ep->name);
	buf_adds(ret, "\",slice=\"");
	if (share->members)
		metrics_label(ret, share->members);
	else
		buf_addf(ret, "%g", share->slice / 1e4);
	buf_adds(ret, "\",precision=\"");
	metrics_label(ret, share->precision);
	buf_addf(ret, "\"} %.10g\n", value);
}

static void add_minibatches(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	for (int i = 0; i < ep->stats.n_shares; i++)
		add_share(ret, f, ep, &ep->stats.share[i], (double)ep->stats.share[i].minibatches);
}

static void add_instances(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	for (int i = 0; i < ep->stats.n_shares; i++)
		add_share(ret, f, ep, &ep->stats.share[i], (double)ep->stats.share[i].instances);
}

static void add_busy(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	for (int i = 0; i < ep->stats.n_shares; i++)
		add_share(ret, f, ep, &ep->stats.share[i], (double)ep->stats.share[i].compute_ns / 1e9);
}

static void add_by_worker(struct buf *ret, const struct family *f, const struct endpoint *ep,
			  double (*of)(const struct served *on))
{
	char worker[32];

	for (int i = 0; i < ep->s->n_devices; i++) {
		snprintf(worker, sizeof(worker), ",worker=\"%d\"", i + 1);
		sample(ret, f->name, "", ep, worker, of(&ep->on[i]));
	}
}

static double is_ready(const struct served *on)
{
	return on->ready;
}

static double minibatches_of(const struct served *on)
{
	return (double)on->minibatches;
}

static double seconds_of(const struct served *on)
{
	return (double)on->compute_ns / 1e9;
}

static void add_worker_ready(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_by_worker(ret, f, ep, is_ready);
}

static void add_worker_minibatches(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_by_worker(ret, f, ep, minibatches_of);
}

static void add_worker_busy(struct buf *ret, const struct family *f, const struct endpoint *ep)
{
	add_by_worker(ret, f, ep, seconds_of);
}

static const struct family families[] = {
	{"inferfs_answers_total", "counter", "Instances answered, by status", add_answers},
	{"inferfs_ahead_total", "counter", "Instances that were computed before they were submitted",
	 add_ahead},
	{"inferfs_misses_total", "counter", "Instances answered late or dropped", add_misses},
	{"inferfs_tasks_total", "counter", "Tasks that ended", add_tasks},
	{"inferfs_queue_length", "gauge", "Instances without an answer", add_queue},
	{"inferfs_queue_on_disk", "gauge", "Of these, the ones that wait on disk since the queue is full",
	 add_on_disk},
	{"inferfs_endpoint_running", "gauge", "1 while the endpoint runs", add_running},
	{"inferfs_latency_seconds", "histogram", "Submission to visible answer", add_latency},
	{"inferfs_throughput", "gauge", "Answers a second over the last 10 s", add_throughput},
	{"inferfs_effective_accuracy", "gauge", "Accuracy times share in time, 0 to 1", add_accuracy},
	{"inferfs_plan_seconds", "histogram", "Choosing one mini-batch", add_plan},
	{"inferfs_minibatch_compute_seconds", "histogram", "One mini-batch in the worker", add_compute},
	{"inferfs_minibatches_total", "counter", "Mini-batches computed, by sub-model", add_minibatches},
	{"inferfs_minibatch_instances_total", "counter", "Instances computed, by sub-model", add_instances},
	{"inferfs_compute_seconds_total", "counter", "Time in the worker, by sub-model", add_busy},
	{"inferfs_worker_deaths_total", "counter", "Times a worker of the endpoint's died", add_deaths},
	{"inferfs_worker_ready", "gauge", "1 while the worker has the endpoint loaded", add_worker_ready},
	{"inferfs_worker_minibatches_total", "counter", "Mini-batches computed, by worker",
	 add_worker_minibatches},
	{"inferfs_worker_compute_seconds_total", "counter", "Time computing, by worker", add_worker_busy},
	{"inferfs_time_deviation", "gauge", "Mean deviation of a mini-batch's time, as a share of it",
	 add_deviation},
	{"inferfs_reserve_deviations", "gauge", "Deviations kept free before a deadline, learnt from misses",
	 add_reserve},
	{"inferfs_unpromised_share", "gauge", "Share of a task's time that is not promised, learnt likewise",
	 add_unpromised},
};

struct family_of {
	struct buf *ret;
	const struct family *family;
};

static void add_family(void *data, struct table_node *node)
{
	struct family_of *of = data;

	of->family->add(of->ret, of->family, list_entry(node, struct endpoint, node));
}

void metrics_print(struct sched *s, struct buf *ret)
{
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		struct family_of of = {ret, &families[i]};

		buf_addf(ret, "# HELP %s %s\n# TYPE %s %s\n", families[i].name, families[i].help,
			 families[i].name, families[i].type);
		table_each(&s->endpoints, add_family, &of);
	}
	buf_addf(ret,
		 "# HELP inferfs_publish_seconds Mean time of one publication\n"
		 "# TYPE inferfs_publish_seconds gauge\ninferfs_publish_seconds %.9g\n",
		 s->outbox.cost.of_late / 1e9);
}
