/* curves.svg: loss and accuracy over the epochs, one line for each slice. */
#include "sched/jobs_private.h"
#include "sched/svg.h"

#include <math.h>

#define WIDTH  360
#define HEIGHT 260
#define LEFT   48
#define TOP    36
#define PLOT_W (WIDTH - LEFT - 14)
#define PLOT_H (HEIGHT - TOP - 32)

enum curve { TRAIN_LOSS, TRAIN_ACCURACY, VAL_LOSS, VAL_ACCURACY };

static double value(const struct epoch_row *row, enum curve curve, int rate)
{
	switch (curve) {
	case TRAIN_LOSS:
		return row->train_loss;
	case TRAIN_ACCURACY:
		return 100 * row->train_accuracy;
	case VAL_LOSS:
		return row->loss[rate];
	default:
		return 100 * row->accuracy[rate];
	}
}

/* NaN and infinity stay out of the picture. */
static double largest(const struct epoch_row *rows, int n, enum curve train, enum curve val)
{
	double max = 0, v;

	for (int i = 0; i < n; i++) {
		v = value(&rows[i], train, 0);
		if (isfinite(v) && v > max)
			max = v;
		for (int k = 0; k < rows[i].n_rates; k++) {
			v = value(&rows[i], val, k);
			if (isfinite(v) && v > max)
				max = v;
		}
	}
	return max > 0 ? max : 1;
}

static void line(struct buf *b, const struct epoch_row *rows, int n, enum curve curve, int rate, double max,
		 const char *colour, const char *style)
{
	int first = rows[0].epoch, span = rows[n - 1].epoch - first;

	buf_addf(b, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"%s points=\"", colour, style);
	for (int i = 0; i < n; i++) {
		double v = value(&rows[i], curve, rate);

		if (!isfinite(v) || rate >= rows[i].n_rates)
			continue;
		buf_addf(b, "%.1f,%.1f ",
			 LEFT + (span ? (double)PLOT_W * (rows[i].epoch - first) / span : PLOT_W / 2.0),
			 TOP + PLOT_H * (1 - v / max));
	}
	buf_adds(b, "\"/>\n");
}

static void panel(struct buf *b, const struct epoch_row *rows, int n, int x, const char *name,
		  enum curve train, enum curve val, double max)
{
	buf_addf(b, "<g transform=\"translate(%d,0)\">\n", x);
	buf_addf(b, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", LEFT, TOP - 18, name);
	for (int i = 0; i <= 4; i++) {
		double y = TOP + PLOT_H * (1 - i / 4.0);

		buf_addf(b, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", LEFT, y,
			 LEFT + PLOT_W, y);
		buf_addf(b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>\n", LEFT - 6, y + 4,
			 max * i / 4);
	}
	buf_addf(b, "<text x=\"%d\" y=\"%d\">%d</text>\n", LEFT, TOP + PLOT_H + 16, rows[0].epoch);
	buf_addf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">epoch %d</text>\n", LEFT + PLOT_W,
		 TOP + PLOT_H + 16, rows[n - 1].epoch);
	line(b, rows, n, train, 0, max, "#555555", " stroke-dasharray=\"4 3\"");
	for (int k = 0; k < rows[0].n_rates; k++)
		line(b, rows, n, val, k, max, svg_colours[k % SVG_COLOURS], "");
	buf_adds(b, "</g>\n");
}

void curves_svg(const struct epoch_row *rows, int n, const char *title, struct buf *ret)
{
	const int legend = 26;

	if (n < 1)
		return;
	svg_begin(ret, 2 * WIDTH, HEIGHT + legend, title);
	panel(ret, rows, n, 0, "loss", TRAIN_LOSS, VAL_LOSS, largest(rows, n, TRAIN_LOSS, VAL_LOSS));
	panel(ret, rows, n, WIDTH, "accuracy, %", TRAIN_ACCURACY, VAL_ACCURACY, 100);
	buf_addf(ret, "<text x=\"%d\" y=\"%d\" fill=\"#555555\">- - training, full width</text>\n", LEFT,
		 HEIGHT + legend / 2);
	for (int k = 0; k < rows[0].n_rates; k++)
		buf_addf(ret, "<text x=\"%d\" y=\"%d\" fill=\"%s\">slice %g</text>\n", LEFT + 150 + 64 * k,
			 HEIGHT + legend / 2, svg_colours[k % SVG_COLOURS], rows[0].rates[k]);
	buf_adds(ret, "</svg>\n");
}
