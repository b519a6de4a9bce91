#include "fs/state.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Field 22 of /proc/PID/stat, counted behind the name, which may hold anything. 0: no such process. */
static unsigned long long start_time(int pid)
{
	unsigned long long start = 0;
	char path[64], text[1024], *at;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	at = strrchr(text, ')');
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (at)
		start = strtoull(at, NULL, 10);
	return start;
}

int state_write_pid(const char *state_dir, struct err *err)
{
	char path[PATH_MAX], new[PATH_MAX];
	FILE *f;
	int r;

	snprintf(path, sizeof(path), "%s/pid", state_dir);
	snprintf(new, sizeof(new), "%s/pid.new", state_dir);
	f = fopen(new, "we");
	if (f)
		fchmod(fileno(f), 0644);
	r = f ? fprintf(f, "%d %llu\n", (int)getpid(), start_time(getpid())) : -1;
	if (f && fclose(f) != 0)
		r = -1;
	if (r >= 0)
		r = rename(new, path); /* whoever reads it finds one daemon or the other */
	return r < 0 ? err_set(err, ERR_IO, "writing %s: %s", path, strerror(errno)) : 0;
}

void state_remove_pid(const char *state_dir)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/pid", state_dir);
	unlink(path);
}

int state_daemon(const char *state_dir)
{
	unsigned long long start;
	char path[PATH_MAX];
	int pid, fd, n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/pid", state_dir);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	n = fscanf(f, "%d %llu", &pid, &start);
	fclose(f);
	if (n != 2 || pid <= 0)
		return -ESRCH;
	fd = pidfd_open(pid, 0);
	if (fd < 0)
		return -errno;
	if (start_time(pid) != start) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

int mount_path(const char *path, char *ret)
{
	char copy[PATH_MAX], up[PATH_MAX];
	size_t len = strlen(path);
	const char *name;
	char *slash;

	if (realpath(path, ret))
		return 0;
	if (errno != ENOTCONN && errno != ECONNABORTED && errno != EIO)
		return -errno;
	while (len > 1 && path[len - 1] == '/')
		len--;
	if (len >= sizeof(copy))
		return -ENAMETOOLONG;
	memcpy(copy, path, len);
	copy[len] = '\0';
	slash = strrchr(copy, '/');
	name = slash ? slash + 1 : copy;
	if (slash)
		*slash = '\0';
	if (!realpath(slash ? (slash == copy ? "/" : copy) : ".", up))
		return -errno;
	return snprintf(ret, PATH_MAX, "%s/%s", strcmp(up, "/") == 0 ? "" : up, name) >= PATH_MAX
		       ? -ENAMETOOLONG
		       : 0;
}

bool mount_find(const char *mnt, char *state_dir)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	char buf[3 * PATH_MAX];
	struct mntent entry;
	bool found = false;

	if (!mounts)
		return false;
	while (getmntent_r(mounts, &entry, buf, sizeof(buf))) {
		if (strcmp(entry.mnt_dir, mnt) != 0)
			continue;
		found = strcmp(entry.mnt_type, "fuse.inferfs") == 0; /* the last one is on top */
		if (found && state_dir)
			snprintf(state_dir, PATH_MAX, "%s", entry.mnt_fsname);
	}
	endmntent(mounts);
	return found;
}

int mount_detach(const char *mnt)
{
	int status;
	pid_t pid;

	if (umount2(mnt, MNT_DETACH) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	pid = fork();
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", mnt, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}
