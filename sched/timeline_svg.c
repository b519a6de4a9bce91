/*
 * timeline.svg. Above, a row for each worker: each mini-batch, as high as its slice is wide. Below, a row for each task, with a lane for each
 * worker: what it ran, its deadline, and what became of its instances. Time runs to the right (timeline_axis.h).
 *
 * A task that waited, or whose deadline is off, for more than FAR times what it ran, is shown from or to there: an arrow
 * points to the deadline.
 */
#include "sched/internal.h"
#include "sched/svg.h"
#include "sched/timeline.h"
#include "sched/timeline_axis.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH          1100
#define LEFT           190
#define PLOT_W         660
#define RIGHT          (LEFT + PLOT_W)
#define TOP            32
#define WORKER_H       40
#define ROW_H          20
#define AXIS_H         40
#define LEGEND_H       18
#define PER_LINE       7 /* sub-models in a line of the legend */
#define FAR            4
#define BAR_W          60
#define NAME_MAX_SHOWN 18 /* characters … */
#define NAME_MAX_TOLD  80 /* … of a title */

#define RED       "#cc0000"
#define MAX_KINDS (2 * MAX_SUBMODELS)

struct kind { /* a sub-model, by which a colour goes */
	int slice;
	char precision[8];
	const char *members; /* NULL: the endpoint has one model */
};

struct drawing {
	struct buf *b;
	const struct timeline *t;
	struct timeline_task rows[TIMELINE_TASKS]; /* (n_rows) by submission */
	int n_rows;
	struct axis axis;
	int n_workers;
	struct kind kinds[MAX_KINDS];
	int n_kinds;
};

/* What a task's row shows. */
static struct stretch shown_of(const struct timeline_task *task)
{
	int64_t end = task->finished > task->ended ? task->finished : task->ended, run;
	struct stretch ret = {.from = task->submitted, .to = end};

	if (ret.from > end) /* the clock was set back between two starts of the daemon */
		ret.from = task->begun ? task->begun : end;
	run = task->begun ? task->ended - task->begun : end - ret.from;
	run = run > NS_PER_MS ? run : NS_PER_MS;
	if (task->begun && ret.from < task->begun - FAR * run)
		ret.from = task->begun - FAR * run;
	if (task->begun && ret.to > task->ended + FAR * run)
		ret.to = task->ended + FAR * run;
	if (task->due > ret.to && task->due <= ret.to + FAR * run)
		ret.to = task->due;
	return ret;
}

/* --- sub-models --- */

static int kind_of(const struct drawing *d, const struct kind *kind)
{
	int i = 0;

	while (i < d->n_kinds &&
	       (d->kinds[i].slice != kind->slice || strcmp(d->kinds[i].precision, kind->precision) != 0 ||
		d->kinds[i].members != kind->members))
		i++;
	return i;
}

static void add_kind(struct drawing *d, struct kind kind)
{
	if (kind_of(d, &kind) == d->n_kinds && d->n_kinds < MAX_KINDS)
		d->kinds[d->n_kinds++] = kind;
}

static struct kind kind_of_run(const struct timeline_run *run)
{
	struct kind kind = {.slice = run->slice, .members = run->members};

	memcpy(kind.precision, run->precision, sizeof(kind.precision));
	return kind;
}

static int kind_number(const struct drawing *d, const struct timeline_run *run)
{
	const struct kind kind = kind_of_run(run);

	return kind_of(d, &kind);
}

/* Those of now first, so that colours stay; then what ran before a reload. */
static void find_kinds(struct drawing *d)
{
	const struct timeline *t = d->t;

	for (int i = 0; i < t->ep->n_submodels; i++) {
		const struct submodel *m = &t->ep->submodels[i];
		struct kind kind = {.slice = (int)lround(m->slice * 1e4), .members = m->members};

		memcpy(kind.precision, m->precision, sizeof(kind.precision));
		if (!m->idle)
			add_kind(d, kind);
	}
	for (unsigned i = 0; i < t->n_batches && i < TIMELINE_BATCHES; i++)
		add_kind(d, kind_of_run(&t->batches[i]));
	for (unsigned i = 0; i < t->n_runs && i < TIMELINE_RUNS; i++)
		add_kind(d, kind_of_run(&t->runs[i]));
}

