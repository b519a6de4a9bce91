/*
 * inferfs umount MNT: asks the daemon to end and waits until it has, so that the state directory is free when
 * it returns.
 */
#include "fs/command.h"
#include "fs/state.h"
#include "sched/sched.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

static const char usage[] = "usage: inferfs umount MNT [--timeout T] [--lazy]\n"
			    "Ends the daemon of the tree on MNT: what runs is finished or left resumable. "
			    "Waits until it is gone,\n"
			    "at most T (60s). --lazy takes the tree away from MNT at once; the daemon ends "
			    "when no program has a\n"
			    "file in it open any more, and is not waited for.\n"
			    "Exit status: 0 unmounted, 1 not (or not in time), 2 wrong usage.\n";

static int wait_gone(int daemon, int64_t timeout_ns)
{
	struct pollfd pfd = {.fd = daemon, .events = POLLIN};
	int r;

	if (pidfd_send_signal(daemon, SIGTERM, NULL, 0) < 0)
		return errno == ESRCH ? 0 : -errno;
	r = poll(&pfd, 1, timeout_ns / 1000000 < INT32_MAX ? timeout_ns / 1000000 : INT32_MAX);
	return r > 0 ? 0 : r == 0 ? -ETIMEDOUT : -errno;
}

int umount_main(int argc, char **argv)
{
	static const struct option longs[] = {{"timeout", required_argument, NULL, 't'},
					      {"lazy", no_argument, NULL, 'l'},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	struct deadline timeout = {.ns = INT64_C(60000000000)};
	char mnt[PATH_MAX], state[PATH_MAX];
	bool lazy = false;
	int opt, r, daemon;

	while ((opt = getopt_long(argc, argv, "t:lh", longs, NULL)) != -1) {
		if (opt == 'h') {
			fputs(usage, stdout);
			return 0;
		}
		if (opt == 'l') {
			lazy = true;
		} else if (opt != 't' || deadline_parse(&timeout, optarg, strlen(optarg), NULL) < 0 ||
			   timeout.absolute) {
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind != argc - 1) {
		fputs(usage, stderr);
		return 2;
	}
	r = mount_path(argv[optind], mnt);
	if (r == 0 && !mount_find(mnt, state))
		r = -EINVAL;
	if (r < 0) {
		fprintf(stderr, "inferfs umount: %s: %s\n", argv[optind],
			r == -EINVAL ? "no inferfs is mounted there" : strerror(-r));
		return 1;
	}
	daemon = lazy ? -ESRCH : state_daemon(state);
	if (daemon == -ESRCH) {
		r = mount_detach(mnt);
	} else if (daemon < 0) {
		r = daemon;
	} else {
		r = wait_gone(daemon, timeout.ns);
		close(daemon);
		/* It can't take a mount away that was moved or bound elsewhere meanwhile. */
		if (r == 0 && mount_find(mnt, NULL))
			r = mount_detach(mnt);
	}
	if (r < 0)
		fprintf(stderr, "inferfs umount: %s: %s\n", mnt,
			r == -ETIMEDOUT ? "the daemon still runs" : strerror(-r));
	return r < 0;
}
