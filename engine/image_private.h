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

/* ITU-R BT.601 luma, as libjpeg has it. */
static inline uint8_t image_luma(int r, int g, int b)
{
	return (uint8_t)((r * 19595 + g * 38470 + b * 7471 + 32768) >> 16);
}

#endif
