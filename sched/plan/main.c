/*
 * inferfs plan: what would be scheduled, as JSON.
 */
#include "sched/plan/plan.h"
#include "sched/sched.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
	double accuracy[MAX_SUBMODELS], time_ms[MAX_SUBMODELS], time_one_ms[MAX_SUBMODELS], batch, count;
	int n_accuracy, n_time, n_time_one, n_batch, n_count; /* how many were given */
	struct deadline deadline;
};

/* Numbers go to a list of at most `most`; NULL values: the deadline. */
static const struct plan_option {
	const char *name, *argument, *help;
	size_t values, given; /* offsets in struct arguments */
	int most;
	double min, max;
	bool whole, needed;
} options[] = {
#define LIST(field) offsetof(struct arguments, field), offsetof(struct arguments, n_##field)
	{"accuracy", "P,…", "accuracy of each sub-model, percent", LIST(accuracy), MAX_SUBMODELS, 0, 100,
	 false, true},
	{"time-ms", "T,…", "time of each for a full mini-batch, ms", offsetof(struct arguments, time_ms),
	 offsetof(struct arguments, n_time), MAX_SUBMODELS, 1e-6, 1e9, false, true},
	{"time-one-ms", "T,…", "time of each for one instance, ms; default: as a full mini-batch",
	 offsetof(struct arguments, time_one_ms), offsetof(struct arguments, n_time_one), MAX_SUBMODELS, 1e-6,
	 1e9, false, false},
	{"batch", "S", "instances of a mini-batch; default 32", LIST(batch), 1, 1, 1e6, true, false},
	{"count", "N", "instances", LIST(count), 1, 1, 1e9, true, true},
	{"deadline", "D", "5, 5s, 800ms or 2m from now; default: none", 0, 0, 0, 0, 0, false, false},
#undef LIST
};
#define OPTIONS (int)(sizeof(options) / sizeof(options[0]))

static void usage(FILE *f)
{
	fputs("usage: inferfs plan --accuracy P,… --time-ms T,… --count N [OPTION…]\n"
	      "Prints the best plan of N instances before a deadline as JSON: n (mini-batches of each "
	      "sub-model),\n"
	      "p_eff (percent), dropped (instances), method (hull, bnb, dp, cache), solve_us.\n\n",
	      f);
	for (int i = 0; i < OPTIONS; i++)
		fprintf(f, "  --%-12s %-4s %s\n", options[i].name, options[i].argument, options[i].help);
	fputs("  --help\n", f);
}

static int complain(const struct plan_option *option, const char *what)
{
	fprintf(stderr, "inferfs plan: --%s: %s\n", option->name, what);
	return -EINVAL;
}

static int parse_list(struct arguments *a, const struct plan_option *option, const char *text)
{
	double *values = (double *)((char *)a + option->values);
	int *given = (int *)((char *)a + option->given);
	char message[96], *end;

	for (*given = 0;; text = end + 1) {
		double value = strtod(text, &end);

		if (*given == option->most) {
			snprintf(message, sizeof(message), "at most %d can be given", option->most);
			return complain(option, message);
		}
		/* strtod alone would take blanks, "inf" and "0x1p3". */
		if (end == text || strspn(text, "0123456789.eE+-") < (size_t)(end - text) ||
		    (*end && *end != ','))
			return complain(option, "not a list of numbers with commas between");
		if (!(value >= option->min && value <= option->max) ||
		    (option->whole && value != floor(value))) {
			snprintf(message, sizeof(message), "%s from %.10g to %.10g",
				 option->whole ? "a whole number" : "numbers", option->min, option->max);
			return complain(option, message);
		}
		values[(*given)++] = value;
		if (!*end)
			return 0;
	}
}

static int parse_deadline(struct arguments *a, const struct plan_option *option, const char *text)
{
	int r = deadline_parse(&a->deadline, text, strlen(text), NULL);

	if (r < 0 || a->deadline.absolute)
		return complain(option, "write 5, 5s, 800ms or 2m, and more than zero");
	return 0;
}

/* 0, 1: help was asked for, or -EINVAL. */
static int parse(struct arguments *a, int argc, char **argv)
{
	struct option longs[OPTIONS + 2] = {0};
	int c, r = 0, which;

	for (int i = 0; i < OPTIONS; i++)
		longs[i] = (struct option){options[i].name, required_argument, NULL, 'o'};
	longs[OPTIONS] = (struct option){"help", no_argument, NULL, 'h'};
	optind = 1;
	while (r == 0 && (c = getopt_long(argc, argv, "h", longs, &which)) != -1) {
		if (c == 'h')
			return 1;
		if (c != 'o')
			return -EINVAL;
		r = options[which].most ? parse_list(a, &options[which], optarg)
					: parse_deadline(a, &options[which], optarg);
	}
	if (r < 0)
		return r;
	if (optind < argc) {
		fprintf(stderr, "inferfs plan: what is \"%s\"?\n", argv[optind]);
		return -EINVAL;
	}
	for (int i = 0; i < OPTIONS; i++)
		if (options[i].needed && !*(int *)((char *)a + options[i].given))
			return complain(&options[i], "is needed");
	if (a->n_time != a->n_accuracy || (a->n_time_one && a->n_time_one != a->n_accuracy)) {
		fputs("inferfs plan: --accuracy and the times must be of equally many sub-models\n", stderr);
		return -EINVAL;
	}
	return 0;
}

static int print(const struct plan *plan, int n)
{
	cJSON *json = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(json, "n");
	char *text;
	int r;

	for (int i = 0; i < n; i++)
		cJSON_AddItemToArray(list, cJSON_CreateNumber((double)plan->n[i]));
	/* Digits beyond these would be noise of binary fractions. */
	cJSON_AddNumberToObject(json, "p_eff", round(plan->p_eff * 1e8) / 1e6);
	cJSON_AddNumberToObject(json, "dropped", (double)plan->dropped);
	cJSON_AddStringToObject(json, "method", plan_method_name(plan->method));
	cJSON_AddNumberToObject(json, "solve_us", (double)plan->solve_ns / 1e3);
	text = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	if (!text)
		return -ENOMEM;
	r = puts(text) < 0 || fflush(stdout) != 0 ? -errno : 0;
	cJSON_free(text);
	return r;
}

int plan_main(int argc, char **argv)
{
	struct arguments a = {.batch = 32};
	struct plan_submodel submodels[MAX_SUBMODELS] = {0};
	struct plan_request request = {.submodels = submodels, .deadline_ns = INT64_MAX};
	struct planner *planner = NULL;
	struct plan plan;
	int r = parse(&a, argc, argv);

	if (r > 0) {
		usage(stdout);
		return 0;
	}
	if (r < 0) {
		fputs("Try inferfs plan --help.\n", stderr);
		return 2;
	}
	request.n_submodels = a.n_accuracy;
	request.instances = (int64_t)a.count;
	request.batch = (int)a.batch;
	if (a.deadline.set)
		request.deadline_ns = a.deadline.ns;
	for (int i = 0; i < a.n_accuracy; i++)
		submodels[i] = (struct plan_submodel){
			.accuracy = a.accuracy[i] / 100,
			.time_ns = llround(a.time_ms[i] * 1e6),
			.time_one_ns = a.n_time_one ? llround(a.time_one_ms[i] * 1e6) : 0};
	r = planner_new(&planner);
	if (r == 0)
		r = planner_plan(planner, &request, &plan);
	if (r == 0)
		r = print(&plan, request.n_submodels);
	if (r < 0)
		fprintf(stderr, "inferfs plan: %s\n", strerror(-r));
	planner_free(planner);
	return r < 0;
}
