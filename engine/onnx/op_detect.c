/* What detectors need: boxes that overlap, regions of feature maps, samples at any place. */
#include "engine/onnx/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct scored {
	float score;
	int64_t box;
};

static int best_first(const void *pa, const void *pb)
{
	const struct scored *a = pa, *b = pb;

	return a->score != b->score ? (a->score < b->score ? 1 : -1) : (a->box > b->box) - (a->box < b->box);
}

/* Corners, low before high; centred: the box is centre and size. */
static void corners(const float *box, bool centred, float *ret)
{
	for (int i = 0; i < 2; i++) {
		float low = centred ? box[i] - box[i + 2] / 2 : fminf(box[i], box[i + 2]);
		float high = centred ? box[i] + box[i + 2] / 2 : fmaxf(box[i], box[i + 2]);

		ret[i] = low;
		ret[i + 2] = high;
	}
}

static float overlap(const float *a, const float *b, bool centred)
{
	float x[4], y[4], common = 1, area_x = 1, area_y = 1;

	corners(a, centred, x);
	corners(b, centred, y);
	for (int i = 0; i < 2; i++) {
		common *= fmaxf(0, fminf(x[i + 2], y[i + 2]) - fmaxf(x[i], y[i]));
		area_x *= x[i + 2] - x[i];
		area_y *= y[i + 2] - y[i];
	}
	return common > 0 ? common / (area_x + area_y - common) : 0;
}

static float scalar_or(struct onnx_call *c, int i, float otherwise)
{
	const struct onnx_tensor *t = call_in(c, i);

	return t && t->count ? (float)tensor_real(t, 0) : otherwise;
}

/* boxes (batch, n, 4), scores (batch, classes, n): rows of batch, class, box */
int op_non_max_suppression(struct onnx_call *c)
{
	const struct onnx_tensor *boxes = c->in[0], *scores = c->in[1], *most = call_in(c, 2);
	const bool centred = attr_int(c, "center_point_box", 0);
	const float most_overlap = scalar_or(c, 3, 0), least_score = scalar_or(c, 4, -HUGE_VALF);
	int64_t limit = most && most->count ? tensor_int(most, 0) : 0, n, classes, found = 0, room = 64;
	struct scored *list = NULL;
	int64_t *rows = NULL, *taken = NULL, dims[2] = {0, 3};
	int r = 0;

	if (boxes->type != ONNX_FLOAT || scores->type != ONNX_FLOAT)
		return call_bad_type(c, boxes->type != ONNX_FLOAT ? 0 : 1);
	if (boxes->rank != 3 || scores->rank != 3 || boxes->dims[2] != 4 ||
	    boxes->dims[0] != scores->dims[0] || boxes->dims[1] != scores->dims[2])
		return call_fail(c, "boxes and scores don't fit one another");
	n = boxes->dims[1];
	classes = scores->dims[1];
	list = malloc((size_t)(n + 1) * sizeof(*list));
	taken = malloc((size_t)(n + 1) * sizeof(*taken));
	rows = malloc((size_t)room * 3 * sizeof(*rows));
	if (!list || !taken || !rows)
		goto no_memory;
	for (int64_t i = 0; i < scores->dims[0] * classes; i++) {
		const float *box = (const float *)boxes->data + i / classes * n * 4;
		int64_t candidates = 0, kept = 0;

		for (int64_t j = 0; j < n; j++) {
			float score = ((const float *)scores->data)[i * n + j];

			if (score > least_score)
				list[candidates++] = (struct scored){score, j};
		}
		qsort(list, (size_t)candidates, sizeof(*list), best_first);
		for (int64_t j = 0; j < candidates && kept < limit; j++) {
			bool free_of_others = true;

			for (int64_t k = 0; free_of_others && k < kept; k++)
				free_of_others = overlap(box + list[j].box * 4, box + taken[k] * 4,
							 centred) <= most_overlap;
			if (!free_of_others)
				continue;
			taken[kept++] = list[j].box;
			if (found == room) {
				int64_t *grown = realloc(rows, (size_t)room * 6 * sizeof(*rows));

				if (!grown)
					goto no_memory;
				rows = grown;
				room *= 2;
			}
			rows[3 * found] = i / classes;
			rows[3 * found + 1] = i % classes;
			rows[3 * found++ + 2] = list[j].box;
		}
	}
	dims[0] = found;
	r = call_out(c, 0, ONNX_INT64, 2, dims);
	if (r == 0 && found)
		memcpy(c->out[0]->data, rows, (size_t)found * 3 * sizeof(*rows));
	goto out;
no_memory:
	r = err_set(c->err, ERR_NO_MEMORY, "NonMaxSuppression");
out:
	free(list);
	free(taken);
	free(rows);
	return r;
}

