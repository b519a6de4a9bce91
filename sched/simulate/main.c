#include "sched/simulate/internal.h"
#include "sched/simulate/simulate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_TRACE (64 << 20)

static void usage(FILE *f)
{
	fputs("usage: inferfs simulate FILE\n"
	      "Runs the scheduler against a trace on a clock of its own and prints CSV. FILE (\"-\": "
	      "standard input) is JSON such as\n\n"
	      "  {\"profile\":{\"accuracy\":[79.37,65.12],\"time_ms\":[45.12,15.68]}, \"batch\":32, "
	      "\"deadline\":\"8s\",\n"
	      "   \"instances\":[3200,6400], \"noise\":0.05, \"policies\":[\"optimal\",\"best-single\"]}\n\n"
	      "Also \"one_ms\", \"real_ms\", \"sure\", \"then\" (profile), \"publish_us\", \"workers\":2 or "
	      "their "
	      "speeds, [1,0.5],\n"
	      "\"real_workers\", "
	      "\"arrivals\":{\"kind\":\"poisson\",\"rate\":2,\"duration\":\"60s\"} (once, uniform,\n"
	      "bursty with \"burst\"), \"tasks\":[{\"at\":\"1s\",\"instances\":64,\"deadline\":\"2s\"},…], "
	      "\"seed\", \"stalls\" (a second) of \"stall_ms\"; several endpoints: "
	      "\"endpoints\":[{\"name\":\"a\",\"weight\":3,\"instances\":64},…], each "
	      "with its own profile,\nbatch, deadline, instances, arrivals or tasks, or those of all; "
	      "\"until\". "
	      "Policies (default: all):\n",
	      f);
	for (int i = 0; policy_at(i); i++)
		fprintf(f, "  %-12s %s\n", policy_at(i)->name, policy_at(i)->help);
	fputs("  --help\n", f);
}

static int most_submodels(const struct trace *trace)
{
	int n = 0;

	for (int e = 0; e < trace->n_endpoints; e++)
		n = trace->endpoint[e].n > n ? trace->endpoint[e].n : n;
	return n;
}

static void print_header(const struct trace *trace)
{
	printf("policy,%sinstances,tasks,rate,effective_accuracy,bound,planned,ok,late,dropped,throughput,"
	       "latency_ms,plan_us,admitted,broken",
	       trace->named ? "endpoint,weight,device," : "");
	for (int i = 0; i < most_submodels(trace); i++)
		printf(",share_%d", i + 1);
	putchar('\n');
}

/* The tasks of an endpoint, by time, in place; how many. */
static int tasks_of(const struct sim_task *task, int n, int e, struct sim_task *ret)
{
	int count = 0;

	for (int i = 0; i < n; i++)
		if (task[i].endpoint == e)
			ret[count++] = task[i];
	return count;
}

static void print_outcome(const struct trace *trace, const struct policy *policy, int e,
			  const struct sim_task *task, int n, const struct outcome *o, double device)
{
	const struct sim_endpoint *ep = &trace->endpoint[e];
	double all = (double)o->instances, ran = 0, rate = 0;

	/* Offered: of one task to its deadline, else until the last one came. */
	if (n == 1 && task->deadline != INT64_MAX)
		rate = all / ((double)task->deadline / 1e9);
	else if (task[n - 1].at > task[0].at)
		rate = (all - task[n - 1].instances) / ((double)(task[n - 1].at - task[0].at) / 1e9);
	for (int i = 0; i < ep->n; i++)
		ran += (double)o->ran[i];
	printf("%s,", policy->name);
	if (trace->named)
		printf("%s,%g,%.4f,", ep->name, ep->weight, device);
	printf("%d,%d,%.2f,%.4f,%.4f,%.4f,%lld,%lld,%lld,%.2f,%.3f,%.1f,%lld,%lld", task->instances, n, rate,
	       100 * o->gained / all, 100 * o->bound / all, 100 * o->planned / all, (long long)o->ok,
	       (long long)o->late, (long long)o->dropped,
	       o->last_ns > task->at ? (double)o->ok / ((double)(o->last_ns - task->at) / 1e9) : 0,
	       o->latency_ms / n, o->plan_us / n, (long long)o->admitted, (long long)o->broken);
	for (int i = 0; i < most_submodels(trace); i++)
		printf(",%.4f", ran > 0 ? (double)o->ran[i] / ran : 0);
	putchar('\n');
}

