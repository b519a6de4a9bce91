/*
 * Private to sched/plan/joint*.c: the tasks made ready to be solved together.
 *
 * A task is one or two groups: its full mini-batches, and the one that is not full, which may be given out
 * once. Then all groups are alike: count mini-batches at most, each on one of items or dropped; and the LP
 * relaxation of each is count times a hull. Values are in instances of the greatest weight.
 *
 * With the LP's prices, price[t] for a nanosecond of task t, any solution falls short of the LP's bound by
 *
 *	Σ_g Σ_i n_gi·loss_gi + Σ_g dropped_g·worth_g + Σ_t (price[t] - price[t+1])·(time left before D_t)
 *
 *	worth_g = max(0, max_i v_gi - price·t_gi),  loss_gi = worth_g - (v_gi - price·t_gi)
 *
 * (complementary slackness), each term of which is not negative: what costs more than the gap that is left is
 * in no better solution. Labels and GLPK are spared it.
 */
#ifndef SCHED_PLAN_JOINT_INTERNAL_H
#define SCHED_PLAN_JOINT_INTERNAL_H

#include "sched/plan/internal.h"
#include "sched/plan/joint.h"

/* Of one mini-batch to a better sub-model. */
struct move {
	int from; /* of items; -1: dropped */
	int to;   /* -1: there is no move that fits */
	int64_t time;
	double gain;
};

struct group {
	int task;
	bool part; /* the mini-batch that is not full */
	int64_t count;
	int n_items;
	struct item items[MAX_SUBMODELS]; /* as struct problem's, but weighted */
	struct hull hull;
	/* the LP's optimum */
	int64_t time;
	int vertex;   /* of the hull: all mini-batches are at this one … */
	int critical; /* … or some at the next: the task whose deadline ended it; -1 */
	double worth, loss[MAX_SUBMODELS];
	/* mini-batches on each of items */
	int64_t n[MAX_SUBMODELS];    /* of the best solution so far */
	int64_t next[MAX_SUBMODELS]; /* of the one that is being made */
	struct move move;            /* the best of next's */
};

struct joint {
	const struct joint_task *tasks;
	int n_tasks, n_groups;
	struct problem *problems; /* (n_tasks) */
	struct group *groups;     /* (2·n_tasks) in order of tasks */
	int64_t *limits;          /* (n_tasks) D_t, not negative */
	int64_t *left;            /* (n_tasks) time before D_t that groups' next leaves */
	int64_t *room;            /* (n_tasks) what task t may still take: the least of left[t…] */
	double *price;            /* (n_tasks + 1), descending; the last is 0 */
	double total;             /* Σ weight·instances */
	double lp;                /* the LP's bound */
	double value, bound;      /* of the best solution so far, of all */
	enum plan_method method;  /* who found it */
	double gap;               /* good enough */
	int64_t end_ns;           /* clock_monotonic_ns() */
};

/* A solution worth no more than this is not searched for: then the gap is good enough. */
double joint_cut(const struct joint *j);
bool joint_done(const struct joint *j);

/* The bound, prices, and the LP's optimum in groups. -ENOMEM. */
int joint_lp(struct joint *j);
/* The LP's optimum rounded. */
void joint_round(struct joint *j);
/* Left and room of groups' next; -ERANGE when it does not fit. Exact. */
int joint_room(struct joint *j);
/* A task takes so much more of its room. */
void joint_use(struct joint *j, int task, int64_t time);
/* Gives what time groups' next leaves to what gains most by it; where it is better than the best, it becomes
 * that. Nothing happens when it does not fit. */
void joint_offer(struct joint *j, enum plan_method method);
/* What may be lost against the LP's bound. */
double joint_budget(const struct joint *j);

/* What is decided at once, see joint_stages.c: `size` mini-batches of a group, all on the same item. */
struct choice {
	int item; /* -1: dropped */
	int64_t time;
	double value, loss;
};

struct edge {
	double length, slope;
};

struct future { /* convex: from (start, value) along edges */
	double start, value;
	int edge, n; /* the first, how many */
};

struct stage {
	int group;
	int64_t size;
	int n_choices;
	struct choice choices[MAX_SUBMODELS + 1];
	int64_t high; /* what all choices so far may take at most, so that what comes can keep the deadlines */
	int64_t limit; /* when it is its task's last: D_t; else 0 */
	double drop;   /* then: what a nanosecond left before D_t costs */
	struct future future;
};

struct stages {
	int n, max_stages;
	struct stage *stages;
	bool complete; /* no solution within the budget is left out */
	struct edge *edges;
	int n_edges, max_edges;
};

/* -ERANGE: there is no solution within the budget (if complete); -ETIME; -ENOMEM. */
int joint_stages(const struct joint *j, double budget, struct stages *ret);
void joint_stages_free(struct stages *s);
/* Sets all stages' future. Errors as joint_stages. */
int joint_futures(struct stages *stages, double budget, int64_t end_ns);

struct cursor { /* begins at the future's start; for times in ascending order */
	int edge;
	double time, value;
};
/* The least that is lost after stage s when all up to it took that much; INFINITY: more than the budget. */
double joint_future(const struct stages *stages, const struct stage *s, struct cursor *c, int64_t time);

/*
 * Dynamic programming over at most `width` labels at a time, when not joint_done. How much of the bound that
 * limit cost: more than 1 spoils the proof; at 0 more width proves no more.
 */
double joint_labels(struct joint *j, int width);
void joint_bnb(struct joint *j);

#endif
