/* Pixels in and out: real files made by the encoders, then damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/image.h"

#include <errno.h>
#include <spng.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <zlib.h>

static uint32_t rng = 1;
static uint8_t noise(void)
{
	rng = rng * 1664525 + 1013904223;
	return rng >> 24;
}

/* A smooth picture with some detail, (h, w, channels). */
static struct image picture(int h, int w, int channels)
{
	struct image im = {h, w, channels, malloc((size_t)h * w * channels)};

	assert_non_null(im.pixels);
	for (int y = 0; y < h; y++)
		for (int x = 0; x < w; x++)
			for (int c = 0; c < channels; c++)
				im.pixels[(y * w + x) * channels + c] = (uint8_t)(y * 5 + x * 3 * (c + 1));
	return im;
}

static struct buf png_of(int h, int w, int type, int depth, int interlace, const void *pixels, size_t len,
			 struct spng_plte *plte, struct spng_trns *trns)
{
	struct spng_ihdr ihdr = {.width = w,
				 .height = h,
				 .bit_depth = depth,
				 .color_type = type,
				 .interlace_method = interlace};
	spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
	struct buf b = BUF_INIT;
	size_t n;
	int e;
	void *png;

	spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);
	assert_int_equal(spng_set_ihdr(ctx, &ihdr), 0);
	if (plte)
		assert_int_equal(spng_set_plte(ctx, plte), 0);
	if (trns)
		assert_int_equal(spng_set_trns(ctx, trns), 0);
	assert_int_equal(spng_encode_image(ctx, pixels, len, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE), 0);
	png = spng_get_png_buffer(ctx, &n, &e);
	assert_non_null(png);
	buf_add(&b, png, n);
	free(png);
	spng_ctx_free(ctx);
	return b;
}

static void png_round_trip(void **state)
{
	(void)state;
	for (int channels = 1; channels <= 3; channels += 2)
		for (int interlace = 0; interlace < 2; interlace++) {
			struct image im = picture(33, 21, channels), back;
			struct buf b = png_of(33, 21, channels == 1 ? 0 : 2, 8, interlace, im.pixels,
					      33u * 21 * channels, NULL, NULL);

			assert_int_equal(image_decode(&back, b.data, b.len, 0, NULL), 0);
			assert_int_equal(back.channels, channels);
			assert_int_equal(back.height, 33);
			assert_int_equal(back.width, 21);
			assert_memory_equal(back.pixels, im.pixels, 33u * 21 * channels);
			image_release(&back);
			image_release(&im);
			buf_release(&b);
		}
}

static void png_kinds(void **state)
{
	const uint8_t rgba[8] = {200, 100, 50, 255, 200, 100, 50, 51}, indices[2] = {1, 0};
	const uint16_t deep[2] = {0x1234, 0xfedc};
	struct spng_plte plte = {.n_entries = 2, .entries = {{10, 20, 30, 0}, {200, 100, 50, 0}}};
	struct spng_trns trns = {.n_type3_entries = 1, .type3_alpha = {0}};
	struct image im;
	struct buf b;

	(void)state;
	b = png_of(1, 2, SPNG_COLOR_TYPE_TRUECOLOR_ALPHA, 8, 0, rgba, 8, NULL, NULL);
	assert_int_equal(image_decode(&im, b.data, b.len, 0, NULL), 0);
	assert_int_equal(im.channels, 3);
	assert_memory_equal(im.pixels, ((uint8_t[]){200, 100, 50, 40, 20, 10}), 6);
	image_release(&im);
	assert_int_equal(image_decode(&im, b.data, b.len, 1, NULL), 0);
	assert_int_equal(im.pixels[0], 124); /* 0.299·200 + 0.587·100 + 0.114·50 = 124.2 */
	image_release(&im);
	buf_release(&b);

	b = png_of(1, 2, SPNG_COLOR_TYPE_INDEXED, 8, 0, indices, 2, &plte, NULL);
	assert_int_equal(image_decode(&im, b.data, b.len, 0, NULL), 0);
	assert_memory_equal(im.pixels, ((uint8_t[]){200, 100, 50, 10, 20, 30}), 6);
	image_release(&im);
	buf_release(&b);

	b = png_of(1, 2, SPNG_COLOR_TYPE_INDEXED, 8, 0, indices, 2, &plte, &trns);
	assert_int_equal(image_decode(&im, b.data, b.len, 0, NULL), 0);
	assert_memory_equal(im.pixels, ((uint8_t[]){200, 100, 50, 0, 0, 0}), 6);
	image_release(&im);
	buf_release(&b);

	b = png_of(1, 2, SPNG_COLOR_TYPE_GRAYSCALE, 16, 0, deep, 4, NULL, NULL);
	assert_int_equal(image_decode(&im, b.data, b.len, 0, NULL), 0);
	assert_int_equal(im.channels, 1);
	assert_int_equal(im.pixels[0], 0x12);
	assert_int_equal(im.pixels[1], 0xfe);
	image_release(&im);
	assert_int_equal(image_decode(&im, b.data, b.len, 3, NULL), 0);
	assert_memory_equal(im.pixels, ((uint8_t[]){0x12, 0x12, 0x12, 0xfe, 0xfe, 0xfe}), 6);
	image_release(&im);
	buf_release(&b);
}

