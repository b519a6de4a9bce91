/*
 * inferfs mount STATE MNT [-f] [-o OPTIONS], also as mount.inferfs (mount(8) calls it for fstab lines). The
 * daemon is forked before anything else exists; a pipe tells the parent that the tree answers, or why not.
 */
#include "engine/base/log.h"
#include "fs/command.h"
#include "fs/mount/mount.h"
#include "fs/state.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char usage[] =
	"usage: inferfs mount [--takeover] STATE MNT [-f] [-o OPTION[,OPTION]…]\n"
	"       mount.inferfs STATE MNT [-o OPTION[,OPTION]…]\n"
	"Mounts the tree that is kept in the directory STATE (made if missing) on MNT.\n"
	"Without -f it returns when the tree answers, and logs to STATE/log.\n"
	"--takeover: in place of the daemon that has it mounted, which ends; what is open stays open, "
	"and options that\n"
	"are not given stay as they were. When that fails, the old daemon goes on.\n"
	"SIGTERM unmounts, SIGUSR1 switches tracing.\n"
	"Exit status: 0 mounted, 1 not, 2 wrong usage.\n"
	"Options:\n";

static int fail(const char *what, int error)
{
	fprintf(stderr, "inferfs mount: %s: %s\n", what, strerror(error));
	return 1;
}

/* What can be said before the daemon exists; the paths become absolute. */
static int prepare(const char *state_arg, const char *mnt_arg, char *state, char *mnt)
{
	struct statvfs vfs;
	struct stat st;
	int r;

	r = mount_path(mnt_arg, mnt);
	if (r < 0)
		return fail(mnt_arg, -r);
	/* Left by a daemon that was killed? stat(2) could be answered from the kernel's cache. */
	if (statvfs(mnt, &vfs) < 0 && (errno == ENOTCONN || errno == ECONNABORTED)) {
		r = mount_detach(mnt);
		if (r < 0)
			return fail(mnt, -r);
		fprintf(stderr, "inferfs mount: %s: detached a mount whose daemon is gone\n", mnt);
	}
	if (stat(mnt, &st) < 0)
		return fail(mnt, errno);
	if (!S_ISDIR(st.st_mode))
		return fail(mnt, ENOTDIR);
	if (mount_find(mnt, NULL)) {
		fprintf(stderr, "inferfs mount: %s: already mounted\n", mnt);
		return 1;
	}
	if (access("/dev/fuse", R_OK | W_OK) < 0 && !(errno == EACCES && access("/dev/fuse", F_OK) == 0))
		return fail("/dev/fuse", errno);
	if (mkdir(state_arg, 0700) < 0 && errno != EEXIST)
		return fail(state_arg, errno);
	if (!realpath(state_arg, state))
		return fail(state_arg, errno);
	if (stat(state, &st) < 0)
		return fail(state, errno);
	if (!S_ISDIR(st.st_mode))
		return fail(state, ENOTDIR);
	if (access(state, W_OK | X_OK) < 0)
		return fail(state, errno);
	return 0;
}

/* The same for a mount that is there. Nothing below it may be touched: it is not served for a moment. */
static int prepare_takeover(const char *state_arg, const char *mnt_arg, char *state, char *mnt)
{
	char other[PATH_MAX];
	struct statvfs vfs;
	int r;

	r = mount_path(mnt_arg, mnt);
	if (r < 0)
		return fail(mnt_arg, -r);
	if (!realpath(state_arg, state))
		return fail(state_arg, errno);
	if (!mount_find(mnt, other)) {
		fprintf(stderr, "inferfs mount: %s: no inferfs is mounted there that could be taken over\n",
			mnt);
		return 1;
	}
	if (strcmp(other, state) != 0) {
		fprintf(stderr, "inferfs mount: %s: what is mounted there is kept in %s\n", mnt, other);
		return 1;
	}
	if (statvfs(mnt, &vfs) < 0 && (errno == ENOTCONN || errno == ECONNABORTED)) {
		fprintf(stderr, "inferfs mount: %s: its daemon is gone: mount it without --takeover\n", mnt);
		return 1;
	}
	return 0;
}

