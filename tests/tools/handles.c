/*
 * What an NFS server does with a mount: file handles and places in directory listings, kept as text over anything that
 * happens to caches, daemon and mount meanwhile.
 *
 *	handles get PATH...             prints a line "TYPE BYTES PATH" for each
 *	handles open MNT <LINES         opens each: "PATH INO FIRST-LINE", of a directory "PATH INO", or "PATH ERROR"
 *	handles write MNT TEXT <LINES   opens each for writing, empties it, writes TEXT
 *	handles list DIR [COOKIE]       prints "COOKIE NAME" for what comes after COOKIE
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

union handle {
	struct file_handle head;
	char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

static int get(const char *path)
{
	union handle h = {.head.handle_bytes = MAX_HANDLE_SZ};
	int mount_id;

	if (name_to_handle_at(AT_FDCWD, path, &h.head, &mount_id, 0) < 0) {
		fprintf(stderr, "handles: %s: %s\n", path, strerror(errno));
		return 1;
	}
	printf("%d ", h.head.handle_type);
	for (unsigned i = 0; i < h.head.handle_bytes; i++)
		printf("%02x", h.head.f_handle[i]);
	printf(" %s\n", path);
	return 0;
}

static int parse(char *line, union handle *ret, char **path)
{
	int at = 0, end = 0;

	memset(ret, 0, sizeof(*ret));
	if (sscanf(line, "%d %n%*s%n", &ret->head.handle_type, &at, &end) != 1 || !end || line[end] != ' ' ||
	    (end - at) / 2 > MAX_HANDLE_SZ)
		return -1;
	for (; at + 1 < end; at += 2) {
		unsigned byte;

		if (sscanf(line + at, "%2x", &byte) != 1)
			return -1;
		ret->head.f_handle[ret->head.handle_bytes++] = (unsigned char)byte;
	}
	*path = line + end + 1;
	(*path)[strcspn(*path, "\n")] = '\0';
	return 0;
}

static void show(int fd, const char *path)
{
	char text[256];
	struct stat st;
	ssize_t n = 0;

	if (fstat(fd, &st) < 0) {
		printf("%s %s\n", path, strerrorname_np(errno));
		return;
	}
	if (S_ISREG(st.st_mode))
		n = read(fd, text, sizeof(text) - 1);
	if (n < 0) {
		printf("%s %s\n", path, strerrorname_np(errno));
		return;
	}
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	printf("%s %llu%s%s\n", path, (unsigned long long)st.st_ino, n ? " " : "", text);
}

static int each(const char *mnt, const char *write_text)
{
	int mount_fd = open(mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	char line[8192], *path;
	union handle h;

	if (mount_fd < 0) {
		fprintf(stderr, "handles: %s: %s\n", mnt, strerror(errno));
		return 1;
	}
	while (fgets(line, sizeof(line), stdin)) {
		int fd;

		if (parse(line, &h, &path) < 0) {
			fprintf(stderr, "handles: not a handle: %s", line);
			r = 1;
			break;
		}
		fd = open_by_handle_at(mount_fd, &h.head,
				       (write_text ? O_WRONLY | O_TRUNC : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0) {
			printf("%s %s\n", path, strerrorname_np(errno));
			continue;
		}
		if (!write_text) {
			show(fd, path);
		} else if (write(fd, write_text, strlen(write_text)) != (ssize_t)strlen(write_text)) {
			fprintf(stderr, "handles: %s: %s\n", path, strerror(errno));
			r = 1;
		}
		if (close(fd) < 0)
			r = 1;
	}
	close(mount_fd);
	return r;
}

static int list(const char *path, const char *cookie)
{
	struct dirent *entry;
	DIR *dir = opendir(path);

	if (!dir) {
		fprintf(stderr, "handles: %s: %s\n", path, strerror(errno));
		return 1;
	}
	if (cookie)
		seekdir(dir, strtol(cookie, NULL, 10));
	errno = 0;
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			printf("%ld %s\n", telldir(dir), entry->d_name);
	if (errno)
		fprintf(stderr, "handles: %s: %s\n", path, strerror(errno));
	closedir(dir);
	return errno != 0;
}

int main(int argc, char **argv)
{
	int r = 0;

	if (argc > 2 && strcmp(argv[1], "get") == 0)
		for (int i = 2; i < argc; i++)
			r |= get(argv[i]);
	else if (argc == 3 && strcmp(argv[1], "open") == 0)
		r = each(argv[2], NULL);
	else if (argc == 4 && strcmp(argv[1], "write") == 0)
		r = each(argv[2], argv[3]);
	else if ((argc == 3 || argc == 4) && strcmp(argv[1], "list") == 0)
		r = list(argv[2], argv[3]);
	else
		r = 2;
	return r;
}
