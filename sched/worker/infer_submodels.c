/*
 * The sub-models of an endpoint, slice × precision (of an ensemble × member, and combinations of them: infer_ensemble.c): which there are,
 * and which are worth their memory. A plan mixes the sub-models on the upper hull of (time, accuracy) with the origin (sched/plan/hull.c);
 * one that lies below it is in no optimum, but for rounding, and is freed after it was measured (infer_measure.c).
 */
#include "sched/worker/infer_private.h"

#include "engine/backend.h"

/* Times drift by so much between one measurement and the next (chosen): what is below the hull by less stays. */
#define DRIFT 0.1
/* Accuracies that differ by a tenth of a point are the same: on 10,000 images of validation the standard error of 90 % is
 * three times as much. So f32 is not kept for what bf16 gives as well. */
#define SAME_ACCURACY 0.001

/* What int8 may lose against f32 of the same slice. */
#define MOST_LOST 0.003f

/* Whether what was measured speaks for it. */
static bool is_good(const struct model_info *info, int rate, enum precision precision)
{
	float accuracy = info->narrow_accuracy[precision][rate];

	return precision != PRECISION_INT8 || accuracy >= info->accuracy[rate] - MOST_LOST;
}

/* Not f32: where it was measured, is faster and good enough, or as the spec says. */
static bool has_narrow(const struct infer_member *m, int rate, enum precision precision, unsigned precisions)
{
	const struct model_info *info = model_info(m->model);
	const unsigned this = 1u << precision;

	if (precisions == this)
		return true;
	if (!model_gains(m->model, backend_find(INFER_BACKEND), precision) || !is_good(info, rate, precision))
		return false;
	if (precision == PRECISION_INT8 && !model_calibrated(m->model, rate))
		return false;
	return precisions ? (precisions & this) != 0 : info->narrow_accuracy[precision][rate] > 0;
}

static void add(struct infer_member *m, int rate, enum precision precision)
{
	const struct model_info *info = model_info(m->model);
	float accuracy = info->narrow_accuracy[precision][rate];

	m->parts[m->n_parts++] = (struct infer_part){
		.rate_index = rate,
		.rate = info->rates[rate],
		.precision = precision,
		/* not measured: that of f32 is the best that is known */
		.accuracy = accuracy > 0 ? accuracy : info->accuracy[rate],
	};
}

static void list_parts(struct infer_member *m, unsigned precisions)
{
	_Static_assert(MAX_SUBMODELS >= MODEL_MAX_RATES * N_PRECISIONS, "all of a model's have a number");

	for (int i = 0; i < model_info(m->model)->n_rates; i++) {
		if (!precisions || (precisions & 1u << PRECISION_F32))
			add(m, i, PRECISION_F32);
		for (int p = PRECISION_F32 + 1; p < N_PRECISIONS; p++)
			if (has_narrow(m, i, (enum precision)p, precisions))
				add(m, i, (enum precision)p);
	}
}

int infer_submodels_list(struct infer_endpoint *e, unsigned precisions, struct err *err)
{
	struct infer_member *only = &e->members[0];

	for (int m = 0; m < e->n_members; m++) {
		list_parts(&e->members[m], precisions);
		if (!e->members[m].n_parts)
			return err_set(err, ERR_SPEC_VALUE, "\"precision\" leaves nothing to run");
	}
	if (e->n_members > 1)
		return infer_ensemble_list(e, err);
	for (int i = 0; i < only->n_parts; i++)
		e->submodels[e->n_submodels++] = (struct infer_submodel){
			.n_parts = 1, .parts = {{0, i}}, .accuracy = only->parts[i].accuracy};
	return 0;
}

int infer_submodel_sessions(struct infer_endpoint *e, int submodel, struct err *err)
{
	const struct infer_submodel *s = &e->submodels[submodel];
	int r = 0;

	for (int i = 0; r == 0 && i < s->n_parts; i++) {
		struct infer_part *part = infer_part(e, s->parts[i]);

		if (!part->session)
			r = session_new(&part->session, e->members[s->parts[i].member].model,
					backend_find(INFER_BACKEND),
					&(struct session_options){.rate = part->rate,
								  .precision = part->precision,
								  .batch = e->batch,
								  .threads = e->threads},
					err);
	}
	return r;
}

/* --- which are worth it --- */

static double time_of(const struct infer_submodel *s, bool one)
{
	return (double)(one ? s->time_one_ns : s->time_ns);
}

/* The highest point at time t of the hull of all but `i` and the idle ones. one: times of one instance, not of a full
 * mini-batch. */
static double hull_without(const struct infer_submodel *list, int n, int i, double t, bool one)
{
	double best = 0;

	for (int j = -1; j < n; j++) { /* -1: the origin */
		double tj = j < 0 ? 0 : time_of(&list[j], one), pj = j < 0 ? 0 : (double)list[j].accuracy;

		if (j == i || tj > t || (j >= 0 && list[j].idle))
			continue;
		best = pj > best ? pj : best;
		for (int k = 0; k < n; k++) {
			double tk = time_of(&list[k], one);
			double p = pj + ((double)list[k].accuracy - pj) * (t - tj) / (tk - tj);

			if (k != i && !list[k].idle && tk > t && p > best)
				best = p;
		}
	}
	return best;
}

/* Even if it were a little faster: below the hull, or no better than a faster one, full or with one instance. */
static bool below_hull(const struct infer_submodel *list, int n, int i)
{
	double accuracy = (double)list[i].accuracy - SAME_ACCURACY;

	return hull_without(list, n, i, time_of(&list[i], false) * (1 - DRIFT), false) >= accuracy &&
	       hull_without(list, n, i, time_of(&list[i], true) * (1 - DRIFT), true) >= accuracy;
}

/* The fastest that is not judged yet; -1: all are. */
static int next_fastest(const struct infer_submodel *list, int n, unsigned judged)
{
	int fastest = -1;

	for (int i = 0; i < n; i++)
		if (!(judged & 1u << i) && (fastest < 0 || list[i].time_ns < list[fastest].time_ns))
			fastest = i;
	return fastest;
}

void infer_submodels_choose(struct infer_submodel *list, int n)
{
	unsigned judged = 0;
	float best = 0;

	for (int i = 0; i < n; i++)
		best = list[i].accuracy > best ? list[i].accuracy : best;
	/* 0: nothing is known of any. The faster first: what is hardly better than one that is itself idle stays. */
	for (int i; best > 0 && (i = next_fastest(list, n, judged)) >= 0; judged |= 1u << i)
		list[i].idle = below_hull(list, n, i);
}
