#include "sched/timeline_axis.h"

#include "sched/loop.h"
#include "sched/svg.h"

#include <stdlib.h>
#include <time.h>

#define CUT_W   16
#define LABEL_W 46 /* that a time needs, pixels */
#define CLOCK_W 96
#define CUT_OFF 8 /* pauses of more than this part of what is shown; chosen */

void axis_add(struct axis *axis, struct stretch s)
{
	axis->stretches[axis->n++] = s;
}

static int by_start(const void *a, const void *b)
{
	const struct stretch *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* Joins those that overlap or are at most `pause` apart. */
static void join(struct axis *axis, int64_t pause)
{
	int n = 0;

	for (int i = 1; i < axis->n; i++) {
		struct stretch *last = &axis->stretches[n], *next = &axis->stretches[i];

		if (next->from - last->to <= pause)
			last->to = next->to > last->to ? next->to : last->to;
		else
			axis->stretches[++n] = *next;
	}
	axis->n = n + 1;
}

static int64_t length(const struct axis *axis)
{
	int64_t sum = 0;

	for (int i = 0; i < axis->n; i++)
		sum += axis->stretches[i].to - axis->stretches[i].from;
	return sum > 1 ? sum : 1;
}

void axis_lay_out(struct axis *axis, double left, double width)
{
	qsort(axis->stretches, (size_t)axis->n, sizeof(struct stretch), by_start);
	join(axis, 0);
	join(axis, length(axis) / CUT_OFF);
	axis->scale = (width - (axis->n - 1) * CUT_W) / (double)length(axis);
	axis->end = left + width;
	for (int i = 0; i < axis->n; i++) {
		struct stretch *s = &axis->stretches[i];

		s->x = left;
		left += (double)(s->to - s->from) * axis->scale + CUT_W;
	}
}

double axis_x(const struct axis *axis, const struct stretch *s, int64_t t)
{
	t = t < s->from ? s->from : t > s->to ? s->to : t;
	return s->x + (double)(t - s->from) * axis->scale;
}

const struct stretch *axis_stretch(const struct axis *axis, int64_t from, int64_t to)
{
	for (int i = 0; i < axis->n; i++)
		if (from <= axis->stretches[i].to && to >= axis->stretches[i].from)
			return &axis->stretches[i];
	return NULL;
}

/* The least round time that has room for its label. */
static int64_t step_of(const struct axis *axis)
{
	static const double round_s[] = {1,   2,    5,    10,   20,   30,    60,    120,   300,
					 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400};
	double least = LABEL_W / axis->scale, step = 1e3;

	for (int i = 0; step < least && step < 1e9; i++)
		step *= i % 3 == 1 ? 2.5 : 2; /* 1, 2, 5, 10 … */
	for (size_t i = 0; step < least && i < sizeof(round_s) / sizeof(round_s[0]); i++)
		step = 1e9 * round_s[i];
	while (step < least)
		step *= 2;
	return (int64_t)step;
}

static void add_clock(struct buf *b, int64_t wall_ns)
{
	time_t seconds = (time_t)(wall_ns / NS_PER_S);
	char text[32] = "";
	struct tm tm;

	if (gmtime_r(&seconds, &tm))
		strftime(text, sizeof(text), "%T", &tm);
	buf_addf(b, "%s.%03d UTC", text, (int)(wall_ns % NS_PER_S / NS_PER_MS));
}

/* One stretch's lines and their times. `free_at`: where there is room for a label. */
static void draw_ticks(const struct axis *axis, struct buf *b, const struct stretch *s, double until, int top,
		       int bottom, double *free_at)
{
	int64_t step = step_of(axis);

	for (int64_t at = 0; at <= s->to - s->from; at += step) {
		double x = s->x + (double)at * axis->scale;

		buf_addf(b, "<path d=\"M%.1f %dV%d\" stroke=\"#dddddd\"/>\n", x, top, bottom + 4);
		if (x < *free_at || (at > 0 && x > until - 0.8 * LABEL_W))
			continue;
		buf_addf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", x, bottom + 16);
		if (at > 0)
			svg_time(b, (double)at);
		else
			buf_adds(b, "0");
		buf_adds(b, "</text>\n");
		*free_at = x + 0.8 * LABEL_W;
	}
}

static void draw_cut(struct buf *b, const struct stretch *s, int top, int bottom)
{
	buf_adds(b, "<g><title>");
	svg_time(b, (double)(s->from - s[-1].to));
	buf_addf(b,
		 " left out</title><rect x=\"%.1f\" y=\"%d\" width=\"%d\" height=\"%d\" "
		 "fill=\"#f2f2f2\"/></g>\n",
		 s->x - CUT_W + 2, top, CUT_W - 4, bottom - top);
}

void axis_draw(const struct axis *axis, struct buf *b, int64_t wall_ns, int top, int bottom)
{
	double free_at = 0, clock_free_at = 0;

	for (int i = 0; i < axis->n; i++) {
		const struct stretch *s = &axis->stretches[i];

		buf_addf(b, "<path d=\"M%.1f %dH%.1f\" stroke=\"#666666\"/>\n", s->x, bottom,
			 axis_x(axis, s, s->to));
		/* A stretch's 0 goes before the labels of the one before it. */
		draw_ticks(axis, b, s, i + 1 < axis->n ? s[1].x : axis->end + LABEL_W, top, bottom, &free_at);
		if (s->x >= clock_free_at) {
			buf_addf(b, "<text x=\"%.1f\" y=\"%d\" fill=\"#666666\">", s->x, bottom + 30);
			add_clock(b, s->from + wall_ns);
			buf_adds(b, "</text>\n");
			clock_free_at = s->x + CLOCK_W;
		}
		if (i > 0)
			draw_cut(b, s, top, bottom);
	}
}