static void add_fill(struct buf *b, int kind)
{
	static const char *const opacity[] = {"", " fill-opacity=\"0.6\"", " fill-opacity=\"0.3\""};

	buf_addf(b, " fill=\"%s\"%s", svg_colours[kind % SVG_COLOURS], opacity[kind / SVG_COLOURS % 3]);
}

static void add_kind_name(struct buf *b, const struct kind *kind, size_t max)
{
	if (kind->members) {
		svg_text(b, kind->members, max);
		return;
	}
	buf_addf(b, "slice %g ", kind->slice / 1e4);
	svg_text(b, kind->precision, SIZE_MAX);
}

/* --- rows --- */

static void add_run_title(struct buf *b, const struct timeline_run *run)
{
	const struct kind kind = kind_of_run(run);

	buf_adds(b, "<title>");
	if (run->minibatches > 1)
		buf_addf(b, "%d mini-batches, ", run->minibatches);
	add_kind_name(b, &kind, NAME_MAX_TOLD);
	buf_addf(b, ", %d instance%s: planned ", run->instances, run->instances == 1 ? "" : "s");
	svg_time(b, (double)run->expected);
	buf_adds(b, run->died ? ", the worker died after " : ", took ");
	svg_time(b, (double)(run->ended - run->started));
	if (!run->died) {
		buf_adds(b, " (computing ");
		svg_time(b, (double)run->compute);
		buf_adds(b, ")");
	}
	buf_adds(b, "</title>");
}

/* `more`: attributes. */
static void add_run(struct drawing *d, const struct timeline_run *run, double y, double h, const char *more)
{
	const struct stretch *s = axis_stretch(&d->axis, run->started, run->ended);
	double x, w;

	if (!s)
		return;
	x = axis_x(&d->axis, s, run->started);
	w = axis_x(&d->axis, s, run->ended) - x;
	buf_addf(d->b, "<path d=\"M%.1f %.1fh%.1fv%.1fH%.1fz\"%s>", x, y, w > 0.5 ? w : 0.5, h, x, more);
	add_run_title(d->b, run);
	buf_adds(d->b, "</path>\n");
}

static void draw_worker(struct drawing *d, int device)
{
	const struct timeline *t = d->t;
	int bottom = TOP + (device + 1) * WORKER_H;

	buf_addf(d->b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-weight=\"bold\">worker", LEFT - 8,
		 bottom - 6);
	if (d->n_workers > 1)
		buf_addf(d->b, " %d", device + 1);
	buf_adds(d->b, "</text>\n");
	for (int kind = 0; kind <= d->n_kinds; kind++) { /* the last: what kinds had no room for */
		buf_adds(d->b, "<g");
		add_fill(d->b, kind);
		buf_adds(d->b, " stroke=\"white\" stroke-width=\"0.3\">\n");
		for (unsigned i = 0; i < t->n_batches && i < TIMELINE_BATCHES; i++) {
			const struct timeline_run *run = &t->batches[i];
			double h = 8 + (WORKER_H - 12) * (run->slice < 10000 ? run->slice / 1e4 : 1);

			if (run->device == device && kind_number(d, run) == kind)
				add_run(d, run, bottom - h, h,
					run->died ? " fill-opacity=\"0\" stroke-width=\"1\" stroke=\"" RED
						    "\" stroke-dasharray=\"3 2\""
						  : "");
		}
		buf_adds(d->b, "</g>\n");
	}
}

static void add_task_title(struct drawing *d, const struct timeline_task *task)
{
	struct buf *b = d->b;

	buf_adds(b, "<title>task ");
	svg_text(b, d->t->ep->name, NAME_MAX_TOLD);
	buf_addf(b, "-%06" PRIu32, task->seq);
	if (*task->name) {
		buf_adds(b, " of ");
		svg_text(b, task->name, NAME_MAX_TOLD);
	}
	buf_addf(b, ": %" PRIu32 " instances, ", task->total);
	if (task->due != INT64_MAX) {
		buf_adds(b, "deadline after ");
		svg_time(b, (double)(task->due - task->submitted));
	} else {
		buf_adds(b, "no deadline");
	}
	if (task->finished) {
		buf_adds(b, ", finished after ");
		svg_time(b, (double)(task->finished - task->submitted));
	}
	buf_addf(b, "; effective accuracy: planned %.2f %%", task->planned);
	if (task->finished)
		buf_addf(b, ", real %.2f %%", task->real);
	buf_adds(b, "</title>\n");
}

