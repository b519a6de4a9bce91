/*
 * Branch and bound by GLPK, all cases in one program: a column n_i for each sub-model and, where one
 * mini-batch is not full, a binary column y_j for who takes it.
 *
 *	maximise Σ n_i·v_i + Σ y_j·w_j	subject to  Σ n_i ≤ F,  Σ n_i·t_i + Σ y_j·τ_j ≤ D,  Σ y_j ≤ 1
 *
 * GLPK works with tolerances in doubles: its answer is checked in integers, and one that does not fit
 * proves nothing. After an internal error (glpk.c) *s may hold anything.
 */
#include "sched/plan/internal.h"

#include <errno.h>
#include <glpk.h>
#include <math.h>
#include <stdlib.h>

#define TIME_LIMIT_MS 5 /* chosen: a plan must not hold up the scheduler's loop */
/* Finer than GLPK's defaults of 1e-7 and 1e-5: mini-batches are counted up to 1e9. */
#define TOLERANCE     1e-9
#define INT_TOLERANCE 1e-6

static void set_column(glp_prob *lp, int column, const struct item *item, double scale, double upper,
		       int kind, int count_row)
{
	int rows[3] = {0, count_row, 2};
	double values[3] = {0, 1, (double)item->time / scale};

	glp_set_col_kind(lp, column, kind);
	glp_set_col_bnds(lp, column, GLP_DB, 0, upper);
	glp_set_obj_coef(lp, column, item->value);
	glp_set_mat_col(lp, column, 2, rows, values);
}

static glp_prob *make(const struct problem *p)
{
	glp_prob *lp = glp_create_prob();
	double scale = 1;

	for (int i = 0; i < p->n_items; i++)
		scale = fmax(scale, (double)p->items[i].time);
	for (int i = 0; i < p->n_parts; i++)
		scale = fmax(scale, (double)p->parts[i].time);
	glp_set_obj_dir(lp, GLP_MAX);
	glp_add_rows(lp, 3);
	glp_set_row_bnds(lp, 1, GLP_UP, 0, (double)p->full);
	glp_set_row_bnds(lp, 2, GLP_UP, 0, (double)p->deadline / scale);
	glp_set_row_bnds(lp, 3, GLP_UP, 0, 1);
	glp_add_cols(lp, p->n_items + p->n_parts);
	for (int i = 0; i < p->n_items; i++) {
		int64_t most = p->deadline / p->items[i].time;

		most = most < p->full ? most : p->full;
		/* A double-bounded column needs two different bounds. */
		set_column(lp, 1 + i, &p->items[i], scale, (double)(most ? most : 1), GLP_IV, 1);
	}
	for (int i = 0; i < p->n_parts; i++)
		set_column(lp, 1 + p->n_items + i, &p->parts[i], scale, 1, GLP_BV, 3);
	return lp;
}

/* 0; -EAGAIN when the time limit stopped it, with *s a solution or none; or -EIO. */
static int solve(const struct problem *p, struct solution *s)
{
	glp_prob *lp = make(p);
	glp_smcp simplex;
	glp_iocp mip;
	int r = -EIO, rc;

	glp_init_smcp(&simplex);
	simplex.msg_lev = GLP_MSG_OFF;
	simplex.tol_bnd = simplex.tol_dj = TOLERANCE;
	simplex.tm_lim = TIME_LIMIT_MS;
	glp_init_iocp(&mip);
	mip.msg_lev = GLP_MSG_OFF;
	mip.tol_int = INT_TOLERANCE;
	mip.tol_obj = TOLERANCE;
	mip.tm_lim = TIME_LIMIT_MS;
	if (glp_simplex(lp, &simplex) != 0 || glp_get_status(lp) != GLP_OPT)
		goto out;
	rc = glp_intopt(lp, &mip);
	if (rc != 0 && rc != GLP_ETMLIM)
		goto out;
	r = -EAGAIN;
	if (glp_mip_status(lp) != GLP_OPT && glp_mip_status(lp) != GLP_FEAS)
		goto out;
	if (rc == 0 && glp_mip_status(lp) == GLP_OPT)
		r = 0;
	for (int i = 0; i < p->n_items; i++)
		s->n[p->items[i].index] = llround(glp_mip_col_val(lp, 1 + i));
	for (int i = 0; i < p->n_parts; i++)
		if (glp_mip_col_val(lp, 1 + p->n_items + i) > 0.5)
			s->part = p->parts[i].index;
out:
	glp_delete_prob(lp);
	return r;
}

struct call {
	const struct problem *p;
	struct solution *s;
};

static int solve_call(void *data)
{
	struct call *call = data;

	return solve(call->p, call->s);
}

void bnb_solve(const struct problem *p, struct solution *best)
{
	struct solution s = SOLUTION_NONE;
	int r = 0;

	if (p->n_items + p->n_parts)
		r = glpk_guarded(solve_call, &(struct call){p, &s});
	if (r == -EIO)
		return;
	if (problem_check(p, &s) < 0)
		return;
	/* An optimum worse than what is known is none. */
	if (s.value < best->value * (1 - 10 * TOLERANCE))
		r = -EIO;
	if (s.value > best->value)
		*best = s;
	best->proved = r == 0 || problem_closed(p, p->bound, best->value);
}

int bnb_warm_up(void)
{
	static const struct plan_submodel models[] = {{.accuracy = 0.9, .time_ns = 3},
						      {.accuracy = 0.7, .time_ns = 2}};
	const struct plan_request request = {
		.n_submodels = 2, .submodels = models, .instances = 5, .batch = 1, .deadline_ns = 12};
	struct solution s = SOLUTION_NONE;
	struct problem p;
	int r = problem_init(&p, &request);

	if (r < 0)
		return r;
	bnb_solve(&p, &s);
	return 0;
}

int plan_by_bnb(const struct plan_request *request, struct plan *ret)
{
	struct solution s = SOLUTION_NONE;
	struct problem p;
	int r = problem_init(&p, request);

	if (r < 0)
		return r;
	bnb_solve(&p, &s);
	if (!s.proved)
		return -EAGAIN;
	problem_plan(&p, &s, PLAN_BNB, ret);
	return 0;
}
