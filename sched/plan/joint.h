/*
 * The plan of several tasks that share one worker, which runs their mini-batches in order of deadlines (EDF:
 * where any order keeps all of them, this one does). Task t has N_t instances, mini-batches of S_t, sub-models
 * with p_ti and t_ti of its own, a weight w_t and a deadline D_t from now, D_1 ≤ D_2 ≤ …:
 *
 *	maximise Σ_t w_t·(instances answered, each with its p_ti)  ÷  Σ_t w_t·N_t
 *	subject to  Σ_{s ≤ t} Σ_i n_si·t_si ≤ D_t  for each t,  Σ_i n_ti ≤ N_t/S_t,  n_ti ≥ 0 integer
 *
 * (issue 5, after SINGA-Easy, MM'21, Eq. 2-6). A weight is what one instance is worth: equal weights share the
 * device so that the most instances are answered right, whatever task they belong to. Who wants tasks to count
 * the same whatever their size, Σ w_t·p_eff_t, gives w_t/N_t. A mini-batch that is not full is worth its
 * instances and takes the time that plan.h says.
 *
 *	struct joint_task tasks[n] = {…};
 *	struct joint_plan joint;
 *	struct plan plans[n];
 *	joint_plan(tasks, n, &joint_default, &joint, plans);
 *
 * Not thread-safe: GLPK has global state. planner_new makes GLPK's first call, which takes longer.
 */
#ifndef SCHED_PLAN_JOINT_H
#define SCHED_PLAN_JOINT_H

#include "sched/plan/plan.h"

#define JOINT_TASKS 64 /* GLPK is asked about no more at once */

struct joint_task {
	struct plan_request request; /* no deadline_ns is below that of the task before */
	double weight;               /* 1e-12…1e12 */
};

struct joint_limits {
	double gap;      /* 0…1: good enough; 0: the optimum, within 1e-9 */
	int64_t time_ns; /* for going on when the first solution's gap is larger; GLPK may overrun it by a node */
};
extern const struct joint_limits joint_default; /* 0.5 %, 1.5 ms */

struct joint_plan {
	double value; /* 0…1 */
	double bound; /* proved: no plan's value is larger (by more than 1e-8 where GLPK proved it) */
	double gap;   /* (bound - value) ÷ bound; 0 when both are 0 */
	enum plan_method method; /* PLAN_HULL: the LP's optimum rounded; PLAN_DP; PLAN_BNB */
	int64_t solve_ns;
};

/*
 * plans (n) get each task's share: their bound is the task's own, as if it were alone, their method that of
 * the whole, solve_ns is 0. The LP and rounding take some 2 µs a task (5 µs of a thousand), whatever limits say.
 * More than JOINT_TASKS tasks do without GLPK: the gap is proved as well, but may stay larger.
 * -EINVAL (then *ret and plans are untouched): n < 1, deadlines not in order, weights or limits out of range, or
 * what planner_plan refuses; -ENOMEM.
 */
int joint_plan(const struct joint_task *tasks, int n, const struct joint_limits *limits,
	       struct joint_plan *ret, struct plan *plans);

#endif
