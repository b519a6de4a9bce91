/*
 * inferfs wait PATH [--timeout T]: for shell scripts that have nothing better than a loop around `test -e`.
 * It looks at the path rather than watching directories, since none of them need exist yet.
 */
#include "fs/command.h"
#include "engine/base/clock.h"
#include "sched/sched.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int wait_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"timeout", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {0}};
	static const char usage[] =
		"usage: inferfs wait PATH [--timeout T]\n"
		"Waits until PATH exists. T: 5, 5s, 800ms, 2m or @UNIXTIME; for ever without it.\n"
		"Exit status: 0 PATH exists, 1 not in time, 2 wrong usage or PATH can't be looked at.\n";
	struct deadline limit = {0};
	struct err err = ERR_INIT;
	char text[512];
	struct stat st;
	int64_t end;
	int opt;

	while ((opt = getopt_long(argc, argv, "t:h", options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(usage, stdout);
			return 0;
		}
		if (opt != 't') {
			fputs(usage, stderr);
			return 2;
		}
		if (deadline_parse(&limit, optarg, strlen(optarg), &err) < 0) {
			fprintf(stderr, "inferfs wait: --timeout: %s\n",
				err_format(&err, text, sizeof(text)));
			return 2;
		}
	}
	if (optind != argc - 1) {
		fputs(usage, stderr);
		return 2;
	}
	end = limit.absolute ? limit.ns - (int64_t)time(NULL) * INT64_C(1000000000) + clock_monotonic_ns()
			     : clock_monotonic_ns() + limit.ns;
	for (int64_t pause = 1000000;; pause = pause < 50000000 ? pause * 2 : pause) {
		if (lstat(argv[optind], &st) == 0)
			return 0;
		/* A mount whose daemon is gone may be mounted again. */
		if (errno != ENOENT && errno != ENOTDIR && errno != ENOTCONN && errno != ESTALE) {
			fprintf(stderr, "inferfs wait: %s: %s\n", argv[optind], strerror(errno));
			return 2;
		}
		if (limit.set && clock_monotonic_ns() >= end)
			return 1;
		nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
	}
}