static void no_one_waits(void *data)
{
	(void)data;
}

static void tell_parent(void *data)
{
	int *fd = data;

	if (write(*fd, "", 1) != 1) /* NUL: it is mounted */
		log_warn("nobody waits for the mount");
	close(*fd);
	*fd = -1;
}

static int run_daemon(const char *state, const char *mnt, const struct mount_options *options, bool takeover,
		      int fd)
{
	char path[PATH_MAX + 8], text[640];
	struct err err = ERR_INIT;
	int null, log, r;

	snprintf(path, sizeof(path), "%s/log", state);
	setsid();
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (log < 0 || null < 0 || chdir("/") < 0) {
		dprintf(fd, "%s: %s", path, strerror(errno));
		return 1;
	}
	dup2(null, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	close(null);
	close(log);
	r = mount_run(state, mnt, options, takeover, tell_parent, &fd, &err);
	if (r < 0) {
		log_error("%s", err_format(&err, text, sizeof(text)));
		if (fd >= 0)
			dprintf(fd, "%s", text);
	}
	return r < 0;
}

static int start_daemon(const char *state, const char *mnt, const struct mount_options *options,
			bool takeover)
{
	char text[700];
	size_t len = 0;
	int fds[2];
	pid_t pid;
	ssize_t n;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return fail("pipe", errno);
	pid = fork();
	if (pid < 0)
		return fail("fork", errno);
	if (pid == 0) {
		close(fds[0]);
		return run_daemon(state, mnt, options, takeover, fds[1]);
	}
	close(fds[1]);
	while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) != 0) {
		if (n < 0 && errno != EINTR)
			break;
		if (n > 0)
			len += n;
		if (len && !text[0])
			return 0;
	}
	text[len] = '\0';
	fprintf(stderr, "inferfs mount: %s\n",
		len ? text : "the daemon died; see the log in the state directory");
	return 1;
}

int mount_main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"help", no_argument, NULL, 'h'}, {"takeover", no_argument, NULL, 'T'}, {0}};
	const char *slash = strrchr(argv[0], '/');
	bool helper = strncmp(slash ? slash + 1 : argv[0], "mount.", 6) == 0, foreground = false,
	     takeover = false;
	char state[PATH_MAX], mnt[PATH_MAX], text[640];
	struct mount_options options;
	struct err err = ERR_INIT;
	int opt, r;

	options_init(&options);
	while ((opt = getopt_long(argc, argv, "fo:hsnvt:", longs, NULL)) != -1) {
		switch (opt) {
		case 'h':
			fputs(usage, stdout);
			options_help(stdout);
			return 0;
		case 'f':
			if (helper) /* mount(8)'s "fake" */
				return 0;
			foreground = true;
			break;
		case 'T':
			takeover = true;
			break;
		case 'o':
			if (options_parse(&options, optarg, &err) < 0) {
				fprintf(stderr, "inferfs mount: %s\n", err_format(&err, text, sizeof(text)));
				return 2;
			}
			break;
		case 's':
		case 'n':
		case 'v':
		case 't':
			if (helper) /* mount(8) passes these on; they change nothing here */
				break;
			/* fall through */
		default:
			fputs(usage, stderr);
			options_help(stderr);
			return 2;
		}
	}
	if (optind != argc - 2) {
		fputs(usage, stderr);
		options_help(stderr);
		return 2;
	}
	r = takeover ? prepare_takeover(argv[optind], argv[optind + 1], state, mnt)
		     : prepare(argv[optind], argv[optind + 1], state, mnt);
	if (r)
		return r;
	log_init("daemon");
	if (!foreground)
		return start_daemon(state, mnt, &options, takeover);
	r = mount_run(state, mnt, &options, takeover, no_one_waits, NULL, &err);
	if (r < 0)
		fprintf(stderr, "inferfs mount: %s\n", err_format(&err, text, sizeof(text)));
	return r < 0;
}
