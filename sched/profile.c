#include "sched/profile.h"

#include "sched/quantile.h"

#include <errno.h>
#include <math.h>

/* Chosen; profile.h explains them. */
#define DEVICE_WEIGHT    0.1
#define SUBMODEL_WEIGHT  0.05
#define SPREAD_WEIGHT    0.1
#define OUTLIER          2.0 /* times more or less */
#define OUTLIERS         3
#define FEW              16 /* for a quantile to mean something */
#define CAREFUL_QUANTILE 0.9
#define STEADY           0.02
#define DEVIATIONS       64
/* A day: a time beyond is nonsense, and sums of products stay far from the ends of int64_t. */
#define MAX_TIME_NS INT64_C(86400000000000)

static double full_ns(const struct profile *p, int i)
{
	return fmin(fmax(p->loaded[i] * p->device * p->full[i], 1), (double)MAX_TIME_NS);
}

static double one_ns(const struct profile *p, int i)
{
	return fmin(fmax(p->loaded_one[i] * p->device * p->one[i], 1), full_ns(p, i));
}

static double fill(const struct profile *p, int k)
{
	return p->batch == 1 ? 1 : (double)(k - 1) / (p->batch - 1);
}

static double expect_ns(const struct profile *p, int i, int k)
{
	double one = one_ns(p, i);

	return one + (full_ns(p, i) - one) * fill(p, k);
}

static void renew(struct profile *p)
{
	for (int i = 0; i < p->n; i++) {
		p->out[i].time_ns = llround(full_ns(p, p->times_of[i]));
		p->out[i].time_one_ns = llround(one_ns(p, p->times_of[i]));
	}
	p->generation++;
}

int profile_init(struct profile *p, int batch, const struct submodel *submodels, int n)
{
	int slowest = -1;

	if (batch < 1 || n < 1 || n > MAX_SUBMODELS)
		return -EINVAL;
	for (int i = 0; i < n; i++)
		if (!(submodels[i].accuracy >= 0 && submodels[i].accuracy <= 1) ||
		    submodels[i].time_ns >= MAX_TIME_NS)
			return -EINVAL;
	for (int i = 0; i < n; i++)
		if (!submodels[i].idle && (slowest < 0 || submodels[i].time_ns > submodels[slowest].time_ns))
			slowest = i;
	if (slowest < 0)
		return -EINVAL;
	p->batch = batch;
	p->n = n;
	p->device = 1;
	p->spread = 0;
	p->n_recent = 0;
	p->careful = 1;
	p->outliers = 0;
	for (int i = 0; i < n; i++) {
		int64_t t = submodels[i].time_ns, one = submodels[i].time_one_ns;

		if (t < 1)
			t = 1;
		p->loaded[i] = (double)t;
		p->loaded_one[i] = (double)(one > 0 && one < t ? one : t);
		p->full[i] = p->one[i] = 1;
		p->out[i].accuracy = submodels[i].idle ? 0 : submodels[i].accuracy;
		p->times_of[i] = submodels[i].idle ? slowest : i;
	}
	renew(p);
	return 0;
}

const struct plan_submodel *profile_submodels(const struct profile *p)
{
	return p->out;
}

uint64_t profile_generation(const struct profile *p)
{
	return p->generation;
}

/* Whether ratio is to be ignored; when it is the last of enough in a row, the device's factor takes them. */
static bool is_outlier(struct profile *p, double ratio)
{
	bool above = ratio > OUTLIER;

	if (ratio <= OUTLIER && ratio >= 1 / OUTLIER) {
		p->outliers = 0;
		return false;
	}
	if (!p->outliers || (p->outliers > 0) != above) {
		p->outliers = 0;
		p->mildest = ratio;
	}
	p->outliers += above ? 1 : -1;
	p->mildest = above ? fmin(p->mildest, ratio) : fmax(p->mildest, ratio);
	if (p->outliers >= OUTLIERS || p->outliers <= -OUTLIERS) {
		p->device *= p->mildest;
		p->outliers = 0;
	}
	return true;
}

void profile_measured(struct profile *p, int submodel, int k, int64_t ns)
{
	double ratio, w;

	if (submodel < 0 || submodel >= p->n || k < 1 || k > p->batch || ns <= 0)
		return;
	ratio = (double)ns / expect_ns(p, submodel, k);
	p->spread += SPREAD_WEIGHT * (fmin(fabs(ratio - 1), 1) - p->spread);
	if (!is_outlier(p, ratio)) {
		p->deviation += (fabs(ratio - 1) - p->deviation) / ++p->n_deviations;
		if (p->n_deviations == DEVIATIONS)
			p->n_deviations--;
		w = fill(p, k);
		p->device *= 1 + DEVICE_WEIGHT * (ratio - 1);
		p->full[submodel] *= 1 + SUBMODEL_WEIGHT * (ratio - 1) * w;
		p->one[submodel] *= 1 + SUBMODEL_WEIGHT * (ratio - 1) * (1 - w);
	}
	p->careful = quantile_keep(p->recent, PROFILE_RECENT, &p->n_recent, p->device, CAREFUL_QUANTILE);
	for (int i = 0; i < p->n; i++)
		if (p->times_of[i] == i &&
		    (fabs(full_ns(p, i) - (double)p->out[i].time_ns) > STEADY * (double)p->out[i].time_ns ||
		     fabs(one_ns(p, i) - (double)p->out[i].time_one_ns) >
			     STEADY * (double)p->out[i].time_one_ns)) {
			renew(p);
			break;
		}
}

int64_t profile_expect_ns(const struct profile *p, int submodel, int k)
{
	return llround(expect_ns(p, p->times_of[submodel], k));
}

double profile_careful(const struct profile *p)
{
	double few = p->n_recent < FEW ? 1 + 2 * p->spread : 1;

	return fmax(p->careful / p->device, few);
}

double profile_deviation(const struct profile *p)
{
	return p->n_deviations ? p->deviation * (1 + 2.0 / p->n_deviations) : 0;
}

double profile_spread(const struct profile *p)
{
	return p->spread;
}
