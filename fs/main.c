/*
 * The inferfs command: one table of subcommands.
 */
#include "fs/command.h"
#include "engine/bench.h"
#include "sched/plan/plan.h"
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

static const struct command {
	const char *name, *help;
	int (*main)(int argc, char **argv);
} commands[] = {
	{"bench", "print what the engine reaches on this device", bench_main},
	{"plan", "show what would be scheduled", plan_main},
	{"wait", "wait until a path exists", wait_main},
	{"worker", "decode, train, infer for the daemon, which starts it", worker_main},
	{"--version", "print the version", version_main},
};

int main(int argc, char **argv)
{
	/*
	 * For the workers that this process starts: OpenMP threads that wait must sleep. By default libgomp's spin, and where
	 * two workers, the mount and its clients share the cores they burn the time of the thread they wait for
	 * (measured on 2 busy cores: a mini-batch of 32 in 727 ms spinning, 14 ms sleeping; idle, one instance costs
	 * 0.2 ms more).
	 */
	setenv("OMP_WAIT_POLICY", "passive", 0);
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].main(argc - 1, argv + 1);
	fprintf(stderr, "usage: inferfs COMMAND …\n");
	return 2;
}