static void add_deadline(struct drawing *d, const struct timeline_task *task, const struct stretch *s, int y)
{
	double x = axis_x(&d->axis, s, task->due);

	if (task->due == INT64_MAX)
		return;
	if (task->due > s->to) { /* off the picture */
		buf_addf(d->b, "<path d=\"M%.1f %dh10m-4 -3l4 3l-4 3\" stroke=\"" RED "\" fill=\"none\"/>\n",
			 x, y + ROW_H / 2);
		return;
	}
	buf_addf(d->b, "<path d=\"M%.1f %dv%dm-4 -%dh8l-4 5z\" stroke=\"" RED "\" fill=\"" RED "\"/>\n", x,
		 y + 1, ROW_H - 2, ROW_H - 2);
}

/* What became of its instances, to the right of the plot. */
static void add_counts(struct drawing *d, const struct timeline_task *task, int y)
{
	const struct {
		uint32_t n;
		const char *name, *colour;
	} parts[] = {{task->ok, "ok", "#999999"},
		     {task->late, "late", "#ee7700"},
		     {task->dropped, "dropped", RED},
		     {task->failed, "failed", "#000000"}};
	double x = RIGHT + 14;

	for (size_t i = 0; i < 4; i++) {
		double w = task->total ? BAR_W * (double)parts[i].n / task->total : 0;

		if (parts[i].n)
			buf_addf(d->b, "<path d=\"M%.1f %dh%.1fv10H%.1fz\" fill=\"%s\"/>\n", x, y + 5, w, x,
				 parts[i].colour);
		x += w;
	}
	buf_addf(d->b, "<text x=\"%d\" y=\"%d\">", RIGHT + BAR_W + 15, y + 14);
	for (size_t i = 0; i < 4; i++)
		if (parts[i].n)
			buf_addf(d->b, "<tspan dx=\"5\" fill=\"%s\">%" PRIu32 " %s</tspan>",
				 i ? parts[i].colour : "#000000", parts[i].n, parts[i].name);
	if (!task->finished)
		buf_addf(d->b, "<tspan dx=\"5\">of %" PRIu32 " …</tspan>", task->total);
	buf_adds(d->b, "</text>\n");
}

