/*
 * Private to sched: how careful an endpoint's schedules are, learnt from what became of them.
 *
 *	caution_init(&c);
 *	reserve = caution_deviations(&c) * …		// before a deadline (choose_time.c)
 *	caution_ran(&c, n);				// a mini-batch of n was done
 *	caution_answered(&c, late);			// an instance that had a deadline and was computed has its answer
 *	time -= caution_unpromised(&c) * time;		// of what a task is told at its submission
 *	caution_ended(&c, promised, missed);		// that task ended
 *
 * Deviations. A mini-batch that should take t takes t·ρ, and δ is the mean of |ρ-1| (profile_deviation). Deviations that know nothing of
 * each other add up in squares, so what lies between now and the end of a mini-batch, or of a whole task of time T in mini-batches of t, is
 * exceeded rarely by more than
 *
 *	z·√Σ(δ·t_j)²		z·δ·√(T·t)
 *
 * How rarely depends on z and on the tail of ρ, of which δ says nothing and a few dozen mini-batches little. So z isn't worked out of a
 * distribution: it is moved until misses are as rare as they are to be (τ of the instances that were started). After each answer
 *
 *	z ← z + η/s·(late - τ)		late: 1 or 0; s: the mean size of a mini-batch, whose instances are late together
 *
 * the stochastic approximation of a quantile (Robbins and Monro, Ann. Math. Stat. 22, 1951), with a step that stays, since the device
 * changes. Whatever the times are like, even set by an adversary, the share of misses among n answers then is off τ by no more than
 * (z's range + η)·s/(η·n), as long as z isn't at an end of its range (Gibbs and Candès, Adaptive conformal inference, NeurIPS'21, Prop.
 * 4.1). Exact times have δ = 0, and z means nothing.
 *
 * A late mini-batch raises z by η, and it takes 1000 in time to take that back. A stall of the machine hits two at most, those at the
 * executor; it is no deviation (profile.c leaves it out of δ), and z ends where no usual time is missed. So it can't cost much, or for long.
 *
 * The range: below its least z gains less than it loses. Where the mini-batches fill the time, a z larger by 1 costs δ of a mini-batch;
 * what it saves is the density of being late there, which for normal times of δ ≤ 0.09 is more than that until z = 2.
 *
 * Promises. What a task is told that will be in time can also be missed without a single late answer: the time goes to stalls, or to what came later. The
 * share of a task's time that isn't promised, u, moves likewise, by the share x of the promised instances that were not in time:
 *
 *	u ← u + υ·(x - τ)
 *
 * Owner thread only.
 */
#ifndef SCHED_CAUTION_H
#define SCHED_CAUTION_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* The fields are caution.c's. */
struct caution {
	double z, size, unpromised;
};

/* What may go wrong until a mini-batch is done that is handed over now. */
struct doubt {
	double z, deviation; /* of the mini-batch's endpoint */
	double squares;      /* Σ(δ·t)² of those before it, ns² */
};

/* The reserve for those before it; what one that takes `time` adds to that; and what a sum of time `all` needs for itself, of such as
 * take `each`. */
static inline int64_t doubt_before(const struct doubt *d)
{
	return (int64_t)(d->z * sqrt(d->squares));
}

static inline int64_t doubt_own(const struct doubt *d, int64_t time)
{
	double own = d->deviation * (double)time;

	return (int64_t)(d->z * (sqrt(d->squares + own * own) - sqrt(d->squares)));
}

static inline int64_t doubt_sum(const struct doubt *d, double all, double each)
{
	return (int64_t)(d->z * d->deviation * sqrt(all * each));
}

void caution_init(struct caution *c);
void caution_ran(struct caution *c, int n);
void caution_answered(struct caution *c, bool late);
void caution_ended(struct caution *c, int64_t promised,
		   int64_t missed);                 /* missed of promised; 0: it wasn't told anything */
double caution_deviations(const struct caution *c); /* z */
double caution_unpromised(const struct caution *c); /* u, 0…1 */

#endif
