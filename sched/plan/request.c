#include "sched/plan/internal.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define MAX_INSTANCES INT64_C(1000000000000)
#define MAX_BATCH     1000000
#define MAX_TIME      (INT64_C(1) << 60) /* ns, 36 years: sums of two fit */
/* Accuracies are mostly counts ÷ a round number: then values are multiples of a quantum. */
#define DECIMALS 1000000

int64_t problem_part_time(const struct plan_request *request, int submodel, int k)
{
	const struct plan_submodel *m = &request->submodels[submodel];

	if (!m->time_one_ns || request->batch == 1)
		return m->time_ns;
	return m->time_one_ns +
	       (int64_t)((__int128)(m->time_ns - m->time_one_ns) * (k - 1) / (request->batch - 1));
}

static int check_request(const struct plan_request *r)
{
	if (r->n_submodels < 1 || r->n_submodels > MAX_SUBMODELS || r->instances < 1 ||
	    r->instances > MAX_INSTANCES || r->batch < 1 || r->batch > MAX_BATCH)
		return -EINVAL;
	for (int i = 0; i < r->n_submodels; i++) {
		const struct plan_submodel *m = &r->submodels[i];

		if (!(m->accuracy >= 0 && m->accuracy <= 1) || m->time_ns < 1 || m->time_ns > MAX_TIME ||
		    m->time_one_ns < 0 || m->time_one_ns > MAX_TIME)
			return -EINVAL;
	}
	return 0;
}

static bool comes_before(const struct item *a, const struct item *b)
{
	if (a->time != b->time)
		return a->time < b->time;
	return a->value != b->value ? a->value > b->value : a->index < b->index;
}

/* Sorts and drops what can't be in an optimum. Returns how many are left. */
static int reduce(struct item *items, int n, int64_t deadline)
{
	int kept = 0;

	for (int i = 1; i < n; i++) {
		struct item item = items[i];
		int k = i;

		for (; k && comes_before(&item, &items[k - 1]); k--)
			items[k] = items[k - 1];
		items[k] = item;
	}
	for (int i = 0; i < n && items[i].time <= deadline; i++)
		if (items[i].value > (kept ? items[kept - 1].value : 0))
			items[kept++] = items[i];
	return kept;
}

