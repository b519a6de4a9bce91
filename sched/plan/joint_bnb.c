/*
 * Branch and bound by GLPK: a column for each item of each group that a better solution may use, and one for
 * the time that is used up to each deadline, so that the matrix is sparse:
 *
 *	Σ_i n_gi ≤ count_g	C_t - C_(t-1) - Σ n_gi·t_gi (of task t's groups) = 0	0 ≤ C_t ≤ D_t
 *
 * Warm start: the LP is solved already (joint_lp.c), so the simplex begins at its optimal basis: of each
 * group the item that all are on (or the row, where they are dropped), and for the group at which the time
 * ended the next item in place of C_t, which is at D_t. Branch and bound begins with the best solution.
 */
#include "sched/plan/joint_internal.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <glpk.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

#define TOLERANCE     1e-9
#define INT_TOLERANCE 1e-6

struct run {
	struct joint *j;
	double cut, budget; /* what has to be beaten, what may be lost */
	double scale;       /* ns of a unit of time */
	int n_deadlines;    /* of tasks that have groups: columns 1… */
	int n_columns;      /* of these and of items */
	int *deadlines;     /* (n_tasks) the column of its deadline, or of the last before that has groups */
	int (*items)[MAX_SUBMODELS]; /* (n_groups) the column of an item; 0: none */
	int n_entries;               /* of the matrix, from 1 */
	int *rows, *columns;         /* (2·n_groups·(MAX_SUBMODELS + 1) + 1) */
	double *entries;
	double *start; /* (n_groups·(MAX_SUBMODELS + 1) + 1) the best solution in columns */
	double bound;
};

static void add_entry(struct run *run, int row, int column, double value)
{
	run->n_entries++;
	run->rows[run->n_entries] = row;
	run->columns[run->n_entries] = column;
	run->entries[run->n_entries] = value;
}

static void set_range(glp_prob *lp, int column, double upper)
{
	/* A double-bounded column needs two different bounds. */
	glp_set_col_bnds(lp, column, upper > 0 ? GLP_DB : GLP_FX, 0, upper);
}

static void add_deadlines(struct run *run, glp_prob *lp)
{
	const struct joint *j = run->j;
	int g = 0;

	for (int t = 0; t < j->n_tasks; t++) {
		bool any = false;

		for (; g < j->n_groups && j->groups[g].task == t; g++)
			any = true;
		run->n_deadlines += any;
		run->deadlines[t] = run->n_deadlines;
	}
	run->n_columns = run->n_deadlines;
	glp_add_rows(lp, j->n_groups + run->n_deadlines);
	glp_add_cols(lp, run->n_deadlines);
	for (int k = 1; k <= run->n_deadlines; k++) {
		glp_set_row_bnds(lp, j->n_groups + k, GLP_FX, 0, 0);
		add_entry(run, j->n_groups + k, k, 1);
		if (k > 1)
			add_entry(run, j->n_groups + k, k - 1, -1);
	}
}

static void add_item(struct run *run, glp_prob *lp, int group, int i)
{
	const struct group *g = &run->j->groups[group];
	int64_t most = run->j->limits[g->task] / g->items[i].time;
	int column;

	most = most < g->count ? most : g->count;
	if (g->loss[i] > 0 && run->budget / g->loss[i] < (double)most)
		most = (int64_t)(run->budget / g->loss[i]);
	/* The best solution may have more. */
	most = most > g->n[i] ? most : g->n[i];
	run->items[group][i] = 0;
	if (!most)
		return;
	column = run->items[group][i] = ++run->n_columns;
	glp_add_cols(lp, 1);
	glp_set_col_kind(lp, column, GLP_IV);
	set_range(lp, column, (double)most);
	glp_set_obj_coef(lp, column, g->items[i].value);
	glp_set_col_stat(lp, column, GLP_NL);
	add_entry(run, group + 1, column, 1);
	add_entry(run, run->j->n_groups + run->deadlines[g->task], column,
		  -(double)g->items[i].time / run->scale);
	run->start[column] = (double)g->n[i];
}

/* The LP's optimal basis: as many columns as rows, since a deadline has one critical group at most. */
static void set_basis(const struct run *run, glp_prob *lp, int group)
{
	const struct group *g = &run->j->groups[group];

	if (g->vertex)
		glp_set_col_stat(lp, run->items[group][g->hull.item[g->vertex - 1]], GLP_BS);
	glp_set_row_stat(lp, group + 1, g->vertex ? GLP_NU : GLP_BS);
	if (g->critical < 0)
		return;
	glp_set_col_stat(lp, run->items[group][g->hull.item[g->vertex]], GLP_BS);
	glp_set_col_stat(lp, run->deadlines[g->critical], GLP_NU);
}

