/*
 * One slice becomes an ONNX file, by a worker process that lives as long as that takes. Unlike the scheduler's peers it is waited for:
 * the caller has a thread for it.
 *
 *	ask = (struct export_ask){ .json_fd = …, .to_fd = blob, .rate = 0.5, .cancel_fd = eventfd };
 *	r = exporter_run(spawn, host, &ask, &err);	// to_fd holds the file, and nobody writes to it any more
 */
#ifndef SCHED_EXPORTER_H
#define SCHED_EXPORTER_H

#include "engine/base/err.h"

#include <stdint.h>

#define EXPORT_MAX (UINT64_C(2) << 30) /* protobuf's own limit */

struct export_ask {
	int json_fd, weights_fd, labels_fd; /* labels_fd -1: none */
	int to_fd;
	float rate;
	int cancel_fd; /* readable: give up */
};

/* spawn: as in host_ops. -ECANCELED; -ENOENT (NO_SLICE); else the cause is in err. */
int exporter_run(int (*spawn)(void *host, const char *kind, int *ret_fd, int *ret_pid), void *host,
		 const struct export_ask *ask, struct err *err);

#endif
