/*
 * Private to timeline_svg.c: its axis of time. Where nothing was there for long it is cut: what is left are stretches, all of
 * one scale, each with a time of its own that begins at 0.
 *
 *	axis_add(&axis, (struct stretch){.from = …, .to = …});	// all that is shown
 *	axis_lay_out(&axis, left, width);
 *	s = axis_stretch(&axis, from, to);
 *	x = axis_x(&axis, s, from);
 */
#ifndef SCHED_TIMELINE_AXIS_H
#define SCHED_TIMELINE_AXIS_H

#include "engine/base/buf.h"

#include <stdint.h>

#define AXIS_STRETCHES 32

struct stretch {
	int64_t from, to; /* ns */
	double x;         /* pixels, of `from` */
};

struct axis {
	struct stretch stretches[AXIS_STRETCHES]; /* (n), ascending once it is laid out */
	int n;
	double scale, end; /* pixels a ns; where the plot ends */
};

void axis_add(struct axis *axis, struct stretch s); /* at most AXIS_STRETCHES; they may overlap */
void axis_lay_out(struct axis *axis, double left, double width);
/* That some of it is in; borrowed. NULL: none. */
const struct stretch *axis_stretch(const struct axis *axis, int64_t from, int64_t to);
double axis_x(const struct axis *axis, const struct stretch *s,
	      int64_t t); /* what is outside of it: its end */
/* Lines from y `top` to `bottom`, times below. wall_ns: the wall clock's time at 0. */
void axis_draw(const struct axis *axis, struct buf *b, int64_t wall_ns, int top, int bottom);

#endif
