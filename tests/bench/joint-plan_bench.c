/*
 * How long planning several tasks together takes and how good it is: `bench-joint-plan [CASES [TASKS]]` (target
 * bench-joint-plan). 64 tasks, each of 8 sub-models with times from 0.5 to 100 ms and accuracies that grow with
 * them, S from 8 to 64, deadlines spread evenly; load is the time of all mini-batches on the fastest sub-models
 * ÷ the last deadline. `mixed`: N from 1 to 4000, even over its logarithm; `few`: 1 to 8 mini-batches; `small`:
 * one. in_0.5%: the share whose gap is proved to be within 0.5 %. Figures, never pass or fail.
 */
#include "sched/plan/joint.h"

#include "engine/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUBMODELS 8

static unsigned short seed[3] = {4, 2, 1};

static const double loads[] = {0.2, 0.5, 0.8, 1, 1.5, 2, 3};
static const struct kind {
	const char *name;
	double most; /* mini-batches; 0: by instances */
} kinds[] = {{"mixed", 0}, {"few", 8}, {"small", 1}};

static struct joint_task *tasks;
static struct plan_submodel (*submodels)[SUBMODELS];
static struct plan *plans;

static double between(double low, double high)
{
	return low + (high - low) * erand48(seed);
}

static int64_t make_task(struct joint_task *task, struct plan_submodel m[SUBMODELS], const struct kind *kind)
{
	struct plan_request *r = &task->request;
	double full = exp(between(log(5e6), log(1e8))), top = between(0.7, 0.97), loss = between(0.05, 0.3);

	*r = (struct plan_request){
		.n_submodels = SUBMODELS, .submodels = m, .batch = 8 + (int)between(0, 57)};
	r->instances = (int64_t)(kind->most > 0 ? ceil(between(0, kind->most * r->batch))
						: exp(between(0, log(4000))));
	task->weight = between(0, 1) < 0.75 ? 1 : 3;
	for (int i = 0; i < SUBMODELS; i++) {
		double slice = (i + 1.0) / SUBMODELS;

		m[i].time_ns = (int64_t)(full * (0.1 + 0.9 * pow(slice, 1.5)) * between(0.9, 1.1));
		m[i].time_one_ns = m[i].time_ns / 8;
		m[i].accuracy = round(1e4 * (top - loss * pow(1 - slice, 2) + between(-0.003, 0.003))) / 1e4;
	}
	return m[0].time_ns * ((r->instances - 1) / r->batch + 1);
}

static int by_deadline(const void *a, const void *b)
{
	const struct joint_task *x = a, *y = b;

	return (x->request.deadline_ns > y->request.deadline_ns) -
	       (x->request.deadline_ns < y->request.deadline_ns);
}

static void make_tasks(int n, const struct kind *kind, double load)
{
	double work = 0;

	for (int t = 0; t < n; t++)
		work += (double)make_task(&tasks[t], submodels[t], kind);
	for (int t = 0; t < n; t++)
		tasks[t].request.deadline_ns = (int64_t)(work / load * (1 - erand48(seed)));
	qsort(tasks, (size_t)n, sizeof(*tasks), by_deadline);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int run(const struct kind *kind, double load, int n, int cases, double *us, double *gaps)
{
	int by[PLAN_METHODS] = {0}, within = 0;
	double value = 0;

	for (int c = 0; c < cases; c++) {
		struct joint_plan joint;
		int64_t start;

		make_tasks(n, kind, load);
		start = clock_monotonic_ns();
		if (joint_plan(tasks, n, &joint_default, &joint, plans) < 0)
			return -1;
		us[c] = (double)(clock_monotonic_ns() - start) / 1e3;
		gaps[c] = 100 * joint.gap;
		within += joint.gap <= 0.005 + 1e-12;
		value += joint.value;
		by[joint.method]++;
	}
	qsort(us, (size_t)cases, sizeof(*us), compare);
	qsort(gaps, (size_t)cases, sizeof(*gaps), compare);
	printf("%-6s %5.1f %7.4f %9.0f %8.0f %8.0f %9.4f %8.4f %8.4f %8.4f %8.2f%% %6d %5d %5d\n", kind->name,
	       load, value / cases, us[cases / 2], us[cases * 99L / 100], us[cases - 1], gaps[cases / 2],
	       gaps[cases * 90L / 100], gaps[cases * 99L / 100], gaps[cases - 1], 100.0 * within / cases,
	       by[PLAN_HULL], by[PLAN_DP], by[PLAN_BNB]);
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	int cases = argc > 1 ? atoi(argv[1]) : 1000, n = argc > 2 ? atoi(argv[2]) : 64, r = 1;
	double *us, *gaps;

	if (cases < 1 || n < 1)
		return 1;
	tasks = calloc((size_t)n, sizeof(*tasks));
	submodels = calloc((size_t)n, sizeof(*submodels));
	plans = calloc((size_t)n, sizeof(*plans));
	us = calloc((size_t)cases, sizeof(*us));
	gaps = calloc((size_t)cases, sizeof(*gaps));
	if (!tasks || !submodels || !plans || !us || !gaps)
		goto out;
	printf("%d tasks × %d sub-models, %d cases each; gaps in percent\n", n, SUBMODELS, cases);
	printf("%-6s %5s %7s %9s %8s %8s %9s %8s %8s %8s %9s %6s %5s %5s\n", "N", "load", "value",
	       "median_us", "p99_us", "max_us", "gap_p50", "gap_p90", "gap_p99", "gap_max", "in_0.5%", "hull",
	       "dp", "bnb");
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
		for (size_t l = 0; l < sizeof(loads) / sizeof(loads[0]); l++)
			if (run(&kinds[k], loads[l], n, cases, us, gaps) < 0)
				goto out;
	r = 0;
out:
	free(tasks);
	free(submodels);
	free(plans);
	free(us);
	free(gaps);
	return r;
}
