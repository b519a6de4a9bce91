/*
 * Batches: shuffled, flipped, shifted, normalised. Every choice is a function of (seed, epoch, place), so
 * neither a resume nor the number of threads changes it. It runs inline on the training thread: a table of
 * 256 values a channel turns pixels into floats, which costs well below 1 % of a step.
 */
#include "engine/train_private.h"

#include <string.h>

void train_shuffle(struct train *t, int epoch)
{
	uint64_t n = dataset_count(t->ds, DATASET_TRAIN);
	struct rng rng = rng_init(t->seed, 2 * (uint64_t)epoch);

	for (uint64_t i = 0; i < n; i++)
		t->order[i] = (uint32_t)i;
	for (uint64_t i = n; i > 1; i--) {
		uint64_t j = rng_below(&rng, i);
		uint32_t swap = t->order[i - 1];

		t->order[i - 1] = t->order[j];
		t->order[j] = swap;
	}
}

/* One image into out (H, W, C). What is shifted in is black; what is erased becomes the mean, 0. */
static void augment(const struct train *t, const uint8_t *pixels, float *out, struct rng *rng)
{
	const struct model_info *info = &t->model->info;
	int h = info->height, w = info->width, c = info->channels;
	int shift = t->spec->shift;
	int dy = shift ? (int)rng_below(rng, 2 * shift + 1) - shift : 0;
	int dx = shift ? (int)rng_below(rng, 2 * shift + 1) - shift : 0;
	bool flip = t->spec->flip && rng_below(rng, 2);

	for (int y = 0; y < h; y++)
		for (int x = 0; x < w; x++, out += c) {
			int from_y = y + dy, from_x = (flip ? w - 1 - x : x) + dx;
			bool inside = from_y >= 0 && from_y < h && from_x >= 0 && from_x < w;
			const uint8_t *p = pixels + ((size_t)from_y * w + from_x) * c;

			for (int k = 0; k < c; k++)
				out[k] = t->lut[k][inside ? p[k] : 0];
		}
	out -= (size_t)h * w * c;
	if (t->spec->erase && rng_below(rng, 2)) {
		int cy = (int)rng_below(rng, h), cx = (int)rng_below(rng, w), half = t->spec->erase / 2;

		for (int y = cy - half < 0 ? 0 : cy - half; y < h && y < cy - half + t->spec->erase; y++)
			for (int x = cx - half < 0 ? 0 : cx - half; x < w && x < cx - half + t->spec->erase;
			     x++)
				memset(out + ((size_t)y * w + x) * c, 0, c * sizeof(float));
	}
}

void train_batch(struct train *t, int epoch, int64_t at, int n)
{
	const struct model_info *info = &t->model->info;
	size_t size = (size_t)info->height * info->width * info->channels;

	for (int i = 0; i < n; i++) {
		uint64_t place = (uint64_t)at * t->batch + i;
		struct rng rng = rng_init(t->seed ^ rng_mix(place + 1), 2 * (uint64_t)epoch + 1);
		uint32_t image = t->order[place];

		augment(t, dataset_image(t->ds, DATASET_TRAIN, image), t->x + i * size, &rng);
		t->labels[i] = dataset_label(t->ds, DATASET_TRAIN, image);
	}
}
