#include "engine/ensemble.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BEAM 24 /* chosen */
/* A combination that is further below the hull of costs than that is not worth measuring; chosen: costs are not times. */
#define FAR 0.02
/* So many of those that are chosen may be combinations at least, however many parts there are; chosen. */
#define LEAST_COMBINED 8
/* Numbers that may be added in all while combinations are tried: some seconds; chosen. Where it is more, fewer images do. */
#define WORK 4e9

/* --- what the members share --- */

/* Moves on in each member's file to the next image that is in all; false: there is none. */
static bool next_shared(const struct ensemble *e, size_t at[])
{
	for (int m = 0, same = 0; same < e->n_members; m = (m + 1) % e->n_members) {
		const struct validation *v = e->members[m].validation, *first = e->members[0].validation;
		uint64_t wanted;

		if (at[0] == first->n)
			return false;
		wanted = validation_id(first, at[0]);
		while (at[m] < v->n && validation_id(v, at[m]) < wanted)
			at[m]++;
		if (at[m] == v->n)
			return false;
		if (validation_id(v, at[m]) == wanted) {
			same++;
		} else { /* the first one's isn't there: its next one, from the beginning */
			at[0]++;
			m = e->n_members - 1;
			same = 0;
		}
	}
	return true;
}

static bool same_class(const struct ensemble *e, const size_t at[])
{
	int class = -1;

	for (int m = 0; m < e->n_members; m++) {
		const struct ensemble_member *member = &e->members[m];
		int own = member->labels[validation_label(member->validation, at[m])];

		if (m && own != class)
			return false;
		class = own;
	}
	return true;
}

int ensemble_init(struct ensemble *e, const struct ensemble_member *members, int n_members, int classes)
{
	size_t at[ENSEMBLE_MEMBERS] = {0};

	*e = (struct ensemble){.members = members, .n_members = n_members, .classes = classes};
	for (int m = 0; m < n_members; m++)
		if (!members[m].validation)
			return -ERANGE;
	for (int m = 0; m < n_members; m++) {
		e->image[m] = calloc(members[0].validation->n, sizeof(*e->image[m]));
		if (!e->image[m]) {
			ensemble_release(e);
			return -ENOMEM;
		}
	}
	while (next_shared(e, at)) {
		if (same_class(e, at)) {
			for (int m = 0; m < n_members; m++)
				e->image[m][e->n] = (uint32_t)at[m];
			e->n++;
		}
		at[0]++;
	}
	if (e->n >= VALIDATION_LEAST)
		return 0;
	e->n = 0;
	return -ERANGE;
}

void ensemble_release(struct ensemble *e)
{
	for (int m = 0; m < e->n_members; m++) {
		free(e->image[m]);
		e->image[m] = NULL;
	}
	e->n = 0;
}

/* --- measuring --- */

double ensemble_measure(const struct ensemble *e, const struct combination *c, size_t some)
{
	float *sum = calloc((size_t)e->classes, sizeof(*sum));
	size_t right = 0;

	for (size_t i = 0; sum && i < some; i++) {
		const struct ensemble_member *first = &e->members[0];
		int best = 0, class = first->labels[validation_label(first->validation, e->image[0][i])];

		memset(sum, 0, (size_t)e->classes * sizeof(*sum));
		for (int m = 0; m < e->n_members; m++) {
			const struct ensemble_member *member = &e->members[m];
			const float weight = (float)member->weight;
			const uint8_t *row;

			if (c->part[m] < 0)
				continue;
			row = validation_row(member->validation, member->parts[c->part[m]].validation,
					     e->image[m][i]);
			for (int k = 0; k < e->classes; k++)
				sum[member->labels[k]] += weight * (float)validation_u16(row + 2 * (size_t)k);
		}
		for (int k = 1; k < e->classes; k++)
			if (sum[k] > sum[best])
				best = k;
		right += best == class;
	}
	free(sum);
	return some ? (double)right / (double)some : 0;
}

/* --- choosing --- */

struct pool {
	struct combination *list;
	size_t n, size;
	bool failed;
};