int64_t plan_gcd(int64_t a, int64_t b)
{
	while (b) {
		int64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static double smallest_gain(const struct problem *p)
{
	const struct plan_request *r = p->request;
	int64_t quantum = 0;

	for (int i = 0; i < r->n_submodels; i++) {
		double scaled = r->submodels[i].accuracy * DECIMALS;

		if (fabs(scaled - round(scaled)) > 1e-6)
			return 0;
		quantum = plan_gcd(quantum, llround(scaled) * r->batch);
		if (p->rest)
			quantum = plan_gcd(quantum, llround(scaled) * p->rest);
	}
	return (double)quantum / DECIMALS;
}

static double lp_bound(const struct problem *p)
{
	struct hull h;
	double bound, x;
	int v;

	hull_init(&h, p->items, p->n_items, ~0u);
	bound = hull_lp(&h, (double)p->full, (double)p->deadline, &v, &x);
	for (int i = 0; i < p->n_parts; i++)
		bound = fmax(bound,
			     p->parts[i].value + hull_lp(&h, (double)p->full,
							 (double)(p->deadline - p->parts[i].time), &v, &x));
	return bound;
}

int problem_init(struct problem *p, const struct plan_request *request)
{
	int r = check_request(request);

	if (r < 0)
		return r;
	p->request = request;
	p->deadline = request->deadline_ns > 0 ? request->deadline_ns : 0;
	p->full = request->instances / request->batch;
	p->rest = (int)(request->instances % request->batch);
	p->n_items = p->n_parts = 0;
	for (int i = 0; i < request->n_submodels; i++) {
		const struct plan_submodel *m = &request->submodels[i];

		if (p->full)
			p->items[p->n_items++] = (struct item){m->time_ns, request->batch * m->accuracy, i};
		if (p->rest)
			p->parts[p->n_parts++] = (struct item){problem_part_time(request, i, p->rest),
							       p->rest * m->accuracy, i};
	}
	p->n_items = reduce(p->items, p->n_items, p->deadline);
	p->n_parts = reduce(p->parts, p->n_parts, p->deadline);
	/* Half of what plan.h promises; the rounding of doubles is a thousand times finer. */
	p->tolerance = (double)request->instances * 5e-10;
	p->gain = smallest_gain(p);
	if (p->gain < 4 * p->tolerance)
		p->gain = 0;
	p->bound = lp_bound(p);
	return 0;
}

__int128 problem_time(const struct problem *p, const struct solution *s)
{
	const struct plan_request *r = p->request;
	__int128 time = s->part >= 0 ? problem_part_time(r, s->part, p->rest) : 0;

	for (int i = 0; i < r->n_submodels; i++)
		time += (__int128)s->n[i] * r->submodels[i].time_ns;
	return time;
}

int problem_check(const struct problem *p, struct solution *s)
{
	const struct plan_request *r = p->request;
	__int128 count = 0;
	double value = 0;

	for (int i = 0; i < r->n_submodels; i++) {
		if (s->n[i] < 0)
			return -ERANGE;
		count += s->n[i];
		value += (double)s->n[i] * (r->batch * r->submodels[i].accuracy);
	}
	if (s->part >= 0) {
		if (!p->rest)
			return -ERANGE;
		value += p->rest * r->submodels[s->part].accuracy;
	}
	if (count > p->full || problem_time(p, s) > p->deadline)
		return -ERANGE;
	s->value = value;
	return 0;
}

bool problem_closed(const struct problem *p, double bound, double value)
{
	return p->gain > 0 ? bound < value + p->gain - p->tolerance : bound <= value + p->tolerance;
}

/*
 * Of 1e12 instances a few may be left out within the tolerance although there is time, and what is answered
 * with accuracy 0 adds nothing to p_eff, but an answer is better than none: gives what is left over to what
 * fits.
 */
static void use_rest(const struct problem *p, struct solution *s)
{
	const struct plan_request *r = p->request;
	int64_t m = p->full, d = p->deadline;
	int worthless = -1; /* the fastest of accuracy 0 */

	for (int i = 0; i < r->n_submodels; i++) {
		m -= s->n[i];
		d -= s->n[i] * r->submodels[i].time_ns;
		if (r->submodels[i].accuracy == 0 &&
		    (worthless < 0 || r->submodels[i].time_ns < r->submodels[worthless].time_ns))
			worthless = i;
	}
	if (s->part >= 0)
		d -= problem_part_time(r, s->part, p->rest);
	for (int i = p->n_parts - 1; i >= 0 && s->part < 0; i--)
		if (p->parts[i].time <= d) {
			s->part = p->parts[i].index;
			d -= p->parts[i].time;
		}
	for (int i = p->n_items - 1; i >= 0; i--) {
		int64_t n = d / p->items[i].time < m ? d / p->items[i].time : m;

		s->n[p->items[i].index] += n;
		m -= n;
		d -= n * p->items[i].time;
	}
	if (worthless < 0)
		goto out;
	if (d / r->submodels[worthless].time_ns < m)
		m = d / r->submodels[worthless].time_ns;
	s->n[worthless] += m;
	d -= m * r->submodels[worthless].time_ns;
	if (p->rest && s->part < 0 && problem_part_time(r, worthless, p->rest) <= d)
		s->part = worthless;
out:
	problem_check(p, s);
}

void problem_plan(const struct problem *p, struct solution *s, enum plan_method method, struct plan *ret)
{
	const struct plan_request *r = p->request;
	double instances = (double)r->instances;

	use_rest(p, s);
	*ret = (struct plan){.partial = s->part, .method = method, .dropped = r->instances};
	for (int i = 0; i < r->n_submodels; i++) {
		ret->n[i] = s->n[i];
		ret->dropped -= s->n[i] * r->batch;
	}
	if (s->part >= 0) {
		ret->n[s->part]++;
		ret->dropped -= p->rest;
	}
	ret->p_eff = s->value / instances;
	ret->bound = fmax(p->bound / instances, ret->p_eff);
}