/* Bilinear, at a place up to one beyond the plane; further out it is 0. largest: of the four weighted corners. */
static float sample_region(const float *plane, int64_t h, int64_t w, double y, double x, bool largest)
{
	int64_t y0, x0, y1, x1;
	float dy, dx, part[4];

	if (!(y >= -1 && y <= (double)h && x >= -1 && x <= (double)w))
		return 0;
	y = y < 0 ? 0 : y;
	x = x < 0 ? 0 : x;
	y0 = (int64_t)y;
	x0 = (int64_t)x;
	if (y0 >= h - 1)
		y = (double)(y0 = h - 1);
	if (x0 >= w - 1)
		x = (double)(x0 = w - 1);
	y1 = y0 < h - 1 ? y0 + 1 : y0;
	x1 = x0 < w - 1 ? x0 + 1 : x0;
	dy = (float)(y - (double)y0);
	dx = (float)(x - (double)x0);
	part[0] = (1 - dy) * (1 - dx) * plane[y0 * w + x0];
	part[1] = (1 - dy) * dx * plane[y0 * w + x1];
	part[2] = dy * (1 - dx) * plane[y1 * w + x0];
	part[3] = dy * dx * plane[y1 * w + x1];
	return largest ? fmaxf(fmaxf(part[0], part[1]), fmaxf(part[2], part[3]))
		       : part[0] + part[1] + part[2] + part[3];
}

/* x (N, C, H, W), regions (R, 4: x1 y1 x2 y2), which of the N each is of: (R, C, height, width) */
int op_roi_align(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0], *rois = c->in[1], *of = c->in[2];
	const bool half =
		c->version >= 16 &&
		strcmp(attr_string(c, "coordinate_transformation_mode", "half_pixel"), "half_pixel") == 0;
	const bool largest = strcmp(attr_string(c, "mode", "avg"), "max") == 0;
	const int64_t height = attr_int(c, "output_height", 1), width = attr_int(c, "output_width", 1);
	const int64_t ratio = attr_int(c, "sampling_ratio", 0);
	const double scale = attr_float(c, "spatial_scale", 1), shift = half ? 0.5 : 0;
	float *to;
	int r;

	if (x->type != ONNX_FLOAT || rois->type != ONNX_FLOAT)
		return call_bad_type(c, x->type != ONNX_FLOAT ? 0 : 1);
	if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != 4 || of->rank != 1 ||
	    of->dims[0] != rois->dims[0] || of->type != ONNX_INT64 || !x->count)
		return call_fail(c, "inputs that don't fit one another");
	if (height < 1 || width < 1 || ratio < 0 || ratio > 1024)
		return call_fail(c, "output_height, output_width or sampling_ratio out of range");
	r = call_out(c, 0, ONNX_FLOAT, 4, (int64_t[]){rois->dims[0], x->dims[1], height, width});
	if (r < 0)
		return r;
	to = c->out[0]->data;
	for (int64_t i = 0; i < rois->dims[0]; i++) {
		const float *roi = (const float *)rois->data + i * 4;
		const double x1 = roi[0] * scale - shift, y1 = roi[1] * scale - shift;
		double w = roi[2] * scale - shift - x1, h = roi[3] * scale - shift - y1, bin_h, bin_w;
		int64_t batch = tensor_int(of, (size_t)i), many_y, many_x;

		if (batch < 0 || batch >= x->dims[0])
			return call_fail(c, "region %lld is of image %lld", (long long)i, (long long)batch);
		if (!half) { /* regions of less than a pixel */
			w = fmax(w, 1);
			h = fmax(h, 1);
		}
		bin_h = h / (double)height;
		bin_w = w / (double)width;
		if (!(fabs(bin_h) < 0x1p20 && fabs(bin_w) < 0x1p20))
			return call_fail(c, "region %lld is too large", (long long)i);
		many_y = ratio ? ratio : (int64_t)ceil(bin_h);
		many_x = ratio ? ratio : (int64_t)ceil(bin_w);
		for (int64_t ch = 0; ch < x->dims[1]; ch++) {
			const float *plane =
				(const float *)x->data + (batch * x->dims[1] + ch) * x->dims[2] * x->dims[3];

			for (int64_t o = 0; o < height * width; o++) {
				int64_t row = o / width, column = o % width;
				double sum = 0, best = -HUGE_VAL;

				for (int64_t s = 0; many_y > 0 && many_x > 0 && s < many_y * many_x; s++) {
					int64_t down = s / many_x, right = s % many_x;
					double y = y1 + (double)row * bin_h +
						   ((double)down + 0.5) * bin_h / (double)many_y;
					double at = x1 + (double)column * bin_w +
						    ((double)right + 0.5) * bin_w / (double)many_x;
					float v =
						sample_region(plane, x->dims[2], x->dims[3], y, at, largest);

					sum += v;
					best = v > best ? v : best;
				}
				if (many_y <= 0 || many_x <= 0)
					*to++ = 0;
				else
					*to++ = (float)(largest ? best : sum / (double)(many_y * many_x));
			}
		}
	}
	return 0;
}