static void pool_add(struct pool *pool, const struct combination *c)
{
	if (pool->n == pool->size) {
		size_t size = pool->size ? 2 * pool->size : 256;
		struct combination *list = realloc(pool->list, size * sizeof(*list));

		if (!list) {
			pool->failed = true;
			return;
		}
		pool->list = list;
		pool->size = size;
	}
	pool->list[pool->n++] = *c;
}

static int n_parts(const struct combination *c)
{
	int n = 0;

	for (int m = 0; m < ENSEMBLE_MEMBERS; m++)
		n += c->part[m] >= 0;
	return n;
}

static bool has(const struct pool *pool, size_t from, const struct combination *c)
{
	for (size_t i = from; i < pool->n; i++)
		if (memcmp(pool->list[i].part, c->part, sizeof(c->part)) == 0)
			return true;
	return false;
}

/* c and one part of a member that it hasn't. */
static void extend(const struct ensemble *e, struct pool *pool, size_t from, const struct combination *c,
		   int member, size_t some)
{
	for (int k = 0; k < e->members[member].n_parts; k++) {
		struct combination more = *c;

		if (e->members[member].parts[k].validation < 0)
			continue;
		more.part[member] = (int8_t)k;
		more.cost = c->cost + e->members[member].parts[k].cost;
		if (has(pool, from, &more))
			continue;
		more.accuracy = ensemble_measure(e, &more, some);
		pool_add(pool, &more);
	}
}

static bool measurable(const struct ensemble *e, const struct combination *c)
{
	for (int m = 0; m < e->n_members; m++)
		if (c->part[m] >= 0 && e->members[m].parts[c->part[m]].validation < 0)
			return false;
	return true;
}

static int by_cost(const void *a, const void *b)
{
	const struct combination *x = a, *y = b;

	if (x->cost != y->cost)
		return x->cost < y->cost ? -1 : 1;
	if (x->accuracy != y->accuracy)
		return x->accuracy > y->accuracy ? -1 : 1;
	return memcmp(x->part, y->part, sizeof(x->part));
}

struct near {
	struct combination c;
	double gap;
};

static int by_gap(const void *a, const void *b)
{
	const struct near *x = a, *y = b;

	if (x->gap != y->gap)
		return x->gap < y->gap ? -1 : 1;
	return by_cost(&x->c, &y->c);
}

/* How far each lies below the upper hull of all with the origin; those nearest to it first. NULL: no memory. */
static struct near *gaps(struct combination *list, size_t n)
{
	struct near *ret = calloc(n + 1, sizeof(*ret));
	size_t *hull = calloc(n + 1, sizeof(*hull)), m = 0, at = 0;

	if (!ret || !hull) {
		free(ret);
		ret = NULL;
		goto out;
	}
	if (n)
		qsort(list, n, sizeof(*list), by_cost);
	for (size_t i = 0; i < n; i++) {
		/* The last one goes while it lies below the line from the one before it (at first the origin) to i. */
		while (m && list[hull[m - 1]].accuracy <= list[i].accuracy) {
			double t0 = m > 1 ? list[hull[m - 2]].cost : 0,
			       p0 = m > 1 ? list[hull[m - 2]].accuracy : 0;
			const struct combination *last = &list[hull[m - 1]];

			if ((last->accuracy - p0) * (list[i].cost - t0) >
			    (list[i].accuracy - p0) * (last->cost - t0))
				break;
			m--;
		}
		if (!m || list[i].accuracy > list[hull[m - 1]].accuracy)
			hull[m++] = i;
	}
	for (size_t i = 0; i < n; i++) {
		double t0, p0, top;

		while (at + 1 < m && list[hull[at]].cost < list[i].cost)
			at++;
		t0 = at ? list[hull[at - 1]].cost : 0;
		p0 = at ? list[hull[at - 1]].accuracy : 0;
		top = list[hull[at]].accuracy;
		if (list[i].cost < list[hull[at]].cost)
			top = p0 + (top - p0) * (list[i].cost - t0) / (list[hull[at]].cost - t0);
		ret[i] = (struct near){.c = list[i],
				       .gap = top > list[i].accuracy ? top - list[i].accuracy : 0};
	}
	qsort(ret, n, sizeof(*ret), by_gap);
out:
	free(hull);
	return ret;
}

