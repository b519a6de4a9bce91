/*
 * latency APP FILE COUNT [DEADLINE]: COUNT times, one after the other on an idle endpoint, writes FILE into
 * APP/in/ under a new name as cp does, and prints the milliseconds from the end of close() to the moment
 * inotify shows the answer in APP/out/; last a line with median, 90 % and maximum. With DEADLINE it is set
 * as the in/ directory's xattr first.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Until `name` appears in the watched directory, 30 s at most. */
static int wait_for(int fd, const char *name)
{
	char events[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
	double end = now_ms() + 30000;

	while (now_ms() < end) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, 1000) <= 0)
			continue;
		n = read(fd, events, sizeof(events));
		for (char *at = events; n > 0 && at < events + n;) {
			struct inotify_event *e = (struct inotify_event *)at;

			at += sizeof(*e) + e->len;
			if (e->len && strcmp(e->name, name) == 0)
				return 0;
		}
	}
	return -1;
}

int main(int argc, char **argv)
{
	char path[PATH_MAX], name[128], *content;
	int count, fd, watch;
	struct stat st;
	double *ms;

	if (argc < 4 || (count = atoi(argv[3])) < 1) {
		fprintf(stderr, "usage: latency APP FILE COUNT [DEADLINE]\n");
		return 2;
	}
	fd = open(argv[2], O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0 || !(content = malloc(st.st_size)) ||
	    read(fd, content, st.st_size) != st.st_size) {
		perror(argv[2]);
		return 1;
	}
	close(fd);
	snprintf(path, sizeof(path), "%s/in", argv[1]);
	if (argc > 4 && setxattr(path, "user.deadline", argv[4], strlen(argv[4]), 0) < 0) {
		perror("setxattr user.deadline");
		return 1;
	}
	watch = inotify_init1(IN_CLOEXEC);
	snprintf(path, sizeof(path), "%s/out", argv[1]);
	if (inotify_add_watch(watch, path, IN_MOVED_TO) < 0) {
		perror(path);
		return 1;
	}
	ms = calloc(count, sizeof(*ms));
	for (int i = 0; ms && i < count; i++) {
		double start;

		snprintf(path, sizeof(path), "%s/in/latency-%d-%d.png", argv[1], (int)getpid(), i);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || write(fd, content, st.st_size) != st.st_size || close(fd) < 0) {
			perror(path);
			return 1;
		}
		start = now_ms();
		snprintf(name, sizeof(name), "latency-%d-%d.png.json", (int)getpid(), i);
		if (wait_for(watch, name) < 0) {
			fprintf(stderr, "latency: %s did not appear\n", name);
			return 1;
		}
		ms[i] = now_ms() - start;
		printf("%.2f\n", ms[i]);
		usleep(300000); /* then the task is ended, its files are published, the endpoint is idle */
	}
	qsort(ms, count, sizeof(*ms), compare);
	printf("median %.2f ms, 90 %% %.2f ms, max %.2f ms\n", ms[count / 2], ms[count * 9 / 10],
	       ms[count - 1]);
	free(ms);
	free(content);
	return 0;
}
