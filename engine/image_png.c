/*
 * PNG by libspng. Every kind is decoded as RGBA8 (libspng expands palettes, bit depths and tRNS) one row at
 * a time, so that beside the result only a row is held; an interlaced image needs the whole RGBA frame.
 */
#include "engine/base/utf8.h"
#include "engine/image_private.h"

#include <errno.h>
#include <spng.h>
#include <stdlib.h>
#include <string.h>

/* Chosen: room for any colour profile; beyond it a chunk is an attack. */
#define CHUNK_MAX  ((size_t)16 << 20)
#define CHUNKS_MAX ((size_t)32 << 20)

bool image_is_png(const uint8_t *data, size_t len)
{
	return len >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0;
}

static int png_error(struct err *err, int r)
{
	if (r == SPNG_EUSER_WIDTH || r == SPNG_EUSER_HEIGHT || r == SPNG_EWIDTH || r == SPNG_EHEIGHT)
		return err_set(err, ERR_IMAGE_SIZE, "PNG: %s", spng_strerror(r));
	if (r == SPNG_EMEM)
		return err_set(err, ERR_NO_MEMORY, "decoding a PNG");
	return err_set(err, ERR_BAD_IMAGE, "PNG: %s", spng_strerror(r));
}

/* Alpha over black, then grey or RGB. */
static void convert_row(uint8_t *out, const uint8_t *rgba, int width, int channels)
{
	for (int x = 0; x < width; x++, rgba += 4, out += channels) {
		int a = rgba[3];
		uint8_t rgb[3];

		for (int c = 0; c < 3; c++)
			rgb[c] = a == 255 ? rgba[c] : (uint8_t)((rgba[c] * a + 127) / 255);
		if (channels == 3)
			memcpy(out, rgb, 3);
		else
			*out = image_luma(rgb[0], rgb[1], rgb[2]);
	}
}

int image_decode_png(struct image *ret, const uint8_t *data, size_t len, int channels, struct err *err)
{
	spng_ctx *ctx = spng_ctx_new(0);
	struct image image = {0};
	struct spng_ihdr ihdr;
	struct spng_row_info row;
	uint8_t *rgba = NULL;
	size_t stride;
	int r, s;

	if (!ctx)
		return err_set(err, ERR_NO_MEMORY, "decoding a PNG");
	if ((s = spng_set_image_limits(ctx, IMAGE_MAX_SIDE, IMAGE_MAX_SIDE)) ||
	    (s = spng_set_chunk_limits(ctx, CHUNK_MAX, CHUNKS_MAX)) ||
	    (s = spng_set_png_buffer(ctx, data, len)) || (s = spng_get_ihdr(ctx, &ihdr))) {
		r = png_error(err, s);
		goto out;
	}
	if (!channels)
		channels = ihdr.color_type == SPNG_COLOR_TYPE_GRAYSCALE ||
					   ihdr.color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA
				   ? 1
				   : 3;
	stride = (size_t)ihdr.width * 4;
	if (ihdr.interlace_method && stride * ihdr.height > IMAGE_MAX_BYTES) {
		r = err_set(err, ERR_IMAGE_SIZE, "%ux%u pixels, interlaced", ihdr.width, ihdr.height);
		goto out;
	}
	r = image_alloc(&image, ihdr.height, ihdr.width, channels, err);
	if (r < 0)
		goto out;
	rgba = calloc(ihdr.interlace_method ? ihdr.height : 1, stride);
	if (!rgba) {
		r = err_set(err, ERR_NO_MEMORY, "decoding a PNG");
		goto out;
	}
	s = spng_decode_image(ctx, NULL, 0, SPNG_FMT_RGBA8, SPNG_DECODE_TRNS | SPNG_DECODE_PROGRESSIVE);
	while (s == 0) {
		s = spng_get_row_info(ctx, &row);
		if (s)
			break;
		if (ihdr.interlace_method) {
			s = spng_decode_row(ctx, rgba + row.row_num * stride, stride);
		} else {
			s = spng_decode_row(ctx, rgba, stride);
			if (s == 0 || s == SPNG_EOI)
				convert_row(image.pixels + (size_t)row.row_num * image.width * channels, rgba,
					    image.width, channels);
		}
	}
	/* All rows are there; the rest is read too, for the last checksum and the end mark: a file that a
	 * copy left short is not taken for whole. */
	if (s != SPNG_EOI || (s = spng_decode_chunks(ctx)) != 0) {
		r = png_error(err, s);
		goto out;
	}
	for (int y = 0; ihdr.interlace_method && y < image.height; y++)
		convert_row(image.pixels + (size_t)y * image.width * channels, rgba + y * stride, image.width,
			    channels);
	*ret = image;
	image = (struct image){0};
	r = 0;
out:
	free(rgba);
	image_release(&image);
	spng_ctx_free(ctx);
	return r;
}

/* Texts are UTF-8; bytes that are not become '?', as a label may be any directory's name. */
static bool set_text(struct spng_text *t, const struct image_text *from)
{
	*t = (struct spng_text){
		.type = SPNG_TEXT, .language_tag = (char *)"", .translated_keyword = (char *)""};
	strncpy(t->keyword, from->key, sizeof(t->keyword) - 1);
	t->text = strdup(from->value);
	if (!t->text)
		return false;
	t->length = strlen(t->text);
	t->type = utf8_clean(t->text) ? SPNG_TEXT : SPNG_ITXT;
	return true;
}

int image_encode_png(struct buf *ret, const struct image *image, const struct image_text *texts,
		     size_t n_texts)
{
	struct spng_ihdr ihdr = {.width = image->width,
				 .height = image->height,
				 .bit_depth = 8,
				 .color_type = image->channels == 1 ? SPNG_COLOR_TYPE_GRAYSCALE
								    : SPNG_COLOR_TYPE_TRUECOLOR};
	spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
	struct spng_text *t = n_texts ? calloc(n_texts, sizeof(*t)) : NULL;
	void *png = NULL;
	size_t len;
	int s = SPNG_EMEM, r = -ENOMEM;

	if (!ctx || (n_texts && !t))
		goto out;
	for (size_t i = 0; i < n_texts; i++)
		if (!set_text(&t[i], &texts[i]))
			goto out;
	/* Of a picture of 224² seven times as fast as by default, and a seventh larger. */
	if ((s = spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1)) ||
	    (s = spng_set_option(ctx, SPNG_IMG_COMPRESSION_LEVEL, 1)) ||
	    (s = spng_set_option(ctx, SPNG_FILTER_CHOICE, SPNG_FILTER_CHOICE_SUB)) ||
	    (s = spng_set_ihdr(ctx, &ihdr)) || (n_texts && (s = spng_set_text(ctx, t, n_texts))) ||
	    (s = spng_encode_image(ctx, image->pixels, (size_t)image->height * image->width * image->channels,
				   SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE)))
		goto out;
	png = spng_get_png_buffer(ctx, &len, &s);
	if (!png)
		goto out;
	buf_add(ret, png, len);
	s = 0;
out:
	if (s == 0)
		r = buf_status(ret);
	else if (s != SPNG_EMEM)
		r = -EINVAL;
	for (size_t i = 0; t && i < n_texts; i++)
		free(t[i].text);
	free(t);
	free(png);
	spng_ctx_free(ctx);
	return r;
}
