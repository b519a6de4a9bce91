/*
 * Algorithm 2 of SINGA-Easy (MM'21), as it is printed: all mini-batches are given to the fastest sub-model when not even that is in
 * time, or to the slowest when even that is; between, a queue of linear programs (Eq. 2, 3, 5, 6) is worked off first in, first out.
 * Every mini-batch counts as a full one, so N_mb = ⌈N/S⌉, and nothing is ever dropped: what is late is late.
 *
 * The paper does not say how large its queue may grow; beyond MAX_NODES, or when no program had an integral optimum, what comes next
 * there does here as well: the knapsack, here without rounding D where that is possible (dp.c).
 */
#include "sched/plan/internal.h"

#include <errno.h>
#include <glpk.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES 4096 /* some 30 ms; chosen */
#define INTEGRAL  1e-7 /* GLPK's tolerances */

struct node {
	int least[MAX_SUBMODELS], most[MAX_SUBMODELS]; /* n_i */
};

struct search {
	const struct plan_request *request;
	int n, of[MAX_SUBMODELS]; /* those with an accuracy; in the request */
	int count;                /* N_mb */
	struct node *queue;       /* (MAX_NODES) */
	int first, behind;
	double value; /* of the best so far; negative: none */
	int64_t best[MAX_SUBMODELS];
};

static glp_prob *make(const struct search *s)
{
	glp_prob *lp = glp_create_prob();
	double scale = (double)s->request->deadline_ns;

	glp_set_obj_dir(lp, GLP_MAX);
	glp_add_rows(lp, 2);
	glp_set_row_bnds(lp, 1, GLP_UP, 0, s->count);
	glp_set_row_bnds(lp, 2, GLP_UP, 0, 1);
	glp_add_cols(lp, s->n);
	for (int i = 0; i < s->n; i++) {
		const struct plan_submodel *m = &s->request->submodels[s->of[i]];

		glp_set_obj_coef(lp, 1 + i, m->accuracy);
		glp_set_mat_col(lp, 1 + i, 2, (int[]){0, 1, 2}, (double[]){0, 1, (double)m->time_ns / scale});
	}
	return lp;
}

static void push(struct search *s, const struct node *node, int i, int least, int most)
{
	struct node *to;

	if (s->behind == MAX_NODES || least > most)
		return;
	to = &s->queue[s->behind++];
	*to = *node;
	to->least[i] = least;
	to->most[i] = most;
}

/* -EAGAIN: the program has no solution. */
static int solve(glp_prob *lp, const struct search *s, const struct node *node)
{
	glp_smcp simplex;

	glp_init_smcp(&simplex);
	simplex.msg_lev = GLP_MSG_OFF;
	for (int i = 0; i < s->n; i++)
		glp_set_col_bnds(lp, 1 + i, node->least[i] == node->most[i] ? GLP_FX : GLP_DB, node->least[i],
				 node->most[i]);
	glp_std_basis(lp);
	return glp_simplex(lp, &simplex) == 0 && glp_get_status(lp) == GLP_OPT ? 0 : -EAGAIN;
}

static int search(void *data)
{
	struct search *s = data;
	glp_prob *lp = make(s);

	while (s->first < s->behind) {
		const struct node node = s->queue[s->first++];
		int i = 0;

		if (solve(lp, s, &node) < 0 || glp_get_obj_val(lp) <= s->value)
			continue;
		while (i < s->n &&
		       fabs(glp_get_col_prim(lp, 1 + i) - round(glp_get_col_prim(lp, 1 + i))) < INTEGRAL)
			i++;
		if (i < s->n) {
			int floor_i = (int)floor(glp_get_col_prim(lp, 1 + i));

			push(s, &node, i, floor_i + 1, node.most[i]);
			push(s, &node, i, node.least[i], floor_i);
			continue;
		}
		s->value = glp_get_obj_val(lp);
		for (i = 0; i < s->n; i++)
			s->best[s->of[i]] = llround(glp_get_col_prim(lp, 1 + i));
	}
	glp_delete_prob(lp);
	return 0;
}

/* Between the two simple cases. */
static int branch_and_bound(struct search *s)
{
	struct plan plan;
	int64_t time = 0;
	int r;

	s->queue = malloc(MAX_NODES * sizeof(*s->queue));
	if (!s->queue)
		return -ENOMEM;
	s->value = -1;
	s->behind = 1;
	s->queue[0] = (struct node){0};
	for (int i = 0; i < s->n; i++)
		s->queue[0].most[i] = s->count;
	r = glpk_guarded(search, s);
	free(s->queue);
	for (int i = 0; i < s->n; i++)
		time += s->best[s->of[i]] * s->request->submodels[s->of[i]].time_ns;
	if (r == 0 && s->value >= 0 && time <= s->request->deadline_ns)
		return 0;
	r = plan_by_dp(s->request, &plan);
	if (r == 0)
		memcpy(s->best, plan.n, sizeof(s->best));
	return r;
}

int plan_by_algorithm2(const struct plan_request *request, struct plan *ret)
{
	struct search s = {.request = request};
	int fastest = -1, slowest = -1, r;
	const struct plan_submodel *m = request->submodels;
	struct problem p;
	__int128 used = 0;
	double value = 0;

	r = problem_init(&p, request);
	if (r < 0)
		return r;
	if ((request->instances + request->batch - 1) / request->batch > INT32_MAX)
		return -EINVAL;
	s.count = (int)((request->instances + request->batch - 1) / request->batch);
	for (int i = 0; i < request->n_submodels; i++) {
		if (m[i].accuracy == 0)
			continue;
		s.of[s.n++] = i;
		fastest = fastest < 0 || m[i].time_ns < m[fastest].time_ns ? i : fastest;
		slowest = slowest < 0 || m[i].time_ns > m[slowest].time_ns ? i : slowest;
	}
	*ret = (struct plan){.partial = -1, .method = PLAN_BNB, .dropped = request->instances};
	if (fastest < 0)
		return 0;
	if (p.deadline <= (__int128)s.count * m[fastest].time_ns)
		s.best[fastest] = s.count;
	else if (p.deadline >= (__int128)s.count * m[slowest].time_ns)
		s.best[slowest] = s.count;
	else if ((r = branch_and_bound(&s)) < 0)
		return r;
	memcpy(ret->n, s.best, sizeof(ret->n));
	/* The one that is not full comes last, with the slowest; what is beyond D is worth nothing. */
	for (int i = 0; i < request->n_submodels; i++) {
		int64_t fits = s.best[i];

		if (!fits)
			continue;
		if (p.rest && (ret->partial < 0 || m[i].time_ns > m[ret->partial].time_ns))
			ret->partial = i;
		if ((__int128)fits * m[i].time_ns > p.deadline - used)
			fits = (int64_t)((p.deadline - used) / m[i].time_ns);
		used += (__int128)fits * m[i].time_ns;
		value += (double)fits * request->batch * m[i].accuracy;
		ret->dropped -= fits * request->batch;
	}
	if (ret->partial >= 0 && ret->dropped < 0) {
		value += (double)(p.rest - request->batch) * m[ret->partial].accuracy;
		ret->dropped += request->batch - p.rest;
	}
	ret->p_eff = value / (double)request->instances;
	ret->bound = fmax(p.bound / (double)request->instances, ret->p_eff);
	return 0;
}
