/*
 * Ensembles: several models answer together, by the weighted mean of their probabilities, p = Σ w_m·p_m / Σ w_m (SINGA-Easy's and
 * Rafiki's Predictor, with weights). What can answer is each sub-model of a member alone, and combinations of one sub-model each of
 * two or more members. How accurate a combination is is counted on the validation images that all members share.
 *
 *	ensemble_init(&e, members, n_members, classes);	// -ERANGE: they share too few images
 *	n = ensemble_choose(&e, list, max);		// those worth running
 *	ensemble_release(&e);
 *
 * There are more combinations than anybody wants to measure or to plan with. All pairs are tried, larger ones only as extensions of the
 * BEAM best of one member less, and those that come nearest to the upper hull of (cost, accuracy) are chosen, first of the parts alone,
 * then, in the room that is left, of the combinations. The cost stands for
 * the time that is not known yet: it must depend on the models alone, for so does then the choice, and a sub-model's number means the same
 * after the worker started anew on a machine that is busier than it was.
 */
#ifndef ENGINE_ENSEMBLE_H
#define ENGINE_ENSEMBLE_H

#include "engine/validation.h"

#include <stdbool.h>

#define ENSEMBLE_MEMBERS 8 /* chosen */

enum { ENSEMBLE_PARTS = 24 }; /* sub-models of one member */

struct ensemble_member {
	double weight;     /* > 0 */
	const int *labels; /* (classes) which of the ensemble's its classes are: each one once; borrowed */
	const struct validation *validation; /* borrowed */
	int n_parts;
	struct ensemble_part {
		int validation;  /* its number there; -1: it isn't there, so it is in no combination */
		double accuracy; /* alone */
		double cost;     /* > 0 */
	} parts[ENSEMBLE_PARTS];
};

struct ensemble {
	const struct ensemble_member *members; /* borrowed */
	int n_members, classes;
	size_t n;                          /* images that all share, and the same class of */
	uint32_t *image[ENSEMBLE_MEMBERS]; /* (n) the number of each in the member's file; owned */
};

/* One sub-model each of some members. */
struct combination {
	int8_t part[ENSEMBLE_MEMBERS]; /* -1: the member isn't in it */
	double accuracy, cost;
};

/* -ERANGE: fewer than VALIDATION_LEAST images; then there are no combinations, but ensemble_choose works. -ENOMEM */
int ensemble_init(struct ensemble *e, const struct ensemble_member *members, int n_members, int classes);
void ensemble_release(struct ensemble *e);
/* Share of the first `some` images (n: all) that a combination's mean is right of. */
double ensemble_measure(const struct ensemble *e, const struct combination *c, size_t some);
/* At most `max`: sub-models alone, by member and part; then combinations, the cheapest first. Their number, or -ENOMEM. */
int ensemble_choose(const struct ensemble *e, struct combination *ret, int max);

#endif
