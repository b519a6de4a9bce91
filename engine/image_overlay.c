/* The Grad-CAM picture: a heat map in the colours of "jet", drawn over the enlarged image. */
#include "engine/image_private.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define SIDE_MIN  224   /* the issue's: small inputs are enlarged until a person sees something */
#define LONG_MAX  8192  /* chosen: of an image 1 pixel wide the aspect is given up rather than memory */
#define ALPHA_MIN 0.15f /* chosen by eye: cold places stay as they were, hot ones keep their texture */
#define ALPHA_MAX 0.6f

static float clamp01(float v)
{
	return v > 0 ? v < 1 ? v : 1 : 0; /* NaN becomes 0 */
}

/* Blue, cyan, yellow, red: piecewise linear as in the common "jet" colour map. */
static void jet(float v, float rgb[3])
{
	rgb[0] = clamp01(1.5f - fabsf(4 * v - 3));
	rgb[1] = clamp01(1.5f - fabsf(4 * v - 2));
	rgb[2] = clamp01(1.5f - fabsf(4 * v - 1));
}

/* Bilinear, half-pixel centres; y and x in output pixels of (height, width). */
static float heat_at(const float *heat, int h, int w, int y, int x, int height, int width)
{
	float fy = (y + 0.5f) * h / height - 0.5f, fx = (x + 0.5f) * w / width - 0.5f;
	int y0, x0, y1, x1;

	fy = fy < 0 ? 0 : fy > h - 1 ? h - 1 : fy;
	fx = fx < 0 ? 0 : fx > w - 1 ? w - 1 : fx;
	y0 = (int)fy, x0 = (int)fx;
	y1 = y0 + 1 < h ? y0 + 1 : y0;
	x1 = x0 + 1 < w ? x0 + 1 : x0;
	fy -= y0, fx -= x0;
	return (1 - fy) * ((1 - fx) * heat[y0 * w + x0] + fx * heat[y0 * w + x1]) +
	       fy * ((1 - fx) * heat[y1 * w + x0] + fx * heat[y1 * w + x1]);
}

int image_heat_overlay(struct image *ret, const struct image *image, const float *heat, int h, int w)
{
	int small = image->height < image->width ? image->height : image->width, r;
	double scale = small < SIDE_MIN ? (double)SIDE_MIN / small : 1;
	int height = (int)ceil(image->height * scale - 1e-6), width = (int)ceil(image->width * scale - 1e-6);
	struct image big = {0}, out = {0};

	if (h < 1 || w < 1)
		return -EINVAL;
	if (scale > 1 && height > LONG_MAX)
		height = image->height > LONG_MAX ? image->height : LONG_MAX;
	if (scale > 1 && width > LONG_MAX)
		width = image->width > LONG_MAX ? image->width : LONG_MAX;
	r = image_resize(&big, image, height, width);
	if (r < 0)
		goto out;
	r = image_alloc(&out, height, width, 3, NULL);
	if (r < 0)
		goto out;
	for (int y = 0; y < height; y++)
		for (int x = 0; x < width; x++) {
			size_t i = (size_t)y * width + x;
			float v = clamp01(heat_at(heat, h, w, y, x, height, width)), rgb[3];
			float alpha = ALPHA_MIN + (ALPHA_MAX - ALPHA_MIN) * v;

			jet(v, rgb);
			for (int c = 0; c < 3; c++) {
				float p = big.pixels[i * big.channels + (big.channels == 3 ? c : 0)];

				out.pixels[i * 3 + c] =
					(uint8_t)((1 - alpha) * p + alpha * 255 * rgb[c] + 0.5f);
			}
		}
	*ret = out;
	out = (struct image){0};
	r = 0;
out:
	image_release(&big);
	image_release(&out);
	return r;
}
