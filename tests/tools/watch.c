/*
 * watch DIR [SECONDS]: prints a line "UNIX-TIME EVENT PATH" for each file that appears below DIR
 * (MOVED_TO, CREATE) or is deleted (DELETE), directories made meanwhile included, until SECONDS are over or it is
 * killed. What a file-watching pipeline sees.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MASK (IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR)

static char *paths[65536]; /* by watch descriptor */
static int fd;

static void print(const struct timespec *ts, const char *event, const char *dir, const char *name)
{
	printf("%lld.%06ld %s %s/%s\n", (long long)ts->tv_sec, ts->tv_nsec / 1000, event, dir, name);
}

static void add(const char *path)
{
	int wd = inotify_add_watch(fd, path, MASK);
	struct dirent *entry;
	DIR *dir;

	if (wd < 0 || wd >= (int)(sizeof(paths) / sizeof(paths[0]))) {
		if (errno != ENOENT)
			fprintf(stderr, "watch: %s: %s\n", path, strerror(errno));
		return;
	}
	if (paths[wd]) /* already watched: a directory is met by its event and by its parent's listing */
		return;
	paths[wd] = strdup(path);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		char child[PATH_MAX];

		if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 ||
		    strcmp(entry->d_name, "..") == 0)
			continue;
		if (snprintf(child, sizeof(child), "%s/%s", path, entry->d_name) < (int)sizeof(child))
			add(child);
	}
	if (dir)
		closedir(dir);
}

int main(int argc, char **argv)
{
	char events[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
	time_t end = argc > 2 ? time(NULL) + atoi(argv[2]) : 0;

	if (argc < 2) {
		fprintf(stderr, "usage: watch DIR [SECONDS]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	setpriority(PRIO_PROCESS, 0, -20); /* an instrument: it must not wait for what it measures */
	fd = inotify_init1(IN_CLOEXEC);
	add(argv[1]);
	printf("ready\n");
	while (!end || time(NULL) < end) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		struct timespec seen;
		ssize_t n;

		if (poll(&p, 1, 1000) <= 0)
			continue;
		n = read(fd, events, sizeof(events));
		clock_gettime(CLOCK_REALTIME, &seen);
		for (char *at = events; n > 0 && at < events + n;) {
			struct inotify_event *e = (struct inotify_event *)at;
			char child[PATH_MAX];

			at += sizeof(*e) + e->len;
			if (e->mask & IN_Q_OVERFLOW) {
				fprintf(stderr, "watch: events were lost\n");
				return 1;
			}
			if (!e->len || !paths[e->wd])
				continue;
			if (e->mask & IN_ISDIR) {
				if (!(e->mask & IN_DELETE) &&
				    snprintf(child, sizeof(child), "%s/%s", paths[e->wd], e->name) <
					    (int)sizeof(child))
					add(child);
				continue;
			}
			print(&seen,
			      e->mask & IN_MOVED_TO ? "MOVED_TO"
			      : e->mask & IN_CREATE ? "CREATE"
						    : "DELETE",
			      paths[e->wd], e->name);
		}
	}
	return 0;
}
