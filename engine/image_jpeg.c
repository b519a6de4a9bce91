/*
 * JPEG by TurboJPEG (2.1: the tj* interface). Its warnings are of two sorts: data that end early, which is a
 * damaged file, and harmless ones (padding before a marker), which real collections are full of.
 */
#include "engine/image_private.h"

#include <string.h>
#include <turbojpeg.h>

bool image_is_jpeg(const uint8_t *data, size_t len)
{
	return len >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff;
}

int image_decode_jpeg(struct image *ret, const uint8_t *data, size_t len, int channels, struct err *err)
{
	tjhandle tj = tjInitDecompress();
	struct image image = {0};
	int r, width, height, subsampling, space;

	if (!tj)
		return err_set(err, ERR_NO_MEMORY, "decoding a JPEG");
	if (tjDecompressHeader3(tj, data, len, &width, &height, &subsampling, &space) < 0) {
		r = err_set(err, ERR_BAD_IMAGE, "JPEG: %s", tjGetErrorStr2(tj));
		goto out;
	}
	if (space == TJCS_CMYK || space == TJCS_YCCK) {
		r = err_set(err, ERR_BAD_IMAGE,
			    "JPEG in CMYK colours, which needs a profile to be seen as RGB");
		goto out;
	}
	if (!channels)
		channels = space == TJCS_GRAY ? 1 : 3;
	r = image_alloc(&image, height, width, channels, err);
	if (r < 0)
		goto out;
	/* A progressive JPEG can ask for thousands of passes over a large frame: LIMITSCANS refuses that. */
	if (tjDecompress2(tj, data, len, image.pixels, width, 0, height, channels == 1 ? TJPF_GRAY : TJPF_RGB,
			  TJFLAG_LIMITSCANS | TJFLAG_ACCURATEDCT) < 0 &&
	    (tjGetErrorCode(tj) != TJERR_WARNING || strcasestr(tjGetErrorStr2(tj), "premature end"))) {
		r = err_set(err, ERR_BAD_IMAGE, "JPEG: %s", tjGetErrorStr2(tj));
		goto out;
	}
	*ret = image;
	image = (struct image){0};
	r = 0;
out:
	image_release(&image);
	tjDestroy(tj);
	return r;
}