/* So that the combinations of all levels together are no more than WORK. */
static size_t how_many(const struct ensemble *e)
{
	double parts = 0, squares = 0, tries;

	for (int m = 0; m < e->n_members; m++) {
		parts += e->members[m].n_parts;
		squares += (double)e->members[m].n_parts * e->members[m].n_parts;
	}
	tries = parts * parts - squares; /* pairs, of two numbers each */
	for (int k = 3; k <= e->n_members; k++)
		tries += BEAM * parts * k;
	return tries * (double)e->classes * (double)e->n <= WORK
		       ? e->n
		       : (size_t)(WORK / (tries * (double)e->classes)) + 1;
}

/* Those of one member more than the ones from `from` on. False: no memory. */
static bool next_level(const struct ensemble *e, struct pool *pool, size_t from, size_t some)
{
	size_t end = pool->n, n = end - from;
	struct combination *best = calloc(n + 1, sizeof(*best));
	struct near *near = NULL;
	bool all = n_parts(&pool->list[from]) == 1;

	if (!best)
		return false;
	memcpy(best, pool->list + from, n * sizeof(*best));
	if (!all) {
		near = gaps(best, n);
		n = n < BEAM ? n : BEAM;
		for (size_t i = 0; near && i < n; i++)
			best[i] = near[i].c;
	}
	for (size_t i = 0; i < n && (all || near); i++)
		for (int m = 0; m < e->n_members && measurable(e, &best[i]); m++)
			if (best[i].part[m] < 0)
				extend(e, pool, end, &best[i], m, some);
	free(best);
	free(near);
	return !pool->failed && (all || near);
}

static void add_alone(const struct ensemble *e, struct pool *pool)
{
	for (int m = 0; m < e->n_members; m++)
		for (int k = 0; k < e->members[m].n_parts; k++) {
			const struct ensemble_part *part = &e->members[m].parts[k];
			struct combination c = {.accuracy = part->accuracy, .cost = part->cost};

			memset(c.part, -1, sizeof(c.part));
			c.part[m] = (int8_t)k;
			pool_add(pool, &c);
		}
}

/* As the caller gets them. */
static int in_order(const void *a, const void *b)
{
	const struct combination *x = a, *y = b;
	bool alone = n_parts(x) == 1;

	if (alone != (n_parts(y) == 1))
		return alone ? -1 : 1;
	for (int m = 0; alone && m < ENSEMBLE_MEMBERS; m++)
		if (x->part[m] != y->part[m]) /* the one that has it comes first, or the lower part */
			return x->part[m] < 0 ? 1 : y->part[m] < 0 ? -1 : x->part[m] - y->part[m];
	return by_cost(a, b);
}

int ensemble_choose(const struct ensemble *e, struct combination *ret, int max)
{
	size_t from = 0, some = how_many(e);
	struct pool pool = {0};
	struct near *near = NULL;
	int n = 0, alone = e->n ? max - LEAST_COMBINED : max;

	add_alone(e, &pool);
	for (int level = 2; level <= e->n_members && e->n && !pool.failed && pool.n > from; level++) {
		size_t end = pool.n;

		if (!next_level(e, &pool, from, some))
			pool.failed = true;
		from = end;
	}
	if (!pool.failed)
		near = gaps(pool.list, pool.n);
	for (size_t i = 0; near && i < pool.n && n < alone; i++)
		if (n_parts(&near[i].c) == 1)
			ret[n++] = near[i].c;
	for (size_t i = 0; near && i < pool.n && n < max; i++)
		if (n_parts(&near[i].c) > 1 && near[i].gap <= FAR)
			ret[n++] = near[i].c;
	for (int i = 0; i < n; i++)
		if (some < e->n && n_parts(&ret[i]) > 1)
			ret[i].accuracy = ensemble_measure(e, &ret[i], e->n);
	qsort(ret, (size_t)n, sizeof(*ret), in_order);
	free(pool.list);
	if (!near)
		return -ENOMEM;
	free(near);
	return n;
}