static void png_hostile(void **state)
{
	struct image im = picture(20, 20, 3), back = {0};
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	int refused = 0;

	(void)state;
	assert_int_equal(image_encode_png(&b, &im, NULL, 0), 0);
	for (size_t n = 0; n < b.len - 12; n++) { /* the last 12 bytes are IEND, which tells nothing new */
		uint8_t *copy = malloc(n ? n : 1);

		memcpy(copy, b.data, n);
		assert_int_equal(image_decode(&back, copy, n, 0, &err), -EBADMSG);
		free(copy);
	}
	for (int i = 0; i < 2000; i++) { /* any damage: an error or an image, never a crash */
		uint8_t *copy = malloc(b.len);

		memcpy(copy, b.data, b.len);
		copy[(size_t)noise() * b.len / 256] ^= noise();
		copy[(size_t)noise() * b.len / 256] = noise();
		if (image_decode(&back, copy, b.len, 0, NULL) == 0)
			image_release(&back);
		else
			refused++;
		free(copy);
	}
	assert_true(refused > 1000);
	/* A header that lies about the size, with its checksum right. */
	for (int64_t side = 20000; side <= 2000000000; side *= 100) {
		uint8_t *p = (uint8_t *)b.data;
		uint32_t crc;

		for (int i = 0; i < 4; i++)
			p[16 + i] = (uint8_t)((uint32_t)side >> (24 - 8 * i));
		crc = crc32(0, p + 12, 17);
		for (int i = 0; i < 4; i++)
			p[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
		assert_int_equal(image_decode(&back, p, b.len, 0, &err), -EFBIG);
	}
	buf_release(&b);
	image_release(&im);
}

static struct buf jpeg_sampled(const struct image *im, int flags, int subsampling)
{
	tjhandle tj = tjInitCompress();
	unsigned char *data = NULL;
	unsigned long n = 0;
	struct buf b = BUF_INIT;

	assert_int_equal(tjCompress2(tj, im->pixels, im->width, 0, im->height,
				     im->channels == 1   ? TJPF_GRAY
				     : im->channels == 3 ? TJPF_RGB
							 : TJPF_CMYK,
				     &data, &n, im->channels == 1 ? TJSAMP_GRAY : subsampling, 95, flags),
			 0);
	buf_add(&b, data, n);
	tjFree(data);
	tjDestroy(tj);
	return b;
}

static struct buf jpeg_of(const struct image *im, int flags)
{
	return jpeg_sampled(im, flags, TJSAMP_444);
}

/* Smooth, so that what differs between two ways of resizing is the ways, not the details. */
static struct image smooth_picture(int height, int width)
{
	struct image im = {height, width, 3, malloc((size_t)height * (size_t)width * 3)};

	for (int y = 0; y < height; y++)
		for (int x = 0; x < width; x++) {
			uint8_t *p = im.pixels + ((size_t)y * (size_t)width + (size_t)x) * 3;

			p[0] = (uint8_t)(60 + 130.0 * x / width);
			p[1] = (uint8_t)(60 + 130.0 * y / height);
			p[2] = (uint8_t)(128 + 60 * sin(4.0 * x / width) * cos(3.0 * y / height));
		}
	return im;
}

/* What is loaded at another size is resized before it is RGB, from colours of any size, shrunk by the decoder
 * or not: as decoding and resizing would have it. */
static void jpeg_load_resized(void **state)
{
	static const struct {
		int height, width, to_height, to_width;
	} sizes[] = {{37, 61, 24, 24},   {61, 37, 40, 50},   {16, 16, 15, 17},
		     {301, 403, 30, 32}, {640, 333, 19, 20}, {480, 640, 23, 1}};
	static const int samplings[] = {TJSAMP_444, TJSAMP_422, TJSAMP_420, TJSAMP_440, TJSAMP_411};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (size_t k = 0; k < sizeof(samplings) / sizeof(samplings[0]); k++) {
			int h = sizes[i].to_height, w = sizes[i].to_width, most = 0, sum = 0;
			struct image im = smooth_picture(sizes[i].height, sizes[i].width), back, sized;
			struct buf b = jpeg_sampled(&im, 0, samplings[k]);
			uint8_t *out = malloc((size_t)h * (size_t)w * 3);

			assert_int_equal(image_decode(&back, b.data, b.len, 3, NULL), 0);
			assert_int_equal(image_resize(&sized, &back, h, w), 0);
			assert_int_equal(image_load(out, h, w, 3, b.data, b.len, NULL), 0);
			for (int j = 0; j < h * w * 3; j++) {
				int off = abs(out[j] - sized.pixels[j]);

				sum += off;
				most = off > most ? off : most;
			}
			/* the decoder repeats the colours of 4:1:1, four times, and interpolates the others */
			assert_in_range(most, 0, samplings[k] == TJSAMP_411 ? 24 : 4);
			assert_in_range(sum, 0, h * w * 3 * (samplings[k] == TJSAMP_411 ? 3 : 1));
			free(out);
			image_release(&im);
			image_release(&back);
			image_release(&sized);
			buf_release(&b);
		}
}

static void jpeg_round_trip(void **state)
{
	(void)state;
	for (int channels = 1; channels <= 3; channels += 2)
		for (int progressive = 0; progressive < 2; progressive++) {
			struct image im = picture(40, 24, channels), back = {0};
			struct buf b = jpeg_of(&im, progressive ? TJFLAG_PROGRESSIVE : 0);
			double sum = 0;

			assert_int_equal(image_decode(&back, b.data, b.len, 0, NULL), 0);
			assert_int_equal(back.channels, channels);
			assert_int_equal(back.height, 40);
			assert_int_equal(back.width, 24);
			for (int i = 0; i < 40 * 24 * channels; i++)
				sum += abs(back.pixels[i] - im.pixels[i]);
			assert_true(sum / (40 * 24 * channels) < 6);
			image_release(&back);
			image_release(&im);
			buf_release(&b);
		}
}

static void jpeg_hostile(void **state)
{
	struct image im = picture(24, 24, 3), cmyk = picture(8, 8, 4), back = {0};
	struct buf b = jpeg_of(&im, 0), c = jpeg_of(&cmyk, 0);
	struct err err = ERR_INIT;
	uint8_t load[2 * 3 * 3];

	(void)state;
	for (size_t n = 0; n < b.len - 2; n++) { /* the last two bytes are the end marker */
		uint8_t *copy = malloc(n ? n : 1);
		int r;

		memcpy(copy, b.data, n);
		r = image_decode(&back, copy, n, 0, &err);
		/* Within the last MCU's bits a cut can't be told from padding. */
		if (r == 0) {
			assert_true(n + 8 > b.len);
			image_release(&back);
		} else {
			/* libjpeg ends a header cut in mid-size with an end mark: it reads as a huge size. */
			assert_true(r == -EBADMSG || r == -EFBIG);
		}
		free(copy);
	}
	for (int i = 0; i < 2000; i++) {
		uint8_t *copy = malloc(b.len);

		memcpy(copy, b.data, b.len);
		copy[(size_t)noise() * b.len / 256] ^= noise();
		copy[(size_t)noise() * b.len / 256] = noise();
		if (image_decode(&back, copy, b.len, 0, NULL) == 0)
			image_release(&back);
		image_load(load, 2, 3, 3, copy, b.len, NULL);
		free(copy);
	}
	assert_int_equal(image_decode(&back, c.data, c.len, 0, &err), -EBADMSG);
	assert_non_null(strstr(err.detail, "CMYK"));
	/* SOF0 with 60000 x 60000 */
	for (size_t i = 0; i + 9 < b.len; i++)
		if ((uint8_t)b.data[i] == 0xff && (uint8_t)b.data[i + 1] == 0xc0) {
			memcpy(b.data + i + 5, "\xea\x60\xea\x60", 4);
			break;
		}
	assert_int_equal(image_decode(&back, b.data, b.len, 0, &err), -EFBIG);
	assert_int_equal(image_decode(&back, "hello", 5, 0, &err), -EBADMSG);
	assert_int_equal(image_decode(&back, "", 0, 0, &err), -EBADMSG);
	image_release(&im);
	image_release(&cmyk);
	buf_release(&b);
	buf_release(&c);
}

static void resize(void **state)
{
	uint8_t px[16] = {0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150}, load[4];
	struct image im = {4, 4, 1, px}, out;
	struct buf b = BUF_INIT;

	(void)state;
	assert_int_equal(image_resize(&out, &im, 2, 2), 0); /* weights 3 3 1 of 7: 35.7 51.4 98.6 114.3 */
	assert_memory_equal(out.pixels, ((uint8_t[]){36, 51, 99, 114}), 4);
	image_release(&out);
	assert_int_equal(image_resize(&out, &im, 1, 3), 0);
	assert_memory_equal(out.pixels, ((uint8_t[]){63, 75, 87}), 3);
	image_release(&out);
	assert_int_equal(image_resize(&out, &im, 3, 2), 0);
	assert_memory_equal(out.pixels, ((uint8_t[]){19, 35, 67, 83, 115, 131}), 6);
	image_release(&out);
	assert_int_equal(image_resize(&out, &im, 4, 8), 0); /* centres at -0.25, 0.25, 0.75 … */
	assert_memory_equal(out.pixels, ((uint8_t[]){0, 3, 8, 13, 18, 23, 28, 30}), 8);
	image_release(&out);
	assert_int_equal(image_resize(&out, &im, 4, 4), 0);
	assert_memory_equal(out.pixels, px, 16);
	image_release(&out);
	assert_int_equal(image_encode_png(&b, &im, NULL, 0), 0);
	assert_int_equal(image_load(load, 2, 2, 1, b.data, b.len, NULL), 0);
	assert_memory_equal(load, ((uint8_t[]){36, 51, 99, 114}), 4);
	buf_release(&b);
	/* A constant stays constant at every ratio, colour too. */
	for (int h = 1; h < 40; h += 3) {
		uint8_t c[7 * 11 * 3];
		struct image flat = {7, 11, 3, c};

		for (int i = 0; i < 7 * 11; i++)
			memcpy(c + i * 3, "\x05\x80\xff", 3);
		assert_int_equal(image_resize(&out, &flat, h, 40 - h), 0);
		for (int i = 0; i < h * (40 - h); i++)
			assert_memory_equal(out.pixels + i * 3, "\x05\x80\xff", 3);
		image_release(&out);
	}
}

static void texts_and_overlay(void **state)
{
	const struct image_text texts[] = {{"Label", "ankle boot"}, {"Title", "Schön \xff"}};
	const float heat[4] = {0, 1, 0, 0};
	struct image im = picture(28, 14, 1), big = {0}, flat;
	struct buf b = BUF_INIT;
	struct spng_text got[4];
	uint32_t n = 0;
	spng_ctx *ctx;

	(void)state;
	memset(im.pixels, 100, 28 * 14);
	assert_int_equal(image_heat_overlay(&big, &im, heat, 2, 2), 0);
	assert_int_equal(big.width, 224);
	assert_int_equal(big.height, 448);
	assert_int_equal(big.channels, 3);
	const uint8_t *hot = big.pixels + 223 * 3, *cold = big.pixels + (447u * 224) * 3;
	assert_true(hot[0] > hot[2] + 40);   /* red where it is hot */
	assert_true(cold[2] > cold[0] + 10); /* blue, and mostly the image, where it is cold */
	assert_true(abs(cold[1] - 85) < 3);
	assert_int_equal(image_encode_png(&b, &big, texts, 2), 0);
	ctx = spng_ctx_new(0);
	spng_set_png_buffer(ctx, b.data, b.len);
	assert_int_equal(spng_get_text(ctx, NULL, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(spng_get_text(ctx, got, &n), 0);
	assert_string_equal(got[0].keyword, "Label");
	assert_string_equal(got[0].text, "ankle boot");
	assert_int_equal(got[0].type, SPNG_TEXT);
	assert_string_equal(got[1].text, "Schön ?");
	assert_int_equal(got[1].type, SPNG_ITXT);
	spng_ctx_free(ctx);
	buf_release(&b);
	image_release(&big);
	/* A line 1 pixel high: bounded. */
	flat = picture(1, 16384, 3);
	assert_int_equal(image_heat_overlay(&big, &flat, heat, 2, 2), 0);
	assert_true(big.height >= 224 && big.width >= 224);
	image_release(&big);
	image_release(&flat);
	image_release(&im);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(png_round_trip),  cmocka_unit_test(png_kinds),
		cmocka_unit_test(png_hostile),     cmocka_unit_test(jpeg_load_resized),
		cmocka_unit_test(jpeg_round_trip), cmocka_unit_test(jpeg_hostile),
		cmocka_unit_test(resize),          cmocka_unit_test(texts_and_overlay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
