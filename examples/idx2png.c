/*
 * Writes images of an IDX file (plain or gzip; the format of MNIST and its kin) as grey PNG files:
 *
 *	idx2png IMAGES LABELS OUTDIR FIRST COUNT [--folders]
 *
 * Files are named NNNNN-LABEL.png, or CLASS/NNNNN.png with --folders (an ImageFolder).
 */
#include <errno.h>
#include <spng.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

static uint32_t read_be32(gzFile f)
{
	unsigned char b[4];

	if (gzread(f, b, 4) != 4)
		return 0;
	return (uint32_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
}

static int write_png(const char *path, void *pixels, uint32_t width, uint32_t height)
{
	struct spng_ihdr ihdr = {
		.width = width, .height = height, .bit_depth = 8, .color_type = SPNG_COLOR_TYPE_GRAYSCALE};
	spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
	FILE *f = fopen(path, "wb");
	int r = -1;

	if (!ctx || !f)
		goto out;
	spng_set_png_file(ctx, f);
	spng_set_ihdr(ctx, &ihdr);
	r = spng_encode_image(ctx, pixels, (size_t)width * height, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
out:
	if (f && fclose(f) != 0)
		r = -1;
	if (r)
		fprintf(stderr, "idx2png: %s: %s\n", path, r > 0 ? spng_strerror(r) : strerror(errno));
	spng_ctx_free(ctx);
	return r;
}

int main(int argc, char **argv)
{
	int folders = argc == 7 && strcmp(argv[6], "--folders") == 0, r = 1;
	unsigned char label = 0, *pixels = NULL;
	gzFile images = NULL, labels = NULL;
	uint32_t count, height, width;
	unsigned long first, n;
	char path[4096];

	if (argc < 6 || (argc == 7 && !folders) || argc > 7) {
		fprintf(stderr, "usage: idx2png IMAGES LABELS OUTDIR FIRST COUNT [--folders]\n");
		return 2;
	}
	first = strtoul(argv[4], NULL, 10);
	n = strtoul(argv[5], NULL, 10);
	images = gzopen(argv[1], "rb");
	labels = gzopen(argv[2], "rb");
	if (!images || !labels) {
		fprintf(stderr, "idx2png: can't open %s\n", images ? argv[2] : argv[1]);
		goto out;
	}
	if (read_be32(images) != 0x803 || read_be32(labels) != 0x801) {
		fprintf(stderr, "idx2png: not IDX files of images and labels\n");
		goto out;
	}
	count = read_be32(images);
	height = read_be32(images);
	width = read_be32(images);
	if (read_be32(labels) != count || !width || !height || width > 16384 || height > 16384) {
		fprintf(stderr, "idx2png: the headers do not fit together\n");
		goto out;
	}
	pixels = malloc((size_t)width * height);
	if (!pixels || (mkdir(argv[3], 0777) < 0 && errno != EEXIST)) {
		perror("idx2png");
		goto out;
	}
	for (unsigned long i = 0; i < count && i < first + n; i++) {
		if (gzread(images, pixels, width * height) != (int)(width * height) ||
		    gzread(labels, &label, 1) != 1) {
			fprintf(stderr, "idx2png: the file ends early\n");
			goto out;
		}
		if (i < first)
			continue;
		if (folders) {
			snprintf(path, sizeof(path), "%s/%u", argv[3], label);
			if (mkdir(path, 0777) < 0 && errno != EEXIST) {
				perror("idx2png");
				goto out;
			}
			snprintf(path, sizeof(path), "%s/%u/%05lu.png", argv[3], label, i);
		} else {
			snprintf(path, sizeof(path), "%s/%05lu-%u.png", argv[3], i, label);
		}
		if (write_png(path, pixels, width, height))
			goto out;
	}
	r = 0;
out:
	free(pixels);
	if (images)
		gzclose(images);
	if (labels)
		gzclose(labels);
	return r;
}