static void draw_task(struct drawing *d, const struct timeline_task *task, int y)
{
	const struct timeline *t = d->t;
	struct stretch own = shown_of(task);
	const struct stretch *s = axis_stretch(&d->axis, own.from, own.to);
	int64_t end = task->finished > task->ended ? task->finished : task->ended;
	double lane = (double)(ROW_H - 8) / d->n_workers;

	buf_adds(d->b, "<g>\n");
	add_task_title(d, task);
	buf_addf(d->b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", LEFT - 8, y + 14);
	svg_text(d->b, *task->name ? task->name : "loose files", NAME_MAX_SHOWN);
	buf_addf(d->b, " #%" PRIu32 "</text>\n", task->seq);
	if (s)
		buf_addf(d->b, "<path d=\"M%.1f %dH%.1f\" stroke=\"#999999\" stroke-width=\"2\"/>\n",
			 axis_x(&d->axis, s, task->submitted), y + ROW_H / 2, axis_x(&d->axis, s, end));
	for (unsigned i = 0; i < t->n_runs && i < TIMELINE_RUNS; i++) {
		const struct timeline_run *run = &t->runs[i];
		struct buf more = BUF_INIT;

		if (run->seq != task->seq)
			continue;
		if (run->died)
			buf_adds(&more, " fill=\"white\" stroke=\"" RED "\" stroke-dasharray=\"3 2\"");
		else
			add_fill(&more, kind_number(d, run));
		if (run->late && !run->died)
			buf_adds(&more, " stroke=\"" RED "\"");
		add_run(d, run, y + 4 + run->device * lane, lane, more.data ? more.data : "");
		d->b->failed |= more.failed;
		buf_release(&more);
	}
	if (s)
		add_deadline(d, task, s, y);
	add_counts(d, task, y);
	buf_adds(d->b, "</g>\n");
}

/* --- legend --- */

static void draw_legend(struct drawing *d, int y)
{
	const double w = (WIDTH - 24.0) / PER_LINE;

	for (int i = 0; i < d->n_kinds; i++) {
		double x = 16 + i % PER_LINE * w;
		int at = y + i / PER_LINE * LEGEND_H;

		buf_addf(d->b, "<rect x=\"%.1f\" y=\"%d\" width=\"12\" height=\"12\"", x, at);
		add_fill(d->b, i);
		buf_addf(d->b, "/><text x=\"%.1f\" y=\"%d\">", x + 17, at + 10);
		add_kind_name(d->b, &d->kinds[i], NAME_MAX_SHOWN);
		buf_adds(d->b, "</text>\n");
	}
	y += (d->n_kinds + PER_LINE - 1) / PER_LINE * LEGEND_H;
	buf_addf(d->b,
		 "<path d=\"M22 %dv12m-4 -12h8l-4 5z\" stroke=\"" RED "\" fill=\"" RED "\"/>"
		 "<text x=\"33\" y=\"%d\">deadline (an arrow: later than is shown)</text>\n"
		 "<path d=\"M285 %dh24\" stroke=\"#999999\" stroke-width=\"2\"/>"
		 "<text x=\"314\" y=\"%d\">from submission to the last answer</text>\n"
		 "<rect x=\"520\" y=\"%d\" width=\"12\" height=\"12\" fill=\"white\" stroke=\"" RED "\"/>"
		 "<text x=\"537\" y=\"%d\">ended after the deadline</text>\n"
		 "<rect x=\"690\" y=\"%d\" width=\"12\" height=\"12\" fill=\"white\" stroke=\"" RED
		 "\" stroke-dasharray=\"3 2\"/>"
		 "<text x=\"707\" y=\"%d\">the worker died</text>\n",
		 y, y + 10, y + 6, y + 10, y, y + 10, y, y + 10);
}

static int by_submission(const void *a, const void *b)
{
	const struct timeline_task *x = a, *y = b;

	if (x->submitted != y->submitted)
		return x->submitted < y->submitted ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

void timeline_svg(const struct timeline *t, int64_t wall_ns, struct buf *ret)
{
	struct drawing *d = calloc(1, sizeof(*d));
	int top, bottom, legend;

	if (!d) {
		ret->failed = true;
		return;
	}
	d->b = ret;
	d->t = t;
	d->n_workers = t->ep->s->n_devices;
	d->n_rows = (int)(t->n_tasks < TIMELINE_TASKS ? t->n_tasks : TIMELINE_TASKS);
	if (!d->n_rows)
		goto out;
	memcpy(d->rows, t->tasks, (size_t)d->n_rows * sizeof(d->rows[0]));
	qsort(d->rows, (size_t)d->n_rows, sizeof(d->rows[0]), by_submission);
	find_kinds(d);
	for (int i = 0; i < d->n_rows; i++)
		axis_add(&d->axis, shown_of(&d->rows[i]));
	axis_lay_out(&d->axis, LEFT, PLOT_W);
	top = TOP + d->n_workers * WORKER_H + 6;
	bottom = top + d->n_rows * ROW_H + 4;
	legend = (d->n_kinds + PER_LINE - 1) / PER_LINE * LEGEND_H + LEGEND_H;
	svg_begin(ret, WIDTH, bottom + AXIS_H + legend + 8, t->ep->name);
	buf_addf(ret, "<text x=\"%d\" y=\"18\" font-size=\"13\" font-weight=\"bold\">", LEFT);
	svg_text(ret, t->ep->name, 60);
	buf_adds(ret, ": the newest tasks</text>\n");
	axis_draw(&d->axis, ret, wall_ns, TOP, bottom);
	for (int i = 0; i < d->n_workers; i++)
		draw_worker(d, i);
	for (int i = 0; i < d->n_rows; i++)
		draw_task(d, &d->rows[i], top + i * ROW_H);
	draw_legend(d, bottom + AXIS_H);
	buf_adds(ret, "</svg>\n");
out:
	free(d);
}
