/* Private to engine/image*.c. */
#ifndef ENGINE_IMAGE_PRIVATE_H
#define ENGINE_IMAGE_PRIVATE_H

#include "engine/image.h"

#include <stdbool.h>

#define IMAGE_MAX_SIDE  16384
#define IMAGE_MAX_BYTES ((size_t)256 << 20)

/* Sets the sizes and allocates the pixels (not cleared). ret is untouched on failure: IMAGE_SIZE beyond the
 * limits, NO_MEMORY. */
int image_alloc(struct image *ret, int64_t height, int64_t width, int channels, struct err *err);

/* Decoders: ret gets 1 or 3 channels, as `channels` says (0: as stored). */
bool image_is_png(const uint8_t *data, size_t len);
int image_decode_png(struct image *ret, const uint8_t *data, size_t len, int channels, struct err *err);
bool image_is_jpeg(const uint8_t *data, size_t len);
int image_decode_jpeg(struct image *ret, const uint8_t *data, size_t len, int channels, struct err *err);
/* As image_load. */
int image_load_jpeg(uint8_t *out, int height, int width, int channels, const uint8_t *data, size_t len,
		    struct err *err);

/*
 * Resizing row by row. A plane is (height, width, channels) at `stride` bytes a row, of which extent_y and
 * extent_x pixels are the picture (a subsampled plane may reach beyond it by a part of a pixel).
 */
struct resizer_plane {
	size_t stride;
	int height, width, channels;
	double extent_y, extent_x;
};
struct resizer;
int resizer_new(struct resizer **ret, const struct resizer_plane *from, int height, int width); /* -ENOMEM */
/* Row y of what becomes of such a plane, (channels, width) in 1/64: 0 … 255·64. */
void resizer_row(struct resizer *r, const uint8_t *pixels, int y, int16_t *out);
void resizer_free(struct resizer *r);

/* ITU-R BT.601 luma, as libjpeg has it. */
static inline uint8_t image_luma(int r, int g, int b)
{
	return (uint8_t)((r * 19595 + g * 38470 + b * 7471 + 32768) >> 16);
}

#endif
