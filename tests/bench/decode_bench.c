/*
 * What a worker does to an image before the network sees it, on one core: image_load of the named files, again and
 * again. Prints images/s. With --write the pixels of the first file go to standard output instead, (H, W, 3).
 *
 *	bench-decode [--size HxW] [--rounds N] [--write] FILE…
 */
#include "engine/base/clock.h"
#include "engine/base/io.h"
#include "engine/image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct file {
	void *data;
	size_t len;
};

static int read_file(struct file *f, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r = fd < 0 ? -1 : io_read(fd, 64 << 20, &f->data, &f->len);

	if (fd >= 0)
		close(fd);
	return r;
}

int main(int argc, char **argv)
{
	int height = 224, width = 224, rounds = 3, at = 1, n, write_it = 0, r = 0;
	struct file *files;
	uint8_t *out;
	double start;

	for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
		if (strcmp(argv[at], "--write") == 0)
			write_it = 1;
		else if (strcmp(argv[at], "--size") == 0 && at + 1 < argc)
			r = sscanf(argv[++at], "%dx%d", &height, &width) == 2 ? 0 : -1;
		else if (strcmp(argv[at], "--rounds") == 0 && at + 1 < argc)
			rounds = atoi(argv[++at]);
		else
			r = -1;
	}
	n = argc - at;
	if (r < 0 || n < 1 || height < 1 || width < 1) {
		fputs("usage: bench-decode [--size HxW] [--rounds N] [--write] FILE...\n", stderr);
		return 2;
	}
	files = calloc((size_t)n, sizeof(*files));
	out = malloc((size_t)height * (size_t)width * 3);
	if (!files || !out)
		return 1;
	for (int i = 0; i < n; i++)
		if (read_file(&files[i], argv[at + i]) < 0) {
			perror(argv[at + i]);
			return 1;
		}
	start = clock_seconds();
	for (int k = 0; k < rounds; k++)
		for (int i = 0; i < n; i++)
			if (image_load(out, height, width, 3, files[i].data, files[i].len, NULL) < 0) {
				fprintf(stderr, "%s: can't be decoded\n", argv[at + i]);
				return 1;
			}
	if (!write_it)
		printf("%.1f\n", (double)n * rounds / (clock_seconds() - start));
	else if (image_load(out, height, width, 3, files[0].data, files[0].len, NULL) == 0)
		fwrite(out, 3, (size_t)height * (size_t)width, stdout);
	for (int i = 0; i < n; i++)
		free(files[i].data);
	free(files);
	free(out);
	return 0;
}
