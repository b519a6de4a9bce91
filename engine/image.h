/*
 * Pixels in and out: PNG by libspng, JPEG by TurboJPEG. Input is hostile: limits are checked on the header,
 * before anything is allocated (16384 pixels a side, 256 MiB decoded).
 */
#ifndef ENGINE_IMAGE_H
#define ENGINE_IMAGE_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdint.h>

struct image {
	int height, width, channels; /* channels: 1 grey, 3 RGB */
	uint8_t *pixels;             /* (H, W, C), owned */
};

/*
 * Decodes and converts to `channels` (0: as stored, alpha dropped over black, palette to RGB, 16 bit to 8).
 */
int image_decode(struct image *ret, const void *data, size_t len, int channels, struct err *err);
/* Resizes to (height, width): bilinear, when shrinking with antialiasing (a triangle of twice an output pixel's
 * width, as Pillow's BILINEAR), half-pixel centres. */
int image_resize(struct image *ret, const struct image *from, int height, int width);
void image_release(struct image *image);

/* One decoded, converted and resized image into out (H, W, C). What a worker does for every instance. A JPEG
 * that is resized differs a little from image_decode and image_resize (see image_jpeg.c). */
int image_load(uint8_t *out, int height, int width, int channels, const void *data, size_t len,
	       struct err *err);

/* A PNG tEXt chunk (iTXt when not Latin-1). */
struct image_text {
	const char *key, *value;
};
int image_encode_png(struct buf *ret, const struct image *image, const struct image_text *texts,
		     size_t n_texts);

/* The Grad-CAM picture: the image enlarged to at least 224 pixels a side (same aspect), the heat map (h, w;
 * 0…1) drawn over it. */
int image_heat_overlay(struct image *ret, const struct image *image, const float *heat, int h, int w);

#endif
