/*
 * What is common to all kinds of images: limits, the choice of the decoder by the file's first bytes (never
 * by its name) and the load of one instance.
 */
#include "engine/image_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	bool (*is)(const uint8_t *data, size_t len);
	int (*decode)(struct image *ret, const uint8_t *data, size_t len, int channels, struct err *err);
} decoders[] = {
	{"png", image_is_png, image_decode_png},
	{"jpeg", image_is_jpeg, image_decode_jpeg},
};

int image_alloc(struct image *ret, int64_t height, int64_t width, int channels, struct err *err)
{
	uint8_t *pixels;

	if (height < 1 || width < 1)
		return err_set(err, ERR_BAD_IMAGE, "%lldx%lld pixels", (long long)width, (long long)height);
	if (height > IMAGE_MAX_SIDE || width > IMAGE_MAX_SIDE ||
	    (size_t)height * width * channels > IMAGE_MAX_BYTES)
		return err_set(err, ERR_IMAGE_SIZE, "%lldx%lld pixels", (long long)width, (long long)height);
	pixels = malloc((size_t)height * width * channels);
	if (!pixels)
		return err_set(err, ERR_NO_MEMORY, "an image of %lldx%lld", (long long)width,
			       (long long)height);
	*ret = (struct image){(int)height, (int)width, channels, pixels};
	return 0;
}

int image_decode(struct image *ret, const void *data, size_t len, int channels, struct err *err)
{
	if (channels != 0 && channels != 1 && channels != 3)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(decoders) / sizeof(decoders[0]); i++)
		if (decoders[i].is(data, len))
			return decoders[i].decode(ret, data, len, channels, err);
	return err_set(err, ERR_BAD_IMAGE,
		       len ? "it begins like no kind of image that is known" : "it is empty");
}

void image_release(struct image *image)
{
	if (!image)
		return;
	free(image->pixels);
	*image = (struct image){0};
}

int image_load(uint8_t *out, int height, int width, int channels, const void *data, size_t len,
	       struct err *err)
{
	struct image image = {0}, sized = {0};
	int r;

	if (image_is_jpeg(data, len))
		return image_load_jpeg(out, height, width, channels, data, len, err);
	r = image_decode(&image, data, len, channels, err);
	if (r == 0 && (image.height != height || image.width != width)) {
		r = image_resize(&sized, &image, height, width);
		if (r < 0)
			err_set(err, ERR_NO_MEMORY, "resizing an image");
	}
	if (r == 0)
		memcpy(out, sized.pixels ? sized.pixels : image.pixels, (size_t)height * width * channels);
	image_release(&sized);
	image_release(&image);
	return r;
}
