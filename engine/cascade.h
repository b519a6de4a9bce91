/*
 * Cascades: a sub-model answers, and the answers it is least certain of (its largest softmax probability) are given anew by a better
 * one. What comes of that is measured on the validation split, with the numbers of a share q of instances at CASCADE_POINTS places:
 *
 *	threshold	of the q least certain answers the most certain one has this probability
 *	sure		accuracy of the 1 - q others
 *	then		accuracy of all when another sub-model answers the q in its place
 *
 * Accuracy of the one alone among the q: (p - (1-q)·sure)/q; of the other one among them: (then - (1-q)·sure)/q.
 *
 * Where q of n instances is no whole number, it is the nearest one, at least 1. Of answers as certain as each other the one that
 * comes first counts as the less certain.
 *
 *	cascade_answers_init(&a, n);		// likewise b, of another sub-model
 *	…					// a.certain, a.right of each instance
 *	cascade_sort(&a);
 *	cascade_measure_first(&a, &first);
 *	cascade_measure_then(&a, &b, then);	// b's own order is of no account
 *	cascade_answers_release(&a);
 */
#ifndef ENGINE_CASCADE_H
#define ENGINE_CASCADE_H

#include <stddef.h>
#include <stdint.h>

enum { CASCADE_POINTS = 9 };
extern const float cascade_shares[CASCADE_POINTS]; /* q: 0.05 to 0.6; chosen */

/* Of one sub-model; 0…1. */
struct cascade_first {
	float threshold[CASCADE_POINTS], sure[CASCADE_POINTS];
};

#define CASCADE_LEAST 100 /* chosen: with fewer instances than that a twentieth of them says nothing */

/* What one sub-model says of n instances. */
struct cascade_answers {
	size_t n;        /* at least CASCADE_LEAST */
	float *certain;  /* (n) the largest softmax probability, 0…1; owned, as the others are */
	uint8_t *right;  /* (n) 0 or 1 */
	uint32_t *order; /* (n) the instances, the least certain first */
};

int cascade_answers_init(struct cascade_answers *a, size_t n); /* -ENOMEM */
void cascade_answers_release(struct cascade_answers *a);
int cascade_sort(struct cascade_answers *a); /* fills order. -ENOMEM */
void cascade_measure_first(const struct cascade_answers *a, struct cascade_first *ret);
void cascade_measure_then(const struct cascade_answers *first, const struct cascade_answers *then,
			  float ret[CASCADE_POINTS]);

#endif