static glp_prob *make(struct run *run)
{
	glp_prob *lp = glp_create_prob();
	const struct joint *j = run->j;
	double most = 0, used = 0;

	glp_set_obj_dir(lp, GLP_MAX);
	add_deadlines(run, lp);
	for (int k = 1; k <= run->n_deadlines; k++) {
		glp_set_row_stat(lp, j->n_groups + k, GLP_NS);
		glp_set_col_stat(lp, k, GLP_BS);
	}
	for (int k = 0; k < j->n_groups; k++) {
		const struct group *g = &j->groups[k];
		int column = run->deadlines[g->task];

		most += (double)g->count * (double)g->items[g->n_items - 1].time;
		glp_set_row_bnds(lp, k + 1, GLP_UP, 0, (double)g->count);
		set_range(lp, column, fmin((double)j->limits[g->task], most) / run->scale);
		for (int i = 0; i < g->n_items; i++) {
			add_item(run, lp, k, i);
			used += (double)g->n[i] * (double)g->items[i].time;
		}
		run->start[column] = used / run->scale;
		set_basis(run, lp, k);
	}
	glp_load_matrix(lp, run->n_entries, run->rows, run->columns, run->entries);
	return lp;
}

static void watch(glp_tree *tree, void *data)
{
	struct run *run = data;
	int best = glp_ios_best_node(tree);

	if (best)
		run->bound = fmin(run->bound, glp_ios_node_bound(tree, best));
	if (glp_ios_reason(tree) == GLP_IHEUR && glp_ios_curr_node(tree) == 1)
		glp_ios_heur_sol(tree, run->start);
	if (clock_monotonic_ns() > run->j->end_ns || run->bound <= run->cut)
		glp_ios_terminate(tree);
}

/* 0: next is a solution, or there is none better; -EIO: there is none and the bound may be anything. */
static int solve(void *data)
{
	struct run *run = data;
	struct joint *j = run->j;
	glp_prob *lp = make(run);
	glp_smcp simplex;
	glp_iocp mip;
	int64_t left = (j->end_ns - clock_monotonic_ns()) / 1000000 + 1;
	int r = -EIO, rc;

	glp_init_smcp(&simplex);
	simplex.msg_lev = GLP_MSG_OFF;
	simplex.tol_bnd = simplex.tol_dj = TOLERANCE;
	simplex.tm_lim = left < 1 ? 1 : left < INT_MAX ? (int)left : INT_MAX;
	glp_init_iocp(&mip);
	mip.msg_lev = GLP_MSG_OFF;
	mip.tol_int = INT_TOLERANCE;
	mip.tol_obj = TOLERANCE;
	mip.cb_func = watch;
	mip.cb_info = run;
	if (glp_simplex(lp, &simplex) != 0 || glp_get_status(lp) != GLP_OPT)
		goto out;
	rc = glp_intopt(lp, &mip);
	if (rc != 0 && rc != GLP_ESTOP)
		goto out;
	r = 0;
	if (glp_mip_status(lp) != GLP_OPT && glp_mip_status(lp) != GLP_FEAS)
		goto out;
	/* An optimum worse than what is known is none. */
	if (rc == 0 && glp_mip_obj_val(lp) < j->value * (1 - 10 * TOLERANCE))
		r = -EIO;
	if (rc == 0)
		run->bound = glp_mip_obj_val(lp);
	for (int k = 0; k < j->n_groups; k++)
		for (int i = 0; i < j->groups[k].n_items; i++) {
			int column = run->items[k][i];

			j->groups[k].next[i] = column ? llround(glp_mip_col_val(lp, column)) : 0;
		}
out:
	glp_delete_prob(lp);
	return r;
}

static bool allocate(struct run *run, size_t tasks, size_t groups)
{
	size_t columns = groups * (MAX_SUBMODELS + 1) + 1;

	run->deadlines = malloc(tasks * sizeof(*run->deadlines));
	run->items = malloc(groups * sizeof(*run->items));
	run->rows = malloc(2 * columns * sizeof(*run->rows));
	run->columns = malloc(2 * columns * sizeof(*run->columns));
	run->entries = malloc(2 * columns * sizeof(*run->entries));
	run->start = malloc(columns * sizeof(*run->start));
	return run->deadlines && run->items && run->rows && run->columns && run->entries && run->start;
}

void joint_bnb(struct joint *j)
{
	double cut = joint_cut(j);
	struct run run = {.j = j, .cut = cut, .budget = joint_budget(j), .scale = 1, .bound = j->lp};

	if (clock_monotonic_ns() > j->end_ns || !allocate(&run, (size_t)j->n_tasks, (size_t)j->n_groups))
		goto out;
	for (int k = 0; k < j->n_groups; k++)
		run.scale = fmax(run.scale, (double)j->groups[k].items[j->groups[k].n_items - 1].time);
	if (glpk_guarded(solve, &run) < 0)
		goto out;
	joint_offer(j, PLAN_BNB);
	j->bound = fmin(j->bound, fmax(run.bound, cut));
out:
	free(run.deadlines);
	free(run.items);
	free(run.rows);
	free(run.columns);
	free(run.entries);
	free(run.start);
}
