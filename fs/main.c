/*
 * The inferfs command: one table of subcommands.
 */
#include "fs/command.h"
#include "engine/bench.h"
#include "sched/plan/plan.h"
#include "sched/simulate/simulate.h"
#include "sched/worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int version_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts("inferfs " INFERFS_VERSION);
	return 0;
}

static int help_main(int argc, char **argv);

static const struct command {
	const char *name, *help;
	int (*main)(int argc, char **argv);
} commands[] = {
	{"mount", "mount a tree", mount_main},
	{"umount", "unmount it and wait for its daemon", umount_main},
	{"bench", "print what the engine reaches on this device", bench_main},
	{"plan", "show what would be scheduled", plan_main},
	{"simulate", "run the scheduler against a trace", simulate_main},
	{"wait", "wait until a path exists", wait_main},
	{"fsck", "check a state directory", fsck_main},
	{"worker", "decode, train, infer for the daemon, which starts it", worker_main},
	{"--version", "print the version", version_main},
	{"--help", "print this", help_main},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *to)
{
	fprintf(to, "usage: inferfs COMMAND …\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(to, "inferfs COMMAND --help tells more.\n");
}

static int help_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	usage(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');

	/*
	 * For the workers that this process starts: OpenMP threads that wait spin for some 30 µs, as long as the gaps
	 * between two ops, and then sleep. By default libgomp's spin for ever, and where two workers, the mount
	 * and its clients share the cores they burn the time of the thread they wait for (measured on 2 busy
	 * cores: a mini-batch of 32 in 727 ms spinning, 14 ms sleeping at once). Sleeping at once costs a wake-up
	 * an op (the same mini-batch on an idle machine: 0.95 ms, after a short spin 0.48 ms).
	 */
	setenv("OMP_WAIT_POLICY", "passive", 0);
	setenv("GOMP_SPINCOUNT", "10000", 0);
	if (strcmp(slash ? slash + 1 : argv[0], "mount.inferfs") == 0)
		return mount_main(argc, argv);
	for (size_t i = 0; argc > 1 && i < N_COMMANDS; i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].main(argc - 1, argv + 1);
	usage(stderr);
	return 2;
}
