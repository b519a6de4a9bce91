/*
 * smallfiles create|read|stat DIR COUNT SIZE THREADS: makes COUNT files of SIZE bytes in DIR (open, write, close), or
 * opens, reads and closes them, or stats them, and prints files a second. Each thread has its own share of the names.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct share {
	pthread_t thread;
	const char *dir, *what;
	int first, n;
	size_t size;
	int error;
};

static int one(const struct share *s, int i, char *buf)
{
	char path[4096];
	struct stat st;
	ssize_t n;
	int fd, r = 0;

	snprintf(path, sizeof(path), "%s/%06d", s->dir, i);
	if (strcmp(s->what, "stat") == 0)
		return stat(path, &st) < 0 ? -errno : 0;
	fd = strcmp(s->what, "create") == 0 ? open(path, O_WRONLY | O_CREAT | O_EXCL, 0644)
					    : open(path, O_RDONLY);
	if (fd < 0)
		return -errno;
	n = strcmp(s->what, "create") == 0 ? write(fd, buf, s->size) : read(fd, buf, s->size);
	if (n != (ssize_t)s->size)
		r = n < 0 ? -errno : -EIO;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

static void *run(void *data)
{
	struct share *s = data;
	char *buf = malloc(s->size ? s->size : 1);

	if (!buf)
		s->error = -ENOMEM;
	else
		memset(buf, 'x', s->size);
	for (int i = s->first; s->error == 0 && i < s->first + s->n; i++)
		s->error = one(s, i, buf);
	free(buf);
	return NULL;
}

int main(int argc, char **argv)
{
	struct share shares[64];
	struct timespec start, end;
	int count, threads, error = 0;
	double seconds;

	if (argc != 6 || (count = atoi(argv[3])) < 1 || (threads = atoi(argv[5])) < 1 || threads > 64) {
		fprintf(stderr, "usage: smallfiles create|read|stat DIR COUNT SIZE THREADS\n");
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < threads; i++) {
		int first = (int)((long)count * i / threads), next = (int)((long)count * (i + 1) / threads);

		shares[i] = (struct share){.dir = argv[2],
					   .what = argv[1],
					   .first = first,
					   .n = next - first,
					   .size = strtoul(argv[4], NULL, 10)};
		if (pthread_create(&shares[i].thread, NULL, run, &shares[i]) != 0)
			return 1;
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(shares[i].thread, NULL);
		if (shares[i].error)
			error = shares[i].error;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (error) {
		fprintf(stderr, "smallfiles: %s\n", strerror(-error));
		return 1;
	}
	seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
	printf("%.0f\n", count / seconds);
	return 0;
}
