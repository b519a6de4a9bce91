/* inferfs fsck STATE: the volume's invariants, from a shell. */
#include "fs/command.h"
#include "fs/volume/volume.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

static const char usage[] =
	"usage: inferfs fsck STATE [--repair]\n"
	"Checks the state directory of a tree that is not mounted; says each fault in one line.\n"
	"Exit status: 0 clean, 1 all faults repaired, 4 faults are left, 8 it can't be checked,\n"
	"2 wrong usage.\n";

static void say(void *data, const char *line)
{
	(void)data;
	puts(line);
}

int fsck_main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"repair", no_argument, NULL, 'r'}, {"help", no_argument, NULL, 'h'}, {0}};
	struct fsck_report report = {0};
	struct err err = ERR_INIT;
	bool repair = false;
	char text[640];
	int opt;

	while ((opt = getopt_long(argc, argv, "rh", longs, NULL)) != -1) {
		if (opt == 'h') {
			fputs(usage, stdout);
			return 0;
		}
		if (opt != 'r') {
			fputs(usage, stderr);
			return 2;
		}
		repair = true;
	}
	if (optind != argc - 1) {
		fputs(usage, stderr);
		return 2;
	}
	if (volume_fsck(argv[optind], repair, say, NULL, &report, &err) < 0) {
		fprintf(stderr, "inferfs fsck: %s\n", err_format(&err, text, sizeof(text)));
		return 8;
	}
	printf("%" PRIu64 " inodes, %" PRIu64 " names, %" PRIu64 " blobs: %" PRIu64 " faults, %" PRIu64
	       " repaired\n",
	       report.inodes, report.dentries, report.blobs, report.faults, report.repaired);
	return report.faults == 0 ? 0 : report.repaired >= report.faults ? 1 : 4;
}