enum beyond { BEYOND_ZEROS, BEYOND_BORDER, BEYOND_REFLECTION };

/* Into low … high, as between two mirrors. */
static double reflect(double x, double low, double high)
{
	double range = high - low;

	if (range <= 0)
		return low;
	x = fmod(fabs(x - low), 2 * range);
	return x > range ? high - (x - range) : low + x;
}

static double pull_in(enum beyond how, bool corners_too, double x, int64_t n)
{
	if (how == BEYOND_BORDER)
		return fmin(fmax(x, 0), (double)(n - 1));
	if (how == BEYOND_REFLECTION)
		return corners_too ? reflect(x, 0, (double)(n - 1)) : reflect(x, -0.5, (double)n - 0.5);
	return x;
}

static double pixel(const struct onnx_tensor *x, int64_t plane, double py, double px, enum beyond how,
		    bool corners_too)
{
	const int64_t h = x->dims[2], w = x->dims[3];

	py = rint(pull_in(how, corners_too, py, h));
	px = rint(pull_in(how, corners_too, px, w));
	if (!(py >= 0 && py <= (double)(h - 1) && px >= 0 && px <= (double)(w - 1)))
		return 0;
	return tensor_real(x, (size_t)(plane * h * w + (int64_t)py * w + (int64_t)px));
}

static double cubic_weight(double d)
{
	const double a = -0.75;

	d = fabs(d);
	return d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

/* x (N, C, H, W) at the places of grid (N, H', W', 2: x y of -1 … 1) */
int op_grid_sample(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0], *grid = c->in[1];
	const char *mode = attr_string(c, "mode", c->version < 20 ? "bilinear" : "linear"),
		   *beyond = attr_string(c, "padding_mode", "zeros");
	const bool corners_too = attr_int(c, "align_corners", 0);
	const enum beyond how = strcmp(beyond, "border") == 0       ? BEYOND_BORDER
				: strcmp(beyond, "reflection") == 0 ? BEYOND_REFLECTION
								    : BEYOND_ZEROS;
	/* their names are those of a plane before version 20 */
	const int reach = strcmp(mode, c->version < 20 ? "bicubic" : "cubic") == 0     ? 2
			  : strcmp(mode, c->version < 20 ? "bilinear" : "linear") == 0 ? 1
										       : 0;
	int64_t places;
	int r;

	if (x->type != ONNX_FLOAT && x->type != ONNX_DOUBLE)
		return call_bad_type(c, 0);
	if (reach == 0 && strcmp(mode, "nearest") != 0)
		return call_unsupported(c, "mode %.40s", mode);
	if (c->version >= 20 && x->rank == grid->rank && x->rank != 4)
		return call_unsupported(c, "an input of rank %d", x->rank);
	if (x->rank != 4 || grid->rank != 4 || grid->dims[3] != 2 || grid->dims[0] != x->dims[0] || !x->count)
		return call_fail(c, "inputs of ranks %d and %d that don't fit", x->rank, grid->rank);
	r = call_out(c, 0, x->type, 4, (int64_t[]){x->dims[0], x->dims[1], grid->dims[1], grid->dims[2]});
	if (r < 0)
		return r;
	places = grid->dims[1] * grid->dims[2];
	for (size_t i = 0; i < c->out[0]->count; i++) {
		int64_t plane = (int64_t)i / places,
			place = plane / x->dims[1] * places + (int64_t)i % places;
		double at[2], sum = 0, low[2];

		for (int d = 0; d < 2; d++) { /* x, then y */
			double g = tensor_real(grid, (size_t)(place * 2 + d)), n = (double)x->dims[3 - d];

			at[d] = corners_too ? (g + 1) / 2 * (n - 1) : ((g + 1) * n - 1) / 2;
			if (reach < 2)
				at[d] = pull_in(how, corners_too, at[d], x->dims[3 - d]);
			if (how == BEYOND_REFLECTION && reach < 2)
				at[d] = fmin(fmax(at[d], 0), n - 1);
			low[d] = floor(at[d]);
		}
		if (reach == 0)
			sum = pixel(x, plane, rint(at[1]), rint(at[0]), how, corners_too);
		for (int dy = 1 - reach; reach && dy <= reach; dy++)
			for (int dx = 1 - reach; dx <= reach; dx++) {
				double ty = at[1] - low[1] - dy, tx = at[0] - low[0] - dx;
				double weight = reach == 1 ? (1 - fabs(ty)) * (1 - fabs(tx))
							   : cubic_weight(ty) * cubic_weight(tx);

				sum += weight * pixel(x, plane, low[1] + dy, low[0] + dx, how, corners_too);
			}
		if (x->type == ONNX_FLOAT)
			((float *)c->out[0]->data)[i] = (float)sum;
		else
			((double *)c->out[0]->data)[i] = sum;
	}
	return 0;
}
