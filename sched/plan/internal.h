/*
 * Private to sched/plan: a request made ready to be solved, and what every method works on and fills.
 *
 * Values are in instances: a full mini-batch on sub-model i is worth S·p_i, the one that is not full k·p_i;
 * so p_eff = value / N. `items` and `parts` hold only what can be in an optimum: nothing that is no faster
 * and no more accurate than another, nothing worth 0, nothing that does not fit in D alone; ascending in
 * time and in value.
 *
 * The mini-batch that is not full makes K + 1 cases: it is dropped, or sub-model j takes it; what is left
 * of D is for the full ones.
 */
#ifndef SCHED_PLAN_INTERNAL_H
#define SCHED_PLAN_INTERNAL_H

#include "sched/plan/plan.h"

#include <stdbool.h>

struct item {
	int64_t time;
	double value;
	int index; /* in the request */
};

struct problem {
	const struct plan_request *request;
	int64_t deadline; /* D, not negative */
	int64_t full;     /* mini-batches of S instances */
	int rest;         /* k: instances of the one that is not full; 0: there is none */
	int n_items, n_parts;
	struct item items[MAX_SUBMODELS]; /* for full mini-batches */
	struct item parts[MAX_SUBMODELS]; /* for the one that is not full */
	double tolerance;                 /* what is better by less than this is not searched for */
	double gain;                      /* two values that differ do so by at least this; 0: unknown */
	double bound;                     /* of the LP, over all cases */
};

struct solution {
	int64_t n[MAX_SUBMODELS]; /* by request index, full ones only */
	int part;                 /* request index of who takes the one that is not full; -1 */
	double value;
	bool proved; /* no solution is better */
};

#define SOLUTION_NONE ((struct solution){.part = -1})

int64_t plan_gcd(int64_t a, int64_t b); /* of what is not negative; gcd(0, b) = b */

/* -EINVAL: counts, times or accuracies out of range. */
int problem_init(struct problem *p, const struct plan_request *request);
/* A part-filled mini-batch's time, plan.h's formula, rounded down. */
int64_t problem_part_time(const struct plan_request *request, int submodel, int k);
__int128 problem_time(const struct problem *p, const struct solution *s);
/* Computes the value; -ERANGE when it does not fit in D or in the counts. Exact. */
int problem_check(const struct problem *p, struct solution *s);
/* Whether a bound proves that nothing is better than value. */
bool problem_closed(const struct problem *p, double bound, double value);
/* Uses up what time *s leaves, then writes the plan. */
void problem_plan(const struct problem *p, struct solution *s, enum plan_method method, struct plan *ret);

/*
 * The upper hull of (t_i, v_i) with the origin, which is a vertex: ascending, each with less value for time
 * than the one before.
 */
struct hull {
	int n; /* vertices without the origin */
	int item[MAX_SUBMODELS];
	double time[MAX_SUBMODELS + 1], value[MAX_SUBMODELS + 1],
		slope[MAX_SUBMODELS + 1]; /* [0]: the origin */
};

/* Of the items whose bit is set in mask. */
void hull_init(struct hull *h, const struct item *items, int n, unsigned mask);
/* The LP's value for m mini-batches in d ns. The optimum takes x of the vertex *ret_v and m - x of the one
 * before. */
double hull_lp(const struct hull *h, double m, double d, int *ret_v, double *ret_x);

/* Each improves *s where it can, and sets proved when it knows that nothing is better. */
void hull_solve(const struct problem *p, struct solution *s, int max_nodes);
void bnb_solve(const struct problem *p, struct solution *s);
void dp_solve(const struct problem *p, struct solution *s);

#define HULL_NODES    2000   /* some 40 µs; about what GLPK takes */
#define HULL_PATIENCE 300000 /* some 6 ms, when all else has failed */

int bnb_warm_up(void); /* GLPK's first call takes some 270 µs */
/* fn(data), which calls GLPK; -EIO where that would have ended the process: every object of GLPK's is gone then. */
int glpk_guarded(int (*fn)(void *data), void *data);

struct plan_cache;
int plan_cache_new(struct plan_cache **ret);
void plan_cache_free(struct plan_cache *c);
bool plan_cache_get(struct plan_cache *c, const struct plan_request *request, struct plan *ret);
void plan_cache_put(struct plan_cache *c, const struct plan_request *request, const struct plan *plan);

#endif
