/*
 * JPEG by TurboJPEG (2.1: the tj* interface). Its warnings are of two sorts: data that end early, which is a
 * damaged file, and harmless ones (padding before a marker), which real collections are full of.
 *
 * What is resized at once is resized before it becomes RGB: brightness and the two colours as they are stored
 * (colours often at half the size), and only the result's pixels are converted. That saves enlarging the
 * colours and converting all of the picture, a third of the time at 500×375 to 224×224. Of pictures more than
 * four times as large as is wanted, only the low frequencies are decoded, to half, a quarter or an eighth of the
 * size: still at least twice what is wanted, so the resizing decides how the result looks.
 */
#include "engine/base/vectorised.h"
#include "engine/image_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

/* A progressive JPEG can ask for thousands of passes over a large frame: LIMITSCANS refuses that. */
#define FLAGS (TJFLAG_LIMITSCANS | TJFLAG_ACCURATEDCT)

struct header {
	int width, height, subsampling, space;
};

bool image_is_jpeg(const uint8_t *data, size_t len)
{
	return len >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff;
}

static int jpeg_error(struct err *err, tjhandle tj)
{
	return err_set(err, ERR_BAD_IMAGE, "JPEG: %s", tjGetErrorStr2(tj));
}

static bool failed(tjhandle tj, int result)
{
	return result < 0 &&
	       (tjGetErrorCode(tj) != TJERR_WARNING || strcasestr(tjGetErrorStr2(tj), "premature end"));
}

/* The caller destroys the handle, also on failure. */
static int begin(tjhandle *ret, struct header *h, const uint8_t *data, size_t len, struct err *err)
{
	*ret = tjInitDecompress();
	if (!*ret)
		return err_set(err, ERR_NO_MEMORY, "decoding a JPEG");
	if (tjDecompressHeader3(*ret, data, len, &h->width, &h->height, &h->subsampling, &h->space) < 0)
		return jpeg_error(err, *ret);
	if (h->space == TJCS_CMYK || h->space == TJCS_YCCK)
		return err_set(err, ERR_BAD_IMAGE,
			       "JPEG in CMYK colours, which needs a profile to be seen as RGB");
	return 0;
}

static int decode(struct image *ret, tjhandle tj, const struct header *h, const uint8_t *data, size_t len,
		  int channels, struct err *err)
{
	struct image image = {0};
	int r;

	if (!channels)
		channels = h->space == TJCS_GRAY ? 1 : 3;
	r = image_alloc(&image, h->height, h->width, channels, err);
	if (r < 0)
		return r;
	if (failed(tj, tjDecompress2(tj, data, len, image.pixels, h->width, 0, h->height,
				     channels == 1 ? TJPF_GRAY : TJPF_RGB, FLAGS))) {
		image_release(&image);
		return jpeg_error(err, tj);
	}
	*ret = image;
	return 0;
}

int image_decode_jpeg(struct image *ret, const uint8_t *data, size_t len, int channels, struct err *err)
{
	struct header h;
	tjhandle tj;
	int r = begin(&tj, &h, data, len, err);

	if (r == 0)
		r = decode(ret, tj, &h, data, len, channels, err);
	tjDestroy(tj);
	return r;
}

/* JFIF's conversion (ITU-R BT.601, full range) of rows in 1/64 to interleaved RGB. */
VECTORISED static void to_rgb(uint8_t *restrict out, const int16_t *restrict y, const int16_t *restrict cb,
			      const int16_t *restrict cr, int width)
{
	for (int x = 0; x < width; x++) {
		float l = (float)y[x] + 32, b = (float)(cb[x] - 128 * 64), r = (float)(cr[x] - 128 * 64);
		int red = (int)(l + 1.402f * r), green = (int)(l - 0.344136f * b - 0.714136f * r),
		    blue = (int)(l + 1.772f * b);

		red = red < 0 ? 0 : red > 255 * 64 ? 255 * 64 : red;
		green = green < 0 ? 0 : green > 255 * 64 ? 255 * 64 : green;
		blue = blue < 0 ? 0 : blue > 255 * 64 ? 255 * 64 : blue;
		out[3 * x] = (uint8_t)(red >> 6);
		out[3 * x + 1] = (uint8_t)(green >> 6);
		out[3 * x + 2] = (uint8_t)(blue >> 6);
	}
}

