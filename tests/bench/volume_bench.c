/*
 * Figures of the volume: volume-bench DIR [FILES]. DIR must not exist.
 * Create = create, open, write 2 KiB, flush, close. The queue is emptied in a scattered order.
 */
#include "fs/volume/volume.h"

#include "engine/base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct volume *vol;

static void check(const char *what, int r)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-r));
	exit(1);
}

static int count(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	(void)name;
	(void)cookie;
	(void)attr;
	++*(int *)data;
	return 0;
}

static void list(uint64_t dir, bool attrs)
{
	int n = 0;
	double start = clock_seconds();

	check("readdir", vol_readdir(vol, dir, 0, attrs, count, &n));
	printf("list %d entries%s: %.3f ms\n", n, attrs ? " with attributes" : "",
	       (clock_seconds() - start) * 1e3);
}

static void rss(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "VmRSS", 5) == 0 || strncmp(line, "VmHWM", 5) == 0)
			fputs(line, stdout);
	if (f)
		fclose(f);
}

int main(int argc, char **argv)
{
	static char data[64 * 1024];
	int files = argc > 2 ? atoi(argv[2]) : 100000;
	size_t size = argc > 3 ? (size_t)atoi(argv[3]) : 2048;
	struct vol_attr dir, attr;
	double start;
	char name[32];

	if (argc < 2 || files < 1 || size > sizeof(data))
		return 2;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 2654435761u >> 9);
	check("open", volume_open(&vol, argv[1], 0, NULL));
	check("mkdir", vol_create(vol, VOL_ROOT, "in", &(struct vol_new){.mode = S_IFDIR | 0755}, &dir));
	start = clock_seconds();
	for (int i = 0; i < files; i++) {
		struct vol_file *f;

		snprintf(name, sizeof(name), "%d", i);
		check("create", vol_create(vol, dir.ino, name, &(struct vol_new){.mode = S_IFREG}, &attr));
		check("open", vol_file_open(vol, attr.ino, O_WRONLY, &f));
		check("write", (int)vol_write(f, data, size, 0));
		check("flush", vol_flush(f));
		vol_file_close(f);
	}
	printf("create %d files of %zu bytes: %.0f/s\n", files, size, files / (clock_seconds() - start));
	rss();
	list(dir.ino, false);
	list(dir.ino, true);
	start = clock_seconds();
	for (int i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "%d", (int)((i * 7919LL + 13) % files));
		check("lookup", vol_lookup(vol, dir.ino, name, &attr));
	}
	printf("lookup: %.0f/s\n", files / (clock_seconds() - start));
	start = clock_seconds();
	for (int i = 0; i < files - 1; i++) {
		snprintf(name, sizeof(name), "%d", (int)((i * 7919LL + 13) % files));
		check("unlink", vol_unlink(vol, dir.ino, name, NULL));
	}
	printf("unlink: %.0f/s\n", (files - 1) / (clock_seconds() - start));
	for (int i = 0; i < 5; i++)
		list(dir.ino, false);
	rss();
	volume_close(vol);
	return 0;
}
