/*
 * Grad-CAM runs in a session of its own (it keeps activations and gradients) of CAM_BATCH instances, made
 * when first asked for and kept for one sub-model at a time, so that memory stays within the promise. What several members answered
 * together is explained by the one of the largest weight.
 */
#include "sched/worker/infer_private.h"

#include "engine/backend.h"
#include "engine/base/clock.h"
#include "engine/base/io.h"
#include "engine/image.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CAM_BATCH 8
#define CAM_SIDE  1024 /* larger images are shrunk before the heat map is drawn over them */

/* --- pictures --- */

static struct infer_place explaining(const struct infer_endpoint *e, const struct infer_submodel *s)
{
	struct infer_place best = s->parts[0];

	for (int i = 1; i < s->n_parts; i++)
		if (e->members[s->parts[i].member].weight > e->members[best.member].weight)
			best = s->parts[i];
	return best;
}

static int cam_session(struct infer_endpoint *e, int submodel, struct err *err)
{
	struct infer_place at = explaining(e, &e->submodels[submodel]);
	const struct infer_part *part = infer_part(e, at);

	if (e->cam && e->cam_part.member == at.member && e->cam_part.part == at.part)
		return 0;
	session_free(e->cam);
	e->cam = NULL;
	e->cam_part = at;
	return session_new(&e->cam, e->members[at.member].model, backend_find(INFER_BACKEND),
			   &(struct session_options){.rate = part->rate,
						     .precision = part->precision,
						     .batch = CAM_BATCH,
						     .gradcam = true,
						     .threads = e->threads},
			   err);
}

/* Appends the PNG of one instance to fd. 0: no picture. */
static uint64_t draw(const struct infer_endpoint *e, const struct map *data, const struct wire_wish *wish,
		     const float *heat, int h, int w, int fd)
{
	struct image image = {0}, small = {0}, over = {0};
	struct buf png = BUF_INIT;
	uint64_t len = 0;
	char score[32];
	int r;

	snprintf(score, sizeof(score), "%.6f", (double)wish->score);
	const struct image_text texts[] = {{"label", model_label(e->members[0].model, (int)wish->label)},
					   {"score", score}};

	r = image_decode(&image, data->data, data->len, 0, NULL);
	if (r == 0 && (image.height > CAM_SIDE || image.width > CAM_SIDE)) {
		double scale = (double)CAM_SIDE / (image.height > image.width ? image.height : image.width);
		int sh = (int)lround(image.height * scale), sw = (int)lround(image.width * scale);

		r = image_resize(&small, &image, sh ? sh : 1, sw ? sw : 1);
		if (r == 0) {
			image_release(&image);
			image = small;
		}
	}
	if (r == 0)
		r = image_heat_overlay(&over, &image, heat, h, w);
	if (r == 0)
		r = image_encode_png(&png, &over, texts, 2);
	if (r == 0)
		r = io_write(fd, png.data, png.len);
	if (r == 0)
		len = png.len;
	buf_release(&png);
	image_release(&image);
	image_release(&over);
	return len;
}

/* The member's own number of the endpoint's class. */
static int own_class(const struct infer_endpoint *e, const struct infer_member *m, int label)
{
	int class = 0;

	if (!m->labels)
		return label;
	while (class < e->classes - 1 && m->labels[class] != label)
		class ++;
	return class;
}

/* Up to CAM_BATCH instances; what can't be drawn has length 0. */
static int explain_some(struct infer_endpoint *e, const struct map *data, const struct wire_wish *wishes,
			struct wire_picture *pictures, int n, int fd)
{
	const struct infer_member *m = &e->members[e->cam_part.member];
	int h, w, at[CAM_BATCH], labels[CAM_BATCH], good = 0, r;
	uint8_t *pixels = malloc(CAM_BATCH * m->image_size);
	float *logits = malloc(CAM_BATCH * sizeof(float) * (size_t)e->classes), *heat = NULL;

	session_gradcam_shape(e->cam, &h, &w);
	if (h > 0 && w > 0)
		heat = malloc(CAM_BATCH * sizeof(float) * (size_t)h * (size_t)w);
	r = pixels && logits && heat ? 0 : -ENOMEM;
	for (int i = 0; r == 0 && i < n; i++) {
		if (wishes[i].label >= (uint32_t)e->classes ||
		    image_load(pixels + (size_t)good * m->image_size, m->height, m->width, m->channels,
			       data[i].data, data[i].len, NULL) < 0)
			continue;
		labels[good] = own_class(e, m, (int)wishes[i].label);
		at[good++] = i;
	}
	if (r == 0 && good)
		r = session_forward(e->cam, pixels, good, logits);
	if (r == 0 && good)
		r = session_gradcam(e->cam, labels, good, heat);
	for (int i = 0; r == 0 && i < good; i++)
		pictures[at[i]].len =
			draw(e, &data[at[i]], &wishes[at[i]], heat + (size_t)i * (size_t)(h * w), h, w, fd);
	free(pixels);
	free(logits);
	free(heat);
	return r;
}

int infer_explain(struct infer *in, const struct wire_message *m)
{
	struct wire_message answer = {
		.type = WIRE_PICTURES, .n_fds = 1, .fds = {-1}, .pictures = {.batch = m->explain.batch}};
	struct infer_endpoint *e = infer_find(in, m->explain.endpoint);
	int64_t start = clock_monotonic_ns();
	int n = (int)m->explain.n_wishes, r;
	struct map pack = {0}, *data = NULL;
	struct err err = ERR_INIT;

	if (!e || m->explain.n_wishes > (uint32_t)e->batch || m->explain.submodel >= (uint32_t)e->n_submodels)
		return -EPROTO;
	r = map_open(&pack, m->fds[0]);
	if (r < 0)
		return r;
	data = calloc((size_t)n + 1, sizeof(*data));
	answer.pictures.pictures = calloc((size_t)n + 1, sizeof(*answer.pictures.pictures));
	answer.pictures.n_pictures = (uint32_t)n;
	if (!data || !answer.pictures.pictures)
		r = -ENOMEM;
	else if (!map_split(data, &pack, n ? &m->explain.wishes->len : NULL, sizeof(*m->explain.wishes), n))
		r = -EPROTO;
	if (r == 0)
		r = io_memfd_new("pictures", &answer.fds[0]);
	/* What can't be explained has no pictures: all lengths stay 0. */
	if (r == 0 && cam_session(e, (int)m->explain.submodel, &err) == 0)
		for (int i = 0; i < n; i += CAM_BATCH)
			explain_some(e, data + i, m->explain.wishes + i, answer.pictures.pictures + i,
				     n - i < CAM_BATCH ? n - i : CAM_BATCH, answer.fds[0]);
	if (r == 0)
		r = io_memfd_seal(answer.fds[0]);
	if (r == 0) {
		answer.pictures.compute_ns = (uint64_t)(clock_monotonic_ns() - start);
		r = worker_send(in->w, &answer);
	}
	if (answer.fds[0] >= 0)
		close(answer.fds[0]);
	free(answer.pictures.pictures);
	free(data);
	map_close(&pack);
	return r;
}