/* By how much all of the picture may be shrunk while it is decoded. */
static int shrink_for(const struct header *h, int height, int width)
{
	int shrink = 8;

	while (shrink > 1 && (h->height / shrink < 2 * height || h->width / shrink < 2 * width))
		shrink /= 2;
	return shrink;
}

/* The planes of a picture that is stored as brightness and colours. */
static int load_planes(uint8_t *out, tjhandle tj, const struct header *h, int height, int width,
		       const uint8_t *data, size_t len, struct err *err)
{
	int shrink = shrink_for(h, height, width), in_height = (h->height + shrink - 1) / shrink,
	    in_width = (h->width + shrink - 1) / shrink, strides[3], r = 0;
	struct resizer *resizers[2] = {0}; /* of brightness, of both colours */
	unsigned char *planes[3];
	size_t sizes[3], total = 0;
	int16_t *rows = malloc((size_t)width * 3 * sizeof(*rows));
	uint8_t *pixels = NULL;

	for (int i = 0; i < 3; i++) {
		strides[i] = tjPlaneWidth(i, in_width, h->subsampling);
		sizes[i] = (size_t)strides[i] * (size_t)tjPlaneHeight(i, in_height, h->subsampling);
		total += sizes[i];
	}
	pixels = malloc(total);
	if (!rows || !pixels) {
		r = err_set(err, ERR_NO_MEMORY, "an image of %dx%d", h->width, h->height);
		goto out;
	}
	for (int i = 0; i < 3; i++)
		planes[i] = i ? planes[i - 1] + sizes[i - 1] : pixels;
	if (failed(tj, tjDecompressToYUVPlanes(tj, data, len, planes, in_width, strides, in_height, FLAGS))) {
		r = jpeg_error(err, tj);
		goto out;
	}
	for (int i = 0; i < 2 && r == 0; i++) {
		int across = tjMCUWidth[h->subsampling] / 8, down = tjMCUHeight[h->subsampling] / 8;
		struct resizer_plane plane = {
			.stride = (size_t)strides[i],
			.height = (int)(sizes[i] / (size_t)strides[i]),
			.width = strides[i],
			.channels = 1,
			.extent_y = (double)h->height / shrink / (i ? down : 1),
			.extent_x = (double)h->width / shrink / (i ? across : 1),
		};

		r = resizer_new(&resizers[i], &plane, height, width);
	}
	if (r < 0) {
		r = err_set(err, ERR_NO_MEMORY, "resizing an image");
		goto out;
	}
	for (int y = 0; y < height; y++) {
		for (int i = 0; i < 3; i++)
			resizer_row(resizers[i > 0], planes[i], y, rows + i * width);
		to_rgb(out + (size_t)y * (size_t)width * 3, rows, rows + width, rows + 2 * width, width);
	}
out:
	for (int i = 0; i < 2; i++)
		resizer_free(resizers[i]);
	free(rows);
	free(pixels);
	return r;
}

int image_load_jpeg(uint8_t *out, int height, int width, int channels, const uint8_t *data, size_t len,
		    struct err *err)
{
	struct image image = {0}, sized = {0};
	struct header h;
	tjhandle tj;
	int r = begin(&tj, &h, data, len, err);

	if (r < 0)
		goto out;
	if (h.height > IMAGE_MAX_SIDE || h.width > IMAGE_MAX_SIDE ||
	    (size_t)h.height * (size_t)h.width * 3 > IMAGE_MAX_BYTES) {
		r = err_set(err, ERR_IMAGE_SIZE, "%dx%d pixels", h.width, h.height);
		goto out;
	}
	if (channels == 3 && h.space == TJCS_YCbCr && h.subsampling >= 0 && h.subsampling < TJ_NUMSAMP &&
	    h.subsampling != TJSAMP_GRAY && (h.height != height || h.width != width)) {
		r = load_planes(out, tj, &h, height, width, data, len, err);
		goto out;
	}
	r = decode(&image, tj, &h, data, len, channels, err);
	if (r == 0 && (image.height != height || image.width != width) &&
	    image_resize(&sized, &image, height, width) < 0)
		r = err_set(err, ERR_NO_MEMORY, "resizing an image");
	if (r == 0)
		memcpy(out, sized.pixels ? sized.pixels : image.pixels,
		       (size_t)height * (size_t)width * (size_t)channels);
out:
	image_release(&sized);
	image_release(&image);
	tjDestroy(tj);
	return r;
}
