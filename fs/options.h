/*
 * Private to fs: the options of `inferfs mount`. options.c has the one table that yields parsing, ranges and
 * --help.
 */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct mount_options {
	int64_t settle_ns, settle_batch_ns;
	int64_t queue, queue_bytes;
	int64_t threads, workers, worker_threads;
	int64_t max_bytes; /* 0: no limit */
	bool allow_other, null_backend, trace, clone_fd, power_save, no_passthrough, no_ahead;
	char given[1024]; /* all that was parsed, as text that options_parse takes */
};

void options_init(struct mount_options *options); /* the defaults */
/* One -o argument: NAME or NAME=VALUE, comma separated; as with mount(8), later ones win. -EINVAL. */
int options_parse(struct mount_options *options, const char *text, struct err *err);
void options_help(FILE *to);

#endif