static void print_run(const struct trace *trace, const struct policy *policy, const struct sim_task *task,
		      int n, const struct outcome *o, struct sim_task *own)
{
	double device = 0;

	for (int e = 0; e < trace->n_endpoints; e++)
		device += (double)o[e].device_ns;
	for (int e = 0; e < trace->n_endpoints; e++) {
		int count = tasks_of(task, n, e, own);

		if (count) /* of few a second none may come */
			print_outcome(trace, policy, e, own, count, &o[e],
				      device > 0 ? (double)o[e].device_ns / device : 0);
	}
}

static int run_one(const struct trace *trace, const struct policy *policy, int i, struct err *err)
{
	struct outcome *o = calloc((size_t)trace->n_endpoints, sizeof(*o));
	struct sim_task *task = NULL, *own = NULL;
	int n = trace_tasks(trace, i, &task), r = 0;

	if (n > 0)
		own = calloc((size_t)n, sizeof(*own));
	if (n < 0 || !o || (n > 0 && !own)) {
		r = err_set(err, ERR_NO_MEMORY, "the tasks of a run");
		goto out;
	}
	if (n > 0)
		r = sim_run(trace, policy, task, n, o, err);
	if (n > 0 && r == 0)
		print_run(trace, policy, task, n, o, own);
out:
	free(o);
	free(own);
	free(task);
	return r;
}

static int run_all(const struct trace *trace, struct err *err)
{
	int r = 0;

	print_header(trace);
	for (int p = 0; p < trace->n_policies && r == 0; p++)
		for (int i = 0; i < trace->n_runs && r == 0; i++)
			r = run_one(trace, trace->policy[p], i, err);
	if (r == 0 && fflush(stdout) != 0)
		r = err_set(err, ERR_IO, "standard output: %s", strerror(errno));
	return r;
}

/* A pipe, too. */
static int read_all(int fd, struct buf *ret)
{
	char part[65536];
	ssize_t n;

	while ((n = read(fd, part, sizeof(part))) > 0 || (n < 0 && errno == EINTR)) {
		if (n > 0)
			buf_add(ret, part, (size_t)n);
		if (ret->len > MAX_TRACE)
			return -EFBIG;
	}
	return n < 0 ? -errno : buf_status(ret);
}

int simulate_main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct trace trace = {0};
	struct buf json = BUF_INIT;
	char text[512];
	int fd, r;

	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		usage(stdout);
		return 0;
	}
	if (argc != 2 || (argv[1][0] == '-' && argv[1][1])) {
		usage(stderr);
		return 2;
	}
	fd = strcmp(argv[1], "-") == 0 ? STDIN_FILENO : open(argv[1], O_RDONLY | O_CLOEXEC);
	r = fd < 0 ? -errno : read_all(fd, &json);
	if (fd > STDIN_FILENO)
		close(fd);
	if (r < 0) {
		fprintf(stderr, "inferfs simulate: %s: %s\n", argv[1], strerror(-r));
		buf_release(&json);
		return 2;
	}
	r = trace_parse(&trace, json.data ? json.data : "", json.len, &err);
	if (r == 0)
		r = run_all(&trace, &err);
	if (r < 0)
		fprintf(stderr, "inferfs simulate: %s: %s\n", argv[1], err_format(&err, text, sizeof(text)));
	trace_release(&trace);
	buf_release(&json);
	return r < 0;
}
