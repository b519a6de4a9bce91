/*
 * Private to fs: slices that are being exported. One thread makes one after the other, each by a worker process (sched/exporter.h), and
 * puts it into the volume whole. Who looks for one waits: a handler leaves its request aside (server_park) and goes on.
 *
 *	r = exports_ask(exports, &wish, park, server);	// 0: parked, without an answer; it is served again when it was made, or wasn't
 *
 * It is put there directly, not by a rename through the mount as what else we write: as long as somebody looks for a name in a directory
 * the kernel lets nobody rename there. For the same reason the publisher must never have anything to do in export/: it would stand
 * still, and with it all answers. What went wrong is told one directory up, in `error`.
 */
#ifndef FS_EXPORTS_H
#define FS_EXPORTS_H

#include "fs/node/tree.h"

struct exports;

int exports_new(struct exports **ret, struct volume *vol, struct glue *glue,
		int (*spawn)(void *host, const char *kind, int *ret_fd, int *ret_pid));
/* Gives up the one at hand; what is asked for from now on is parked for good. */
void exports_stop(struct exports *e);
void exports_free(struct exports *e); /* stops; NULL is allowed */
/* served is called when what is parked with a ticket can be served again: by any thread. Before the first ask. */
void exports_on_made(struct exports *e, void (*made)(void *data, uint64_t ticket), void *data);

/*
 * Any thread, does not wait. 0: it is on its way, and park(data, ticket) was called, with a lock held; below 0: the answer, of a
 * moment ago.
 */
int exports_ask(struct exports *e, const struct tree_export *wish, int (*park)(void *data, uint64_t ticket),
		void *data);

#endif
