/*
 * Cascades: a sub-model answers, and the answers it is least certain of (its largest softmax probability) are given anew by a better
 * one. What comes of that is measured on the validation split, with the numbers of a share q of instances at CASCADE_POINTS places:
 *
 *	threshold	of the q least certain answers the most certain one has this probability
 *	sure		accuracy of the 1 - q others
 *	then		accuracy of all when another sub-model answers the q in its place
 *
 * Accuracy of the one alone among the q: (p - (1-q)·sure)/q; of the other one among them: (then - (1-q)·sure)/q.
 */
#ifndef ENGINE_CASCADE_H
#define ENGINE_CASCADE_H

enum { CASCADE_POINTS = 9 };
#define CASCADE_SHARES {0.05f, 0.1f, 0.15f, 0.2f, 0.25f, 0.3f, 0.4f, 0.5f, 0.6f} /* q; chosen */

/* Of one sub-model; 0…1. */
struct cascade_first {
	float threshold[CASCADE_POINTS], sure[CASCADE_POINTS];
};

#endif
