/*
 * burst copy FROM TO COUNT: copies the files of FROM to TO/000000.png and so on, again and again until there are COUNT, and prints
 * seconds and the longest open, write and close in ms.
 * burst probe MNT: a client that does other things in the tree meanwhile: every 20 ms it lists MNT, reads MNT/status and makes, writes and removes
 * MNT/datasets/probe/x. At SIGTERM it prints the longest call of each kind in ms.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct content {
	char *data;
	size_t len;
};

static volatile sig_atomic_t ended;

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Time since *at, which becomes now, into *longest. */
static void lap(double *at, double *longest)
{
	double now = now_ms();

	if (now - *at > *longest)
		*longest = now - *at;
	*at = now;
}

static void die(const char *what)
{
	fprintf(stderr, "burst: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct content read_file(const char *dir, const char *name)
{
	char path[4096];
	struct content c = {NULL, 0};
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	c.data = malloc((size_t)st.st_size + 1);
	if (!c.data || read(fd, c.data, (size_t)st.st_size) != st.st_size)
		die(path);
	c.len = (size_t)st.st_size;
	close(fd);
	return c;
}

static struct content *read_all(const char *dir, size_t *ret_n)
{
	struct dirent **entries;
	int n = scandir(dir, &entries, NULL, alphasort);
	struct content *all = calloc(n > 0 ? (size_t)n : 1, sizeof(*all));

	if (n < 0 || !all)
		die(dir);
	*ret_n = 0;
	for (int i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.')
			all[(*ret_n)++] = read_file(dir, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return all;
}

static int copy(const char *from, const char *to, int count)
{
	size_t n;
	struct content *all = read_all(from, &n);
	double begun = now_ms(), at, opening = 0, writing = 0, closing = 0;

	for (int i = 0; n && i < count; i++) {
		const struct content *c = &all[(size_t)i % n];
		char path[4096];
		int fd;

		snprintf(path, sizeof(path), "%s/%06d.png", to, i);
		at = now_ms();
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
		lap(&at, &opening);
		if (fd < 0 || write(fd, c->data, c->len) != (ssize_t)c->len)
			die(path);
		lap(&at, &writing);
		if (close(fd) < 0)
			die(path);
		lap(&at, &closing);
	}
	printf("seconds %.1f longest_open_ms %.1f longest_write_ms %.1f longest_close_ms %.1f\n",
	       (now_ms() - begun) / 1e3, opening, writing, closing);
	for (size_t i = 0; i < n; i++)
		free(all[i].data);
	free(all);
	return n ? 0 : 1;
}

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

static int probe(const char *mnt)
{
	double at, listing = 0, reading = 0, making = 0, writing = 0, removing = 0;
	char status[4096], file[4096], text[4096];

	snprintf(status, sizeof(status), "%s/status", mnt);
	snprintf(file, sizeof(file), "%s/datasets/probe", mnt);
	if (mkdir(file, 0755) < 0 && errno != EEXIST)
		die(file);
	snprintf(file, sizeof(file), "%s/datasets/probe/x", mnt);
	signal(SIGTERM, end);
	while (!ended) {
		DIR *dir;
		int fd;

		at = now_ms();
		dir = opendir(mnt);
		while (dir && readdir(dir))
			;
		if (!dir || closedir(dir) < 0)
			die(mnt);
		lap(&at, &listing);
		fd = open(status, O_RDONLY);
		if (fd >= 0) {
			if (read(fd, text, sizeof(text)) < 0)
				die(status);
			close(fd);
		}
		lap(&at, &reading);
		fd = open(file, O_WRONLY | O_CREAT, 0644);
		lap(&at, &making);
		if (fd < 0 || write(fd, "x", 1) != 1 || close(fd) < 0)
			die(file);
		lap(&at, &writing);
		if (unlink(file) < 0)
			die(file);
		lap(&at, &removing);
		usleep(20000);
	}
	printf("longest_list_ms %.1f read %.1f create %.1f write %.1f unlink %.1f\n", listing, reading,
	       making, writing, removing);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "copy") == 0)
		return copy(argv[2], argv[3], atoi(argv[4]));
	if (argc == 3 && strcmp(argv[1], "probe") == 0)
		return probe(argv[2]);
	fprintf(stderr, "usage: burst copy FROM TO COUNT | burst probe MNT\n");
	return 2;
}
